"""What a run found, on one screen, or everything that was measured."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpbench.cli.app import new_table, out

if TYPE_CHECKING:
    from dpbench.core.metrics import Measurement
    from dpbench.records.run_record import RunRecord
    from dpbench.records.sample_scores import Scores

# a terminal narrower than this has no room for how a value was measured
_WIDE = 120


def print_findings(
    title: str,
    measurements: Sequence[Measurement],
    references: Mapping[str, Sequence[Measurement]],
    lines: Iterable[tuple[str, str]],
) -> None:
    """Print a line for each question that was answered, then labelled lines."""
    from dpbench.report.findings import findings

    _print_title(title)
    table = new_table()
    table.add_column("", no_wrap=True)
    table.add_column("samples", overflow="fold")
    table.add_column("reference", overflow="fold")
    for finding in findings(measurements, references):
        table.add_row(finding.question, finding.answer, finding.reference)
    if table.rows:
        out.print(table)
    _print_lines(lines)


def print_measurements(
    title: str, measurements: Iterable[Measurement], lines: Iterable[tuple[str, str]]
) -> None:
    """Print all measurements in groups, with reasons for missing ones, then labelled lines."""
    from dpbench.report.metrics import group_of

    _print_title(title)
    groups: dict[str, list[Measurement]] = {}
    for each in measurements:
        groups.setdefault(group_of(each.metric) or "others", []).append(each)
    for name, group in groups.items():
        _print_group(name, group)
    _print_lines(lines)


def _print_title(title: str) -> None:
    out.say("")
    out.say(title, "bold")


def _print_group(name: str, measurements: Sequence[Measurement]) -> None:
    from dpbench.report.findings import missing

    wide = out.width >= _WIDE
    table = new_table(name)
    table.add_column("metric", no_wrap=True)
    table.add_column("against", no_wrap=True)
    table.add_column("value", no_wrap=True, justify="right")
    table.add_column("", no_wrap=True)
    if wide:
        table.add_column("n", no_wrap=True, justify="right")
        table.add_column("by", overflow="fold")
    for m in measurements:
        if m.value is not None:
            how = (f"{m.n:,}", m.extractor) if wide else ()
            table.add_row(m.metric, m.split, f"{m.value:.4g}", m.unit, *how)
    if table.rows:
        out.print(table)
    else:
        out.say("")
        out.say(name, "bold italic")
    for reason, names in missing(measurements).items():
        out.say(f"no {names}: {reason}")


def print_run(record: RunRecord, folder: Path, references: Path, everything: bool = False) -> None:
    """Print what is known about a run.

    Args:
        record: Of the run.
        folder: The run's folder.
        references: Folder of runs, among which those are that this one is read against.
        everything: Print every measurement, not the findings alone.
    """
    from dpbench.core.stated import reference_methods
    from dpbench.report.findings import references_beside

    spec = record.spec
    title = f"{spec.method} on {spec.dataset}, epsilon {spec.epsilon:g}, seed {spec.seed}"
    lines = _lines_of(record, folder, everything)
    if everything:
        print_measurements(title, record.measurements, lines)
    else:
        others = references_beside(references, spec, reference_methods())
        print_findings(title, record.measurements, others, lines)


def print_scores(scores: Scores, file: Path, everything: bool = False) -> None:
    """Print what was measured of samples.

    Args:
        scores: Of the samples.
        file: Where the scores are kept.
        everything: Print every measurement, not the findings alone.
    """
    from dpbench.records.sample_scores import NOT_CLAIMED
    from dpbench.report.findings import left_out

    title = f"{scores.spec.name} on {scores.spec.dataset}, profile {scores.spec.profile}"
    lines = [("privacy", NOT_CLAIMED)]
    if scores.timings:
        lines.append(("took", _took(scores.timings)))
    if everything:
        print_measurements(title, scores.measurements, [*lines, ("scores", str(file))])
        return
    if names := left_out(scores.measurements):
        lines.append(("left out", names))
    lines += [("scores", str(file)), ("more", f"dpbench show {file} --all")]
    print_findings(title, scores.measurements, {}, lines)


def _lines_of(record: RunRecord, folder: Path, everything: bool) -> Iterator[tuple[str, str]]:
    from dpbench.api.profiles import PROFILES
    from dpbench.records.run_record import RECORD
    from dpbench.report.findings import left_out
    from dpbench.runs.folder import GRID, SAMPLES

    if profile := PROFILES.get(record.spec.profile):
        yield "profile", f"{profile.name}: {profile.description}"
    if record.status != "complete":
        yield "status", record.error or "not complete: the same command continues it"
    yield "guarantee", _guarantee(record.privacy)
    yield "release", str(record.privacy.get("release", "not yet"))
    if record.timings:
        yield "took", _took(record.timings)
    if not everything and (names := left_out(record.measurements)):
        yield "left out", names
    yield "record", str(folder / RECORD)
    for name in (SAMPLES, GRID):
        if name in record.artifacts:
            yield Path(name).stem, str(folder / name)
    if not everything:
        yield "more", f"dpbench show {folder} --all"


def _guarantee(privacy: Mapping[str, Any]) -> str:
    """What a certificate claims; nothing is checked here, which is for ``verify``."""
    if privacy.get("release") == "not private":
        return "none: this run is not private"
    try:
        claim = f"epsilon {float(privacy['epsilon']):.6g}, delta {float(privacy['delta']):g}"
        return f"{claim}, {privacy['adjacency']} ({privacy['accountant']})"
    except (KeyError, TypeError, ValueError):
        return "none that can be read"


def _took(timings: Mapping[str, float]) -> str:
    from dpbench.core.progress import IN_WORDS, duration

    said = [
        f"{duration(timings[part])} of {IN_WORDS[part]}" for part in IN_WORDS if part in timings
    ]
    rest = [seconds for part, seconds in timings.items() if part not in IN_WORDS]
    if rest:
        said.append(f"{duration(sum(rest))} of evaluation")
    return ", ".join(said)


def _print_lines(lines: Iterable[tuple[str, str]]) -> None:
    lines = list(lines)
    width = max((len(label) for label, _ in lines), default=0)
    out.say("")
    for label, text in lines:
        out.say(f"{label:{width}}  {text}")  # not wrapped, so that paths can be copied
