"""Random windows of prepared volumes, for networks that cannot see a whole one."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from monai.utils import ensure_tuple_rep
from torch import Tensor

from ...errors import InputError
from ..prepared.reading import PreparedDataset
from .loader import DeviceLoader, mix
from .streaming import read_ahead, read_rows
from .voxels import VoxelIndex, runs_of

__all__ = ["WindowLoader", "cut_windows", "gather_windows"]

_WINDOWS = 1 << 32  # keeps the draws of windows apart from those of order and augmentation
_READERS = 4  # threads that look for voxels: most of the time is numpy's, outside of the interpreter lock


class WindowLoader(DeviceLoader):
    """A :class:`DeviceLoader` that hands out windows of the cases, drawn anew in each epoch.

    A batch is a dict of ``image`` (B, C, *W) float32 in [0, 1], ``label`` (B, R, *W) uint8 and ``rater_valid`` (B, R)
    bool. An epoch has ``windows_per_case`` windows of every case. Each is drawn by the SSN paper's rule: with
    probability ``foreground`` its centre is a voxel on which a valid rater drew, else one on which none did, all
    equally likely, and never one of air (0 in every channel). A case that has none of the wanted kind gives the other.

    The window without its ``margin`` lies inside the volume: where the centre is close to an edge, it is shifted (the
    paper's authors pad there instead); where the volume is smaller, the volume is in its middle. What a window has
    beyond the volume is 0 in image and label.

    Which windows an epoch has depends on (seed, epoch) alone, whatever device, memory budget and number of ranks.
    Without ``shuffle`` (validation) they are the same in every epoch, and ordered by case.

    A section that fits into the memory budget lies whole on the device, whole volumes in the stored type; else a
    thread reads the windows, and nothing but the windows, from the memory maps. Where the voxels are is found out
    once, when the loader is made: about 0.15 s and 0.5 MB of memory for a BraTS case of 9 million voxels (150 MB for
    285 cases), reading all of the section once.

    Args:
        dataset, section, batch_size, device, fold, transform, seed, drop_last, num_workers, rank, world_size,
            even_divisible, memory_budget: as for :class:`DeviceLoader`; ranks share the windows, not the cases.
        window_size: voxels of a window per axis, or one number for all.
        margin: voxels at each side of a window that are context alone: those that the network's unpadded convolutions
            lose. One number, or one per axis.
        windows_per_case: of an epoch.
        foreground: the share of windows around a drawn voxel; the paper's is 0.5.
        shuffle: draw new windows in each epoch and mix those of different cases.

    Raises:
        InputError: as for :class:`DeviceLoader`; a window of other dimensions than the volumes, or smaller than its
            margins; no window per case; a share that is none.
    """

    def __init__(
        self,
        dataset: PreparedDataset,
        section: str,
        batch_size: int,
        window_size: int | Sequence[int],
        device: torch.device | str = "cpu",
        fold: int = 0,
        transform: Callable[[dict[str, Any]], Any] | None = None,
        margin: int | Sequence[int] = 0,
        windows_per_case: int = 1,
        foreground: float = 0.5,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        num_workers: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        even_divisible: bool = True,
        memory_budget: float | None = None,
    ) -> None:
        self.shape = tuple(int(n) for n in dataset.info["patch_size"])
        self.window_size = _per_axis(window_size, len(self.shape), "window_size")
        self.margin = _per_axis(margin, len(self.shape), "margin")
        if any(size <= 2 * lost or lost < 0 for size, lost in zip(self.window_size, self.margin)):
            raise InputError(
                f"windows of {_times(self.window_size)} voxels with a margin of {_times(self.margin)} found, a margin "
                "of 0 or more at each side and at least a voxel between them expected; correct window_size or margin."
            )
        if windows_per_case < 1:
            raise InputError(f"{windows_per_case} windows per case found, at least 1 expected; correct it.")
        if not 0 <= foreground <= 1:
            raise InputError(f"a share of {foreground} windows around drawn voxels found, 0 to 1 expected; correct it.")
        self.windows_per_case = int(windows_per_case)
        self.foreground = float(foreground)
        super().__init__(
            dataset,
            section,
            batch_size,
            device,
            fold=fold,
            transform=transform,
            shuffle=shuffle,
            seed=seed,
            drop_last=drop_last,
            num_workers=num_workers,
            rank=rank,
            world_size=world_size,
            even_divisible=even_divisible,
            memory_budget=memory_budget,
        )
        self._drawn, self._plain = self._find_voxels()

    def _count(self) -> int:
        return len(self.indices) * self.windows_per_case

    def _stored_batches(self, epoch: int) -> Generator[dict[str, Tensor], None, None]:
        windows = self._windows(epoch)[self._order(epoch).numpy()]
        fill = {"image": self._air(), "label": 0}
        if self._resident is not None and self.device.type != "cpu":
            for part in torch.from_numpy(windows).to(self.device).split(self.batch_size)[: len(self)]:
                yield {
                    name: gather_windows(values, part, self.window_size, fill[name])
                    if name in fill
                    else values.index_select(0, part[:, 0])
                    for name, values in self._resident.items()
                }
            return

        def read(array: np.ndarray, rows: np.ndarray, pin: bool = False) -> Tensor:
            if array.ndim == 2:  # rater_valid
                return read_rows(array, rows[:, 0], pin)
            return cut_windows(
                array, rows, self.window_size, fill["image" if array.dtype != np.uint8 else "label"], pin
            )

        if self._resident is None:
            windows[:, 0] = self.indices[windows[:, 0]]
            arrays = self._arrays()
        else:
            arrays = {name: values.numpy() for name, values in self._resident.items()}
        starts = range(0, len(windows), self.batch_size)[: len(self)]
        yield from read_ahead(arrays, (windows[start : start + self.batch_size] for start in starts), self.device, read)

    def _air(self) -> float:
        """Value of the stored type that becomes 0."""
        low, dtype = self.dataset.intensity_window[0], self.dataset.images.dtype
        return low if dtype.kind == "f" else max(math.floor(low), int(np.iinfo(dtype).min))

    def _windows(self, epoch: int) -> np.ndarray:
        """(m, 1 + dims) int64: case (its position in the section) and first voxel of every window of an epoch."""
        # numpy's legacy generator, whose stream is frozen across versions
        random = np.random.RandomState(mix(self.seed, epoch if self.shuffle else 0, _WINDOWS) % 2**32)
        wish, place = random.random_sample((2, self._count()))
        cases = np.repeat(np.arange(len(self.indices)), self.windows_per_case)
        has_drawn, has_plain = self._drawn.counts[cases] > 0, self._plain.counts[cases] > 0
        drawn = has_drawn & ((wish < self.foreground) | ~has_plain)
        plain = has_plain & ~drawn
        voxel = (place * math.prod(self.shape)).astype(np.int64)  # of an image that is air alone
        voxel[drawn] = self._drawn.draw(cases[drawn], place[drawn])
        voxel[plain] = self._plain.draw(cases[plain], place[plain])
        centre = np.stack(np.unravel_index(voxel, self.shape), axis=1)
        inner = np.array(self.window_size) - 2 * np.array(self.margin)
        room = np.array(self.shape) - inner
        start = np.where(room < 0, -(-room // 2), np.clip(centre - inner // 2, 0, np.maximum(room, 0)))
        return np.concatenate([cases[:, None], start - np.array(self.margin)], axis=1)

    def _find_voxels(self) -> tuple[VoxelIndex, VoxelIndex]:
        """Of each case the voxels on which a valid rater drew, and those on which none did, without air."""
        arrays, low = self._arrays(), self.dataset.intensity_window[0]

        def runs(position: int) -> tuple[np.ndarray, np.ndarray]:
            image, label, valid = (arrays[name][position] for name in ("image", "label", "rater_valid"))
            content, drawn = np.zeros(self.shape, bool), np.zeros(self.shape, bool)
            for channel in image:
                content |= channel > low
            for rater in label[valid]:
                drawn |= rater > 0
            return runs_of(content & drawn), runs_of(content & ~drawn)

        with ThreadPoolExecutor(_READERS, thread_name_prefix="aleatoric-voxels") as pool:
            drawn, plain = zip(*pool.map(runs, self.indices.tolist()))
        return VoxelIndex(drawn), VoxelIndex(plain)


def cut_windows(array: np.ndarray, windows: np.ndarray, size: Sequence[int], fill: float, pin: bool = False) -> Tensor:
    """Windows of an array on the host, of which no other byte is read.

    Args:
        array: (n, C, *S), for example a memory map.
        windows: (B, 1 + dims) int64, the row and the first voxel, which may lie outside.
        size: of a window.
        fill: what lies outside.
        pin: in pinned memory.

    Returns:
        (B, C, *size) of the array's type.
    """
    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
    batch = torch.empty((len(windows), array.shape[1], *size), dtype=dtype, pin_memory=pin)
    target = batch.numpy()
    begin = windows[:, 1:]
    first = np.clip(begin, 0, array.shape[2:])
    last = np.clip(begin + np.array(size), first, array.shape[2:])
    full = ((last - first) == np.array(size)).all(axis=1)
    target[~full] = fill
    for out, row, offset, lower, upper in zip(target, windows[:, 0], begin, first, last):
        source = (slice(None), *(slice(a, b) for a, b in zip(lower, upper)))
        place = (slice(None), *(slice(a, b) for a, b in zip(lower - offset, upper - offset)))
        out[place] = array[int(row)][source]
    return batch


def gather_windows(values: Tensor, windows: Tensor, size: Sequence[int], fill: float) -> Tensor:
    """:func:`cut_windows` of a tensor on its device, in one gather that the host does not wait for.

    Args:
        values: (n, C, *S).
        windows: (B, 1 + dims) int64 on the same device.
        size, fill: as there.

    Returns:
        (B, C, *size) of the tensor's type.
    """
    dims = len(size)
    rows, channels = windows[:, 0], torch.arange(values.shape[1], device=values.device)
    index = [rows.view(-1, *[1] * (dims + 1)), channels.view(1, -1, *[1] * dims)]
    inside = torch.ones([1] * (dims + 2), dtype=torch.bool, device=values.device)
    for axis, (length, extent) in enumerate(zip(size, values.shape[2:])):
        position = windows[:, 1 + axis, None] + torch.arange(length, device=values.device)
        position = position.view([-1, *[1] * (axis + 1), length, *[1] * (dims - 1 - axis)])
        inside = inside & (position >= 0) & (position < extent)
        index.append(position.clamp(0, extent - 1))
    return values[tuple(index)].masked_fill_(~inside, fill)


def _per_axis(value: int | Sequence[int], dims: int, name: str) -> tuple[int, ...]:
    try:
        return tuple(int(n) for n in ensure_tuple_rep(value, dims))
    except ValueError as error:
        raise InputError(
            f"{name} {value} found, one number or {dims} expected, as the volumes have axes; correct it."
        ) from error


def _times(numbers: Sequence[int]) -> str:
    return " x ".join(map(str, numbers))
