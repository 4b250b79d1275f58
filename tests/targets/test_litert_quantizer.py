"""LiteRT's own quantizer in the form of a QDQ graph: the very integers of its file."""

from pathlib import Path

import numpy as np
import onnx
from graphs import refine_model
from PIL import Image
from toolchains import needs_litert

from deploy.calibration.voc import Sample
from deploy.graph.canonical import canonical
from deploy.graph.graph import Graph, with_node_names
from deploy.runtimes.litert_files import file_of
from deploy.runtimes.litert_model import translate
from deploy.targets import litert_quantizer as room


@needs_litert
def test_translated_back_it_is_the_same_file(tmp_path: Path) -> None:
    model = with_node_names(canonical(refine_model()))
    images = np.random.default_rng(0).standard_normal((3, 1, 3, 16, 16), dtype=np.float32)
    Image.new("RGB", (8, 8)).save(tmp_path / "it.png")
    samples = [
        Sample(name=str(i), image=tmp_path / f"{i}.png", mask=tmp_path / "it.png") for i in range(3)
    ]
    made = room.quantize(
        file_of(translate(model)),
        Graph(model).input.name,
        samples,
        lambda sample: images[int(sample.image.stem)],
    )
    graph = room.with_integers(model, made)
    onnx.checker.check_model(graph, full_check=True)
    again = translate(graph)
    activations, convolutions = room._read(made)
    ours_activations, ours_convolutions = room._read(file_of(again))
    assert len(convolutions) == 4
    assert set(convolutions) <= set(activations)
    for theirs, ours in zip(convolutions.values(), ours_convolutions.values(), strict=True):
        for expected, found in zip(theirs, ours, strict=True):
            np.testing.assert_array_equal(found.scale, expected.scale)
            assert expected.data is not None
            assert found.data is not None
            np.testing.assert_array_equal(found.data, expected.data)
    for name, expected in activations.items():
        if "padded" not in name:
            found = ours_activations[f"{name}_quantized"]
            assert (found.scale, found.zero_point) == (expected.scale, expected.zero_point)
