"""The command line: parse, call, print. The only place that prints results or exits.

Exit codes: 0 fine, 1 failed (one line says why), 2 wrong usage, 3 the accuracy gate was missed,
130 interrupted by Ctrl-C, 143 ended by SIGTERM.
"""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

import deploy
import models
from calibration.preprocess import Fit
from calibration.ranges import Method, RangeConfig
from deploy import cli_making, cli_quantizing, display
from deploy.artifacts import DEFAULT_OUT
from deploy.cli_options import (
    AsJson,
    Force,
    Images,
    InputSize,
    Limit,
    Out,
    Percentile,
    RangeMethod,
    Targets,
    Variants,
    VocRoot,
    Weights,
    parse_size,
)
from deploy.errors import USER_ERRORS
from deploy.progress import ConsoleProgress
from deploy.runtime import Runtime
from deploy.validate import Protocol

STOPPED: dict[object, str] = {130: "Interrupted", 143: "Terminated"}

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="From a RefineNet checkpoint to FP16 and INT8 ONNX, with the accuracy cost measured.",
    epilog="Example: deploy export rf-lw-mbv2 && deploy quantize --int8 && deploy validate",
)


@app.command(epilog="Example: deploy export rf-lw50 --weights rf_lw50_voc.pth.tar")
def export(
    variants: Variants = None,
    weights: Weights = None,
    input_size: InputSize = "500",
    fit: Annotated[Fit, typer.Option("--fit", help="How images become inputs.")] = Fit.CROP,
    out: Out = DEFAULT_OUT,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Export variants to ONNX: traced, simplified, and proved equal to torch."""
    names = variants or list(models.VARIANTS)
    if weights is not None and len(names) != 1:
        raise typer.BadParameter("--weights is for one variant: name it")
    size = parse_size(input_size)
    progress = ConsoleProgress()
    for name in names:
        exported = deploy.export(
            name,
            weights=weights,
            out=out,
            input_size=size,
            fit=fit,
            force=force,
            progress=progress,
        )
        display.exported(exported, as_json=as_json)


@app.command(epilog="Example: deploy simplify model.onnx --output model-simplified.onnx")
def simplify(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx")],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="PATH")] = None,
    as_json: AsJson = False,
) -> None:
    """Simplify an ONNX file with onnxsim and prove that it computes the same."""
    display.simplified(deploy.simplify(model, output), as_json=as_json)


@app.command(
    epilog="Example: deploy validate rf-lw-mbv2 other-tools.onnx --protocol squash --limit 50"
)
def validate(
    targets: Targets = None,
    split: Annotated[str, typer.Option("--split", help="List of images to evaluate.")] = "val",
    limit: Limit = None,
    protocol: Annotated[
        Protocol | None,
        typer.Option(
            "--protocol", "--fit", help="Where labels are compared. By default the graph's fit."
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        typer.Option(metavar="VARIANT", help="Torch network that ONNX files are compared with."),
    ] = None,
    runtime: Annotated[
        Runtime, typer.Option("--runtime", help="What runs the graphs.")
    ] = Runtime.ONNXRUNTIME,
    voc_root: VocRoot = None,
    weights: Weights = None,
    out: Out = DEFAULT_OUT,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Measure torch and every graph side by side: mIoU, fidelity to torch, latency, size."""
    results = deploy.validate(
        targets or (),
        split=split,
        limit=limit,
        protocol=protocol,
        baseline=baseline,
        runtime=runtime,
        voc_root=voc_root,
        weights=weights,
        out=out,
        force=force,
        progress=ConsoleProgress(),
    )
    display.validated(results, as_json=as_json)


@app.command(epilog="Example: deploy report --out artifacts")
def report(variants: Variants = None, out: Out = DEFAULT_OUT, as_json: AsJson = False) -> None:
    """Write report.json, report.md and report.html from the validation results."""
    display.reported(deploy.report(variants or (), out=out), out, as_json=as_json)


@app.command(
    "export-all", epilog="Example: deploy export-all --voc-root data --images 50 --limit 50"
)
def export_all(
    variants: Variants = None,
    method: RangeMethod = Method.MINMAX,
    percentile: Percentile = 99.99,
    images: Images = 50,
    limit: Limit = 50,
    input_size: InputSize = "500",
    protocol: Annotated[
        Protocol, typer.Option("--protocol", "--fit", help="How images are fitted and compared.")
    ] = Protocol.CROP,
    voc_root: VocRoot = None,
    out: Out = DEFAULT_OUT,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Do the whole job for every variant: export, quantize, validate, report."""
    progress = ConsoleProgress()
    content = deploy.export_all(
        variants or (),
        method=RangeConfig(method=method, percentile=percentile),
        images=images,
        limit=limit,
        input_size=parse_size(input_size),
        protocol=protocol,
        voc_root=voc_root,
        out=out,
        force=force,
        progress=progress,
    )
    display.reported(content, out, as_json=as_json, seconds=progress.seconds)


@app.command("models", epilog="Example: deploy models --json")
def list_models(as_json: AsJson = False) -> None:
    """List the variants, their figures, and where their weights would come from."""
    display.models([describe_variant(name) for name in models.VARIANTS], as_json=as_json)


for name, command, example in (
    (
        "quantize",
        cli_quantizing.quantize,
        "deploy quantize rf-lw-mbv2 --int8 --method percentile --images 100",
    ),
    ("lint", cli_quantizing.lint, "deploy lint other-tools.onnx --target tensorrt"),
    ("calibrate", cli_quantizing.calibrate, "deploy calibrate rf-lw50 --merge one.json two.json"),
    ("scenes", cli_making.scenes, "deploy scenes data/scenes --train 100 --val 100 --seed 2"),
    ("fetch-voc", cli_making.fetch_voc_, "deploy fetch-voc data"),
    (
        "train",
        cli_making.train_,
        "deploy train rf-lw50 --voc-root data --init resnet50-19c8e357.pth --device cuda",
    ),
):
    app.command(name, epilog=f"Example: {example}")(command)


def describe_variant(name: str) -> dict[str, Any]:
    """Return a variant's figures as plain values."""
    variant = models.VARIANTS[name]
    module = models.build(name)
    source = models.find_weights(name)
    return {
        "id": name,
        "full_name": variant.full_name,
        "parameters": models.count_parameters(module),
        "macs": models.count_macs(module),
        "published_miou": variant.published_miou / 100,
        "vacc_fp16_miou": variant.vacc_fp16_miou / 100,
        "vacc_int8_miou": variant.vacc_int8_miou / 100,
        "upstream_file": variant.upstream_file,
        "weights": {"source": source.kind, "path": source.path and str(source.path)},
    }


def main() -> None:
    """Run the command line; what a user can mend ends as one line on stderr and exit code 1.

    So does Ctrl-C, with 130, and SIGTERM, with 143.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except USER_ERRORS as error:
        message = " ".join(str(error).split())
        print(f"{type(error).__name__}: {message}", file=sys.stderr)
        sys.exit(1)
    except SystemExit as end:  # typer makes one of KeyboardInterrupt
        if end.code in STOPPED:
            print(f"{STOPPED[end.code]}: nothing half-written was left", file=sys.stderr)
        raise
    except BrokenPipeError:  # the reader of stdout has gone, as in `deploy models | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    """End as an error does: what is open is closed, what is half-written removed."""
    sys.exit(128 + number)
