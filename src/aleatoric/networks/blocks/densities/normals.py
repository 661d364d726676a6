"""Heads of one Normal, with axis-aligned, full or low-rank covariance; a temperature multiplies its spread."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from ....distributions import CholeskyNormal, LowRankNormal
from .base import LinearDensity

__all__ = ["DiagonalNormal", "FullNormal", "LowRankNormalDensity"]

# In all three validation is off: it would read the tensors back from the device at every step; the NaN check is the
# trainer's. The clamps keep log-densities, their squares included, finite in float32.


class DiagonalNormal(LinearDensity):
    """Axis-aligned Normal with mean and log standard deviation linear in the features (Kohl et al. 2018).

    Args:
        in_features: F, the channels that the encoder gives.
        latent_dim: d.
    """

    def __init__(self, in_features: int, latent_dim: int = 6) -> None:
        super().__init__(in_features, latent_dim, 2 * latent_dim)

    def _loc_scale(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        # -> loc, scale (..., d)
        loc, log_scale = parameters.chunk(2, dim=-1)
        return loc, torch.exp(log_scale.clamp(-15.0, 15.0))

    @torch.jit.unused
    def _from_parameters(self, parameters: Tensor) -> Distribution:
        loc, scale = self._loc_scale(parameters)
        return Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)

    def _draw_from_parameters(self, parameters: Tensor, temperature: float) -> Tensor:
        loc, scale = self._loc_scale(parameters)
        return loc + temperature * scale * torch.randn_like(loc)


class FullNormal(LinearDensity):
    r"""Normal with covariance :math:`L L^T`: L lower triangular, exp on its diagonal (Generalized PU-Net, section 3.1).

    An entry beside the diagonal is at most ten times its row's diagonal, which allows correlations up to 0.995 and
    bounds the inverse of L.

    Args:
        in_features: F, the channels that the encoder gives.
        latent_dim: d.
    """

    def __init__(self, in_features: int, latent_dim: int = 6) -> None:
        below = latent_dim * (latent_dim - 1) // 2
        super().__init__(in_features, latent_dim, 2 * latent_dim + below)
        # which of the numbers below the diagonal stands where; the last number is a zero, for everywhere else
        entry = torch.full((latent_dim, latent_dim), below)
        rows, columns = torch.tril_indices(latent_dim, latent_dim, offset=-1)
        entry[rows, columns] = torch.arange(below)
        self.entry: Tensor
        self.register_buffer("entry", entry.flatten(), persistent=False)

    def _loc_scale_tril(self, parameters: Tensor) -> tuple[Tensor, Tensor]:
        # -> loc (..., d), L (..., d, d)
        loc = parameters[..., : self.latent_dim]
        diagonal = torch.exp(parameters[..., self.latent_dim : 2 * self.latent_dim].clamp(-10.0, 10.0))
        below = torch.cat([parameters[..., 2 * self.latent_dim :], torch.zeros_like(loc[..., :1])], dim=-1)
        strict = below.index_select(-1, self.entry).unflatten(-1, [self.latent_dim, self.latent_dim])
        limit = 10.0 * diagonal.unsqueeze(-1)  # (..., d, 1)
        return loc, torch.maximum(torch.minimum(strict, limit), -limit) + torch.diag_embed(diagonal)

    @torch.jit.unused
    def _from_parameters(self, parameters: Tensor) -> Distribution:
        return CholeskyNormal(*self._loc_scale_tril(parameters), validate_args=False)

    def _draw_from_parameters(self, parameters: Tensor, temperature: float) -> Tensor:
        loc, scale_tril = self._loc_scale_tril(parameters)
        return loc + temperature * (scale_tril @ torch.randn_like(loc).unsqueeze(-1)).squeeze(-1)


class LowRankNormalDensity(LinearDensity):
    r"""Normal with covariance :math:`F F^T + \mathrm{diag}(\sigma^2)`, F with r columns (Generalized PU-Net).

    Args:
        in_features: F, the channels that the encoder gives.
        latent_dim: d.
        rank: r.
    """

    def __init__(self, in_features: int, latent_dim: int = 6, rank: int = 2) -> None:
        super().__init__(in_features, latent_dim, (2 + rank) * latent_dim)
        self.rank = rank

    def _loc_factor_scale(self, parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        # -> loc (..., d), factor (..., d, r), scale (..., d)
        loc = parameters[..., : self.latent_dim]
        log_scale = parameters[..., self.latent_dim : 2 * self.latent_dim]
        factor = parameters[..., 2 * self.latent_dim :].unflatten(-1, [self.latent_dim, self.rank])
        return loc, factor, torch.exp(log_scale.clamp(-10.0, 10.0))

    @torch.jit.unused
    def _from_parameters(self, parameters: Tensor) -> Distribution:
        loc, factor, scale = self._loc_factor_scale(parameters)
        return LowRankNormal(loc, factor, scale.square(), validate_args=False)

    def _draw_from_parameters(self, parameters: Tensor, temperature: float) -> Tensor:
        loc, factor, scale = self._loc_factor_scale(parameters)
        correlated = (factor @ torch.randn_like(factor[..., :1, :]).transpose(-1, -2)).squeeze(-1)
        return loc + temperature * (correlated + scale * torch.randn_like(loc))
