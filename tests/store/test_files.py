import errno
import os
import stat
from pathlib import Path

import pytest

from deploy.errors import DeployError
from deploy.store.files import write_folder_whole, write_whole


def test_write_whole_makes_folders_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    write_whole(path, "one")
    write_whole(path, b"two")
    assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["b.json"]


def test_write_whole_honours_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o027)
    try:
        write_whole(tmp_path / "file", "x")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_write_whole_on_a_full_disk_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_whole(path, "old")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DeployError, match=r"file cannot be written: No space left"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_write_whole_where_a_file_is_the_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeployError, match="cannot be written"):
        write_whole(tmp_path / "file" / "inner", "x")


def test_write_folder_whole_failure_leaves_what_was_there(tmp_path: Path) -> None:
    write_folder_whole(tmp_path / "folder", {"a": b"1", "b/c": "text"})
    assert (tmp_path / "folder" / "b" / "c").read_text() == "text"
    with pytest.raises(DeployError, match="cannot be written"):
        write_folder_whole(tmp_path / "folder", {"a": b"2", "a/b": b"no folder"})
    assert (tmp_path / "folder" / "a").read_bytes() == b"1"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_write_folder_whole_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").write_bytes(b"mine")
    with pytest.raises(DeployError, match="a file of that name"):
        write_folder_whole(tmp_path / "folder", {"a": b"1"})
    assert (tmp_path / "folder").read_bytes() == b"mine"


def test_write_folder_whole_stopped_between_its_renames_restores_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "folder"
    write_folder_whole(folder, {"a": b"1"})
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_folder_whole(folder, {"a": b"2"})
    assert (folder / "a").read_bytes() == b"1"
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]
