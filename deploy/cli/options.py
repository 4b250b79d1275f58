"""Arguments and options that several commands take."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.calibration.preprocess import Fit
from deploy.calibration.ranges import Method
from deploy.export.interface import Head
from deploy.targets import ACCELERATORS as TARGETS


def propose_targets(incomplete: str) -> list[str]:
    """Return the toolchains that begin so, for the shell's completion."""
    return [name for name in TARGETS if name.startswith(incomplete)]


Targets = Annotated[
    list[str] | None,
    typer.Argument(metavar="VARIANT|MODEL.onnx", help="By default every variant exported."),
]
Variants = Annotated[list[str] | None, typer.Argument(metavar="VARIANT", help="By default all.")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the artifacts.")]
VocRoot = Annotated[
    Path | None,
    typer.Option(
        "--voc-root",
        "--data",
        metavar="DIR",
        envvar="VOC_ROOT",  # before the settings file, as every option's variable
        show_envvar=False,  # the help says so
        help="VOC2012, or a folder with a dataset.toml. By default $VOC_ROOT, else data/.",
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
InputSize = Annotated[
    str, typer.Option("--input-size", metavar="N|HxW", help="Fixed input size, pixels.")
]
Force = Annotated[
    bool, typer.Option("--force", help="Make anew what is there already, made from the same.")
]
SkipBad = Annotated[
    bool,
    typer.Option("--skip-bad", help="Leave bad images out and list them; else the first ends it."),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster",
        metavar="tcp://HOST:PORT|local:N|FILE.json",
        envvar="DEPLOY_CLUSTER",
        show_envvar=False,
        help="Dask cluster that does the images. By default $DEPLOY_CLUSTER, else this process.",
    ),
]
Ship = Annotated[
    bool, typer.Option("--ship", help="Send the cluster's workers the files that they lack.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Split = Annotated[str, typer.Option("--split", help="List of calibration images.")]
CalibrationFit = Annotated[
    Fit | None, typer.Option("--fit", help="How images become inputs. By default the graph's.")
]
RangeMethod = Annotated[Method, typer.Option("--method", help="How activation ranges are chosen.")]
Percentile = Annotated[
    float, typer.Option("--percentile", help="Share of values in range, %, for that method.")
]

QuantizeTarget = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="NAME",
        help=f"Toolchain of the INT8 graph; repeatable: {', '.join(TARGETS)}.",
        autocompletion=propose_targets,
    ),
]
LintTarget = Annotated[
    str | None,
    typer.Option(
        "--target",
        metavar="NAME",
        help="By default the one in the graph's metadata.",
        autocompletion=propose_targets,
    ),
]
LintSoc = Annotated[
    str | None,
    typer.Option(
        "--soc", metavar="NAME", help="A chip of the target (qnn: sm7325, …): its rules as well."
    ),
]

VamcEntries = Annotated[
    list[str] | None,
    typer.Option(
        "--vamc",
        metavar="KEY=VALUE",
        help="vacc: one more key of compile.yaml's quantize, its value as JSON. Repeatable.",
    ),
]

HeadOption = Annotated[
    Head, typer.Option("--head", help="What the graph beside the plain one gives.")
]
EmbedPreprocessing = Annotated[
    bool,
    typer.Option("--embed-preprocessing", help="It takes RGB bytes, 1xHxWx3; mean and std inside."),
]


def is_number(text: str) -> bool:
    """Say whether a text is a whole number in plain digits, of a size that can be meant."""
    return text.isascii() and text.isdigit() and len(text) <= 9


def parse_size(text: str) -> tuple[int, int]:
    """Return (height, width) from "500" or "HEIGHTxWIDTH"."""
    parts = text.lower().split("x")
    if len(parts) not in (1, 2) or not all(map(is_number, parts)):
        raise typer.BadParameter(f"{text!r} is neither a number nor HEIGHTxWIDTH")
    return int(parts[0]), int(parts[-1])


def parse_entries(texts: list[str]) -> dict[str, Any]:
    """Return {"KEY": value} from texts "KEY=VALUE"; what is no JSON is a text."""
    entries: dict[str, Any] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        if not sign or key in entries:
            reason = "is there twice" if sign else "is no KEY=VALUE"
            raise typer.BadParameter(f"{text!r} {reason}", param_hint="'--vamc'")
        try:
            entries[key] = json.loads(value)
        except (ValueError, RecursionError):
            entries[key] = value
    return entries


def parse_part(text: str) -> tuple[int, int]:
    """Return (I, N) from "I/N"."""
    number, _, parts = text.partition("/")
    if not (is_number(number) and is_number(parts)):
        raise typer.BadParameter(f"{text!r} is no I/N, such as 1/4")
    return int(number), int(parts)
