"""The command line in forked processes: what a new process does, without importing torch anew."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from dpbench import cli
from dpbench.privacy import dpsgd

PATIENCE = 300.0  # seconds until a process that does not get on is a failed test


class Forked:
    """A copy of this process that does something else; has the methods of ``subprocess.Popen``."""

    def __init__(self, action: Callable[[], int | None]) -> None:
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            code = 70
            try:
                # as in a new process
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for number in (signal.SIGTERM, signal.SIGHUP):
                    signal.signal(number, signal.SIG_DFL)
                code = action() or 0
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self) -> int:
        deadline = time.monotonic() + PATIENCE
        while self.poll() is None:
            if time.monotonic() > deadline:
                self.kill()
                pytest.fail("a forked process did not end")
            time.sleep(0.01)
        assert self.returncode is not None
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def dpbench_forked(
    *arguments: object, out: Path | None = None, err: Path | None = None, **patches: Any
) -> Forked:
    """Run ``dpbench`` in a fork.

    Args:
        arguments: What follows ``dpbench``.
        out: The file that becomes standard output.
        err: The file that becomes standard error.
        patches: ``before=`` is called in the fork first.
    """

    def action() -> int:
        for descriptor, file in ((1, out), (2, err)):
            opened = os.open(file or os.devnull, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(opened, descriptor)
        patches.get("before", lambda: None)()
        return command(arguments)

    return Forked(action)


def command(arguments: Sequence[object]) -> int:
    """Run ``dpbench`` in this fork, on descriptors 1 and 2; its exit code."""
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    sys.argv = ["dpbench", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as ended:
        assert isinstance(ended.code, int)
        return ended.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


class ForkedStart:
    """Stands in for ``launcher.start``.

    Args:
        before: Called in each fork with its environment, before ``dpbench``.
    """

    def __init__(self, before: Callable[[Mapping[str, str]], None] = lambda environment: None):
        self._before = before
        self._ends: list[int] = []  # of the pipes that keep the forks alive

    def __call__(
        self, arguments: Sequence[str], environment: Mapping[str, str], stdout: int | None = None
    ) -> Forked:
        read, write = os.pipe()
        self._ends.append(write)

        def action() -> int:
            os.setsid()
            os.dup2(read, 0)
            for end in (read, *self._ends):
                os.close(end)
            if stdout is not None:
                os.dup2(stdout, 1)
            os.environ.update(environment, DPBENCH_WATCHED="1")
            self._before(environment)
            return command(arguments)

        child = Forked(action)
        os.close(read)
        return child


def hold_at_step(number: int, reached: Path) -> None:
    """Have private training wait in a step, from 1, for the next signal that comes."""
    honest, calls = dpsgd.gaussian_noise, iter(range(1, number + 1))

    def noise(*arguments: Any) -> Any:
        if next(calls, None) == number:
            read, write = os.pipe()
            os.set_blocking(write, False)
            signal.set_wakeup_fd(write)
            reached.touch()
            os.read(read, 1)  # what a signal writes
            signal.set_wakeup_fd(-1)
        return honest(*arguments)

    dpsgd.gaussian_noise = noise  # in a fork: there is nothing to put back


def wait_for(happened: Callable[[], bool], process: Forked) -> None:
    """Wait until something has happened in a process."""
    deadline = time.monotonic() + PATIENCE
    while not happened():
        assert process.poll() is None, "the process ended before"
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


@contextmanager
def killed_at_last(process: Forked) -> Iterator[Forked]:
    """Kill a process at the end, if it is still there."""
    try:
        yield process
    finally:
        process.kill()
        process.poll()
