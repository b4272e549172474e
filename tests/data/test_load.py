from __future__ import annotations

import gzip
import hashlib
import multiprocessing
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch

from dpbench.core.errors import UserError
from dpbench.core.images import Images
from dpbench.core.progress import Silent
from dpbench.data import load as load_module
from dpbench.data.catalog import CATALOG, DIGITS, MNIST, DatasetInfo
from dpbench.data.fetch import debian, mirrors, sources
from dpbench.data.fetch.sources import SOURCES, find
from dpbench.data.formats.idx import (
    FILES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    BadIdx,
    IdxSource,
    present,
    read_folder,
)
from dpbench.data.load import load
from dpbench.data.splits import hold_out, split, stratified_order

INFO = DatasetInfo("tiny", (1, 4, 3), 10, tuple("0123456789"), 20, 10, "a small set of real format")
SOURCE = IdxSource(INFO, folders=("Tiny/raw", "tiny"))


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def arrays(fill: int = 0, info: DatasetInfo = INFO) -> dict[str, np.ndarray]:
    content = {}
    for name in FILES:
        count = info.train if name.startswith("train") else info.test
        content[name] = np.arange(count, dtype=np.uint8) % 10
        if "images" in name:
            content[name] = np.full((count, *info.shape[1:]), fill, np.uint8)
    return content


def write(folder: Path, content: dict[str, np.ndarray], gz: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in content.items():
        if gz:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            (folder / name).write_bytes(idx(array))
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    if "real_environment" not in request.fixturenames:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
        monkeypatch.delenv("DPBENCH_DATA", raising=False)
    return tmp_path / "caches" / "dpbench" / "tiny"


@pytest.fixture
def real_environment() -> None:
    """Keeps the machine's own caches and variables."""


def test_the_catalog_imports_no_torch() -> None:
    code = "import sys, dpbench.data.catalog; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_the_catalog_names_every_class() -> None:
    for name, info in CATALOG.items():
        assert info.name == name
        assert len(info.class_names) == info.classes


# --- digits and load


def test_digits_are_what_the_catalog_says() -> None:
    digits = load("digits", None, Silent())
    train, test = digits.splits.train, digits.splits.test
    assert (len(train), len(test)) == (DIGITS.train, DIGITS.test)
    assert train.spec.shape == test.spec.shape == DIGITS.shape
    assert digits.splits.validation is None
    assert (train.pixels.min(), train.pixels.max()) == (0, 255)
    assert train.labels.unique().tolist() == list(range(10))


def test_digits_are_enlarged_by_nearest_neighbour() -> None:
    pixels = load("digits", None, Silent()).splits.test.pixels
    for row in (0, 1):
        for column in (0, 1):
            assert torch.equal(pixels[..., row::2, column::2], pixels[..., ::2, ::2])


def test_digits_are_the_same_on_every_machine_and_version() -> None:
    assert load("digits", None, Silent()).content_hash == (
        "966d5061705df3581cb8983b35c4024978b594eb9dfec7d9d429b1fdf15abc02"
    )


def test_digits_test_split_is_stratified() -> None:
    splits = load("digits", None, Silent()).splits
    test, train = splits.test.labels.bincount(), splits.train.labels.bincount()
    expected = (test + train) * DIGITS.test / (DIGITS.test + DIGITS.train)
    assert (test - expected).abs().max() <= 1


def test_an_unknown_name_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="Did you mean 'fashionmnist'"):
        load("fashion-mnist", None, Silent())


@pytest.mark.parametrize("holdout", [-1, DIGITS.train])
def test_an_impossible_holdout_is_refused(holdout: int) -> None:
    with pytest.raises(UserError, match="expected 0 to 1436"):
        load("digits", None, Silent(), holdout)


def test_holdout_takes_from_train_and_leaves_the_rest_alone() -> None:
    whole, held = load("digits", None, Silent()), load("digits", None, Silent(), 200)
    assert held.splits.validation is not None
    assert (len(held.splits.train), len(held.splits.validation)) == (DIGITS.train - 200, 200)
    assert torch.equal(whole.splits.test.pixels, held.splits.test.pixels)
    assert whole.content_hash == held.content_hash


def load_tiny(monkeypatch: pytest.MonkeyPatch, root: Path) -> load_module.Dataset:
    monkeypatch.setitem(SOURCES, "mnist", SOURCE)
    return load("mnist", root, Silent())


def test_idx_files_become_images_and_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = arrays()
    content[TRAIN_IMAGES][3, 2, 1] = 77
    dataset = load_tiny(monkeypatch, write(tmp_path / "root", content))
    train = dataset.splits.train
    assert train.pixels.shape == (20, 1, 4, 3)
    assert train.pixels.sum() == train.pixels[3, 0, 2, 1] == 77
    assert train.labels.tolist() == [*range(10), *range(10)]
    assert len(dataset.splits.test) == 10
    assert dataset.source == str(tmp_path / "root")


@pytest.mark.parametrize("name", FILES)
def test_the_content_hash_changes_with_any_element(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = arrays()
    before = load_tiny(monkeypatch, write(tmp_path / "a", content)).content_hash
    same = load_tiny(monkeypatch, write(tmp_path / "b", content, gz=True)).content_hash
    content[name].flat[-1] ^= 1
    after = load_tiny(monkeypatch, write(tmp_path / "c", content)).content_hash
    assert before == same != after
    assert len(before) == 64


# --- splits


def uneven_images() -> Images:
    labels = torch.arange(10).repeat_interleave(torch.arange(10, 110, 10))
    return Images(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), labels)


def test_the_stratified_order_is_a_fixed_permutation() -> None:
    order = stratified_order(uneven_images().labels)
    assert sorted(order) == list(range(550))
    digest = hashlib.sha256(",".join(map(str, order)).encode()).hexdigest()
    assert digest[:12] == "407ef44f8149"  # the same from pandas ranks and fractions


def test_a_split_is_stratified_disjoint_and_whole() -> None:
    images = uneven_images()
    images.pixels[:, 0, 0, 0] = torch.arange(550) % 256
    images.pixels[:, 0, 0, 1] = torch.arange(550) // 256
    kept, held_out = split(images, 55)
    assert (held_out.labels.bincount() - torch.arange(1, 11)).abs().max() <= 1
    both = torch.cat([kept.pixels, held_out.pixels]).flatten(1).unique(dim=0)
    assert len(kept) == 495
    assert len(both) == 550


def test_a_smaller_holdout_is_part_of_a_larger_one() -> None:
    order = stratified_order(uneven_images().labels)
    images = Images(torch.zeros(550, 1, 1, 1, dtype=torch.uint8), uneven_images().labels)
    small, large = split(images, 20)[1], split(images, 40)[1]
    assert small.labels.tolist() == images.labels[sorted(order[-20:])].tolist()
    assert large.labels.tolist() == images.labels[sorted(order[-40:])].tolist()


def numbered(labels: torch.Tensor) -> Images:
    """Images that hold their own number."""
    pixels = torch.zeros(len(labels), 1, 1, 2, dtype=torch.uint8)
    pixels[:, 0, 0, 0], pixels[:, 0, 0, 1] = torch.arange(550) % 256, torch.arange(550) // 256
    return Images(pixels, labels)


def numbers(images: Images) -> set[int]:
    return set((images.pixels[:, 0, 0, 0].int() + 256 * images.pixels[:, 0, 0, 1].int()).tolist())


Splitting = Callable[[Images, int], tuple[Images, Images]]


def moved_by_one_label(splitting: Splitting) -> int:
    """How many images change sides when one image of 550 has another label, at most."""
    labels = uneven_images().labels
    before = numbers(splitting(numbered(labels), 55)[1])
    moved = []
    for place in range(0, 550, 50):
        other = labels.clone()
        other[place] = 9 - other[place]
        moved.append(len(before ^ numbers(splitting(numbered(other), 55)[1])))
    return max(moved)


def test_no_image_decides_about_another_being_held_out() -> None:
    assert moved_by_one_label(hold_out) == 0
    assert moved_by_one_label(split) > 0, "the stratified order must be caught"


def test_what_is_held_out_is_disjoint_whole_and_grows() -> None:
    images = numbered(uneven_images().labels)
    kept, held = map(numbers, hold_out(images, 55))
    assert (len(kept), len(held), len(kept | held)) == (495, 55, 550)
    assert held < numbers(hold_out(images, 56)[1])
    digests = {hashlib.sha256(str(place).encode()).digest(): place for place in range(550)}
    assert held == {digests[digest] for digest in sorted(digests)[-55:]}


def test_held_out_classes_are_roughly_in_proportion() -> None:
    images = Images(torch.zeros(5_000, 1, 1, 1, dtype=torch.uint8), torch.arange(5_000) % 10)
    counts = hold_out(images, 1_000)[1].labels.bincount()
    # the counts are hypergeometric with mean 100 and standard deviation 8.5
    assert (counts - 100).abs().max() < 4 * 8.5


# --- what is in the files


def spoil(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    return folder


WHOLE_LABELS = idx(np.arange(20, dtype=np.uint8) % 10)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (TRAIN_LABELS, b"", r"begins with the bytes \(none\); expected 00000801"),
        (TRAIN_LABELS, b"\x00\x00\x08\x03" + WHOLE_LABELS[4:], "bytes 00000803; expected 00000801"),
        (TRAIN_LABELS, b"\x00\x00\x0d\x01" + WHOLE_LABELS[4:], "bytes 00000d01; expected 00000801"),
        (TRAIN_LABELS, WHOLE_LABELS[:6], "ends within its header, after 6 bytes"),
        (TRAIN_LABELS, WHOLE_LABELS[:-1], "decodes to 27 bytes; expected 28"),
        (TRAIN_LABELS, WHOLE_LABELS + b"\x00", "decodes to 29 bytes; expected 28"),
        (TRAIN_LABELS, idx(np.zeros(19, np.uint8)), "has the shape 19; expected 20"),
        (TRAIN_IMAGES, idx(np.zeros((20, 3, 4), np.uint8)), "shape 20x3x4; expected 20x4x3"),
        (TRAIN_IMAGES, idx(np.zeros((19, 4, 3), np.uint8)), "shape 19x4x3; expected 20x4x3"),
        (TEST_LABELS, idx(np.full(10, 10, np.uint8)), "holds the label 10; expected labels 0 to 9"),
        (f"{TRAIN_LABELS}.gz", b"no gzip at all", "is no intact gzip file"),
        (
            f"{TRAIN_LABELS}.gz",
            gzip.compress(WHOLE_LABELS, mtime=0)[:-9],
            "is a truncated gzip file",
        ),
    ],
)
def test_a_bad_file_is_named_with_what_was_expected(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    folder = write(tmp_path, arrays())
    if name.endswith(".gz"):
        (folder / name.removesuffix(".gz")).unlink()
    spoil(folder, name, content)
    with pytest.raises(BadIdx, match=message) as error:
        read_folder(folder, SOURCE)
    assert str(error.value).startswith(str(folder / name))
    assert "\n" not in str(error.value)


def test_flipped_bits_in_a_gzip_file_are_noticed(tmp_path: Path) -> None:
    folder = write(tmp_path, arrays(), gz=True)
    packed = bytearray((folder / f"{TRAIN_LABELS}.gz").read_bytes())
    packed[-7] ^= 1  # in the checksum
    spoil(folder, f"{TRAIN_LABELS}.gz", bytes(packed))
    with pytest.raises(BadIdx, match="train-labels.*no intact gzip file"):
        read_folder(folder, SOURCE)


def test_a_missing_file_of_a_set_is_named(tmp_path: Path) -> None:
    folder = write(tmp_path, arrays())
    (folder / TEST_LABELS).unlink()
    with pytest.raises(BadIdx, match="t10k-labels.*is missing"):
        read_folder(folder, SOURCE)


def pinned(content: dict[str, np.ndarray]) -> IdxSource:
    hashes = {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in content.items()}
    return replace(SOURCE, sha256=hashes)


def test_pinned_hashes_hold_for_plain_and_gzipped_files(tmp_path: Path) -> None:
    content = arrays(7)
    for gz in (False, True):
        read = read_folder(write(tmp_path / str(gz), content, gz), pinned(content))
        assert all(np.array_equal(read[name], content[name]) for name in FILES)


@pytest.mark.parametrize("name", FILES)
def test_one_changed_element_breaks_a_pinned_hash(name: str, tmp_path: Path) -> None:
    content = arrays(7)
    source = pinned(content)
    content[name].flat[0] ^= 1
    found = hashlib.sha256(content[name].tobytes()).hexdigest()[:12]
    expected = source.sha256[name][:12]
    with pytest.raises(BadIdx, match=f"{name} .*{found}; expected {expected}"):
        read_folder(write(tmp_path, content), source)


def test_files_of_another_set_of_the_same_names_are_refused(tmp_path: Path) -> None:
    content = arrays(7)
    digest = hashlib.sha256(content[TRAIN_IMAGES].tobytes()).hexdigest()
    source = replace(SOURCE, impostors={digest: "othermnist"})
    with pytest.raises(BadIdx, match="holds the images of othermnist.*expected tiny"):
        read_folder(write(tmp_path, content), source)


def test_mnist_is_checked_for_its_full_size(tmp_path: Path) -> None:
    write(tmp_path / "MNIST" / "raw", arrays())
    with pytest.raises(UserError, match="20x4x3; expected 60000x28x28"):
        load("mnist", tmp_path, Silent())


def test_full_size_files_pass_as_mnist_but_not_as_fashionmnist(tmp_path: Path) -> None:
    write(tmp_path, arrays(info=MNIST))
    assert len(load("mnist", tmp_path, Silent()).splits.train) == 60_000
    with pytest.raises(UserError, match="SHA-256 [0-9a-f]{12}; expected 2e487a6c8912"):
        load("fashionmnist", tmp_path, Silent())


# --- where the files are


def fill_of(source: IdxSource, data_root: Path | None) -> int:
    found, _ = find(source, data_root, Silent())
    return int(found[TRAIN_IMAGES][0, 0, 0])


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("folder", [".", "tiny", "Tiny/raw"])
def test_every_layout_is_found_below_a_data_root(folder: str, gz: bool, tmp_path: Path) -> None:
    write(tmp_path / folder, arrays(5), gz)
    assert fill_of(SOURCE, tmp_path) == 5


@pytest.mark.parametrize(
    ("name", "folders"),
    [
        ("fashionmnist", {"FashionMNIST/raw", "fashionmnist", "fashion-mnist"}),
        ("mnist", {"MNIST/raw", "mnist"}),
    ],
)
def test_real_sets_know_torchvisions_layout(name: str, folders: set[str]) -> None:
    assert set(SOURCES[name].folders) == folders


def test_sources_are_asked_in_order(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = replace(SOURCE, debian_folder=write(tmp_path / "system", arrays(1)))
    assert fill_of(source, None) == 1
    write(cache, arrays(2))
    assert fill_of(source, None) == 2
    monkeypatch.setenv("DPBENCH_DATA", str(write(tmp_path / "environment", arrays(3))))
    assert fill_of(source, None) == 3
    assert fill_of(source, write(tmp_path / "argument", arrays(4))) == 4


def test_a_data_root_without_the_set_is_passed_over(tmp_path: Path, cache: Path) -> None:
    write(cache, arrays(2))
    (tmp_path / "empty").mkdir()
    assert fill_of(SOURCE, tmp_path / "empty") == 2


@pytest.mark.parametrize("by_variable", [False, True])
def test_a_corrupt_file_in_a_data_root_is_an_error_at_once(
    by_variable: bool, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(cache, arrays())
    root = spoil(write(tmp_path / "root", arrays()), TRAIN_LABELS, b"rubbish")
    monkeypatch.setenv("DPBENCH_DATA", str(root))
    with pytest.raises(UserError, match=f"{root / TRAIN_LABELS}.*replace it"):
        find(SOURCE, None if by_variable else root, Silent())


def test_half_a_set_in_a_data_root_is_an_error_at_once(tmp_path: Path, cache: Path) -> None:
    write(cache, arrays())
    root = write(tmp_path / "root", arrays())
    (root / TRAIN_IMAGES).unlink()
    with pytest.raises(UserError, match="train-images.*is missing"):
        find(SOURCE, root, Silent())


def test_a_corrupt_cache_file_is_named_and_to_be_deleted(cache: Path) -> None:
    spoil(write(cache, arrays()), TRAIN_LABELS, b"rubbish")
    with pytest.raises(UserError, match=f"{cache / TRAIN_LABELS}.*delete it"):
        find(SOURCE, None, Silent())


def test_without_xdg_cache_home_the_cache_is_in_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / ".cache" / "dpbench" / "tiny", arrays(6))
    assert fill_of(SOURCE, None) == 6


# --- downloads


class Listener(Silent):
    """Adds up what tasks advance by."""

    def __init__(self) -> None:
        self.megabytes = 0.0

    def advance(self, amount: float, note: str = "") -> None:
        self.megabytes += amount


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IdxSource]:
    folder = write(tmp_path / "mirror", arrays(9), gz=True)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(SimpleHTTPRequestHandler, "log_message", lambda *arguments: None)
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        md5 = {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in folder.iterdir()}
        yield replace(SOURCE, mirrors=(f"http://127.0.0.1:{server.server_port}/",), md5=md5)
        server.shutdown()
        thread.join()


def test_a_download_fills_the_cache_and_leaves_nothing_else(mirror: IdxSource, cache: Path) -> None:
    listener = Listener()
    found, where = find(mirror, None, listener)
    assert found[TRAIN_IMAGES][0, 0, 0] == 9
    assert "127.0.0.1" in where
    assert {file.name for file in cache.iterdir()} == {f"{name}.gz" for name in FILES}
    downloaded = sum(file.stat().st_size for file in cache.iterdir())
    assert listener.megabytes == pytest.approx(downloaded / 1e6)
    assert find(replace(mirror, mirrors=()), None, Silent())[1] == str(cache)


def test_an_incomplete_cache_is_filled_again(mirror: IdxSource, cache: Path) -> None:
    find(mirror, None, Silent())
    (cache / f"{TRAIN_LABELS}.gz").unlink()
    find(mirror, None, Silent())
    assert present(cache, TRAIN_LABELS) is not None


def test_a_download_with_the_wrong_md5_is_not_kept(mirror: IdxSource, cache: Path) -> None:
    wrong = dict.fromkeys(mirror.md5, "0" * 32)
    with pytest.raises(UserError, match="127.0.0.1:[0-9]+: .* has MD5 .* expected 000000000000"):
        find(replace(mirror, md5=wrong), None, Silent())
    assert list(cache.iterdir()) == []


def test_the_next_mirror_is_asked_where_one_has_no_such_file(mirror: IdxSource) -> None:
    two = (f"{mirror.mirrors[0]}nothing/", *mirror.mirrors)
    assert fill_of(replace(mirror, mirrors=two), None) == 9


def test_a_mirror_that_never_answers_is_left_quickly(
    mirror: IdxSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "ANSWER_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hanging = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        started = time.monotonic()
        assert fill_of(replace(mirror, mirrors=(hanging, *mirror.mirrors)), None) == 9
    assert time.monotonic() - started < 3


def test_a_name_that_takes_forever_to_resolve_is_left_quickly(
    mirror: IdxSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "ANSWER_SECONDS", 0.3)

    def resolve_slowly(*arguments: object, **options: object) -> None:
        time.sleep(2)
        raise socket.gaierror("no such name")

    monkeypatch.setattr(socket, "getaddrinfo", resolve_slowly)
    with pytest.raises(UserError, match="no answer within 0.3 s"):
        started = time.monotonic()
        find(mirror, None, Silent())
    assert time.monotonic() - started < 1.5


def test_a_trickling_mirror_is_given_up(mirror: IdxSource, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirrors, "FILE_SECONDS", 0.0)
    with pytest.raises(UserError, match="took more than 0 s"):
        find(mirror, None, Silent())


def test_a_data_root_that_is_no_folder_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--data-root names .*, which is no folder"):
        find(SOURCE, tmp_path / "nowhere", Silent())


def test_when_all_fails_one_line_names_every_source(tmp_path: Path, cache: Path) -> None:
    source = replace(
        SOURCE,
        mirrors=("http://127.0.0.1:9/", "http://nowhere.invalid/"),
        md5={"x": "0"},
        debian_folder=tmp_path / "system",
    )
    (tmp_path / "root").mkdir()
    with pytest.raises(UserError) as error:
        find(source, tmp_path / "root", Silent())
    message = str(error.value)
    assert "\n" not in message
    for part in (f"{tmp_path}/root", str(cache), f"{tmp_path}/system", "127.0.0.1:9", "nowhere"):
        assert part in message
    assert "--dataset digits" in message


def test_a_cache_that_cannot_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(UserError, match=f"mirror: .*{tmp_path / 'file'}"):
        find(replace(SOURCE, mirrors=("http://mirror/",)), None, Silent())


# --- the Debian package


@pytest.fixture
def debian_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IdxSource:
    """A source whose apt-get and dpkg-deb are scripts; the package unpacks to /opt/tiny."""
    write(tmp_path / "package", arrays(8), gz=True)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    script(tmp_path, "apt-get", 'case "$*" in *download*) touch tiny_1_all.deb;; esac')
    script(tmp_path, "dpkg-deb", f'mkdir -p "$3/opt"; cp -r {tmp_path / "package"} "$3/opt/tiny"')
    return replace(SOURCE, debian_package="tiny", debian_folder=Path("/opt/tiny"))


def script(tmp_path: Path, name: str, body: str) -> None:
    file = tmp_path / "bin" / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def test_a_debian_package_fills_the_cache(debian_source: IdxSource, cache: Path) -> None:
    assert fill_of(debian_source, None) == 8
    assert {file.name for file in cache.iterdir()} == {f"{name}.gz" for name in FILES}


def test_a_relative_cache_folder_does_for_apt(
    tmp_path: Path, debian_source: IdxSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    script(tmp_path, "apt-get", 'test -f "${2#--config-file=}" && touch tiny_1_all.deb')
    assert fill_of(debian_source, None) == 8


def test_one_failing_package_source_does_not_matter(
    tmp_path: Path, debian_source: IdxSource
) -> None:
    script(tmp_path, "apt-get", 'case "$*" in *update*) exit 100;; *) touch tiny_1_all.deb;; esac')
    assert fill_of(debian_source, None) == 8


def test_apt_tells_why_and_leaves_nothing_behind(
    tmp_path: Path, debian_source: IdxSource, cache: Path
) -> None:
    script(tmp_path, "apt-get", 'touch part.deb; echo "E: Unable to locate package"; exit 100')
    with pytest.raises(UserError, match="Debian package tiny: E: Unable to locate package"):
        find(debian_source, None, Silent())
    assert list(cache.iterdir()) == []


def test_a_hanging_apt_is_killed_with_its_children(
    tmp_path: Path, debian_source: IdxSource, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian, "UPDATE_SECONDS", 0.3)
    script(tmp_path, "apt-get", f"sleep 60 & echo $! > {tmp_path / 'child'}; wait")
    with pytest.raises(UserError, match="apt-get took more than 0.3 s"):
        find(debian_source, None, Silent())
    child = Path("/proc", (tmp_path / "child").read_text().strip(), "stat")
    assert not child.exists() or child.read_text().split()[2] == "Z"
    assert list(cache.iterdir()) == []


def test_a_package_with_other_contents_is_not_kept(debian_source: IdxSource, cache: Path) -> None:
    source = replace(debian_source, sha256=pinned(arrays(7)).sha256)
    with pytest.raises(UserError, match="Debian package tiny: .*train-images.*SHA-256"):
        find(source, None, Silent())
    assert list(cache.iterdir()) == []


def test_apt_checks_signatures_and_touches_no_folder_of_the_system(
    tmp_path: Path, debian_source: IdxSource, cache: Path
) -> None:
    body = f"cat ./apt.conf > {tmp_path}/seen; echo $* >> {tmp_path}/seen; exit 100"
    script(tmp_path, "apt-get", body)
    with pytest.raises(UserError):
        find(debian_source, None, Silent())
    seen = (tmp_path / "seen").read_text()
    assert "nauthenticated" not in seen and "nsecure" not in seen and "trusted" not in seen
    for folder in ("Dir::State ", "Dir::State::Lists ", "Dir::Cache "):
        assert f'{folder}"{cache}/' in seen


def test_a_machine_without_apt_is_told_of(
    debian_source: IdxSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="this machine has no apt-get"):
        find(debian_source, None, Silent())


# --- the real Fashion-MNIST


@pytest.mark.slow
@pytest.mark.usefixtures("real_environment")
def test_the_real_fashionmnist_has_the_pinned_hashes() -> None:
    try:
        dataset = load("fashionmnist", None, Silent(), holdout=5_000)
    except UserError as error:
        if "could not be had" not in str(error):
            raise
        pytest.skip(str(error))
    assert dataset.content_hash == (
        "a06d3266794aa0147787f49603795ec5e8a32fac55270d9b4ac38d415b342e8c"
    )
    assert dataset.splits.validation is not None
    held_out = dataset.splits.validation.labels.bincount()
    assert held_out.sum() == 5_000
    assert (held_out - 500).abs().max() < 4 * 20.3  # standard deviations, hypergeometric
    assert torch.equal(dataset.splits.train.labels.bincount(), 6_000 - held_out)


NOBODY = 65534


def _download_as(user: int, source: IdxSource) -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
    assert os.geteuid() != 0
    find(source, None, Silent())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="this machine has no apt-get")
def test_an_unprivileged_user_gets_fashionmnist_from_debian(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = replace(SOURCES["fashionmnist"], mirrors=())
    # an installed package would be found first
    monkeypatch.setattr(sources, "_places", lambda source, data_root: [])
    # not tmp_path: its parents are closed to other users
    with tempfile.TemporaryDirectory() as home:
        if os.geteuid() == 0:
            os.chown(home, NOBODY, NOBODY)
        monkeypatch.setenv("HOME", home)
        monkeypatch.setenv("XDG_CACHE_HOME", home)
        process = multiprocessing.get_context("fork").Process(
            target=_download_as, args=(NOBODY, source)
        )
        process.start()
        process.join(timeout=500)
        assert process.exitcode == 0
        kept = sorted(file.name for file in (Path(home) / "dpbench" / "fashionmnist").iterdir())
    assert kept == sorted(f"{name}.gz" for name in FILES)
