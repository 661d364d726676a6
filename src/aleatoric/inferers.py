"""From an image or a volume to many plausible segmentations of it, as a MONAI inferer."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer, SliceInferer, SlidingWindowInferer
from monai.utils import fall_back_tuple
from torch import Tensor, nn
from torch.nn import functional as F

from .errors import InputError
from .randomness import seeded

__all__ = ["SamplingInferer"]

# Where a window lies: slices of (B, C, *S), the first of which is its image in the batch.
Place = Sequence[slice]


class SamplingInferer(Inferer):
    """Draw ``num_samples`` segmentations through ``network.sample``, of a volume window by window.

    A sample is a segmentation of the WHOLE volume, so no window may draw for itself. What windows share depends on the
    network:

    - ``maps`` and ``sample_maps`` (``StochasticSegmentationNetwork``): the windows' means, diagonals and factors are
      stitched into one law over the volume, which is sampled once, at the end (Monteiro et al. 2020, section 5.3).
    - one latent vector (``ProbabilisticUNet``): one z per sample for all windows, drawn from the prior given the
      features of the whole volume: the mean of the windows' features, in which each voxel counts once.
    - latent maps at several scales (``HierarchicalProbabilisticUNet``, ``PHiSeg``): a latent pixel belongs to a place,
      so that windows would have to share parts of maps. Such a network sees each slice, or the whole volume, at once,
      whatever ``roi_size`` says, and draws with the same noise in every slice.
    - all others (members, Monte-Carlo dropout): every window draws with the same noise, so that sample n of one window
      goes with sample n of the next.

    A network of unpadded convolutions (an int attribute ``margin`` m > 0) gets windows that are larger by m voxels at
    each side, cut from the volume after padding it (``padding_mode`` and ``cval`` of the volume inferer), and the
    answer has the volume's own size: ``roi_size`` is what a window gives, not what it sees. Where a part of the network
    has an ``output_multiple``, the windows' sides and steps are rounded up to it, so that all windows share one grid
    and the answer does not depend on their size; they need no ``overlap``.

    Args:
        num_samples: N.
        seed: makes every call draw the same noise, whatever was drawn before it; None: torch's own random state.
        temperature: factor on the spread of what the network draws; at 0 all samples are alike.
        volume_inferer: how to walk through a volume: MONAI's ``SliceInferer`` for a network of fewer spatial
            dimensions, ``SlidingWindowInferer`` for large images. None: the network sees the image as it is (and gives
            less than it, if it is unpadded). A ``SliceInferer`` lets 2D images pass as they are.

    Raises:
        ValueError: ``num_samples`` is less than 1.
        InputError: a negative temperature.
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
        if not temperature >= 0:  # NaN too
            raise InputError(f"temperature is {temperature}, but 0 or more is expected: give e.g. 0.5 for less spread.")
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
        if self.volume_inferer is None or (isinstance(self.volume_inferer, SliceInferer) and image.dim() == 4):
            logits = self._draw(image, sampler, self.seed)
        else:
            walk = Walk(self.volume_inferer, image, sampler, whole=has_latent_maps(sampler))
            logits = self._draw_volume(walk, sampler)
        return MetaTensor(logits, meta=inputs.meta) if isinstance(inputs, MetaTensor) else logits

    def _draw_volume(self, walk: Walk, network: Any) -> Tensor:
        if hasattr(network, "maps") and hasattr(network, "sample_maps"):
            maps = walk(lambda window, _: network.maps(window))
            with noise(maps.device, self.seed):
                return network.sample_maps(maps, self.num_samples, self.temperature)
        if has_latent_vector(network):
            return self._draw_with_one_latent(walk, network)
        seed = int(torch.randint(2**31, ()).item()) if self.seed is None else self.seed
        walk.inferer.sw_batch_size = 1  # noise is per window of a batch
        stacked = walk(lambda window, _: self._draw(window, network, seed).flatten(1, 2))  # (B, N * K, *S)
        return stacked.unflatten(1, (self.num_samples, -1))

    def _draw_with_one_latent(self, walk: Walk, network: Any) -> Tensor:
        def autocast(window: Tensor) -> torch.autocast:  # what `sample` does in bfloat16 is so here
            return torch.autocast(window.device.type, dtype=torch.bfloat16, enabled=getattr(network, "bf16", False))

        def features_of(window: Tensor) -> Tensor:
            with autocast(window):
                return network.prior.features(window)

        features = walk.mean(features_of).unsqueeze(1).expand(-1, self.num_samples, -1)  # (B, N, F)
        with noise(features.device, self.seed):
            z = network.prior.density.draw(features, self.temperature)  # (B, N, d)

        def decode(window: Tensor, places: Sequence[Place]) -> Tensor:
            with autocast(window):
                return network.decode(network.backbone(window), z[[at[0].start for at in places]]).flatten(1, 2)

        return walk(decode).unflatten(1, (self.num_samples, -1))

    def _draw(self, image: Tensor, network: Any, seed: int | None) -> Tensor:
        with noise(image.device, seed):
            return network.sample(image, self.num_samples, self.temperature)


class Walk:
    """Walks through images (B, C, *S) in windows, and puts together what a function says of each.

    MONAI's inferers do the walking and the blending. What they lack is added here: the windows' places for
    ``SliceInferer`` too, windows that are larger than what is said of them, and means over all windows.

    Args:
        inferer: window size, overlap, blending and the rest.
        image: (B, C, *S).
        network: whose ``margin`` and ``output_multiple`` the windows respect.
        whole: one window a slice, or a volume.
    """

    def __init__(self, inferer: SlidingWindowInferer, image: Tensor, network: Any, whole: bool = False) -> None:
        # MONAI stitches in the image's type, and what is stitched is float32
        self.image = image.float() if image.dtype in (torch.float16, torch.bfloat16) else image
        self.size = image.shape[2:]
        self.axis = inferer.spatial_dim if isinstance(inferer, SliceInferer) else None
        self.inferer = copy.copy(inferer)
        self.inferer.with_coord = True
        roi = list(inferer.orig_roi_size) if isinstance(inferer, SliceInferer) else inferer.roi_size
        if self.axis is not None:
            roi.insert(self.axis, 1)
            self.inferer.roi_weight_map = None  # MONAI's is of the plane only
        if whole:
            sides = (r if axis == self.axis else max(r, s) for axis, (r, s) in enumerate(zip(roi, self.size)))
            roi, self.inferer.roi_weight_map = list(sides), None
        self.inferer.roi_size = roi
        self.margin = [0 if axis == self.axis else getattr(network, "margin", 0) for axis in range(len(self.size))]
        if any(self.margin):
            self._enlarge(network)

    def _enlarge(self, network: Any) -> None:
        # windows of the output, sides and steps of which are multiples; the image gets such a size, and the margin
        multiple = math.lcm(*(int(getattr(module, "output_multiple", 1)) for module in network.modules()))
        multiples = [1 if axis == self.axis else multiple for axis in range(len(self.size))]
        roi = fall_back_tuple(self.inferer.roi_size, self.size)
        roi = tuple(_round_up(min(r, s), k) for r, s, k in zip(roi, self.size, multiples))
        overlap = self.inferer.overlap
        overlaps = overlap if isinstance(overlap, Sequence) else [overlap] * len(roi)
        steps = [_round_up(max(int(r * (1 - o)), 1), k) for r, o, k in zip(roi, overlaps, multiples)]
        # half a voxel keeps MONAI's int(roi * (1 - overlap)) from rounding down
        self.inferer.overlap = [max(0.0, 1 - (step + 0.5) / r) for step, r in zip(steps, roi)]
        self.inferer.roi_size, self.inferer.roi_weight_map = roi, None
        self.canvas = [_round_up(s, k) for s, k in zip(self.size, multiples)]
        pads = [(m, m + c - s) for m, c, s in zip(self.margin, self.canvas, self.size)]
        mode, value = str(self.inferer.padding_mode), self.inferer.cval
        self.image = F.pad(self.image, [side for pair in reversed(pads) for side in pair], mode, value)

    def __call__(self, function: Callable[[Tensor, Sequence[Place]], Tensor]) -> Tensor:
        """Blend ``function(windows (W, C, *s), their places)``, (W, M, *s), into (B, M, *S)."""

        def predict(window: Tensor, places: Sequence[Place]) -> Tensor:
            if any(self.margin):
                window = torch.cat([self._cut(place) for place in places]).to(window.device)
            if self.axis is not None:
                window = window.squeeze(self.axis + 2)
            # a copy, because MONAI writes to it: equal samples may share memory, with the image too
            answer = function(window, places).clone(memory_format=torch.contiguous_format)
            return answer if self.axis is None else answer.unsqueeze(self.axis + 2)

        image = self.image
        if any(self.margin):  # MONAI walks over the output's size, of which it needs no voxels
            image = image.new_zeros(()).expand(image.shape[0], 1, *self.canvas)
        # SliceInferer's own call knows no places
        walker = type(self.inferer) if self.axis is None else SlidingWindowInferer
        stitched = walker.__call__(self.inferer, image, predict)
        inside = (slice(None), slice(None), *(slice(side) for side in self.size))
        return stitched[inside]  # type: ignore[call-overload, index]

    def _cut(self, place: Place) -> Tensor:
        wider = (slice(at.start, at.stop + 2 * m) for at, m in zip(place[2:], self.margin))
        place = (place[0], slice(None), *wider)
        return self.image[place]

    def mean(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """Mean of ``function(windows (W, C, *s))``, (W, F), over each image, (B, F); each voxel counts once."""
        values: list[Tensor] = []
        seen: list[Place] = []

        def remember(window: Tensor, places: Sequence[Place]) -> Tensor:
            values.append(function(window))
            seen.extend(tuple(place) for place in places)
            plane = [at.stop - at.start for axis, at in enumerate(places[0][2:]) if axis != self.axis]
            return window.new_zeros([len(places), 1, *plane])

        self(remember)
        canvas = [max(place[axis + 2].stop for place in seen) for axis in range(len(self.size))]
        windows = torch.zeros(canvas)  # how many windows see a voxel
        first = [place for place in seen if place[0].start == 0]
        for place in first:
            windows[tuple(place[2:])] += 1
        weight = torch.tensor([float(windows[tuple(place[2:])].reciprocal().sum()) for place in seen])
        stacked = torch.cat(values)  # (windows of all images, F)
        owner = torch.tensor([place[0].start for place in seen], device=stacked.device)
        weighted = stacked * (weight / windows.numel()).to(stacked).unsqueeze(1)
        return stacked.new_zeros(len(self.image), stacked.shape[1]).index_add_(0, owner, weighted)


def has_latent_vector(network: Any) -> bool:
    """Whether one latent vector per sample, drawn given features of the image, says all that is random."""
    prior = getattr(network, "prior", None)
    parts = hasattr(network, "decode") and hasattr(network, "backbone")
    return parts and hasattr(prior, "features") and hasattr(getattr(prior, "density", None), "draw")


def has_latent_maps(network: Any) -> bool:
    """Whether what is random are maps, each of whose pixels belongs to a place of the image."""
    return hasattr(getattr(network, "prior", None), "latent_dims")


def noise(device: torch.device, seed: int | None) -> contextlib.AbstractContextManager[None]:
    """Noise from a seed, or, without one, from torch's own random state."""
    return contextlib.nullcontext() if seed is None else seeded(device, seed)


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
