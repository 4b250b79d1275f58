"""The loop: batches in, checkpoints and parameters out."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from deploy.calibration.voc import pick
from deploy.store.files import remove_stale
from deploy.training.config import Status, TrainConfig
from deploy.training.data import Batches
from deploy.training.run import Run

Progress = Callable[[Status], None]


def train(config: TrainConfig, progress: Progress | None = None) -> Path:
    """Train a network; returns the path of its parameters (float32 safetensors).

    Killed at any moment, it goes on from the last checkpoint with ``resume=True``: with the same
    samples and the same schedule, or a stretched one where ``steps`` was changed.

    Raises:
        TrainError: there is nothing to resume, a file cannot be written, or the loss is not finite.
        ModelError: ``init`` does not fit the variant.
        calibration.errors.DataError: a data set cannot be read.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    remove_stale(config.directory)
    run = Run(config)
    batches = Batches(config.data, config.augmentation, config.batch_size, config.seed)
    validation = [pick(root.samples(), config.validation_images) for root in config.validation]
    report = progress or (lambda status: None)
    saved = measured = noted = time.monotonic()
    losses: list[dict[str, float]] = []
    stream = batches.stream(run.step, config.steps, config.workers)
    for batch in stream:
        losses.append(run.advance(batch))
        now, last = time.monotonic(), run.step == config.steps
        validate = last or now - measured > 60 * config.validation_minutes
        if validate or len(losses) >= 20:
            speed = len(losses) * config.batch_size / max(now - noted, 1e-9)
            miou = tuple(run.mean_iou(samples) for samples in validation) if validate else ()
            report(run.status(losses, speed, miou))
            losses, noted = [], time.monotonic()
            measured = noted if validate else measured
        if last or now - saved > 60 * config.checkpoint_minutes:
            run.save()
            saved = time.monotonic()
    return run.save_weights()
