"""Where parameters come from."""

import os
from dataclasses import dataclass
from pathlib import Path

from deploy.models.errors import ModelError
from deploy.models.variants import find_variant

SHIPPED = Path(__file__).resolve().parent / "weights"


@dataclass(frozen=True, kw_only=True)
class WeightsSource:
    """Where a variant's parameters come from.

    ``kind`` is "file" (given by the user), "cache" (torch's), "repository", or "random".
    """

    kind: str
    path: Path | None = None
    stored_as: str | None = None  # where it is not float32, to which it is converted

    @property
    def trained(self) -> bool:
        """Whether an accuracy measured with these parameters means anything."""
        return self.kind != "random"

    def __str__(self) -> str:
        """Return kind and file name, without the folder: graphs carry it to other machines."""
        name = self.kind if self.path is None else f"{self.kind} {self.path.name}"
        return f"{name} (stored as {self.stored_as})" if self.stored_as else name


def find_weights(variant_id: str, weights: Path | None = None) -> WeightsSource:
    """Return where the parameters of ``variant_id`` are.

    The first that exists of: ``weights``; the reference file in torch's cache
    (``$TORCH_HOME/models``, by default ``~/.torch/models``); the file that ships with the
    repository; else seeded random ones.

    Raises:
        ModelError: the variant is unknown, or ``weights`` is given and is no file.
    """
    variant = find_variant(variant_id)
    if weights is not None:
        if not weights.is_file():
            raise ModelError(f"no checkpoint at {weights}: pass the path of an existing file")
        return WeightsSource(kind="file", path=weights)
    torch_home = Path(os.environ.get("TORCH_HOME") or Path.home() / ".torch")
    if variant.upstream_file is not None:
        cached = torch_home / "models" / variant.upstream_file
        if cached.is_file():
            return WeightsSource(kind="cache", path=cached)
    shipped = SHIPPED / f"{variant_id}.safetensors"
    if shipped.is_file():
        return WeightsSource(kind="repository", path=shipped)
    return WeightsSource(kind="random")
