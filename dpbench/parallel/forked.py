"""Work in a forked process, which can leave nothing behind in this one."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from dpbench.core.errors import RunFailed, UserError, described

Result = TypeVar("Result")


def in_fork(function: Callable[[], Result]) -> Result:
    """Call a function in a fork of this process and return its result.

    What the function changes in memory is gone afterwards; so is a process that it ends. What it
    prints goes to standard error.

    Args:
        function: Its result must allow pickling. It is called on the main thread, where Ctrl-C
            raises ``KeyboardInterrupt``; torch must not have started threads of its own before
            (``parallel.device.prepare``).

    Raises:
        UserError: The function raised one.
        RunFailed: The function raised anything else, or ended the process.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "result"
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if not pid:
            _call(function, file)
        try:
            _, status = os.waitpid(pid, 0)
        except BaseException:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        if not file.exists():
            code = os.waitstatus_to_exitcode(status)
            how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
            raise RunFailed(f"it ended the process ({how})")
        result, error, trace = pickle.loads(file.read_bytes())
    if error is not None:
        raise error from _There(trace)
    returned: Result = result
    return returned


class _There(Exception):
    """The traceback of the forked process, to be shown as the cause of an error here."""


def _call(function: Callable[[], Any], file: Path) -> NoReturn:
    try:
        # a thread of the parent may hold the lock of a progress bar, which exists here no more
        sys.stdout = sys.stderr = os.fdopen(2, "w", closefd=False)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        answer: tuple[Any, Exception | None, str] = (None, None, "")
        try:
            answer = (function(), None, "")
        except (UserError, RunFailed) as error:
            answer = (None, type(error)(str(error)), traceback.format_exc())
        except Exception as error:  # of another type, which the parent may be unable to load
            answer = (None, RunFailed(described(error)), traceback.format_exc())
        part = file.with_suffix(".part")
        part.write_bytes(pickle.dumps(answer))
        part.replace(file)
        sys.stderr.flush()
    finally:
        os._exit(1)
