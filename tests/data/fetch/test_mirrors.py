from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from dpbench.core.errors import UserError
from dpbench.core.progress import Silent
from dpbench.data.fetch import mirrors
from dpbench.data.sets.mnist import FILES, TRAIN_IMAGES, TRAIN_LABELS, IdxSet, find, present
from tests.support.datasets import Counter
from tests.support.idx import (
    TINY_SET,
    fill_of,
    tiny_arrays,
    write_idx,
)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IdxSet]:
    folder = write_idx(tmp_path / "mirror", tiny_arrays(9), gz=True)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *arguments: None)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        md5 = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in folder.iterdir()}
        yield replace(TINY_SET, mirrors=(f"http://127.0.0.1:{server.server_port}/",), md5=md5)
        server.shutdown()
        thread.join()


def test_a_download_fills_the_cache_and_leaves_nothing_else(
    mirror: IdxSet, tiny_cache: Path
) -> None:
    counter = Counter()
    found, where = find(mirror, None, counter)
    assert found[TRAIN_IMAGES][0, 0, 0] == 9
    assert "127.0.0.1" in where
    assert {file.name for file in tiny_cache.iterdir()} == {f"{name}.gz" for name in FILES}
    downloaded = sum(file.stat().st_size for file in tiny_cache.iterdir())
    assert counter.done == pytest.approx(downloaded / 1e6)
    assert find(replace(mirror, mirrors=()), None, Silent())[1] == str(tiny_cache)


def test_an_incomplete_cache_is_filled_again(mirror: IdxSet, tiny_cache: Path) -> None:
    find(mirror, None, Silent())
    (tiny_cache / f"{TRAIN_LABELS}.gz").unlink()
    find(mirror, None, Silent())
    assert present(tiny_cache, TRAIN_LABELS) is not None


@pytest.mark.parametrize("name", [TRAIN_LABELS, f"{TRAIN_LABELS}.gz"])
@pytest.mark.parametrize("content", [b"", b"rubbish", b"\x1f\x8b"])
def test_a_damaged_cache_is_downloaded_again(
    name: str, content: bytes, mirror: IdxSet, tiny_cache: Path
) -> None:
    found, _ = find(mirror, None, Silent())
    (tiny_cache / name).write_bytes(content)
    again, where = find(mirror, None, Silent())
    assert "127.0.0.1" in where
    assert all((again[each] == found[each]).all() for each in FILES)
    assert find(replace(mirror, mirrors=()), None, Silent())[1] == str(tiny_cache)


def test_a_download_with_the_wrong_md5_is_not_kept(mirror: IdxSet, tiny_cache: Path) -> None:
    wrong = dict.fromkeys(mirror.md5, "0" * 32)
    with pytest.raises(UserError, match="127.0.0.1:[0-9]+: .* has MD5 .* expected 000000000000"):
        find(replace(mirror, md5=wrong), None, Silent())
    assert list(tiny_cache.iterdir()) == []


def test_the_next_mirror_is_asked_where_one_has_no_such_file(mirror: IdxSet) -> None:
    two = (f"{mirror.mirrors[0]}nothing/", *mirror.mirrors)
    assert fill_of(replace(mirror, mirrors=two), None) == 9


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "ANSWER_SECONDS", 0.3)


@pytest.mark.usefixtures("impatient")
def test_a_mirror_that_never_answers_is_left(mirror: IdxSet) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert fill_of(replace(mirror, mirrors=(hanging, *mirror.mirrors)), None) == 9


@pytest.mark.usefixtures("impatient")
def test_a_name_that_takes_forever_to_resolve_is_left(
    mirror: IdxSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = threading.Event()

    def resolve(*arguments: object, **options: object) -> None:
        left.wait(timeout=60)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(UserError, match="no answer within 0.3 s"):
        find(mirror, None, Silent())
    left.set()


def test_a_mirror_that_stops_midway_is_left(
    mirror: IdxSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "FILE_SECONDS", 0.3)
    left = threading.Event()

    def send_half(self: SimpleHTTPRequestHandler) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(4 * mirrors.CHUNK_BYTES))
        self.end_headers()
        self.wfile.write(bytes(2 * mirrors.CHUNK_BYTES))
        left.wait(timeout=60)

    monkeypatch.setattr(SimpleHTTPRequestHandler, "do_GET", send_half)
    with pytest.raises(UserError, match=".gz took more than 0.3 s"):
        find(mirror, None, Silent())
    left.set()
