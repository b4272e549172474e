"""Downloads of a data set's files from a mirror, bounded in time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from threading import Thread

import pooch

from dpbench.core.files import md5_of
from dpbench.core.progress import Progress, Task

ANSWER_SECONDS = 10.0
FILE_SECONDS = 300.0
POLL_SECONDS = 0.1
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
        dataset: Name of the data set.
        md5: MD5 of each file, by name.
        megabytes: Size of all files together, MB.
        folder: Where to put the files.
        progress: Receives progress updates.

    Returns:
        ``folder``.

    Raises:
        OSError: A file did not begin to arrive within ``ANSWER_SECONDS``, took longer than
            ``FILE_SECONDS``, or is not the expected one.
    """
    with progress.task(f"download {dataset}", megabytes, "MB") as task:
        for name, expected in md5.items():
            file = folder / name
            _download(mirror + name, file, task)
            if (found := md5_of(file)) != expected:
                raise OSError(f"{name} has MD5 {found[:12]}, expected {expected[:12]}")
    return folder


def _download(url: str, file: Path, task: Task) -> None:
    # files are gzipped already; a server that is asked to compress them would change their MD5
    download = pooch.HTTPDownloader(
        chunk_size=CHUNK_BYTES, timeout=ANSWER_SECONDS, headers={"Accept-Encoding": "identity"}
    )
    errors: list[Exception] = []

    def run() -> None:
        try:
            download(url, str(file), None)
        except Exception as error:  # raised again below
            errors.append(error)

    # the timeout above holds for each read from a socket, but neither for looking up the host's
    # name nor for the file as a whole; only a thread that can be left behind bounds these
    thread = Thread(target=run, daemon=True)
    started, seen = time.monotonic(), 0
    thread.start()
    alive = True
    while alive:
        thread.join(POLL_SECONDS)
        alive = thread.is_alive()  # asked before the size, so that the last one is the whole file's
        size = file.stat().st_size if file.exists() else 0
        task.advance((size - seen) / 1e6)
        seen, waited = size, time.monotonic() - started
        if alive and not size and waited > ANSWER_SECONDS:
            raise TimeoutError(f"no answer within {ANSWER_SECONDS:g} s")
        if alive and waited > FILE_SECONDS:
            raise TimeoutError(f"{file.name} took more than {FILE_SECONDS:g} s")
    if errors:
        raise OSError(_reason(errors[0]))


def _reason(error: BaseException) -> str:
    """The innermost cause; requests wraps it in messages that quote Python objects."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error) or type(error).__name__
