"""The command line: parse, call, print. The only place that prints results or exits.

Exit codes: 0 fine, 1 failed (one line says why), 2 wrong usage or settings, 3 the accuracy gate was
missed, 130 interrupted, 143 stopped by SIGTERM. docs/commands.md has every command.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import deploy
from deploy import models
from deploy.calibration.preprocess import Fit
from deploy.calibration.ranges import Method, RangeConfig
from deploy.cli import (
    bundle,
    common,
    daily,
    display,
    display_measured,
    making,
    quantizing,
    report,
    streams,
    toolchain,
)
from deploy.cli.options import (
    AsJson,
    ClusterOption,
    EmbedPreprocessing,
    Force,
    HeadOption,
    Images,
    InputSize,
    Limit,
    Out,
    Percentile,
    RangeMethod,
    Ship,
    SkipBad,
    Targets,
    Variants,
    VocRoot,
    Weights,
    parse_size,
)
from deploy.cli.stopping import Stopped, stoppable
from deploy.errors import USER_ERRORS
from deploy.export.interface import Head, Interface
from deploy.progress import ConsoleProgress
from deploy.runtimes.runner import Runtime
from deploy.store.artifacts import DEFAULT_OUT
from deploy.validate.protocol import Protocol

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="From a RefineNet checkpoint to FP16 and INT8 ONNX, with the accuracy cost measured.",
    epilog="Example: deploy export rf-lw-mbv2 && deploy quantize --int8 && deploy validate",
)
app.callback()(common.prepare)


@app.command(epilog="Example: deploy export rf-lw50 --weights rf_lw50_voc.pth.tar")
def export(
    variants: Variants = None,
    weights: Weights = None,
    input_size: InputSize = "500",
    fit: Annotated[Fit, typer.Option("--fit", help="How images become inputs.")] = Fit.CROP,
    head: HeadOption = Head.LOGITS,
    embed_preprocessing: EmbedPreprocessing = False,
    voc_root: VocRoot = None,
    out: Out = DEFAULT_OUT,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Export variants to ONNX: traced, simplified, and proved equal to torch."""
    names = variants or list(models.VARIANTS)
    if weights is not None and len(names) != 1:
        raise typer.BadParameter("--weights is for one variant: name it")
    size = parse_size(input_size)
    interface = Interface(head=head, embed_preprocessing=embed_preprocessing)
    progress = ConsoleProgress()
    exports = (
        deploy.export(
            name,
            weights=weights,
            out=out,
            input_size=size,
            fit=fit,
            voc_root=voc_root,
            interface=interface,
            force=force,
            progress=progress,
        )
        for name in names
    )
    display.exported(exports, as_json=as_json)


@app.command(epilog="Example: deploy simplify model.onnx --output model-simplified.onnx")
def simplify(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any valid graph.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="PATH", help="By default MODEL-simplified.onnx beside it."
        ),
    ] = None,
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
    soc: Annotated[
        str | None,
        typer.Option(
            "--soc",
            metavar="CHIP",
            help="That the runtime emulates: qnn's chips (sm8550), ARM cores of onnxruntime-arm "
            "(neoverse-n1), ncnn and litert.",
        ),
    ] = None,
    voc_root: VocRoot = None,
    skip_bad: SkipBad = False,
    weights: Weights = None,
    out: Out = DEFAULT_OUT,
    force: Force = False,
    cluster: ClusterOption = None,
    ship: Ship = False,
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
        soc=soc,
        voc_root=voc_root,
        skip_bad=skip_bad,
        weights=weights,
        out=out,
        force=force,
        cluster=cluster,
        ship=ship,
        progress=ConsoleProgress(),
    )
    display_measured.validated(results, as_json=as_json)


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
    skip_bad: SkipBad = False,
    out: Out = DEFAULT_OUT,
    force: Force = False,
    cluster: ClusterOption = None,
    ship: Ship = False,
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
        skip_bad=skip_bad,
        out=out,
        force=force,
        cluster=cluster,
        ship=ship,
        progress=progress,
    )
    display_measured.reported(content, out, as_json=as_json, seconds=progress.seconds)


@app.command("models", epilog="Example: deploy models --json")
def list_models(as_json: AsJson = False) -> None:
    """List the variants, their figures, and where their weights would come from."""
    display.models([describe_variant(name) for name in models.VARIANTS], as_json=as_json)


LATENCY = "deploy latency rf-lw-mbv2 other-tools.onnx --threads 2 --runs 50"
for name, command, example in (
    (
        "quantize",
        quantizing.quantize,
        "deploy quantize rf-lw-mbv2 --int8 --method percentile --images 100",
    ),
    ("lint", quantizing.lint, "deploy lint other-tools.onnx --target tensorrt"),
    ("calibrate", quantizing.calibrate, "deploy calibrate rf-lw50 --merge one.json two.json"),
    ("bundle", bundle.bundle, "deploy bundle rf-lw-mbv2 --target triton --head labels"),
    ("report", report.report, "deploy report --compare earlier/report.json"),
    ("scenes", making.scenes, "deploy scenes data/scenes --train 100 --val 100 --seed 2"),
    ("fetch-voc", making.fetch_voc_, "deploy fetch-voc data"),
    (
        "train",
        making.train_,
        "deploy train rf-lw50 --voc-root data --init resnet50-19c8e357.pth --device cuda",
    ),
    (
        "predict",
        daily.predict,
        "deploy predict artifacts/rf-lw-mbv2/int8.onnx photos 'more/**/*.jpg' --out predictions",
    ),
    ("inspect", daily.inspect, "deploy inspect artifacts/rf-lw-mbv2/int8.onnx --tensors"),
    ("latency", daily.latency, LATENCY),
    ("toolchain", toolchain.toolchain, "deploy toolchain install arm"),
):
    app.command(name, epilog=f"Example: {example}")(command)
# its name until 0.2: ``make bench`` compares quantizers
app.command("bench", hidden=True, epilog=f"Example: {LATENCY}")(daily.latency)
for registered in app.registered_commands:
    if registered.callback is not None:
        registered.callback = common.with_common_options(registered.callback)


def describe_variant(name: str) -> dict[str, Any]:
    """Return a variant's figures as plain values."""
    variant = models.VARIANTS[name]
    source = models.find_weights(name)
    return {
        "id": name,
        "full_name": variant.full_name,
        "parameters": variant.parameters,
        "macs": variant.macs,
        "published_miou": as_share(variant.published_miou),
        "vacc_fp16_miou": as_share(variant.vacc_fp16_miou),
        "vacc_int8_miou": as_share(variant.vacc_int8_miou),
        "upstream_file": variant.upstream_file,
        "weights": {"source": source.kind, "path": source.path and str(source.path)},
    }


def as_share(percentage: float | None) -> float | None:
    """Return a published figure as a share; None where there is none."""
    return None if percentage is None else percentage / 100


def main() -> None:
    """Run the command line; what a user can mend ends as one line on stderr and exit code 1.

    So does Ctrl-C, with 130, and SIGTERM, with 143.
    """
    streams.keep_for_results()
    try:
        with stoppable():
            app(prog_name="deploy")  # also where it is run as a module
    except (*USER_ERRORS, Stopped) as error:
        common.end_with(error)
    except BrokenPipeError:  # the reader of stdout has gone, as in `deploy models | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
