"""Samples on their way from the device to the files: few bytes of every case until it is known which ones to show."""

from __future__ import annotations

import os
import tempfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

__all__ = ["CaseKeeper", "SampleFile", "Shown", "best_to_worst"]

_IN_MEMORY = 1 << 26  # bytes, after which what is kept goes to a file that no name leads to


class Shown(NamedTuple):
    """What a picture of a case needs; of a volume the slice that shows the most."""

    image: np.ndarray  # (C, H, W) uint8, each channel from its own minimum to its own maximum
    labels: np.ndarray  # (R, H, W) uint8
    samples: np.ndarray  # (N, H, W) uint8


class CaseKeeper:
    """Keeps the planes of every case compressed, a few kilobytes each, in memory or, beyond 64 MiB, in an unnamed file.

    Which cases are best and worst is known when all are scored; drawing them again would give other samples.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - lives as long as this
        self._places: list[tuple[int, int]] = []
        self._shapes: list[tuple[int, ...]] = []

    def __len__(self) -> int:
        return len(self._places)

    def add(self, image: Tensor, labels: Tensor, masks: Tensor) -> None:
        """Keep a batch: images (B, C, *S), class maps (B, R, *S) and (B, N, *S)."""
        if image.dim() == 5:
            deepest = _slice_that_shows(labels, masks)
            image, labels, masks = (_planes(part, deepest) for part in (image, labels, masks))
        low, high = (extreme(image.float(), (2, 3), keepdim=True) for extreme in (torch.amin, torch.amax))
        grey = ((image.float() - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8)
        planes = torch.cat([grey, labels.to(torch.uint8), masks.to(torch.uint8)], dim=1).cpu().numpy()
        self._shapes = [(image.shape[1], labels.shape[1], masks.shape[1]), tuple(planes.shape[1:])]
        for case in planes:
            packed = zlib.compress(case.tobytes(), 1)
            self._places.append((self._file.seek(0, os.SEEK_END), len(packed)))
            self._file.write(packed)

    def read(self, number: int) -> Shown:
        """The case that was added as the ``number``-th."""
        start, length = self._places[number]
        self._file.seek(start)
        (channels, raters, _), shape = self._shapes
        planes = np.frombuffer(zlib.decompress(self._file.read(length)), np.uint8).reshape(shape)
        return Shown(planes[:channels], planes[channels : channels + raters], planes[channels + raters :])


class SampleFile:
    """samples.npy, (n, N, *S) uint8 in the order of per_case.csv: written as samples come, there when it is whole."""

    def __init__(self, path: Path, cases: int) -> None:
        self.path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}")
        self._cases = cases
        self._array: np.memmap | None = None
        self._written = 0

    def add(self, masks: Tensor) -> None:
        """Write a batch of masks (B, N, *S)."""
        if self._array is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            shape = (self._cases, *masks.shape[1:])
            self._array = np.lib.format.open_memmap(self._temporary, mode="w+", dtype=np.uint8, shape=shape)
        self._array[self._written : self._written + len(masks)] = masks.to(torch.uint8).cpu().numpy()
        self._written += len(masks)

    def finish(self) -> None:
        """Put the file in its place."""
        if self._array is not None:
            self._array.flush()
            self._array = None
            os.replace(self._temporary, self.path)

    def discard(self) -> None:
        """Leave nothing behind."""
        self._array = None
        self._temporary.unlink(missing_ok=True)


def best_to_worst(values: np.ndarray, count: int) -> np.ndarray:
    """At most ``count`` positions, from the lowest value to the highest; NaN, where none is known, comes last.

    Half of them are chosen by rank: the lowest, the highest and those in the middle, then others spread evenly between.
    The other half is evenly spread over the positions: the same for every model, so that several can be looked at
    beside each other.
    """
    order = np.argsort(values, kind="stable")  # NaN last
    known = int(np.isfinite(values).sum())
    number = min((count + 1) // 2 | 1, known) if count else 0  # an odd number has a middle
    ends, middle = np.arange(number // 4), np.arange(number // 6)
    # in the order in which they are wanted
    ranks = np.concatenate(
        [
            np.linspace(0, known - 1, min(number, 3)),  # the lowest, the median, the highest
            *np.stack([ends, known - 1 - ends], axis=1),
            (known - len(middle)) // 2 + middle,
            np.linspace(0, known - 1, number),
        ]
    )
    _, first = np.unique(ranks.round().astype(int), return_index=True)
    ranks = ranks[np.sort(first)[:number]].round().astype(int)
    spread = np.linspace(0, len(values) - 1, max(0, min(count - number, len(values)))).round().astype(int)
    return order[np.isin(order, np.concatenate([order[ranks], spread]))]


def _slice_that_shows(labels: Tensor, masks: Tensor) -> Tensor:
    """(B,) of volumes (B, M, H, W, D) the slice with the most foreground; a missing rater adds to all slices alike."""
    drawn = (labels > 0).sum((1, 2, 3)) + (masks > 0).sum((1, 2, 3))  # (B, D)
    return drawn.argmax(1)


def _planes(part: Tensor, depth: Tensor) -> Tensor:
    index = depth.view(-1, 1, 1, 1, 1).expand(*part.shape[:-1], 1)
    return part.gather(-1, index).squeeze(-1)
