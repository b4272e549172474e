from __future__ import annotations

import pytest

from dpbench.core.progress import duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (119.7, "2 min 00 s"),
        (3599.9, "1 h 00 min"),
        (7800, "2 h 10 min"),
        (7199, "2 h 00 min"),
        (1e6, "12 days"),
    ],
)
def test_durations_are_said_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words
