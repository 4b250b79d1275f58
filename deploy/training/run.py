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
from deploy.models import build, count_classes
from deploy.models.checkpoint import read_state_dict
from deploy.models.initialize import decoder_keys, initialize
from deploy.store.files import replacing
from deploy.training.config import Status, TrainConfig, TrainError
from deploy.training.data import Batch
from deploy.validate.classes import check_same_classes
from deploy.validate.metrics import ConfusionMatrix

CHECKPOINT = "checkpoint.pt"  # everything that resuming needs; also readable as a checkpoint
WEIGHTS = "weights.safetensors"  # the parameters after the last step


class Run:
    """The state of training: network, optimizer, number of steps done."""

    def __init__(self, config: TrainConfig) -> None:
        self.config, self.step = config, 0
        self.device = torch.device(config.device)
        self.dtype = autocast_dtype(self.device, config.precision)
        self.data = config.data[0].describe()
        check_same_classes([root.describe() for root in (*config.data, *config.validation)])
        self.network = build(config.variant, len(self.data.classes))
        self.source: str | None = "the run's own checkpoint"
        if not config.resume:
            self.source = initialize(self.network, config.init, config.seed)
        self.teacher = self._start() if config.retain else None
        # channels_last: six times faster than the default for MobileNetV2 on a CPU with AMX
        freeze_stages(self.network, config.frozen_stages)
        self.network.to(self.device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # not in stubs
        self.optimizer = torch.optim.AdamW(_parameter_groups(self.network, config))
        self.class_weights = torch.ones(len(self.data.classes), device=self.device)
        self.class_weights[0] = config.background_weight
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        if config.resume:
            self._load()

    def _start(self) -> nn.Module:
        """Return the network as it was before training; its answers must be of the same classes."""
        classes = len(self.data.classes)
        network = build(self.config.variant, classes)
        init = self.config.init
        found = count_classes(read_state_dict(init)) if init else None
        if found not in (None, classes):
            raise TrainError(
                f"retain: {init} answers with {found} classes, but {self.data.name} has {classes}"
            )
        initialize(network, init, self.config.seed)
        network.eval().requires_grad_(False).to(self.device)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload] # not in stubs
        return network

    def advance(self, batch: Batch) -> float:
        """Take one step of the optimizer; returns the loss before it."""
        config = self.config
        torch.manual_seed(config.seed * 1_000_003 + self.step)  # dropout's, alike when resumed
        factor = schedule_factor(config, self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        _training_mode(self.network, config)
        images = batch.images.to(self.device, memory_format=torch.channels_last)
        labels = batch.labels.to(self.device)
        with self._autocast():
            logits = self.network(images)
        # compared at half the crop's side, still twice that of the logits: a fifth less time
        labels = labels[:, ::2, ::2]
        size = labels.shape[1:]
        full = F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)
        loss = F.cross_entropy(full, labels, self.class_weights, ignore_index=IGNORE_LABEL)
        if self.teacher is not None and batch.retain.any():
            loss = loss + config.retain * self._forgotten(images, logits, batch.retain)
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
        return value

    def _forgotten(self, images: Tensor, logits: Tensor, retain: Tensor) -> Tensor:
        """Return how far the answers left the start's: Kullback-Leibler, mean over all samples.

        Li and Hoiem, Learning without Forgetting, arXiv 1606.09282, at temperature 1.
        """
        assert self.teacher is not None
        with torch.no_grad(), self._autocast():
            wanted = self.teacher(images[retain])
        divergence = F.kl_div(
            logits[retain].float().log_softmax(1), wanted.float().softmax(1), reduction="none"
        )
        return divergence.sum(1).mean() * retain.float().mean()

    def status(self, losses: list[float], speed: float, miou: tuple[float, ...]) -> Status:
        """Return where training stands."""
        rate = self.config.decoder_rate * schedule_factor(self.config, self.step - 1)
        source, self.source = self.source, None
        loss = sum(losses) / len(losses)
        return Status(
            step=self.step, steps=self.config.steps, loss=loss, rate=rate,
            images_per_second=speed, miou=miou, initialized_from=source,
        )  # fmt: skip

    def mean_iou(self, samples: list[Sample]) -> float:
        """Return the mean IoU in % at the deployment size, squashed; NaN without labels."""
        size = (self.config.augmentation.size,) * 2
        self.network.eval()
        confusion = ConfusionMatrix(len(self.data.classes))
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
            "classes": list(self.data.classes),
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
        metadata = {"classes": ",".join(self.data.classes)} if self.data.own else None
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
        if classes != self.data.classes:
            raise TrainError(
                f"{path} is a run on other classes ({', '.join(classes[:3])}, …; {len(classes)}) "
                f"than those of {self.data.name}: resume on its own data or in another directory"
            )
        self.network.load_state_dict(state["model"])
        peaks = [group["peak"] for group in self.optimizer.param_groups]
        self.optimizer.load_state_dict(state["optimizer"])
        for group, peak in zip(self.optimizer.param_groups, peaks, strict=True):
            group["peak"] = peak  # the configuration's, which may differ from the first run's
        self.scaler.load_state_dict(state["scaler"])
        self.step = state["step"]


def autocast_dtype(device: torch.device, precision: str) -> torch.dtype:
    """Return the type in which convolutions are computed; "auto" is what the hardware is fast at.

    That is bfloat16 on GPUs that have it (float16 on others) and on CPUs with AVX-512 or AMX
    instructions for it: two and more times as fast there, where others are slower.
    """
    if precision != "auto":
        return {"float32": torch.float32, "float16": torch.float16}.get(precision, torch.bfloat16)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    capabilities = torch.cpu.get_capabilities()
    fast = capabilities.get("avx512_bf16", False) or capabilities.get("amx_bf16", False)
    return torch.bfloat16 if fast else torch.float32


def schedule_factor(config: TrainConfig, step: int) -> float:
    """Return the share of the highest learning rate at ``step``: a linear warm-up, then decay."""
    if step < config.warmup:
        return (step + 1) / (config.warmup + 1)
    done = min(1.0, (step - config.warmup) / max(1, config.steps - config.warmup))
    if config.schedule == "poly":
        return math.pow(1 - done, 0.9)  # Chen et al., DeepLab, arXiv 1606.00915
    return 0.5 + 0.5 * math.cos(math.pi * done)  # Loshchilov and Hutter, arXiv 1608.03983


def _parameter_groups(network: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Return encoder and decoder parameters by rate; only kernels decay."""
    decoder = decoder_keys(network)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        peak = config.decoder_rate if name in decoder else config.encoder_rate
        decay = config.weight_decay if parameter.dim() > 1 else 0.0
        groups.setdefault((peak, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": peak, "peak": peak, "weight_decay": decay}
        for (peak, decay), parameters in groups.items()
    ]


def freeze_stages(network: nn.Module, stages: int) -> None:
    """Take the encoder's first ``stages`` layers, and what stands before, out of training.

    Raises:
        TrainError: the encoder has fewer layers.
    """
    parts = [
        name for name, _ in network.named_children() if name.startswith(("conv1", "bn1", "layer"))
    ]
    if stages and f"layer{stages}" not in parts:
        raise TrainError(f"frozen_stages is {stages}: the encoder's last stage is {parts[-1]}")
    for name in parts[: parts.index(f"layer{stages}") + 1 if stages else 0]:
        network.get_submodule(name).requires_grad_(False)


def _training_mode(network: nn.Module, config: TrainConfig) -> None:
    network.train()
    for module in network.modules():
        frozen = config.freeze_statistics or not all(p.requires_grad for p in module.parameters())
        silent = isinstance(module, nn.Dropout) and not config.dropout
        if silent or (frozen and isinstance(module, nn.BatchNorm2d)):
            module.eval()


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
