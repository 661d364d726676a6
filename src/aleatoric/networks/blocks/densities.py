"""Density heads: features -> a distribution over the latent space. A head holds parameters, a distribution none."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from .encoders import Encoder, initialize_kohl

__all__ = ["ConditionalDensity", "DensityHead", "DiagonalNormal"]


class DensityHead(nn.Module):
    """Base of all density heads: ``forward`` gives the distribution, ``draw`` the scriptable way to sample it.

    Both compute in float32 whatever the autocast type. A subclass gives ``_distribution`` and ``_draw``.

    Args:
        latent_dim: d, the dimensions of the latent space.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    @torch.jit.unused
    def forward(self, features: Tensor) -> Distribution:
        """Features (..., F) -> distribution of batch shape (...) and event shape (d,)."""
        with torch.autocast(features.device.type, enabled=False):
            return self._distribution(features.float())

    def draw(self, features: Tensor, temperature: float = 1.0) -> Tensor:
        """Features (..., F) -> one draw each, (..., d), with the spread times ``temperature``.

        Exported models, which hold no Distribution, draw this way.
        """
        if torch.jit.is_scripting():
            return self._draw(features.float(), temperature)
        with torch.autocast(features.device.type, enabled=False):
            return self._draw(features.float(), temperature)

    @torch.jit.unused
    def _distribution(self, features: Tensor) -> Distribution:
        raise NotImplementedError

    def _draw(self, features: Tensor, temperature: float) -> Tensor:
        raise NotImplementedError


class DiagonalNormal(DensityHead):
    """Axis-aligned Normal with mean and log standard deviation linear in the features (Kohl et al. 2018).

    Args:
        in_features: F, the channels that the encoder gives.
        latent_dim: d.
    """

    def __init__(self, in_features: int, latent_dim: int = 6) -> None:
        super().__init__(latent_dim)
        self.linear = nn.Linear(in_features, 2 * latent_dim)
        initialize_kohl(self.linear)

    def _loc_scale(self, features: Tensor) -> tuple[Tensor, Tensor]:
        # (..., F) -> loc, scale (..., d). The clamp keeps exp finite in float32 and its square away from zero
        loc, log_scale = self.linear(features).chunk(2, dim=-1)
        return loc, torch.exp(log_scale.clamp(-15.0, 15.0))

    @torch.jit.unused
    def _distribution(self, features: Tensor) -> Distribution:
        loc, scale = self._loc_scale(features)
        # validation would read the tensors back from the device at every step; the NaN check is the trainer's
        return Independent(Normal(loc, scale, validate_args=False), 1, validate_args=False)

    def _draw(self, features: Tensor, temperature: float) -> Tensor:
        loc, scale = self._loc_scale(features)
        return loc + temperature * scale * torch.randn_like(loc)


class ConditionalDensity(nn.Module):
    """Prior p(z | x) or posterior q(z | x, y): an encoder, a mean over space, a density head.

    Prior and posterior are this one class; the posterior's encoder sees the label's channels beside the image's.

    Args:
        encoder: pixels -> list of features, coarsest last.
        density: features (..., F) -> distribution.
    """

    def __init__(self, encoder: Encoder, density: DensityHead) -> None:
        super().__init__()
        self.encoder = encoder
        self.density = density

    @property
    def latent_dim(self) -> int:
        """d, the dimensions of the latent space."""
        return self.density.latent_dim

    def features(self, x: Tensor) -> Tensor:
        """(B, C, *S) -> (B, F), averaged in float32."""
        return self.encoder(x)[-1].float().flatten(2).mean(-1)

    @torch.jit.unused
    def forward(self, x: Tensor) -> Distribution:
        """(B, C, *S) -> distribution of batch shape (B,)."""
        return self.density(self.features(x))
