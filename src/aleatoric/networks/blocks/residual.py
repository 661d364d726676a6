"""The residual block of the Hierarchical Probabilistic U-Net. MONAI's residual blocks activate behind the sum."""

from __future__ import annotations

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers import get_norm_layer
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

__all__ = ["ResidualBlock", "initialize_orthogonal", "residual_blocks"]


class ResidualBlock(nn.Module):
    """Pre-activated: ReLU, then ``num_convs`` 3x3 convolutions at half the width, then a 1x1 one to the full width.

    Kohl et al. 2019 and the authors' code. Where the width changes, the identity is a 1x1 convolution.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels that come in.
        out_channels: channels that go out.
        num_convs: 3x3 convolutions.
        norm: MONAI's name of a normalisation, put behind every 3x3 convolution; None as published.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        num_convs: int = 3,
        norm: str | tuple | None = None,
    ) -> None:
        super().__init__()
        width = max(1, out_channels // 2)
        convolutions = (
            Convolution(
                spatial_dims,
                in_channels if i == 0 else width,
                width,
                kernel_size=3,
                act=("relu", {"inplace": True}) if i < num_convs - 1 else None,
                norm=norm,
                adn_ordering="NA",
            )
            for i in range(num_convs)
        )
        pointwise = Conv[Conv.CONV, spatial_dims]
        self.residual = nn.Sequential(nn.ReLU(), *convolutions, pointwise(width, out_channels, kernel_size=1))
        self.identity: nn.Module = nn.Identity()
        if in_channels != out_channels:
            self.identity = pointwise(in_channels, out_channels, kernel_size=1)
        self.apply(initialize_orthogonal)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, *S) -> (B, C_out, *S)."""
        return self.identity(x) + self.residual(x)


def residual_blocks(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    num_blocks: int = 3,
    num_convs: int = 3,
    norm: str | tuple | None = None,
) -> nn.Sequential:
    """``num_blocks`` residual blocks of one resolution, (B, C_in, *S) -> (B, C_out, *S).

    With ``norm`` one more normalisation stands behind them: what blocks add is normalised, so that their sum would grow
    with every block, and the densities' log scales with it.
    """
    blocks: list[nn.Module] = [
        ResidualBlock(spatial_dims, in_channels if i == 0 else out_channels, out_channels, num_convs, norm)
        for i in range(num_blocks)
    ]
    return nn.Sequential(*blocks, *([get_norm_layer(norm, spatial_dims, out_channels)] if norm else []))


@torch.no_grad()
def initialize_orthogonal(module: nn.Module) -> None:
    """Orthogonal weights of gain 1 and truncated-normal(0.001) biases, as the authors' code has it; for ``apply``.

    He-normal weights would double the variance at each of the some fifty residual blocks on the way to the logits.
    """
    if isinstance(module, (nn.Conv2d, nn.Conv3d)):
        nn.init.orthogonal_(module.weight)
        if module.bias is not None:
            nn.init.trunc_normal_(module.bias, mean=0.0, std=0.001, a=-0.002, b=0.002)
