"""Backbones: image -> feature map of the image's own size. A model's head turns features (and z) into logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import InputError
from .encoders import ConvolutionBlock, Encoder, initialize_kohl

__all__ = ["DropoutUNetBackbone", "UNetBackbone"]


class UNetBackbone(nn.Module):
    """The U-Net of the Probabilistic U-Net, without its last layer (Kohl et al. 2018).

    Average pooling down, bilinear (3D: trilinear) upsampling with aligned corners, skip connections, ``num_convs``
    convolutions a block. Any image size works: each upsampling goes to its skip connection's size.

    Args:
        spatial_dims: 2 or 3.
        in_channels: C of the image.
        filters: channels per resolution, finest first.
        num_convs: convolutions a block.
        norm: MONAI's name of a normalisation, or None as published.
        decoder_filters: channels of the expanding path's resolutions, finest first, one fewer than ``filters``; default
            those of the contracting path. The features that come out have the first's.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        filters: Sequence[int] = (32, 64, 128, 256),
        num_convs: int = 3,
        norm: str | tuple | None = None,
        decoder_filters: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        widths = (*(filters[:-1] if decoder_filters is None else decoder_filters), filters[-1])
        self.out_channels = widths[0]
        self.encoder = Encoder(spatial_dims, in_channels, filters, num_convs, norm)
        # coarsest first, the order in which they run
        self.decoder = nn.ModuleList(
            ConvolutionBlock(spatial_dims, coarse + skip, fine, num_convs, norm)
            for coarse, skip, fine in zip(reversed(widths[1:]), reversed(filters[:-1]), reversed(widths[:-1]))
        )
        self.upsample_mode = "bilinear" if spatial_dims == 2 else "trilinear"
        self.decoder.apply(initialize_kohl)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, *S) -> (B, out_channels, *S)."""
        skips = self.encoder(image)
        x = skips[-1]
        for i, block in enumerate(self.decoder):
            skip = skips[len(skips) - 2 - i]
            x = F.interpolate(x, size=skip.shape[2:], mode=self.upsample_mode, align_corners=True)
            x = block(torch.cat([skip, x], dim=1))
        return x


class DropoutUNetBackbone(UNetBackbone):
    """The same U-Net with dropout before its innermost blocks, for Monte-Carlo dropout.

    Before the ``dropout_blocks`` innermost blocks of encoder and decoder, as the "Dropout U-Net" of Kohl et al. (2018).
    Whole channels are dropped: a mask then is one thinned network for the whole image, whatever its size, and two
    windows of a volume can be given the same one. Parameters and initialisation are those of :class:`UNetBackbone`.

    Args:
        spatial_dims, in_channels, filters, num_convs, norm, decoder_filters: as of :class:`UNetBackbone`.
        dropout: probability that a channel is dropped.
        dropout_blocks: blocks of the encoder, and as many of the decoder, coarsest first; never the one that sees the
            image.

    Raises:
        InputError: a probability outside [0, 1), or a negative number of blocks.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        filters: Sequence[int] = (32, 64, 128, 256),
        num_convs: int = 3,
        norm: str | tuple | None = None,
        decoder_filters: Sequence[int] | None = None,
        dropout: float = 0.5,
        dropout_blocks: int = 3,
    ) -> None:
        super().__init__(spatial_dims, in_channels, filters, num_convs, norm, decoder_filters)
        if not 0 <= dropout < 1 or dropout_blocks < 0:
            raise InputError(
                f"dropout is {dropout} and dropout_blocks {dropout_blocks}, but a probability in [0, 1) and a number "
                f"of blocks are expected: give e.g. dropout 0.5 and dropout_blocks 3."
            )
        self.dropout = dropout
        blocks = min(dropout_blocks, len(filters) - 1)
        self.shared_blocks = len(filters) - blocks  # of the encoder, which no mask touches
        self.dropped_decoder_blocks = blocks
        widths = [*(filters[:-1] if decoder_filters is None else decoder_filters), filters[-1]]
        # what the dropped blocks see: the finer block's features in the encoder, the coarser one's and a skip behind it
        self.mask_channels = sum(filters[self.shared_blocks - 1 : -1]) + sum(
            widths[-1 - i] + filters[-2 - i] for i in range(blocks)
        )

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, *S) -> (B, out_channels, *S); in training under a mask of its own for each image."""
        mask = self.draw_mask(image, image.shape[0]) if self.training else None
        return self.finish(self.shared(image), mask)

    @torch.jit.export
    def draw_mask(self, image: Tensor, count: int) -> Tensor:
        """``count`` masks on the image's device: (count, mask_channels), 0 or 1 / (1 - dropout)."""
        if self.dropout == 0.0:
            return torch.ones([count, self.mask_channels], device=image.device)  # without touching the random state
        kept = torch.rand([count, self.mask_channels], device=image.device) >= self.dropout
        return kept.float() / (1.0 - self.dropout)

    @torch.jit.export
    def shared(self, image: Tensor) -> list[Tensor]:
        """Features of the encoder's blocks before the first dropout, finest first."""
        x, features = image, []
        for i, block in enumerate(self.encoder.blocks):
            if i < self.shared_blocks:
                x = block(self.encoder.pool(x) if i > 0 else x)
                features.append(x)
        return features

    @torch.jit.export
    def finish(self, features: list[Tensor], mask: Optional[Tensor]) -> Tensor:
        """The rest of it: features of :meth:`shared` and a mask (B, mask_channels) -> (B, out_channels, *S)."""
        skips = list(features)
        x, used = features[-1], 0
        for i, block in enumerate(self.encoder.blocks):
            if i >= self.shared_blocks:
                x = self.encoder.pool(x)
                x, used = _thinned(x, mask, used), used + x.shape[1]
                x = block(x)
                skips.append(x)
        for i, block in enumerate(self.decoder):
            skip = skips[len(skips) - 2 - i]
            x = F.interpolate(x, size=skip.shape[2:], mode=self.upsample_mode, align_corners=True)
            x = torch.cat([skip, x], dim=1)
            if i < self.dropped_decoder_blocks:
                x, used = _thinned(x, mask, used), used + x.shape[1]
            x = block(x)
        return x


def _thinned(x: Tensor, mask: Optional[Tensor], start: int) -> Tensor:
    # x (B, C, *S) under the entries of mask (B, D) from ``start`` on
    if mask is None:
        return x
    part = mask[:, start : start + x.shape[1]].to(x.dtype)
    return x * part.view([x.shape[0], x.shape[1]] + [1] * (x.dim() - 2))
