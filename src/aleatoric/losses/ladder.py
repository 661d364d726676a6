"""Divergences between posterior and prior of models with latent maps at several scales; one value per image."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from ..outputs import LadderOutput

__all__ = ["LadderKLDivergence", "LevelKLDivergence"]


class LevelKLDivergence(nn.Module):
    r""":math:`KL[q(z_i | z_{<i}, x, y_k) \| p(z_i | z_{<i}, x)]` of one latent map, summed over it.

    Args:
        level: i, the coarsest map is 0.
    """

    def __init__(self, level: int) -> None:
        super().__init__()
        self.level = level

    def forward(self, output: LadderOutput, label: Tensor) -> Tensor:
        """Output whose densities are (B, 1) and (B, P) of (c, *s) -> (B,) nats; 0 where no rater is valid."""
        return _level(output, self.level)


class LadderKLDivergence(nn.Module):
    r""":math:`KL[q(z | x, y_k) \| p(z | x)]` of all latent maps: the sum over them (Kohl et al. 2019).

    Each map's densities are given the posterior's draws of the maps above it, so it is an unbiased estimate.
    """

    def forward(self, output: LadderOutput, label: Tensor) -> Tensor:
        """Output with L latent maps -> (B,) nats; 0 where no rater is valid."""
        return torch.stack([_level(output, level) for level in range(len(output.priors))]).sum(0)


def _level(output: LadderOutput, level: int) -> Tensor:
    values = kl_divergence(output.posteriors[level], output.priors[level])  # (B, P)
    index = torch.arange(values.shape[0], device=values.device)
    return values[index, output.slot] * output.posterior_valid[index, output.slot]
