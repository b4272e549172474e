from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.command import TOY, Command

SMOKE = ("run", "--dataset", "digits", "--profile", "smoke")
SYNGEN = (*SMOKE, "--method", "dpsyngen", "--eps", "inf")


def one_error(err: str) -> str:
    """The last line, which must be the only one to speak of an error."""
    *before, last = err.rstrip("\n").split("\n")
    assert last.startswith("Error: ") and not any("Error" in line for line in before), err
    assert "Traceback" not in err
    return last


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--method", "dpsyn"), "Unknown method 'dpsyn'. Did you mean 'dpsyngen'?"),
        (("--dataset", "digit"), "Unknown dataset 'digit'. Did you mean 'digits'?"),
        (("--profile", "smok"), "Unknown profile 'smok'. Did you mean 'smoke'?"),
        (("--epss", "1"), "--eps"),
        (("--eps", "0"), "epsilon must be above 0, got 0"),
        (("--eps", "-1"), "epsilon must be above 0, got -1"),
        (("--eps", "nan"), "epsilon must be above 0, got nan"),
        (("--eps", "abc"), "'--eps'"),
        (("--delta", "0"), "delta must lie strictly between 0 and 1, got 0"),
        (("--delta", "1"), "delta must lie strictly between 0 and 1, got 1"),
        (("--delta", "nan"), "delta must lie strictly between 0 and 1, got nan"),
        (("--adjacency", "swap"), "choose one of add_remove, replace_one"),
        (("--device", "abacus"), "no device 'abacus' here: use --device cpu, or auto"),
        (("--device", "meta"), "no device 'meta' here"),
        (("--seed", "-1"), "--seed must lie in [0, 2^63), got -1"),
        (("--seed", str(2**63)), "--seed must lie in [0, 2^63)"),
        (("--set", "foo=1"), "dpsyngen has no hyper-parameter 'foo'. It has channels, "),
        (("--set", "step=1"), "no hyper-parameter 'step'. Did you mean 'steps'?"),
        (("--set", "steps=abc"), "--set steps takes a whole number, got 'abc'"),
        (("--set", "guidance=nan"), "--set guidance takes a number, got 'nan'"),
        (("--set", "steps"), "--set takes name=value, got 'steps'"),
        (("--set", "steps=0"), "steps must be at least 1, got 0"),
        (("--set", "steps=100000"), "profile smoke allows 8,000 to every method"),
        (("--set", "batch_size=1438"), "more than the 1437 images of digits"),
        (("--eps", "1e-7", "--delta", "1e-12"), "is too small for 6 steps"),
        (("--method", "real", "--eps", "1"), "run it with --eps inf"),
        (("--method", "dpdm", "--profile", "paper"), "no preset for digits at profile paper"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do_and_leaves_nothing(
    dpbench: Command, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    ended = dpbench(*SYNGEN, *arguments)
    assert ended.code == 2
    assert message in one_error(ended.err)
    assert ended.err.count("\n") == 1
    assert not ended.out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "--method", "real"), "'--dataset'"),
        (("run", "--dataset", "digits"), "'--method'"),
        (("rum",), "'rum'"),
        (("list", "nonsense"), "choose methods, datasets, sources, evaluators"),
        (("list", "datasets", "mnist"), "`dpbench list methods dpdm`"),
        (("list", "methods", "dpdn"), "Did you mean 'dpdm'?"),
        (("list", "metrics", "fidelty"), "Did you mean 'fidelity'?"),
        (("sweep", "--datasets", "digits"), "'--methods'"),
        (("sweep", "--methods", "real", "--datasets", ","), "--datasets is empty"),
        (("sweep", "--methods", "real", "--datasets", "digits", "--eps", "1,x"), "'x'"),
        (("sweep", "--methods", "real", "--datasets", "digits", "--seeds", "2-1"), "got '2-1'"),
        (("report",), "no complete run in runs or leaderboards"),
        (("report", "--check"), "no complete run in runs or leaderboards"),
        (("bench", "stp"), "'stp'"),
        (("bench", "step", "--network", "unet"), "unknown network 'unet': choose one of cnn, "),
        (("bench", "step", "--engine", "turbo"), "choose one of nonprivate, folded, vmap, loop"),
        (("bench", "step", "--precision", "int8"), "choose one of float32, bfloat16"),
        (("bench", "step", "--device", "abacus"), "no device 'abacus' here"),
        (("bench", "step", "--multiplicity", "0"), "'--multiplicity'"),
        (("bench", "step", "--copies", "0"), "'--copies'"),
        (("bench", "step", "--repeats", "0"), "'--repeats'"),
        (("bench", "sample", "--network", "cnn"), "cnn: none of these networks draws images"),
        (("bench", "sample", "--images", "0"), "'--images'"),
        (("bench", "accounting", "--eps", "0"), "epsilon must be above 0, got 0"),
        (("bench", "accounting", "--eps", "inf"), "epsilon must be finite"),
        (("bench", "accounting", "--steps", "0"), "'--steps'"),
    ],
)
def test_so_is_a_mistake_in_any_other_command(
    dpbench: Command, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    ended = dpbench(*arguments)
    assert ended.code == 2
    assert message in one_error(ended.err)
    assert not ended.out
    assert not list(tmp_path.iterdir())


def test_no_command_at_all_gives_help_and_no_empty_error(dpbench: Command) -> None:
    for command in ((), ("bench",)):
        ended = dpbench(*command)
        assert ended.code == 2 and not ended.out
        assert ended.err.startswith("Usage: dpbench") and "Error" not in ended.err
        assert len(ended.err.splitlines()) > 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not an IDX file", "expected 00000803, an IDX file of uint8"),
        (gzip.compress(bytes(1000), mtime=0)[:-9], "is a truncated gzip file"),
    ],
    ids=["corrupt", "truncated"],
)
def test_bad_data_files_are_named_and_no_run_is_begun(
    dpbench: Command, tmp_path: Path, content: bytes, message: str
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    suffix = ".gz" if content.startswith(b"\x1f\x8b") else ""
    (data / f"train-images-idx3-ubyte{suffix}").write_bytes(content)
    options = ("--dataset", "fashionmnist", "--data-root", data)
    ended = dpbench(*SMOKE, "--method", "real", *options)
    assert ended.code == 2
    assert message in one_error(ended.err) and str(data) in ended.err
    assert list(tmp_path.iterdir()) == [data]


@pytest.mark.parametrize("option", ["--runs-dir", "--out"])
@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_written_to_is_named(
    dpbench: Command, toy: ModuleType, tmp_path: Path, option: str, place: str
) -> None:
    (tmp_path / "file").write_text("in the way")
    ended = dpbench(*TOY, option, place)
    assert ended.code == 2
    assert f"cannot write to {place}" in one_error(ended.err)
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_folder_with_another_run_says_what_differs(
    dpbench: Command, toy: ModuleType, tmp_path: Path
) -> None:
    assert dpbench(*TOY, "--out", "here").code == 0
    before = (tmp_path / "here" / "record.json").read_bytes()
    ended = dpbench(*TOY, "--out", "here", "--seed", "1", "--set", "steps=7")
    assert ended.code == 2
    assert "(it differs in method_args, seed)" in one_error(ended.err)
    assert (tmp_path / "here" / "record.json").read_bytes() == before


def test_a_folder_of_somebody_elses_is_left_alone(
    dpbench: Command, toy: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep")
    for options in ((), ("--overwrite",)):
        ended = dpbench(*TOY, "--out", "notes", *options)
        assert ended.code == 2
        assert "is not empty and holds no run" in one_error(ended.err)
    assert [file.name for file in (tmp_path / "notes").iterdir()] == ["mine.txt"]


def test_overwriting_runs_again_and_spares_files_that_are_not_of_the_run(
    dpbench: Command, toy: ModuleType, tmp_path: Path
) -> None:
    assert dpbench(*TOY, "--out", "here").code == 0
    (tmp_path / "here" / "mine.txt").write_text("keep")
    # what an evaluator kept that has been removed since
    (tmp_path / "here" / "evaluation-gone.npz").write_bytes(b"")
    ended = dpbench(*TOY, "--out", "here", "--seed", "1", "--overwrite")
    assert ended.code == 0
    assert not (tmp_path / "here" / "evaluation-gone.npz").exists()
    assert json.loads((tmp_path / "here" / "record.json").read_text())["spec"]["seed"] == 1
    assert (tmp_path / "here" / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema_version": 1}', '{"schema_version": 9}'])
def test_a_corrupt_record_is_named_and_can_be_overwritten(
    dpbench: Command, toy: ModuleType, tmp_path: Path, text: str
) -> None:
    record = tmp_path / "here" / "record.json"
    record.parent.mkdir()
    record.write_text(text)
    ended = dpbench(*TOY, "--out", "here")
    assert ended.code == 2
    assert "here/record.json" in one_error(ended.err)
    assert record.read_text() == text
    assert dpbench(*TOY, "--out", "here", "--overwrite").code == 0


def test_brackets_are_printed_as_they_are(dpbench: Command, toy: ModuleType) -> None:
    assert "Unknown method '[bold]x[/]'" in dpbench(*SMOKE, "--method", "[bold]x[/]").err
    ended = dpbench(*TOY, "--out", "[red]here[/]", "--all")
    assert ended.code == 0
    assert "[red]here[/]/record.json" in ended.out and "it is [missing]" in ended.out


def test_a_path_is_on_one_line_however_narrow_the_window(
    dpbench: Command, toy: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    folder = "/".join(["a-long-name-of-a-folder"] * 4)
    ended = dpbench(*TOY, "--out", folder)
    assert any(line.endswith(f"{folder}/record.json") for line in ended.out.splitlines())


def test_a_broken_method_fails_the_run_in_one_line_and_is_tried_again(
    dpbench: Command, toy: ModuleType, tmp_path: Path
) -> None:
    def break_down(step: int) -> None:
        raise ValueError("the [hamster]\n  is tired")

    toy.HOOKS["step"] = break_down
    ended = dpbench(*TOY, "--out", "here")
    assert ended.code == 1
    assert "ValueError: the [hamster] is tired" in one_error(ended.err)
    record = json.loads((tmp_path / "here" / "record.json").read_text())
    assert (record["status"], record["error"]) == ("failed", "ValueError: the [hamster] is tired")
    toy.HOOKS.clear()
    assert dpbench(*TOY, "--out", "here").code == 0
    record = json.loads((tmp_path / "here" / "record.json").read_text())
    assert (record["status"], record["error"]) == ("complete", None)


def test_debug_shows_where_an_error_came_from(dpbench: Command, toy: ModuleType) -> None:
    def break_down(step: int) -> None:
        raise ValueError("tired")

    toy.HOOKS["step"] = break_down
    ended = dpbench(*TOY, "--debug")
    assert ended.code == 1
    assert "in break_down" in ended.err and ended.err.splitlines()[-1].startswith("Error: ")
    assert "Traceback" in dpbench(*SMOKE, "--method", "nonsense", "--debug").err


def test_an_error_nobody_thought_of_is_one_line_too(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dpbench.runs.execute.load", full)
    ended = dpbench(*SMOKE, "--method", "real")
    assert ended.code == 1
    assert "no space left on device: make room (--debug shows where)" in one_error(ended.err)


def test_a_broken_evaluator_is_a_row_with_a_reason(
    dpbench: Command, toy: ModuleType, tmp_path: Path
) -> None:
    def break_down(count: int) -> None:
        raise ValueError("two\nlines")

    toy.HOOKS["evaluate"] = break_down
    assert dpbench(*TOY, "--out", "here").code == 1
    record = json.loads((tmp_path / "here" / "record.json").read_text())
    rows = [(row["metric"], row["value"], row["reason"]) for row in record["measurements"]]
    reason = "ValueError: two lines"
    assert rows == [("toy_mean", None, reason), ("toy_missing", None, reason)]


def test_a_dry_run_prints_the_plan_and_writes_nothing(dpbench: Command, tmp_path: Path) -> None:
    ended = dpbench(*SYNGEN, "--eps", "0.001", "--dry-run")
    assert ended.code == 0
    for words in ("noise multiplier", "sample rate 0.04454, 6 steps", "768 of 8,000 private"):
        assert words in " ".join(ended.err.split())
    assert "s of training" in ended.err and "of evaluation" in " ".join(ended.err.split())
    assert not ended.out
    assert not list(tmp_path.iterdir())


def test_standard_output_is_json_alone(dpbench: Command, toy: ModuleType, tmp_path: Path) -> None:
    plan = json.loads(dpbench(*TOY, "--dry-run", "--json").out)
    assert plan["events"][0]["steps"] == plan["stages"][0]["steps"] == 4
    assert plan["private_evaluations"] == 64
    ended = dpbench(*TOY, "--json", "--out", "here")
    assert ended.out == (tmp_path / "here" / "record.json").read_text()
    assert "sampling: 200/200 images" in ended.err


def test_a_non_private_dry_run_is_json_without_infinity(dpbench: Command) -> None:
    ended = dpbench(*SMOKE, "--method", "real", "--dry-run", "--json")
    plan = json.loads(ended.out, parse_constant=pytest.fail)
    assert plan["epsilon"] == "inf"
    assert "not private" in ended.err


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "dataset", "epsilon", "steps"),
    [("dpdm", "mnist", 0.2, 4395), ("dpsyngen", "fashionmnist", 1, 2930)],
)
def test_the_papers_configurations_can_be_planned_anywhere(
    dpbench: Command, tmp_path: Path, method: str, dataset: str, epsilon: float, steps: int
) -> None:
    options = ("--method", method, "--dataset", dataset, "--profile", "paper", "--eps", epsilon)
    ended = dpbench("run", *options, "--dry-run", "--json")
    assert ended.code == 0
    plan = json.loads(ended.out)
    (event,) = plan["events"]
    assert event["steps"] == steps
    assert event["sample_rate"] == pytest.approx(4096 / 60000)
    assert event["noise_multiplier"] > 0.5
    assert plan["parameters"] == pytest.approx(1.75e6, rel=0.02)
    assert plan["private_evaluations"] == steps * 4096 * plan["method_args"]["multiplicity"]
    assert plan["estimated_train_seconds"] > 0
    assert not list(tmp_path.iterdir())


def test_the_documentation_of_every_command_is_there(dpbench: Command) -> None:
    parts = [("bench", part) for part in ("step", "sample", "accounting", "startup")]
    commands = [
        (name,) for name in ("run", "sweep", "evaluate", "list", "report", "verify", "check")
    ]
    for command in ((), *commands, ("bench",), *parts):
        ended = dpbench(*command, "--help")
        assert ended.code == 0 and "Usage" in ended.out and not ended.err


START = """
import sys
sys.argv = ["dpbench", *sys.argv[1:]]
from dpbench.cli import main
try:
    main()
except SystemExit as ended:
    code = ended.code
heavy = {"numpy", "torch", "pandas", "scipy", "sklearn", "torchvision", "opacus", "dp_accounting"}
print("heavy:", sorted(heavy & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("run", "--help"),
        ("sweep", "--help"),
        ("evaluate", "--help"),
        ("verify", "--help"),
        ("bench", "step", "--help"),
    ]
    + [("--version",), ("list",), ("list", "methods", "--json")],
)
def test_nothing_heavy_is_imported_to_list_or_to_help(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", START, *arguments], capture_output=True, text=True, cwd=tmp_path
    )
    assert ended.returncode == 0
    assert ended.stderr == "heavy: []\n"


def test_the_console_script_ends_with_the_exit_code_and_is_quiet_in_a_pipe(tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("dpbench")
    if not script.exists():
        pytest.skip("not installed as a script")
    environment = {**os.environ, "NO_COLOR": "1", "COLUMNS": "80"}
    ended = subprocess.run(
        [script, "list", "nonsense"], capture_output=True, text=True, env=environment
    )
    assert ended.returncode == 2
    assert ended.stdout == "" and one_error(ended.stderr)
    ended = subprocess.run([script, "list"], capture_output=True, text=True, env=environment)
    assert ended.returncode == 0
    assert "\x1b" not in ended.stdout and "…" not in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 80
