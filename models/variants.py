"""The networks of the two papers, and the figures that others published for them."""

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from deploy.models.errors import ModelError

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One network of the family; mIoU in % on VOC2012 val, as the sources quote it.

    None where nothing of the kind was published for VOC's 21 classes.
    """

    full_name: str
    upstream_file: str | None = None  # the reference checkpoint's file name
    published_miou: float | None = None  # single scale, the paper's or its repository's
    vacc_fp16_miou: float | None = None  # VACC model zoo: squash to 500x500
    vacc_int8_miou: float | None = None
    parameters: int  # of 21 classes: learnable scalars (models/cost.py)
    macs: int  # of one image 3 x 500 x 500: multiply-accumulates of all convolutions
    network: str = "RefineNet"  # its class in refinenet.py
    depth: int | None = None  # of a RefineNet's ResNet
    lightweight: bool = True

    def factory(self, num_classes: int) -> "nn.Module":
        """Return the network with torch's default initial parameters; loads torch."""
        network = getattr(import_module("deploy.models.refinenet"), self.network)
        module: nn.Module = (
            network(num_classes)
            if self.depth is None
            else network(self.depth, num_classes, lightweight=self.lightweight)
        )
        return module


VARIANTS: dict[str, Variant] = {
    "rf50": Variant(
        full_name="RefineNet-ResNet50",
        depth=50,
        lightweight=False,
        parameters=99_060_309,
        macs=234_575_073_280,
    ),
    "rf101": Variant(
        full_name="RefineNet-ResNet101",
        upstream_file="rf101_voc.pth.tar",
        published_miou=80.5,
        vacc_fp16_miou=78.037,
        vacc_int8_miou=76.935,
        depth=101,
        lightweight=False,
        parameters=118_052_437,
        macs=253_969_534_976,
    ),
    "rf152": Variant(
        full_name="RefineNet-ResNet152",
        depth=152,
        lightweight=False,
        parameters=133_696_085,
        macs=273_222_504_448,
    ),
    "rf-lw50": Variant(
        full_name="RefineNet-LW-ResNet50",
        upstream_file="rf_lw50_voc.pth.tar",
        published_miou=78.5,
        vacc_fp16_miou=80.270,
        vacc_int8_miou=80.144,
        depth=50,
        parameters=27_357_525,
        macs=31_194_058_752,
    ),
    "rf-lw101": Variant(
        full_name="RefineNet-LW-ResNet101",
        upstream_file="rf_lw101_voc.pth.tar",
        published_miou=80.3,
        vacc_fp16_miou=77.702,
        vacc_int8_miou=77.188,
        depth=101,
        parameters=46_349_653,
        macs=50_588_520_448,
    ),
    "rf-lw152": Variant(
        full_name="RefineNet-LW-ResNet152",
        upstream_file="rf_lw152_voc.pth.tar",
        published_miou=82.1,
        vacc_fp16_miou=79.602,
        vacc_int8_miou=79.090,
        depth=152,
        parameters=61_993_301,
        macs=69_841_489_920,
    ),
    "rf-lw-nasnet": Variant(
        full_name="RefineNet-LW-NASNet-A-Mobile",
        network="NASNetRefineNet",
        parameters=6_010_919,
        macs=10_322_395_920,
    ),
    "rf-lw-mbv2": Variant(
        full_name="RefineNet-LW-MobileNetv2",
        network="MobileRefineNet",
        upstream_file="rf_lwmbv2_voc.pth.tar",
        published_miou=76.2,
        vacc_fp16_miou=74.483,
        vacc_int8_miou=72.840,
        parameters=3_284_565,
        macs=8_271_691_008,
    ),
}

VOC_CLASSES = 21  # of the networks as published, the background being one
MAX_CLASSES = 255  # masks have 8 bits, and one label is for what is ignored
DEFAULT_VARIANT = "rf-lw-mbv2"  # the one whose trained parameters come with the repository


def find_variant(variant_id: str) -> Variant:
    """Return ``VARIANTS[variant_id]``; raises ModelError that lists the ids for an unknown one."""
    if variant_id not in VARIANTS:
        raise ModelError(f"no variant {variant_id!r}: choose one of {', '.join(VARIANTS)}")
    return VARIANTS[variant_id]


def build(variant_id: str, num_classes: int = VOC_CLASSES) -> "nn.Module":
    """Build a network in evaluation mode, with torch's default initial parameters.

    It maps (N, 3, H, W) float32 of any H and W to logits (N, num_classes, ceil(H/4), ceil(W/4)).

    Raises:
        ModelError: the variant is unknown or ``num_classes`` is below 1 or above 255.
    """
    if num_classes < 1:
        raise ModelError(f"num_classes is {num_classes}: it must be at least 1")
    if num_classes > MAX_CLASSES:
        raise ModelError(f"num_classes is {num_classes}: masks of 8 bits hold {MAX_CLASSES}")
    return find_variant(variant_id).factory(num_classes).eval()
