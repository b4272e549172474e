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
        settings: What is set by hand, as the hyper-parameter's name and value.
        profile: Name.
        dataset: Name.
        delta: Of the budget.
        adjacency: Of the budget.
        seeds: Public seeds. Stated beforehand: runs with others decide nothing.

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

    def __post_init__(self) -> None:
        """Refuse runs whose scores mean nothing."""
        for field, value in DECIDE_NOTHING.items():
            if getattr(self, field) == value:
                raise ValueError(f"{field} {value} decides no claim")

    @property
    def assignments(self) -> tuple[str, ...]:
        """The settings as ``--set`` takes them."""
        return tuple(f"{name}={value}" for name, value in self.settings)

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
            and set(record.resolved.get("by_hand", [])) == {name for name, _ in self.settings}
            and all(
                to_json(spec.method_args[name]) == to_json(value) for name, value in self.settings
            )
        )

    def __str__(self) -> str:
        """The arm as people call it."""
        return " ".join((self.method, f"epsilon={self.epsilon:g}", *self.assignments))
