"""Results on disk: whole lines count, others do not."""

from pathlib import Path

import pytest

from deploy.cluster.journal import FOLDER, Journal
from deploy.errors import ClusterError


def read(journal: Journal) -> dict[str, bytes]:
    found = dict(journal.read())
    journal.close()
    return found


def test_results_outlive_the_run(tmp_path: Path) -> None:
    first = Journal(tmp_path, "job")
    first.write("one", b"1\n\x00 ")
    first.write("two", b"")
    first.close()
    again = Journal(tmp_path, "job")
    assert dict(again.read()) == {"one": b"1\n\x00 ", "two": b""}
    again.write("three", b"3")
    assert len(dict(again.read())) == 3
    again.close()
    assert read(Journal(tmp_path, "other")) == {}


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_cut_off_at_any_byte(tmp_path: Path, cut: int) -> None:
    journal = Journal(tmp_path, "job")
    journal.write("one", b"1")
    whole = journal.path.stat().st_size
    journal.write("two", b"2" * 30)
    journal.close()
    journal.path.write_bytes(journal.path.read_bytes()[: whole + cut])
    again = Journal(tmp_path, "job")
    assert dict(again.read()) == {"one": b"1"}
    again.write("two", b"3")
    assert read(again) == {"one": b"1", "two": b"3"}


def test_changed_results_do_not_count(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "job")
    journal.write("one", b"1")
    journal.close()
    content = journal.path.read_bytes()
    for bad in (content.replace(b"one", b"two"), content.replace(b"MQ==", b"Mg=="), b"\xff \n" * 3):
        journal.path.write_bytes(bad)
        assert read(Journal(tmp_path, "job")) == {}


def test_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file")
    with pytest.raises(ClusterError, match=r"job\.results cannot be written"):
        Journal(tmp_path, "job")
