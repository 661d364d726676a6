"""A U-Net with latent maps at the coarsest scales of its decoder: prior and posterior of hierarchical models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Optional

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.distributions import Independent, Normal
from torch.nn import functional as F

from ...errors import InputError
from .encoders import HalfResolution
from .residual import initialize_orthogonal, residual_blocks

__all__ = ["HierarchicalCore", "LatentLadder", "NormalMap"]


class NormalMap(nn.Module):
    """Features -> an axis-aligned Normal at every pixel of a latent map, in float32 whatever the autocast type.

    Args:
        spatial_dims: 2 or 3.
        in_channels: F, channels of the features.
        latent_dim: c, channels of the latent map.
        gain: of the orthogonal weights at the start.
    """

    def __init__(self, spatial_dims: int, in_channels: int, latent_dim: int = 1, gain: float = 1.0) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.pointwise = Conv[Conv.CONV, spatial_dims](in_channels, 2 * latent_dim, kernel_size=1)
        initialize_orthogonal(self.pointwise)
        with torch.no_grad():
            self.pointwise.weight.mul_(gain)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, *s) -> mean and standard deviation, (B, c, *s) each."""
        if torch.jit.is_scripting():
            return self._loc_scale(features.float())
        with torch.autocast(features.device.type, enabled=False):
            return self._loc_scale(features.float())

    def _loc_scale(self, features: Tensor) -> tuple[Tensor, Tensor]:
        loc, log_scale = self.pointwise(features).chunk(2, dim=1)
        return loc, torch.exp(log_scale.clamp(-15.0, 15.0))  # as in densities/normals.py


class LatentLadder(nn.Module):
    """What priors and posteriors of several latent maps share: the noise they are drawn with and their distributions.

    Args:
        latent_dims: channels of each latent map, COARSEST first.
        resolutions: how many the contracting path has, with or without a latent map.
    """

    def __init__(self, latent_dims: Sequence[int], resolutions: int) -> None:
        super().__init__()
        self.latent_dims = tuple(latent_dims)
        self.resolutions = resolutions

    @torch.jit.unused
    def check_size(self, image: Tensor) -> None:
        """Raises InputError where a normalisation has one value at the coarsest resolution of (B, C, *S)."""
        pixels = math.prod(-(-side // 2 ** (self.resolutions - 1)) for side in image.shape[2:])
        kind, more = "", ""
        for module in self.modules():
            if isinstance(module, nn.modules.instancenorm._InstanceNorm) and pixels == 1:
                kind, more = "instance", "norm batch"
            elif isinstance(module, nn.modules.batchnorm._BatchNorm) and self.training and len(image) * pixels == 1:
                kind, more = "batch", "more than one image a batch"
        if kind:
            raise InputError(
                f"images of {tuple(image.shape[2:])} pixels are one pixel at the coarsest of {self.resolutions} "
                f"scales, which {kind} normalisation cannot train on: give {more}, or fewer filters."
            )

    def contract(self, x: Tensor) -> list[Tensor]:
        """(B, C, *S) -> features from the coarsest resolution on, what is computed once per image."""
        raise NotImplementedError

    def noise(self, features: list[Tensor], num_samples: int, temperature: float = 1.0) -> list[Tensor]:
        """Standard normal noise times ``temperature``: of each latent map (B, N, c, *s), features (B, F, *s)."""
        noise: list[Tensor] = []
        for i, latent_dim in enumerate(self.latent_dims):
            size = list(features[i].shape)
            size[1] = latent_dim
            size.insert(1, num_samples)
            noise.append(temperature * torch.randn(size, device=features[i].device))
        return noise

    @torch.jit.unused
    def distributions(self, locs: list[Tensor], scales: list[Tensor]) -> list[Independent]:
        """Of means and standard deviations (B, c, *s): batch shape (B, 1), event shape (c, *s), one for each map."""
        # validation is off: it would read the tensors back from the device at every step
        return [
            Independent(
                Normal(loc.unsqueeze(1), scale.unsqueeze(1), validate_args=False), loc.dim() - 1, validate_args=False
            )
            for loc, scale in zip(locs, scales)
        ]


class HierarchicalCore(LatentLadder):
    r"""Prior :math:`\prod_i p(z_i | z_{<i}, x)` or posterior :math:`\prod_i q(z_i | z_{<i}, x, y)`, and decoder.

    Kohl et al., "A Hierarchical Probabilistic U-Net for Modeling Multi-Scale Ambiguities" (2019), section 2. A
    contracting path of residual blocks and average pooling; then, from the coarsest scale on: a Normal per pixel, its
    draw beside the features, upsampling (nearest) to the next scale's skip connection, residual blocks. A scale
    is drawn GIVEN the draws above it. The scales behind the last latent one are an ordinary U-Net decoder.

    Prior and posterior are this one class; the posterior sees the label's channels beside the image's and ends at its
    last latent, since its decoder would be used by nobody.

    Any image size works: pooling keeps the last row of an odd size, upsampling goes to the skip connection's size.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels, plus label channels for a posterior.
        filters: channels per resolution, finest first; as published ``(24, 48, 96, 192, 192, 192, 192, 192)``.
        latent_dims: channels of each latent map, COARSEST first; fewer maps than resolutions.
        num_convs: convolutions a residual block.
        num_blocks: residual blocks a resolution and path.
        norm: MONAI's name of a normalisation, or None as published ("instance" needs two pixels at the coarsest scale).
        decode: False for a posterior: nothing behind the last latent map.

    Raises:
        InputError: no latent map, or as many as resolutions.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        filters: Sequence[int] = (24, 48, 96, 192, 192, 192, 192, 192),
        latent_dims: Sequence[int] = (1, 1, 1, 1),
        num_convs: int = 3,
        num_blocks: int = 3,
        norm: str | tuple | None = None,
        decode: bool = True,
    ) -> None:
        super().__init__(latent_dims, len(filters))
        if not 1 <= len(latent_dims) < len(filters) or min(latent_dims) < 1:
            raise InputError(
                f"latent_dims is {list(latent_dims)} for {len(filters)} resolutions, expected a positive number of "
                f"channels for 1 to {len(filters) - 1} latent maps: shorten latent_dims or lengthen filters."
            )
        self.out_channels = filters[0]
        options = (num_blocks, num_convs, norm)
        channels = (in_channels, *filters)
        self.contracting = nn.ModuleList(
            residual_blocks(spatial_dims, channels[i], channels[i + 1], *options) for i in range(len(filters))
        )
        self.pool = HalfResolution()

        up = tuple(reversed(filters))  # coarsest first, the order in which they run
        # normalised features are several times larger, and the log scales would be with them
        gain = 0.1 if norm else 1.0
        self.densities = nn.ModuleList(NormalMap(spatial_dims, f, c, gain) for f, c in zip(up, latent_dims))
        levels: list[nn.Module] = [
            _Level(residual_blocks(spatial_dims, up[i] + latent + up[i + 1], up[i + 1], *options))
            for i, latent in enumerate((*latent_dims, *[0] * (len(filters) - 1 - len(latent_dims))))
        ]
        maps = len(latent_dims)
        self.latent_levels = nn.ModuleList(levels[:maps] if decode else [*levels[: maps - 1], _End()])
        self.plain_levels = nn.ModuleList(levels[maps:] if decode else [])

    def contract(self, x: Tensor) -> list[Tensor]:
        """(B, C, *S) -> features of each resolution, COARSEST first: what is computed once per image."""
        features: list[Tensor] = []
        for i, blocks in enumerate(self.contracting):
            if i > 0:
                x = self.pool(x)
            x = blocks(x)
            features.append(x)
        features.reverse()
        return features

    def expand(
        self, skips: list[Tensor], noise: list[Tensor], latents: list[Optional[Tensor]]
    ) -> tuple[Tensor, list[Tensor], list[Tensor], list[Tensor]]:
        """From the first latent map on.

        Args:
            skips: of :meth:`contract`, (B, F, *s) each.
            noise: of each latent map (B, c, *s); read where the map is not given.
            latents: of each latent map the z to decode, (B, c, *s), or None: mean plus standard deviation times noise.

        Returns:
            features (B, filters[0], *S), and of each latent map z, mean and standard deviation, (B, c, *s) each, the
            last two given the z above.
        """
        draws: list[Tensor] = []
        locs: list[Tensor] = []
        scales: list[Tensor] = []
        x = skips[0]
        i = 0
        for density, level in zip(self.densities, self.latent_levels):
            loc, scale = density(x)
            given = latents[i]
            z = loc + scale * noise[i] if given is None else given
            draws.append(z)
            locs.append(loc)
            scales.append(scale)
            i += 1
            x = level(torch.cat([z.to(x.dtype), x], dim=1), skips[i])
        for level in self.plain_levels:
            i += 1
            x = level(x, skips[i])
        return x, draws, locs, scales


class _Level(nn.Module):
    """Upsampling to the skip connection's size, then residual blocks on both."""

    def __init__(self, blocks: nn.Module) -> None:
        super().__init__()
        self.blocks = blocks

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.blocks(torch.cat([F.interpolate(x, size=skip.shape[2:], mode="nearest"), skip], dim=1))


class _End(nn.Module):
    """Where a posterior's last latent map is drawn."""

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return x
