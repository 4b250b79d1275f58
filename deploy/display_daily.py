"""What ``predict``, ``inspect`` and ``bench`` print: text for a person, JSON for a program."""

import json
from dataclasses import asdict
from typing import Any

from deploy.predict import Predictions, show_share


def _json(value: Any) -> None:
    print(json.dumps(value, indent=1, default=str))


def predicted(result: Predictions, *, as_json: bool) -> None:
    """Print the classes of each image with their shares of its area, and where the results are."""
    if as_json:
        return _json(asdict(result))
    source = f", weights: {result.weights}" if result.weights else ""
    height, width = result.input_size
    print(f"{result.model}{source}, input {height}x{width}, fit {result.fit}\n")
    for found in result.images:
        shares = ", ".join(f"{name} {show_share(share)}" for name, share in found.shares.items())
        print(f"{found.image}  {found.size[1]}x{found.size[0]}  {shares}")
        print(f"  {found.mask}  {found.overlay}")
    if result.weights == "random":
        print("\nrandom: seeded random parameters, which predict nothing; pass --weights")
    return None
