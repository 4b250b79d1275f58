from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from deploy.models import ModelError, build
from deploy.models.initialize import encoder_parameters, initialize
from deploy.models.mobilenetv2 import MobileNetV2
from deploy.models.resnet import BLOCKS, ResNet

BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def write_torch(path: Path, state: dict[str, torch.Tensor]) -> Path:
    torch.save(state, path)
    return path


def torchvision_resnet_keys(depth: int) -> list[str]:
    """The names in torchvision's resnet50/101/152, written out from the published architecture."""
    batch_norm = BATCH_NORM[:-1]  # the published files are older than the counters
    keys = ["conv1.weight", *(f"bn1.{name}" for name in batch_norm)]
    for layer, blocks in enumerate(BLOCKS[depth], start=1):
        for block in range(blocks):
            prefix = f"layer{layer}.{block}"
            for i in (1, 2, 3):
                keys += [f"{prefix}.conv{i}.weight", *(f"{prefix}.bn{i}.{n}" for n in batch_norm)]
            if block == 0:
                keys.append(f"{prefix}.downsample.0.weight")
                keys += [f"{prefix}.downsample.1.{name}" for name in batch_norm]
    return [*keys, "fc.weight", "fc.bias"]


def torchvision_mobilenetv2_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes in torchvision's mobilenet_v2, written out from the architecture."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv_bn(conv: str, norm: str, shape: tuple[int, ...]) -> None:
        shapes[f"{conv}.weight"] = shape
        for name in BATCH_NORM:
            shapes[f"{norm}.{name}"] = () if name == "num_batches_tracked" else shape[:1]

    conv_bn("features.0.0", "features.0.1", (32, 3, 3, 3))
    conv_bn("features.1.conv.0.0", "features.1.conv.0.1", (32, 1, 3, 3))
    conv_bn("features.1.conv.1", "features.1.conv.2", (16, 32, 1, 1))
    channels = [16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320]
    for number, (inputs, outputs) in enumerate(pairwise(channels), start=2):
        prefix, hidden = f"features.{number}.conv", 6 * inputs
        conv_bn(f"{prefix}.0.0", f"{prefix}.0.1", (hidden, inputs, 1, 1))
        conv_bn(f"{prefix}.1.0", f"{prefix}.1.1", (hidden, 1, 3, 3))
        conv_bn(f"{prefix}.2", f"{prefix}.3", (outputs, hidden, 1, 1))
    conv_bn("features.18.0", "features.18.1", (1280, 320, 1, 1))
    return {**shapes, "classifier.1.weight": (1000, 1280), "classifier.1.bias": (1000,)}


@pytest.mark.parametrize(("variant", "depth"), [("rf-lw50", 50), ("rf-lw101", 101), ("rf101", 101)])
def test_torchvision_resnet_fills_the_encoder_and_drops_its_classifier(
    variant: str, depth: int, tmp_path: Path
) -> None:
    own = ResNet(depth).state_dict()
    published = {
        key: torch.full_like(own[key], 0.25) if key in own else torch.ones(3)
        for key in torchvision_resnet_keys(depth)
    }
    module = build(variant)
    words = initialize(module, write_torch(tmp_path / "resnet.pth", published))
    assert words.startswith("torchvision's ImageNet backbone")
    encoder = encoder_parameters(module)
    learnt = {k for k in encoder if not k.endswith("num_batches_tracked")}
    assert learnt == {k for k in published if not k.startswith("fc.")}
    assert all((encoder[key] == 0.25).all() for key in learnt)


def test_torchvision_resnet152_has_the_key_list_of_our_encoder() -> None:
    own = {k for k in ResNet(152).state_dict() if not k.endswith("num_batches_tracked")}
    assert own == {k for k in torchvision_resnet_keys(152) if not k.startswith("fc.")}


def torchvision_forward(state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Run torchvision's mobilenet_v2 up to ``features.17`` from its parameters alone."""

    def step(x: torch.Tensor, conv: str, norm: str, stride: int = 1) -> torch.Tensor:
        weight = state[f"{conv}.weight"]
        groups = x.shape[1] // weight.shape[1]
        padding = weight.shape[2] // 2
        x = torch.nn.functional.conv2d(x, weight, None, stride, padding, groups=groups)
        parts = [state[f"{norm}.{n}"] for n in ("running_mean", "running_var", "weight", "bias")]
        return torch.nn.functional.batch_norm(x, *parts)

    x = step(x, "features.0.0", "features.0.1", 2).clamp(0, 6)
    x = step(x, "features.1.conv.0.0", "features.1.conv.0.1").clamp(0, 6)
    x = step(x, "features.1.conv.1", "features.1.conv.2")
    for number in range(2, 18):
        p, shortcut = f"features.{number}.conv", x
        stride = 2 if number in (2, 4, 7, 14) else 1
        x = step(x, f"{p}.0.0", f"{p}.0.1").clamp(0, 6)
        x = step(x, f"{p}.1.0", f"{p}.1.1", stride).clamp(0, 6)
        x = step(x, f"{p}.2", f"{p}.3")
        x = x + shortcut if x.shape == shortcut.shape else x
    return x


def test_torchvision_mobilenetv2_computes_the_same_in_our_encoder(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {
        key: torch.rand(shape, generator=generator) * 0.5 + 0.5
        if key.endswith("running_var") or len(shape) == 1
        else torch.zeros((), dtype=torch.int64)
        if shape == ()
        else torch.randn(shape, generator=generator) * 0.3
        for key, shape in torchvision_mobilenetv2_shapes().items()
    }
    module = build("rf-lw-mbv2")
    initialize(module, write_torch(tmp_path / "mobilenet_v2.pth", state))
    x = torch.randn(1, 3, 64, 64, generator=generator)
    assert isinstance(module, MobileNetV2)
    with torch.inference_mode():
        ours, theirs = list(module.features(x))[-1], torchvision_forward(state, x)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_encoder_alone_and_whole_checkpoints_are_taken(tmp_path: Path) -> None:
    source = build("rf-lw-mbv2")
    initialize(source, None, seed=7)
    encoder = {key: value.clone() for key, value in encoder_parameters(source).items()}
    save_file(encoder, tmp_path / "encoder.safetensors")
    module = build("rf-lw-mbv2")
    assert initialize(module, tmp_path / "encoder.safetensors").startswith("the encoder of")
    state = module.state_dict()
    assert all(torch.equal(state[key], value) for key, value in encoder.items())
    assert not torch.equal(state["segm.weight"], source.state_dict()["segm.weight"])
    path = write_torch(tmp_path / "whole.pth", source.state_dict())
    assert initialize(module, path).startswith("all parameters of")
    assert torch.equal(module.state_dict()["segm.weight"], source.state_dict()["segm.weight"])


def test_foreign_backbones_are_refused(tmp_path: Path) -> None:
    resnet = {k: torch.ones(1) for k in torchvision_resnet_keys(50)}
    path = write_torch(tmp_path / "resnet50.pth", resnet)
    with pytest.raises(ModelError, match="neither a checkpoint of MobileRefineNet nor its encoder"):
        initialize(build("rf-lw-mbv2"), path)
    shapes = torchvision_mobilenetv2_shapes()
    incomplete = {k: torch.ones(v) for k, v in shapes.items() if k != "features.17.conv.2.weight"}
    path = write_torch(tmp_path / "mobilenet.pth", incomplete)
    with pytest.raises(ModelError, match=r"1 missing \(layer8\.0\.output\.2\.0\.weight\)"):
        initialize(build("rf-lw-mbv2"), path)
