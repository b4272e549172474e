"""Pages: plain HTML that stands alone."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

_STYLE = (
    "body{font:15px sans-serif;margin:2em;max-width:90em}td,th{text-align:left;vertical-align:top;"
    "padding:.4em .8em .4em 0;border-bottom:1px solid #ccc}table{border-collapse:collapse}"
    "small{color:#555}img{max-width:min(60em,100%)}summary{cursor:pointer}"
    ".supported{color:#00664b;font-weight:bold}.contradicted{color:#a33c00;font-weight:bold}"
)


def page(title: str, *parts: str) -> str:
    """A page of parts that are HTML already."""
    body = "\n".join((f"<h1>{escape(title)}</h1>", *parts))
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n{body}\n</html>\n"
    )


def paragraph(text: str) -> str:
    """Text as a paragraph."""
    return f"<p>{escape(text)}</p>"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of cells that are HTML already, under names that are text."""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = ("<tr>" + "".join(f"<td>{each}</td>" for each in row) + "</tr>" for row in rows)
    return "\n".join(("<table>", f"<tr>{names}</tr>", *lines, "</table>"))


def cell(value: object) -> str:
    """A value for people, as HTML; None is nothing."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else escape(str(value))
