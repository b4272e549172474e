"""How folders of images are laid out: classes, splits, and which class a folder's name stands for.

Nothing is guessed: what can be read in two ways is refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from dpbench.core.checks import check_name
from dpbench.core.errors import UserError
from dpbench.core.files import safe_name
from dpbench.data.catalog import DatasetInfo
from dpbench.data.formats.pictures import LabelledPath

SUFFIXES = (".png", ".jpg", ".jpeg")
TRAIN, TEST, VALIDATION = "train", "test", "validation"
# folders of splits by what they are called; the other names are only recognised and refused
SPLITS = {"train": TRAIN, "test": TEST, "val": VALIDATION, "validation": VALIDATION}
OTHER_SPLITS = ("training", "testing", "valid", "dev", "eval", "evaluation", "holdout")


def split_folders(folder: Path) -> dict[str, str]:
    """The folders of a data set's splits; empty if its folders are classes.

    Args:
        folder: Of the data set.

    Returns:
        The folder's name by split: ``train``, ``test`` and perhaps ``validation``.

    Raises:
        UserError: Folders are called as splits are, but do not make up a whole data set.
    """
    names = folders_in(folder)
    called = [name for name in names if name.lower() in (*SPLITS, *OTHER_SPLITS)]
    nested = [name for name in called if folders_in(folder / name)]
    if not nested and len(called) < len(names):
        return {}  # a class may be called train
    found = {SPLITS[name]: name for name in nested if name in SPLITS}
    if not names or (
        nested == names and {TRAIN, TEST} <= found.keys() and len(found) == len(names)
    ):
        return found
    flat = sorted(set(called) - set(nested))
    odd = f", where {' and '.join(flat)} hold no folders of classes" if flat else ""
    raise UserError(
        f"{folder} holds the folders {', '.join(names)}{odd}; expected train, test and perhaps "
        "val, each with a folder of images for each class (one folder where there are no classes), "
        "and nothing beside them; or a folder for each class, none of which is called as a split is"
    )


def classes_in(folder: Path) -> list[str]:
    """Names of the folders of classes, the class of label i at place i.

    Numbers are in the order of numbers, other names in that of strings.

    Raises:
        UserError: Two names are one number, or a name cannot be kept in records.
    """
    names = folders_in(folder)
    for name in names:
        check_name(name, f"a class in {folder}")
    if (numbers := _numbers(names)) is None:
        return names
    if len(numbers) < len(names):
        raise UserError(f"{folder} has two classes of one number: {', '.join(names)}")
    return [name for _, name in sorted(zip(map(int, names), names, strict=True))]


def rows_of(folder: Path, split: str, labels: Mapping[str, int]) -> list[LabelledPath]:
    """Path in ``folder`` and label of each image, class by class and sorted by name.

    Args:
        folder: Of the data set or the samples.
        split: Folder in it that holds the folders of classes; empty for ``folder`` itself.
        labels: Label by the name of a class's folder.

    Raises:
        UserError: A class holds no image, or anything else.
    """
    rows = []
    for kind, label in labels.items():
        place = folder / split / kind
        names = _entries(place)
        if not names:
            raise UserError(f"{place} holds no image; expected PNG or JPEG files")
        for name in names:
            if not name.lower().endswith(SUFFIXES):
                raise UserError(
                    f"{place / name} is no image by its name; expected "
                    f"{', '.join(SUFFIXES)} files only: convert or remove it"
                )
            rows.append((os.path.join(split, kind, name), label))  # noqa: PTH118
    return rows


def labels_of_samples(folder: Path, info: DatasetInfo) -> dict[str, int]:
    """The label of each folder of samples, by the folder's name.

    Args:
        folder: Holds a folder for each class, or for some. Either all are named after classes,
            exactly or with ``-`` for what file systems do not allow, or all by numbers: those that
            classes are called, or their labels where no class is called by a number.
        info: The data set that the samples imitate.

    Raises:
        UserError: A folder is named after no class or after two, or two after one.
    """
    kinds = folders_in(folder)
    if not kinds:
        raise UserError(f"{folder} holds no folder; expected one for each class of {info.name}")
    numbers = _numbers(info.class_names) or {
        label: label
        for label in range(info.classes)
        if not any(map(_number_like, info.class_names))
    }
    by_name = {kind: _by_name(kind, folder, info) for kind in kinds}
    by_number = {kind: numbers.get(int(kind)) for kind in kinds if _number_like(kind)}
    for labels in (by_name, by_number):
        found = {kind: label for kind, label in labels.items() if label is not None}
        if len(found) == len(kinds):
            _check_distinct(found, folder, info)
            return found
    odd = [kind for kind in kinds if by_name[kind] is None and by_number.get(kind) is None]
    known = ", ".join(map(safe_name, info.class_names[:20])) + ", ..." * (info.classes > 20)
    instead = f", or 0 to {info.classes - 1}" if numbers else ""
    raise UserError(
        f"{folder} has {', '.join(odd) or 'names and numbers together'}; expected folders named "
        f"after the classes of {info.name} ({known}){instead}"
    )


def _by_name(kind: str, folder: Path, info: DatasetInfo) -> int | None:
    names = info.class_names
    same = [label for label, name in enumerate(names) if name == kind] or [
        label for label, name in enumerate(names) if safe_name(name) == safe_name(kind)
    ]
    if len(same) > 1:
        raise UserError(
            f"{folder / kind} may stand for {' or '.join(repr(names[each]) for each in same)}, "
            f"classes of {info.name}: name it exactly as the class is"
        )
    return same[0] if same else None


def _check_distinct(labels: Mapping[str, int], folder: Path, info: DatasetInfo) -> None:
    seen: dict[int, str] = {}
    for kind, label in labels.items():
        if label in seen:
            raise UserError(
                f"{folder} has {seen[label]} and {kind}, which both stand for the class "
                f"{info.class_names[label]!r}: keep one"
            )
        seen[label] = kind


def folders_in(folder: Path) -> list[str]:
    """Names of the folders in a folder that are not hidden, sorted; empty if there is none."""
    return [name for name in _entries(folder) if (folder / name).is_dir()]


def _entries(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror})") from None
    return sorted(name for name in names if not name.startswith("."))


def _number_like(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def _numbers(names: Sequence[str]) -> dict[int, int] | None:
    """Label by the number that a class is called, or None if not all are called by numbers."""
    if not all(map(_number_like, names)):
        return None
    return {int(name): label for label, name in enumerate(names)}
