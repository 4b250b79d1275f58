"""The commands that make data and parameters: ``scenes``, ``fetch-voc``, ``train``."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from deploy.calibration.voc import OFFICIAL, OFFICIAL_MD5
from deploy.cli import display
from deploy.cli.options import AsJson
from deploy.progress import LOGGER, ConsoleProgress
from deploy.training.config import Augmentation, DataRoot, Status, TeacherChoice, TrainConfig

Data = Annotated[
    list[str] | None,
    typer.Option("--voc-root", "--data", metavar="DIR[=WEIGHT]", help="Training data; repeatable."),
]
Scenes = Annotated[
    list[str] | None,
    typer.Option("--scenes", metavar="DIR[=WEIGHT]", help="The same, for drawn scenes."),
]
Photos = Annotated[
    list[str] | None,
    typer.Option(
        "--photos", metavar="DIR[=WEIGHT]", help="A folder of images without masks, for --teacher."
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        metavar="VARIANT[=PATH]",
        help="Imitate this trained network, and start with its decoder.",
    ),
]
Validate = Annotated[
    list[Path] | None,
    typer.Option("--validate", metavar="DIR", help="Measure mIoU on its split 'val'; repeatable."),
]


class Schedule(StrEnum):
    """How the learning rate falls."""

    COSINE = "cosine"
    POLY = "poly"


class Precision(StrEnum):
    """What the network computes in while it trains."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


def scenes(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="New or empty.")],
    train_: Annotated[int, typer.Option("--train", min=0, help="Scenes in 'train'.")] = 100,
    val: Annotated[int, typer.Option("--val", min=0, help="Scenes in 'val'.")] = 100,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same seed, same bytes.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Draw a data set of scenes in VOC2012's layout: VOC's 20 classes, with masks."""
    from deploy.calibration.scenes import write_scenes

    with ConsoleProgress().counted("scenes") as counted:
        root = write_scenes(directory, train=train_, val=val, seed=seed, progress=counted)
    display.made(root, {"train": train_, "val": val, "seed": seed}, as_json=as_json)


def fetch_voc_(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="VOCdevkit/ goes here.")],
    url: Annotated[str, typer.Option("--url", help="Address of a mirror.")] = OFFICIAL,
    md5: Annotated[str, typer.Option("--md5", help="Checksum of the archive.")] = OFFICIAL_MD5,
    as_json: AsJson = False,
) -> None:
    """Download VOC2012 (2 GB), check it and unpack it; interrupted, it goes on where it stopped."""
    from deploy.training.fetch_voc import fetch_voc

    with ConsoleProgress().counted("fetch VOC2012") as counted:
        root = fetch_voc(
            directory, url=url, md5=md5, progress=lambda _stage, done, total: counted(done, total)
        )
    display.made(root, {"url": url, "md5": md5}, as_json=as_json)


def train_(
    variant: Annotated[str, typer.Argument(metavar="VARIANT", help="What to train.")],
    voc_root: Data = None,
    scenes_root: Scenes = None,
    photos: Photos = None,
    validate: Validate = None,
    validation_images: Annotated[int, typer.Option(min=1, help="At most, of each.")] = 100,
    init: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="A published ImageNet backbone, an encoder, or a checkpoint."
        ),
    ] = None,
    teacher: Teacher = None,
    stages: Annotated[
        int,
        typer.Option(
            metavar="N", help="With --teacher: the encoder's first N stages alone learn; 0: all."
        ),
    ] = 0,
    embed: Annotated[
        bool,
        typer.Option(
            "--embed",
            help="With --teacher rf-lw-mbv2: a ResNet's layer2 to layer4 start as its blocks.",
        ),
    ] = False,
    keep_zeros: Annotated[
        bool,
        typer.Option("--keep-zeros", help="Zeros of kernels stay zero: those that --embed leaves."),
    ] = False,
    label_weight: Annotated[
        float, typer.Option(min=0, help="With --teacher: of what the masks say.")
    ] = 1.0,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="checkpoint.pt, then weights.safetensors.")
    ] = Path("training"),
    resume: Annotated[bool, typer.Option("--resume", help="Go on from checkpoint.pt.")] = False,
    steps: Annotated[int, typer.Option(help="Steps of the whole run.")] = 6000,
    batch_size: Annotated[int, typer.Option(help="Samples in a step.")] = 6,
    input_size: Annotated[
        int, typer.Option("--input-size", metavar="N", help="Side of the input to be exported.")
    ] = 500,
    crop: Annotated[int, typer.Option(help="Side of a training sample, pixels.")] = 288,
    zoom: Annotated[
        tuple[float, float], typer.Option(help="Random zoom about the deployment scale.")
    ] = (0.6, 1.5),
    scenes_zoom: Annotated[
        tuple[float, float] | None, typer.Option(help="The same of --scenes; without it --zoom.")
    ] = None,
    resolution: Annotated[
        float, typer.Option(help="Samples are blurred at random, down to this share of the pixels.")
    ] = 1.0,
    encoder_rate: Annotated[float, typer.Option(help="The encoder's highest.")] = 2e-4,
    decoder_rate: Annotated[float, typer.Option(help="The decoder's highest.")] = 6e-4,
    weight_decay: Annotated[float, typer.Option(help="Of kernels, by AdamW.")] = 0.01,
    schedule: Annotated[
        Schedule, typer.Option(help="How rates fall after the warm-up.")
    ] = Schedule.COSINE,
    freeze_stages: Annotated[
        int, typer.Option(min=0, metavar="N", help="The encoder's layer1 to layerN do not learn.")
    ] = 0,
    background_weight: Annotated[
        float, typer.Option(help="Of a background pixel in the loss; an object's has 1.")
    ] = 1.0,
    retain: Annotated[
        float, typer.Option(min=0, help="Weight of keeping --init's answers on --voc-root data.")
    ] = 0.0,
    learn_statistics: Annotated[
        bool, typer.Option("--learn-statistics", help="Of batch normalization: large batches only.")
    ] = False,
    dropout: Annotated[
        bool, typer.Option(help="The network's own; needless where data are plenty.")
    ] = True,
    device: Annotated[str, typer.Option(help="cpu, or cuda.")] = "cpu",
    precision: Annotated[
        Precision, typer.Option(help="Of convolutions; auto: what the hardware is fast at.")
    ] = Precision.AUTO,
    threads: Annotated[int | None, typer.Option(min=1, help="On the CPU.")] = None,
    checkpoint_minutes: Annotated[float, typer.Option(help="From one to the next.")] = 3.0,
    validation_minutes: Annotated[float, typer.Option(help="From one to the next.")] = 10.0,
    seed: Annotated[int, typer.Option(help="Of samples and of random parameters.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Train a variant on VOC or data of your own, from a backbone, an encoder or a checkpoint."""
    config = TrainConfig(
        variant=variant,
        data=(
            *(replace(parse_data(text), retain=True) for text in voc_root or []),
            *(replace(parse_data(text), zoom=scenes_zoom) for text in scenes_root or []),
            *(replace(parse_data(text), masks=False) for text in photos or []),
        ),
        directory=out,
        init=init,
        teacher=parse_teacher(teacher),
        stages=stages,
        embed=embed,
        keep_zeros=keep_zeros,
        label_weight=label_weight,
        resume=resume,
        validation=tuple(DataRoot(root=root, split="val") for root in validate or []),
        validation_images=validation_images,
        steps=steps,
        batch_size=batch_size,
        encoder_rate=encoder_rate,
        decoder_rate=decoder_rate,
        weight_decay=weight_decay,
        schedule=schedule.value,
        frozen_stages=freeze_stages,
        background_weight=background_weight,
        retain=retain,
        freeze_statistics=not learn_statistics,
        dropout=dropout,
        augmentation=Augmentation(size=input_size, crop=crop, scale=zoom, resolution=resolution),
        device=device,
        precision=precision.value,
        threads=threads,
        checkpoint_minutes=checkpoint_minutes,
        validation_minutes=validation_minutes,
        seed=seed,
    )
    from deploy.training.train import train  # loads torch

    told: list[Status] = []

    def tell(status: Status) -> None:
        told.append(status)
        LOGGER.info(describe(status))

    weights = train(config, tell)
    display.made(weights, {"variant": variant, **final(told)}, as_json=as_json)


def parse_data(text: str) -> DataRoot:
    """Return the data set that ``DIR`` or ``DIR=WEIGHT`` names."""
    directory, separator, weight = text.rpartition("=")
    if not separator:
        return DataRoot(root=Path(text))
    try:
        return DataRoot(root=Path(directory), weight=float(weight))
    except ValueError:
        raise typer.BadParameter(f"{text!r}: the weight after = is no number") from None


def parse_teacher(text: str | None) -> TeacherChoice | None:
    """Return the network that ``VARIANT`` or ``VARIANT=PATH`` names."""
    if text is None:
        return None
    variant, separator, path = text.partition("=")
    return TeacherChoice(variant=variant, weights=Path(path) if separator else None)


def describe(status: Status) -> str:
    """Return one line of progress."""
    miou = "".join(f"  mIoU {value:.2f}" for value in status.miou)
    parts = "".join(f"  {name} {value:.3f}" for name, value in status.parts.items())
    origin = f"  from {status.initialized_from}" if status.initialized_from else ""
    return (
        f"{status.step}/{status.steps}  loss {status.loss:.3f}  rate {status.rate:.1e}  "
        f"{status.images_per_second:.1f} images/s{parts}{miou}{origin}"
    )


def final(told: Sequence[Status]) -> dict[str, Any]:
    """Return where training ended: steps, loss, mIoU (0 to 1) of each validation set."""
    if not told:  # resumed where nothing was left to do
        return {}
    last, origin = asdict(told[-1]), told[0].initialized_from
    kept = {key: last[key] for key in ("step", "steps", "loss", "images_per_second")}
    miou = [None if math.isnan(value) else value / 100 for value in last["miou"]]  # no labels
    return {**kept, "miou": miou, "initialized_from": origin}
