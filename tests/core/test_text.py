from __future__ import annotations

import pytest

from dpbench.core.text import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("class-mean, é, 猫, ☃ and a\xa0space", "class-mean, é, 猫, ☃ and a\xa0space"),
        ("\x1b[31mred\x07", "\\x1b[31mred\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202egnp", "abc\\u202egnp"),
        ("caf\udce9", "caf\\udce9"),
        ("a\nverified  b", "a\\nverified  b"),
        ("a\rb\tc", "a\\rb\\tc"),
    ],
)
def test_what_is_not_to_be_seen_is_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_line_breaks_remain_where_they_are_ours() -> None:
    assert visible("a\n\x1b", breaks=True) == "a\n\\x1b"
