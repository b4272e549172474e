"""Downloads of a data set's files from a mirror, bounded in time."""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from threading import Thread
from typing import Any

from dpbench.core.progress import Progress, Task

ANSWER_SECONDS = 10.0
FILE_SECONDS = 300.0
CHUNK_BYTES = 1 << 16


def fetch(
    mirror: str,
    dataset: str,
    md5: Mapping[str, str],
    megabytes: float,
    folder: Path,
    progress: Progress,
) -> Path:
    """Download all files of a data set.

    Args:
        mirror: URL that the names are appended to.
        dataset: Its name.
        md5: MD5 of each file, by name.
        megabytes: Size of all files, MB.
        folder: Where to put them.
        progress: Who is told.

    Returns:
        ``folder``.

    Raises:
        OSError: The mirror did not answer within ``ANSWER_SECONDS``, was too slow, or gave
            something else than the files.
    """
    try:
        with progress.task(f"download {dataset}", megabytes, "MB") as task:
            for name, expected in md5.items():
                _download(mirror + name, expected, folder / name, task)
    except http.client.HTTPException as error:
        raise OSError(f"no proper HTTP answer ({error!r})") from None
    return folder


def _download(url: str, md5: str, file: Path, task: Task) -> None:
    response = _answer(url)
    deadline = time.monotonic() + FILE_SECONDS
    digest = hashlib.md5(usedforsecurity=False)
    with response, file.open("wb") as content:
        while chunk := response.read1(CHUNK_BYTES):
            content.write(chunk)
            digest.update(chunk)
            task.advance(len(chunk) / 1e6)
            if time.monotonic() > deadline:
                raise TimeoutError(f"{file.name} took more than {FILE_SECONDS:g} s")
    if digest.hexdigest() != md5:
        raise OSError(f"{file.name} has MD5 {digest.hexdigest()[:12]}, expected {md5[:12]}")


def _answer(url: str) -> Any:
    """The response to a GET of ``url``, or an exception after at most ``ANSWER_SECONDS``."""
    outcome: list[Any] = []

    def ask() -> None:
        try:
            outcome.append(urllib.request.urlopen(url, timeout=ANSWER_SECONDS))
        except Exception as error:  # raised again by who waits
            outcome.append(error)

    # a timeout of urllib's is for one address of the host and does not hold for its name's
    # resolution, so only a thread that can be left behind bounds the whole
    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(ANSWER_SECONDS)
    if not outcome:
        raise TimeoutError(f"no answer within {ANSWER_SECONDS:g} s")
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]
