"""What the network is shown: data, preprocessing, and the statistics of its activations."""

from deploy.calibration.dataset import IGNORE_LABEL, DataSet
from deploy.calibration.errors import CalibrationError, DataError
from deploy.calibration.observe import observe
from deploy.calibration.preprocess import Fit, logits_to_labels, preprocess
from deploy.calibration.ranges import Method, RangeConfig, choose_method, choose_range
from deploy.calibration.record import (
    Calibration,
    CalibrationImage,
    CalibrationKey,
    merge_calibrations,
    read_calibration,
)
from deploy.calibration.statistics import TensorStatistics
from deploy.calibration.voc import (
    CLASSES,
    PALETTE,
    Sample,
    describe_data_set,
    find_voc_root,
    read_split,
)

__all__ = [
    "CLASSES",
    "IGNORE_LABEL",
    "PALETTE",
    "Calibration",
    "CalibrationError",
    "CalibrationImage",
    "CalibrationKey",
    "DataError",
    "DataSet",
    "Fit",
    "Method",
    "RangeConfig",
    "Sample",
    "TensorStatistics",
    "choose_method",
    "choose_range",
    "describe_data_set",
    "find_voc_root",
    "logits_to_labels",
    "merge_calibrations",
    "observe",
    "preprocess",
    "read_calibration",
    "read_split",
]
