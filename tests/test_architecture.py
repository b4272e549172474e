from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# A folder of the harness imports the folders that stand before it, and itself.
FLOORS = (
    *("core", "parallel", "stats", "data", "training", "privacy", "api", "records"),
    *("runs", "claims", "report", "bench", "cli"),
)
LOOSE = ("__init__", "__main__")  # the only modules directly in dpbench/
# A report is a function of records: it neither runs nor knows methods and evaluators.
FORBIDDEN = {"report": ("runs", "api.method", "api.evaluator", "core.registry")}
CONTRIBUTED = ("generators", "baselines", "evaluators")
LONGEST = 400  # lines of a file


def imports(source: str) -> Iterator[tuple[int, str, str]]:
    """Level, module and name of everything imported, wherever in the file it is."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, node.module or "", alias.name) for alias in node.names)


def wrong_in_harness(module: str, source: str) -> list[str]:
    """What a module of the harness, named without ``dpbench.``, imports and must not."""
    floor = module.split(".")[0]
    wrong = []
    for level, imported, name in imports(source):
        path = f"{imported}.{name}".removeprefix("dpbench.")
        other = path.split(".")[0]
        if level:
            wrong.append(f"{module} has a relative import of {imported or name}")
        elif imported.split(".")[0] != "dpbench" or other not in (*FLOORS, *CONTRIBUTED):
            continue
        elif (
            other in CONTRIBUTED
            or (floor in FLOORS and FLOORS.index(other) > FLOORS.index(floor))
            or any(f"{path}.".startswith(f"{no}.") for no in FORBIDDEN.get(floor, ()))
        ):
            wrong.append(f"{module} imports {path}")
    return wrong


def wrong_in_contributed(family: str, depth: int, source: str) -> list[str]:
    """What a generator, baseline or evaluator imports and must not.

    ``depth`` is the number of folders between the file and the family's folder.
    """
    wrong = []
    for level, module, name in imports(source):
        absolute = module.split(".")[:2]
        if level > depth + 1:
            wrong.append(f"{'.' * level}{module} reaches out of {family}")
        elif not level and (
            absolute[0] in CONTRIBUTED
            or (
                absolute[0] == "dpbench"
                and absolute[1:]
                and absolute[1] in CONTRIBUTED
                # a baseline may be a method with something left out
                and (family, absolute[1]) != ("baselines", "generators")
            )
            or (module == "dpbench" and name in CONTRIBUTED)
        ):
            wrong.append(f"{module} is named from {family}")
        elif not level and absolute[0] == "dpbench" and absolute[1:] == ["runs"]:
            wrong.append(f"{family} runs runs")
    return wrong


def harness_files() -> list[Path]:
    return sorted((ROOT / "dpbench").rglob("*.py"))


def module_name(file: Path) -> str:
    return ".".join(file.relative_to(ROOT / "dpbench").with_suffix("").parts)


def test_no_module_stands_loose_and_every_folder_is_a_floor() -> None:
    assert {file.stem for file in (ROOT / "dpbench").glob("*.py")} == set(LOOSE)
    folders = {file.relative_to(ROOT / "dpbench").parts[0] for file in harness_files()}
    assert {folder for folder in folders if not folder.endswith(".py")} == set(FLOORS)


@pytest.mark.parametrize("root", ["dpbench", *CONTRIBUTED, "tests"])
def test_no_file_is_long(root: str) -> None:
    lengths = {
        file: len(file.read_text(encoding="utf-8").splitlines())
        for file in (ROOT / root).rglob("*.py")
    }
    assert {str(file): lines for file, lines in lengths.items() if lines > LONGEST} == {}


def test_no_test_imports_another() -> None:
    for file in sorted((ROOT / "tests").rglob("*.py")):
        for _, module, name in imports(file.read_text(encoding="utf-8")):
            parts = (*module.split("."), name)
            assert not any(part.startswith("test_") for part in parts), f"{file}: {module} {name}"


@pytest.mark.parametrize("file", harness_files(), ids=module_name)
def test_a_file_of_the_harness_imports_only_its_own_floor_and_those_before(file: Path) -> None:
    assert wrong_in_harness(module_name(file), file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("family", CONTRIBUTED)
def test_contributed_files_know_their_siblings_and_the_harness_and_nobody_else(
    family: str,
) -> None:
    for file in sorted((ROOT / family).rglob("*.py")):
        depth = len(file.relative_to(ROOT / family).parts) - 1
        source = file.read_text(encoding="utf-8")
        assert wrong_in_contributed(family, depth, source) == [], file


def test_the_harness_knows_no_method_and_no_metric_by_name_but_those_of_claims() -> None:
    names = {
        file.stem.replace("_", "-")
        for folder in (*CONTRIBUTED, "generators/programmatic")
        for file in (ROOT / folder).glob("*.py")
        if not file.stem.startswith("_")
    }
    for file in harness_files():
        if file.relative_to(ROOT / "dpbench").as_posix() in (
            "claims/published.py",  # what was published is about methods
            "records/departures.py",  # old records, from before methods declared their departures
        ):
            continue
        words = {
            node.value
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        # the harness has other uses for these words
        assert not words & (names - {"real", "nonprivate"}), file


def unsafe_loads(source: str) -> list[str]:
    """Calls that execute what a file says, or may."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        options = {each.arg: ast.unparse(each.value) for each in node.keywords}
        if (
            (name == "torch.load" and options.get("weights_only") != "True")
            or (name in ("np.load", "numpy.load") and options.get("allow_pickle") != "False")
            or name.endswith(("pickle.load", "pickle.loads", "Unpickler", "safe_globals"))
            or name in ("torch.jit.load", "joblib.load", "pd.read_pickle")
        ):
            found.append(ast.unparse(node))
    return found


# one such call each
MAY_UNPICKLE = (
    "dpbench/data/formats/pickles.py",  # CIFAR-10, by a reader of our own that knows no functions
    "dpbench/parallel/forked.py",  # what a fork of this process has just written, for it alone
)


def test_no_file_is_loaded_in_a_way_that_executes_it() -> None:
    for folder in ("dpbench", *CONTRIBUTED):
        for file in sorted((ROOT / folder).rglob("*.py")):
            found = unsafe_loads(file.read_text(encoding="utf-8"))
            allowed = file.relative_to(ROOT).as_posix() in MAY_UNPICKLE
            assert len(found) <= allowed, f"{file}: {found}"


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "np.load(file)",
        "pickle.load(file)",
        "torch.serialization.add_safe_globals([Sampler])",
    ],
)
def test_a_load_that_may_execute_a_file_is_noticed(source: str) -> None:
    assert unsafe_loads(source)
    assert not unsafe_loads("torch.load(f, weights_only=True); np.load(f, allow_pickle=False)")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.files", "from dpbench.training.loop import Stage"),
        ("training.loop", "from dpbench.privacy import ledger"),
        ("privacy.dpsgd", "def f():\n    from dpbench.api.method import Plan"),
        ("report.leaderboard", "from dpbench.api.method import Plan"),
        ("report.leaderboard", "from dpbench.api import evaluator"),
        ("report.leaderboard", "from dpbench.runs.execute import execute"),
        ("report.figures", "if TYPE_CHECKING:\n    import dpbench.runs.execute"),
        ("runs.execute", "from dpbench.generators import dpdm"),
        ("runs.execute", "from dpbench import generators"),
        ("runs.execute", "from dpbench.evaluators.fidelity import Fidelity"),
        ("records.run_record", "from . import verify"),
        ("runs.hyperparameters", "from dpbench.cli.console import progress_on"),
        ("bench.step", "from dpbench import cli"),
    ],
)
def test_a_wrong_import_in_the_harness_is_caught(module: str, source: str) -> None:
    assert wrong_in_harness(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("data.load", "from dpbench.data.formats.idx import FILES"),
        ("privacy.clipping.new", "from dpbench.privacy.clipping import Objective"),
        ("cli.report", "from dpbench.report import leaderboard"),
        ("report.overview", "from dpbench.api.profiles import PROFILES"),
        ("core.registry", "from dpbench import __version__"),
        ("runs.execute", "import torch\nfrom dpbench.core import streams"),
        ("__main__", "from dpbench.cli import main"),
    ],
)
def test_a_right_import_is_not(module: str, source: str) -> None:
    assert not wrong_in_harness(module, source)


@pytest.mark.parametrize(
    ("depth", "source"),
    [
        (0, "from dpbench.generators.diffusion import samplers"),
        (0, "from dpbench.evaluators import fidelity"),
        (0, "from dpbench import baselines"),
        (0, "import generators.dpdm"),
        (0, "from ..baselines import real"),
        (1, "from ...evaluators import cas"),
        (0, "from dpbench.runs.execute import execute"),
    ],
)
def test_a_wrong_import_among_contributed_files_is_caught(depth: int, source: str) -> None:
    assert wrong_in_contributed("generators", depth, source)
    assert not wrong_in_contributed("generators", 1, "from ..dpdm import DPDM\nimport torch")


def test_baselines_may_be_made_of_generators_but_not_the_other_way_round() -> None:
    assert not wrong_in_contributed("baselines", 0, "from dpbench.generators.dpdm import DPDM")
    assert wrong_in_contributed("generators", 0, "from dpbench.baselines.real import Real")
    assert wrong_in_contributed("evaluators", 0, "from dpbench.generators.dpdm import DPDM")
