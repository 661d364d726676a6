"""Stochastic segmentation networks: any backbone, and a Normal over its whole logit map."""

from __future__ import annotations

from typing import Optional

import torch
from torch import Tensor, nn

from ...distributions import LogitMapNormal
from ...outputs import LogitMapOutput
from ...precision import autocast_to_bf16
from ..blocks.logit_maps import LogitMapDensity
from ..blocks.pathways import crop_sides
from ..blocks.raters import check_label, present_raters

__all__ = ["StochasticSegmentationNetwork"]


class StochasticSegmentationNetwork(nn.Module):
    r"""Segmenter with jointly Normal logits, :math:`p(y | x) = \int \prod_i p(y_i | \eta_i) \, p(\eta | x) \, d\eta`.

    Monteiro et al., "Stochastic Segmentation Networks: Modelling Spatially Correlated Aleatoric Uncertainty" (2020).
    One forward pass gives mean, diagonal and factor of the law, from which any number of maps is drawn.

    With ``foreground`` the law has no spread in the background, where a covariance would grow without bound: nobody
    disagrees about air. The mean stays, there as well, and the likelihood counts the background as the authors' does:
    being the same for all draws it does not change their weights, and left out it would let the network say anything
    there.

    Args:
        backbone: image (B, C, *S) -> features (B, F, *S), e.g. a network of MONAI with F output channels. With an int
            attribute ``margin``, the features lack that many pixels at each side.
        density: features -> maps.
        foreground: image (B, C, *S) -> bool (B, *S), e.g. :class:`..blocks.ForegroundMask`; default: all of the image.
        bf16: run the backbone in bfloat16 under autocast, on any device. The density stays float32.

    Raises:
        InputError: a label does not fit the image.
    """

    def __init__(
        self,
        backbone: nn.Module,
        density: LogitMapDensity,
        foreground: nn.Module | None = None,
        bf16: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.density = density
        self.foreground = foreground
        self.bf16 = bf16
        self.out_channels = density.out_channels
        self.margin = int(getattr(backbone, "margin", 0))

    def forward(self, image: Tensor, label: Optional[Tensor] = None, rater_valid: Optional[Tensor] = None) -> Tensor:
        """The mean, which is the most likely logit map, or the training output where labels are given.

        Args:
            image: (B, C, *S).
            label: (B, R, *S) integer class maps, one per rater.
            rater_valid: (B, R), False where a rater is missing; default all present.

        Returns:
            logits (B, K, *S'), S' = S without the margin; with ``label``: :class:`..outputs.LogitMapOutput`.
        """
        if not torch.jit.is_scripting():
            if label is not None:
                return self._train_on(image, label, rater_valid)  # type: ignore[return-value]
        return self.maps(image)[:, : self.out_channels]

    @torch.jit.export
    def maps(self, image: Tensor) -> Tensor:
        """Mean, diagonal and factor, channels of one tensor: (B, C, *S) -> (B, (2 + R) * K, *S'), float32.

        Windows of a volume may be stitched and blended here, so that one law holds for the whole of it.
        """
        if torch.jit.is_scripting():
            return self._maps(image)
        with autocast_to_bf16(image.device.type, self.bf16):
            return self._maps(image)

    def _maps(self, image: Tensor) -> Tensor:
        maps = self.density(self.backbone(image))
        if self.foreground is not None:
            mask = crop_sides(self.foreground(image).unsqueeze(1), self.margin)  # (B, 1, *S')
            k = self.out_channels
            # not a product: the gradient of a zero variance's root is infinite
            spread = torch.where(mask, maps[:, k:], torch.zeros_like(maps[:, k:]))
            maps = torch.cat([maps[:, :k], spread], dim=1)
        return maps

    @torch.jit.export
    def sample_maps(self, maps: Tensor, num_samples: int, temperature: float = 1.0, chunk_size: int = 0) -> Tensor:
        """Draw logit maps of given maps; nothing of the network runs.

        Args:
            maps: what :meth:`maps` gave, (B, (2 + R) * K, *S).
            num_samples: N.
            temperature: factor on the standard deviation.
            chunk_size: for the contract that all networks share. Draws are made in place, in no more memory than
                they take themselves, so that there is nothing to split.

        Returns:
            logits (B, N, K, *S), float32.
        """
        return self.density.draw(maps, num_samples, temperature)

    @torch.jit.export
    def sample(self, image: Tensor, num_samples: int, temperature: float = 1.0, chunk_size: int = 0) -> Tensor:
        """Draw segmentations; the network runs once.

        Args:
            image: (B, C, *S).
            num_samples: N.
            temperature: factor on the standard deviation.
            chunk_size: see :meth:`sample_maps`.

        Returns:
            logits (B, N, K, *S'), float32.
        """
        return self.sample_maps(self.maps(image), num_samples, temperature, chunk_size)

    @torch.jit.unused
    def mean_logits(self, image: Tensor) -> Tensor:
        """The law's mean, the one answer that an evaluation asks for: (B, C, *S) -> logits (B, K, *S')."""
        return self(image)

    @torch.jit.unused
    def distribution_of(self, maps: Tensor) -> LogitMapNormal:
        """The law that :meth:`sample_maps` draws from, with its temperature, class scales and resampling."""
        return self.density.distribution_of(maps)

    @torch.jit.unused
    def distribution(self, image: Tensor) -> LogitMapNormal:
        """The law that :meth:`sample` draws from, of (B, C, *S): batch shape (B,), event shape (K, *S')."""
        return self.distribution_of(self.maps(image))

    @torch.jit.unused
    def compile_parts(self, **options: object) -> StochasticSegmentationNetwork:
        """``torch.compile`` the backbone in place, and nothing else."""
        self.backbone.compile(**options)
        return self

    @torch.jit.unused
    def _train_on(self, image: Tensor, label: Tensor, rater_valid: Tensor | None) -> LogitMapOutput:
        check_label(image, label)
        return LogitMapOutput(self.distribution(image), present_raters(label, rater_valid))
