"""What an accelerator is: the form of its graph, its rules, what executes it, what it is given."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from deploy.calibration.ranges import RangeConfig
from deploy.calibration.record import CalibrationImage
from deploy.calibration.voc import Sample
from deploy.graph.profile import Profile
from deploy.lint.rules import Rule
from deploy.runtimes.litert_tape import Borders
from deploy.runtimes.runner import Runtime
from deploy.targets.vendors import VendorQuantizer

Files = dict[str, bytes | str]


class Precision(StrEnum):
    """Which graph of a network."""

    INT8 = "int8"
    FP16 = "fp16"
    FP32 = "fp32"


@dataclass(frozen=True, kw_only=True)
class Bundled:
    """A graph that is to be bundled for a toolchain."""

    title: str  # such as rf-lw-mbv2-int8
    precision: Precision
    model: onnx.ModelProto  # with the interface that was asked for
    description: Mapping[str, Any]  # model.json
    golden: Mapping[str, NDArray[Any]]  # golden.npz
    folder: Path  # of the plain graph
    socs: tuple[str, ...] = ()  # chips that it is to be compiled for
    borders: Borders = Borders.FLOAT  # what it takes and gives, where a toolchain has the choice


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a toolchain adds to a bundle."""

    files: Files
    start: str  # how to start it: a line of README.md
    check: str  # the command that compares it with golden.npz
    note: str | None = None  # what is not as one would expect
    # model.json and golden.npz of a model that takes and gives other tensors than the graph.
    description: Mapping[str, Any] | None = None
    golden: Mapping[str, NDArray[Any]] | None = None


@dataclass(frozen=True, kw_only=True)
class Toolbox:
    """A toolchain that serves an accelerator's graphs, and its part of a bundle."""

    title: str  # its full name
    write: Callable[[Bundled], Part]
    default_soc: str | None = None  # of a toolchain that compiles for single chips here
    has_borders: bool = False  # whether its models may take and give 8 bits


@dataclass(frozen=True, kw_only=True)
class FloatGraph:
    """What a toolchain that quantizes by itself shall make its graph of, and how."""

    name: str
    path: Path  # of the float graph's file, for messages
    precision: Precision  # of what it makes
    model: onnx.ModelProto
    samples: Sequence[Sample] = ()  # that it calibrates on
    images: Sequence[CalibrationImage] = ()  # what identifies these
    config: RangeConfig | None = None  # how it chooses ranges; None: as it does by default
    options: Mapping[str, Any] = field(default_factory=dict)  # of its own, checked
    ranges: Mapping[str, tuple[float, float]] | None = None  # (low, high) by tensor: of a carrier


@dataclass(frozen=True, kw_only=True)
class HandedOver:
    """What a toolchain that quantizes by itself is given, in a folder."""

    files: Files
    calibrate_mode: str | None  # its own word for how it will choose ranges; None: it needs none


@dataclass(frozen=True, kw_only=True)
class Handing:
    """How a toolchain that quantizes by itself is given its work.

    Attributes:
        precisions: that it makes of a float graph.
        write: raises GraphError or DeployError where it cannot be given that.
        check_options: raises DeployError for options of its own that it does not know.
    """

    precisions: tuple[Precision, ...]
    write: Callable[[FloatGraph], HandedOver]
    check_options: Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """What graphs are made for: ``--target``."""

    name: str
    runtime: str  # what executes its graphs where they are deployed, in words
    source: str  # where profile and rules come from
    profile: Profile | None = None  # the form of its INT8 graph; None: it quantizes by itself
    rules: tuple[Rule, ...] = ()  # that its INT8 graph must keep
    chips: Mapping[str, tuple[Rule, ...]] = field(default_factory=dict)  # more rules, chip by chip
    executed_by: Runtime | None = None  # here, in its own arithmetic; None: nothing here can
    measured_in: frozenset[Runtime] = frozenset()  # others that its graph is measured in, too
    also_for: frozenset[str] = frozenset()  # others that compute its graph in integers, too
    toolchains: Mapping[str, Toolbox] = field(default_factory=dict)  # of bundles, by name
    vendor: VendorQuantizer | None = None  # the toolchain's own, for its INT8 graph
    hand_over: Handing | None = None  # in place of an INT8 graph

    def folder(self, precision: Precision) -> str:
        """Return the name of the folder with what it is given, such as vacc or vacc-fp16."""
        return self.name if precision is Precision.INT8 else f"{self.name}-{precision}"
