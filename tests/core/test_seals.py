from __future__ import annotations

import pytest

from dpbench.core.seals import sealed, unsealed


def test_a_change_of_what_is_sealed_is_noticed() -> None:
    content = sealed(b"content", "this run")
    assert unsealed(content, "this run") == b"content"
    assert unsealed(sealed(b"", ""), "") == b""
    changed = (content[:-1], content + b" ", content[:70] + b"!" + content[71:], content[1:], b"")
    for each in (*changed, b"content"):
        with pytest.raises(ValueError):
            unsealed(each, "this run")


def test_so_is_a_file_of_another_owner() -> None:
    with pytest.raises(ValueError):
        unsealed(sealed(b"content", "that run"), "this run")
