"""Take files out of a Debian package, without root and without touching the system.

For machines that reach a mirror of Debian but no mirror of the data set: Debian packages
Fashion-MNIST. apt-get keeps its lists, caches and state in a private folder; its package sources
and trusted keys are the machine's own, and it checks signatures as usual.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from dpbench.core.progress import Progress

UPDATE_SECONDS = 120.0
DOWNLOAD_SECONDS = 300.0
UNPACK_SECONDS = 60.0
POLL_SECONDS = 0.1

# hooks after an update would announce these private lists to the system's package tools
CONFIGURATION = """\
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
Dir::State "{folder}/state";
Dir::State::Lists "{folder}/state/lists";
Dir::Cache "{folder}/cache";
Debug::NoLocking "true";
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "10";
Acquire::https::Timeout "10";
"""


def fetch(package: str, megabytes: float, inside: Path, folder: Path, progress: Progress) -> Path:
    """Download and unpack a Debian package.

    Args:
        package: Name of the package.
        megabytes: Size of the package, MB.
        inside: The absolute path that the package would install to.
        folder: An empty folder to work in.
        progress: Receives progress updates.

    Returns:
        The folder below ``folder`` that holds the files of ``inside``.

    Raises:
        OSError: The machine's package sources do not deliver the package, or not in time.
    """
    if shutil.which("apt-get") is None:
        raise OSError("this machine has no apt-get")
    for part in ("state/lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True)
    configuration = folder / "apt.conf"
    configuration.write_text(CONFIGURATION.format(folder=folder), encoding="utf-8")
    apt = ("apt-get", "--quiet", f"--config-file={configuration}")

    progress.note(f"reading package lists, to download {package}")
    # a package source may fail as long as another one has the package
    _, update_problem = _run((*apt, "update"), folder, UPDATE_SECONDS)
    with progress.task(f"download {package}", megabytes, "MB") as task:
        seen = 0.0

        def advance() -> None:
            nonlocal seen
            size = sum(file.stat().st_size for file in folder.glob("*.deb")) / 1e6
            task.advance(size - seen)
            seen = size

        status, problem = _run((*apt, "download", package), folder, DOWNLOAD_SECONDS, advance)
    if status:
        raise OSError("; ".join(filter(None, (problem, update_problem))))
    (archive,) = folder.glob("*.deb")
    unpacked = folder / "unpacked"
    status, problem = _run(("dpkg-deb", "-x", str(archive), str(unpacked)), folder, UNPACK_SECONDS)
    if status:
        raise OSError(problem)
    return unpacked / inside.relative_to("/")


def _run(
    command: Sequence[str], folder: Path, seconds: float, watch: Callable[[], None] = lambda: None
) -> tuple[int, str]:
    """Run a command in ``folder``; return its exit status and the first problem it reported.

    ``watch`` is called every ``POLL_SECONDS``. After ``seconds``, or on an interrupt, the command
    is killed together with its child processes.
    """
    log = folder / "log"
    deadline = time.monotonic() + seconds
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            cwd=folder,
            env=os.environ | {"LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            while process.poll() is None:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{command[0]} took more than {seconds:g} s")
                watch()
                time.sleep(POLL_SECONDS)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    watch()
    return process.returncode, _problem(log, process.returncode)


def _problem(log: Path, status: int) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    problems = (line for line in lines if line.startswith(("E: ", "W: Failed", "dpkg-deb: error")))
    return next(problems, f"exit status {status}" if status else "")
