"""Residual encoders for prior and posterior, in place of the plain one: ResNet and ConvNeXt (SPU-Net, Table IV)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.layers import DropPath, get_norm_layer
from monai.networks.layers.factories import Conv, Pool
from monai.networks.nets.resnet import ResNetBlock
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import InputError

__all__ = ["ConvNeXtBlock", "ConvNeXtEncoder", "ResNetEncoder"]


class ResNetEncoder(nn.Module):
    """The trunk of a ResNet with basic blocks, by default ResNet-18 (He et al. 2016, Table 1).

    7x7 convolution of stride 2 and 3x3 maximum pooling of stride 2, then a stage per entry of ``filters``; every stage
    but the first begins with stride 2, and a shortcut that changes its shape is a 1x1 convolution with normalisation.
    Weights start as in He et al. (2015). Same contract as :class:`.encoders.Encoder`, but the finest features are
    those of stride 4. The network's input may be of any size.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels, plus label channels for a posterior.
        filters: channels per stage, finest first.
        blocks: residual blocks per stage; one number: as many in each.
        norm: MONAI's name of a normalisation, "batch" as published, or None. With "batch" a training batch needs more
            than one image where the coarsest features are a single pixel.

    Raises:
        InputError: ``blocks`` does not fit ``filters``.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        filters: Sequence[int] = (64, 128, 256, 512),
        blocks: int | Sequence[int] = (2, 2, 2, 2),
        norm: str | tuple | None = "batch",
    ) -> None:
        super().__init__()
        self.filters = tuple(filters)
        depths = _blocks_per_stage(blocks, self.filters)
        convolution, norm = Conv[Conv.CONV, spatial_dims], norm or ""  # MONAI's name for none
        width = self.filters[0]
        self.stem = nn.Sequential(
            convolution(in_channels, width, kernel_size=7, stride=2, padding=3, bias=False),
            get_norm_layer(norm, spatial_dims, width),
            nn.ReLU(inplace=True),
            Pool[Pool.MAX, spatial_dims](kernel_size=3, stride=2, padding=1),
        )
        self.stages = nn.ModuleList()
        for i, (channels, depth) in enumerate(zip(self.filters, depths, strict=True)):
            stride = 1 if i == 0 else 2
            shortcut = None
            if stride != 1 or width != channels:
                shortcut = nn.Sequential(
                    # every stride-th pixel, then a 1x1 convolution: as a strided convolution these few channels
                    # corrupt the heap in oneDNN's backward pass on channels_last
                    Pool[Pool.AVG, spatial_dims](kernel_size=1, stride=stride),
                    convolution(width, channels, kernel_size=1, bias=False),
                    get_norm_layer(norm, spatial_dims, channels),
                )
            first = ResNetBlock(width, channels, spatial_dims, stride, shortcut, norm=norm)
            rest = [ResNetBlock(channels, channels, spatial_dims, norm=norm) for _ in range(depth - 1)]
            self.stages.append(nn.Sequential(first, *rest))
            width = channels
        self.apply(_initialize_resnet)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, *S) -> features of each stage, finest first: (B, filters[i], *ceil(S / (4 * 2**i)))."""
        x = self.stem(x)
        features: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class ConvNeXtEncoder(nn.Module):
    """The trunk of a ConvNeXt, by default ConvNeXt-T (Liu et al. 2022, "A ConvNet for the 2020s", Table 9).

    A stem that cuts the image into patches, then a stage per entry of ``filters``; layer normalisation and a 2x2
    convolution of stride 2 lie between two stages. Sizes that a stride does not divide are filled up with zeros, so
    that the last rows and columns count and the network's input may be of any size. Convolutions and linear layers
    start from a truncated normal of deviation 0.02 with biases of zero. Same contract as :class:`.encoders.Encoder`,
    but the finest features are those of stride ``stem_stride``. ``channels_last`` suits it: half of its layers work
    along the channels.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels, plus label channels for a posterior.
        filters: channels per stage, finest first.
        blocks: residual blocks per stage; one number: as many in each.
        stem_stride: side of the stem's patches in pixels. 4 as published, for images of 224 x 224; images of 128 x 128
            keep more of their detail with 2, at four times the cost in 2D.
        drop_path: probability that the last block is left out for an image in training; it grows linearly from 0 in the
            first block (stochastic depth, Huang et al. 2016). ConvNeXt-T was trained on ImageNet with 0.1.

    Raises:
        InputError: ``blocks`` does not fit ``filters``.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        filters: Sequence[int] = (96, 192, 384, 768),
        blocks: int | Sequence[int] = (3, 3, 9, 3),
        stem_stride: int = 4,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.filters = tuple(filters)
        depths = _blocks_per_stage(blocks, self.filters)
        rates = iter(torch.linspace(0.0, drop_path, sum(depths)).tolist())
        self.stages = nn.ModuleList()
        for i, (channels, depth) in enumerate(zip(self.filters, depths, strict=True)):
            if i == 0:
                entry: list[nn.Module] = [
                    _PatchConvolution(spatial_dims, in_channels, channels, stem_stride),
                    _ChannelNorm(channels, eps=1e-6),
                ]
            else:
                entry = [
                    _ChannelNorm(self.filters[i - 1], eps=1e-6),
                    _PatchConvolution(spatial_dims, self.filters[i - 1], channels, 2),
                ]
            inner = [ConvNeXtBlock(spatial_dims, channels, next(rates)) for _ in range(depth)]
            self.stages.append(nn.Sequential(*entry, *inner))
        self.apply(_initialize_convnext)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, *S) -> features of each stage, finest first: (B, filters[i], *ceil(S / (stem_stride * 2**i)))."""
        features: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class ConvNeXtBlock(nn.Module):
    """x + scale * MLP(LayerNorm(depthwise 7x7 (x))), the MLP four times as wide (Liu et al. 2022, Figure 4).

    The scale, one number per channel, starts at 1e-6: a deep stack starts as the identity.

    Args:
        spatial_dims: 2 or 3.
        channels: channels in and out.
        drop_path: probability that the block is left out for an image in training.
    """

    def __init__(self, spatial_dims: int, channels: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.depthwise = Conv[Conv.CONV, spatial_dims](channels, channels, kernel_size=7, padding=3, groups=channels)
        self.pointwise = nn.Sequential(  # on channels last, where a 1x1 convolution is a linear layer
            nn.LayerNorm(channels, eps=1e-6),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
        )
        self.scale = nn.Parameter(torch.full((channels,), 1e-6))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, C, *S)."""
        branch = self.scale * self.pointwise(self.depthwise(x).movedim(1, -1))
        return x + self.drop_path(branch.movedim(-1, 1))


class _ChannelNorm(nn.LayerNorm):
    # normalises over the channels of (B, C, *S), at each pixel
    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.movedim(1, -1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.movedim(-1, 1)


class _PatchConvolution(nn.Module):
    # kernel and stride are one number; sides that it does not divide are filled up with zeros at their end
    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.convolution = Conv[Conv.CONV, spatial_dims](in_channels, out_channels, kernel_size=stride, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        missing: list[int] = []
        for side in x.shape[2:][::-1]:  # F.pad begins with the last axis
            missing += [0, (self.stride - side % self.stride) % self.stride]
        return self.convolution(F.pad(x, missing) if max(missing) > 0 else x)


def _blocks_per_stage(blocks: int | Sequence[int], filters: Sequence[int]) -> tuple[int, ...]:
    depths = (blocks,) * len(filters) if isinstance(blocks, int) else tuple(blocks)
    if len(depths) != len(filters) or min(depths, default=0) < 1:
        raise InputError(
            f"blocks is {blocks} for {len(filters)} stages (filters {tuple(filters)}), but each stage needs at least "
            f"1 residual block: give {len(filters)} numbers, or one for all stages."
        )
    return depths


@torch.no_grad()
def _initialize_resnet(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


@torch.no_grad()
def _initialize_convnext(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.Linear)):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
