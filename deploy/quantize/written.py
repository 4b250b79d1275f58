"""What a quantization wrote."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MIN_FP16_SQNR = 60.0  # dB, of the logits


@dataclass(frozen=True, kw_only=True)
class QuantizedGraph:
    """What a quantization wrote, or found to be there already."""

    target: str
    precision: str
    path: Path
    size_bytes: int
    quantized_nodes: int
    kept_float: dict[str, str]  # node -> reason
    calibration_reused: bool
    reused: bool = False  # the graph itself was there
    methods: dict[str, str] = field(default_factory=dict)  # tensor -> what `auto` chose for it
    recipe: str | None = None
    sqnr_db: float | None = None  # of FP16's logits, on the worst of a few calibration images
    shortfall: str | None = None  # by how much FP16 misses what was asked, and what limits it
    gate: dict[str, Any] | None = None  # what gate.json holds, where a gate was asked for
    quantizer: str | None = None  # what made it, where that was not ours
    wrapped: Path | None = None  # the same graph with the interface that was asked for

    @property
    def missed_gate(self) -> bool:
        """Whether a gate was asked for and does not hold."""
        return self.gate is not None and not self.gate["held"]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a quantized graph's metadata say of it."""

    quantized_nodes: int
    kept_float: dict[str, str]
    sqnr_db: float | None = None
    shortfall: str | None = None


@dataclass(frozen=True, kw_only=True)
class HandedFolder:
    """What was written for a toolchain that quantizes by itself."""

    target: str
    path: Path  # of the folder
    size_bytes: int
    precision: str  # that it will make of the graph
    images: int  # that calibrate; none for FP16
    calibrate_mode: str | None
    recipe: str | None = None  # of the carrier that takes the float graph's place, if one does
