"""What validation keeps of a variant for the report: ``validation.json`` and its pictures."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deploy.errors import ReportError
from deploy.store.artifacts import SCHEMA, Network
from deploy.store.files import write_folder_whole, write_whole
from deploy.store.reuse import read_sealed_json
from deploy.validate.stored_results import ELSEWHERE, VALIDATION, find_problem


def write_results(
    network: Network, path: Path, result: Mapping[str, Any], pictures: Mapping[str, bytes]
) -> None:
    """Write a variant's results to ``path``, then the pictures that they name.

    Results whose pictures are missing or others count as none: see :func:`read_kept`.

    Raises:
        DeployError: a file cannot be written.
    """
    write_whole(path, json.dumps(result, indent=1) + "\n")
    if pictures:
        write_folder_whole(network.examples, pictures)
    elif path == network.validation and network.examples.is_dir():  # of an earlier validation
        shutil.rmtree(network.examples, ignore_errors=True)


def read_kept(network: Network, path: Path, key: str) -> dict[str, Any] | None:
    """Return the results in ``path`` if they bear the seal of ``key`` and have their pictures."""
    result = read_sealed_json(path, key)
    if result is None:
        return None
    try:
        read_pictures(network, result)
    except ReportError:
        return None
    return result


def read_results(network: Network, path: Path | None = None) -> dict[str, Any]:
    """Read a variant's validation results, by default those in the default runtime.

    Raises:
        ReportError: they are missing or unreadable.
    """
    path = path or network.validation
    remedy = f"run 'deploy validate {network.name}'"
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ReportError(f"no validation results at {path}: {remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise ReportError(f"{path} cannot be read ({error}): {remedy} again") from None
    if isinstance(content, dict) and "schema" in content and content["schema"] != SCHEMA:
        raise ReportError(
            f"{path} has schema {content['schema']}, but this version reads {SCHEMA}: {remedy} "
            "again"
        )
    form = VALIDATION if path == network.validation else ELSEWHERE
    if problem := find_problem(content, form):
        raise ReportError(f"{path} {problem}: {remedy} again")
    if content["name"] != network.name:
        raise ReportError(f"{path} holds the results of {content['name']!r}: {remedy} again")
    return dict(content)


def read_pictures(network: Network, result: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the pictures of a variant's examples by file name, as its results know them.

    Raises:
        ReportError: one is missing, cannot be read, or is of another validation.
    """
    images = (result.get("examples") or {}).get("images", [])
    pictures = {}
    for picture in (picture for image in images for picture in image["pictures"].values()):
        path = network.examples / picture["file"]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ReportError(
                f"{path} cannot be read ({error.strerror or error}): run 'deploy validate "
                f"{network.name}' again"
            ) from None
        if hashlib.sha256(content).hexdigest() != picture["sha256"]:
            raise ReportError(
                f"{path} is not the picture that {network.validation} names: run 'deploy validate "
                f"{network.name}' again"
            )
        pictures[picture["file"]] = content
    return pictures
