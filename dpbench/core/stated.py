"""What a class says of itself in text, read from its file: nothing is imported."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path

from dpbench.core.registry import OURS, Entry, entries

# `    summary: ClassVar[str] = "..."`, on one line or in parentheses
_TEXT = re.compile(r'^    (\w+): ClassVar\[str\] = (".*"|\(\n(?: {8}.*\n)+    \))$', re.MULTILINE)


def stated(entry: Entry) -> dict[str, str]:
    """Texts by attribute, as far as they are written as literals; empty if the file is not found.

    A third party's module in a package is not looked for: that would import the package.
    """
    if entry.distribution != OURS and "." in entry.module:
        return {}
    try:
        module = importlib.util.find_spec(entry.module)
        source = Path(module.origin).read_text() if module and module.origin else ""
        body = _body(source, entry.attribute)
        texts = {name: ast.literal_eval(text) for name, text in _TEXT.findall(body)}
    except (ImportError, OSError, ValueError, SyntaxError):
        return {}  # `dpbench list --check` says what is wrong with it
    return {name: text for name, text in texts.items() if isinstance(text, str)}


def reference_methods() -> list[str]:
    """Names of the methods that others are read against."""
    return [name for name, entry in entries("method").items() if "reference" in stated(entry)]


def _body(source: str, name: str) -> str:
    """The text of a class, which may be named by another name as in ``METHOD = DPDM``."""
    if alias := re.search(rf"^{re.escape(name)} = (\w+)$", source, re.MULTILINE):
        name = alias[1]
    found = re.search(rf"^class {re.escape(name)}\b.*\n((?:[ \n].*\n?)*)", source, re.MULTILINE)
    return found[1] if found else ""
