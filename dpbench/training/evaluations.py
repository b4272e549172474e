"""Gradient evaluations, counted by the loops that make them and held against the plan."""

from __future__ import annotations

import math

from dpbench.core.errors import RunFailed


class GradientEvaluations:
    """Counts gradient evaluations before they are made, and refuses those beyond the plan.

    A loop counts its whole length when it begins, also when it resumes in the middle: a run that
    was interrupted counts what one that was not counts. Private ones are expected over Poisson
    sampling, since the number that was made depends on the private draws.

    Args:
        private: Largest number on private images.
        public: Largest number on public or programmatic images.
    """

    def __init__(self, private: float = math.inf, public: float = math.inf) -> None:
        """Start at zero."""
        self._limits = {"private": private, "public": public}
        self._counts = {"private": 0.0, "public": 0.0}
        self._unprotected = False

    @property
    def private(self) -> int:
        """Number on private images, expected over Poisson sampling."""
        return round(self._counts["private"])

    @property
    def public(self) -> int:
        """Number on public or programmatic images."""
        return round(self._counts["public"])

    def count_private(self, count: float, what: str) -> None:
        """Count evaluations of a private mechanism; must be called before they are made.

        Args:
            count: Their number, expected over Poisson sampling.
            what: The training, in the message.

        Raises:
            RunFailed: They are more than the plan states.
        """
        self._count("private", count, what)

    def count_loop(self, count: float, what: str) -> None:
        """Count evaluations of a method's own loop; must be called before they are made.

        They are public, unless the method has got hold of the private images themselves.

        Raises:
            RunFailed: They are more than the plan states.
        """
        self._count("private" if self._unprotected else "public", count, what)

    def give_images(self) -> None:
        """Take the method's own loops from now on for training on private images."""
        self._unprotected = True

    def _count(self, kind: str, count: float, what: str) -> None:
        total, limit = self._counts[kind] + count, self._limits[kind]
        if round(total) > limit:
            raise RunFailed(
                f"{what!r} would bring the {kind} gradient evaluations to {round(total):,}, but "
                f"the method plans {limit:,}: its plan must state every one that fit makes"
            )
        self._counts[kind] = total
