"""Whose results a folder holds: files of one name, from two places, must not take each other's."""

from collections.abc import Sequence
from pathlib import Path

from deploy.errors import DeployError
from deploy.models.variants import VARIANTS
from deploy.store.artifacts import Network
from deploy.store.files import write_whole

SOURCE = "source.txt"  # beside the results of a user's ONNX file: its path


def claim(target: Network) -> None:
    """Note in a folder that it is this file's; a variant's folder is named after it.

    Whether it is free for that is asked before work begins: :func:`refuse_foreign`.
    """
    if target.given is not None:
        write_whole(target.folder / SOURCE, f"{target.given.resolve()}\n")


def refuse_one_folder_for_two(targets: Sequence[Network]) -> None:
    """Refuse targets of which two would have their results in one folder; raises DeployError."""
    first: dict[Path, Network] = {}
    for target in targets:
        other = first.setdefault(target.folder, target)
        if other is not target:
            raise DeployError(
                f"{other.name} and {target.name} would both have their results in {target.folder}: "
                "rename one, or quantize them with an --out of its own each"
            )


def refuse_foreign(target: Network) -> None:
    """Refuse a user's ONNX file whose folder is that of a variant, or of another file.

    A file that is no longer there has lost its claim.

    Raises:
        DeployError: it is so.
    """
    if target.given is None:
        return
    if target.folder.name in VARIANTS:
        raise DeployError(
            f"{target.given} has the name of a variant, whose results are in {target.folder}: "
            "rename the file"
        )
    note = target.folder / SOURCE
    if not note.is_file():
        return
    other = note.read_text(encoding="utf-8", errors="replace").strip()
    if other != str(target.given.resolve()) and Path(other).is_file():
        raise DeployError(
            f"{target.folder} holds the results of {other}: rename {target.given}, or pass another "
            "--out"
        )
