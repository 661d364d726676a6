"""The parts of PHiSeg: prior and posterior over latent maps at several scales, and the likelihood that reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Optional

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn
from torch.nn import functional as F

from ...errors import InputError
from .encoders import ConvolutionBlock, Encoder, initialize_kohl
from .ladder import LatentLadder

__all__ = ["PHiSegLadder", "PHiSegLikelihood", "SoftplusNormalMap"]


class SoftplusNormalMap(nn.Module):
    """Features -> an axis-aligned Normal at every pixel of a latent map, in float32 whatever the autocast type.

    Args:
        spatial_dims: 2 or 3.
        in_channels: F, channels of the features.
        latent_dim: c, channels of the latent map.
        kernel_size: of the means' convolution; the standard deviations' is pointwise.
    """

    def __init__(self, spatial_dims: int, in_channels: int, latent_dim: int = 2, kernel_size: int = 1) -> None:
        super().__init__()
        conv = Conv[Conv.CONV, spatial_dims]
        self.least_scale = 0.01
        self.loc = conv(in_channels, latent_dim, kernel_size=kernel_size, padding=kernel_size // 2)
        self.scale = conv(in_channels, latent_dim, kernel_size=1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(B, F, *s) -> mean and standard deviation, (B, c, *s) each."""
        if torch.jit.is_scripting():
            return self._loc_scale(features.float())
        with torch.autocast(features.device.type, enabled=False):
            return self._loc_scale(features.float())

    def _loc_scale(self, features: Tensor) -> tuple[Tensor, Tensor]:
        # The authors have no floor: one pixel whose prior begins narrow then makes a KL divergence of 1e11. Added, it
        # lets the gradient through that widens the prior again.
        return self.loc(features), F.softplus(self.scale(features)) + self.least_scale


class PHiSegLadder(LatentLadder):
    r"""Prior :math:`\prod_l p(z_l | z_{l+1}, x)` or posterior :math:`\prod_l q(z_l | z_{l+1}, x, y)` of PHiSeg.

    Baumgartner et al., "PHiSeg: Capturing Uncertainty in Medical Image Segmentation" (MICCAI 2019), section 2, and the
    authors' code. A contracting path; at its coarsest resolutions a Normal per pixel. A map is drawn GIVEN the draw
    above it, which goes through two convolutions at the map's size and then, beside the image's features, through two
    more.

    Prior and posterior are this one class; the posterior sees the label's channels beside the image's.

    Two things are not as in that code: its convolutions bring a draw to every finer resolution, but only the next one
    is ever read, and only that one is here; any image size works, since upsampling goes to the features' size.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels, plus label channels for a posterior.
        filters: channels per resolution, finest first.
        latent_dims: channels of each latent map, COARSEST first; at most as many maps as resolutions.
        num_convs: convolutions a block of the contracting path; one less (but one) in every other block.
        norm: MONAI's name of a normalisation, or None.

    Raises:
        InputError: no latent map, or more than resolutions.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        in_channels: int = 1,
        filters: Sequence[int] = (32, 64, 128, 192, 192, 192, 192),
        latent_dims: Sequence[int] = (2, 2, 2, 2, 2),
        num_convs: int = 3,
        norm: str | tuple | None = "batch",
    ) -> None:
        super().__init__(latent_dims, len(filters))
        check_latent_dims(filters, latent_dims)
        self.encoder = Encoder(spatial_dims, in_channels, filters, num_convs, norm, bias=norm is None)
        options = (max(1, num_convs - 1), norm, norm is None)
        at = list(reversed(filters))  # channels of the features, coarsest first
        narrow = list(reversed(filters[: len(latent_dims)]))  # at most what they have ``d`` resolutions finer
        levels: list[nn.Module] = [_Coarsest()]
        densities = [SoftplusNormalMap(spatial_dims, at[0], latent_dims[0], kernel_size=3)]
        for i in range(1, len(latent_dims)):
            above = ConvolutionBlock(spatial_dims, latent_dims[i - 1], latent_dims[i - 1] * filters[0], *options)
            joint = ConvolutionBlock(spatial_dims, at[i] + latent_dims[i - 1] * filters[0], narrow[i], *options)
            levels.append(_Joint(above, joint, _linear(spatial_dims)))
            densities.append(SoftplusNormalMap(spatial_dims, narrow[i], latent_dims[i]))
        self.levels = nn.ModuleList(levels)
        self.densities = nn.ModuleList(densities)
        self.levels.apply(initialize_kohl)
        self.densities.apply(initialize_kohl)

    def contract(self, x: Tensor) -> list[Tensor]:
        """(B, C, *S) -> features of each latent map's resolution, COARSEST first: what is computed once per image."""
        features = self.encoder(x)
        features.reverse()
        return features[: len(self.latent_dims)]

    def expand(
        self, features: list[Tensor], noise: list[Tensor], latents: list[Optional[Tensor]]
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Draw the latent maps, each given the one above it.

        Args:
            features: of :meth:`contract`, (B, F, *s) each.
            noise: of each latent map (B, c, *s); read where the map is not given.
            latents: of each latent map the z to go on with, (B, c, *s), or None: mean plus deviation times noise.

        Returns:
            of each latent map z, mean and standard deviation, (B, c, *s) each, the last two given the z above.
        """
        draws: list[Tensor] = []
        locs: list[Tensor] = []
        scales: list[Tensor] = []
        above = features[0]  # the coarsest map has none, and its level reads none
        for i, (level, density) in enumerate(zip(self.levels, self.densities)):
            loc, scale = density(level(features[i], above))
            given = latents[i]
            above = loc + scale * noise[i] if given is None else given
            draws.append(above)
            locs.append(loc)
            scales.append(scale)
        return draws, locs, scales


class PHiSegLikelihood(nn.Module):
    r""":math:`p(y | z)`: a map of residual logits from each latent map, which are summed; the image is not seen again.

    Baumgartner et al. (2019), section 2, and the authors' code: the maps go through two convolutions and up to ``d``
    resolutions finer each, d resolutions without latent maps; from the coarsest on they are joined with what comes from
    below; a pointwise layer gives each its logits.

    Args:
        spatial_dims: 2 or 3.
        filters: channels per resolution, finest first, of prior and posterior.
        latent_dims: channels of each latent map, COARSEST first.
        out_channels: K class channels.
        num_convs: as prior and posterior have it; one less (but one) a block.
        norm: MONAI's name of a normalisation, or None.

    Raises:
        InputError: no latent map, or more than resolutions.
    """

    def __init__(
        self,
        spatial_dims: int = 2,
        filters: Sequence[int] = (32, 64, 128, 192, 192, 192, 192),
        latent_dims: Sequence[int] = (2, 2, 2, 2, 2),
        out_channels: int = 1,
        num_convs: int = 3,
        norm: str | tuple | None = "batch",
    ) -> None:
        super().__init__()
        check_latent_dims(filters, latent_dims)
        self.latent_dims = tuple(latent_dims)
        self.out_channels = out_channels
        self.resolutions = len(filters)
        linear, bias, convs = _linear(spatial_dims), norm is None, max(1, num_convs - 1)
        maps = len(latent_dims)
        finer = len(filters) - maps
        narrow, wide = list(reversed(filters[:maps])), list(reversed(filters))
        wide[0] = narrow[0]  # nothing is joined to the coarsest map
        readers: list[nn.Module] = []
        joints: list[nn.Module] = [_Coarsest()]
        for i, latent_dim in enumerate(latent_dims):
            read = ConvolutionBlock(spatial_dims, latent_dim, narrow[i], convs, norm, bias)
            steps = [ConvolutionBlock(spatial_dims, narrow[i], narrow[i], 1, norm, bias) for _ in range(finer)]
            readers.append(_Reader(read, steps, maps - 1 - i, linear))
            if i > 0:
                below = ConvolutionBlock(spatial_dims, wide[i - 1], narrow[i], 1, norm, bias)
                joint = ConvolutionBlock(spatial_dims, 2 * narrow[i], wide[i], convs, norm, bias)
                joints.append(_Joint(below, joint, linear))
        self.readers = nn.ModuleList(readers)
        self.joints = nn.ModuleList(joints)
        self.heads = nn.ModuleList(Conv[Conv.CONV, spatial_dims](w, out_channels, 1) for w, _ in zip(wide, latent_dims))
        self.apply(initialize_kohl)

    def forward(self, latents: list[Tensor], size: list[int]) -> list[Tensor]:
        """Latent maps (B, c, *s), coarsest first -> residual logits (B, K, *size) of each, float32."""
        sizes = [[int(side) for side in size]]
        for _ in range(self.resolutions - 1):
            sizes.append([(side + 1) // 2 for side in sizes[-1]])
        residuals: list[Tensor] = []
        x = latents[0]
        for i, (reader, joint, head) in enumerate(zip(self.readers, self.joints, self.heads)):
            x = joint(reader(latents[i], sizes), x)
            residuals.append(F.interpolate(head(x).float(), size=sizes[0], mode="nearest"))
        return residuals


class _Joint(nn.Module):
    """What comes from the coarser map, brought to the finer one's size and joined with its features."""

    def __init__(self, above: nn.Module, joint: nn.Module, mode: str) -> None:
        super().__init__()
        self.above = above
        self.joint = joint
        self.mode = mode

    def forward(self, features: Tensor, above: Tensor) -> Tensor:
        above = F.interpolate(above.to(features.dtype), size=features.shape[2:], mode=self.mode, align_corners=False)
        return self.joint(torch.cat([features, self.above(above)], dim=1))


class _Coarsest(nn.Module):
    """Nothing is above the coarsest map."""

    def forward(self, features: Tensor, above: Tensor) -> Tensor:
        return features


class _Reader(nn.Module):
    """A latent map -> features, as many resolutions finer as there are steps."""

    def __init__(self, read: nn.Module, steps: Sequence[nn.Module], resolution: int, mode: str) -> None:
        super().__init__()
        self.read = read
        self.steps = nn.ModuleList(steps)
        self.resolution = resolution  # where it ends, 0 is the image's own
        self.mode = mode

    def forward(self, z: Tensor, sizes: list[list[int]]) -> Tensor:
        x = self.read(z)
        i = self.resolution + len(self.steps)
        for step in self.steps:
            i -= 1
            x = step(F.interpolate(x, size=sizes[i], mode=self.mode, align_corners=False))
        return x


def check_latent_dims(filters: Sequence[int], latent_dims: Sequence[int]) -> None:
    """Raises InputError unless there are 1 to ``len(filters)`` latent maps with channels."""
    if not 1 <= len(latent_dims) <= len(filters) or min(latent_dims) < 1:
        raise InputError(
            f"latent_dims is {list(latent_dims)} for {len(filters)} resolutions, expected a positive number of "
            f"channels for 1 to {len(filters)} latent maps: shorten latent_dims or lengthen filters."
        )


def _linear(spatial_dims: int) -> str:
    return "bilinear" if spatial_dims == 2 else "trilinear"
