"""Canary audit of the mechanism that made the samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dpbench.api.evaluator import EvaluationContext, Need
from dpbench.core.errors import UserError
from dpbench.core.metrics import Measurement, MetricSpec
from dpbench.privacy.audit import Audit, audit


@dataclass(frozen=True)
class CanaryAudit:
    """Runs the mechanisms of the run's certificate on canaries (see ``dpbench.privacy.audit``).

    The audit executes the mechanism on its own, with the certified events: it neither reads the
    samples nor repeats the training. The bound that assumes normal scores is an illustration.
    """

    version: ClassVar[int] = 1
    summary: ClassVar[str] = "canaries through the certified mechanism: is the noise as claimed?"
    metrics: ClassVar[tuple[MetricSpec, ...]] = (
        MetricSpec("audit_alarms", "", False, "checks that refute the claim"),
        MetricSpec("audit_sigma_ratio_low", "", True, "noise over claimed noise, lower end"),
        MetricSpec("audit_sigma_ratio_high", "", True, "noise over claimed noise, upper end"),
        MetricSpec("audit_epsilon_lower", "", False, "lower bound of epsilon from one run"),
        MetricSpec("audit_epsilon_lower_gdp", "", False, "the same if scores were normal"),
    )
    needs: ClassVar[frozenset[Need]] = frozenset({Need.MECHANISM})

    def evaluate(self, case: EvaluationContext) -> list[Measurement]:
        """Audit the mechanism; without a claim, every metric is a row with the reason."""
        seed = case.streams.seed("evaluation", "audit")
        try:
            if case.mechanism is None:
                raise UserError("the mechanism that made these samples is not known")
            found = audit(case.mechanism, seed, case.progress)
        except UserError as error:
            return [
                Measurement(m.name, None, m.unit, m.higher_is_better, 0, reason=str(error))
                for m in self.metrics
            ]
        for alarm in found.alarms:
            case.progress.note(f"AUDIT ALARM: {alarm.name} ({alarm.of}) refutes the claim")
        how = f"{found.canaries} canaries"
        return [
            Measurement(m.name, value, m.unit, m.higher_is_better, 0, extractor=how, seed=seed)
            for m, value in zip(self.metrics, _values(found), strict=True)
        ]


def _values(found: Audit) -> tuple[float, ...]:
    return (
        float(len(found.alarms)),
        found.sigma_low,
        found.sigma_high,
        found.epsilon_lower,
        found.epsilon_lower_gdp,
    )


EVALUATOR = CanaryAudit
