from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import get_args

import pytest

from dpbench.api.profiles import PROFILES
from dpbench.core.errors import UserError, unknown
from dpbench.core.images import ImageSpec
from dpbench.core.progress import Silent
from dpbench.core.registry import OURS, Kind, entries, load, version_of
from dpbench.data.catalog import CATALOG
from dpbench.runs.hyperparameters import resolve
from dpbench.runs.public_images import programmatic_images
from tests.support.command import PLUGINS, TOY, Command

Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Installs a distribution with one entry point, and the source of its module."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    names = []

    def install(name: str, point: str, source: str) -> None:
        names.append(name)
        information = site / f"{name}-2.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.0")
        (information / "entry_points.txt").write_text(point)
        (site / f"{name}.py").write_text(source)

    yield install
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("kind", "folders", "some"),
    [
        ("method", ("generators", "baselines"), {"dpsyngen-coarse", "class-mean"}),
        ("source", ("generators/programmatic",), {"dead-leaves", "class-recipes"}),
    ],
)
def test_a_file_is_a_name(kind: Kind, folders: tuple[str, ...], some: set[str]) -> None:
    root = Path(__file__).parent.parent.parent
    files = [file for folder in folders for file in (root / folder).glob("*.py")]
    names = {file.stem.replace("_", "-") for file in files if not file.name.startswith("_")}
    assert names == entries(kind).keys()
    assert some <= names


@pytest.mark.parametrize("kind", get_args(Kind))
def test_everything_of_ours_loads(kind: Kind) -> None:
    for name, entry in entries(kind).items():
        if entry.distribution == "dpbench-images":
            assert load(kind, name).summary


def test_names_are_found_without_importing_torch() -> None:
    code = (
        "import sys; from dpbench.core.registry import entries; "
        f"print(*map(entries, {get_args(Kind)})); sys.exit('torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == 0 and "salt-and-pepper" in ended.stdout


def test_a_third_partys_method_is_listed_and_run_with_its_hash(
    dpbench: Command, toy: ModuleType
) -> None:
    listed = {item["name"]: item for item in json.loads(dpbench("list", "methods", "--json").out)}
    assert listed["toy"]["from"] == "toy 1.0"
    record = json.loads(dpbench(*TOY, "--json").out)
    assert record["spec"]["method_version"] == version_of(entries("method")["toy"])
    assert record["spec"]["method_version"].startswith("toy 1.0 ")
    assert len(record["spec"]["method_version"].split()[-1]) == 12


@pytest.mark.parametrize("kind", get_args(Kind))
def test_built_in_code_states_its_version(kind: Kind) -> None:
    own = [each for each in entries(kind).values() if each.distribution == OURS]
    assert own
    for entry in own:
        assert re.fullmatch(r"dpbench [1-9]\d*", version_of(entry)), entry


def test_another_version_is_another_run(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command = ("run", "--method", "class-mean", "--dataset", "digits", "--profile", "smoke")
    command = (*command, "--eps", "1", "--evaluators", "memorization", "--json")
    first = json.loads(dpbench(*command).out)
    monkeypatch.setattr(load("method", "class-mean"), "version", 9)
    second = json.loads(dpbench(*command).out)
    assert second["spec"]["method_version"] == "dpbench 9"
    assert first["id"] != second["id"]


def test_the_version_of_third_party_code_follows_its_source(install: Install) -> None:
    install("grown", "[dpbench.generators]\ngrown = grown:METHOD", "METHOD = 1")
    install("grown2", "[dpbench.generators]\ngrown2 = grown2:METHOD", "METHOD = 2")
    one, two = (version_of(entries("method")[name]) for name in ("grown", "grown2"))
    assert one.split()[-1] != two.split()[-1]


@pytest.mark.parametrize(
    ("point", "source", "reason"),
    [
        ("bad = bad:METHOD", "import nothing_of_the_kind", "No module named 'nothing_of_the_kind'"),
        ("bad = bad:METHOD", "METHOD = (", "SyntaxError"),
        ("bad = bad:METHOD", "1 / 0", "ZeroDivisionError"),
        ("bad = bad:MISSING", "METHOD = 1", "has no attribute 'MISSING'"),
        ("bad = bad", "", "AttributeError"),
        ("bad = no such module!", "", "ModuleNotFoundError"),
        ("bad = bad:METHOD", "class METHOD:\n    summary = 'half a method'", "has no"),
        ("bad = bad:METHOD", "import sys; sys.exit('no licence')", "SystemExit: no licence"),
        ("bad = bad:METHOD", "raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("bad = bad:METHOD", "raise BaseException('stop')", "BaseException: stop"),
    ],
)
def test_a_broken_plugin_disables_itself_and_nothing_else(
    dpbench: Command, install: Install, point: str, source: str, reason: str
) -> None:
    install("bad", f"[dpbench.generators]\n{point}", source)
    assert dpbench("list").code == 0
    ended = dpbench("list", "methods", "--check", "--json")
    assert ended.code == 1
    broken = {item["name"]: item["broken"] for item in json.loads(ended.out) if "broken" in item}
    assert broken.keys() == {"bad"}
    assert reason in broken["bad"] and "of bad 2.0 is broken" in broken["bad"]
    assert "broken" in dpbench("list", "methods", "--check").out
    ended = dpbench("run", "--method", "bad", "--dataset", "digits")
    assert ended.code == 2
    assert ended.err.startswith("Error: ") and ended.err.count("\n") == 1


def test_ctrl_c_during_an_import_is_no_fault_of_the_plugin(
    dpbench: Command, install: Install
) -> None:
    source = "import signal; signal.raise_signal(signal.SIGINT)"
    install("bad", "[dpbench.generators]\nbad = bad:METHOD", source)
    before = signal.getsignal(signal.SIGINT)
    assert dpbench("list", "methods", "--check").code == 130
    assert signal.getsignal(signal.SIGINT) is before


def test_a_check_of_what_works_ends_well(dpbench: Command) -> None:
    ended = dpbench("list", "--check", "--json")
    assert ended.code == 0
    listed = json.loads(ended.out)
    assert all(item["summary"] for item in listed["methods"] + listed["evaluators"])


def test_a_broken_evaluator_is_left_out_of_a_run_with_a_word(
    dpbench: Command, toy: ModuleType, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("bad", "[dpbench.evaluators]\nbad = bad:METHOD", "1 / 0")
    evaluators = {name: entries("evaluator")[name] for name in ("bad", "toy")}
    monkeypatch.setattr(
        "dpbench.runs.evaluation.entries",
        lambda kind: evaluators if kind == "evaluator" else entries(kind),
    )
    ended = dpbench(*TOY, "--json")
    assert ended.code == 0
    assert "skipped: evaluator 'bad' of bad 2.0 is broken: ZeroDivisionError" in ended.err
    metrics = {row["metric"] for row in json.loads(ended.out)["measurements"]}
    assert metrics == {"toy_mean", "toy_missing"}


PLAIN = """
from dataclasses import dataclass
from typing import ClassVar
import torch

@dataclass(frozen=True)
class Plain:
    summary: ClassVar[str] = "the label is the colour"
    labelled: ClassVar[bool] = True

    def draw(self, spec, labels, rng):
        return labels.to(torch.uint8).view(-1, 1, 1, 1).repeat(1, *spec.shape)
"""


def test_a_third_partys_source_is_drawn_from_by_its_name(install: Install) -> None:
    install("plain", "[dpbench.sources]\nplain = plain:Plain", PLAIN)
    assert version_of(entries("source")["plain"]).startswith("plain 2.0 ")
    images = programmatic_images("plain", 7, ImageSpec(1, 4, 4), 3, 0, Silent())
    assert images.pixels[:, 0, 0, 0].tolist() == images.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    settings = ("synthetic=plain", "synthetic_labels=recipe")
    resolve(load("method", "dpsyngen"), "dpsyngen", "laptop", "fashionmnist", 1.0, settings)


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        (PLAIN.replace("draw", "paint"), "TypeError: Plain has no draw"),
        (PLAIN.replace("labelled", "named"), "TypeError: Plain has no labelled"),
        (PLAIN.replace("@dataclass(frozen=True)", ""), "TypeError: Plain has no __dataclass_fie"),
    ],
)
def test_a_broken_source_disables_itself_and_nothing_else(
    install: Install, source: str, reason: str
) -> None:
    install("plain", "[dpbench.sources]\nplain = plain:Plain", source)
    with pytest.raises(UserError, match=f"source 'plain' of plain 2.0 is broken: {reason}"):
        programmatic_images("plain", 1, ImageSpec(1, 4, 4), 3, 0, Silent())
    assert len(programmatic_images("dead-leaves", 1, ImageSpec(1, 4, 4), 3, 0, Silent())) == 1


def test_a_name_of_ours_cannot_be_taken_over(install: Install) -> None:
    install("usurper", "[dpbench.generators]\ndpdm = usurper:METHOD", "METHOD = 1")
    assert entries("method")["dpdm"].distribution == "dpbench-images"


def test_lists_are_what_machines_were_promised(dpbench: Command) -> None:
    datasets = json.loads(dpbench("list", "datasets", "--json").out)
    assert [item["name"] for item in datasets] == list(CATALOG)
    for item in datasets:
        info = CATALOG[item["name"]]
        assert item["shape"] == list(info.shape) and item["classes"] == info.classes
    everything = json.loads(dpbench("list", "--json").out)
    assert everything.keys() == {"methods", "datasets", "sources", "evaluators", "profiles"}
    assert [item["name"] for item in everything["profiles"]] == list(PROFILES)
    assert everything["profiles"][-1]["train_seconds"] == "inf"


def test_lists_for_people_cut_nothing_off(
    dpbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    listing = dpbench("list").out
    assert "…" not in listing
    for name in (*entries("method"), *CATALOG, *PROFILES, "6,710,886,400", "1x28x28"):
        assert name in listing


def test_an_unknown_name_is_met_with_a_suggestion_or_with_all_there_are() -> None:
    assert "Did you mean 'dpdm'?" in unknown("method", "dpdn", ["dpdm", "real"])
    assert "There are dpdm, real." in unknown("method", "xyz", ["dpdm", "real"])
    with pytest.raises(UserError, match="Unknown evaluator 'fide'"):
        load("evaluator", "fide")


def test_the_plugins_of_the_tests_are_not_installed() -> None:
    assert "toy" not in entries("method"), f"{PLUGINS} leaks into other tests"


@pytest.mark.parametrize("name", ["../../../escape", "Upper", "a_b", "a/b", ".", "-x", "a" * 65])
def test_a_name_that_is_no_part_of_a_path_is_broken(install: Install, name: str) -> None:
    install("odd", f"[dpbench.generators]\n{name} = odd:METHOD", "METHOD = 3")
    assert name in entries("method")
    with pytest.raises(UserError, match="odd 2.0 is broken: .*small letters, digits"):
        load("method", name)


@pytest.mark.parametrize("command", [("list",), ("run", "--method", "real", "--dataset", "digits")])
def test_a_package_whose_entry_points_cannot_be_read_is_named(
    dpbench: Command, install: Install, command: tuple[str, ...]
) -> None:
    install("odd", "[dpbench.generators]\nline\u2028break = odd:METHOD", "METHOD = 3")
    ended = dpbench(*command)
    assert ended.code == 2 and ended.err.count("\n") == 1
    assert "entry_points.txt of the installed package odd 2.0 cannot be read (" in ended.err
    assert "mend or uninstall the package" in ended.err
