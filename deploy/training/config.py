"""What a training run is told, and what it tells."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deploy.calibration.dataset import DataSet
from deploy.calibration.voc import Sample, describe_data_set, find_voc_root, read_split
from deploy.errors import DeployError
from deploy.models import VARIANTS
from deploy.predict.image_paths import find_images


class TrainError(DeployError):
    """A training run that cannot start or go on; one line that says what to do."""


@dataclass(frozen=True, kw_only=True)
class DataRoot:
    """A data set's folder and how much of it training sees.

    ``weight`` is relative to those of the other roots: each sample of a batch comes from a root
    with a probability in proportion to its weight, however many images the root has.
    """

    root: Path
    split: str = "train"
    weight: float = 1.0
    retain: bool = False  # training may ask that the answers on it stay those of the start
    zoom: tuple[float, float] | None = None  # random zoom of its own; None: the augmentation's
    masks: bool = True  # False: the folder holds photographs and nothing else, for a teacher

    def describe(self) -> DataSet:
        """Return what the data set consists of; raises ``deploy.calibration.errors.DataError``."""
        return describe_data_set(find_voc_root(self.root))

    def samples(self) -> list[Sample]:
        """Return the split's samples; raises ``deploy.calibration.errors.DataError``."""
        return read_split(find_voc_root(self.root), self.split)

    def pictures(self) -> list[Sample | Path]:
        """Return what training sees: samples, or the photographs of a folder without masks.

        Raises:
            deploy.calibration.errors.DataError: there are none, or as :meth:`samples`.
        """
        return [*self.samples()] if self.masks else [*find_images([str(self.root)])]


@dataclass(frozen=True, kw_only=True)
class TeacherChoice:
    """A trained network to be imitated."""

    variant: str
    weights: Path | None = None  # None: its cached or shipped ones

    def random(self) -> TrainError:
        """Return what is said where it has no trained parameters."""
        return TrainError(
            f"teacher {self.variant}: no trained parameters of it are here: name a file, "
            f"--teacher {self.variant}=PATH"
        )


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How an image becomes a training sample, relative to how deployment sees it."""

    size: int = 500  # deployment's input: images are scaled as if for it before anything else
    crop: int = 288  # side of a training sample, pixels
    scale: tuple[float, float] = (0.6, 1.5)  # random zoom about the deployment scale
    color: float = 0.25  # largest relative change of brightness, contrast, saturation
    resolution: float = 1.0  # least share of the sample's pixels, along an axis, that tell a detail


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A training run. Relative weights of data sets stand in ``DataRoot``."""

    variant: str
    data: tuple[DataRoot, ...]
    directory: Path  # gets checkpoint.pt while training runs, weights.safetensors when it ends
    init: Path | None = None  # see models.initialize; None: random parameters
    resume: bool = False  # go on from directory/checkpoint.pt; init is not read then
    validation: tuple[DataRoot, ...] = ()  # each is measured for itself; weights play no part
    validation_images: int = 100  # of each, spread evenly over its list
    steps: int = 6000
    batch_size: int = 6
    encoder_rate: float = 2e-4  # highest learning rates
    decoder_rate: float = 6e-4
    weight_decay: float = 0.01
    schedule: Literal["cosine", "poly"] = "cosine"
    warmup: int = 100  # steps
    frozen_stages: int = (
        0  # the encoder's layer1 … layerN (and what stands before) stay as they are
    )
    background_weight: float = 1.0  # of a pixel of class 0 in the loss; objects have 1
    retain: float = 0.0  # weight of staying close to init's answers on the data that says retain
    teacher: TeacherChoice | None = None  # imitated; its decoder is taken over (models.transfer)
    stages: int = 0  # with a teacher: only the encoder's first N learn, from its features; 0: all
    embed: bool = False  # layer2 to layer4 of a ResNet start as a MobileNetV2 teacher's blocks
    keep_zeros: bool = False  # kernels' zeros stay zero, as those that embed leaves
    label_weight: float = 1.0  # with a teacher: of the masks' cross-entropy
    freeze_statistics: bool = True  # of batch normalization; its scale and shift are learnt anyway
    dropout: bool = True  # the network's own; with data in plenty it only slows learning down
    augmentation: Augmentation = field(default_factory=Augmentation)
    device: str = "cpu"  # or "cuda", "cuda:1", …
    precision: Literal["auto", "float32", "bfloat16", "float16"] = (
        "auto"  # what hardware is fast at
    )
    threads: int | None = None  # torch's, on the CPU; None: torch's choice
    workers: int = 1  # threads that make batches
    checkpoint_minutes: float = 3.0
    validation_minutes: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        problems = {
            f"variant {self.variant!r}: choose one of {', '.join(VARIANTS)}": (
                self.variant not in VARIANTS
            ),
            "no data: name at least one folder of VOC's layout": not self.data,
            "photographs without masks need a teacher (--teacher)": (
                self.teacher is None and not all(root.masks for root in self.data)
            ),
            f"teacher {self.teacher.variant if self.teacher else ''!r}: choose one of "
            f"{', '.join(VARIANTS)}": (
                self.teacher is not None and self.teacher.variant not in VARIANTS
            ),
            f"stages is {self.stages}: 1 to 4, or 0 for all": not 0 <= self.stages <= 4,
            f"crop is {self.augmentation.crop}: with a teacher it must be a multiple of 4": (
                self.teacher is not None and self.augmentation.crop % 4 > 0
            ),
            "stages need a teacher, whose features they learn from": (
                self.stages > 0 and self.teacher is None
            ),
            "embed needs a ResNet, and a teacher with MobileNetV2, whose blocks it takes": (
                self.embed and not self._can_embed()
            ),
            f"label_weight is {self.label_weight}: it must not be negative": not (
                0 <= self.label_weight < math.inf
            ),
            "weights of the data must be positive": not all(
                0 < root.weight < math.inf for root in self.data
            ),
            f"steps is {self.steps}: at least 1": self.steps < 1,
            f"batch_size is {self.batch_size}: at least 1": self.batch_size < 1,
            f"input size is {self.augmentation.size}: at least 32": self.augmentation.size < 32,
            f"crop is {self.augmentation.crop}: at least 32": self.augmentation.crop < 32,
            f"frozen_stages is {self.frozen_stages}: it must not be negative": self.frozen_stages
            < 0,
            f"background_weight is {self.background_weight}: it must be positive": not (
                0 < self.background_weight < math.inf
            ),
            f"retain is {self.retain}: it must not be negative": self.retain < 0,
            "retain needs parameters to start from (init)": self.retain > 0 and self.init is None,
            "learning rates must be positive": not all(
                0 < rate < math.inf for rate in (self.encoder_rate, self.decoder_rate)
            ),
            f"weight_decay is {self.weight_decay}: it must not be negative": not (
                0 <= self.weight_decay < math.inf
            ),
            "minutes between checkpoints and validations must not be negative": not (
                self.checkpoint_minutes >= 0 and self.validation_minutes >= 0
            ),
            **{
                f"zoom is {zoom}: two numbers above 0, the smaller first": not (
                    0 < zoom[0] <= zoom[1] < math.inf
                )
                for zoom in (self.augmentation.scale, *(root.zoom for root in self.data))
                if zoom is not None
            },
            f"resolution is {self.augmentation.resolution}: above 0, at most 1": not (
                0 < self.augmentation.resolution <= 1
            ),
            f"seed is {self.seed}: it must not be negative": self.seed < 0,
            f"device {self.device!r}: choose cpu, or cuda where torch finds a GPU": (
                not _is_available(self.device)
            ),
            "float16 needs a GPU: choose bfloat16 or float32": (
                self.precision == "float16" and self.device == "cpu"
            ),
        }
        for problem, applies in problems.items():
            if applies:
                raise TrainError(f"training: {problem}")

    def _can_embed(self) -> bool:
        own = VARIANTS.get(self.variant)
        teacher = VARIANTS.get(self.teacher.variant) if self.teacher else None
        if own is None or teacher is None:
            return False
        return own.depth is not None and teacher.network == "MobileRefineNet"


def _is_available(device: str) -> bool:
    kind, _, index = device.partition(":")
    if kind == "cuda" and (not index or index.isdecimal()):
        import torch  # seconds, which the command's --help need not wait for

        return torch.cuda.is_available() and int(index or 0) < torch.cuda.device_count()
    return device == "cpu"


@dataclass(frozen=True, kw_only=True)
class Status:
    """Where training stands."""

    step: int
    steps: int
    loss: float  # mean over the steps since the last status
    rate: float  # the decoder's learning rate
    images_per_second: float
    miou: tuple[float, ...] = ()  # %, of each validation set, where it was just measured
    initialized_from: str | None = None  # in the first status only
    parts: dict[str, float] = field(default_factory=dict)  # of the loss, where it has several
