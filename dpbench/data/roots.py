"""Folders in which data sets are looked for."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dpbench.core.errors import UserError
from dpbench.core.files import cache_folder


@dataclass(frozen=True)
class Root:
    """The user's own data folder.

    Attributes:
        folder: It.
        told_by: The option or variable that names it.
    """

    folder: Path
    told_by: str


def user_root(data_root: Path | None) -> Root | None:
    """The user's own data folder, or None.

    Args:
        data_root: As given with ``--data-root``; None for the environment's ``DPBENCH_DATA``.

    Raises:
        UserError: It is no folder.
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
    """The folder that holds a data set's files: below the user's root, or in the cache.

    Args:
        dataset: Its name: that of its folder in the cache.
        folders: Where below a root it may be, besides in the root itself.
        names: Files or folders, one of which marks the right folder.
        data_root: As given with ``--data-root``.

    Returns:
        The first folder that holds one of ``names``, or None.

    Raises:
        UserError: The user's root is no folder.
    """
    root = user_root(data_root)
    roots = [cache_folder() / dataset]
    if root is not None:
        roots.insert(0, root.folder)
    for place in (place for each in roots for place in (*(each / f for f in folders), each)):
        if any((place / name).exists() for name in names):
            return place
    return None


def not_found(dataset: str, instead: str) -> UserError:
    """The error for a data set that is nowhere.

    Args:
        dataset: Its name.
        instead: What to get, and from where: one clause.
    """
    return UserError(
        f"{dataset} was found neither below --data-root or DPBENCH_DATA nor in "
        f"{cache_folder() / dataset}: {instead} and name the folder above it with --data-root, "
        "or try --dataset digits, which needs no download"
    )
