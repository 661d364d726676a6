"""From an image to many plausible segmentations of it, as a MONAI inferer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SlidingWindowInferer
from torch import Tensor, nn

from .randomness import seeded

__all__ = ["SamplingInferer"]


class SamplingInferer(Inferer):
    """Draw ``num_samples`` segmentations through ``network.sample``.

    Args:
        num_samples: N.
        seed: makes every call draw the same noise, whatever was drawn before it; None: torch's own random state.
        temperature: factor on the prior's standard deviation; 0 gives N times the prior's mean.
        volume_inferer: how a network of fewer spatial dimensions walks through a volume, e.g. MONAI's ``SliceInferer``.
            All windows of a volume get the same noise, so that sample n of one slice goes with sample n of the next;
            give it ``sw_batch_size=1``, since noise is per window of a batch.
    """

    def __init__(
        self,
        num_samples: int,
        seed: int | None = None,
        temperature: float = 1.0,
        volume_inferer: SlidingWindowInferer | None = None,
    ) -> None:
        super().__init__()
        if num_samples < 1:
            raise ValueError(f"num_samples is {num_samples}, but at least one sample must be drawn.")
        self.num_samples = num_samples
        self.seed = seed
        self.temperature = temperature
        self.volume_inferer = volume_inferer

    @torch.no_grad()
    def __call__(  # type: ignore[override]
        self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Image (B, C, *S) -> logits (B, N, K, *S); a MetaTensor's metadata is kept."""
        sampler = network.module if isinstance(network, nn.parallel.DistributedDataParallel) else network
        image = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        if self.volume_inferer is None or image.dim() == 4:
            logits = self._draw(image, sampler, self.seed)
        else:
            seed = int(torch.randint(2**31, ()).item()) if self.seed is None else self.seed

            def window(patch: Tensor, *_: Any) -> Tensor:
                return self._draw(patch, sampler, seed).flatten(1, 2)

            stacked = self.volume_inferer(image, window)  # (B, N * K, *S)
            logits = stacked.unflatten(1, (self.num_samples, -1))  # type: ignore[union-attr]
        return MetaTensor(logits, meta=inputs.meta) if isinstance(inputs, MetaTensor) else logits

    def _draw(self, image: Tensor, network: Any, seed: int | None) -> Tensor:
        if seed is None:
            return network.sample(image, self.num_samples, self.temperature)
        with seeded(image.device, seed):
            return network.sample(image, self.num_samples, self.temperature)
