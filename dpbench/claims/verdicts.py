"""Verdicts on claims: Student's t over seeds, adjusted for the number of claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dpbench.claims.rules import Claim, Evidence
from dpbench.records.run_record import RunRecord
from dpbench.stats.holm import adjust_by_holm
from dpbench.stats.student import MeanEstimate

CONFIDENCE = 0.95
FEWEST_SEEDS = 3
Decision = Literal["supported", "contradicted", "unresolved", "untested"]


@dataclass(frozen=True)
class ClaimVerdict:
    """Verdict of our records on a claim.

    Attributes:
        claim: The claim.
        decision: ``untested`` if no seed has a value because runs are missing.
        reason: Why the claim is neither supported nor contradicted; ``""`` if it is either.
        evidence: The evidence that was read.
        estimate: Mean over seeds, oriented; None without seeds.
        low: Lower end of the 95% Student-t interval over seeds; None for fewer than two seeds
            and for seeds without variation.
        high: Upper end of that interval.
        p_value: Two-sided p-value of the mean against ``evidence.null``, adjusted over all claims
            that could be tested; None if this one could not.
    """

    claim: Claim
    decision: Decision
    reason: str
    evidence: Evidence
    estimate: float | None
    low: float | None
    high: float | None
    p_value: float | None


def judge(claims: Sequence[Claim], records: Sequence[RunRecord]) -> list[ClaimVerdict]:
    """Judge claims together, since Holm's correction is over all that can be tested.

    Args:
        claims: All claims, even if only some are of interest.
        records: Records of any runs; those of no claim are ignored.

    Returns:
        A verdict for each claim, in order.
    """
    found = [claim.rule.evidence(records) for claim in claims]
    estimates = [
        MeanEstimate.of(list(each.values.values())) if len(each.values) > 1 else None
        for each in found
    ]
    tested = {
        place: estimate.p_value(each.null)
        for place, (each, estimate) in enumerate(zip(found, estimates, strict=True))
        if estimate is not None and each.comparable and len(each.values) >= FEWEST_SEEDS
    }
    adjusted = dict(zip(tested, adjust_by_holm(list(tested.values())), strict=True))
    return [
        _verdict(claim, found[place], estimates[place], adjusted.get(place), len(tested))
        for place, claim in enumerate(claims)
    ]


def _verdict(
    claim: Claim, found: Evidence, estimate: MeanEstimate | None, p_value: float | None, tests: int
) -> ClaimVerdict:
    if estimate is None or p_value is None:
        decision, reason = _undecided(found)
    else:
        decision, reason = _decided(found, estimate, p_value, tests)
    low, high = estimate.interval(CONFIDENCE) if estimate and estimate.varies else (None, None)
    only = next(iter(found.values.values()), None)
    return ClaimVerdict(
        claim=claim,
        decision=decision,
        reason=reason,
        evidence=found,
        estimate=estimate.value if estimate else only,
        low=low,
        high=high,
        p_value=p_value,
    )


def _undecided(found: Evidence) -> tuple[Decision, str]:
    """Decision and reason without a test."""
    seeds = len(found.values)
    missing = "1 run is missing" if found.missing == 1 else f"{found.missing} runs are missing"
    if not found.comparable:
        return "unresolved", found.reason
    if not seeds and found.missing:
        return "untested", missing
    why = [f"{seeds} of at least {FEWEST_SEEDS} seeds", found.reason]
    why.append(missing if found.missing else "")
    return "unresolved", "; ".join(part for part in why if part)


def _decided(
    found: Evidence, estimate: MeanEstimate, p_value: float, tests: int
) -> tuple[Decision, str]:
    """Decision and reason by the test."""
    if not estimate.varies:
        return "unresolved", "all seeds have the same value, which does not say how others vary"
    low, high = estimate.interval(CONFIDENCE)
    if low <= found.null <= high:
        return "unresolved", f"the interval holds {found.null:g}"
    if p_value > 1 - CONFIDENCE:
        return "unresolved", f"p = {p_value:.2g} after Holm's correction for {tests} tests"
    if estimate.value < found.null:
        return "contradicted", ""
    if not found.monotone:
        return "unresolved", "better in all, but not at every step"
    return "supported", ""
