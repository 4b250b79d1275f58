"""Where toolchains are: in the user's cache folder, one folder each, downloads beside them."""

import os
from pathlib import Path

INSTALLED = "toolchain.json"  # in a whole one: what it was made from


def cache_folder() -> Path:
    """Return deploy's folder in the user's cache (XDG base directory specification)."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    root = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"
    return root / "refinenet-deploy"


def toolchains_folder() -> Path:
    """Return the folder that holds one folder for each toolchain that is installed."""
    return cache_folder() / "toolchains"


def downloads_folder() -> Path:
    """Return where packages stay: an installation that was broken off goes on from there."""
    return cache_folder() / "downloads"
