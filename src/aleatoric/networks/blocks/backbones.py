"""Backbones: image -> feature map of the image's own size. A model's head turns features (and z) into logits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .encoders import ConvolutionBlock, Encoder, initialize_kohl

__all__ = ["UNetBackbone"]


class UNetBackbone(nn.Module):
    """The U-Net of the Probabilistic U-Net, without its last layer (Kohl et al. 2018).

    Average pooling down, bilinear (3D: trilinear) upsampling with aligned corners, skip connections, ``num_convs``
    convolutions a block. Any image size works: each upsampling goes to its skip connection's size.

    Args:
        spatial_dims: 2 or 3.
        in_channels: C of the image.
        filters: channels per resolution, finest first; the features that come out have ``filters[0]`` channels.
        num_convs: convolutions a block.
        norm: MONAI's name of a normalisation, or None as published.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        filters: Sequence[int] = (32, 64, 128, 256),
        num_convs: int = 3,
        norm: str | tuple | None = None,
    ) -> None:
        super().__init__()
        self.out_channels = filters[0]
        self.encoder = Encoder(spatial_dims, in_channels, filters, num_convs, norm)
        # coarsest first, the order in which they run
        self.decoder = nn.ModuleList(
            ConvolutionBlock(spatial_dims, coarse + fine, fine, num_convs, norm)
            for coarse, fine in zip(reversed(filters[1:]), reversed(filters[:-1]))
        )
        self.upsample_mode = "bilinear" if spatial_dims == 2 else "trilinear"
        self.decoder.apply(initialize_kohl)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, *S) -> (B, filters[0], *S)."""
        skips = self.encoder(image)
        x = skips[-1]
        for i, block in enumerate(self.decoder):
            skip = skips[len(skips) - 2 - i]
            x = F.interpolate(x, size=skip.shape[2:], mode=self.upsample_mode, align_corners=True)
            x = block(torch.cat([skip, x], dim=1))
        return x
