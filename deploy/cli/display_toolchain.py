"""What ``toolchain`` prints: text for a person, JSON for a program."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from deploy.cli.display import print_json

if TYPE_CHECKING:
    from pathlib import Path

    from deploy.toolchains.check import Checked
    from deploy.toolchains.record import Toolchain


def listed(records: Sequence[tuple[Toolchain, str]], *, as_json: bool) -> None:
    """Print each toolchain, and whether it is installed."""
    if as_json:
        return print_json([_described(record) | {"state": state} for record, state in records])
    for record, state in records:
        print(f"{record.name}: {state}")
        for line in announcement(record):
            print(f"  {line}")
    return None


def announcement(record: Toolchain) -> Iterator[str]:
    """Yield what a person should know before a toolchain is installed."""
    yield record.title
    yield f"for {record.serves}"
    yield f"licences: {record.licence}"
    if record.accept:
        yield f"{record.accept}: to be accepted with --accept-licence"
    yield f"{record.download_mb} MB to download, {record.installed_mb} MB installed"


def installed(record: Toolchain, folder: Path, size_bytes: int, *, as_json: bool) -> None:
    """Print where a toolchain is."""
    if as_json:
        found = {"folder": str(folder), "size_bytes": size_bytes}
        return print_json(_described(record) | found)
    print(f"{folder}  ({size_bytes / 1e6:.0f} MB)")
    return print(f"check: deploy toolchain check {record.name}")


def checked(found: Checked, *, as_json: bool) -> None:
    """Print what ran, and how far it is from onnxruntime."""
    if as_json:
        return print_json(asdict(found))
    versions = ", ".join(f"{name} {version}" for name, version in found.versions.items())
    print(f"{found.name} works: {versions}")
    return print(
        f"a tiny network's result differs from onnxruntime's by {found.difference:.2g} of its range"
    )


def removed(name: str, freed_bytes: int, *, as_json: bool) -> None:
    """Print what that freed."""
    if as_json:
        return print_json({"name": name, "freed_bytes": freed_bytes})
    return print(f"{name} is removed, {freed_bytes / 1e6:.0f} MB are free")


def _described(record: Toolchain) -> dict[str, object]:
    keys = ("name", "title", "serves", "licence", "accept", "download_mb", "installed_mb")
    return {key: getattr(record, key) for key in keys}
