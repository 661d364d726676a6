"""DeepMedic's pathways: unpadded convolutions that look at the image at one resolution each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import ADN
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Pathway", "PreActivationConvolution", "crop_sides"]


class PreActivationConvolution(nn.Module):
    """Normalisation, dropout, PReLU, then an unpadded convolution; the input is added where the channels agree.

    (B, C_in, *S) -> (B, C_out, *(S - kernel_size + 1)).

    Args:
        spatial_dims: 2 or 3.
        in_channels: C_in.
        out_channels: C_out.
        kernel_size: odd.
        norm: MONAI's name of a normalisation, or None.
        dropout: share of the values that are dropped.
        activate: False leaves the first three out, for a layer that sees the image itself.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        norm: str | tuple | None = "batch",
        dropout: float = 0.0,
        activate: bool = True,
    ) -> None:
        super().__init__()
        self.crop = kernel_size // 2
        self.is_residual = in_channels == out_channels
        self.adn = activation(spatial_dims, in_channels, norm, dropout) if activate else nn.Identity()
        self.conv = Conv[Conv.CONV, spatial_dims](in_channels, out_channels, kernel_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(self.adn(x))
        return y + crop_sides(x, self.crop) if self.is_residual else y


def activation(spatial_dims: int, channels: int, norm: str | tuple | None, dropout: float) -> ADN:
    """Normalisation, dropout of single values, PReLU of one slope."""
    # dropout_dim is 1 because the authors drop values, not whole feature maps
    drop = dropout if dropout > 0 else None
    return ADN("NDA", channels, act="prelu", norm=norm, norm_dim=spatial_dims, dropout=drop, dropout_dim=1)


class Pathway(nn.Module):
    """One resolution: every ``factor``-th voxel of the image, unpadded 3^d convolutions, nearest upsampling.

    The middle voxel of every block of ``factor``^d is taken, and a convolved voxel is given back to a whole block, so
    that pathways of different (odd) factors look at the same centre. (B, C, *S) -> (B, filters[-1], *(S - 2 margin)),
    whose sides are a multiple of the factor.

    Args:
        spatial_dims: 2 or 3.
        in_channels: C.
        filters: channels per convolution.
        factor: odd.
        norm: MONAI's name of a normalisation, or None.
        margin: voxels that are lost at each side: what the convolutions lose (the default) or more. The rest is cut
            from the image, so that pathways of different factors have outputs of one size.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        filters: Sequence[int],
        factor: int = 1,
        norm: str | tuple | None = "batch",
        margin: int | None = None,
    ) -> None:
        super().__init__()
        self.factor = factor
        self.cut = 0 if margin is None else margin - factor * len(filters)
        channels = (in_channels, *filters)
        self.convolutions = nn.Sequential(
            *(
                PreActivationConvolution(spatial_dims, channels[i], channels[i + 1], norm=norm, activate=i > 0)
                for i in range(len(filters))
            )
        )

    def forward(self, image: Tensor) -> Tensor:
        image = crop_sides(image, self.cut)
        if self.factor == 1:
            return self.convolutions(image)
        # "nearest-exact" takes voxel floor((i + 1/2) factor), the middle one of the block
        smaller = [side // self.factor for side in image.shape[2:]]
        x = self.convolutions(F.interpolate(image, size=smaller, mode="nearest-exact"))
        return F.interpolate(x, size=[side * self.factor for side in x.shape[2:]], mode="nearest-exact")


def crop_sides(x: Tensor, width: int) -> Tensor:
    """Leave ``width`` voxels out at each side: (B, C, *S) -> (B, C, *(S - 2 width))."""
    if width == 0:
        return x
    for axis in range(2, x.dim()):
        x = torch.narrow(x, axis, width, x.shape[axis] - 2 * width)
    return x
