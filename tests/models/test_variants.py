import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deploy.models import DEFAULT_VARIANT, VARIANTS, ModelError, build, count_macs, count_parameters

UPSTREAM = Path(__file__).parents[1] / "data" / "upstream"
PARAMETERS = {
    "rf50": 99_060_309,
    "rf101": 118_052_437,
    "rf152": 133_696_085,
    "rf-lw50": 27_357_525,
    "rf-lw101": 46_349_653,
    "rf-lw152": 61_993_301,
    "rf-lw-nasnet": 6_010_919,
    "rf-lw-mbv2": 3_284_565,
}
GIGA_MACS = {  # of the convolutions, for one image 3x500x500
    "rf50": 234.575,
    "rf101": 253.970,
    "rf152": 273.223,
    "rf-lw50": 31.194,
    "rf-lw101": 50.589,
    "rf-lw152": 69.842,
    "rf-lw-nasnet": 10.322,
    "rf-lw-mbv2": 8.272,
}
UPSTREAM_FILES = {
    "rf101": "rf101_voc.pth.tar",
    "rf-lw50": "rf_lw50_voc.pth.tar",
    "rf-lw101": "rf_lw101_voc.pth.tar",
    "rf-lw152": "rf_lw152_voc.pth.tar",
    "rf-lw-mbv2": "rf_lwmbv2_voc.pth.tar",
}
NEVER_PUBLISHED = {"rf50", "rf152", "rf-lw-nasnet"}  # with the 21 classes of VOC
REFERENCES = [key for key in PARAMETERS if key != "rf-lw-nasnet"]  # with an output of the whole
LARGE = ("rf50", "rf101", "rf152")

each_variant = pytest.mark.parametrize("variant_id", list(PARAMETERS))


def build_on_meta(variant_id: str, num_classes: int = 21) -> nn.Module:
    """Build a network of shapes without values."""
    with torch.device("meta"):
        return build(variant_id, num_classes)


@functools.cache
def shared_network(variant_id: str) -> nn.Module:
    """Return a network of shapes that several tests look at and none changes."""
    return build_on_meta(variant_id)


def fill_by_rule(shapes: dict[str, list[int]], seed: int) -> dict[str, Tensor]:
    """Return the parameters that the golden outputs were computed with."""
    generator = np.random.default_rng(seed)
    state = {}
    for key in sorted(shapes):
        shape = shapes[key]
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(0)
            continue
        if key.endswith("running_var"):
            value = generator.uniform(0.5, 1.5, shape)
        elif key.endswith("running_mean"):
            value = generator.normal(0, 0.1, shape)
        elif len(shape) == 4:
            value = generator.normal(0, 1, shape) * np.sqrt(1 / np.prod(shape[1:]))
        elif key.endswith("weight"):
            value = generator.uniform(0.5, 1.5, shape)
        else:
            value = generator.normal(0, 0.1, shape)
        state[key] = torch.from_numpy(value.astype(np.float32))
    return state


def upstream_shapes(variant_id: str) -> dict[str, list[int]]:
    content = json.loads((UPSTREAM / f"{variant_id}.json").read_text(encoding="utf-8"))
    shapes: dict[str, list[int]] = content["state_dict"]
    return shapes


def test_variants_are_those_of_the_papers_and_hold_their_default() -> None:
    assert list(VARIANTS) == list(PARAMETERS)
    files = {key: variant.upstream_file for key, variant in VARIANTS.items()}
    assert files == {**UPSTREAM_FILES, **dict.fromkeys(NEVER_PUBLISHED)}
    assert DEFAULT_VARIANT in VARIANTS


def test_what_was_never_published_has_no_figures() -> None:
    for key, variant in VARIANTS.items():
        figures = (variant.published_miou, variant.vacc_fp16_miou, variant.vacc_int8_miou)
        assert [figure is None for figure in figures] == [key in NEVER_PUBLISHED] * 3


@pytest.mark.parametrize("variant_id", REFERENCES)
def test_build_has_keys_and_shapes_of_the_reference(variant_id: str) -> None:
    state = shared_network(variant_id).state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == upstream_shapes(variant_id)


@pytest.mark.parametrize(
    "variant_id",
    [pytest.param(key, marks=pytest.mark.slow if key in LARGE else ()) for key in REFERENCES],
)
def test_build_computes_the_golden_output(variant_id: str) -> None:
    golden = np.load(UPSTREAM / f"{variant_id}-golden.npz")
    seed = int(golden["seed"])
    module = build_on_meta(variant_id)
    module.load_state_dict(fill_by_rule(upstream_shapes(variant_id), seed), assign=True)
    image = np.random.default_rng(seed + 1).normal(0, 1, golden["input_shape"])
    with torch.inference_mode():
        output = module(torch.from_numpy(image.astype(np.float32))).numpy()
    assert output.shape == golden["output"].shape
    scale = np.abs(golden["output"]).max()
    assert np.abs(output - golden["output"]).max() <= 1e-4 * scale


@each_variant
def test_count_parameters_is_exact(variant_id: str) -> None:
    assert count_parameters(shared_network(variant_id)) == PARAMETERS[variant_id]


@each_variant
def test_count_macs_at_500(variant_id: str) -> None:
    macs = count_macs(shared_network(variant_id))
    assert macs / 1e9 == pytest.approx(GIGA_MACS[variant_id], abs=1e-3)


def test_count_macs_of_one_convolution_equals_the_formula() -> None:
    conv = nn.Conv2d(3, 10, 3, stride=2, padding=1, groups=1)
    assert count_macs(conv, 20, 30) == 10 * 15 * 10 * 3 * 3 * 3  # out_h, out_w, out_c, in_c, kernel


SIZES = [(97, 129), (33, 66), (64, 31), (5, 7), (2, 3), (1, 1)]


@pytest.mark.parametrize(
    ("variant_id", "size"),
    [
        *((variant_id, (500, 333)) for variant_id in PARAMETERS),
        *(
            (variant_id, size)
            for variant_id in ("rf-lw50", "rf-lw-mbv2", "rf-lw-nasnet")
            for size in SIZES
        ),
    ],
)
def test_output_is_a_quarter_rounded_up(variant_id: str, size: tuple[int, int]) -> None:
    logits = shared_network(variant_id)(torch.empty(2, 3, *size, device="meta"))
    assert logits.shape == (2, 21, math.ceil(size[0] / 4), math.ceil(size[1] / 4))
    assert logits.dtype == torch.float32


@pytest.mark.parametrize("variant_id", ["rf101", "rf-lw50", "rf-lw-nasnet", "rf-lw-mbv2"])
@pytest.mark.parametrize("num_classes", [1, 7])
def test_num_classes_sets_the_channels_of_the_logits(variant_id: str, num_classes: int) -> None:
    module = build_on_meta(variant_id, num_classes)
    assert module(torch.empty(1, 3, 64, 64, device="meta")).shape == (1, num_classes, 16, 16)


@each_variant
def test_build_returns_evaluation_mode(variant_id: str) -> None:
    assert not any(module.training for module in shared_network(variant_id).modules())


@pytest.mark.parametrize("variant_id", ["rf101", "rf-lw50", "rf-lw-nasnet", "rf-lw-mbv2"])
def test_dropout_lies_on_two_paths_and_before_the_full_classifier(variant_id: str) -> None:
    module = build_on_meta(variant_id)
    rates = []
    for child in module.modules():
        if isinstance(child, nn.Dropout):
            child.register_forward_hook(lambda layer, *_: rates.append(layer.p))
    module(torch.empty(1, 3, 64, 64, device="meta"))
    assert rates == [0.5] * (3 if variant_id == "rf101" else 2)


@pytest.mark.parametrize("variant_id", ["rf-lw-nasnet", "rf-lw-mbv2"])
def test_images_of_a_batch_do_not_mix(variant_id: str) -> None:
    torch.manual_seed(0)
    module = build(variant_id)
    images = torch.randn(2, 3, 65, 47)
    with torch.inference_mode():
        together = module(images)
        apart = torch.cat([module(image[None]) for image in images])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-5)


def test_build_of_an_unknown_variant_lists_the_known_ones() -> None:
    with pytest.raises(ModelError, match=r"no variant 'rf34'.*rf101, .*rf-lw50, .*rf-lw-mbv2"):
        build("rf34")


@pytest.mark.parametrize("num_classes", [0, -3])
def test_build_without_classes_is_refused(num_classes: int) -> None:
    with pytest.raises(ModelError, match=f"num_classes is {num_classes}: .* at least 1"):
        build("rf-lw-mbv2", num_classes)


@pytest.mark.parametrize("variant_id", VARIANTS)
def test_figures_of_a_variant_are_those_of_its_network(variant_id: str) -> None:
    network, variant = shared_network(variant_id), VARIANTS[variant_id]
    assert count_parameters(network) == variant.parameters
    assert count_macs(network) == variant.macs
