"""Terms of objectives of models with latent maps at several scales; one value per image."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from ..errors import InputError
from ..outputs import LadderOutput
from .likelihoods import NegativeLogLikelihood
from .variational import DivergenceTerm

__all__ = ["LadderKLDivergence", "LevelKLDivergence", "ResidualLikelihood", "level_divergences"]


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


class ResidualLikelihood(nn.Module):
    r""":math:`-\sum_l \log p(y_k | z_{\ge l})`: cross-entropy with rater k's label at every latent map, summed.

    Baumgartner et al., PHiSeg (2019), "residual" likelihood of the authors' code: the logits at a map are the sum of
    the residual logits of it and of the coarser ones, so that each map adds what the coarser ones could not say. Summed
    over pixels and maps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.likelihood = NegativeLogLikelihood()

    def forward(self, output: LadderOutput, label: Tensor) -> Tensor:
        """Output with ``level_logits`` (B, K, *S) each, label (B, R, *S) -> (B,) nats; 0 where no rater is valid."""
        if not getattr(output, "level_logits", ()):
            raise InputError("the training output has no level_logits, expected PHiSeg's: use NegativeLogLikelihood.")
        levels = [self.likelihood(output._replace(logits=logits), label) for logits in output.level_logits]
        return torch.stack(levels).sum(0)


def level_divergences(weights: Sequence[float]) -> dict[str, DivergenceTerm]:
    """The KL divergence of each latent map with its weight, for :class:`VariationalLoss`: kl_0 is the coarsest's.

    Baumgartner et al. (2019) weigh a map by the number of pixels of the finest latent map that one of its own covers,
    which makes up for the fewer numbers in it: in 2D and with five maps 256, 64, 16, 4, 1.
    """
    return {f"kl_{i}": DivergenceTerm(LevelKLDivergence(i), weight) for i, weight in enumerate(weights)}


def _level(output: LadderOutput, level: int) -> Tensor:
    values = kl_divergence(output.posteriors[level], output.priors[level])  # (B, P)
    index = torch.arange(values.shape[0], device=values.device)
    return values[index, output.slot] * output.posterior_valid[index, output.slot]
