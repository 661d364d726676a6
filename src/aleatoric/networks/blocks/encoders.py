"""Convolution blocks and the encoder that the U-Net, the prior and the posterior share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ConvolutionBlock", "Encoder", "HalfResolution", "initialize_kohl"]


class ConvolutionBlock(nn.Sequential):
    """``num_convs`` times 3x3 convolution, optional normalisation, ReLU. (B, C_in, *S) -> (B, C_out, *S)."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        num_convs: int = 3,
        norm: str | tuple | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__(
            *(
                Convolution(
                    spatial_dims,
                    in_channels if i == 0 else out_channels,
                    out_channels,
                    kernel_size=3,
                    act=("relu", {"inplace": True}),
                    norm=norm,
                    adn_ordering="NA",
                    bias=bias,
                )
                for i in range(num_convs)
            )
        )


class Encoder(nn.Module):
    """The contracting path: a block per resolution, average pooling between them (Kohl et al. 2018, appendix).

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels, plus label channels for a posterior.
        filters: channels per resolution, finest first.
        num_convs: convolutions a block.
        norm: MONAI's name of a normalisation, or None as published.
        bias: of the convolutions; batch normalisation takes it out again, so that some authors leave it out.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        filters: Sequence[int] = (32, 64, 128, 256),
        num_convs: int = 3,
        norm: str | tuple | None = None,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.filters = tuple(filters)
        channels = (in_channels, *self.filters)
        self.blocks = nn.ModuleList(
            ConvolutionBlock(spatial_dims, channels[i], channels[i + 1], num_convs, norm, bias)
            for i in range(len(filters))
        )
        self.pool = HalfResolution()
        self.apply(initialize_kohl)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, *S) -> features of each resolution, finest first: (B, filters[i], *ceil(S / 2**i))."""
        features: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            if i > 0:
                x = self.pool(x)
            x = block(x)
            features.append(x)
        return features


class HalfResolution(nn.Module):
    """Average pooling by 2 that keeps the last row of an odd side: (B, C, *S) -> (B, C, *ceil(S / 2)), 2D or 3D."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() == 4:
            return F.avg_pool2d(x, 2, 2, ceil_mode=True)
        # torch refuses a side of 1 in 3D, though with ceil_mode the window has a voxel
        return F.avg_pool3d(x, [min(2, x.shape[2]), min(2, x.shape[3]), min(2, x.shape[4])], 2, ceil_mode=True)


@torch.no_grad()
def initialize_kohl(module: nn.Module) -> None:
    """He-normal weights and truncated-normal(0.001) biases, as Kohl et al. (2018) initialise; for ``module.apply``."""
    if isinstance(module, (nn.Conv2d, nn.Conv3d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if module.bias is not None:
            nn.init.trunc_normal_(module.bias, mean=0.0, std=0.001, a=-0.002, b=0.002)
