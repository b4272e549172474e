"""The folder of a run's training state, which is secret and is removed when training ends.

It holds the key of the noise, the journal of the ledger and the checkpoints of the stages. A run
that continues finds all that its record says was begun, or releases nothing more: under another
key it would release a second time what is accounted for once.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from contextlib import suppress
from pathlib import Path

from dpbench.core.errors import RunFailed, UserError
from dpbench.core.files import write_bytes, write_text
from dpbench.core.streams import KEY_BYTES
from dpbench.records.run_record import RECORD, RELEASES, read_record
from dpbench.training.loop import SECRET_MODE

TRAINING = "training"  # the folder, in the run's
KEY = "noise.key"
JOURNAL = "ledger.json"  # of the events spent so far
NOTHING_SPENT = "[]"  # the journal before the first of them
BEGUN = "noise_key_fingerprint"  # in the record's resolved while training is under way
ANEW = "start anew with --overwrite, which is a second release if the run is private"


def fingerprint(key: bytes) -> str:
    """What tells a key from others and says nothing else about it, 64 hex digits."""
    return hashlib.sha256(b"fingerprint of a noise key" + key).hexdigest()


def open_training(training: Path) -> None:
    """Make the folder, readable by its owner alone, or find it so.

    Raises:
        RunFailed: It is a link, or open to others.
    """
    if not training.is_symlink():
        training.mkdir(mode=0o700, exist_ok=True)
    check_own(training)


def check_own(path: Path) -> None:
    """Check that a file or folder is the user's own, no link, and closed to all others.

    Raises:
        RunFailed: It is not.
    """
    found = path.lstat()
    kind = stat.S_ISDIR if path.name == TRAINING else stat.S_ISREG
    if not kind(found.st_mode):
        raise RunFailed(f"{path} is a link or of another kind: remove it, and {ANEW}")
    if os.name == "posix" and (found.st_uid != os.geteuid() or found.st_mode & 0o077):
        raise RunFailed(
            f"{path} belongs to others or is open to them, so that the noise is no secret: {ANEW}, "
            "on a file system that keeps permissions"
        )


def begin(training: Path, key: bytes | None) -> None:
    """Write what training starts from; what a killed process left before is replaced.

    Args:
        training: From ``open_training``.
        key: The new key; None if it is not to be kept.

    Raises:
        RunFailed: There is training state of a run that is not this one.
    """
    if spent_in(training):
        raise RunFailed(
            f"{training} holds training state that the record knows nothing of, perhaps of an "
            f"older version of dpbench: {ANEW}"
        )
    if key is not None:
        write_bytes(training / KEY, key, SECRET_MODE)
    write_text(training / JOURNAL, NOTHING_SPENT, SECRET_MODE)


def kept_key(training: Path) -> bytes:
    """Read the key.

    Raises:
        RunFailed: It is not there, open to others, or no key.
    """
    file = training / KEY
    if not os.path.lexists(file):
        raise RunFailed(
            f"{file} is not there, and releases may have been made with it: under another key they "
            f"would be made twice and accounted for once: restore it, or {ANEW}"
        )
    check_own(file)
    with file.open("rb") as handle:
        key = handle.read(KEY_BYTES + 1)
    if len(key) != KEY_BYTES:
        raise RunFailed(f"{file} is damaged: it has not {KEY_BYTES} bytes: restore it, or {ANEW}")
    return key


def check_begun(training: Path, key: bytes, known: str) -> None:
    """Check that training continues under the key and with the journal that it began with.

    Args:
        training: From ``open_training``.
        key: The key at hand.
        known: Fingerprint of the key that training began with.

    Raises:
        RunFailed: It does not.
    """
    if fingerprint(key) != known:
        raise RunFailed(
            f"{training / KEY} is not the key that this run began with, under which its releases "
            f"were made: restore it, or {ANEW}"
        )
    if not (training / JOURNAL).is_file():
        raise RunFailed(
            f"{training / JOURNAL} is not there, which says what was released: restore it, or "
            f"{ANEW}"
        )


def spent_in(training: Path) -> bool:
    """Whether something may have been released from this training state."""
    journal = training / JOURNAL
    if journal.is_file() and journal.read_bytes().strip() != NOTHING_SPENT.encode():
        return True
    return any(training.glob("*.stage"))


def may_have_released(folder: Path) -> bool:
    """Whether a run in a folder may have released something, complete or not."""
    training = folder / TRAINING
    if (folder / RELEASES).exists() or spent_in(training):
        return True
    if (training / JOURNAL).exists():
        return False
    with suppress(UserError):
        return BEGUN in read_record(folder / RECORD).resolved  # its journal is gone
    return False


def remove(training: Path) -> None:
    """Remove the folder and the key in it; of a link the link alone."""
    if training.is_symlink() or training.is_file():
        training.unlink()
    elif training.exists():
        shutil.rmtree(training)
