"""Uniform draws of voxels out of masks that are too large to be searched at every draw, or to be kept."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["VoxelIndex", "runs_of"]


def runs_of(mask: np.ndarray) -> np.ndarray:
    """(2, r) int64: where each run of neighbouring voxels begins in the flattened mask, and how long it is."""
    edges = np.flatnonzero(np.diff(mask.reshape(-1).view(np.int8), prepend=0, append=0))
    return np.stack([edges[::2], edges[1::2] - edges[::2]])


class VoxelIndex:
    """The voxels of one mask per case, as runs of neighbours in memory: 16 bytes a run, whatever its length.

    Args:
        runs: (2, r) of each case, from :func:`runs_of`.

    Attributes:
        counts: (n,) voxels of each case.
    """

    def __init__(self, runs: Sequence[np.ndarray]) -> None:
        self.counts = np.array([length.sum() for _, length in runs], np.int64)
        self._before = np.cumsum(self.counts) - self.counts  # voxels of all cases before this one
        first, length = np.concatenate([np.zeros((2, 0), np.int64), *runs], axis=1)
        self._first, self._end = first, np.cumsum(length)

    def draw(self, cases: np.ndarray, uniform: np.ndarray) -> np.ndarray:
        """A voxel of each of these cases, all equally likely: its position in the flattened mask.

        Args:
            cases: (m,) positions in ``masks``; none may be empty.
            uniform: (m,) in [0, 1).

        Returns:
            (m,) int64.
        """
        wanted = self._before[cases] + (uniform * self.counts[cases]).astype(np.int64)
        run = np.searchsorted(self._end, wanted, side="right")
        begin = np.where(run > 0, self._end[run - 1], 0)
        return np.asarray(self._first[run] + (wanted - begin))
