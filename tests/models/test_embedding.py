import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from deploy.calibration.preprocess import normalize
from deploy.calibration.scenes.dataset import draw_scene
from deploy.models import build, build_with_weights
from deploy.models.checkpoint import fill_random
from deploy.models.embedding import CONSTANT, SPAN, Block, embed, groups_of
from deploy.models.fitting import least_squares, pursue, unexplained
from deploy.models.refinenet import MobileRefineNet, RefineNet
from deploy.models.transfer import take_over
from deploy.training.imitation import answer


def block(hidden: int, reads: int, writes: int) -> Block:
    empty = torch.zeros(hidden, 1)
    return Block(
        (empty, torch.zeros(hidden)), (empty, torch.zeros(hidden)), reads, writes, torch.zeros(())
    )


# hidden channels of MobileNetV2's blocks at 1/8, 1/16 and 1/32, and what they read and write
EIGHTH = [block(144, 3, 4), block(192, 4, 4), block(192, 4, 4)]
SIXTEENTH = [
    *(block(192, 4, 5), block(384, 5, 5), block(384, 5, 5), block(384, 5, 5)),
    *(block(384, 5, 6), block(576, 6, 6), block(576, 6, 6)),
]
LAST = [block(576, 6, 7), block(960, 7, 7), block(960, 7, 7), block(960, 7, 8)]


@pytest.mark.parametrize(
    ("blocks", "bottlenecks", "width", "expected"),
    [
        (EIGHTH, 4, 128, [[144], [192], [192], [192]]),
        (EIGHTH, 8, 128, [[144], [192], [192], [192], [192], [], [], []]),
        (SIXTEENTH, 6, 256, [[192], [384, 384], [384], [384], [576], [576]]),
        (LAST, 3, 512, [[576], [960, 960], [960]]),
    ],
)
def test_blocks_share_bottlenecks_or_have_several(
    blocks: list[Block], bottlenecks: int, width: int, expected: list[list[int]]
) -> None:
    found = groups_of(blocks, bottlenecks, width)
    assert [[member.hidden for member in group] for group in found] == expected


def test_a_block_never_shares_with_one_that_reads_its_new_feature() -> None:
    chain = [block(8, 0, 1), block(4, 1, 2), block(4, 2, 2), block(64, 2, 2)]
    assert groups_of(chain, 3, 8) == [[chain[0]], [chain[1]], [chain[2], chain[3]]]


def test_pursuit_finds_the_columns_that_make_the_target() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(500, 20, generator=generator)
    target = rows[:, [3, 11, 17]] @ torch.randn(3, 4, generator=generator) + 5
    assert sorted(pursue(rows, target, 3)) == [3, 11, 17]
    copied = torch.cat((rows, rows[:, [3]] + 1), dim=1)  # a column told already is of no more use
    assert sorted(pursue(copied, target, 3))[:2] in ([3, 11], [11, 17])
    assert len({3, 20} & set(pursue(copied, target, 3))) == 1


def test_least_squares_is_numpys() -> None:
    generator = torch.Generator().manual_seed(1)
    rows, target = (torch.randn(300, n, generator=generator) for n in (7, 3))
    weight, bias = least_squares(rows, target, ridge=1e-6)
    design = np.concatenate((rows.numpy(), np.ones((300, 1))), axis=1)
    expected = np.linalg.lstsq(design, target.numpy(), rcond=None)[0]
    np.testing.assert_allclose(weight.T.numpy(), expected[:7], atol=1e-3)
    np.testing.assert_allclose(bias.numpy(), expected[7], atol=1e-3)


class FirstStage(nn.Module):
    """The teacher's features at 1/4, as a first stage that learnt them puts them out."""

    def __init__(self, teacher: MobileRefineNet) -> None:
        super().__init__()
        self.teacher = [teacher]  # in a list: no part of the network
        self.image = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        feature = next(self.teacher[0].features(self.image))
        output = torch.zeros(len(x), 256, *x.shape[2:])
        output[:, 100:124] = feature + 20.0  # what leaves a stage is not negative
        return output


@pytest.fixture(scope="module")
def scenes() -> Tensor:
    pictures = []
    for index in range(4):
        jpeg, _ = draw_scene(seed=4, split="train", index=index)
        picture = np.asarray(Image.open(io.BytesIO(jpeg)).resize((160, 128)))
        pictures.append(torch.from_numpy(normalize(picture)))
    return torch.cat(pictures)


def test_the_features_start_as_the_teachers(scenes: Tensor) -> None:
    teacher, _ = build_with_weights("rf-lw-mbv2", None)
    student = build("rf50")  # whose dimension reductions are 3x3
    fill_random(student, 1)
    assert isinstance(teacher.eval(), MobileRefineNet)
    assert isinstance(student, RefineNet)
    take_over(student, teacher)
    first = FirstStage(teacher)
    student.layer1, first.image = first, scenes
    before = reduced(student, teacher, scenes)
    words = embed(student, teacher, scenes)
    assert words.startswith("layer2 0.0")
    check_ranges(student, scenes)
    after = reduced(student, teacher, scenes)
    # at 1/32 there are fewer pixels here than hidden channels: nothing is left
    for old, new, bound in zip(before, after, (0.1, 0.2, 0.02), strict=True):
        assert new < bound < 0.5 < old


@torch.no_grad()
def check_ranges(student: RefineNet, images: Tensor) -> None:
    """See that a stage's features have the steps of one scale of 8 bits, each about as many."""
    x = [*student.features(images)][1]
    assert torch.all(x[:, CONSTANT] == SPAN)
    features = x[:, CONSTANT + 1 :][:, :32]  # of layer4, the teacher's at 1/8
    assert 0.75 * SPAN < features.amax((0, 2, 3)).min() <= features.max() < 1.1 * SPAN
    # a reduction's constant part leaves room on the scale of its kernel
    kernel = student.get_parameter("p_ims1d2_outl3_dimred.weight")[:256, :, 1, 1]
    assert kernel[:, CONSTANT].abs().mean() < 2 * kernel[:, 1:33].abs().amax(1).mean()


@torch.no_grad()
def reduced(student: nn.Module, teacher: nn.Module, images: Tensor) -> list[float]:
    """Return the shares of the teacher's reduced features at 1/8, 1/16, 1/32 that are not met."""
    found, wanted = (answer(network.eval(), images, 0) for network in (student, teacher))
    pairs = zip(found.features[1:], wanted.features[1:], strict=True)
    return [float(unexplained(*pair)) for pair in pairs]
