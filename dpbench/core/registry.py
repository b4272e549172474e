"""Names of methods, evaluators and sources of programmatic images, without importing them.

Built-in ones are found by their file: ``generators/dpsyngen_coarse.py`` is ``dpsyngen-coarse``.
Third-party packages announce theirs by the entry points ``dpbench.generators``,
``dpbench.evaluators`` and ``dpbench.sources``. There is no central list.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import pkgutil
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType
from typing import Any, Literal

from dpbench import __version__
from dpbench.core.errors import UserError, described, unknown
from dpbench.core.signals import ENDING

Kind = Literal["method", "evaluator", "source"]
_PACKAGES = {
    "method": ("generators", "baselines"),
    "evaluator": ("evaluators",),
    "source": ("generators.programmatic",),
}
_LINES = {"method": "METHOD", "evaluator": "EVALUATOR", "source": "SOURCE"}
_GROUPS = {
    "method": "dpbench.generators",
    "evaluator": "dpbench.evaluators",
    "source": "dpbench.sources",
}
_REQUIRED = {
    "method": ("__dataclass_fields__", "summary", "private", "presets", "plan", "fit", "restore"),
    "evaluator": ("summary", "metrics", "needs", "evaluate"),
    "source": ("__dataclass_fields__", "summary", "labelled", "draw"),
}
OURS = "dpbench-images"
NAME = r"[a-z0-9][a-z0-9-]{0,63}"


@dataclass(frozen=True)
class Entry:
    """A method, evaluator or source that can be loaded by name.

    Attributes:
        name: CLI name.
        family: ``generators``, ``baselines``, ``evaluators`` or ``generators.programmatic``.
        module: Module that holds the class.
        attribute: Name of the class in the module.
        distribution: Installed package that provides the module.
        version: Version of that package.
    """

    name: str
    family: str
    module: str
    attribute: str
    distribution: str
    version: str


def entries(kind: Kind) -> dict[str, Entry]:
    """All entries of a kind, sorted by name; third parties cannot replace a built-in one.

    Raises:
        UserError: What an installed package announces cannot be read.
    """
    found: dict[str, Entry] = {}
    for family in _PACKAGES[kind]:
        # found, not imported: a package's __init__ may import torch
        package = importlib.util.find_spec(f"dpbench.{family}")
        assert package is not None
        for module in pkgutil.iter_modules(package.submodule_search_locations):
            if not module.ispkg and not module.name.startswith("_"):
                name = module.name.replace("_", "-")
                path = f"dpbench.{family}.{module.name}"
                found[name] = Entry(name, family, path, _LINES[kind], OURS, __version__)
    for point in _announced(_GROUPS[kind]):
        # not point.module and point.attr, which raise if the entry point is malformed
        path, _, attribute = point.value.partition(":")
        owner = point.dist
        entry = Entry(
            point.name,
            _PACKAGES[kind][0],
            path.strip(),
            attribute.strip(),
            owner.name if owner else "unknown",
            owner.version if owner else "unknown",
        )
        found.setdefault(point.name, entry)
    return dict(sorted(found.items()))


def _announced(group: str) -> tuple[importlib.metadata.EntryPoint, ...]:
    """Entry points of a group, from all installed packages."""
    return _installed(tuple((path, _changed(Path(path))) for path in sys.path))[group]


def _changed(folder: Path) -> int:
    """When something was put into a folder, or taken out of it, in ns; 0 if it cannot be read."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


@lru_cache(maxsize=1)  # a hundred files, which a run would read dozens of times
def _installed(
    folders: tuple[tuple[str, int], ...],
) -> dict[str, tuple[importlib.metadata.EntryPoint, ...]]:
    """Entry points by group, as long as the folders that Python searches do not change."""
    try:
        every = importlib.metadata.entry_points()
        return {group: tuple(every.select(group=group)) for group in _GROUPS.values()}
    except Exception as error:
        for package in importlib.metadata.distributions():
            try:
                _ = package.entry_points
            except Exception:
                raise UserError(
                    f"entry_points.txt of the installed package {package.name} {package.version} "
                    f"cannot be read ({described(error)}): mend or uninstall the package"
                ) from error
        raise


def load(kind: Kind, name: str) -> Any:
    """Load the class of a name.

    Raises:
        UserError: The name is unknown, or its module is broken.
    """
    known = entries(kind)
    if name not in known:
        raise UserError(unknown(kind, name, known))
    entry = known[name]
    with _signals() as received:
        try:
            if not re.fullmatch(NAME, name):  # it becomes a part of paths
                raise ValueError(f"a {kind} is named by small letters, digits and hyphens")
            found = getattr(importlib.import_module(entry.module), entry.attribute)
            missing = [part for part in _REQUIRED[kind] if not hasattr(found, part)]
            if missing:
                raise TypeError(f"{entry.attribute} has no {', '.join(missing)}")
            return found
        except BaseException as error:  # a plugin may fail in any way, and must affect nothing else
            if received:
                raise
            raise UserError(
                f"{kind} {name!r} of {entry.distribution} {entry.version} is broken: "
                f"{described(error)}"
            ) from error


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Yield the numbers of the signals that come meanwhile; each is handled as it was before.

    They tell Ctrl-C from a plugin that raises KeyboardInterrupt. Outside the main thread, where no
    signal is handled, there are none.
    """
    received: list[int] = []
    before = {
        number: signal.getsignal(number)
        for number in ENDING
        if threading.current_thread() is threading.main_thread()
    }

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        handler = before[signal.Signals(number)]
        assert callable(handler)
        handler(number, frame)

    watched = {number: handler for number, handler in before.items() if callable(handler)}
    try:
        for number in watched:
            signal.signal(number, note)
        yield received
    finally:
        for number, handler in watched.items():
            signal.signal(number, handler)


def version_of(entry: Entry) -> str:
    """Identify the results of an entry.

    Returns:
        For a built-in one ``dpbench N``: its class states N, which is raised when results change
        and at no other time. For a third party's, its package with the version and the hash of the
        file, since nobody holds its author to such a number.
    """
    module = importlib.import_module(entry.module)
    if entry.distribution == OURS:
        return f"dpbench {getattr(module, entry.attribute).version}"
    source = inspect.getsourcefile(module)
    digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()[:12] if source else "unknown"
    return f"{entry.distribution} {entry.version} {digest}"
