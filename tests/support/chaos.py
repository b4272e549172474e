"""The command line in forks under chaos: each in a place of its own, bounded in time and memory."""

from __future__ import annotations

import contextlib
import io
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dpbench import cli
from tests.support.command import PLUGINS
from tests.support.processes import Forked, command

DEADLINE = 60.0  # seconds; what takes longer hangs
MEMORY = 2 << 30  # bytes that a command may take beyond what it starts with and its input
TRACEBACK = "Traceback (most recent call last)"

Action = Callable[[], object]


@dataclass(frozen=True)
class Place:
    """Folders of one case. What leads out of ``work`` by some ``..`` still ends up in ``root``."""

    root: Path

    @property
    def work(self) -> Path:
        return self.root / "a" / "b" / "c" / "work"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def executed(self) -> Path:
        """What code that must not run makes."""
        return self.root / "executed"

    def make(self) -> Place:
        for folder in (self.work, self.cache, self.root / "home", self.root / "tmp"):
            folder.mkdir(parents=True)
        return self

    def outside(self) -> dict[str, tuple[int, int]]:
        """Size and time of all files and folders where a command has no business."""
        own = (self.work, self.cache, self.root / "tmp", self.root / "log")
        return dict(_listed(self.root, own))

    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.root / "home"),
            "XDG_CACHE_HOME": str(self.cache),
            "TMPDIR": str(self.root / "tmp"),
            "MPLCONFIGDIR": str(self.root / "tmp"),
            "COLUMNS": "200",
            "OMP_NUM_THREADS": "1",
        }


def _listed(folder: Path, left_out: tuple[Path, ...]) -> Iterator[tuple[str, tuple[int, int]]]:
    for path in sorted(folder.iterdir()):
        if path in left_out:
            continue
        if path.is_dir() and not path.is_symlink():
            yield str(path), (0, 0)
            yield from _listed(path, left_out)
        else:
            status = path.lstat()
            yield str(path), (status.st_size, status.st_mtime_ns)


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code (negative for a signal), output, and what it took."""

    code: int
    out: str
    err: str
    hung: bool
    seconds: float
    grown: int

    @property
    def last(self) -> str:
        """The last line on standard error."""
        return (self.err.strip().splitlines() or [""])[-1]

    def __str__(self) -> str:
        return f"exit {self.code} after {self.seconds:.1f} s\n{self.out[-1500:]}{self.err[-3000:]}"


class Child(Forked):
    """A fork that is waited for with what it took."""

    usage: resource.struct_rusage | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.returncode, self.usage = os.waitstatus_to_exitcode(status), usage
        return self.returncode

    def cpu(self) -> float:
        """Seconds of CPU so far; infinite if it has ended."""
        if self.poll() is not None:
            return float("inf")
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_within(self, seconds: float) -> bool:
        """Wait, or kill it after some seconds; return whether it ended by itself."""
        deadline = time.monotonic() + seconds
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                while self.poll() is None:
                    time.sleep(0.01)
                return False
            time.sleep(0.005)
        return True


@dataclass
class Running:
    """A command under way."""

    child: Child
    place: Place
    started: float

    def begun(self) -> bool:
        """Whether it is in ``dpbench``, or over."""
        return (self.place.root / "log" / "begun").exists() or self.child.poll() is not None

    def end(self) -> Ended:
        """Wait for it, or kill it if it hangs."""
        in_time = self.child.wait_within(DEADLINE)
        assert self.child.returncode is not None
        log = self.place.root / "log"
        out, err = (
            (log / name).read_text("utf-8", "replace") if (log / name).exists() else ""
            for name in ("out", "err")
        )
        peak = 1024 * (self.child.usage.ru_maxrss if self.child.usage else 0)
        seconds = time.monotonic() - self.started
        before = int((log / "begun").read_text() or 0) if (log / "begun").exists() else peak
        return Ended(self.child.returncode, out, err, not in_time, seconds, peak - before)


def start(
    place: Place,
    *arguments: object,
    before: Action = lambda: None,
    out: str | None = None,
    err: str | None = None,
) -> Running:
    """Run ``dpbench`` in a fork, in a place.

    Args:
        place: Whose ``work`` is the current folder.
        arguments: What follows ``dpbench``.
        before: Called in the fork first: what goes wrong there.
        out: The file that becomes standard output, in place of one that is read at the end.
        err: The same for standard error.
    """
    log = place.root / "log"
    log.mkdir(exist_ok=True)
    (log / "begun").unlink(missing_ok=True)

    def action() -> int:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        os.chdir(place.work)
        for name in [name for name in os.environ if name.startswith(("DPBENCH_", "XDG_"))]:
            del os.environ[name]
        os.environ.update(place.environment())
        tempfile.tempdir = None
        sys.path.insert(0, str(PLUGINS))
        for descriptor, file in ((0, os.devnull), (1, out or log / "out"), (2, err or log / "err")):
            flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(file, flags), descriptor)
        (log / "begun").write_text(str(resident()))
        before()
        try:
            return command(arguments)
        except BaseException:  # what the interpreter does at last
            traceback.print_exc()
            return 1

    return Running(Child(action), place, time.monotonic())


def run(place: Place, *arguments: object, before: Action = lambda: None) -> Ended:
    """Run ``dpbench`` in a fork to its end."""
    return start(place, *arguments, before=before).end()


def run_here(place: Place, *arguments: object) -> None:
    """Run ``dpbench`` in this process, which then has imported what its forks will need."""
    output = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        patch.chdir(place.work)
        patch.syspath_prepend(PLUGINS)
        patch.setattr(sys, "argv", ["dpbench", *map(str, arguments)])
        for name, value in place.environment().items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            cli.main()
    assert ended.value.code == 0, output.getvalue()
    sys.modules["toy"].CALLS.clear()  # which tests of runs count


def resident() -> int:
    """Bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def limit_address_space(extra: int) -> None:
    """Have this process get no more than ``extra`` bytes beyond what it has."""
    have = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (have + extra, have + extra))
