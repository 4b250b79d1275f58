"""README.md of a bundle: what it is, how to start and to check it, what it scored."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.bundle.contents import Contents
from deploy.calibration.record import file_sha256
from deploy.graph.metadata import read_metadata
from deploy.report.figures import data_set, is_drawn, percent
from deploy.targets.accelerator import Part
from deploy.targets.render import render

MEANINGS = {
    "logits": "one value a class at a quarter of the size: resize (bilinear, half-pixel centres), "
    "then take the largest",
    "upsampled": "one value a class and pixel, the largest is the label",
    "labels": "the index of the class in labels.txt, from 0",
}


def readme(
    contents: Contents,
    toolchain: str,
    description: Mapping[str, Any],
    part: Part,
    results: Sequence[Mapping[str, Any]],
) -> str:
    """Return the text.

    Args:
        contents: of the bundle.
        toolchain: its full name.
        description: model.json.
        part: what the toolchain adds.
        results: what was measured, that in the accelerator's own arithmetic first.
    """
    weights = read_metadata(contents.plain).get("weights", "parameters of unknown origin")
    return render(
        "deploy.bundle",
        "README.md.j2",
        model=description,
        toolchain=toolchain,
        classes=len(contents.classes),
        file=contents.path.name,
        weights="random parameters" if weights == "random" else f"parameters: {weights}",
        embedded=contents.interface.embed_preprocessing,
        meaning=MEANINGS[description["output"]["head"]],
        part=part,
        accuracy=_accuracy(contents.path, weights, results),
    )


def _accuracy(path: Path, weights: str, measured: Sequence[Mapping[str, Any]]) -> str:
    """Say what validation measured of this very file."""
    if weights == "random":
        return "none, its parameters are random."
    sha256 = file_sha256(path)
    found = [
        (results, scores)
        for results in measured
        if (scores := results["results"].get(path.stem)) and scores["sha256"] == sha256
    ]
    if not found:
        return "not measured; `deploy validate` does it."
    results, scores = found[0]
    data = results["dataset"]
    torch = results["results"].get("torch", {}).get("miou")
    soc = f" ({results['soc']}, emulated)" if results["soc"] else ""
    drawn = " Drawn scenes: the figure compares graphs with each other only." * is_drawn(data)
    return (
        f"mIoU {percent(scores['miou'])}% (torch {percent(torch)}%), "
        f"{percent(scores['agreement'])}% of the labels as torch's; {data_set(data)}, protocol "
        f"{data['protocol']}, in {results['runtime']}{soc}, "
        f"{results['environment']['date']}.{drawn}"
    )
