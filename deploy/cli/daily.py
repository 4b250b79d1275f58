"""The commands of every day: ``predict``, ``inspect``, ``latency``."""

from pathlib import Path
from typing import Annotated

import typer

import deploy
from deploy.calibration.preprocess import Fit
from deploy.cli import display_daily
from deploy.cli.options import AsJson, LintTarget, Out, Weights, parse_size
from deploy.progress import ConsoleProgress
from deploy.runtimes.runner import Runtime
from deploy.store.artifacts import DEFAULT_OUT


def predict(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A variant, an ONNX file or a torch checkpoint."),
    ],
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE", help="Files, folders, patterns in quotes.")
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder of the results.")
    ] = Path("predictions"),
    variant: Annotated[
        str | None, typer.Option(metavar="VARIANT", help="Whose checkpoint MODEL is.")
    ] = None,
    weights: Weights = None,
    fit: Annotated[
        Fit | None,
        typer.Option(
            "--fit",
            help="How images become inputs. By default the graph's, else crop: in windows, so "
            "that borders are not lost.",
        ),
    ] = None,
    input_size: Annotated[
        str | None,
        typer.Option(
            "--input-size", metavar="N|HxW", help="If the graph does not fix it. By default 500."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Label images, each at its own size: a mask in VOC's palette, and an overlay.

    An image's EXIF orientation is respected. Graphs of other tools must take
    RGB with ImageNet's mean and standard deviation, (1, 3, H, W), and give
    logits (1, classes, h, w).
    """
    predictions = deploy.predict(
        model,
        images,
        variant=variant,
        weights=weights,
        fit=fit,
        input_size=parse_size(input_size) if input_size else None,
        out=out,
        progress=ConsoleProgress(),
    )
    display_daily.predicted(predictions, as_json=as_json)


def inspect(
    target: Annotated[
        str, typer.Argument(metavar="VARIANT|MODEL.onnx", help="Of a variant: all its graphs.")
    ],
    rules: LintTarget = None,
    tensors: Annotated[
        bool, typer.Option("--tensors", help="Print every activation's range and scale.")
    ] = False,
    out: Out = DEFAULT_OUT,
    as_json: AsJson = False,
) -> None:
    """Show what is in an ONNX file of any tool; nothing is run.

    Operators before and after quantization, parameters, multiply-accumulates,
    how much of them is done in 8 bits, what stays float and why, ranges and
    scales and which of them look wrong, and the rules of its target that it
    breaks.
    """
    results = deploy.inspect(target, rules=rules, out=out)
    display_daily.inspected(results, tensors=tensors, as_json=as_json)


def latency(
    targets: Annotated[
        list[str],
        typer.Argument(metavar="VARIANT|MODEL.onnx", help="Of a variant: all its graphs."),
    ],
    runtimes: Annotated[
        list[Runtime] | None,
        typer.Option("--runtime", help="Repeatable. By default onnxruntime."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="By default all processors.")
    ] = None,
    runs: Annotated[int, typer.Option("--runs", min=1, help="Of each graph.")] = 30,
    out: Out = DEFAULT_OUT,
    as_json: AsJson = False,
) -> None:
    """Measure how long graphs take: batch 1, all in turn, so that ratios are fair.

    Where an INT8 graph is not faster than the float32 one, it says why:
    instructions that the processor lacks, nodes that the runtime computes in
    float, by name, or the form of another target.
    """
    measured = deploy.latency(
        targets,
        runtimes=runtimes or [Runtime.ONNXRUNTIME],
        threads=threads,
        runs=runs,
        out=out,
        progress=ConsoleProgress(),
    )
    display_daily.timed(measured, as_json=as_json)
