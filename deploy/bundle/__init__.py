"""A folder that an integrator can take to a device: model, description, checks, instructions."""

from deploy.bundle.build import Bundle, bundle
from deploy.bundle.contents import Precision, Toolchain

__all__ = ["Bundle", "Precision", "Toolchain", "bundle"]
