"""Which nodes must stay FP32 so that the logits of a half-precision graph keep what was asked."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import onnx

from deploy.graph.graph import Graph
from deploy.quantize.fp16 import HalfGraph, convert_fp16

LEADING = "one of the first nodes, whose rounding all others amplify"
NOISIEST = "among the nodes whose rounding costs most"
MOST = 4  # the share of the nodes, one in so many, that may stay FP32 for accuracy

Sqnr = Callable[[onnx.ModelProto], float]  # of a half-precision graph's logits, dB


@dataclass(frozen=True, kw_only=True)
class Found:
    """A half-precision graph and what it keeps."""

    half: HalfGraph
    sqnr_db: float  # -inf where a logit is not finite
    shortfall: str | None = None  # by how much it misses what was asked, and what limits it


def convert_within(
    graph: Graph, magnitudes: Mapping[str, float], sqnr: Sqnr, wanted: float
) -> Found:
    """Return ``graph`` in half precision but for few nodes, so that its logits keep ``wanted``.

    What the first layers round, all later ones amplify: the fewest leading nodes stay FP32 that
    suffice; where none do, a run of nodes elsewhere, at most a quarter of all. Where that does not
    suffice either, none does for accuracy's sake, for it would be of no use.

    Args:
        graph: a float graph; not changed.
        magnitudes: as of :func:`deploy.quantize.fp16.convert_fp16`.
        sqnr: measures a half-precision graph's logits against the float graph's, in dB.
        wanted: the least that it shall give.
    """
    return _Search(graph, magnitudes, sqnr, wanted).run()


class _Search:
    def __init__(
        self, graph: Graph, magnitudes: Mapping[str, float], sqnr: Sqnr, wanted: float
    ) -> None:
        self.graph, self.magnitudes, self.sqnr, self.wanted = graph, magnitudes, sqnr, wanted
        self.names = [node.name for node in graph.model.graph.node]
        self.most = len(self.names) // MOST

    def run(self) -> Found:
        plain = self.try_run(0, 0)
        if self.holds(plain) or not self.most:
            return self.judged(plain, plain, (0, 0))
        leading = self.fewest_leading()
        if leading is not None:
            return leading
        starts = range(0, len(self.names) - self.most + 1, max(1, self.most // 2))
        tried = {start: self.try_run(start, start + self.most) for start in starts}
        start = max(tried, key=lambda s: tried[s].sqnr_db)
        if not self.holds(tried[start]):
            return self.judged(plain, tried[start], (start, start + self.most))
        return self.shrunk(start, start + self.most)

    def try_run(self, start: int, end: int) -> Found:
        """Return the graph in which the nodes ``start`` to ``end`` stay FP32, too."""
        reason = LEADING if start == 0 else NOISIEST
        kept = dict.fromkeys(self.names[start:end], reason)
        half = convert_fp16(self.graph, self.magnitudes, kept)
        return Found(half=half, sqnr_db=self.sqnr(half.model))

    def holds(self, found: Found) -> bool:
        return found.sqnr_db >= self.wanted

    def fewest_leading(self) -> Found | None:
        """Return the graph with the fewest leading nodes that suffice, if up to a quarter do."""
        best = self.try_run(0, self.most)
        if not self.holds(best):
            return None  # nor would fewer
        too_few, enough = 0, self.most
        while enough - too_few > 1:
            # often one or two suffice: twice as many as were too few, before halving what is left
            middle = min(max(1, 2 * too_few), (too_few + enough) // 2)
            candidate = self.try_run(0, middle)
            if self.holds(candidate):
                best, enough = candidate, middle
            else:
                too_few = middle
        return best

    def shrunk(self, start: int, end: int) -> Found:
        """Return the graph with as short a run inside ``start`` to ``end`` as suffices."""
        last_start, first_end = start, end
        step = self.most // 2
        while step:
            if last_start + step < first_end and self.holds(self.try_run(last_start + step, end)):
                last_start += step
            step //= 2
        step = (end - last_start) // 2
        while step:
            if self.holds(self.try_run(last_start, first_end - step)):
                first_end -= step
            step //= 2
        return self.try_run(last_start, first_end)

    def judged(self, plain: Found, best: Found, best_run: tuple[int, int]) -> Found:
        """Return the plain graph, with what it lacks and what would gain most."""
        if self.holds(plain):
            return plain
        text = f"{self.wanted - plain.sqnr_db:.1f} dB below the {self.wanted:g} asked"
        if not math.isfinite(plain.sqnr_db):
            text = "a logit is not finite"
        start, end = best_run
        if best.sqnr_db > plain.sqnr_db:
            text += (
                f"; with {self.names[start]} to {self.names[end - 1]} "
                f"({end - start} nodes, the most that may stay FP32 for accuracy) it would have "
                f"{best.sqnr_db:.1f}"
            )
        else:
            text += "; no run of nodes kept FP32 gains anything"
        return replace(plain, shortfall=text)
