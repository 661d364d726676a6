"""DeepMedic: three resolutions of one unpadded network, for large volumes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.networks.layers.factories import Conv
from torch import Tensor, nn

from ...errors import InputError
from ..blocks.encoders import initialize_kohl
from ..blocks.pathways import Pathway, PreActivationConvolution, activation

__all__ = ["DeepMedic"]


class DeepMedic(nn.Module):
    """Segmenter of unpadded convolutions in parallel pathways at several subsampling factors.

    Kamnitsas et al., "Efficient multi-scale 3D CNN with fully connected CRF for accurate brain lesion segmentation"
    (2017), in the form that Monteiro et al., "Stochastic Segmentation Networks" (2020), section 5.3, compare with and
    build on: pre-activation convolutions with a residual connection wherever two layers are equally wide. A voxel's
    answer depends on 81 voxels a side. Patches of 110 voxels become 30, patches of 140 become 60.

    As a backbone (``out_channels=None``) it ends in its last hidden layer, F = ``hidden_channels[-1]`` channels. The
    authors' stochastic network, 1.05 M parameters, has on top of this a 1^d layer of 50 with ReLU, then the maps
    (:class:`..blocks.LogitMapDensity` with ``num_layers=1, hidden_channels=50``); the deterministic one has 1.04 M.

    Args:
        spatial_dims: 2 or 3.
        in_channels: C of the image.
        out_channels: K class channels; None: no class layer, the output is the features. The attribute of this name is
            the number of channels that come out, in both cases.
        filters: channels of the 3^d convolutions, the same in every pathway.
        factors: every how many voxels a pathway looks, odd, one pathway each.
        hidden_channels: widths of the 1^d layers on top.
        norm: MONAI's name of a normalisation, or None.
        dropout: share of the values dropped before each 1^d layer but the first.

    Attributes:
        margin: voxels that are lost at each side; 40 by default.
        output_multiple: sides of the output are a multiple of it, and an image shifted by it has an output shifted by
            it; 15 by default.

    Raises:
        InputError: a factor is even; the image's size does not fit.
    """

    def __init__(
        self,
        spatial_dims: int = 3,
        in_channels: int = 4,
        out_channels: int | None = 4,
        filters: Sequence[int] = (30, 30, 40, 40, 40, 40, 50, 50),
        factors: Sequence[int] = (1, 3, 5),
        hidden_channels: Sequence[int] = (250, 250),
        norm: str | tuple | None = "batch",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if not all(factor > 0 and factor % 2 for factor in factors):
            raise InputError(
                f"the factors are {tuple(factors)}, but only a block of odd size has a middle voxel: give odd factors."
            )
        self.margin = max(factors) * len(filters)
        self.pathways = nn.ModuleList(
            Pathway(spatial_dims, in_channels, filters, factor, norm, self.margin) for factor in factors
        )
        self.output_multiple = math.lcm(*factors)
        widths = (filters[-1] * len(factors), *hidden_channels)
        self.hidden = nn.Sequential(
            *(
                PreActivationConvolution(spatial_dims, widths[i], widths[i + 1], 1, norm, dropout if i else 0.0)
                for i in range(len(hidden_channels))
            ),
            activation(spatial_dims, widths[-1], norm, dropout),
        )
        self.out_channels = widths[-1] if out_channels is None else out_channels
        self.head = (
            nn.Identity()
            if out_channels is None
            else Conv[Conv.CONV, spatial_dims](widths[-1], out_channels, kernel_size=1)
        )
        self.apply(initialize_kohl)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, *S) -> logits (B, K, *(S - 2 margin)), or the features where there is no class layer."""
        return self.head(self.features(image))

    @torch.jit.export
    def features(self, image: Tensor) -> Tensor:
        """What the class layer sees: (B, C, *S) -> (B, F, *(S - 2 margin))."""
        if not torch.jit.is_scripting():
            self._check_size(image)
        return self.hidden(torch.cat([pathway(image) for pathway in self.pathways], dim=1))

    @torch.jit.unused
    def _check_size(self, image: Tensor) -> None:
        step, lost = self.output_multiple, 2 * self.margin
        sides = [int(side) for side in image.shape[2:]]
        if any(side <= lost or (side - lost) % step for side in sides):
            below = [max(1, (side - lost) // step) * step + lost for side in sides]
            above = [max(1, -((lost - side) // step)) * step + lost for side in sides]
            nearest = dict.fromkeys(" x ".join(map(str, size)) for size in (below, above))
            raise InputError(
                f"the image is {' x '.join(map(str, sides))} voxels, but each side must be {lost} more than a multiple "
                f"of {step}: crop or pad it to {' or '.join(nearest)}."
            )
