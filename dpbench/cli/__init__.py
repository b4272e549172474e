"""The command line: the only package that prints.

``--help`` and ``list`` must be instant, so torch, and whatever needs it, is imported by the
commands that use it.
"""

from __future__ import annotations

import sys

from dpbench.cli import (
    audit,
    bench,
    check,
    claims,
    evaluate,
    listing,
    pretrain,
    report,
    run,
    sweep,
    verify,
)
from dpbench.cli.app import app, say_error

# in the order in which --help lists them
app.command()(run.run)
app.command()(sweep.sweep)
app.command()(pretrain.pretrain)
app.command()(evaluate.evaluate)
app.command()(audit.audit)
app.command("list")(listing.list_)
app.command()(check.check)
app.command()(report.report)
app.command()(claims.claims)
app.command()(verify.verify)
app.add_typer(
    bench.bench_app, name="bench", help="Time the parts of a run next to their yardsticks."
)


def main() -> None:
    """Run the command line; exit codes are 0, 1 (failed), 2 (user's mistake), 130 (interrupted)."""
    try:
        code = app(standalone_mode=False)
    except Exception as error:
        # typer's usage errors, whichever copy of click they come from
        if not hasattr(error, "format_message"):
            raise
        if message := error.format_message():  # none where there were no arguments, but help
            say_error(message)
        code = getattr(error, "exit_code", 2)
    sys.exit(code if isinstance(code, int) else 0)
