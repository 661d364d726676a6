"""The Hierarchical Probabilistic U-Net: two hierarchical cores and a last layer, this is their composition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor

from ..blocks.ladder import HierarchicalCore
from ..blocks.residual import initialize_orthogonal
from .ladder_segmenter import LadderSegmenter

__all__ = ["HierarchicalProbabilisticUNet"]


class HierarchicalProbabilisticUNet(LadderSegmenter):
    r"""Segmenter with latent maps at several scales of its decoder, :math:`p(y | z, x) \prod_i p(z_i | z_{<i}, x)`.

    Kohl et al., "A Hierarchical Probabilistic U-Net for Modeling Multi-Scale Ambiguities" (2019). The image's own
    contracting path is shared by prior and decoder; the posterior is a second core whose draws the first one decodes.

    Args:
        prior: sees the image, decodes to features of the image's size.
        posterior: sees the image and one rater's label; of the same latent maps, without a decoder behind them.
        out_channels: K class channels.
        spatial_dims: 2 or 3.
        bf16: run everything but the densities in bfloat16 under autocast, on any device.

    Raises:
        InputError: latent maps of prior and posterior differ; a label or a given latent map does not fit.
    """

    if TYPE_CHECKING:
        prior: HierarchicalCore
        posterior: HierarchicalCore

    def __init__(
        self,
        prior: HierarchicalCore,
        posterior: HierarchicalCore,
        out_channels: int = 1,
        spatial_dims: int = 2,
        bf16: bool = False,
    ) -> None:
        super().__init__(prior, posterior, out_channels, bf16)
        self.head = Conv[Conv.CONV, spatial_dims](prior.out_channels, out_channels, kernel_size=1)
        initialize_orthogonal(self.head)

    def _logits(
        self, features: list[Tensor], noise: list[Tensor], latents: list[Optional[Tensor]], size: list[int]
    ) -> Tensor:
        return self.head(self.prior.expand(features, noise, latents)[0]).float()

    @torch.jit.unused
    def compile_parts(self, **options: object) -> HierarchicalProbabilisticUNet:
        """``torch.compile`` the residual blocks in place, and nothing else (densities stay eager)."""
        for core in (self.prior, self.posterior):
            for blocks in (*core.contracting, *core.latent_levels, *core.plain_levels):
                blocks.compile(**options)
        return self

    @torch.jit.unused
    def _training_logits(self, decoded: Tensor, size: list[int]) -> tuple[Tensor, Sequence[Tensor]]:
        return self.head(decoded).float(), ()
