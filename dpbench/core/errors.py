"""Errors that end a command, and the wording of common messages."""

from __future__ import annotations

import difflib
import errno
import pickle
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

UNHEARD = 3  # exit code of a rank that ends with ``Unheard``

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# what RuntimeErrors of torch and of its libraries say for a disk, memory or file at fault
_FULL_DISK = ("unexpected pos", "PytorchStreamWriter failed")
_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "could not create a primitive",
    "could not create a memory",
    "bad_alloc",
)
_DAMAGED = ("PytorchStreamReader failed", "Invalid magic number", "unexpected EOF")
# advice of torch and NumPy to load what may run code
_UNSAFE = ("Weights only load failed", "allow_pickle", "Cannot load file containing pickled data")


class UserError(Exception):
    """A mistake of the user's: one line that says what is wrong and what to do (exit code 2)."""


class Unavailable(UserError):
    """Something that a user may supply later, such as a file of weights or a package, is not here.

    What an evaluator says of it is a status: the evaluator is tried again when it may be there.
    """


class RunFailed(Exception):
    """A run or a check that failed through no mistake of the user's (exit code 1)."""


class Unheard(Exception):
    """Raised on ranks that exit because another rank failed; that rank reports the error."""


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The message for an unknown name; suggests the closest known one."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"There are {', '.join(known)}."
    return f"Unknown {what} {name!r}. {hint} See `dpbench list {what}s`"


def were_done(names: Sequence[str]) -> str:
    """That parts were done: "a was done", "a and b were done", "a, b and c were done"."""
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"{listed} {'were' if names[1:] else 'was'} done"


def described(error: BaseException) -> str:
    """What went wrong, in one line: in plain words where libraries have none, else as they say it.

    A full disk, a lack of memory and files that are damaged or hold Python objects are named as
    such, whatever library met them.
    """
    text = f"{type(error).__name__}: {error}"
    if (full := _full_disk(error)) is not None:
        where = f": {full.filename}" if full.filename else ""
        text = f"{str(full.strerror).lower()}{where}: make room"
    elif out_of_room(error):
        text = "no space left on device: make room"
    elif out_of_memory(error):
        text = f"out of memory ({_first_sentence(error)}): free some, or allow more"
    elif isinstance(error, RuntimeError | EOFError) and any(s in str(error) for s in _DAMAGED):
        text = "the file is cut short or damaged: no whole file of tensors"
    elif isinstance(error, pickle.UnpicklingError | ValueError) and any(
        sign in str(error) for sign in _UNSAFE
    ):
        text = "the file is damaged, or holds Python objects, which are never loaded"
    return " ".join(text.split())


def out_of_memory(error: BaseException) -> bool:
    """Whether memory was too little, on this machine or its device, whatever library says so."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _NO_MEMORY)
    )


def out_of_room(error: BaseException) -> bool:
    """Whether a disk was full, whatever library says so."""
    return _full_disk(error) is not None or (
        isinstance(error, RuntimeError) and any(sign in str(error) for sign in _FULL_DISK)
    )


def passing(error: BaseException) -> bool:
    """Whether an error says nothing about what was tried, and may be gone at the next try.

    That is so of memory, disks and the system, and of what else the machine refused.
    """
    return isinstance(error, OSError) or out_of_room(error) or out_of_memory(error)


def _full_disk(error: BaseException) -> OSError | None:
    """The error of a full disk, also behind the one that torch makes of it."""
    each: BaseException | None = error
    while isinstance(each, OSError | RuntimeError):
        if isinstance(each, OSError) and each.errno in _FULL:
            return each
        each = each.__cause__ or each.__context__
    return None


def _first_sentence(error: BaseException) -> str:
    line = (str(error).splitlines() or [""])[0].split("Allocator: ")[-1]  # torch says where first
    return line.split(". ")[0].removesuffix(".") or type(error).__name__


@contextmanager
def contained(what: str) -> Iterator[None]:
    """Have code of others fail where it would end the interpreter.

    ``os._exit`` ends the process at once, and cannot be contained.

    Args:
        what: The code, as in "evaluator 'toy'".

    Raises:
        RunFailed: It called ``sys.exit``, or raised what is neither an ``Exception`` nor Ctrl-C.
    """
    try:
        yield
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise RunFailed(
            f"{what} ends the interpreter ({described(error)}): let it return"
        ) from error
