"""All that an INT8 graph is made of, so that graphs with other float nodes cost nothing new."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import onnx

from deploy.calibration import Method, RangeConfig, choose_method, choose_range
from deploy.calibration.preprocess import Float32Array
from deploy.calibration.statistics import TensorStatistics
from deploy.graph.graph import Graph
from deploy.graph.profile import Profile
from deploy.graph.requantized import keep_in_float
from deploy.quantize.carrier import Carrier, carry
from deploy.quantize.int8 import Ranges, nearest_weights, quantize_int8
from deploy.quantize.placement import Placement, place
from deploy.quantize.recipe import Recipe
from deploy.quantize.rewrite import rewrite
from deploy.quantize.weights import ImprovedWeights, improve_weights, with_biases


@dataclass(frozen=True, kw_only=True)
class Int8Plan:
    """A float graph with ranges and integer weights for all that can be quantized."""

    graph: Graph
    profile: Profile
    recipe: Recipe
    ranges: Ranges
    methods: Mapping[str, Method]  # how the range of each tensor was chosen
    improved: ImprovedWeights

    def build(self, exclude: Collection[str] = frozenset()) -> tuple[onnx.ModelProto, Placement]:
        """Return the QDQ graph and what it quantizes; nodes named in ``exclude`` stay float.

        Raises:
            GraphError: a node in ``exclude`` cannot stay float by itself.
        """
        placement = place(self.graph, self.profile, exclude)
        quantized = set(placement.nodes)
        biases = {k: v for k, v in self.improved.biases.items() if k in quantized}
        graph = with_biases(self.graph, biases) if biases else self.graph
        weights = self.improved.weights
        model = quantize_int8(graph, placement, self.ranges, self.profile, weights)
        return rewrite(keep_in_float(model), self.profile), placement

    def carrier(self, exclude: Collection[str] = frozenset()) -> Carrier:
        """Return the same as a float graph with ranges; raises GraphError as :meth:`build`."""
        placement = place(self.graph, self.profile, exclude)
        improved = self.improved
        return carry(self.graph, placement, self.ranges, improved.weights, improved.biases)


def plan_int8(
    graph: Graph,
    statistics: Mapping[str, TensorStatistics],
    images: Sequence[Float32Array],
    *,
    config: RangeConfig,
    profile: Profile,
    recipe: Recipe,
    improve: Callable[..., ImprovedWeights] = improve_weights,
) -> Int8Plan:
    """Choose ranges and integer weights.

    Args:
        graph: the float graph.
        statistics: of every tensor that the default placement observes.
        images: inputs (1, 3, H, W) for the levers that need them; may be empty for a recipe that
            does not.
        config: how ranges are chosen.
        profile: the target's.
        recipe: the levers on weights; equalization is the caller's, as it changes ``statistics``.
        improve: pulls them, or knows what that gave before (LeversFolder).
    """
    placement = place(graph, profile)
    methods = {name: choose_method(statistics[name], config) for name in placement.observed}
    ranges = {
        name: choose_range(statistics[name], replace(config, method=method))
        for name, method in methods.items()
    }
    weights = nearest_weights(graph, placement, ranges, profile)
    improved = ImprovedWeights(weights=weights, biases={}, gain_db={})
    if recipe.improves_weights:
        improved = improve(
            graph,
            weights,
            images,
            method=recipe.rounding,
            correct_biases=recipe.correct_biases,
            weight_max=profile.weight_max,
            largest=recipe.largest,
        )
    return Int8Plan(
        graph=graph,
        profile=profile,
        recipe=recipe,
        ranges=ranges,
        methods=methods,
        improved=improved,
    )
