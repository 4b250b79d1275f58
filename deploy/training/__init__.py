"""The training recipe: any variant, from a backbone or a checkpoint, on data in VOC's layout."""

from deploy.training.config import Status, TrainConfig, TrainError
from deploy.training.data import Augmentation, Batches, DataRoot
from deploy.training.run import CHECKPOINT, WEIGHTS
from deploy.training.train import train

__all__ = [
    "CHECKPOINT",
    "WEIGHTS",
    "Augmentation",
    "Batches",
    "DataRoot",
    "Status",
    "TrainConfig",
    "TrainError",
    "train",
]
