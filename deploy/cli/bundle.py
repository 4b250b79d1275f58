"""The command that gathers what an integrator needs: ``bundle``."""

from pathlib import Path
from typing import Annotated

import typer

import deploy
from deploy.cli import display_bundle
from deploy.cli.options import AsJson, EmbedPreprocessing, HeadOption, Out
from deploy.export.interface import Head, Interface
from deploy.progress import ConsoleProgress
from deploy.runtimes.litert_tape import Borders
from deploy.store.artifacts import DEFAULT_OUT
from deploy.targets import Toolchain
from deploy.targets.accelerator import Precision


def bundle(
    variant: Annotated[str, typer.Argument(metavar="VARIANT|MODEL.onnx", help="Quantized before.")],
    toolchain: Annotated[Toolchain, typer.Option("--target", help="What the folder is for.")],
    precision: Annotated[
        Precision, typer.Option("--precision", help="Which graph; INT8 is the target's own.")
    ] = Precision.INT8,
    head: HeadOption = Head.LOGITS,
    embed_preprocessing: EmbedPreprocessing = False,
    socs: Annotated[
        list[str] | None,
        typer.Option("--soc", metavar="CHIP", help="Compile for it; repeatable. Of qnn."),
    ] = None,
    borders: Annotated[
        Borders,
        typer.Option(
            "--borders", help="litert: what an INT8 model takes and gives; uint8 is q of either."
        ),
    ] = Borders.FLOAT,
    folder: Annotated[
        Path | None,
        typer.Option("--to", metavar="DIR", help="By default a folder beside the graph."),
    ] = None,
    out: Out = DEFAULT_OUT,
    as_json: AsJson = False,
) -> None:
    """Write a folder for a device: model, preprocessing, labels, checks, checksums, README."""
    written = deploy.bundle(
        variant,
        toolchain,
        precision=precision,
        interface=Interface(head=head, embed_preprocessing=embed_preprocessing),
        socs=socs or (),
        borders=borders,
        folder=folder,
        out=out,
        progress=ConsoleProgress(),
    )
    display_bundle.bundled(written, as_json=as_json)
