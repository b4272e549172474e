"""What accountants say of a certificate's events: computed again, within bounds, or remembered.

What is remembered is a number by everything that it is computed from, and nothing about a record:
whoever edits a record asks for another number. The file is as trusted as the rest of the user's
cache.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from dpbench.core.cache import Cache
from dpbench.core.canonical import sha256_of
from dpbench.privacy import crosschecks, events, gaussian_dp
from dpbench.privacy import epsilon as accountant
from dpbench.privacy.budget import Adjacency
from dpbench.privacy.events import DPSGDEvent, Event, SelectionEvent, event_to_json
from dpbench.privacy.gaussian_dp import GaussianDP

# Together 20 s and 1 GB at most; runs have some hundred releases in a handful of events.
MOST_RELEASES = 10**6
MOST_EVENTS = 1000
MOST_POINTS = 2 * 10**7  # of the grid that privacy losses are rounded to
REMEMBERED = "accounts.json"


class Accounts:
    """Computes what certificates state of their events.

    Args:
        cache: Where numbers are remembered; None computes each again.
    """

    def __init__(self, cache: Cache | None = None) -> None:
        """Read what is remembered."""
        self._cache = cache
        found = None if cache is None else cache.find(REMEMBERED, json.load)
        self._known: dict[str, Any] = found or {}
        self._changed = False

    def epsilon(self, spent: tuple[Event, ...], delta: float, adjacency: Adjacency) -> float:
        """Epsilon by PLD."""
        what = ("epsilon", spent, delta, adjacency)
        return float(self._remembered(lambda: accountant.epsilon(*what[1:]), *what))

    def cross_checks(
        self, spent: tuple[Event, ...], delta: float, adjacency: Adjacency
    ) -> list[dict[str, Any]]:
        """What the other accountants say."""
        what = ("cross-checks", spent, delta, adjacency)
        found: list[dict[str, Any]] = self._remembered(
            lambda: crosschecks.cross_checks(*what[1:]), *what
        )
        return found

    def gaussian_dp(
        self, spent: tuple[Event, ...], adjacency: Adjacency, up_to_epsilon: float
    ) -> GaussianDP:
        """The tightest mu."""
        what = ("gaussian-dp", spent, up_to_epsilon, adjacency)

        def compute() -> dict[str, Any]:
            return asdict(gaussian_dp.gaussian_dp(spent, adjacency, up_to_epsilon))

        return GaussianDP(**self._remembered(compute, *what))

    def save(self) -> None:
        """Remember what was computed, if there is a place to."""
        if self._cache is not None and self._changed:
            content = json.dumps(self._known).encode()
            self._cache.keep(REMEMBERED, lambda handle: handle.write(content))

    def _remembered(
        self,
        compute: Callable[[], Any],
        kind: str,
        spent: tuple[Event, ...],
        number: float,
        adjacency: Adjacency,
    ) -> Any:
        asked = [kind, _code(), [event_to_json(each) for each in spent], number, adjacency]
        key = sha256_of(asked)
        if key not in self._known:
            self._known[key] = compute()
            self._changed = True
        return self._known[key]


def check_size(spent: Iterable[Event], adjacency: Adjacency, claim: float) -> None:
    """Refuse events whose composition would take more memory or time than any run's.

    Args:
        spent: The events, none of them without noise.
        adjacency: Which data sets are neighbours.
        claim: The epsilon that is claimed: a grid that suits it is as fine as one gets.

    Raises:
        ValueError: They are too many, too loud, or claimed to give too little.
    """
    spent = tuple(spent)
    releases = sum(event.steps for event in spent)
    if releases > MOST_RELEASES or len(spent) > MOST_EVENTS:
        raise ValueError(
            f"{releases:,} releases in {len(spent):,} events are more than can be checked "
            f"({MOST_RELEASES:,} in {MOST_EVENTS:,})"
        )
    interval = max(min(claim, 10.0) * math.sqrt(1e-4 / max(releases, 1)), 1e-6)
    square, widest, pure = 0.0, 0.0, 0.0
    for event in spent:
        if isinstance(event, SelectionEvent):
            pure += event.pure_epsilon(adjacency)
            continue
        once = (4.0 if adjacency == "replace_one" else 1.0) / event.noise_multiplier**2
        if isinstance(event, DPSGDEvent):
            sampled = event.sample_rate**2 * math.expm1(min(once, 700.0))
            square += event.steps * min(once, sampled)
        else:
            square += once
        widest = max(widest, once / 2 + 10 * math.sqrt(once))
    points = (max(widest, square / 2 + 10 * math.sqrt(square)) + pure) / interval
    if points > MOST_POINTS:
        raise ValueError(
            f"the events are too loud to be checked, or give no epsilon as small as {claim:.6g}"
        )


@cache
def _code() -> str:
    """Hash of the accountants: other code may give other numbers."""
    digest = hashlib.sha256()
    for module in (accountant, crosschecks, events, gaussian_dp):
        assert module.__file__ is not None
        digest.update(Path(module.__file__).read_bytes())
    names = [accountant.ACCOUNTANT, *crosschecks.CROSS_CHECKS]
    return sha256_of([digest.hexdigest(), *names])
