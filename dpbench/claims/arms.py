"""The runs that test a claim, and the measurements that are read from their records."""

from __future__ import annotations

from dataclasses import dataclass

from dpbench.core.canonical import to_json
from dpbench.records.run_record import RunRecord

PROFILE = "claims"
SEEDS = (0, 1, 2, 3, 4)
# they show that something runs, not how well
DECIDE_NOTHING = {"profile": "smoke", "dataset": "digits"}


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seeds alone.

    Attributes:
        method: CLI name.
        epsilon: Of the budget.
        settings: What this arm sets, as the hyper-parameter's name and value.
        profile: Name.
        dataset: Name.
        delta: Of the budget.
        adjacency: Of the budget.
        seeds: Public seeds. Stated beforehand: runs with others decide nothing.
        base: What all arms of its method set, likewise; ``settings`` win over it.

    Raises:
        ValueError: Of a profile or a data set that decides nothing.
    """

    method: str
    epsilon: float
    settings: tuple[tuple[str, object], ...] = ()
    profile: str = PROFILE
    dataset: str = "fashionmnist"
    delta: float = 1e-5
    adjacency: str = "add_remove"
    seeds: tuple[int, ...] = SEEDS
    base: tuple[tuple[str, object], ...] = ()

    def __post_init__(self) -> None:
        """Refuse runs whose scores mean nothing."""
        for field, value in DECIDE_NOTHING.items():
            if getattr(self, field) == value:
                raise ValueError(f"{field} {value} decides no claim")

    @property
    def values(self) -> dict[str, object]:
        """Everything that is set by hand: base and settings, by the hyper-parameter's name."""
        return {**dict(self.base), **dict(self.settings)}

    @property
    def assignments(self) -> tuple[str, ...]:
        """The values as ``--set`` takes them."""
        return tuple(f"{name}={value}" for name, value in self.values.items())

    def has(self, record: RunRecord) -> bool:
        """Whether a record is of one of these runs."""
        spec = record.spec
        return (
            record.status == "complete"
            and not spec.reproducible
            and all(
                getattr(spec, name) == getattr(self, name)
                for name in ("method", "epsilon", "profile", "dataset", "delta", "adjacency")
            )
            and spec.seed in self.seeds
            # values may also come from a preset, as those of the base once did
            and set(record.resolved.get("by_hand", [])) <= self.values.keys()
            # a switch that the method did not have yet was off
            and all(
                to_json(spec.method_args.get(name, False)) == to_json(value)
                for name, value in self.values.items()
            )
        )

    def __str__(self) -> str:
        """Name the method, epsilon and settings; the base is common to arms."""
        settings = (f"{name}={value}" for name, value in self.settings)
        return " ".join((self.method, f"epsilon={self.epsilon:g}", *settings))
