import errno
import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.calibration.errors import DataError
from deploy.calibration.voc import OFFICIAL, OFFICIAL_MD5, find_voc_root
from deploy.training.fetch_voc import fetch_voc

SPLIT = "VOCdevkit/VOC2012/ImageSets/Segmentation/train.txt"


def make_tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


ARCHIVE = make_tar({SPLIT: b"a\n", "VOCdevkit/VOC2012/JPEGImages/a.jpg": bytes(range(256)) * 500})


class Mirror(ThreadingHTTPServer):
    """Serves one file; ``cut_after`` breaks each connection after so many bytes."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.cut_after, self.ranges = ARCHIVE, None, True
        self.requests: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/VOCtrainval.tar"


class Handler(BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        mirror, wanted = self.server, self.headers.get("Range")
        mirror.requests.append(wanted)
        start, total = 0, len(mirror.content)
        if wanted is not None and mirror.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= total:
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(total - start))
        self.end_headers()
        stop = total if mirror.cut_after is None else start + mirror.cut_after
        self.wfile.write(mirror.content[start:stop])

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_fetch_downloads_checks_unpacks_and_cleans_up(mirror: Mirror, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    root = fetch_voc(
        tmp_path, url=mirror.url, md5=md5(ARCHIVE), progress=lambda *event: seen.append(event)
    )
    assert root == find_voc_root(tmp_path)
    assert (root / "JPEGImages" / "a.jpg").stat().st_size == 128_000
    assert [p.name for p in tmp_path.iterdir()] == ["VOCdevkit"]
    assert list(dict.fromkeys(stage for stage, _, _ in seen)) == ["download", "check", "unpack"]
    assert ("download", len(ARCHIVE), len(ARCHIVE)) in seen


def test_fetch_twice_asks_the_server_once(mirror: Mirror, tmp_path: Path) -> None:
    for _ in range(2):
        fetch_voc(tmp_path, url=mirror.url, md5=md5(ARCHIVE))
    assert len(mirror.requests) == 1


def test_fetch_interrupted_goes_on_from_where_it_stopped(mirror: Mirror, tmp_path: Path) -> None:
    mirror.cut_after = 50_000
    with pytest.raises(DataError, match=f"broke off after 50000 of {len(ARCHIVE)} bytes"):
        fetch_voc(tmp_path, url=mirror.url, md5=md5(ARCHIVE))
    assert [p.name for p in tmp_path.iterdir()] == ["VOCtrainval.tar.part"]
    mirror.cut_after = None
    fetch_voc(tmp_path, url=mirror.url, md5=md5(ARCHIVE))
    assert mirror.requests == [None, "bytes=50000-"]


def test_fetch_from_a_server_without_ranges_starts_again(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "VOCtrainval.tar.part").write_bytes(b"x" * 1000)
    mirror.ranges = False
    assert fetch_voc(tmp_path, url=mirror.url, md5=md5(ARCHIVE)).is_dir()


def test_fetch_of_a_complete_part_needs_no_more_bytes(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "VOCtrainval.tar.part").write_bytes(ARCHIVE)
    assert fetch_voc(tmp_path, url=mirror.url, md5=md5(ARCHIVE)).is_dir()


def test_fetch_with_a_wrong_checksum_leaves_nothing(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"MD5 {md5(ARCHIVE)}, not {'0' * 32}"):
        fetch_voc(tmp_path, url=mirror.url, md5="0" * 32)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../outside.txt", "VOCdevkit/../../outside.txt", "/outside.txt"])
def test_fetch_refuses_to_write_outside(mirror: Mirror, tmp_path: Path, name: str) -> None:
    mirror.content = make_tar({SPLIT: b"a\n", name: b"evil"})
    inside = tmp_path / "deep" / "data"
    if name.startswith(
        "/"
    ):  # the filter strips the root: it lands inside the folder that is removed
        root = fetch_voc(inside, url=mirror.url, md5=md5(mirror.content))
        assert root.is_dir()
    else:
        with pytest.raises(DataError, match=r"is refused: .* outside the destination"):
            fetch_voc(inside, url=mirror.url, md5=md5(mirror.content))
        assert [p.name for p in inside.iterdir()] == ["VOCtrainval.tar"]
    assert not list(tmp_path.rglob("outside.txt"))
    assert not Path("/outside.txt").exists()


def test_fetch_of_another_archive_is_refused(mirror: Mirror, tmp_path: Path) -> None:
    mirror.content = make_tar({"README": b"hello"})
    with pytest.raises(DataError, match="holds no VOCdevkit"):
        fetch_voc(tmp_path, url=mirror.url, md5=md5(mirror.content))
    mirror.content = b"no tar" * 1000
    (tmp_path / "VOCtrainval.tar").unlink()
    with pytest.raises(DataError, match="no readable tar archive"):
        fetch_voc(tmp_path, url=mirror.url, md5=md5(mirror.content))


@pytest.mark.parametrize("stage", ["download", "unpack"])
def test_fetch_onto_a_full_disk_says_so_and_leaves_no_final_names(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def fill(at: str, _done: int, _total: int) -> None:
        if at == stage:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(DataError, match="the disk is full: make room for 4 GB"):
        fetch_voc(tmp_path, url=mirror.url, md5=md5(ARCHIVE), progress=fill)
    expected = {"download": "VOCtrainval.tar.part", "unpack": "VOCtrainval.tar"}
    assert [p.name for p in tmp_path.iterdir()] == [expected[stage]]
    fetch_voc(tmp_path, url=mirror.url, md5=md5(ARCHIVE))  # and it goes on
    assert [p.name for p in tmp_path.iterdir()] == ["VOCdevkit"]


def test_fetch_from_an_address_that_does_not_answer(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"404.*cannot be read|cannot be read \(.*\): try again"):
        fetch_voc(tmp_path, url="http://127.0.0.1:9/voc.tar")
    with pytest.raises(DataError, match="is no http or https address"):
        fetch_voc(tmp_path, url="ftp://127.0.0.1/voc.tar")


def test_official_address_and_checksum_are_the_published_ones() -> None:
    assert OFFICIAL.endswith("/voc2012/VOCtrainval_11-May-2012.tar")
    assert OFFICIAL_MD5 == "6cd6e144f989b92b3379bac3b3de84fd"
