"""VOC2012 from its official address: downloaded, checked, unpacked; interrupted, it goes on."""

import errno
import hashlib
import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO

from deploy.calibration.errors import DataError
from deploy.calibration.voc import OFFICIAL, OFFICIAL_MD5

LAYOUT = Path("VOCdevkit") / "VOC2012"

CHUNK = 1 << 20  # bytes
TIMEOUT = 60.0  # seconds without a byte

Progress = Callable[[str, int, int], None]  # "download", "check" or "unpack"; bytes done, of


def fetch_voc(
    directory: Path,
    *,
    url: str = OFFICIAL,
    md5: str = OFFICIAL_MD5,
    progress: Progress | None = None,
) -> Path:
    """Put VOC2012 into ``directory/VOCdevkit/VOC2012``, if it is not there yet.

    The archive is downloaded under ``.part`` (a later call goes on where one stopped), has its MD5
    checked, is unpacked beside the destination, moved there whole, and removed.

    Returns:
        The VOC2012 folder.

    Raises:
        DataError: the address cannot be read, the connection broke, the checksum differs, the
            archive is damaged, would write outside or is no VOC2012, or the disk is full.
    """
    report = progress or (lambda stage, done, total: None)
    root = directory / LAYOUT
    if (root / "ImageSets" / "Segmentation").is_dir():
        return root
    if root.exists():
        raise DataError(f"{root} exists but is no whole VOC2012: remove it and try again")
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise DataError(f"{url} is no http or https address: pass --url of a mirror")
    archive = directory / (Path(urllib.parse.urlsplit(url).path).name or "voc.tar")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not archive.is_file():
            _download(url, md5, archive, report)
        elif _md5(archive, report) != md5:
            raise DataError(f"{archive} has not the MD5 {md5}: remove it and try again")
        _unpack(archive, directory, report)
        archive.unlink()
    except OSError as error:
        raise DataError(_disk_problem(directory, error)) from None
    return root


def _disk_problem(directory: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return (
            f"{directory}: the disk is full: make room for 4 GB (2 for the archive, 2 for what is "
            "in it) and try again; what was downloaded is kept"
        )
    return f"{directory} cannot be written ({error.strerror or error}): choose another folder"


def _download(url: str, md5: str, archive: Path, report: Progress) -> None:
    """Download to ``archive``, which appears only whole and checked."""
    part = archive.with_name(archive.name + ".part")
    try:
        _append_rest(url, part, report)
    except (
        urllib.error.URLError,
        http.client.HTTPException,
        TimeoutError,
        ConnectionError,
    ) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise DataError(
            f"{url} cannot be read ({reason}): try again to go on from "
            f"{_size(part)} bytes, or pass --url of a mirror"
        ) from None
    found = _md5(part, report)
    if found != md5:
        part.unlink()
        raise DataError(
            f"{url} has MD5 {found}, not {md5}: the download was removed; try again, or pass --url "
            "of another mirror"
        )
    part.rename(archive)


def _append_rest(url: str, part: Path, report: Progress) -> None:
    """Download what ``part`` lacks; raises DataError where the connection ends too early."""
    start = _size(part)
    request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
            return  # nothing is left to download; the checksum decides
        raise
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0  # the server sends everything again
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise DataError(
                f"{url} answered with {response.headers.get('Content-Range')!r} where bytes from "
                f"{start} were asked for: remove {part} and try again"
            )
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else 0
        with part.open("r+b" if start else "wb") as file:
            file.seek(start)
            done = start
            while chunk := response.read(CHUNK):
                file.write(chunk)
                done += len(chunk)
                report("download", done, total)
    if done < total:
        raise DataError(
            f"{url} broke off after {done} of {total} bytes: try again to go on from there"
        )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _md5(path: Path, report: Progress) -> str:
    digest, done, total = hashlib.md5(usedforsecurity=False), 0, _size(path)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            report("check", done, total)
    return digest.hexdigest()


def _unpack(archive: Path, directory: Path, report: Progress) -> None:
    """Unpack into a folder of its own and move VOC2012 to its place, whole or not at all."""
    partial = directory / f".{archive.name}.unpacked-{os.getpid()}"
    try:
        with archive.open("rb") as file:
            _extract(file, archive, partial, report)
        unpacked = partial / LAYOUT
        if not (unpacked / "ImageSets" / "Segmentation").is_dir():
            raise DataError(
                f"{archive} holds no {LAYOUT}/ImageSets/Segmentation: it is not VOC2012's "
                "training and validation data; remove it"
            )
        (directory / LAYOUT).parent.mkdir(exist_ok=True)
        unpacked.rename(directory / LAYOUT)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _extract(file: IO[bytes], archive: Path, target: Path, report: Progress) -> None:
    total = _size(archive)
    try:
        with tarfile.open(fileobj=file) as tar:
            for member in tar:
                # the filter refuses absolute paths, "..", links that lead outside, and devices
                tar.extract(member, target, filter="data")
                report("unpack", file.tell(), total)
    except tarfile.FilterError as error:
        raise DataError(
            f"{archive} is refused: {error}; remove it and take the archive from {OFFICIAL}"
        ) from None
    except (tarfile.TarError, EOFError) as error:
        raise DataError(f"{archive} is no readable tar archive ({error}): remove it") from None
