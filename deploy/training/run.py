"""The state of a training run, and the one step that changes it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from deploy.calibration.dataset import IGNORE_LABEL
from deploy.calibration.preprocess import Fit, fit_image, fit_mask, logits_to_labels, normalize
from deploy.calibration.voc import CLASSES, Sample, read_sample
from deploy.errors import DeployError
from deploy.models import build, count_classes, read_class_names
from deploy.models.checkpoint import read_state_dict
from deploy.models.embedding import embed
from deploy.models.initialize import decoder_keys, initialize
from deploy.models.refinenet import MobileRefineNet, RefineNet
from deploy.models.transfer import take_over
from deploy.store.files import replacing
from deploy.training.config import Status, TrainConfig, TrainError
from deploy.training.data import Batch, Batches
from deploy.training.imitation import Answer, answer, classes_of, imitation_losses, load_teacher
from deploy.training.modes import (
    autocast_dtype,
    freeze_stages,
    keep_zeros,
    parameter_groups,
    schedule_factor,
    set_training_mode,
)
from deploy.validate.classes import check_same_classes
from deploy.validate.metrics import ConfusionMatrix

CHECKPOINT = "checkpoint.pt"  # everything that resuming needs; also readable as a checkpoint
EMBEDDING_PIXELS = 640 * 256**2  # of the images from which the teacher's blocks are fitted
WEIGHTS = "weights.safetensors"  # the parameters after the last step


class Run:
    """The state of training: network, optimizer, number of steps done."""

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.step = config, 0
        self.device = torch.device(config.device)
        self.dtype = autocast_dtype(self.device, config.precision)
        self.teacher = load_teacher(config.teacher) if config.teacher else None
        self.classes, self.named = self._find_classes()
        self.network = build(config.variant, len(self.classes))
        self.source: str | None = "the run's own checkpoint"
        if not config.resume:
            self.source = self._initialize()
        self.start = self._start() if config.retain else None
        if self.teacher is not None:
            self._to_device(self.teacher)
        freeze_stages(self.network, config.frozen_stages)
        self._to_device(self.network)
        self.optimizer = torch.optim.AdamW(parameter_groups(self.network, config))
        self.class_weights = torch.ones(len(self.classes), device=self.device)
        self.class_weights[0] = config.background_weight
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        if config.resume:
            self._load()
        if config.keep_zeros:
            keep_zeros(self.network)

    def _find_classes(self) -> tuple[tuple[str, ...], bool]:
        """Return the classes' names, and whether the file that results has to tell them."""
        roots = [root for root in (*self.config.data, *self.config.validation) if root.masks]
        described = [root.describe() for root in roots]
        check_same_classes(described) if described else None
        names, named = (described[0].classes, described[0].own) if described else (CLASSES, False)
        self.data_name = described[0].name if described else "the data"
        choice = self.config.teacher
        if choice is not None and self.teacher is not None:
            if not described and choice.weights is not None:
                own = read_class_names(choice.weights)
                names, named = (own, True) if own else (names, named)
            known = classes_of(self.teacher)
            if known != len(names):
                raise TrainError(
                    f"teacher {choice.variant} knows {known} classes, but there are {len(names)} "
                    "here: choose a teacher of the same classes"
                )
        return names, named

    def _initialize(self) -> str:
        """Fill the network; with a teacher its decoder too, unless ``init`` is a whole network."""
        config = self.config
        source = initialize(self.network, config.init, config.seed)
        whole = config.init is not None and not decoder_keys(self.network).isdisjoint(
            read_state_dict(config.init)
        )
        if self.teacher is None or config.teacher is None:
            return source
        if not whole:
            source += f", {take_over(self.network, self.teacher)} of {config.teacher.variant}"
        if config.embed:
            source += f", its blocks in {self._embed(self.teacher)}"
        return source

    def _embed(self, teacher: nn.Module) -> str:
        """Write the teacher's blocks into the network, with samples of its own; see models."""
        assert isinstance(self.network, RefineNet)
        assert isinstance(teacher, MobileRefineNet)
        config = self.config
        count = math.ceil(EMBEDDING_PIXELS / config.augmentation.crop**2)
        images = Batches(config.data, config.augmentation, count, config.seed).batch(0).images
        return embed(self.network, teacher, images)

    def _start(self) -> nn.Module:
        """Return the network as it was before training; its answers must be of the same classes."""
        classes = len(self.classes)
        network = build(self.config.variant, classes)
        init = self.config.init
        found = count_classes(read_state_dict(init)) if init else None
        if found not in (None, classes):
            raise TrainError(
                f"retain: {init} answers with {found} classes, but {self.data_name} has {classes}"
            )
        initialize(network, init, self.config.seed)
        self._to_device(network.eval().requires_grad_(False))
        return network

    def _to_device(self, network: nn.Module) -> None:
        # channels_last: six times faster than the default for MobileNetV2 on a CPU with AMX
        network.to(self.device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # not in stubs

    def advance(self, batch: Batch) -> dict[str, float]:
        """Take one step of the optimizer; returns the loss before it, as "loss", and its parts."""
        config = self.config
        torch.manual_seed(config.seed * 1_000_003 + self.step)  # dropout's, alike when resumed
        factor = schedule_factor(config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        set_training_mode(self.network, config)
        parts = self._losses(batch)
        loss = torch.stack(list(parts.values())).sum()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise TrainError(
                f"the loss became {value} at step {self.step}: resume with lower learning rates"
            )
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.step += 1
        return {"loss": value, **{name: float(part.detach()) for name, part in parts.items()}}

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        images = batch.images.to(self.device, memory_format=torch.channels_last)
        if self.teacher is None:
            with self._autocast():
                logits = self.network(images)
            parts = {"labels": self._cross_entropy(logits, batch.labels)}
        else:
            parts, logits = self._imitate(self.teacher, images, batch)
        if self.start is not None and batch.retain.any():
            parts["retain"] = self.config.retain * self._forgotten(images, logits, batch.retain)
        return parts

    def _imitate(
        self, teacher: nn.Module, images: Tensor, batch: Batch
    ) -> tuple[dict[str, Tensor], Tensor]:
        with self._autocast():
            with torch.no_grad():
                wanted: Answer = answer(teacher, images, self.config.stages)
            found = answer(self.network, images, self.config.stages)
        parts = imitation_losses(found, wanted)
        if found.logits is None:
            return parts, images.new_zeros(())
        if self.config.label_weight and bool((batch.labels != IGNORE_LABEL).any()):
            entropy = self._cross_entropy(found.logits, batch.labels)
            parts["labels"] = self.config.label_weight * entropy
        return parts, found.logits

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        # compared at half the crop's side, still twice that of the logits: a fifth less time
        labels = labels.to(self.device)[:, ::2, ::2]
        size = labels.shape[1:]
        full = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
        return F.cross_entropy(full, labels, self.class_weights, ignore_index=IGNORE_LABEL)

    def _forgotten(self, images: Tensor, logits: Tensor, retain: Tensor) -> Tensor:
        """Return how far the answers left the start's: Kullback-Leibler, mean over all samples.

        Li and Hoiem, Learning without Forgetting, arXiv 1606.09282, at temperature 1.
        """
        assert self.start is not None
        with torch.no_grad(), self._autocast():
            wanted = self.start(images[retain])
        divergence = F.kl_div(
            logits[retain].float().log_softmax(1), wanted.float().softmax(1), reduction="none"
        )
        return divergence.sum(1).mean() * retain.float().mean()

    def status(
        self, losses: list[dict[str, float]], speed: float, miou: tuple[float, ...]
    ) -> Status:
        """Return where training stands."""
        values: dict[str, list[float]] = {}
        for parts in losses:
            for name, value in parts.items():
                values.setdefault(name, []).append(value)
        means = {name: sum(found) / len(found) for name, found in values.items()}
        rate = self.config.decoder_rate * schedule_factor(self.config, self.step - 1)
        source, self.source = self.source, None
        loss = means.pop("loss")
        return Status(
            step=self.step, steps=self.config.steps, loss=loss, rate=rate,
            images_per_second=speed, miou=miou, initialized_from=source,
            parts=means if self.teacher is not None else {},
        )  # fmt: skip

    def mean_iou(self, samples: list[Sample]) -> float:
        """Return the mean IoU in % at the deployment size, squashed; NaN without labels."""
        size = (self.config.augmentation.size,) * 2
        self.network.eval()
        confusion = ConfusionMatrix(len(self.classes))
        for sample in samples:
            image, mask = read_sample(sample)
            tensor = torch.from_numpy(normalize(fit_image(image, Fit.SQUASH, size)))
            tensor = tensor.to(self.device, memory_format=torch.channels_last)
            with torch.inference_mode(), self._autocast():
                logits = self.network(tensor)[0].float().cpu().numpy()
            confusion.update(fit_mask(mask, Fit.SQUASH, size), logits_to_labels(logits, size))
        return 100 * confusion.mean_iou()

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        state = {
            "model": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "step": self.step,
            "variant": self.config.variant,
            "seed": self.config.seed,
            "classes": list(self.classes),
        }
        target = self.config.directory / CHECKPOINT
        with _whole(target) as path, path.open("wb") as file:  # torch tells a file's error only
            torch.save(state, file)

    def save_weights(self) -> Path:
        """Write the parameters as float32 safetensors; returns where."""
        tensors = {
            key: value.detach().float().cpu().contiguous()
            for key, value in self.network.state_dict().items()
            if not key.endswith("num_batches_tracked")  # plays no part in inference
        }
        # the export takes the names from here, or checks that its data set's are these
        metadata = {"classes": ",".join(self.classes)} if self.named else None
        target = self.config.directory / WEIGHTS
        with _whole(target) as path:
            save_file(tensors, path, metadata)
        return target

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type,
            self.dtype if self.dtype != torch.float32 else None,
            enabled=self.dtype != torch.float32,
        )

    def _load(self) -> None:
        path = self.config.directory / CHECKPOINT
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            variant, seed = state["variant"], state["seed"]
            classes = tuple(state.get("classes", CLASSES))
        except FileNotFoundError:
            raise TrainError(f"nothing to resume at {path}: start without resume") from None
        except Exception as error:  # torch.load raises anything
            raise TrainError(f"{path} cannot be resumed ({error}): start afresh") from None
        if (variant, seed) != (self.config.variant, self.config.seed):
            raise TrainError(
                f"{path} is a run of {variant} with seed {seed}, not of {self.config.variant} with "
                f"seed {self.config.seed}: pass its own values or another directory"
            )
        if classes != self.classes:
            raise TrainError(
                f"{path} is a run on other classes ({', '.join(classes[:3])}, …; {len(classes)}) "
                f"than those of {self.data_name}: resume on its own data or in another directory"
            )
        self.network.load_state_dict(state["model"])
        peaks = [group["peak"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, peak in zip(self.optimizer.param_groups, peaks, strict=True):
            group["peak"] = peak  # the configuration's, which may differ from the first run's
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """Yield a path to write; it takes the name ``target`` once it is whole."""
    try:
        with replacing(target) as path:
            try:
                yield path
            except RuntimeError as error:  # torch's, of which the disk's may be the cause
                raise (error.__context__ or error) from None
            except SafetensorError as error:
                raise OSError(str(error)) from None
    except DeployError as error:
        raise TrainError(f"{error}: choose a directory with room") from None
