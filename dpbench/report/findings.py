"""What was found out about samples, on one screen: a line for each question, and its reference."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dpbench.core.errors import UserError
from dpbench.core.files import safe_name
from dpbench.core.metrics import Measurement
from dpbench.records.alarms import ALARMS
from dpbench.records.named import records_of
from dpbench.records.run_record import RunSpec, read_record
from dpbench.report.metrics import (
    AUDIT_CEILING,
    AUDIT_EPSILON,
    AUDIT_NOISE_HIGH,
    AUDIT_NOISE_LOW,
    ON_REAL,
    ON_SYNTHETIC,
    SPEARMAN_A,
    group_of,
)

_ACCURACIES = (
    ("cas_cnn", "CAS, CNN"),
    ("cas_mlp", "CAS, MLP"),
    ("cas_logreg", "CAS, logistic regression"),
    ("cas_predictor", "CAS, the method's own"),
)
# by extractor of features: its distance, the suffix of its other metrics, and its name
_EXTRACTORS = (("fid", "", ""), ("fd_cnn", "_cnn", ", CNN"), ("fd_dinov2", "_dinov2", ", DINOv2"))

_OF_CLASS = re.compile(r"_class\d+$")

References = Mapping[str, Sequence[Measurement]]


@dataclass(frozen=True)
class Finding:
    """One question about samples.

    Attributes:
        question: What was measured, in a few words.
        answer: The values, with their unit and interval.
        reference: What they are read against; ``""`` if nothing is known.
    """

    question: str
    answer: str
    reference: str = ""


def findings(measurements: Sequence[Measurement], references: References) -> list[Finding]:
    """The questions that were answered, in the order in which they are asked.

    Args:
        measurements: What the evaluators measured.
        references: Measurements of other methods under the same protocol, by method.
    """
    found = _Values(measurements)
    others = {name: _Values(each) for name, each in references.items()}
    parts: tuple[Callable[[_Values, Mapping[str, _Values]], Iterable[Finding]], ...] = (
        *(_accuracies, _distances, _realism, _model_selection, _scaling, _memorization, _audit),
    )
    answered = [finding for part in parts for finding in part(found, others)]
    return [*answered, *_of_third_parties(measurements)]


def left_out(measurements: Iterable[Measurement]) -> str:
    """The metrics without a value, in a few words; empty if there is none."""
    groups = missing(measurements, lambda name: _OF_CLASS.sub("_class*", name)).values()
    return ", ".join(dict.fromkeys(groups))


def missing(
    measurements: Iterable[Measurement], called: Callable[[str], str] = str
) -> dict[str, str]:
    """The metrics without a value, in a few words by the reason.

    Args:
        measurements: Those with a value are left out.
        called: From the name of a metric to what it is called.
    """
    reasons: dict[str, list[str]] = {}
    for each in measurements:
        if each.value is None:
            reasons.setdefault(each.reason, []).append(called(each.metric))
    groups = {}
    for reason, names in reasons.items():
        first, *more = dict.fromkeys(names)
        groups[reason] = f"{first} and {len(more)} more" if more else first
    return groups


def references_beside(
    runs: Path, spec: RunSpec, methods: Iterable[str]
) -> dict[str, list[Measurement]]:
    """Measurements of the methods that others are read against, under the same protocol.

    Args:
        runs: The folder of all runs.
        spec: Of the run that is read. Of several that fit, the run of its seed is taken, or that
            of the lowest one.
        methods: Names of the methods that others are read against.
    """
    found: dict[str, list[Measurement]] = {}
    for method in methods:
        if method == spec.method:
            continue
        seeds = {}
        for file in records_of(method, runs / safe_name(spec.dataset)):
            with suppress(UserError):  # a report names what cannot be read
                record = read_record(file)
                if record.status == "complete" and _of_one_protocol(record.spec, spec):
                    seeds[record.spec.seed] = record
        if seeds:
            found[method] = seeds[spec.seed if spec.seed in seeds else min(seeds)].measurements
    return found


def _of_one_protocol(other: RunSpec, spec: RunSpec) -> bool:
    """Whether two runs may be read side by side; what is not private has no budget to compare."""
    names = ["dataset_hash", "profile", "samples"]
    if other.epsilon != math.inf:
        names += ["epsilon", "delta", "adjacency"]
    return all(getattr(other, name) == getattr(spec, name) for name in names)


class _Values:
    """Values by metric, against test images where there are others too."""

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        self._values = {
            each.metric: float(each.value)
            for split in ("train", "", "test")  # of several, the last
            for each in measurements
            if each.split == split and each.value is not None
        }

    def __contains__(self, metric: str) -> bool:
        return metric in self._values

    def __getitem__(self, metric: str) -> float:
        return self._values[metric]

    def along(self, prefix: str) -> dict[int, float]:
        """A curve: values by the number that ends the metric's name."""
        ends = {name.removeprefix(prefix): value for name, value in self._values.items()}
        return {int(end): ends[end] for end in sorted(filter(str.isdecimal, ends), key=int)}

    def interval(self, metric: str, digits: int) -> str:
        low, high = f"{metric}_low", f"{metric}_high"
        if low not in self or high not in self:
            return ""
        return f" ({self[low]:.{digits}f} to {self[high]:.{digits}f})"


def _of_third_parties(measurements: Sequence[Measurement]) -> Iterable[Finding]:
    for each in measurements:
        if each.value is not None and each.kind in ("score", "") and not group_of(each.metric):
            better = "more is better" if each.higher_is_better else "less is better"
            yield Finding(each.metric, f"{each.value:.4g} {each.unit}".strip(), better)


def _of_others(others: Mapping[str, _Values], metric: str, form: str) -> list[str]:
    return [
        f"{name} {values[metric]:{form}}" for name, values in others.items() if metric in values
    ]


def _accuracies(found: _Values, others: Mapping[str, _Values]) -> Iterable[Finding]:
    classes = len(found.along("cas_cnn_class"))
    chance = [f"chance {100 / classes:.3g}"] if classes else []
    for metric, question in _ACCURACIES:
        if metric in found:
            answer = f"{found[metric]:.1f} %{found.interval(metric, 1)}"
            reference = [*chance, *_of_others(others, metric, ".1f")]
            yield Finding(question, answer, ", ".join(reference))


def _distances(found: _Values, others: Mapping[str, _Values]) -> Iterable[Finding]:
    for distance, suffix, extractor in _EXTRACTORS:
        if distance not in found:
            continue
        floor = f"{distance}_floor"
        reference = [f"train images {found[floor]:.3g}"] if floor in found else []
        reference += _of_others(others, distance, ".3g")
        question = "FID" if distance == "fid" else f"Fréchet distance{extractor}"
        yield Finding(question, f"{found[distance]:.3g}", ", ".join(reference))
        names = [name for name in ("precision", "recall", "coverage") if name + suffix in found]
        if names:
            answer = ", ".join(f"{found[name + suffix]:.2f}" for name in names)
            yield Finding(", ".join(names), answer, "1 at best")


def _realism(found: _Values, others: Mapping[str, _Values]) -> Iterable[Finding]:
    share, accuracy = "realism_share", "realism_accuracy"
    if share in found:
        answer = f"{found[share]:.1f} %{found.interval(share, 1)}"
        right = f"judge right for {found[accuracy]:.1f} %" if accuracy in found else ""
        yield Finding("taken for private", answer, right)


def _model_selection(found: _Values, others: Mapping[str, _Values]) -> Iterable[Finding]:
    ceiling = "model_selection_ceiling_spearman"
    if SPEARMAN_A in found:
        answer = f"{found[SPEARMAN_A]:.2f}{found.interval(SPEARMAN_A, 2)}"
        reference = f"real images {found[ceiling]:.2f}" if ceiling in found else ""
        yield Finding("model selection, Spearman", answer, reference)


def _scaling(found: _Values, others: Mapping[str, _Values]) -> Iterable[Finding]:
    curve, real = found.along(ON_SYNTHETIC), found.along(ON_REAL)
    if not curve:
        return
    ends = sorted({min(curve), max(curve)})
    answer = " to ".join(f"{curve[end]:.1f}" for end in ends)
    sizes = " to ".join(f"{end:,}" for end in ends)
    same = " to ".join(f"{real[end]:.1f}" for end in ends if end in real)
    yield Finding(f"CAS of {sizes}", f"{answer} %", f"real {same}" if same else "")


def _memorization(found: _Values, others: Mapping[str, _Values]) -> Iterable[Finding]:
    copies, closer = "train_copies", "train_closer_pixels"
    if copies in found:
        reference = (
            f"test images {found[f'{copies}_real']:.0f}" if f"{copies}_real" in found else ""
        )
        yield Finding("copies of train images", f"{found[copies]:.0f}", reference)
    if closer in found:
        answer = f"{found[closer]:.1f} %{found.interval(closer, 1)}"
        yield Finding("nearer to train than test", answer, "50 without memorization")


def _audit(found: _Values, others: Mapping[str, _Values]) -> Iterable[Finding]:
    if ALARMS not in found:
        return
    alarms = found[ALARMS]
    yield Finding(
        "audit of the noise", f"{alarms:.0f} ALARMS: not as claimed" if alarms else "no alarm"
    )
    if AUDIT_NOISE_LOW in found and AUDIT_NOISE_HIGH in found:
        ratio = f"{found[AUDIT_NOISE_LOW]:.2f} to {found[AUDIT_NOISE_HIGH]:.2f}"
        yield Finding("noise over claimed noise", ratio, "1 as claimed")
    if AUDIT_EPSILON in found:
        most = f"could show {found[AUDIT_CEILING]:.2f} at most" if AUDIT_CEILING in found else ""
        yield Finding("epsilon, from below", f"{found[AUDIT_EPSILON]:.2f}", most)
