"""The data sets of the papers and image folders, from small files in their real formats."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from dpbench.core.errors import UserError
from dpbench.core.images import Images
from dpbench.core.progress import Silent
from dpbench.data import catalog
from dpbench.data import load as load_module
from dpbench.data.arrays import Original, mapped
from dpbench.data.catalog import CATALOG
from dpbench.data.fetch import mirrors
from dpbench.data.formats import folders
from dpbench.data.load import find_info, load
from dpbench.data.sets import camelyon, celeba, cifar, imagenet32
from dpbench.records.run_record import RunSpec
from tests.support.command import Command
from tests.support.datasets import python2_batch


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    monkeypatch.delenv("DPBENCH_DATA", raising=False)
    return tmp_path / "caches" / "dpbench"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def decoded(original: Original) -> dict[str, Images]:
    return {
        split: Images(torch.from_numpy(pixels), torch.from_numpy(labels))
        for split, (pixels, labels) in mapped(original, Silent()).parts.items()
    }


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def encoded(pixels: np.ndarray, format: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format, **options)
    return content.getvalue()


def put(file: Path, content: bytes) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    return file


# --- CIFAR-10

CIFAR_INFO = replace(catalog.CIFAR10, train=15, test=4)


def write_cifar(folder: Path) -> dict[str, str]:
    """Three images in each train batch, four in the test batch; their MD5."""
    md5 = {}
    for number, name in enumerate(cifar.MD5):
        count = 4 if name == "test_batch" else 3
        labels = [(number + index) % 10 for index in range(count)]
        file = put(folder / name, python2_batch(noise(number, count, 3072), labels))
        md5[name] = hashlib.md5(file.read_bytes()).hexdigest()
    return md5


@pytest.mark.parametrize(
    "below", [".", "cifar-10-batches-py", "cifar10/cifar-10-batches-py"], ids=str
)
def test_cifar10_is_read_in_the_order_of_its_batches(root: Path, below: str) -> None:
    md5 = write_cifar(root / below)
    splits = decoded(cifar.find(root, Silent(), CIFAR_INFO, md5))
    expected = np.concatenate([noise(number, 3, 3, 32, 32) for number in range(5)])
    assert np.array_equal(splits["train"].pixels, expected)
    assert splits["train"].labels.tolist() == [0, 1, 2, 1, 2, 3, 2, 3, 4, 3, 4, 5, 4, 5, 6]
    assert np.array_equal(splits["test"].pixels, noise(5, 4, 3, 32, 32))
    assert splits.keys() == {"train", "test"}


def test_cifar10_is_read_as_torchvision_reads_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    md5 = write_cifar(root / cifar.FOLDER)
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(datasets.CIFAR10, "_load_meta", lambda self: None)
    theirs = datasets.CIFAR10(root, train=True)
    train = decoded(cifar.find(root, Silent(), CIFAR_INFO, md5))["train"]
    assert np.array_equal(train.pixels.permute(0, 2, 3, 1), theirs.data)
    assert train.labels.tolist() == theirs.targets


def test_cifar10_checks_the_md5_of_every_batch_before_reading_it(root: Path) -> None:
    md5 = write_cifar(root)
    for name in md5:
        wrong = md5 | {name: "0" * 32}
        with pytest.raises(UserError, match=f"{name} has MD5 .* expected 000000000000, the offi"):
            mapped(cifar.find(root, Silent(), CIFAR_INFO, wrong), Silent())


def test_cifar10_without_a_batch_is_an_error(root: Path) -> None:
    md5 = write_cifar(root)
    (root / "data_batch_4").unlink()
    with pytest.raises(UserError, match="data_batch_4 cannot be read"):
        mapped(cifar.find(root, Silent(), CIFAR_INFO, md5), Silent())


def archive(names: Sequence[str], source: Path, file: Path) -> None:
    with tarfile.open(file, "w:gz") as content:
        for name in names:
            content.add(source / name, f"{cifar.FOLDER}/{name}")


def serve(monkeypatch: pytest.MonkeyPatch, names: Sequence[str], source: Path) -> list[str]:
    """Instead of a download: writes an archive with some of the batches."""
    asked: list[str] = []

    def fetch(
        mirror: str, dataset: str, md5: dict[str, str], megabytes: float, folder: Path, _: Any
    ) -> Path:
        (name,) = md5
        asked.append(mirror + name)
        archive(names, source, folder / name)
        return folder

    monkeypatch.setattr(mirrors, "fetch", fetch)
    return asked


def test_a_downloaded_cifar10_stays_in_the_cache(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    md5 = write_cifar(tmp_path / "source")
    asked = serve(monkeypatch, list(md5), tmp_path / "source")
    for _ in range(2):
        original = cifar.find(None, Silent(), CIFAR_INFO, md5)
        assert original.folder == cache / "cifar10" / cifar.FOLDER
        assert len(decoded(original)["train"]) == 15
    assert asked == ["https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"]
    assert {file.name for file in (cache / "cifar10").iterdir()} == {cifar.FOLDER}
    assert {file.name for file in original.folder.iterdir()} == set(md5)


def test_an_archive_without_a_batch_is_not_kept(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    md5 = write_cifar(tmp_path / "source")
    serve(monkeypatch, list(md5)[:-1], tmp_path / "source")
    with pytest.raises(UserError, match="holds no test_batch"):
        cifar.find(None, Silent(), CIFAR_INFO, md5)
    assert list((cache / "cifar10").iterdir()) == []


def test_without_a_network_cifar10_says_where_to_get_it_and_where_to_put_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cifar, "MIRROR", "http://127.0.0.1:9/")
    with pytest.raises(UserError) as error:
        load("cifar10", None, Silent())
    for part in ("127.0.0.1:9/cifar-10-python.tar.gz", cifar.FOLDER, "--data-root", "refused"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


# --- downsampled ImageNet

IMAGENET_INFO = replace(catalog.IMAGENET32, train=20, test=3)


def write_imagenet(folder: Path, first: int = 1) -> Path:
    for number, name in enumerate([*imagenet32.BATCHES["train"], "val_data"]):
        count = 3 if name == "val_data" else 2
        labels = [first + number, first + 999, first + 500][:count]
        content = {"data": noise(number, count, 3072), "labels": labels, "mean": np.zeros(3072)}
        put(folder / name, pickle.dumps(content, 3))
    return folder


@pytest.mark.parametrize("below", [".", "imagenet32", "Imagenet32"])
def test_imagenet32_labels_begin_at_one_in_the_files_and_at_zero_here(
    root: Path, below: str
) -> None:
    write_imagenet(root / below)
    splits = decoded(imagenet32.find(root, Silent(), IMAGENET_INFO))
    assert splits["train"].labels.tolist() == [x for batch in range(10) for x in (batch, 999)]
    assert splits["test"].labels.tolist() == [10, 999, 500]
    assert np.array_equal(splits["train"].pixels[18:], noise(9, 2, 3, 32, 32))


def test_imagenet32_with_labels_from_zero_is_refused(root: Path) -> None:
    write_imagenet(root, first=0)
    with pytest.raises(UserError, match="label 0; expected labels 1 to 1000"):
        mapped(imagenet32.find(root, Silent(), IMAGENET_INFO), Silent())


def test_imagenet64_is_no_imagenet32(root: Path) -> None:
    write_imagenet(root)
    content = {"data": noise(0, 2, 64 * 64 * 3), "labels": [1, 2]}
    put(root / "train_data_batch_1", pickle.dumps(content, 3))
    with pytest.raises(UserError, match="batch_1 .*2x12288; expected 3072 bytes"):
        mapped(imagenet32.find(root, Silent(), IMAGENET_INFO), Silent())


def test_a_part_of_imagenet32_is_refused(root: Path) -> None:
    write_imagenet(root)
    with pytest.raises(UserError, match="20 train images; expected 1281167, as imagenet32 has"):
        load("imagenet32", root, Silent())


# --- CelebA

CELEBA_INFO = replace(catalog.CELEBA, train=3, validation=1, test=2)
FACES = [f"{number:06}.jpg" for number in range(1, 7)]
PARTITIONS = (0, 1, 0, 2, 2, 0)
MALE = (1, -1, -1, 1, -1, 1)
ATTRIBUTE_NAMES = ("5_o_Clock_Shadow", "Male", "Young")


def write_celeba(folder: Path, zipped: bool = False) -> dict[str, bytes]:
    faces = {
        name: encoded(noise(number, 218, 178, 3), "JPEG", quality=95)
        for number, name in enumerate(FACES)
    }
    folder.mkdir(parents=True, exist_ok=True)
    if zipped:
        with zipfile.ZipFile(folder / celeba.ZIP, "w") as content:
            for name, face in faces.items():
                content.writestr(f"{celeba.IMAGES}/{name}", face)
    else:
        for name, face in faces.items():
            put(folder / celeba.IMAGES / name, face)
    # the official list pads its columns by spaces
    rows = [f"{name} -1 {male:2}  1" for name, male in zip(FACES, MALE, strict=True)]
    head = [str(len(FACES)), " ".join(ATTRIBUTE_NAMES) + " "]
    (folder / celeba.ATTRIBUTES).write_text("\n".join([*head, *rows]) + "\n")
    lines = [f"{name} {split}" for name, split in zip(FACES, PARTITIONS, strict=True)]
    (folder / celeba.PARTITION).write_text("\n".join(lines) + "\n")
    return faces


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("below", [".", "celeba", "CelebA"])
def test_celeba_is_labelled_by_gender_in_its_official_splits(
    root: Path, below: str, zipped: bool
) -> None:
    write_celeba(root / below, zipped)
    splits = decoded(celeba.find(root, Silent(), CELEBA_INFO))
    assert splits["train"].labels.tolist() == [1, 0, 1]
    assert splits["validation"].labels.tolist() == [0]
    assert splits["test"].labels.tolist() == [1, 0]
    assert CELEBA_INFO.class_names == ("female", "male")


def test_celeba_is_cropped_to_its_centre_and_resized(root: Path) -> None:
    faces = write_celeba(root)
    train = decoded(celeba.find(root, Silent(), CELEBA_INFO))["train"]
    for position, name in enumerate(["000001.jpg", "000003.jpg", "000006.jpg"]):
        whole = np.asarray(Image.open(io.BytesIO(faces[name])))
        centre = Image.fromarray(whole[20:198])  # as dataset_tool.py does: (218 - 178) // 2
        small = np.asarray(centre.resize((32, 32), Image.Resampling.LANCZOS))
        assert np.array_equal(train.pixels[position].permute(1, 2, 0), small)


def test_celeba_has_the_same_content_zipped_or_not(tmp_path: Path) -> None:
    hashes = set()
    for zipped in (False, True):
        write_celeba(tmp_path / str(zipped), zipped)
        original = celeba.find(tmp_path / str(zipped), Silent(), CELEBA_INFO)
        hashes.add(mapped(original, Silent()).content_hash)
    assert len(hashes) == 1


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: edit(f / celeba.ATTRIBUTES, "Male", "Mal"), "has no attribute Male"),
        (
            lambda f: edit(f / celeba.ATTRIBUTES, "000003.jpg -1 -1", "000003.jpg -1 0"),
            "line 5, is '000003.jpg -1 0  1'; expected an image and 3 attributes of -1 or 1",
        ),
        (lambda f: edit(f / celeba.ATTRIBUTES, "000003.jpg -1", "000003.jpg"), "line 5, is"),
        (lambda f: edit(f / celeba.PARTITION, "2.jpg 1", "2.jpg 3"), "line 2, .* 0, 1 or 2"),
        (lambda f: edit(f / celeba.PARTITION, "000002", "../002"), "line 2, is '../002.jpg 1'"),
        (lambda f: edit(f / celeba.PARTITION, "000002", "000009"), "names 000009.jpg, which"),
        (lambda f: (f / celeba.PARTITION).unlink(), "list_eval_partition.txt cannot be read"),
        (
            lambda f: edit(f / celeba.PARTITION, "000004.jpg 2", "000004.jpg 0"),
            "more than 3 train images",
        ),
        (lambda f: (f / celeba.IMAGES / FACES[3]).unlink(), "000004.jpg cannot be read"),
        (
            lambda f: put(f / celeba.IMAGES / FACES[2], b"\xff\xd8 no image"),
            "000003.jpg cannot be decoded",
        ),
        (
            lambda f: put(
                f / celeba.IMAGES / FACES[2],
                (f / celeba.IMAGES / FACES[2]).read_bytes()[:-900],
            ),
            "000003.jpg cannot be decoded .*truncated.*expected an intact JPEG",
        ),
        (
            lambda f: put(f / celeba.IMAGES / FACES[2], encoded(noise(0, 178, 218, 3), "JPEG")),
            "000003.jpg has 218x178 pixels of mode RGB; expected 178x218",
        ),
        (
            lambda f: put(f / celeba.IMAGES / FACES[2], encoded(noise(0, 218, 178), "JPEG")),
            "000003.jpg has 178x218 pixels of mode L; expected .* mode RGB",
        ),
    ],
)
def test_bad_files_of_celeba_are_named(
    spoil: Callable[[Path], object], message: str, root: Path
) -> None:
    write_celeba(root)
    spoil(root)
    with pytest.raises(UserError, match=message) as error:
        mapped(celeba.find(root, Silent(), CELEBA_INFO), Silent())
    assert "\n" not in str(error.value)


def test_bad_zip_files_of_celeba_are_named(root: Path) -> None:
    write_celeba(root, zipped=True)
    whole = (root / celeba.ZIP).read_bytes()
    put(root / celeba.ZIP, whole[:-100])
    with pytest.raises(UserError, match="img_align_celeba.zip is no intact zip file"):
        mapped(celeba.find(root, Silent(), CELEBA_INFO), Silent())
    flipped = bytearray(whole)
    flipped[2_000] ^= 1
    put(root / celeba.ZIP, flipped)
    with pytest.raises(UserError, match="img_align_celeba.zip is no intact zip file"):
        mapped(celeba.find(root, Silent(), CELEBA_INFO), Silent())
    with zipfile.ZipFile(root / celeba.ZIP, "w") as content:
        content.writestr("other", b"")
    with pytest.raises(UserError, match="no item named 'img_align_celeba/000001.jpg'"):
        mapped(celeba.find(root, Silent(), CELEBA_INFO), Silent())


# --- Camelyon17

CAMELYON_INFO = replace(catalog.CAMELYON17, train=4, validation=2, test=2)
# patient, node, x, y, tumor, slide, center, split: split 0 and 1 occur in every center
PATCHES = [
    ("004", 4, 3328, 21792, 1, 0, 0, 0),
    ("004", 4, 3200, 22272, 0, 0, 0, 1),
    ("020", 2, 96, 128, 1, 4, 1, 0),
    ("020", 2, 96, 160, 0, 4, 1, 1),
    ("040", 1, 32, 64, 0, 9, 2, 0),
    ("040", 1, 32, 96, 1, 9, 2, 1),
    ("060", 3, 64, 64, 0, 14, 3, 0),
    ("080", 0, 64, 96, 1, 19, 4, 0),
    ("080", 0, 64, 128, 0, 19, 4, 0),
]
HEADER = ",patient,node,x_coord,y_coord,tumor,slide,center,split"


def patch_file(folder: Path, patch: Sequence[Any]) -> Path:
    slide = f"patient_{patch[0]}_node_{patch[1]}"
    return folder / "patches" / slide / f"patch_{slide}_x_{patch[2]}_y_{patch[3]}.png"


def write_camelyon(folder: Path) -> Path:
    lines = [HEADER]
    for index, patch in enumerate(PATCHES):
        put(patch_file(folder, patch), encoded(noise(index, 96, 96, 4 if index % 2 else 3)))
        lines.append(",".join(map(str, (index, *patch))))
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("below", [".", "camelyon17_v1.0", "wilds/camelyon17_v1.0"])
def test_camelyon17_has_the_official_splits_of_wilds(root: Path, below: str) -> None:
    write_camelyon(root / below)
    splits = decoded(camelyon.find(root, Silent(), CAMELYON_INFO))
    indices = {"train": [0, 6, 7, 8], "validation": [2, 3], "test": [4, 5]}
    for split, wanted in indices.items():
        assert splits[split].labels.tolist() == [PATCHES[index][4] for index in wanted]
        for pixels, index in zip(splits[split].pixels, wanted, strict=True):
            whole = noise(index, 96, 96, 4 if index % 2 else 3)[..., :3]
            means = whole.reshape(32, 3, 32, 3, 3).mean((1, 3))
            assert np.array_equal(pixels.permute(1, 2, 0).numpy(), means.round())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("y_coord", "y", "has no column y_coord"),
        ("21792,1,0,0,0", "21792,2,0,0,0", "line 2 has tumor 2, .*expected tumor 0 or 1"),
        ("21792,1,0,0,0", "21792,1,0,5,0", "line 2 has .*center 5.*center 0 to 4"),
        ("21792,1,0,0,0", "21792,1,0,0,2", "line 2 has .*split 2; .*split 0 or 1"),
        ("21792,1,0,0,0", "21792,1,0,0,1", "holds 3 train images; expected 4, as camelyon17"),
        ("3328", "3329", "patch_patient_004_node_4_x_3329_y_21792.png cannot be read"),
    ],
)
def test_bad_metadata_of_camelyon17_are_named(old: str, new: str, message: str, root: Path) -> None:
    edit(write_camelyon(root) / "metadata.csv", old, new)
    with pytest.raises(UserError, match=message) as error:
        mapped(camelyon.find(root, Silent(), CAMELYON_INFO), Silent())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encoded(noise(0, 96, 96, 3))[:-2000], "cannot be decoded .*expected an intact PNG"),
        (encoded(noise(0, 96, 96, 3), "JPEG"), "cannot be decoded .*expected an intact PNG"),
        (encoded(noise(0, 32, 32, 3)), "32x32 pixels of mode RGB; expected 96x96"),
    ],
)
def test_bad_patches_of_camelyon17_are_named(content: bytes, message: str, root: Path) -> None:
    file = put(patch_file(write_camelyon(root), PATCHES[7]), content)
    with pytest.raises(UserError, match=message) as error:
        mapped(camelyon.find(root, Silent(), CAMELYON_INFO), Silent())
    assert str(error.value).startswith(str(file))


# --- all of them


@pytest.mark.parametrize("name", ["celeba", "camelyon17", "imagenet32"])
def test_what_is_nowhere_says_where_to_get_it_and_where_to_put_it(name: str, root: Path) -> None:
    with pytest.raises(UserError) as error:
        load(name, root, Silent())
    for part in (f"{name} was found neither", "https://", "folder", "--data-root", "digits"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_the_environment_may_name_the_data_root(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_imagenet(root)
    monkeypatch.setenv("DPBENCH_DATA", str(root))
    assert imagenet32.find(None, Silent(), IMAGENET_INFO).folder == root


def test_every_data_set_can_be_loaded_by_name() -> None:
    known = {*load_module.SOURCES, *load_module.ORIGINALS, catalog.DIGITS.name}
    assert known == set(CATALOG)


def test_official_counts_are_those_of_the_papers() -> None:
    counts = {name: (i.train, i.validation, i.test) for name, i in CATALOG.items()}
    assert sum(counts["celeba"]) == 202_599
    assert sum(counts["camelyon17"]) == 455_954 - 33_560  # what WILDS calls id_val
    assert counts["imagenet32"] == (1_281_167, 0, 50_000)
    assert counts["cifar10"] == (50_000, 0, 10_000)


def test_listing_and_describing_data_sets_opens_no_file_and_imports_no_torch() -> None:
    code = (
        "import sys, json, pathlib\n"
        "pathlib.Path.open = pathlib.Path.read_bytes = None\n"
        "from dpbench.data.catalog import CATALOG\n"
        "print(json.dumps({n: [*i.shape, i.classes] for n, i in CATALOG.items()}))\n"
        "sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["imagenet32"] == [3, 32, 32, 1000]


@pytest.fixture
def small_camelyon(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_camelyon(root)
    monkeypatch.setitem(CATALOG, "camelyon17", CAMELYON_INFO)
    monkeypatch.setitem(
        load_module.ORIGINALS,
        "camelyon17",
        lambda data_root, progress: camelyon.find(data_root, progress, CAMELYON_INFO),
    )
    return root


def test_an_official_validation_split_is_the_validation_split(small_camelyon: Path) -> None:
    dataset = load("camelyon17", small_camelyon, Silent())
    assert dataset.splits.validation is not None
    assert dataset.splits.validation.labels.tolist() == [1, 0]
    assert dataset.source == str(small_camelyon)


def test_images_held_out_take_the_place_of_the_official_validation_split(
    small_camelyon: Path,
) -> None:
    whole = load("camelyon17", small_camelyon, Silent())
    held = load("camelyon17", small_camelyon, Silent(), holdout=1)
    assert held.splits.validation is not None
    assert (len(held.splits.train), len(held.splits.validation)) == (3, 1)
    assert held.content_hash == whole.content_hash


# --- image folders

KINDS = ("cat", "dog", "owl")


def write_folder(folder: Path, counts: Sequence[int] = (20, 10, 10), grey: bool = False) -> Path:
    seed = 0
    for kind, count in zip(KINDS, counts, strict=True):
        for number in range(count):
            pixels = noise(seed, 6, 5) if grey else noise(seed, 6, 5, 3)
            put(folder / kind / f"{number:03}.png", encoded(pixels))
            seed += 1
    return folder


def info_of(folder: Path) -> catalog.DatasetInfo:
    return find_info(f"imagefolder:{folder}")


@pytest.mark.parametrize(("grey", "shape"), [(False, (3, 6, 5)), (True, (1, 6, 5))])
def test_a_folder_of_classes_is_a_data_set(
    tmp_path: Path, grey: bool, shape: tuple[int, int, int]
) -> None:
    folder = write_folder(tmp_path / "pets", grey=grey)
    dataset = load(f"imagefolder:{folder}", None, Silent())
    assert dataset.info == info_of(folder)
    assert dataset.info.name == "imagefolder:pets"
    assert (dataset.info.shape, dataset.info.class_names) == (shape, KINDS)
    assert (dataset.info.train, dataset.info.test, dataset.info.classes) == (36, 4, 3)
    assert dataset.splits.validation is None
    train, test = dataset.splits.train, dataset.splits.test
    assert train.labels.bincount().tolist() == [18, 9, 9]
    assert test.labels.bincount().tolist() == [2, 1, 1]
    every = {tuple(pixels.flatten().tolist()) for pixels in (*train.pixels, *test.pixels)}
    wanted = (noise(seed, *((6, 5) if grey else (6, 5, 3))) for seed in range(40))
    assert every == {
        tuple(np.atleast_3d(pixels).transpose(2, 0, 1).flatten().tolist()) for pixels in wanted
    }


def test_a_folder_may_say_what_is_for_testing(tmp_path: Path) -> None:
    write_folder(tmp_path / "pets" / "train", (3, 2, 1))
    write_folder(tmp_path / "pets" / "test", (1, 1, 2))
    dataset = load(f"imagefolder:{tmp_path / 'pets'}", None, Silent())
    assert dataset.splits.train.labels.tolist() == [0, 0, 0, 1, 1, 2]
    assert dataset.splits.test.labels.tolist() == [0, 1, 2, 2]
    assert dataset.info.classes == 3


def test_classes_may_be_called_train_and_test(tmp_path: Path) -> None:
    for kind in ("test", "train"):
        for number in range(10):
            put(tmp_path / kind / f"{number}.png", encoded(noise(number, 4, 4)))
    assert info_of(tmp_path).class_names == ("test", "train")


def test_jpeg_files_and_hidden_files_are_no_matter(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets")
    put(folder / "cat" / "999.JPG", encoded(noise(0, 6, 5, 3), "JPEG"))
    put(folder / "cat" / ".DS_Store", b"")
    put(folder / "README.md", b"")
    dataset = load(f"imagefolder:{folder}", None, Silent())
    assert len(dataset.splits.train) + len(dataset.splits.test) == 41


def test_the_content_hash_tells_folders_of_one_name_apart(tmp_path: Path) -> None:
    first = write_folder(tmp_path / "a" / "pets")
    second = write_folder(tmp_path / "b" / "pets")
    put(second / "owl" / "003.png", encoded(noise(99, 6, 5, 3)))
    loaded = [load(f"imagefolder:{folder}", None, Silent()) for folder in (first, second)]
    assert loaded[0].info == loaded[1].info
    assert loaded[0].content_hash != loaded[1].content_hash


def test_a_changed_image_is_noticed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "pets")
    before = load(f"imagefolder:{folder}", None, Silent()).content_hash
    put(folder / "owl" / "003.png", encoded(noise(99, 6, 5, 3), compress_level=0))
    assert load(f"imagefolder:{folder}", None, Silent()).content_hash != before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dog/004.png", encoded(noise(0, 5, 6, 3)), "6x5 pixels of mode RGB; expected 5x6"),
        ("dog/004.png", encoded(noise(0, 6, 5)), "of mode L; expected 5x6 pixels of mode RGB"),
        ("dog/004.png", encoded(noise(0, 6, 5, 4)), "of mode RGBA; expected .* mode RGB"),
        ("dog/004.png", encoded(noise(0, 6, 5, 3))[:60], "cannot be decoded"),
        ("dog/004.png", b"no image", "cannot be decoded .no such image."),
        ("dog/004.webp", b"", "is no image by its name; expected .png, .jpg, .jpeg files"),
        ("dog/more/004.png", b"", "is no image by its name"),
        ("cat/000.png", encoded(noise(0, 6, 5, 4)), "has mode RGBA; expected L .* or RGB"),
        ("cat/000.png", b"no image", "is no intact PNG or JPEG file"),
    ],
)
def test_the_first_image_that_is_unlike_the_others_is_named(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "pets")
    put(folder / name, content)
    put(folder / "owl" / "009.png", encoded(noise(0, 9, 9)))  # comes later
    with pytest.raises(UserError, match=message) as error:
        load(f"imagefolder:{folder}", None, Silent())
    assert str(error.value).startswith(str(folder / Path(name).parts[0]))
    assert "owl" not in str(error.value)
    assert "\n" not in str(error.value)


def empty_class(folder: Path) -> None:
    (folder / "emu").mkdir()


def few(folder: Path) -> None:
    for kind in KINDS:
        for file in sorted((folder / kind).iterdir())[3:]:
            file.unlink()


def unlike_classes(folder: Path) -> None:
    write_folder(folder / "train")
    write_folder(folder / "test")
    (folder / "test" / "emu").mkdir()


def no_classes(folder: Path) -> None:
    for kind in KINDS:
        (folder / kind).rename(folder.parent / kind)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (empty_class, "emu holds no image"),
        (few, "holds 9 images; expected 10 at least"),
        (unlike_classes, "train and test must have the same classes; see 'emu'"),
        (no_classes, "pets holds no folder; expected one for each class"),
    ],
)
def test_a_folder_of_another_layout_is_refused(
    spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "pets")
    spoil(folder)
    with pytest.raises(UserError, match=message):
        info_of(folder)


@pytest.mark.parametrize("name", ["imagefolder:", "imagefolder:nowhere"])
def test_what_names_no_folder_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="names no folder; expected imagefolder:PATH"):
        find_info(name)


def test_unknown_names_get_a_suggestion() -> None:
    with pytest.raises(UserError, match="Did you mean 'cifar10'?"):
        find_info("cifar-10")
    with pytest.raises(UserError, match="There are .*imagefolder:PATH"):
        find_info("zzz")


def test_a_run_on_a_folder_keeps_its_path_to_itself(
    dpbench: Command, toy: Any, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "elsewhere" / "my pets")
    toy_run = ("run", "--method", "toy", "--profile", "smoke", "--eps", "0.001")
    ended = dpbench(*toy_run, "--dataset", f"imagefolder:{folder}", "--json")
    assert ended.code == 0, ended.err
    (file,) = Path("runs").rglob("record.json")
    assert file.parts[1] == "imagefolder-my-pets"
    record = json.loads(file.read_text())
    assert record["spec"]["dataset"] == "imagefolder:my pets"
    assert "elsewhere" not in file.read_text()


def test_a_bad_folder_ends_a_run_with_exit_code_2(
    dpbench: Command, toy: Any, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path / "pets")
    put(folder / "dog" / "004.png", b"no image")
    for path in (folder, tmp_path / "nowhere"):
        ended = dpbench(
            *("run", "--method", "toy", "--profile", "smoke", "--eps", "0.001"),
            *("--dataset", f"imagefolder:{path}"),
        )
        assert ended.code == 2, ended.err
        assert str(path) in ended.err and "Traceback" not in ended.err


def test_folders_of_runs_are_safe_names() -> None:
    spec = RunSpec(
        "m", "1", {}, "imagefolder:a/../b c", "0", 1.0, 1e-5, "add_remove", 0, "p", {}, 1
    )
    assert spec.folder.parts[0] == "imagefolder-a-..-b-c"
    assert replace(spec, dataset="cifar10").folder.parts[0] == "cifar10"


def test_folders_prefix_is_what_people_type() -> None:
    assert folders.PREFIX == "imagefolder:"
