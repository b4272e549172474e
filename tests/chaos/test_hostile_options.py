"""Extreme and hostile values of options, and names of plugins."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import pytest

from tests.support.chaos import Place
from tests.support.chaos_hostile import FAMILY, Arguments, Prepare, cases, harmless, kind_of, plan
from tests.support.chaos_runs import Lab

pytestmark = [pytest.mark.chaos(FAMILY)]


def with_options(*options: object, dry: bool = True) -> Prepare:
    """A run of which nothing but the plan is made, or which loads no more than it must."""
    return lambda place: plan("digits", *options, *(("--dry-run",) if dry else ()))


def sweep(*options: object) -> Prepare:
    common = ("--methods", "toy", "--datasets", "digits", "--profile", "smoke", "--dry-run")
    return lambda place: ("sweep", *common, *options)


def command(*arguments: object) -> Prepare:
    return lambda place: arguments


def options() -> dict[str, Prepare]:
    found: dict[str, Prepare] = {}
    values: dict[str, tuple[object, ...]] = {
        "--seed": (-1, 2**63, 2**64, 10**30, "nan", "0x10", ""),
        "--eps": (0, -1, "nan", "inf", 1e-300, 1e300, 1e-9, 1e6, ""),
        "--delta": (0, 1, 0.5, 0.999999, 0.1, 1e-300, 1e-17, -1, "nan", "inf"),
        "--adjacency": ("", "x" * 100_000, "[red]", "\x1b[31m"),
        "--profile": ("", "../smoke", "\x1b[31m", "[bold]x[/]", ":one:"),
        "--method": ("", "../../x", "__init__", "toy\n", "\x1b[2J", "[red]", "x" * 100_000),
        "--dataset": ("", "../..", "imagefolder:", "imagefolder:/dev/zero", "\x1b[31m", "[red]x"),
        "--public": ("../x", "imagefolder:/dev/null", "\x1b[31m", "digits", ":one:", ""),
        "--evaluators": ("", ",", "../x", "\x1b[31m", "toy," * 5000, "[red]x[/]"),
        "--engine": ("", "x", "../vmap", "\x1b[31m", "os"),
        "--device": ("", "cuda:99", "meta", "cpu:5", "\x1b[31m", "x" * 10_000),
        "--processes": (0, -1, 2**40, "nan"),
        "--out": ("/proc/x", "/dev/null", "x" * 5000, "/dev/full/x", ""),
        "--runs-dir": ("/proc/x", "/dev/null", "x" * 300, "", "a/../b"),
        "--data-root": ("/dev/zero", "nowhere", "", "\x1b[31m"),
    }
    for name, several in values.items():
        for value in several:
            dry = name not in ("--out", "--runs-dir")
            found[f"{name} {str(value)[:20]!r}"] = with_options(f"{name}={value}", dry=dry)
    for setting in (
        *("steps=1000000000", "steps=-1", "steps=0", "steps=1e400", "steps=nan", "steps=2**99"),
        *("batch_size=0", "batch_size=1000000000000", "batch_size=-5", "learning_rate=inf"),
        *("learning_rate=nan", "learning_rate=-1", "steps=__import__('os').system('true')"),
        *("steps=" + "9" * 5000, "steps=" + "[" * 50_000, "__class__=x", "=", "", "steps"),
        *("steps=\x1b[31m", "\x1b[31m=1", "[red]x[/]=1", ":one:=2", "steps=:one:"),
    ):
        found[f"--set {setting[:20]!r}"] = with_options("--set", setting)
    for steps in (10**6, 10**9):
        found[f"{steps} steps of dp-ddpm"] = command(
            *("run", "--method", "dp-ddpm", "--dataset", "digits", "--profile", "smoke"),
            *("--set", f"steps={steps}", "--dry-run"),
        )
    for seeds in ("0-99999999", "0-999999", "9-1", "-5", "0-", "a-b", f"0-{10**30}", ","):
        found[f"seeds {seeds}"] = sweep("--seeds", seeds)
    found["many epsilons"] = sweep("--eps", ",".join(map(str, range(1, 20_000))))
    found["many methods"] = sweep("--methods", "toy," * 5000)
    for path in ("/dev/zero", "/proc/self/mem", "/dev/stdin", "\x1b[31m", "[red]x[/]", ":one:"):
        found[f"verify {path!r}"] = command("verify", path)
        found[f"report of {path!r}"] = command("report", "--runs-dir", path, "--out", "lb")
    for path in ("/dev/null", "/proc/x", "/dev/full/x"):
        found[f"report into {path!r}"] = command("report", "--out", path)
    return found


ODD = (
    *("../../../escape", "/abs", "a b", "\x1b[31mred\x1b[0m", "[red]x[/]", ":one:", "=1+1"),
    *("x" * 300, "..", "line\u2028break", "\u202etxt"),
)


def plugin(name: str, value: str = "toy:Toy", *arguments: object) -> Prepare:
    """An installed package that announces a method by an odd name, or one that is none."""

    def prepare(place: Place) -> Arguments:
        folder = place.work / "plugins" / "odd-1.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[dpbench.generators]\n{name} = {value}\n")
        for module, code in MODULES.items():
            (folder.parent / f"{module}.py").write_text(code)
        return arguments or ("list", "methods", "--check")

    return prepare


MODULES = {
    "leaves": "import sys\nsys.exit('gone')\n",
    "stops": "raise KeyboardInterrupt\n",
    "deep": "def f(): return f()\nf()\n",
    "loud": "raise ValueError('\\x1b[31m[red]x[/] :one: ' * 3)\n",
    "wrong": "this is no Python\n",
    "odd": "class Odd:\n    summary = '\\x1b[31m[red]x[/] :one: =1+1'\n    private = 'perhaps'\n"
    "    presets = None\n    __dataclass_fields__ = 3\n    plan = fit = None\n",
}


def plugins() -> dict[str, Prepare]:
    found = {f"plugin {name[:20]!r}": plugin(name) for name in ODD}
    small = ("--dataset", "digits", "--eps", "0.001", "--profile", "smoke", "--evaluators", "toy")
    for name in ("../../../escape", "/abs", "a b", "=1+1", "\x1b[31mred"):
        run = ("run", "--method", name, *small)
        found[f"run of plugin {name!r}"] = plugin(name, "toy:Toy", *run)
    for value in ("os:system", "nothing:x", ":", "a b c", "..:x", *(f"{m}:Odd" for m in MODULES)):
        found[f"plugin at {value!r}"] = plugin("odd", value)
    return found


def see(folder: object) -> Callable[[], None]:
    def before() -> None:
        sys.path.insert(0, os.fspath(folder))  # type: ignore[call-overload]

    return before


@pytest.mark.parametrize("prepare", cases(options() | plugins()))
def test_a_hostile_option_or_plugin_does_no_harm(
    prepare: Prepare, place: Place, lab: Lab, record_property: Callable[[str, object], None]
) -> None:
    arguments = prepare(lab.warm(place))
    ended = harmless(place, arguments, before=see(place.work / "plugins"))
    record_property("detail", kind_of(ended))
