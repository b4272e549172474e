"""Text from anybody, shown as what it is: nothing in it is hidden or acts on who reads it."""

from __future__ import annotations

import unicodedata

BREAK = "\n"


def visible(text: str, breaks: bool = False) -> str:
    r"""Write characters that are not to be seen as Python writes them, such as ``\x1b``.

    They are controls of terminals, marks that turn the direction of writing, and bytes of names
    that are no text.

    Args:
        text: Any text.
        breaks: Whether line breaks remain; a name with one could pass for a line of output.
    """
    if text.isprintable():
        return text
    return "".join(
        each
        if each.isprintable() or unicodedata.category(each) == "Zs" or (breaks and each == BREAK)
        else each.encode("unicode_escape").decode()
        for each in text
    )
