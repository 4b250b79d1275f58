"""What every runtime offers: a network that is ready to run, and what it made of the graph."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from deploy.calibration.preprocess import Float32Array
from deploy.errors import DeployError, GraphError


class Runtime(StrEnum):
    """What runs ONNX graphs."""

    ONNXRUNTIME = "onnxruntime"
    ONNXRUNTIME_ARM = "onnxruntime-arm"
    OPENVINO = "openvino"
    QNN = "qnn"
    NCNN = "ncnn"
    LITERT = "litert"
    SOPHGO = "sophgo"
    ROCKCHIP = "rockchip"


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a runtime executes a graph: what really computes in integers.

    ``footprint`` is what an accelerator's compiler tells of memory, bytes: ``ddr_read_bytes`` and
    ``ddr_write_bytes`` an image, ``fast_memory_bytes`` on the chip, ``context_bytes`` of the
    compiled graph. ``device`` is what is told of the device itself: ``estimated_ms`` an image by
    the compiler, and of ``images`` that ran in a slower, closer simulation of it the ``agreement``
    (0…1) and ``sqnr_db`` of the two; it may grow while the runner runs.
    """

    integer_convolutions: int
    float_convolutions: tuple[str, ...]  # their names
    float_nodes: dict[str, tuple[str, ...]]  # operator -> names; of those that are no convolutions
    conversions: int  # between float and integers, at every run
    footprint: Mapping[str, int] | None = None
    device: Mapping[str, float] | None = None

    @property
    def convolutions(self) -> int:
        """How many there are."""
        return self.integer_convolutions + len(self.float_convolutions)


class Runner(Protocol):
    """A network that is ready to run.

    ``timed`` is what its latency is taken from where that is another one than gives the logits.
    ``default`` has the options by which applications begin, where these compute something else on
    this processor than the graph says.
    """

    name: str  # of what runs, for messages: a file's path, or words
    timed: "Runner | None"
    default: "Runner | None"

    def __call__(self, image: Float32Array) -> Float32Array:
        """Map a normalized image (1, 3, H, W) to logits (C, h, w), both float32."""
        ...

    def execution(self) -> Execution | None:
        """Return what of the network computes in integers; None where nothing can."""
        ...


@dataclass(frozen=True, kw_only=True)
class Backend:
    """A runtime for ONNX files.

    Attributes:
        runtime: its name.
        open: (file, threads, exact) -> runner. With ``exact`` 8-bit convolutions compute what the
            graph says; else they do what they do by default. Without threads there is one for each
            processor that this process may use.
        exact_options: what the runtime is told so that 8-bit convolutions do not saturate on this
            processor; None where they do not.
        exact_in_8_bits: whether it has exact 8-bit kernels then. Else the exact ones are float
            ones, which nobody would deploy: latency is that of the default ones.
        require: raises DeployError if it is not installed.
        takes_others: whether it executes graphs that are made for other runtimes.
        soc: the chip that it emulates; None where it runs on this processor. An emulator's time
            says nothing of the chip's.
        on: returns the same for a chip by its name; raises DeployError if it knows none of it.
    """

    runtime: Runtime
    open: Callable[[Path, int | None, bool], Runner]
    require: Callable[[], object]
    exact_options: Callable[[], str | None] = lambda: None
    exact_in_8_bits: bool = True
    takes_others: bool = True
    soc: str | None = None
    on: "Callable[[str], Backend] | None" = None


def check_chip(name: str, known: Collection[str]) -> None:
    """Refuse a chip that a runtime does not emulate; raises DeployError."""
    if name not in known:
        raise DeployError(f"no chip {name!r}: choose one of {', '.join(known)}")


def cannot(verb: str, runtime: str, name: str, error: Exception) -> GraphError:
    """Return the error for a graph that a runtime cannot load or run."""
    return GraphError(f"{runtime} cannot {verb} {name}: {' '.join(str(error).split())[:200]}")


def check_signature(
    name: str, are_float: Sequence[bool], output_shapes: Sequence[Sequence[object]]
) -> None:
    """Refuse what is not one float image in, logits (1, classes, h, w) out; raises GraphError."""
    if list(are_float) != [True]:
        raise GraphError(f"{name} does not take one float image: it cannot be evaluated")
    if len(output_shapes) != 1:
        raise GraphError(f"{name} has {len(output_shapes)} outputs: the logits alone are expected")
    if len(output_shapes[0]) != 4:
        raise GraphError(
            f"{name} gives an output of shape {list(output_shapes[0])}: logits (1, classes, h, w) "
            "are expected"
        )


def by_operator(pairs: Iterable[tuple[str, str]]) -> dict[str, tuple[str, ...]]:
    """Return names by operator, of (operator, name), the most frequent operator first."""
    found: dict[str, tuple[str, ...]] = {}
    for operator, name in pairs:
        found[operator] = (*found.get(operator, ()), name)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))
