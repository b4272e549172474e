"""Results that can be computed again, kept in files that prove to be what was written.

A file begins with its seal, whose owner is the file's name. One that is cut short, was changed or
has the name of another is made again. A cache that cannot be written is read, and what is not in it
is computed: no run fails for its cache.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from dpbench.core.errors import described, out_of_memory, passing
from dpbench.core.files import cache_path, replace_atomically
from dpbench.core.seals import SEAL_BYTES, seal_of

T = TypeVar("T")


class Cache:
    """A folder of results, each in a file with its checksum.

    Args:
        folder: The folder, made when the first result is kept.
        note: Receives one line for each file that is not what was written, and one if the folder
            cannot be written to.
    """

    def __init__(self, folder: Path, note: Callable[[str], None] = lambda line: None) -> None:
        """Store the arguments; nothing is read or written yet."""
        self.folder = folder
        self._note = note
        self._said: set[str] = set()

    def find(self, name: str, load: Callable[[BinaryIO], T]) -> T | None:
        """Return a result from its file; None if there is none that is whole.

        Args:
            name: Name of the file in the folder, which says all that the result depends on.
            load: Reads what was kept, from the current position; raises anything if it is of
                another kind.
        """
        file = self.folder / name
        try:
            with file.open("rb") as handle:
                written = handle.read(SEAL_BYTES)
                if written == seal_of(handle, name):
                    handle.seek(SEAL_BYTES)
                    return load(handle)
            why = "its checksum does not fit"
        except FileNotFoundError:
            return None
        except Exception as error:  # written by other code, or not readable
            if out_of_memory(error):
                raise
            why = described(error)
        self._say(f"{file} cannot be used ({why}): it is made again")
        return None

    def keep(self, name: str, save: Callable[[BinaryIO], object]) -> bool:
        """Write a result to its file, if that can be done; return whether it was.

        Args:
            name: As for ``find``.
            save: Writes the result from the current position.
        """

        def write(partial: Path) -> None:
            with partial.open("w+b") as handle:
                handle.write(b"\n" * SEAL_BYTES)
                save(handle)
                handle.seek(SEAL_BYTES)
                checksum = seal_of(handle, name)
                handle.seek(0)
                handle.write(checksum)

        file = self.folder / name
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            replace_atomically(file, write)
            return True
        except Exception as error:
            if not passing(error):
                raise
            self._say(
                f"the cache {self.folder} cannot be written ({described(error)}), so that other "
                "runs compute the same again: XDG_CACHE_HOME names another place"
            )
            return False

    def _say(self, line: str) -> None:
        if line not in self._said:
            self._said.add(line)
            self._note(line)


def user_cache(note: Callable[[str], None] = lambda line: None) -> Cache:
    """The user's cache.

    Args:
        note: As for ``Cache``.
    """
    return Cache(cache_path(), note)
