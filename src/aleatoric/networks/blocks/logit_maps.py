"""From features to a Normal over the whole logit map, and which pixels of an image it spreads over."""

from __future__ import annotations

import math

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from ...distributions import LogitMapNormal
from .encoders import initialize_kohl

__all__ = ["ForegroundMask", "LogitMapDensity"]


class LogitMapDensity(nn.Module):
    r"""1x1 convolutions from features to mean, diagonal and factor of :math:`N(\mu, P P^T + \mathrm{diag}(D))`.

    Monteiro et al., "Stochastic Segmentation Networks" (2020), section 4. The maps come out as channels of one tensor,
    in float32 whatever the autocast type: K of the mean, K of the diagonal (variances), R * K of the factor. Each of
    them may be stitched and blended linearly, where the backbone gives a place the same columns in every window (no
    statistics of the single window, as instance normalisation takes them).

    Where raters disagree about a region as a whole, the likelihood has no maximum: it grows with the covariance for
    ever, and the published model overflowed. Here the variance v of each of the two parts, exp(network's output) for D
    and :math:`\sum_r P_{ir}^2` for P, becomes :math:`v / (1 + v / b^2)`, b the largest standard deviation of each. That
    is smooth, below :math:`b^2`, and nothing in ordinary use: with b = 1000 a standard deviation of 30, which already
    takes a logit from certainty to certainty, loses 0.05 %. What the bound costs is about 2 / b nats for a region that
    goes as a whole: its draws are undecided with a probability in the order of 1 / b.

    Args:
        spatial_dims: 1, 2 or 3.
        in_channels: F, channels of the features.
        out_channels: K, the logits of a pixel; 1 for a binary task, the difference of the two classes' logits: the
            difference of two jointly Normal maps is such a map again, so that nothing is lost.
        rank: R, columns of the factor; 0: the diagonal model.
        num_layers: 1x1 layers with a ReLU before the maps.
        hidden_channels: their width; default ``in_channels``.
        epsilon: least variance of a logit.
        max_std: b.
        norm: MONAI's name of a normalisation of the layers before the maps, or None.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 32,
        out_channels: int = 1,
        rank: int = 10,
        num_layers: int = 3,
        hidden_channels: int | None = None,
        epsilon: float = 1e-5,
        max_std: float = 1000.0,
        norm: str | tuple | None = None,
    ) -> None:
        super().__init__()
        if rank < 0 or num_layers < 0 or out_channels < 1:
            raise ValueError(
                f"rank is {rank}, num_layers {num_layers} and out_channels {out_channels}, expected at least 0, 0 "
                f"and 1."
            )
        if not 0 < epsilon < max_std:
            raise ValueError(f"epsilon is {epsilon} and max_std {max_std}, expected 0 < epsilon < max_std.")
        conv = Conv[Conv.CONV, spatial_dims]
        self.out_channels = out_channels
        self.rank = rank
        self.epsilon = epsilon
        self.max_std = max_std
        width = in_channels if hidden_channels is None else hidden_channels
        layers = [
            Convolution(
                spatial_dims,
                in_channels if i == 0 else width,
                width,
                kernel_size=1,
                act=("relu", {"inplace": True}),
                norm=norm,
                adn_ordering="NA",
            )
            for i in range(num_layers)
        ]
        self.hidden = nn.Sequential(*layers).apply(initialize_kohl)
        # torch's own initialisation, smaller than He's: the spread begins at about 1
        self.maps = conv(width if num_layers else in_channels, (2 + rank) * out_channels, kernel_size=1)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, F, *S) -> maps (B, (2 + R) * K, *S)."""
        if torch.jit.is_scripting():
            return self._maps(features.float())
        with torch.autocast(features.device.type, enabled=False):
            return self._maps(features.float())

    def _maps(self, features: Tensor) -> Tensor:
        raw, k = self.maps(self.hidden(features)), self.out_channels
        bound = self.max_std**2
        # exp(l) / (1 + exp(l) / bound), which overflows nowhere
        diagonal = bound * torch.sigmoid(raw[:, k : 2 * k] - math.log(bound)) + self.epsilon
        if self.rank == 0:
            return torch.cat([raw[:, :k], diagonal], dim=1)
        factor = raw[:, 2 * k :].unflatten(1, [self.rank, k])  # (B, R, K, *S)
        shrink = torch.rsqrt(1.0 + (factor / self.max_std).square().sum(1, keepdim=True))
        return torch.cat([raw[:, :k], diagonal, (factor * shrink).flatten(1, 2)], dim=1)

    def draw(self, maps: Tensor, num_samples: int, temperature: float = 1.0) -> Tensor:
        """Maps (B, (2 + R) * K, *S) -> N draws (B, N, K, *S) with the spread times ``temperature``.

        It needs little more memory than its result, and exported models, which hold no Distribution, draw this way.
        Samples are drawn one after the other: of one random state, N draws are n of them followed by N - n.
        """
        if torch.jit.is_scripting():
            return self._draw(maps.float(), num_samples, temperature)
        with torch.autocast(maps.device.type, enabled=False):
            return self._draw(maps.float(), num_samples, temperature)

    def _draw(self, maps: Tensor, num_samples: int, temperature: float) -> Tensor:
        k = self.out_channels
        flat = maps.unflatten(1, [2 + self.rank, k]).flatten(2)  # (B, 2 + R, K * pixels)
        batch, size = flat.shape[0], flat.shape[2]
        draws = torch.empty([batch, num_samples, size], dtype=flat.dtype, device=flat.device)
        shared = torch.empty([batch, num_samples, self.rank], dtype=flat.dtype, device=flat.device)
        drawn = torch.empty([batch, size], dtype=flat.dtype, device=flat.device)
        for n in range(num_samples):  # sample after sample, so that N draws are the first n and then N - n more
            draws[:, n] = drawn.normal_()
            shared[:, n] = torch.randn([batch, self.rank], dtype=flat.dtype, device=flat.device)
        draws.mul_(temperature * flat[:, 1:2].sqrt())
        if self.rank > 0:
            draws.baddbmm_(temperature * shared, flat[:, 2:])
        draws.add_(flat[:, :1])
        return draws.unflatten(2, maps[0, :k].shape)

    @torch.jit.unused
    def distribution_of(self, maps: Tensor) -> LogitMapNormal:
        """The law that ``draw`` draws from: maps (B, (2 + R) * K, *S) -> batch shape (B,), event shape (K, *S)."""
        parts = maps.float().unflatten(1, (2 + self.rank, self.out_channels))
        return LogitMapNormal(parts[:, 0], parts[:, 2:], parts[:, 1], validate_args=False)


class ForegroundMask(nn.Module):
    """Where an image shows something: a pixel is background where every channel equals one value.

    Args:
        background: that value, as it is in the image that the network sees.
    """

    def __init__(self, background: float = 0.0) -> None:
        super().__init__()
        self.background = background

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, *S) -> bool (B, *S), False in the background."""
        return (image != self.background).any(dim=1)
