"""What is read from a cache is what was written there, and no run fails for its cache."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import BinaryIO

import pytest

from dpbench.core import files
from dpbench.core.cache import Cache, user_cache
from tests.support.damages import DAMAGES, Bytes


def read(handle: BinaryIO) -> bytes:
    return handle.read()


def keep(cache: Cache, name: str, content: bytes) -> bool:
    return cache.keep(name, lambda handle: handle.write(content))


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, said: list[str]) -> Cache:
    return Cache(tmp_path / "cache", said.append)


def test_what_was_kept_is_found(cache: Cache, said: list[str]) -> None:
    assert cache.find("a/b", read) is None
    for content in (b"", b"one\ntwo", bytes(3 << 20)):
        assert keep(cache, "a/b", content)
        assert cache.find("a/b", read) == content
    assert said == []


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_what_is_not_what_was_written_is_not_found(
    damage: Bytes, cache: Cache, said: list[str]
) -> None:
    keep(cache, "accuracy.json", b"91.1111")
    file = cache.folder / "accuracy.json"
    file.write_bytes(damage(file.read_bytes()))
    for _ in range(2):
        assert cache.find("accuracy.json", json.load) is None
    (line,) = said
    assert str(file) in line and "made again" in line and "\n" not in line
    assert keep(cache, "accuracy.json", b"91.1111")
    assert cache.find("accuracy.json", json.load) == 91.1111


def test_a_cache_that_took_files_as_they_are_would_be_noticed(
    cache: Cache, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dpbench.core.cache.seal_of", lambda handle, owner: handle.read()[:65])
    keep(cache, "accuracy.json", b"91.1111".ljust(65))
    file = cache.folder / "accuracy.json"
    file.write_bytes(file.read_bytes()[:65] + b"91.1".ljust(65))
    with pytest.raises(AssertionError):
        assert cache.find("accuracy.json", json.load) == 91.1111


def test_a_result_under_another_name_is_not_found(cache: Cache, said: list[str]) -> None:
    keep(cache, "one", b"1")
    (cache.folder / "one").rename(cache.folder / "two")
    assert cache.find("two", read) is None
    assert "checksum" in said[0]


def test_what_other_code_wrote_is_made_again(cache: Cache, said: list[str]) -> None:
    def load(handle: BinaryIO) -> float:
        return float(json.load(handle)["accuracy"])

    keep(cache, "a", b"[1]")
    assert cache.find("a", load) is None
    assert "TypeError" in said[0]


def test_a_lack_of_memory_is_no_damage(cache: Cache, said: list[str]) -> None:
    def load(handle: BinaryIO) -> bytes:
        raise MemoryError

    keep(cache, "a", b"1")
    with pytest.raises(MemoryError):
        cache.find("a", load)
    assert said == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_a_cache_that_cannot_be_written_is_told_once(
    code: int, cache: Cache, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(cache, "a", b"before")

    def refuse(*_: object) -> None:
        raise OSError(code, "no")

    monkeypatch.setattr(files.Path, "replace", refuse)
    assert not keep(cache, "a", b"1") and not keep(cache, "b", b"2")
    assert cache.find("a", read) == b"before", "a cache that is only read was of no use"
    (line,) = said
    assert str(cache.folder) in line and "XDG_CACHE_HOME" in line
    assert [file.name for file in cache.folder.iterdir()] == ["a"]


def test_a_file_where_the_cache_should_be(tmp_path: Path, said: list[str]) -> None:
    (tmp_path / "cache").touch()
    cache = Cache(tmp_path / "cache", said.append)
    assert cache.find("a", read) is None and not keep(cache, "a", b"1")
    assert len(said) == 2


def test_a_user_without_a_home_has_no_cache(
    said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(files.Path, "home", no_home)
    cache = user_cache(said.append)
    assert cache.find("a", read) is None and not keep(cache, "a", b"1")
    assert "XDG_CACHE_HOME" in said[-1]
