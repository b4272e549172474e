"""The figures of ``pytest -m chaos``: for each family, how many of its cases were survived."""

from __future__ import annotations

import random
from collections import Counter

import pytest

COUNT, SEED = "--chaos-count", "--chaos-seed"


def add_options(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos")
    group.addoption(
        COUNT, type=int, help="at most so many cases of each family of -m chaos (default: all)"
    )
    group.addoption(
        SEED, type=int, default=0, help="seed of the random moments and damages (default: 0)"
    )


def family_of(item: pytest.Item) -> str | None:
    marker = item.get_closest_marker("chaos")
    return str(marker.args[0]) if marker and marker.args else None


def select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Note the family of each case; leave out those above the count, by the seed."""
    families: dict[str, list[pytest.Item]] = {}
    for item in items:
        if family := family_of(item):
            item.user_properties.append(("chaos", family))
            families.setdefault(family, []).append(item)
    count = config.getoption(COUNT)
    if count is None:
        return
    left_out: set[pytest.Item] = set()
    for family, cases in families.items():
        rng = random.Random(f"{config.getoption(SEED)} {family}")
        left_out |= set(cases) - set(rng.sample(cases, min(count, len(cases))))
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=list(left_out))


def print_table(reporter: pytest.TerminalReporter) -> None:
    """Print a line for each family: survived, tried, where, and how many could not be tried."""
    survived: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    details: dict[str, Counter[str]] = {}
    for outcome in ("passed", "failed", "error", "skipped"):
        for report in reporter.stats.get(outcome, []):
            properties = getattr(report, "user_properties", [])
            family = dict(properties).get("chaos")
            if family is None:
                continue
            if outcome == "skipped":
                skipped[family] += 1
            elif outcome == "error" or report.when == "call":
                tried[family] += 1
                survived[family] += outcome == "passed"
                for name, value in properties:
                    if name == "detail":
                        details.setdefault(family, Counter())[value] += 1
    if not tried and not skipped:
        return
    reporter.section("chaos")
    for family in sorted({*tried, *skipped}):
        line = f"{family}: survived {survived[family]} of {tried[family]}"
        if skipped[family]:
            line += f", {skipped[family]} could not be tried here"
        if family in details:
            counted = (f"{name} {count}" for name, count in sorted(details[family].items()))
            line += f" ({', '.join(counted)})"
        reporter.write_line(line)
