"""``python -m deploy.bench``: measure, print tables, write bench.json and bench.md."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

import deploy
from deploy.bench import table
from deploy.bench.measure import Row, Settings, measure_quantizers, measure_stages
from deploy.calibration import DataError, Fit, find_voc_root
from deploy.calibration.voc import name_data_set
from deploy.cli import display
from deploy.errors import USER_ERRORS
from deploy.progress import ConsoleProgress
from deploy.quantize.calibration_source import CalibrationSource
from deploy.store.artifacts import DEFAULT_OUT
from deploy.store.environment import describe_environment
from deploy.store.files import write_whole


def bench(
    variants: Annotated[list[str] | None, typer.Argument(help="by default rf-lw-mbv2")] = None,
    images: Annotated[int, typer.Option(help="that calibrate")] = 24,
    kept_images: Annotated[
        int, typer.Option(help="that calibrate where every activation is kept in memory")
    ] = 8,
    limit: Annotated[int, typer.Option(help="images of val that evaluate")] = 100,
    rounds: Annotated[int, typer.Option(min=1)] = 1,
    fit: Annotated[Fit, typer.Option(help="how images become inputs")] = Fit.CROP,
    out: Path = DEFAULT_OUT,
) -> None:
    """Measure what quantization costs and gives, ours and others', all in one run."""
    if min(images, kept_images, limit) < 1:
        raise DataError("--images, --kept-images and --limit must be at least 1")
    settings = Settings(images=images, kept_images=kept_images, limit=limit, rounds=rounds)
    root, progress = find_voc_root(), ConsoleProgress()
    CalibrationSource.find(root, "train", images)  # too few, no use in starting
    stages: list[Row] = []
    quantizers: list[Row] = []
    for variant in variants or ["rf-lw-mbv2"]:
        exported = deploy.export(variant, out=out / "bench", fit=fit, progress=progress)
        folder = exported.path.parent
        quantizers += measure_quantizers(variant, folder, settings, progress)
        stages += measure_stages(variant, folder, settings, progress)
    described = {**asdict(settings), "fit": fit.value, "dataset": name_data_set(root)}
    environment = describe_environment()
    content = {
        "settings": described,
        "environment": environment,
        "quantizers": quantizers,
        "stages": stages,
    }
    tables = [table.quantizer_table(quantizers), table.stage_table(stages)]
    line, notes = table.headline(described, environment), table.notes(quantizers)
    write_whole(out / "bench" / "bench.json", json.dumps(content, indent=1) + "\n")
    paragraphs = [line, *(t.to_markdown() for t in tables), *notes]
    write_whole(out / "bench" / "bench.md", "\n\n".join(paragraphs) + "\n")
    display.line(line)
    for t in tables:
        display.table(t.title, t.columns, t.rows, left=t.left)
    for note in notes:
        display.line(note)
    display.line(f"written: {out / 'bench' / 'bench.md'}, {out / 'bench' / 'bench.json'}")


if __name__ == "__main__":
    try:
        typer.run(bench)
    except USER_ERRORS as error:
        sys.exit(f"{type(error).__name__}: {error}")
