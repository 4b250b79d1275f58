"""What a graph takes and gives besides an image's values and logits."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class Head(StrEnum):
    """What a graph gives of an input H x W pixels large."""

    LOGITS = "logits"  # float32 (1, C, h, w), as the network has them
    UPSAMPLED = "upsampled"  # float32 (1, C, H, W): resized, bilinear, half-pixel centres
    LABELS = "labels"  # uint8 (1, H, W): the class of the largest one, the first of equals


@dataclass(frozen=True, kw_only=True)
class Interface:
    """What a graph takes and gives."""

    head: Head = Head.LOGITS
    embed_preprocessing: bool = False  # takes RGB bytes (1, H, W, 3), not a normalized (1, 3, H, W)

    @property
    def is_plain(self) -> bool:
        """Whether it is what the network itself takes and gives."""
        return self == Interface()

    @property
    def suffix(self) -> str:
        """What is added to names: ``-labels-uint8`` and the like."""
        head = "" if self.head is Head.LOGITS else f"-{self.head}"
        return head + "-uint8" * self.embed_preprocessing

    def path(self, graph: Path) -> Path:
        """Where the graph with this interface stands, beside the plain one."""
        return graph.with_name(f"{graph.stem}{self.suffix}.onnx")
