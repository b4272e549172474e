from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Each part of the harness may import what stands above it, and itself.
ORDER = (
    *("dpbench", "errors", "ranges", "types", "pixels", "streams", "progress", "files", "cores"),
    *("launch", "ranks", "stages", "augmentation", "averaging", "pretraining"),
    *("privacy", "privacy.budget", "privacy.accounting", "privacy.crosschecks", "privacy.ledger"),
    *("privacy.certificate", "privacy.poisson", "privacy.bounds"),
    *("privacy.clipping", "privacy.clipping.parts", "privacy.clipping.convolution"),
    *("privacy.clipping.layers", "privacy.clipping.*", "privacy.execution", "privacy.copies"),
    *("privacy.dpsgd", "privacy.private_images", "probe", "classification"),
    # replaying stands in for the handle on private images, so it knows that and no method
    *("privacy.replay", "privacy.audit", "data", "profiles", "protocols", "registry", "settings"),
    *("multiplicity", "estimates", "record", "outcomes", "scores"),
    *("claims.arms", "claims.rules", "claims.verdicts", "claims.published", "claims"),
    *("evaluation", "verify", "public"),
    # checking a method fits it as a run does
    *("run", "check", "scoring", "sweep", "report", "console", "bench"),
    # a command knows what all of them share, and no other command
    *("cli.app", "cli.options", "cli.cells", "cli.*", "cli", "__main__"),
)
FORBIDDEN = {"report": ("protocols", "run"), "record": ("protocols",), "registry": ("protocols",)}
CONTRIBUTED = ("generators", "baselines", "evaluators")


def part_of(module: str) -> str:
    """The name in ``ORDER`` of a module of the harness, given without ``dpbench.``."""
    if module in ORDER:
        return module
    parent, _, _ = module.rpartition(".")
    if f"{parent}.*" in ORDER:
        return f"{parent}.*"
    assert parent, f"{module} has no place in the order"
    return part_of(parent)


def imports(source: str) -> Iterator[tuple[int, str, str]]:
    """Level, module and name of everything imported, wherever in the file it is."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, node.module or "", alias.name) for alias in node.names)


def harness_imports(source: str) -> Iterator[str]:
    """Modules of ``dpbench`` that a file imports, without ``dpbench.``."""
    for level, module, name in imports(source):
        if level:
            yield f"(relative) {module}"
        elif module == "dpbench":
            is_module = (ROOT / "dpbench" / f"{name}.py").exists() or (
                ROOT / "dpbench" / name
            ).is_dir()
            yield name if name and is_module else "dpbench"
        elif module.startswith("dpbench."):
            longer = f"{module}.{name}".replace(".", "/")
            yield (f"{module}.{name}" if (ROOT / f"{longer}.py").exists() else module)[8:]


def wrong_in_harness(module: str, source: str) -> list[str]:
    """What a file of the harness imports and must not."""
    own = part_of(module)
    wrong = []
    for imported in harness_imports(source):
        if imported.startswith("(relative)") or imported.split(".")[0] in CONTRIBUTED:
            wrong.append(f"{module} imports {imported}")
            continue
        other = part_of(imported)
        inside = own == other and "." not in own and own != imported
        above = ORDER.index(other) < ORDER.index(own)
        if not (inside or above) or other in FORBIDDEN.get(own.split(".")[0], ()):
            wrong.append(f"{module} imports {imported}")
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
        elif not level and absolute[0] == "dpbench" and absolute[1:] == ["run"]:
            wrong.append(f"{family} runs runs")
    return wrong


def harness_files() -> list[Path]:
    return sorted((ROOT / "dpbench").rglob("*.py"))


def module_name(file: Path) -> str:
    relative = file.relative_to(ROOT / "dpbench").with_suffix("")
    return ".".join(relative.parts).removesuffix(".__init__").replace("__init__", "dpbench")


@pytest.mark.parametrize("file", harness_files(), ids=module_name)
def test_a_file_of_the_harness_imports_only_what_stands_above_it(file: Path) -> None:
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
        if file == ROOT / "dpbench" / "claims" / "published.py":
            continue  # what was published is about methods
        words = {
            node.value
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        # the harness has other uses for these words
        assert not words & (names - {"real", "nonprivate"}), file


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("types", "import dpbench.streams"),
        ("files", "from dpbench.stages import Stage"),
        ("stages", "from dpbench import registry"),
        ("privacy.accounting", "from dpbench.privacy.ledger import Allowance"),
        ("privacy.clipping", "from dpbench.privacy.clipping.vmap import clipped_sum"),
        ("privacy.clipping", "from dpbench.privacy.clipping import vmap"),
        ("privacy.clipping.new", "from dpbench.privacy.clipping.vmap import clipped_sum"),
        ("privacy.dpsgd", "def f():\n    from dpbench.protocols import Plan"),
        ("report.leaderboard", "from dpbench.protocols import Plan"),
        ("report.leaderboard", "from dpbench.run import execute"),
        ("report", "if TYPE_CHECKING:\n    import dpbench.run"),
        ("run", "from dpbench.generators import dpdm"),
        ("run", "from dpbench.evaluators.fidelity import Fidelity"),
        ("record", "from . import types"),
        ("settings", "from dpbench.console import duration"),
        ("bench", "from dpbench.cli.app import out"),
        ("cli.app", "from dpbench.cli.options import Debug"),
        ("cli.audit", "from dpbench.cli.run import run"),
        ("cli.audit", "from dpbench.cli import run"),
        ("cli.audit", "from dpbench.cli import main"),
    ],
)
def test_a_wrong_import_in_the_harness_is_caught(module: str, source: str) -> None:
    assert wrong_in_harness(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("data.load", "from dpbench.data.idx import FILES"),
        ("privacy.clipping.new", "from dpbench.privacy.clipping import Objective"),
        ("cli.report", "from dpbench.report import leaderboard"),
        ("cli.report", "from dpbench.cli.app import out"),
        ("cli", "from dpbench.cli import report"),
        ("run", "import torch\nfrom dpbench import streams"),
    ],
)
def test_a_right_import_is_not(module: str, source: str) -> None:
    assert not wrong_in_harness(module, source)


@pytest.mark.parametrize(
    ("depth", "source"),
    [
        (0, "from dpbench.generators.diffusion import unet"),
        (0, "from dpbench.evaluators import fidelity"),
        (0, "from dpbench import baselines"),
        (0, "import generators.dpdm"),
        (0, "from ..baselines import real"),
        (1, "from ...evaluators import cas"),
        (0, "from dpbench.run import execute"),
    ],
)
def test_a_wrong_import_among_contributed_files_is_caught(depth: int, source: str) -> None:
    assert wrong_in_contributed("generators", depth, source)
    assert not wrong_in_contributed("generators", 1, "from ..dpdm import DPDM\nimport torch")


def test_baselines_may_be_made_of_generators_but_not_the_other_way_round() -> None:
    assert not wrong_in_contributed("baselines", 0, "from dpbench.generators.dpdm import DPDM")
    assert wrong_in_contributed("generators", 0, "from dpbench.baselines.real import Real")
    assert wrong_in_contributed("evaluators", 0, "from dpbench.generators.dpdm import DPDM")


def test_a_file_without_a_place_in_the_order_is_caught() -> None:
    with pytest.raises(AssertionError, match="has no place in the order"):
        wrong_in_harness("attic", "")
