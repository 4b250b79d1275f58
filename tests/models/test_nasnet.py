import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deploy.calibration.preprocess import MEAN, STD
from deploy.models import ModelError, build, initialize
from deploy.models.initialize import encoder_parameters
from deploy.models.nasnet import FEATURE_CHANNELS, NASNetAMobile, ReductionCell
from deploy.models.nasnet_layers import Pool, SameConv2d, batch_norm, same_padding
from tests.models.test_variants import fill_by_rule

UPSTREAM = Path(__file__).parents[1] / "data" / "upstream"
# The golden features, and the modules whose outputs they are.
FEATURES = {
    "conv0": "conv0",
    "stem_0": "cell_stem_0",
    "stem_1": "cell_stem_1",
    "cell_3": "cell_3",
    "cell_9": "cell_9",
    "cell_15": "cell_15",
}


@functools.cache
def published() -> dict[str, Tensor]:
    """Return parameters by the rule under the names of the ImageNet checkpoint."""
    shapes = json.loads((UPSTREAM / "nasnetamobile.json").read_text())["state_dict"]
    return fill_by_rule(shapes, 7)


def filled() -> NASNetAMobile:
    module = NASNetAMobile().eval()
    state = {k: v for k, v in published().items() if not k.startswith("last_linear.")}
    module.load_state_dict(state, strict=True)
    return module


def outputs_of(module: nn.Module, names: list[str], image: Tensor) -> dict[str, Tensor]:
    """Return what some modules give while the encoder runs."""
    found: dict[str, Tensor] = {}
    for name in names:
        hook = functools.partial(
            lambda _m, _i, output, name: found.update({name: output}), name=name
        )
        module.get_submodule(name).register_forward_hook(hook)
    with torch.inference_mode():
        list(module.features(image))  # type: ignore[operator]
    return found


def test_encoder_has_keys_and_shapes_of_the_published_checkpoint() -> None:
    own = {key: list(value.shape) for key, value in NASNetAMobile().state_dict().items()}
    shapes = {k: list(v.shape) for k, v in published().items() if not k.startswith("last_linear.")}
    assert own == shapes
    of_network = encoder_parameters(build("rf-lw-nasnet"))
    assert {key: list(value.shape) for key, value in of_network.items()} == shapes


def test_encoder_computes_the_golden_features() -> None:
    golden = np.load(UPSTREAM / "nasnetamobile-golden.npz")
    assert int(golden["seed"]) == 7
    image = np.random.default_rng(8).normal(0, 1, golden["input_shape"]).astype(np.float32)
    found = outputs_of(filled(), list(FEATURES.values()), torch.from_numpy(image))
    for name, module in FEATURES.items():
        expected = golden[name]
        assert found[module].shape == expected.shape
        assert np.abs(found[module].numpy() - expected).max() <= 1e-5 * np.abs(expected).max()


def reference_pool(x: Tensor, kind: str) -> Tensor:
    """The reference's pooling: a row and a column of zeros first, whose window is cut away."""
    x = F.pad(x, (1, 0, 1, 0))
    if kind == "maximum":
        return F.max_pool2d(x, 3, 2, 1)[:, :, 1:, 1:]
    return F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)[:, :, 1:, 1:]


@pytest.mark.parametrize("kind", ["maximum", "mean"])
def test_pooling_is_the_references_where_that_fits(kind: str) -> None:
    x = torch.randn(1, 5, 12, 16, generator=torch.Generator().manual_seed(0)) - 3  # all below 0
    assert torch.equal(Pool(kind, 2)(x), reference_pool(x, kind))


@pytest.mark.parametrize("size", [(7, 9), (8, 8), (1, 2), (12, 5)])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_mean_is_over_what_lies_in_the_image(size: tuple[int, int], stride: int) -> None:
    assert torch.equal(
        Pool("mean", stride)(torch.ones(1, 2, *size)),
        torch.ones_like(Pool("maximum", stride)(torch.ones(1, 2, *size))),
    )


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
def test_convolution_is_the_references_where_that_fits(kernel_size: int) -> None:
    conv = SameConv2d(4, 4, kernel_size, 2, groups=4, bias=False)
    x = torch.randn(1, 4, 12, 16, generator=torch.Generator().manual_seed(0))
    padded = F.pad(x, (1, 0, 1, 0))
    expected = F.conv2d(padded, conv.weight, None, 2, kernel_size // 2, 1, 4)[:, :, 1:, 1:]
    torch.testing.assert_close(conv(x), expected)


def test_same_padding_is_tensorflows() -> None:
    # tf.nn.convolution, padding "SAME": max((ceil(n / s) - 1) * s + k - n, 0), the odd one behind
    assert same_padding(5, 3, 2) == (1, 1)
    assert same_padding(6, 3, 2) == (0, 1)
    assert same_padding(6, 7, 2) == (2, 3)
    assert same_padding(125, 5, 2) == (2, 2)
    assert same_padding(9, 1, 2) == (0, 0)
    assert same_padding(4, 5, 1) == (2, 2)


@pytest.mark.parametrize("size", [(8, 12), (9, 12), (9, 13)])
def test_factorized_reduction_is_two_shifted_paths(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    cell = ReductionCell(6, 4, 10, halve=True).eval()
    x = torch.randn(1, 10, *size)
    shifted = F.pad(x, (0, 1, 0, 1))[:, :, 1:, 1:]
    paths = [cell.path_1.conv(x[:, :, ::2, ::2]), cell.path_2.conv(shifted[:, :, ::2, ::2])]
    expected = cell.final_path_bn(torch.cat(paths, dim=1))
    torch.testing.assert_close(cell.adapt(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(7, 9), (15, 31)])
def test_centred_windows_are_same_where_sides_are_odd(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    centred, same = (ReductionCell(4, 6, centred=each).eval() for each in (True, False))
    same.load_state_dict(centred.state_dict())
    x = torch.rand(1, 6, *size)
    torch.testing.assert_close(centred(x), same(x))


@pytest.mark.parametrize("size", [(500, 500), (499, 331), (96, 97), (3, 4)])
def test_features_halve_whatever_the_size(size: tuple[int, int]) -> None:
    with torch.device("meta"):
        module = NASNetAMobile().eval()
    found = module.features(torch.empty(1, 3, *size, device="meta"))
    rows, columns = ((side - 1) // 2 for side in size)
    for i, (feature, channels) in enumerate(zip(found, FEATURE_CHANNELS, strict=True), start=1):
        assert feature.shape == (1, channels, -(-rows // 2**i), -(-columns // 2**i))


def test_zeros_behind_the_image_make_the_last_row() -> None:
    torch.manual_seed(0)
    module = build("rf-lw-nasnet")
    image = torch.randn(1, 3, 65, 66)
    with torch.inference_mode():
        torch.testing.assert_close(module(image), module(F.pad(image, (0, 1, 0, 2))))


def test_batch_normalization_has_the_references_epsilon() -> None:
    assert batch_norm(3).eps == 1e-3
    norms = [m for m in NASNetAMobile().modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-3}


def test_published_backbone_computes_the_same_on_our_images(tmp_path: Path) -> None:
    path = tmp_path / "nasnetamobile-7e03cead.pth"
    torch.save(published(), path)
    module = build("rf-lw-nasnet")
    words = initialize.initialize(module, path)
    assert words == f"the published ImageNet backbone {path}"
    pixels = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values)[:, None, None] for values in (MEAN, STD))
    assert isinstance(module, NASNetAMobile)
    with torch.inference_mode():
        ours = list(module.features((pixels - mean) / std))
        theirs = list(filled().features((pixels - 0.5) / 0.5))
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for key, value in encoder_parameters(module).items():
        if key not in ("conv0.conv.weight", "conv0.bn.running_mean"):
            assert torch.equal(value, published()[key]), key


def test_an_encoder_without_classifier_is_taken_as_it_is(tmp_path: Path) -> None:
    state = filled().state_dict()
    torch.save(state, tmp_path / "encoder.pth")
    module = build("rf-lw-nasnet")
    assert initialize.initialize(module, tmp_path / "encoder.pth").startswith("the encoder of")
    assert all(torch.equal(v, state[k]) for k, v in encoder_parameters(module).items())


@pytest.mark.parametrize("broken", ["conv0.conv.weight", "cell_7.path_1.conv.weight"])
def test_another_backbone_is_refused(tmp_path: Path, broken: str) -> None:
    torch.save({**published(), broken: torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(
        ModelError, match=r"neither a checkpoint of NASNetRefineNet nor its encoder"
    ):
        initialize.initialize(build("rf-lw-nasnet"), tmp_path / "other.pth")
    missing = {k: v for k, v in published().items() if not k.startswith("cell_15.")}
    torch.save(missing, tmp_path / "short.pth")
    with pytest.raises(ModelError, match=r"missing \(cell_15\."):
        initialize.initialize(build("rf-lw-nasnet"), tmp_path / "short.pth")
