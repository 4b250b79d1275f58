"""README.md of a bundle: what it is, how to start and to check it, what it scored."""

from collections.abc import Mapping, Sequence
from typing import Any

from deploy.bundle.contents import Contents
from deploy.calibration.record import file_sha256
from deploy.graph.metadata import CARRIER, FLOAT_FILE, read_metadata
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
        made=_made(contents, toolchain),
        weights="random parameters" if weights == "random" else f"parameters: {weights}",
        embedded=contents.interface.embed_preprocessing,
        meaning=MEANINGS[description["output"]["head"]],
        part=part,
        accuracy=_accuracy(contents, toolchain, results),
    )


def _made(contents: Contents, toolchain: str) -> str:
    """Say what the graph is: in the bundle's precision, or what a toolchain makes that of."""
    file, precision = contents.path.name, contents.precision.upper()
    if FLOAT_FILE not in read_metadata(contents.plain):
        return f"{precision}, made by deploy from `{file}`"
    return f"`{file}`, a float graph made by deploy, of which {toolchain} makes {precision}"


def _accuracy(contents: Contents, toolchain: str, measured: Sequence[Mapping[str, Any]]) -> str:
    """Say what validation measured, and of which graph: a figure is of the very file it names."""
    path, metadata = contents.path, read_metadata(contents.plain)
    if metadata.get("weights") == "random":
        return "none, its parameters are random."
    if FLOAT_FILE not in metadata:
        figures = _figures(path.stem, file_sha256(path), measured)
        return figures or "not measured; `deploy validate` does it."
    figures = _figures("fp32", metadata[FLOAT_FILE], measured)
    made = f"What {toolchain} makes of it in {contents.precision.upper()} was not measured."
    if CARRIER in metadata:
        made = (
            f"This graph is its carrier: weights rounded and biases corrected for 8 bits, recipe "
            f"{metadata[CARRIER]}. Neither it nor what {toolchain} makes of it was measured."
        )
    if figures is None:
        return f"not measured; `deploy validate` measures the float graph. {made}"
    same = "" if CARRIER in metadata else ", whose numbers this one gives bit for bit"
    return f"of the float graph{same}: {figures} {made}"


def _figures(name: str, sha256: str, measured: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the figures of a graph's file, or None where that file was not measured."""
    found = [
        (results, scores)
        for results in measured
        if (scores := results["results"].get(name)) and scores["sha256"] == sha256
    ]
    if not found:
        return None
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
