"""Density heads: features -> a distribution over the latent space. A head holds parameters, a distribution none."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from ..encoders import initialize_kohl

__all__ = ["ConditionalDensity", "DensityHead", "LinearDensity"]


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

    @torch.jit.unused
    def drawn_from(self, features: Tensor) -> Distribution:
        """The law of ``draw`` at temperature 1; the same as ``forward``, unless a part is left out at inference."""
        return self(features)

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


class LinearDensity(DensityHead):
    """Base of the heads whose distribution has one row of parameters, linear in the features.

    A subclass says in ``_from_parameters`` and ``_draw_from_parameters`` what the row means.

    Args:
        in_features: F, the channels that the encoder gives.
        latent_dim: d.
        num_parameters: numbers in a row.
    """

    def __init__(self, in_features: int, latent_dim: int, num_parameters: int) -> None:
        super().__init__(latent_dim)
        self.linear = nn.Linear(in_features, num_parameters)
        initialize_kohl(self.linear)

    @torch.jit.unused
    def _distribution(self, features: Tensor) -> Distribution:
        return self._from_parameters(self.linear(features))

    def _draw(self, features: Tensor, temperature: float) -> Tensor:
        return self._draw_from_parameters(self.linear(features), temperature)

    @torch.jit.unused
    def _from_parameters(self, parameters: Tensor) -> Distribution:
        raise NotImplementedError

    def _draw_from_parameters(self, parameters: Tensor, temperature: float) -> Tensor:
        raise NotImplementedError


class ConditionalDensity(nn.Module):
    """Prior p(z | x) or posterior q(z | x, y): an encoder, a mean over space, a density head.

    Prior and posterior are this one class; the posterior's encoder sees the label's channels beside the image's.

    Args:
        encoder: pixels -> list of features, coarsest last: ``Encoder``, ``ResNetEncoder``, ``ConvNeXtEncoder``.
        density: features (..., F) -> distribution.
    """

    def __init__(self, encoder: nn.Module, density: DensityHead) -> None:
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
