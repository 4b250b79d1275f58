"""Whose results a folder holds: files of one name, from two places, must not take each other's."""

from collections.abc import Sequence
from pathlib import Path

from deploy.errors import DeployError
from deploy.models.variants import VARIANTS
from deploy.store.artifacts import Network
from deploy.store.files import write_whole

SOURCE = "source.txt"  # beside the results of a user's ONNX file: its path


def claim(network: Network) -> None:
    """Note in a folder that it is this file's; a variant's folder is named after it.

    Whether it is free for that is asked before work begins: :func:`refuse_foreign`.
    """
    if network.given is not None:
        write_whole(network.folder / SOURCE, f"{network.given.resolve()}\n")


def refuse_one_folder_for_two(targets: Sequence[Network]) -> None:
    """Refuse targets of which two would have their results in one folder; raises DeployError."""
    first: dict[Path, Network] = {}
    for network in targets:
        other = first.setdefault(network.folder, network)
        if other is not network:
            raise DeployError(
                f"{other.name} and {network.name} would both have their results in "
                f"{network.folder}: rename one, or quantize them with an --out of its own each"
            )


def refuse_foreign(network: Network) -> None:
    """Refuse a user's ONNX file whose folder is that of a variant, or of another file.

    A file that is no longer there has lost its claim.

    Raises:
        DeployError: it is so.
    """
    if network.given is None:
        return
    if network.folder.name in VARIANTS:
        raise DeployError(
            f"{network.given} has the name of a variant, whose results are in {network.folder}: "
            "rename the file"
        )
    note = network.folder / SOURCE
    if not note.is_file():
        return
    other = note.read_text(encoding="utf-8", errors="replace").strip()
    if other != str(network.given.resolve()) and Path(other).is_file():
        raise DeployError(
            f"{network.folder} holds the results of {other}: rename {network.given}, or pass "
            "another --out"
        )
