"""The privacy budget: the epsilon, delta and adjacency that a run must not exceed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, get_args

from dpbench.core.errors import UserError

Adjacency = Literal["add_remove", "replace_one"]
# A guarantee that fails more often is none; PLD cuts off tails of 1e-15, which delta must exceed.
LEAST_DELTA, MOST_DELTA = 1e-12, 0.1
ADJACENCIES: tuple[Adjacency, ...] = get_args(Adjacency)


def neighbours(adjacency: Adjacency, declared_size: int) -> str:
    """What an adjacency means in words.

    Args:
        adjacency: Which data sets are neighbours.
        declared_size: Number of images N that the data set is declared to have.
    """
    change = "replaced by another" if adjacency == "replace_one" else "added or removed"
    return (
        f"one image with its label is {change}; the declared number of {declared_size:,} images "
        "is public"
    )


@dataclass(frozen=True)
class PrivacyBudget:
    """(epsilon, delta)-differential privacy for one image with its label.

    Attributes:
        epsilon: Above 0; ``inf`` for a run that is not private.
        delta: Probability that the epsilon guarantee may fail, in [1e-12, 0.1].
        adjacency: ``add_remove`` (neighbours differ by one image more or less) or ``replace_one``.
            A guarantee without its adjacency means nothing: noise that gives epsilon = 1 under
            add_remove gives about 2.1 under replace_one.

    Raises:
        UserError: A value is out of its range.
    """

    epsilon: float
    delta: float = 1e-5
    adjacency: Adjacency = "add_remove"

    def __post_init__(self) -> None:
        """Check that every value is in its range."""
        # "not >" rather than "<=", so that NaN is refused too
        if not self.epsilon > 0:
            raise UserError(
                f"epsilon must be above 0, got {self.epsilon:g}: try --eps 1, "
                "or --eps inf for a run that is not private"
            )
        if not 0 < self.delta < 1:
            raise UserError(
                f"delta must lie strictly between 0 and 1, got {self.delta:g}: "
                "at most 1 / (number of images) is usual, for instance --delta 1e-5"
            )
        if not LEAST_DELTA <= self.delta <= MOST_DELTA:
            raise UserError(
                f"delta = {self.delta:g} is not between {LEAST_DELTA:g} and {MOST_DELTA:g}: below, "
                "epsilon cannot be computed; above, the guarantee fails too often; try --delta 1e-5"
            )
        if self.adjacency not in ADJACENCIES:
            raise UserError(
                f"unknown adjacency {self.adjacency!r}: choose one of {', '.join(ADJACENCIES)}"
            )

    def part(self, share: float) -> PrivacyBudget:
        """A share (in (0, 1]) of epsilon at the same delta, for releases considered on their own.

        The other releases may then spend more than the rest of epsilon, because epsilons compose
        to less than their sum; ``calibrated`` finds how much.
        """
        return replace(self, epsilon=share * self.epsilon)

    @property
    def private(self) -> bool:
        """Whether epsilon is finite."""
        return math.isfinite(self.epsilon)
