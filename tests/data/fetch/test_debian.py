from __future__ import annotations

import multiprocessing
import os
import shutil
import stat
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from dpbench.core.errors import UserError
from dpbench.core.progress import Silent
from dpbench.data.fetch import debian
from dpbench.data.sets import mnist
from dpbench.data.sets.mnist import FILES, IDX_SETS, IdxSet, find
from tests.support.idx import (
    TINY_SET,
    fill_of,
    pinned,
    tiny_arrays,
    write_idx,
)


@pytest.fixture
def debian_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> IdxSet:
    """A source whose apt-get and dpkg-deb are scripts; the package unpacks to /opt/tiny."""
    write_idx(tmp_path / "package", tiny_arrays(8), gz=True)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    script(tmp_path, "apt-get", 'case "$*" in *download*) touch tiny_1_all.deb;; esac')
    script(tmp_path, "dpkg-deb", f'mkdir -p "$3/opt"; cp -r {tmp_path / "package"} "$3/opt/tiny"')
    return replace(TINY_SET, debian_package="tiny", debian_folder=Path("/opt/tiny"))


def script(tmp_path: Path, name: str, body: str) -> None:
    file = tmp_path / "bin" / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def test_a_debian_package_fills_the_cache(debian_set: IdxSet, tiny_cache: Path) -> None:
    assert fill_of(debian_set, None) == 8
    assert {file.name for file in tiny_cache.iterdir()} == {f"{name}.gz" for name in FILES}


def test_a_relative_cache_folder_does_for_apt(
    tmp_path: Path, debian_set: IdxSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    script(tmp_path, "apt-get", 'test -f "${2#--config-file=}" && touch tiny_1_all.deb')
    assert fill_of(debian_set, None) == 8


def test_one_failing_package_source_does_not_matter(tmp_path: Path, debian_set: IdxSet) -> None:
    script(tmp_path, "apt-get", 'case "$*" in *update*) exit 100;; *) touch tiny_1_all.deb;; esac')
    assert fill_of(debian_set, None) == 8


def test_apt_tells_why_and_leaves_nothing_behind(
    tmp_path: Path, debian_set: IdxSet, tiny_cache: Path
) -> None:
    script(tmp_path, "apt-get", 'touch part.deb; echo "E: Unable to locate package"; exit 100')
    with pytest.raises(UserError, match="Debian package tiny: E: Unable to locate package"):
        find(debian_set, None, Silent())
    assert list(tiny_cache.iterdir()) == []


def test_a_hanging_apt_is_killed_with_its_children(
    tmp_path: Path, debian_set: IdxSet, tiny_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(debian, "UPDATE_SECONDS", 0.3)
    script(tmp_path, "apt-get", f"sleep 60 & echo $! > {tmp_path / 'child'}; wait")
    with pytest.raises(UserError, match="apt-get took more than 0.3 s"):
        find(debian_set, None, Silent())
    child = Path("/proc", (tmp_path / "child").read_text().strip(), "stat")
    assert not child.exists() or child.read_text().split()[2] == "Z"
    assert list(tiny_cache.iterdir()) == []


def test_a_package_with_other_contents_is_not_kept(debian_set: IdxSet, tiny_cache: Path) -> None:
    source = replace(debian_set, sha256=pinned(tiny_arrays(7)).sha256)
    with pytest.raises(UserError, match="Debian package tiny: .*train-images.*SHA-256"):
        find(source, None, Silent())
    assert list(tiny_cache.iterdir()) == []


def test_apt_checks_signatures_and_touches_no_folder_of_the_system(
    tmp_path: Path, debian_set: IdxSet, tiny_cache: Path
) -> None:
    body = f"cat ./apt.conf > {tmp_path}/seen; echo $* >> {tmp_path}/seen; exit 100"
    script(tmp_path, "apt-get", body)
    with pytest.raises(UserError):
        find(debian_set, None, Silent())
    seen = (tmp_path / "seen").read_text()
    assert "nauthenticated" not in seen and "nsecure" not in seen and "trusted" not in seen
    for folder in ("Dir::State ", "Dir::State::Lists ", "Dir::Cache "):
        assert f'{folder}"{tiny_cache}/' in seen


def test_a_machine_without_apt_is_told_of(
    debian_set: IdxSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UserError, match="this machine has no apt-get"):
        find(debian_set, None, Silent())


NOBODY = 65534


def _download_as(user: int, source: IdxSet) -> None:
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
    source = replace(IDX_SETS["fashionmnist"], mirrors=())
    # an installed package would be found first
    monkeypatch.setattr(mnist, "_places", lambda source, data_root: [])
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
