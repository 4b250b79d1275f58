"""A folder that an integrator can take to a device: model, description, checks, instructions."""

from deploy.bundle.build import Bundle, bundle
from deploy.bundle.contents import Toolchain
from deploy.targets.accelerator import Precision

__all__ = ["Bundle", "Precision", "Toolchain", "bundle"]
