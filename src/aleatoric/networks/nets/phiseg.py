"""PHiSeg: prior, posterior and likelihood over latent maps at several scales, this is their composition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

import torch
from torch import Tensor

from ...errors import InputError
from ...precision import autocast_to_bf16
from ..blocks.encoders import ConvolutionBlock
from ..blocks.phiseg_ladder import PHiSegLadder, PHiSegLikelihood
from .ladder_segmenter import LadderSegmenter

__all__ = ["PHiSeg"]


class PHiSeg(LadderSegmenter):
    r"""Segmenter with latent maps at several scales, :math:`p(y | z) \prod_l p(z_l | z_{l+1}, x)`.

    Baumgartner et al., "PHiSeg: Capturing Uncertainty in Medical Image Segmentation" (MICCAI 2019). The likelihood sees
    the latent maps alone; each adds a map of residual logits to those of the coarser ones. A map is drawn given the
    draw above it, at inference as in training.

    Args:
        prior: sees the image.
        posterior: sees the image and one rater's label; of the same latent maps.
        likelihood: the latent maps' residual logits; of the same latent maps.
        bf16: run everything but the densities and the sum of the logits in bfloat16 under autocast, on any device.

    Raises:
        InputError: latent maps of the parts differ; a label or a given latent map does not fit.
    """

    if TYPE_CHECKING:
        prior: PHiSegLadder
        posterior: PHiSegLadder

    def __init__(
        self, prior: PHiSegLadder, posterior: PHiSegLadder, likelihood: PHiSegLikelihood, bf16: bool = False
    ) -> None:
        super().__init__(prior, posterior, likelihood.out_channels, bf16)
        if (prior.latent_dims, prior.resolutions) != (likelihood.latent_dims, likelihood.resolutions):
            raise InputError(
                f"the prior has latent maps of {list(prior.latent_dims)} channels at {prior.resolutions} resolutions, "
                f"the likelihood {list(likelihood.latent_dims)} at {likelihood.resolutions}, but they must be the "
                f"same: give both one latent_dims and filters of one length."
            )
        self.likelihood = likelihood

    @torch.jit.export
    def residuals(self, latents: list[Tensor], size: list[int]) -> Tensor:
        """Residual logits (B, L, K, *size) of given latent maps (B, c, *s), coarsest first; their sum is the logits."""
        if torch.jit.is_scripting():
            return torch.stack(self.likelihood(latents, size), dim=1)
        with autocast_to_bf16(latents[0].device.type, self.bf16):
            return torch.stack(self.likelihood(latents, size), dim=1)

    def _logits(
        self, features: list[Tensor], noise: list[Tensor], latents: list[Optional[Tensor]], size: list[int]
    ) -> Tensor:
        residuals = self.likelihood(self.prior.expand(features, noise, latents)[0], size)
        logits = residuals[0]
        for residual in residuals[1:]:
            logits = logits + residual
        return logits

    @torch.jit.unused
    def compile_parts(self, **options: object) -> PHiSeg:
        """``torch.compile`` the convolution blocks in place, and nothing else (densities stay eager)."""
        for module in self.modules():
            if isinstance(module, ConvolutionBlock):
                module.compile(**options)
        return self

    @torch.jit.unused
    def _training_logits(self, decoded: list[Tensor], size: list[int]) -> tuple[Tensor, Sequence[Tensor]]:
        levels = list(torch.stack(self.likelihood(decoded, size)).cumsum(0))
        return levels[-1], levels
