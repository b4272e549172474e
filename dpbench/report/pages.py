"""Pages: templates beside this file, filled in. What is filled in is text, escaped and visible."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from dpbench.core.text import visible

_TEMPLATES = Environment(
    loader=PackageLoader("dpbench.report"),
    autoescape=True,
    finalize=lambda value: visible(value) if type(value) is str else value,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def shown(value: object) -> object:
    """A value as pages show it: numbers at four digits, nothing for None."""
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else value


_TEMPLATES.filters["shown"] = shown
_TEXTS = _TEMPLATES.overlay(autoescape=False)  # for files that no browser reads


def render(template: str, **values: object) -> str:
    """Fill in a template.

    Args:
        template: File name in ``templates``.
        **values: What its names stand for.

    Returns:
        A page of HTML that needs no other file but the figures it links to.
    """
    return _TEMPLATES.get_template(template).render(values)


def render_text(template: str, **values: object) -> str:
    """Fill in a template of plain text, such as Markdown.

    Args:
        template: File name in ``templates``.
        **values: What its names stand for; each is one line, whatever is in it.
    """
    return _TEXTS.get_template(template).render(values)
