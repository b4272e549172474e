"""Arms: the runs that test a claim."""

from __future__ import annotations

from dataclasses import dataclass

from dpbench.core.canonical import to_json
from dpbench.records.run_record import RunRecord

PROFILE = "claims"
SEEDS = (0, 1, 2, 3, 4)
# These show that something runs, not how well.
DECIDE_NOTHING = {"profile": "smoke", "dataset": "digits"}
# What runs did that were made before their method had the hyper-parameter; a switch was off.
BEFORE = {
    "sigma_min": 0.002,
    "trained_sigma_min": 0.0,
    "last_time_step": 0,
    "statistics_share": 0.0,
    "natural_spectrum": 0.0,
    "synthetic_classes": 0,
    "public_classes": 0,
}


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seeds alone.

    Attributes:
        method: CLI name.
        epsilon: The privacy budget's epsilon.
        settings: Names and values of the hyper-parameters that tell this arm from others.
        profile: Name of the profile.
        dataset: Name of the data set.
        delta: The privacy budget's delta.
        adjacency: The privacy budget's adjacency.
        seeds: Public seeds, stated beforehand: runs with other seeds decide nothing.
        base: Names and values that all arms of the method set; ``settings`` override them.

    Raises:
        ValueError: The profile or data set decides nothing.
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
        """All values that are set by hand, by the hyper-parameter's name."""
        return {**dict(self.base), **dict(self.settings)}

    @property
    def assignments(self) -> tuple[str, ...]:
        """The values as ``--set`` takes them."""
        return tuple(f"{name}={value}" for name, value in self.values.items())

    def has(self, record: RunRecord) -> bool:
        """Return whether a record is one of these runs'."""
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
            and all(
                to_json(spec.method_args.get(name, BEFORE.get(name, False))) == to_json(value)
                for name, value in self.values.items()
            )
        )

    def __str__(self) -> str:
        """Name the method, epsilon and settings; the base is common to arms."""
        settings = (f"{name}={value}" for name, value in self.settings)
        return " ".join((self.method, f"epsilon={self.epsilon:g}", *settings))
