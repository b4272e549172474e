"""``dpbench bench``: time the parts of a run against their yardsticks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from dpbench.cli.app import err, new_table, out, outcome, print_json
from dpbench.cli.options import AsJson, Debug, Device

bench = typer.Typer(
    name="bench",
    help="Time the parts of a run against their yardsticks.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
Repeats = Annotated[int, typer.Option(min=1, help="Timed repeats, after one warm-up.")]
Networks = Annotated[
    list[str] | None,
    typer.Option(
        "--network", help="Network to time (repeatable). Default: those that are quick on a CPU."
    ),
]
Precisions = Annotated[
    list[str] | None,
    typer.Option("--precision", help="float32 or bfloat16 (repeatable). Default: both."),
]


@bench.command("step")
def bench_step(
    networks: Networks = None,
    multiplicities: Annotated[
        list[int] | None,
        typer.Option(
            "--multiplicity", min=1, help="Noise multiplicity K (repeatable). Default: 1, 8 and 32."
        ),
    ] = None,
    precisions: Precisions = None,
    engines: Annotated[
        list[str] | None, typer.Option("--engine", help="Engine (repeatable). Default: all.")
    ] = None,
    copies: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Images x K per step (repeatable). Default: one physical batch per core."
        ),
    ] = None,
    repeats: Repeats = 5,
    device: Device = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Time private training steps, engine by engine, against the non-private step."""
    with outcome(debug):
        from dpbench.bench import step
        from dpbench.cli.console import progress_on

        rows = step.bench_step(
            networks or [],
            multiplicities or [],
            precisions or [],
            engines or [],
            copies or [],
            repeats,
            device,
            progress_on(err),
        )
        _print_bench(
            "training steps",
            rows,
            ("network", "precision", "engine"),
            {
                "K": lambda row: f"{row.multiplicity}",
                "copies": lambda row: f"{row.copies:,}",
                "images/s": lambda row: f"{row.images_per_s:,.0f}",
                "spread": lambda row: _spread(
                    row.images_per_s_low, row.images_per_s, row.images_per_s_high
                ),
                "of non-\nprivate": lambda row: "" if row.ratio is None else f"{row.ratio:.2f}",
                "peak MB": lambda row: f"{row.peak_mb:,.0f}",
            },
            as_json,
        )


@bench.command("sample")
def bench_sample(
    networks: Networks = None,
    precisions: Precisions = None,
    images: Annotated[int, typer.Option(min=1, help="Images to draw in one call.")] = 500,
    repeats: Repeats = 5,
    device: Device = "auto",
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Time sampling against its network evaluations alone."""
    with outcome(debug):
        from dpbench.bench import sample
        from dpbench.cli.console import progress_on

        rows = sample.bench_sample(
            networks or [], precisions or [], images, repeats, device, progress_on(err)
        )
        _print_bench(
            "sampling",
            rows,
            ("network", "precision", "solver"),
            {
                "eval-\nuations": lambda row: f"{row.evaluations:g}",
                "images/s": lambda row: f"{row.images_per_s:,.0f}",
                "spread": lambda row: _spread(
                    row.images_per_s_low, row.images_per_s, row.images_per_s_high
                ),
                "forward\nonly": lambda row: f"{row.forward_only_images_per_s:,.0f}",
                "ratio": lambda row: f"{row.ratio:.2f}",
            },
            as_json,
        )


@bench.command("accounting")
def bench_accounting(
    epsilons: Annotated[
        list[float] | None,
        typer.Option("--eps", help="epsilon (repeatable). Default: 0.2, 1 and 10."),
    ] = None,
    steps: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Number of steps (repeatable). Default: 732, 2197 and 14648."),
    ] = None,
    repeats: Repeats = 5,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Time noise calibration against Opacus, and compare the noise multipliers."""
    with outcome(debug):
        from dpbench.bench import accounting
        from dpbench.cli.console import progress_on

        rows = accounting.bench_accounting(epsilons or [], steps or [], repeats, progress_on(err))
        _print_bench(
            f"calibration at sample rate {accounting.SAMPLE_RATE:.4g}",
            rows,
            ("accountant",),
            {
                "epsilon": lambda row: f"{row.epsilon:g}",
                "steps": lambda row: f"{row.steps:,}",
                "noise\nmultiplier": lambda row: f"{row.noise_multiplier:.4g}",
                "epsilon\nby ours": lambda row: f"{row.accounted_epsilon:.4g}",
                "seconds": lambda row: f"{row.seconds:.2f}",
                "spread": lambda row: _spread(row.seconds_low, row.seconds, row.seconds_high),
            },
            as_json,
        )


@bench.command("startup")
def bench_startup(repeats: Repeats = 5, as_json: AsJson = False, debug: Debug = False) -> None:
    """Time how long the command line takes to start."""
    with outcome(debug):
        from dpbench.bench import startup
        from dpbench.cli.console import progress_on

        _print_bench(
            "start-up",
            startup.bench_startup(repeats, progress_on(err)),
            ("command",),
            {
                "seconds": lambda row: f"{row.seconds:.3f}",
                "spread": lambda row: _spread(row.seconds_low, row.seconds, row.seconds_high),
                "of bare\npython": lambda row: f"{row.ratio:.1f}",
            },
            as_json,
        )


def _spread(low: float, median: float, high: float) -> str:
    return f"{low / median - 1:+.0%} {high / median - 1:+.0%}"


def _print_bench(
    title: str,
    rows: Sequence[Any],
    names: Sequence[str],
    numbers: Mapping[str, Callable[[Any], str]],
    as_json: bool,
) -> None:
    """Print rows as JSON, or as a table with the fields ``names`` and the columns ``numbers``."""
    if as_json:
        print_json([asdict(row) for row in rows])
        return
    table = new_table(f"{title}: medians, with the smallest and largest value")
    for name in names:
        table.add_column(name)
    for heading in numbers:
        table.add_column(heading, justify="right")
    for row in rows:
        texts = [getattr(row, name) for name in names]
        if getattr(row, "reason", ""):
            err.say(f"no {', '.join(texts)}: {row.reason}")
        else:
            table.add_row(*texts, *(text(row) for text in numbers.values()))
    out.print(table)
