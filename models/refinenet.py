"""Whole networks: RefineNet and Light-Weight RefineNet.

RefineNet: Lin et al., CVPR 2017 (arXiv 1611.06612). Light-Weight RefineNet: Nekrasov et al., BMVC
2018 (arXiv 1810.03272). Every network maps (N, 3, H, W) float32 images, normalized with ImageNet's
mean and standard deviation, to logits (N, num_classes, ceil(H/4), ceil(W/4)).

The decoders' attribute names are those of the reference checkpoints: strict loading needs them.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from deploy.models.layers import (
    ChainedResidualPooling,
    ResidualConvUnits,
    conv1x1,
    conv3x3,
    upsample_to,
)
from deploy.models.mobilenetv2 import MobileNetV2
from deploy.models.nasnet import FEATURE_CHANNELS, NASNetAMobile
from deploy.models.resnet import STAGE_CHANNELS, ResNet

CHANNELS = 256  # of every decoder path but the deepest of the ResNet variants
DEEPEST_CHANNELS = 512


class RefineNet(ResNet):
    """RefineNet with a ResNet encoder; ``lightweight`` drops the residual units and uses 1x1 convs.

    Paths are numbered as in the checkpoints: 1 is the deepest, 4 the finest.
    """

    def __init__(self, depth: int, num_classes: int, *, lightweight: bool) -> None:
        super().__init__(depth)
        self.lightweight = lightweight
        conv, kernel_size = (conv1x1, 1) if lightweight else (conv3x3, 3)
        for path, encoder_channels in enumerate(reversed(STAGE_CHANNELS), start=1):
            channels = DEEPEST_CHANNELS if path == 1 else CHANNELS
            self.add_module(f"p_ims1d2_outl{path}_dimred", conv(encoder_channels, channels))
            if path > 1:
                adapt = conv(channels, channels)
                self.add_module(f"adapt_stage{path}_b2_joint_varout_dimred", adapt)
            pooling = ChainedResidualPooling(channels, kernel_size)
            self.add_module(f"mflow_conv_g{path}_pool", nn.Sequential(pooling))
            if not lightweight:
                before, after = ResidualConvUnits(channels, 2), ResidualConvUnits(channels, 3)
                self.add_module(f"adapt_stage{path}_b", nn.Sequential(before))
                self.add_module(f"mflow_conv_g{path}_b", nn.Sequential(after))
            if path < 4:
                output = conv(channels, CHANNELS)
                self.add_module(f"mflow_conv_g{path}_b3_joint_varout_dimred", output)
        self.dropout = nn.Dropout(p=0.5)
        self.clf_conv = conv3x3(CHANNELS, num_classes, bias=True)

    def refine(self, path: int, x: Tensor, coarser: Tensor | None) -> Tensor:
        """Run one RefineNet block: adapt, fuse with the coarser path, pool, adapt again."""
        x = self.get_submodule(f"p_ims1d2_outl{path}_dimred")(x)
        if not self.lightweight:
            x = self.get_submodule(f"adapt_stage{path}_b")(x)
        if coarser is not None:
            x = self.get_submodule(f"adapt_stage{path}_b2_joint_varout_dimred")(x)
            x = x + upsample_to(coarser, x)
        x = self.get_submodule(f"mflow_conv_g{path}_pool")(F.relu(x))
        if not self.lightweight:
            x = self.get_submodule(f"mflow_conv_g{path}_b")(x)
        if path < 4:
            x = self.get_submodule(f"mflow_conv_g{path}_b3_joint_varout_dimred")(x)
        return x

    def forward(self, image: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, num_classes, ceil(H/4), ceil(W/4))."""
        *fine, third, deepest = self.features(image)
        x = self.refine(1, self.dropout(deepest), None)
        x = self.refine(2, self.dropout(third), x)
        for path, stage in enumerate(reversed(fine), start=3):
            x = self.refine(path, stage, x)
        logits: Tensor = self.clf_conv(x if self.lightweight else self.dropout(x))
        return logits


class LightWeightDecoder(nn.Module):
    """The decoder behind small encoders: 256 channels in every path, 4 the deepest, 1 the finest.

    Its parameters have the same names and shapes whatever the encoder is.
    """

    activation = staticmethod(F.relu)  # before each pooling

    def add_decoder(self, num_classes: int) -> None:
        """Add all but what projects the encoder's outputs."""
        for path in range(1, 5):
            pooling = ChainedResidualPooling(CHANNELS, kernel_size=1)
            self.add_module(f"crp{path}", nn.Sequential(pooling))
            if path > 1:
                self.add_module(f"conv_adapt{path}", conv1x1(CHANNELS, CHANNELS))
        self.dropout = nn.Dropout(p=0.5)
        self.segm = conv3x3(CHANNELS, num_classes, bias=True)

    def pool(self, path: int, x: Tensor) -> Tensor:
        """Apply ReLU, chained residual pooling and, but for the finest path, a 1x1 conv."""
        x = self.get_submodule(f"crp{path}")(self.activation(x))
        return x if path == 1 else self.get_submodule(f"conv_adapt{path}")(x)


class MobileRefineNet(LightWeightDecoder, MobileNetV2):
    """Light-Weight RefineNet with a MobileNetV2 encoder, whose ReLU6 the decoder takes over."""

    activation = staticmethod(F.relu6)

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        for stage, encoder_channels in zip(range(3, 9), (24, 32, 64, 96, 160, 320), strict=True):
            self.add_module(f"conv{stage}", conv1x1(encoder_channels, CHANNELS))
        self.add_decoder(num_classes)

    def project(self, stage: int, x: Tensor) -> Tensor:
        """Project an encoder stage's output to the decoder's 256 channels."""
        projected: Tensor = self.get_submodule(f"conv{stage}")(x)
        return projected

    def forward(self, image: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, num_classes, ceil(H/4), ceil(W/4))."""
        l3, l4, l5, l6, l7, l8 = self.features(image)
        x = self.project(8, self.dropout(l8)) + self.project(7, self.dropout(l7))
        x = self.pool(4, x)
        x = self.project(5, l5) + self.project(6, l6) + upsample_to(x, l6)
        x = self.pool(3, x)
        x = self.project(4, l4) + upsample_to(x, l4)
        x = self.pool(2, x)
        x = self.project(3, l3) + upsample_to(x, l3)
        x = self.pool(1, x)
        logits: Tensor = self.segm(x)
        return logits


class NASNetRefineNet(LightWeightDecoder, NASNetAMobile):
    """Light-Weight RefineNet with a NASNet-A-Mobile encoder.

    No reference code of it is public: the decoder is the light-weight one with 256 channels in
    every path, on the encoder's features at 1/32, 1/16, 1/8 and 1/4.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        for path, encoder_channels in enumerate(FEATURE_CHANNELS, start=1):
            self.add_module(f"dimred{path}", conv1x1(encoder_channels, CHANNELS))
        self.add_decoder(num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Map images (N, 3, H, W) to logits (N, num_classes, ceil(H/4), ceil(W/4)).

        The encoder's first convolution is not padded. Where it would leave out what makes the last
        row or column of the logits, at sides of 4n + 1 and 4n + 2, zeros are put behind the image.
        """
        bottom, right = ((0, 2, 1, 0)[size % 4] for size in image.shape[2:])
        if bottom or right:
            image = F.pad(image, (0, right, 0, bottom))
        x: Tensor | None = None
        for path, feature in reversed([*enumerate(self.features(image), start=1)]):
            feature = self.dropout(feature) if path > 2 else feature
            reduced = self.get_submodule(f"dimred{path}")(feature)
            reduced = reduced if x is None else reduced + upsample_to(x, reduced)
            x = self.pool(path, reduced)
        logits: Tensor = self.segm(x)
        return logits
