"""What samples of an image are drawn from, once the network has run on it: one law, one latent vector, or each window.

A source draws its samples piece after piece, and a piece is what the same samples are when all are drawn at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from monai.inferers import SliceInferer, SlidingWindowInferer
from torch import Tensor

from ..pieces import within
from ..precision import autocast_to_bf16
from ..randomness import ResumedNoise, seeded
from .walk import Place, Walk, WholeImage, in_pieces

__all__ = ["Source", "open_source"]


def open_source(image: Tensor, network: Any, inferer: SlidingWindowInferer | None, seed: int | None) -> Source:
    """What samples of images (B, C, *S) are drawn from; ``inferer`` says how to walk through them, None: not at all."""
    walk: Walk | WholeImage = WholeImage(image)
    if inferer is not None and not (isinstance(inferer, SliceInferer) and image.dim() == 4):
        walk = Walk(inferer, image, network, whole=_has_latent_maps(network))
    if hasattr(network, "maps") and hasattr(network, "sample_maps"):
        return StitchedLaw(network, walk, seed)
    return OneLatent(network, walk, seed) if _has_latent_vector(network) else EachWindow(network, walk, seed)


class Source:
    """What samples of images are drawn from.

    Args:
        network: a segmenter.
        walk: through the images.
        seed: of the noise; None: torch's own random state.
    """

    def __init__(self, network: Any, walk: Walk | WholeImage, seed: int | None) -> None:
        self.network = network
        self.walk = walk
        self.seed = seed

    def pieces(self, num_samples: int, temperature: float, piece_size: int) -> Iterator[Tensor]:
        """Logits (B, n, K, *S) of N samples; what the consumer draws between two pieces changes no seeded noise."""
        raise NotImplementedError

    def mean_logits(self) -> Tensor | None:
        """(B, K, *S) of a network that has a mean of its own; None: it has none."""
        if not hasattr(self.network, "mean_logits"):
            return None
        if isinstance(self.walk, WholeImage):
            return self.network.mean_logits(self.walk.image)
        return next(self.pieces(1, 0.0, 1))[:, 0]


class StitchedLaw(Source):
    """One law over each image, stitched of the windows' maps."""

    def __init__(self, network: Any, walk: Walk | WholeImage, seed: int | None) -> None:
        super().__init__(network, walk, seed)
        self.maps = walk(lambda window, _: network.maps(window))

    def pieces(self, num_samples: int, temperature: float, piece_size: int) -> Iterator[Tensor]:
        """Draws of the maps: the network has run."""
        noise = ResumedNoise(self.maps.device, self.seed)
        draws = (self.network.sample_maps(self.maps, n, temperature) for n in _sizes(num_samples, piece_size))
        return within(noise.resumed, draws)

    def mean_logits(self) -> Tensor | None:
        """The draw without spread, of a network that says that this is its mean."""
        if not hasattr(self.network, "mean_logits"):
            return None
        with seeded(self.maps.device, 0):  # noise that counts for nothing
            return self.network.sample_maps(self.maps, 1, 0.0)[:, 0]


class OneLatent(Source):
    """One latent vector per sample for all windows, drawn given the mean of the windows' features."""

    def pieces(self, num_samples: int, temperature: float, piece_size: int) -> Iterator[Tensor]:
        """Backbone and prior run once; of several pieces, the backbone's features are kept until the last."""
        network, sizes = self.network, _sizes(num_samples, piece_size)
        bf16 = getattr(network, "bf16", False)  # what `sample` does in bfloat16 is so here

        def features_of(window: Tensor) -> Tensor:
            with autocast_to_bf16(window.device.type, bf16):
                return network.prior.features(window)

        features = self.walk.mean(features_of).unsqueeze(1).expand(-1, num_samples, -1)  # (B, N, F)
        with ResumedNoise(features.device, self.seed).resumed():
            z = network.prior.density.draw(features, temperature)  # (B, N, d)

        def decode(window: Tensor, places: Sequence[Place]) -> Iterator[Tensor]:
            with autocast_to_bf16(window.device.type, bf16):
                seen = network.backbone(window)
            for part in z[[at[0].start for at in places]].split(sizes, dim=1):
                with autocast_to_bf16(window.device.type, bf16):
                    logits = network.decode(seen, part)
                yield logits
                del logits

        yield from in_pieces(self.walk, decode, sizes)


class EachWindow(Source):
    """Every window for itself, with the same noise, so that sample n of one goes with sample n of the next."""

    def pieces(self, num_samples: int, temperature: float, piece_size: int) -> Iterator[Tensor]:
        """In one piece, whatever was asked for, where the network has no ``sample_pieces`` (exported ones)."""
        network, seed = self.network, self.seed
        if isinstance(self.walk, Walk):
            seed = int(torch.randint(2**31, ()).item()) if seed is None else seed
            self.walk.inferer.sw_batch_size = 1  # noise is per window of a batch
        sizes = _sizes(num_samples, piece_size) if hasattr(network, "sample_pieces") else [num_samples]

        def draw(window: Tensor, _: Sequence[Place]) -> Iterator[Tensor]:
            if len(sizes) == 1:
                samples = (network.sample(window, num_samples, temperature) for _ in sizes)
            else:
                samples = network.sample_pieces(window, num_samples, temperature, piece_size)
            return within(ResumedNoise(window.device, seed).resumed, samples)

        yield from in_pieces(self.walk, draw, sizes)


def _has_latent_vector(network: Any) -> bool:
    """Whether one latent vector per sample, drawn given features of the image, says all that is random."""
    prior = getattr(network, "prior", None)
    parts = hasattr(network, "decode") and hasattr(network, "backbone")
    return parts and hasattr(prior, "features") and hasattr(getattr(prior, "density", None), "draw")


def _has_latent_maps(network: Any) -> bool:
    """Whether what is random are maps, each of whose pixels belongs to a place of the image."""
    return hasattr(getattr(network, "prior", None), "latent_dims")


def _sizes(num_samples: int, piece_size: int) -> list[int]:
    """Of the pieces."""
    return [min(piece_size, num_samples - start) for start in range(0, num_samples, piece_size)]
