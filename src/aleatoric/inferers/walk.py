"""Through images and volumes in windows, and what functions say of the windows put together again."""

from __future__ import annotations

import copy
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from monai.inferers import SliceInferer, SlidingWindowInferer
from monai.utils import fall_back_tuple
from torch import Tensor
from torch.nn import functional as F

__all__ = ["Place", "Walk", "WholeImage", "in_pieces"]

# Where a window lies: slices of (B, C, *S), the first of which is its image in the batch.
Place = Sequence[slice]


class WholeImage:
    """The walk through images (B, C, *S) that are seen at once: one window, which is all of them."""

    def __init__(self, image: Tensor) -> None:
        self.image = image

    def __call__(self, function: Callable[[Tensor, Sequence[Place]], Tensor]) -> Tensor:
        """``function(image, places)``, as it is."""
        rest = [slice(0, side) for side in self.image.shape[1:]]
        return function(self.image, [(slice(b, b + 1), *rest) for b in range(len(self.image))])

    def mean(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        """``function(image)``, as it is."""
        return function(self.image)


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


def in_pieces(
    walk: Walk | WholeImage, start: Callable[[Tensor, Sequence[Place]], Iterator[Tensor]], sizes: Sequence[int]
) -> Iterator[Tensor]:
    """Samples of the windows, put together piece after piece.

    Args:
        walk: is walked once for each piece; only the first time windows are looked at.
        start: (windows (W, C, *s), their places) -> an iterator of their samples, (W, n, K, *s) for each n in sizes.
        sizes: of the pieces.

    Returns:
        (B, n, K, *S) for each n in sizes.
    """
    running: deque[Iterator[Tensor]] = deque()  # what windows have left to give, in the order of the walk

    def draw(number: int, window: Tensor, places: Sequence[Place]) -> Tensor:
        samples = running.popleft() if number else start(window, places)
        if number + 1 < len(sizes):  # else nothing is left, and what the window was computed from may go
            running.append(samples)
        return next(samples).flatten(1, 2)

    for number, size in enumerate(sizes):
        yield walk(partial(draw, number)).unflatten(1, (size, -1))


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
