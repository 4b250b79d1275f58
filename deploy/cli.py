"""The command line: parse, call, print. The only place that prints results or exits.

Exit codes: 0 fine, 1 failed (one line says why), 2 wrong usage, 3 the accuracy gate was missed.
"""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import deploy
import models
from calibration.preprocess import Fit
from calibration.ranges import Method, RangeConfig
from deploy import cli_making, display
from deploy.artifacts import DEFAULT_OUT
from deploy.errors import USER_ERRORS
from deploy.gate import DEFAULT_MIN_RATIO, Gate
from deploy.progress import ConsoleProgress
from deploy.quantization import MIN_FP16_SQNR, QuantizedGraph
from deploy.quantize.recipe import Levers, RecipeName
from deploy.quantize.weights import Rounding
from deploy.runtime import Runtime
from deploy.targets import DEFAULT_TARGET, TARGETS
from deploy.validate import Protocol

EXIT_GATE_MISSED = 3

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="From a RefineNet checkpoint to FP16 and INT8 ONNX, with the accuracy cost measured.",
    epilog="Example: deploy export rf-lw-mbv2 && deploy quantize --int8 && deploy validate",
)

Targets = Annotated[
    list[str] | None,
    typer.Argument(metavar="VARIANT|MODEL.onnx", help="By default every variant exported."),
]
Variants = Annotated[
    list[str] | None, typer.Argument(metavar="VARIANT", help="By default all five.")
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the artifacts.")]
VocRoot = Annotated[
    Path | None,
    typer.Option(
        "--voc-root",
        metavar="DIR",
        help="VOC2012, or a folder that holds VOCdevkit/VOC2012. By default $VOC_ROOT, else data/.",
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option("--weights", metavar="PATH", help="Checkpoint: safetensors or a torch file."),
]
Images = Annotated[int, typer.Option("--images", min=1, help="Calibration images of 'train'.")]
Limit = Annotated[
    int | None, typer.Option("--limit", min=1, help="Images to evaluate. By default all.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
RangeMethod = Annotated[Method, typer.Option("--method", help="How activation ranges are chosen.")]
Percentile = Annotated[
    float, typer.Option("--percentile", help="Share of values in range, %, for that method.")
]

QuantizeTarget = Annotated[
    str,
    typer.Option(
        "--target", metavar="NAME", help=f"Toolchain of the INT8 graph: {', '.join(TARGETS)}."
    ),
]
LintTarget = Annotated[
    str | None,
    typer.Option("--target", metavar="NAME", help="By default the one in the graph's metadata."),
]


def parse_size(text: str) -> tuple[int, int]:
    """Return (height, width) from "500" or "HEIGHTxWIDTH"."""
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(part.isdigit() for part in parts):
        raise typer.BadParameter(f"{text!r} is neither a number nor HEIGHTxWIDTH")
    return int(parts[0]), int(parts[-1])


@app.command(epilog="Example: deploy export rf-lw50 --weights rf_lw50_voc.pth.tar")
def export(
    variants: Variants = None,
    weights: Weights = None,
    input_size: Annotated[
        str, typer.Option("--input-size", metavar="N|HxW", help="Fixed input size, pixels.")
    ] = "500",
    fit: Annotated[Fit, typer.Option("--fit", help="How images become inputs.")] = Fit.CROP,
    out: Out = DEFAULT_OUT,
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
            name, weights=weights, out=out, input_size=size, fit=fit, progress=progress
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


@app.command(epilog="Example: deploy quantize rf-lw-mbv2 --int8 --method percentile --images 100")
def quantize(
    targets: Targets = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Write the half-precision graph.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Write the 8-bit graph.")] = False,
    fp16_sqnr: Annotated[
        float, typer.Option(help="dB that FP16 logits shall keep; first nodes stay FP32 for it.")
    ] = MIN_FP16_SQNR,
    method: Annotated[
        Method | None,
        typer.Option("--method", help="How ranges are chosen. By default minmax; vacc: entropy."),
    ] = None,
    percentile: Percentile = 99.99,
    target: QuantizeTarget = DEFAULT_TARGET,
    recipe: Annotated[
        RecipeName, typer.Option("--recipe", help="Accuracy levers; auto: the least that holds.")
    ] = RecipeName.FAST,
    equalize: Annotated[
        bool | None, typer.Option("--equalize/--no-equalize", help="Overrides the recipe's.")
    ] = None,
    rounding: Annotated[
        Rounding | None, typer.Option("--rounding", help="Of weights; overrides the recipe's.")
    ] = None,
    bias_correction: Annotated[
        bool | None,
        typer.Option("--bias-correction/--no-bias-correction", help="Overrides the recipe's."),
    ] = None,
    min_ratio: Annotated[
        float | None, typer.Option(help="Gate: INT8's mIoU over the float graph's, at least.")
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Gate: points of mIoU that INT8 may cost.")
    ] = None,
    max_float_layers: Annotated[
        int, typer.Option(min=0, help="Gate: convolutions that may return to float.")
    ] = 8,
    tuning_images: Annotated[
        int, typer.Option(min=1, help="Gate: images of the split, not calibrating, to tune on.")
    ] = 50,
    images: Images = 50,
    split: Annotated[str, typer.Option("--split", help="List of calibration images.")] = "train",
    fit: Annotated[
        Fit | None, typer.Option("--fit", help="How images become inputs. By default the graph's.")
    ] = None,
    voc_root: VocRoot = None,
    weights: Weights = None,
    out: Out = DEFAULT_OUT,
    as_json: AsJson = False,
) -> None:
    """Calibrate on VOC images and write FP16 and INT8 graphs (both, if neither is asked for).

    With --min-ratio or --max-drop, exit code 3 says that the gate was missed.
    """
    gate = None
    if recipe is RecipeName.AUTO and min_ratio is None and max_drop is None:
        min_ratio = DEFAULT_MIN_RATIO
    if min_ratio is not None or max_drop is not None:
        gate = Gate(
            min_ratio=min_ratio,
            max_drop=max_drop,
            max_float_layers=max_float_layers,
            images=tuning_images,
        )
    config = RangeConfig(method=method or Method.MINMAX, percentile=percentile)
    written = deploy.quantize(
        targets or (),
        fp16=fp16 or not int8,
        int8=int8 or not fp16,
        fp16_sqnr=fp16_sqnr,
        method=config if method else None,
        target=target,
        recipe=recipe,
        levers=Levers(equalize=equalize, rounding=rounding, correct_biases=bias_correction),
        gate=gate,
        images=images,
        split=split,
        fit=fit,
        voc_root=voc_root,
        weights=weights,
        out=out,
        progress=ConsoleProgress(),
    )
    display.quantized(written, as_json=as_json)
    if any(isinstance(graph, QuantizedGraph) and graph.missed_gate for graph in written):
        raise typer.Exit(EXIT_GATE_MISSED)


@app.command(epilog="Example: deploy lint other-tools.onnx --target tensorrt")
def lint(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx")],
    target: LintTarget = None,
    as_json: AsJson = False,
) -> None:
    """Check an INT8 graph against the rules of a target; exit code 1 if it breaks any."""
    result = deploy.lint(model, target)
    display.linted(result, as_json=as_json)
    if result.findings:
        raise typer.Exit(1)


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
    protocol: Annotated[
        Protocol, typer.Option("--protocol", "--fit", help="How images are fitted and compared.")
    ] = Protocol.CROP,
    voc_root: VocRoot = None,
    out: Out = DEFAULT_OUT,
    as_json: AsJson = False,
) -> None:
    """Do the whole job for every variant: export, quantize, validate, report."""
    progress = ConsoleProgress()
    content = deploy.export_all(
        variants or (),
        method=RangeConfig(method=method, percentile=percentile),
        images=images,
        limit=limit,
        protocol=protocol,
        voc_root=voc_root,
        out=out,
        progress=progress,
    )
    display.reported(content, out, as_json=as_json, seconds=progress.seconds)


@app.command("models", epilog="Example: deploy models --json")
def list_models(as_json: AsJson = False) -> None:
    """List the variants, their figures, and where their weights would come from."""
    display.models([describe_variant(name) for name in models.VARIANTS], as_json=as_json)


for name, command, example in (
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
    """Run the command line; what a user can mend ends as one line on stderr and exit code 1."""
    try:
        app()
    except USER_ERRORS as error:
        message = " ".join(str(error).split())
        print(f"{type(error).__name__}: {message}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("Interrupted: nothing half-written was left", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of stdout has gone, as in `deploy models | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
