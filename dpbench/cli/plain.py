"""Consoles on which text is text: no markup, no emoji codes, no escapes, whoever wrote it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from dpbench.core.text import visible


class PlainConsole(Console):
    """A console that shows strings as they are; what is styled is a ``Text``."""

    def __init__(self, width_in_pipes: int | None = None, **options: Any) -> None:
        """Take the options of ``Console``, with all interpretation of strings off.

        Args:
            width_in_pipes: Columns where there is no terminal; None for those of rich.
            options: Of ``Console``.
        """
        self._width_in_pipes = width_in_pipes
        super().__init__(**options, markup=False, emoji=False, highlight=False)
        # rich would keep what COLUMNS was at the start, whatever it is when something is printed
        self._width = options.get("width")

    @property
    def size(self) -> ConsoleDimensions:
        """Columns and lines; COLUMNS says what a pipe has, if anything does."""
        size = super().size
        if self._width_in_pipes is None or self.is_terminal or "COLUMNS" in self._environ:
            return size
        return size._replace(width=self._width_in_pipes)

    @size.setter
    def size(self, size: tuple[int, int]) -> None:
        self.width, self.height = size

    def render_str(self, text: str, **options: Any) -> Text:
        """Show a string, on an ASCII console too."""
        return super().render_str(self._shown(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render anything; the text in it, too, is shown and does not act."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(self._shown(segment.text), segment.style)

    def say(self, text: str, style: str = "") -> None:
        """Print one line, however long and whatever is in it."""
        self.print(Text(visible(text), style), soft_wrap=True)

    def _shown(self, text: str) -> str:
        if text.isascii() and text.isprintable():  # as most is, and a table has thousands of pieces
            return text
        shown = visible(text, breaks=True)
        return shown.encode(self.encoding, "backslashreplace").decode(self.encoding)


class PlainTable(Table):
    """A table whose strings are each one line."""

    def add_row(self, *cells: RenderableType | None, **options: Any) -> None:
        """Add a row of strings and of what is styled."""
        shown = (visible(each) if isinstance(each, str) else each for each in cells)
        super().add_row(*shown, **options)
