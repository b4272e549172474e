"""Folders that are searched for data sets: the user's own and the cache."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dpbench.core.errors import UserError
from dpbench.core.files import cache_path


@dataclass(frozen=True)
class Root:
    """The user's own data folder.

    Attributes:
        folder: Path of the folder.
        told_by: The option or environment variable that names it.
    """

    folder: Path
    told_by: str


def user_root(data_root: Path | None) -> Root | None:
    """The user's own data folder, or None.

    Args:
        data_root: As given with ``--data-root``; None for the environment's ``DPBENCH_DATA``.

    Raises:
        UserError: The path is not a folder.
    """
    root = Root(data_root, "--data-root") if data_root is not None else None
    if root is None and (variable := os.environ.get("DPBENCH_DATA")):
        root = Root(Path(variable), "DPBENCH_DATA")
    if root is not None and not root.folder.is_dir():
        raise UserError(f"{root.told_by} names {root.folder}, which is no folder")
    return root


def locate(
    dataset: str, folders: Iterable[str], names: Iterable[str], data_root: Path | None
) -> Path | None:
    """Find the folder of a data set's files: below the user's root, or in the cache.

    Args:
        dataset: Name of the data set, and of its folder in the cache.
        folders: Where below a root the files may be, besides in the root itself.
        names: Files or folders; the right folder is the first that holds any of them.
        data_root: As given with ``--data-root``.

    Returns:
        The first folder that holds one of ``names``, or None.

    Raises:
        UserError: The user's root is not a folder.
    """
    root = user_root(data_root)
    roots = [cache_path() / dataset]
    if root is not None:
        roots.insert(0, root.folder)
    for place in (place for each in roots for place in (*(each / f for f in folders), each)):
        if any((place / name).exists() for name in names):
            return place
    return None


def not_found(dataset: str, instead: str) -> UserError:
    """The error for a data set that was found nowhere.

    Args:
        dataset: Name of the data set.
        instead: One clause that says what to get and from where.
    """
    return UserError(
        f"{dataset} was found neither below --data-root or DPBENCH_DATA nor in "
        f"{cache_path() / dataset}: {instead} and name the folder above it with --data-root, "
        "or try --dataset digits, which needs no download"
    )
