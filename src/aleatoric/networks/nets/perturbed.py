"""One network asked several times: under dropout, and for transformed images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ...errors import InputError
from .deterministic import DeterministicSegmentationNetwork

__all__ = ["AugmentedInferenceNetwork", "MonteCarloDropoutNetwork"]


class MonteCarloDropoutNetwork(DeterministicSegmentationNetwork):
    """A deterministic network whose dropout stays on when it is sampled: each sample is one thinned network's answer.

    Gal and Ghahramani, "Dropout as a Bayesian Approximation" (2016); Kendall et al., "Bayesian SegNet" (2017).
    ``network(image)`` in eval mode is the answer without dropout, which stands for the mean. The part of the network
    before the first dropout runs once. Sample in eval mode: normalisation then uses its stored statistics.

    Args:
        backbone: :class:`~aleatoric.networks.blocks.DropoutUNetBackbone`, or another module with its methods
            ``shared``, ``draw_mask`` and ``finish``.
        head: features -> logits (B, K, *S); None: the backbone gives logits itself.
        bf16: run both in bfloat16 under autocast, on any device.

    Raises:
        InputError: a backbone without a dropout of that kind.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module | None = None, bf16: bool = False) -> None:
        super().__init__(backbone, head, bf16)
        if not all(hasattr(backbone, method) for method in ("shared", "draw_mask", "finish")):
            raise InputError(
                f"the backbone is a {type(backbone).__name__}, but one whose dropout masks can be given is expected: "
                f"give a DropoutUNetBackbone."
            )

    def draw(self, image: Tensor, num_samples: int, chunk_size: int) -> Tensor:
        """One mask for each image and sample, (B, N, K, *S)."""
        features, masks = self._begin(image, num_samples)
        return self._answers(features, masks, _passes(image, num_samples, chunk_size))

    @torch.jit.unused
    def draw_pieces(self, image: Tensor, sizes: list[int]) -> Iterator[Tensor]:
        """The same, as many samples at a time as ``sizes`` says; what is before the first dropout runs once."""
        features, masks = self._begin(image, sum(sizes))
        for part in masks.split(sizes, dim=1):
            yield self._answers(features, part, _passes(image, part.shape[1], 0))

    def _begin(self, image: Tensor, num_samples: int) -> tuple[list[Tensor], Tensor]:
        # what is shared, and all masks (B, N, D) at once, so that chunks do not change them
        features = self.backbone.shared(image)  # type: ignore[operator]
        masks = self.backbone.draw_mask(image, image.shape[0] * num_samples)  # type: ignore[operator]
        return features, masks.unflatten(0, [image.shape[0], num_samples])

    def _answers(self, features: list[Tensor], masks: Tensor, step: int) -> Tensor:
        batch = masks.shape[0]
        chunks: list[Tensor] = []
        for start in range(0, masks.shape[1], step):
            part = masks[:, start : start + step]
            repeated = [feature.repeat_interleave(part.shape[1], dim=0) for feature in features]
            output = self.backbone.finish(repeated, part.flatten(0, 1))  # type: ignore[operator]
            chunks.append(self.head(output).float().unflatten(0, [batch, part.shape[1]]))
        return torch.cat(chunks, dim=1)


class AugmentedInferenceNetwork(DeterministicSegmentationNetwork):
    """A deterministic network that is shown N random views of an image: test-time augmentation.

    Wang et al., "Aleatoric Uncertainty Estimation with Test-Time Augmentation for Medical Image Segmentation with
    Convolutional Neural Networks" (2019): a sample is the answer to a flipped, turned and noisy image, turned back.
    Every sample is such a view; the answer to the image itself is ``network(image)``, or temperature 0. Only flips and
    quarter turns, which are undone exactly, where the paper also rotates by any angle and scales.

    The weights are those of :class:`DeterministicSegmentationNetwork`: a trained one needs no training for this.

    Args:
        backbone: image (B, C, *S) -> features (B, F, *S).
        head: features -> logits (B, K, *S); None: the backbone gives logits itself.
        flip_axes: spatial axes that are flipped with probability 1/2 each.
        quarter_turns: also swap the first two spatial axes with probability 1/2, where these sides are equal; with
            flips of both, all eight symmetries of a square are equally likely.
        noise_std: standard deviation of the Gaussian noise, in units of the image as the network sees it (the paper
            has 0.05).
        bf16: run the network in bfloat16 under autocast, on any device.

    Raises:
        InputError: a negative axis or standard deviation.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module | None = None,
        flip_axes: Sequence[int] = (0, 1),
        quarter_turns: bool = True,
        noise_std: float = 0.05,
        bf16: bool = False,
    ) -> None:
        super().__init__(backbone, head, bf16)
        if min([*flip_axes, noise_std]) < 0:
            raise InputError(
                f"flip_axes is {tuple(flip_axes)} and noise_std {noise_std}, but neither may be negative: count the "
                f"spatial axes from 0."
            )
        self.flip_axes = [int(axis) for axis in flip_axes]
        self.quarter_turns = quarter_turns
        self.noise_std = noise_std

    def draw(self, image: Tensor, num_samples: int, chunk_size: int) -> Tensor:
        """One view for each image and sample, (B, N, K, *S)."""
        return self._answers(image, self._turns(image, num_samples), _passes(image, num_samples, chunk_size))

    @torch.jit.unused
    def draw_pieces(self, image: Tensor, sizes: list[int]) -> Iterator[Tensor]:
        """The same, as many samples at a time as ``sizes`` says."""
        for part in self._turns(image, sum(sizes)).split(sizes, dim=1):
            yield self._answers(image, part, _passes(image, part.shape[1], 0))

    def _turns(self, image: Tensor, num_samples: int) -> Tensor:
        # (B, N, T) bool: axes to flip, then whether the first two are swapped; all at once, whatever the chunks
        return torch.rand([image.shape[0], num_samples, len(self.flip_axes) + 1], device=image.device) < 0.5

    def _answers(self, image: Tensor, turns: Tensor, step: int) -> Tensor:
        batch = image.shape[0]
        chunks: list[Tensor] = []
        for start in range(0, turns.shape[1], step):
            part = turns[:, start : start + step]
            views: list[Tensor] = []
            for _ in range(part.shape[1]):  # noise sample by sample, so that the chunks do not change it
                views.append(image + self.noise_std * torch.randn_like(image) if self.noise_std > 0 else image)
            flat = part.flatten(0, 1)
            view = self._swapped(self._flipped(torch.stack(views, dim=1).flatten(0, 1), flat), flat)
            logits = self.head(self.backbone(view)).float()
            chunks.append(self._flipped(self._swapped(logits, flat), flat).unflatten(0, [batch, part.shape[1]]))
        return torch.cat(chunks, dim=1)

    def _flipped(self, x: Tensor, turns: Tensor) -> Tensor:
        # x (P, C, *S), turns (P, T); its own inverse
        for i, axis in enumerate(self.flip_axes):
            x = torch.where(turns[:, i].view([-1] + [1] * (x.dim() - 1)), x.flip(axis + 2), x)
        return x

    def _swapped(self, x: Tensor, turns: Tensor) -> Tensor:
        # its own inverse too
        if not self.quarter_turns or x.shape[2] != x.shape[3]:
            return x
        return torch.where(turns[:, -1].view([-1] + [1] * (x.dim() - 1)), x.transpose(2, 3), x)


def _passes(image: Tensor, num_samples: int, chunk_size: int) -> int:
    # samples at a time: what was asked for; else all on an accelerator and, on a CPU, what stays in its caches
    if chunk_size > 0:
        return chunk_size
    return 2 if image.device.type == "cpu" else num_samples
