"""Canary audit of the mechanism that made the samples."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.core.errors import RunFailed, UserError
from dpbench.core.metrics import Measurement, MetricSpec
from dpbench.privacy.audit import Audit, audit


def _bound(name: str, description: str, higher: bool = False) -> MetricSpec:
    return MetricSpec(name, "", higher, description, "bound")


@dataclass(frozen=True)
class CanaryAudit:
    """Runs the mechanisms of the run's certificate on canaries (see ``dpbench.privacy.audit``).

    The audit executes the mechanism on its own, with the certified events: it neither reads the
    samples nor repeats the training. The bound that assumes normal scores is an illustration.
    """

    version: ClassVar[int] = 2
    summary: ClassVar[str] = "canaries through the certified mechanism: is the noise as claimed?"
    metrics: ClassVar[tuple[MetricSpec, ...]] = (
        _bound("audit_alarms", "checks that refute the claim"),
        _bound("audit_sigma_ratio_low", "noise over claimed noise, lower end", higher=True),
        _bound("audit_sigma_ratio_high", "noise over claimed noise, upper end", higher=True),
        _bound("audit_epsilon_lower", "lower bound of epsilon from one run"),
        _bound("audit_epsilon_ceiling", "largest lower bound that this audit could have shown"),
        _bound("audit_epsilon_lower_gdp", "the lower bound if scores were normal"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.MECHANISM})

    def evaluate(self, case: EvaluationContext) -> list[Measurement]:
        """Audit the mechanism; without a claim, every metric is a row with the reason.

        A mechanism that makes other releases than claimed cannot be compared with its claim at
        all: that is an alarm, and the other metrics have the reason.
        """
        seed = audit_seed(case.run_id)
        try:
            if case.mechanism is None:
                raise UserError("the mechanism that made these samples is not known")
            found = audit(case.mechanism, seed, case.progress)
        except UserError as error:
            return [_missing(m, seed, str(error)) for m in self.metrics]
        except RunFailed as error:
            case.progress.note(f"AUDIT ALARM: {error}")
            alarms, *others = self.metrics
            missing = [_missing(m, seed, str(error)) for m in others]
            return [_measured(alarms, 1.0, seed, "releases"), *missing]
        for alarm in found.alarms:
            case.progress.note(f"AUDIT ALARM: {alarm.name} ({alarm.of}) refutes the claim")
        how = f"{found.canaries} canaries"
        return [
            _measured(m, value, seed, how)
            for m, value in zip(self.metrics, _values(found), strict=True)
        ]


def audit_seed(run_id: str) -> int:
    """Seed of a run's audit, in [0, 2**63): audits of different runs share no draw.

    The public seed of a run would not do: all runs of that seed would be audited with the same
    noise, and all would raise an alarm by chance together.
    """
    return int.from_bytes(hashlib.sha256(f"{run_id} audit".encode()).digest()[:8], "big") >> 1


def _measured(metric: MetricSpec, value: float, seed: int, how: str) -> Measurement:
    higher = metric.higher_is_better
    return Measurement(metric.name, value, metric.unit, higher, 0, extractor=how, seed=seed)


def _missing(metric: MetricSpec, seed: int, reason: str) -> Measurement:
    higher = metric.higher_is_better
    return Measurement(metric.name, None, metric.unit, higher, 0, reason=reason, seed=seed)


def _values(found: Audit) -> tuple[float, ...]:
    return (
        float(len(found.alarms)),
        found.sigma_low,
        found.sigma_high,
        found.epsilon_lower,
        found.epsilon_ceiling,
        found.epsilon_lower_gdp,
    )


EVALUATOR = CanaryAudit
