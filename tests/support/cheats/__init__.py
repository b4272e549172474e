"""Methods that cheat, each in one way, and what catches them.

``CONTRIBUTING.md`` shows the table; ``tests/runs/test_cheats.py`` holds it to this one and has each
method caught.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.cheats import leaks, lies
from tests.support.cheats.honest import Chooses, OneSum, Trains


@dataclass(frozen=True)
class Row:
    """A cheat and what catches it: by command, a part of what the command says.

    Attributes:
        cheat: The method.
        caught: By command.
        options: Options of the commands.
    """

    cheat: type[OneSum]
    caught: dict[str, str]
    options: tuple[str, ...] = ()


def checked(said: str) -> dict[str, str]:
    return {"check": said}


CHEATS = (
    Row(leaks.ReturnsImages, checked("only strangers: checkpoint")),
    Row(leaks.KeepsImagesOfFeatures, checked("only strangers: checkpoint")),
    Row(leaks.KeepsImagesOfDraws, checked("only strangers: checkpoint")),
    Row(leaks.KeepsImagesOfLosses, checked("only strangers: checkpoint")),
    Row(leaks.SamplesAGlobal, checked("only strangers: samples")),
    Row(leaks.StartsFromTheFirstBatch, checked("only strangers: checkpoint")),
    Row(leaks.RemembersTheFirstFit, checked("only strangers: checkpoint")),
    Row(leaks.KeepsImagesOfScores, checked("only strangers: checkpoint")),
    Row(leaks.ScoresByTheCount, checked("copies and features of the other images")),
    Row(leaks.LeaksUnderAPreset, checked("only strangers: checkpoint"), ("--profile", "claims")),
    Row(lies.MixesExamples, checked("D: weights: gradient of an image among others")),
    Row(
        lies.PlansOtherEvents,
        {"check": "events of the plan", "audit": "the claim rests on", "run": "and the plan has"},
    ),
    Row(lies.PlansLessCompute, {"check": "the method plans 4", "run": "the method plans 4"}),
    Row(lies.SpendsAnEventOfItsOwn, {"check": "Cheap", "audit": "Cheap", "run": "Cheap"}),
    Row(lies.HalvesTheNoise, {"audit": "sigma ratio, method's own tensor"}),
    Row(
        lies.ExitsTheInterpreter,
        dict.fromkeys(("check", "audit", "run"), "ends the interpreter (SystemExit: 0)"),
    ),
    Row(lies.EndsTheProcess, checked("ended the process (exit code 0)")),
    Row(lies.DependsOnTheTime, checked("the method is not deterministic")),
    Row(lies.DrawsFromTheGlobalGenerator, checked("the method is not deterministic")),
    Row(lies.ForgetsWhenResumed, checked("interrupted and resumed, it gives another result")),
    Row(lies.ChangesItsEvent, {}),
    Row(lies.IsHonestWhereItIsWatched, {}),
    Row(lies.LoadsTheData, {}),
    Row(lies.WritesAFile, {}),
)
HARMLESS = (lies.ChangesItsEvent,)
HONEST = (OneSum, Trains, Chooses)


def table() -> str:
    """The table of ``CONTRIBUTING.md``."""
    lines = ["| a method that | is caught by |", "|---|---|"]
    for row in CHEATS:
        tools = ", ".join(f"`{tool}`" for tool in row.caught) or "nothing"
        if row.cheat in HARMLESS:
            tools = "nothing, to no effect: the mechanism goes by the ledger's copy"
        if row.options:
            tools += f" with `{' '.join(row.options)}`"
        lines.append(f"| {row.cheat.__doc__} | {tools} |")
    return "\n".join(lines)
