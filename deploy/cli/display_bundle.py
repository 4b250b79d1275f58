"""A bundle on standard output."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deploy.bundle.build import Bundle


def bundled(result: Bundle, *, as_json: bool) -> None:
    """Print what is in a bundle and how to check it."""
    if as_json:
        return print(json.dumps(asdict(result), indent=1, default=str))
    print(f"{result.path}  ({result.size_bytes / 1e6:.1f} MB)")
    shown = [name for name in result.files if not name.startswith("images/")]
    for name in shown:
        print(f"  {name}")
    if images := len(result.files) - len(shown):
        print(f"  images/ ({images} files)")
    if result.note:
        print(f"note: {result.note}")
    return print(f"check: cd {result.path} && sha256sum -c SHA256SUMS && {result.check}")
