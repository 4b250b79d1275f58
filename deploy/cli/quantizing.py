"""The commands that calibrate, quantize, and check what was quantized."""

from pathlib import Path
from typing import Annotated

import typer

import deploy
from deploy.calibration.ranges import Method, RangeConfig
from deploy.cli import display
from deploy.cli.options import (
    AsJson,
    CalibrationFit,
    ClusterOption,
    EmbedPreprocessing,
    Force,
    HeadOption,
    Images,
    LintSoc,
    LintTarget,
    Out,
    Percentile,
    QuantizeTarget,
    Ship,
    SkipBad,
    Split,
    Targets,
    VamcEntries,
    VocRoot,
    Weights,
    parse_entries,
    parse_part,
)
from deploy.export.interface import Head, Interface
from deploy.progress import ConsoleProgress
from deploy.quantize.gate import DEFAULT_MIN_RATIO, Gate
from deploy.quantize.recipe import Levers, RecipeName, Rounding
from deploy.quantize.written import MIN_FP16_SQNR, QuantizedGraph
from deploy.store.artifacts import DEFAULT_OUT
from deploy.targets import DEFAULT_TARGET

EXIT_GATE_MISSED = 3


def quantize(
    targets: Targets = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Write the half-precision graph.")] = False,
    int8: Annotated[bool, typer.Option("--int8", help="Write the 8-bit graph.")] = False,
    fp16_sqnr: Annotated[
        float | None,
        typer.Option(
            help="dB that FP16 logits shall keep; nodes stay FP32 for it. Exit code 3 if they do "
            f"not; {MIN_FP16_SQNR:g} are tried for where none is given."
        ),
    ] = None,
    method: Annotated[
        Method | None,
        typer.Option("--method", help="How ranges are chosen. By default minmax; vacc: entropy."),
    ] = None,
    percentile: Percentile = 99.99,
    target: QuantizeTarget = None,
    vendor: Annotated[
        bool,
        typer.Option("--vendor", help="What the target's own quantizer makes of it, too."),
    ] = False,
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
    carrier: Annotated[
        bool,
        typer.Option("--carrier", help="vacc: a float graph with our weights and biases."),
    ] = False,
    vamc: VamcEntries = None,
    images: Images = 50,
    split: Split = "train",
    fit: CalibrationFit = None,
    calibration: Annotated[
        Path | None,
        typer.Option("--calibration", metavar="PATH", help="By 'deploy calibrate': no images."),
    ] = None,
    head: HeadOption = Head.LOGITS,
    embed_preprocessing: EmbedPreprocessing = False,
    voc_root: VocRoot = None,
    skip_bad: SkipBad = False,
    weights: Weights = None,
    out: Out = DEFAULT_OUT,
    force: Force = False,
    cluster: ClusterOption = None,
    ship: Ship = False,
    as_json: AsJson = False,
) -> None:
    """Calibrate on VOC images and write FP16 and INT8 graphs (both, if neither is asked for).

    With --min-ratio, --max-drop or --fp16-sqnr, exit code 3 says that what they ask was missed.
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
        fp16_sqnr=MIN_FP16_SQNR if fp16_sqnr is None else fp16_sqnr,
        method=config if method else None,
        target=target or DEFAULT_TARGET,
        vendor=vendor,
        recipe=recipe,
        levers=Levers(equalize=equalize, rounding=rounding, correct_biases=bias_correction),
        gate=gate,
        carrier=carrier,
        vamc=parse_entries(vamc or []),
        images=images,
        split=split,
        fit=fit,
        calibration=calibration,
        interface=Interface(head=head, embed_preprocessing=embed_preprocessing),
        voc_root=voc_root,
        skip_bad=skip_bad,
        weights=weights,
        out=out,
        force=force,
        cluster=cluster,
        ship=ship,
        progress=ConsoleProgress(),
    )
    display.quantized(written, as_json=as_json)
    graphs = [graph for graph in written if isinstance(graph, QuantizedGraph)]
    missed = any(graph.missed_gate for graph in graphs)
    if missed or (fp16_sqnr is not None and any(graph.shortfall for graph in graphs)):
        raise typer.Exit(EXIT_GATE_MISSED)


def lint(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="A QDQ graph.")],
    target: LintTarget = None,
    soc: LintSoc = None,
    as_json: AsJson = False,
) -> None:
    """Check an INT8 graph against the rules of a target; exit code 1 if it breaks any."""
    result = deploy.lint(model, target, soc)
    display.linted(result, as_json=as_json)
    if result.findings:
        raise typer.Exit(1)


def calibrate(
    target: Annotated[str, typer.Argument(metavar="VARIANT|MODEL.onnx", help="Whose.")],
    parts: Annotated[
        list[Path] | None, typer.Argument(metavar="PART.json", help="With --merge.")
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Merge parts, without a run.")] = False,
    images: Images = 50,
    part: Annotated[
        str | None, typer.Option("--part", metavar="I/N", help="Every N-th image, from the I-th.")
    ] = None,
    split: Split = "train",
    fit: CalibrationFit = None,
    voc_root: VocRoot = None,
    skip_bad: SkipBad = False,
    weights: Weights = None,
    out: Out = DEFAULT_OUT,
    force: Force = False,
    cluster: ClusterOption = None,
    ship: Ship = False,
    as_json: AsJson = False,
) -> None:
    """Write the statistics of all activations, of all images or of a part; or merge such parts."""
    if merge != bool(parts) or (merge and part):
        raise typer.BadParameter("--merge takes the files to merge, and nothing else does")
    if parts:
        return display.calibrated(deploy.merge_calibration(target, parts, out=out), as_json=as_json)
    written = deploy.calibrate(
        target,
        images=images,
        part=parse_part(part) if part else None,
        split=split,
        fit=fit,
        voc_root=voc_root,
        skip_bad=skip_bad,
        weights=weights,
        out=out,
        force=force,
        cluster=cluster,
        ship=ship,
        progress=ConsoleProgress(),
    )
    return display.calibrated(written, as_json=as_json)
