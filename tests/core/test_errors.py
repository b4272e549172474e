"""What users read of errors that libraries word for programmers."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from dpbench.core.errors import UserError, described, out_of_room, passing
from dpbench.core.files import replace_atomically


class Unknown:
    pass


def allocate_with_torch(folder: Path) -> None:
    torch.zeros(10**14)


def allocate_with_numpy(folder: Path) -> None:
    np.zeros(10**14)


def open_garbage_with_torch(folder: Path) -> None:
    (folder / "x").write_bytes(b"garbage" * 10)
    torch.load(folder / "x", weights_only=True)


def open_half_with_torch(folder: Path) -> None:
    torch.save(torch.zeros(1000), folder / "x")
    content = (folder / "x").read_bytes()
    (folder / "x").write_bytes(content[: len(content) // 2])
    torch.load(folder / "x", weights_only=True)


def open_object_with_torch(folder: Path) -> None:
    torch.save(Unknown(), folder / "x")
    torch.load(folder / "x", weights_only=True)


def open_garbage_with_numpy(folder: Path) -> None:
    (folder / "x").write_bytes(b"garbage" * 10)
    np.load(folder / "x")


def open_object_with_numpy(folder: Path) -> None:
    np.savez(folder / "x.npz", a=np.array([Unknown()], dtype=object))
    np.load(folder / "x.npz")["a"]


def refuse_a_primitive(folder: Path) -> None:
    raise RuntimeError("could not create a primitive")


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (allocate_with_torch, "out of memory"),
        (allocate_with_numpy, "out of memory"),
        (refuse_a_primitive, "out of memory"),
        (open_garbage_with_torch, "the file is damaged"),
        (open_half_with_torch, "the file is cut short"),
        (open_object_with_torch, "the file is damaged, or holds Python objects"),
        (open_garbage_with_numpy, "the file is damaged"),
        (open_object_with_numpy, "the file is damaged, or holds Python objects"),
    ],
)
def test_what_libraries_say_is_said_in_plain_words(
    act: Callable[[Path], None], says: str, tmp_path: Path
) -> None:
    try:
        act(tmp_path)
    except Exception as error:
        raised = error
    line = described(raised)
    assert line.startswith(says), line
    assert "\n" not in line
    for advice in ("weights_only", "allow_pickle", "unsafely", "inline_container", "alloc_cpu"):
        assert advice not in line
    assert passing(raised) is ("out of memory" in says)


@pytest.mark.parametrize("elements", [1, 100_000])
def test_a_full_disk_under_torch_is_called_one(
    elements: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch says `unexpected pos 64 vs 0`: what it wrote to had raised before."""
    opened = Path.open

    class Full:
        def __init__(self, path: Path) -> None:
            self._handle, self._room = opened(path, "wb"), 600

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self._handle.close()

        def write(self, content: bytes) -> int:
            self._room -= len(content)
            if self._room < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return self._handle.write(content)

        def flush(self) -> None:
            self._handle.flush()

    monkeypatch.setattr(
        Path, "open", lambda path, mode: Full(path) if mode == "wb" else opened(path, mode)
    )

    def write(partial: Path) -> None:
        with partial.open("wb") as handle:
            torch.save(torch.zeros(elements), handle)

    with pytest.raises((OSError, RuntimeError)) as raised:
        replace_atomically(tmp_path / "x.pt", write)
    assert described(raised.value) == "no space left on device: make room"
    assert passing(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_of_which_torch_keeps_no_cause_is_one_too() -> None:
    error = RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0")
    assert out_of_room(error) and passing(error)
    assert described(error) == "no space left on device: make room"
    assert not out_of_room(ValueError("unexpected pos 64 vs 0"))


def test_what_is_said_well_is_left_alone() -> None:
    assert described(ValueError("out of\nmemory")) == "ValueError: out of memory"
    assert described(KeyError("x")) == "KeyError: 'x'"
    assert not passing(ValueError("out of memory")) and not passing(RuntimeError("no"))
    full = OSError(errno.ENOSPC, "No space left on device", "there")
    assert described(full) == "no space left on device: there: make room"
    try:
        raise UserError("choose another") from full
    except UserError as error:
        assert described(error) == "UserError: choose another" and not passing(error)
