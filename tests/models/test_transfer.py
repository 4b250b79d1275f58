from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deploy.models import build
from deploy.models.checkpoint import fill_random
from deploy.models.initialize import decoder_keys
from deploy.models.transfer import reduction_names, take_over


def random_network(variant: str, seed: int, classes: int = 21) -> nn.Module:
    module = build(variant, classes)
    fill_random(module, seed)
    return module


def features_of(network: nn.Module, image: Tensor) -> list[Tensor]:
    """Return what the dimension reductions put out, summed path by path, finest first."""
    outputs = network.features(image)  # type: ignore[operator]
    return [
        sum((network.get_submodule(name)(next(outputs)) for name in group), torch.zeros(()))
        for group in reduction_names(network)
    ]


def given(feature: Tensor) -> Callable[..., Tensor]:
    """Return a hook that puts a feature, and noise in further channels, in an output's place."""

    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        noise = torch.randn(output.shape, generator=torch.Generator().manual_seed(0))
        noise[:, : feature.shape[1]] = feature
        return noise

    return hook


@pytest.mark.parametrize("variant", ["rf-lw50", "rf101", "rf-lw-nasnet"])
def test_the_decoder_computes_what_the_teachers_did(
    variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the teacher's ReLU6 is the one thing that a ResNet's decoder has not
    monkeypatch.setattr("torch.nn.functional.relu6", nn.functional.relu)
    teacher, student = random_network("rf-lw-mbv2", 1), random_network(variant, 2)
    assert take_over(student, teacher) == "20 kernels of the decoder"
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        wanted = teacher(image)
        for (name,), feature in zip(
            reduction_names(student), features_of(teacher, image), strict=True
        ):
            student.get_submodule(name).register_forward_hook(given(feature))
        found = student(image)
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


@pytest.mark.parametrize(
    ("variant", "words"),
    [
        ("rf-lw101", "23 kernels of the decoder and the encoder (17 blocks more, identities)"),
        ("rf101", "23 kernels of the decoder and the encoder (17 blocks more, identities)"),
    ],
)
def test_a_deeper_resnet_starts_as_the_shallower_one(variant: str, words: str) -> None:
    teacher, student = random_network("rf-lw50", 1), random_network(variant, 2)
    assert take_over(student, teacher) == words
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        wanted, found = teacher(image), student(image)
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


def test_the_same_network_is_copied_whole() -> None:
    teacher, student = random_network("rf-lw50", 1), random_network("rf-lw50", 2)
    assert take_over(student, teacher) == "23 kernels of the decoder and the encoder"
    own, theirs = student.state_dict(), teacher.state_dict()
    assert all(torch.equal(own[key], theirs[key]) for key in decoder_keys(student))


def test_what_would_have_to_be_narrower_stays() -> None:
    teacher, student = random_network("rf-lw50", 1), random_network("rf-lw-mbv2", 2)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    assert take_over(student, teacher) == "15 kernels of the decoder"
    after, theirs = student.state_dict(), teacher.state_dict()
    deepest, finest = "crp4.0.1_outvar_dimred.weight", "crp1.0.1_outvar_dimred.weight"
    assert torch.equal(after[deepest], before[deepest])
    assert torch.equal(after[finest], theirs["mflow_conv_g4_pool.0.1_outvar_dimred.weight"])


def test_a_classifier_of_other_classes_stays() -> None:
    teacher, student = random_network("rf-lw-mbv2", 1, 21), random_network("rf-lw50", 2, 5)
    before = student.state_dict()["clf_conv.weight"].clone()
    assert take_over(student, teacher) == "19 kernels of the decoder"
    assert torch.equal(student.state_dict()["clf_conv.weight"], before)
