"""Voxels of a BraTS case: reading its files, and the SSN paper's normalisation inside the brain.

The normalisation is that of the paper's authors (biomedia-mira/stochastic_segmentation_networks,
``evaluation/preprocessing.py``): of each channel the mean and standard deviation of those voxels of the brain that lie
between its 5th and 95th percentile and above the mean of the WHOLE volume, air included. Two things differ. The brain
is where any channel is not 0, not T1 alone. And air, which there becomes -mean / std, another value in every channel,
is the lowest value of the window here: 0 after the loader, which no brain voxel has.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..readers.geometry import closest_turn, same_grid, turned
from ..readers.raw_images import RawImage, quietly, read_nifti

__all__ = ["AIR", "CLASSES", "UNIT", "WINDOW", "class_map", "normalised", "read_volumes", "size_of"]

UNIT = 1000  #: of a standard deviation: what is stored
WINDOW = (-10.0 * UNIT, 10.0 * UNIT)  #: ten standard deviations to both sides of the mean become 0 and 1
AIR = int(WINDOW[0])  #: what is not brain
CLASSES = ("background", "non-enhancing tumour", "oedema", "enhancing tumour")

_PERCENTILES = (5.0, 95.0)
_HIGHEST = np.iinfo(np.int16).max


def read_volumes(paths: Sequence[Path]) -> list[np.ndarray]:
    """The files of one case, (H, W, D) each: rows towards posterior, columns towards left, slices towards superior.

    Nothing is interpolated. A header without geometry means what nibabel, and so MONAI, makes of it.

    Raises:
        InputError: a file that is missing, damaged, or no volume of real numbers; files of different grids.
    """
    raws = [_read(path) for path in paths]
    affines = [_header(path)[1] if raw.affine is None else raw.affine for path, raw in zip(paths, raws)]
    shape = raws[0].array.shape[1:]
    for path, raw, affine in zip(paths, raws, affines):
        if raw.array.shape[1:] != shape or not same_grid(affines[0], affine, shape):
            sizes = " and ".join(" x ".join(map(str, s)) for s in (raw.array.shape[1:], shape))
            raise InputError(
                f"{path} does not lie on the grid of {paths[0].name} ({sizes} voxels), one grid for all files of a "
                "case expected; download the case again."
            )
    turn = closest_turn(shape, affines[0])
    return [np.ascontiguousarray(turned(raw.array[0], None, turn)[0]) for raw in raws]


def size_of(path: Path) -> tuple[int, int, int] | None:
    """Voxels along posterior, left, superior by the header alone; ``None`` where it cannot be read."""
    with contextlib.suppress(Exception), quietly():  # readers raise nearly anything on damaged bytes
        shape, affine = _header(path)
        turn = closest_turn(shape, affine)
        height, width, depth = (shape[turn.target.index(axis)] for axis in range(3))
        return height, width, depth
    return None


def normalised(image: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """The paper's normalisation of one case, in thousandths of a standard deviation.

    Args:
        image: (C, *S), exact zeros outside of the brain. The whole volume: the threshold depends on the air in it.
        names: of the C channels, for the sentences.

    Returns:
        (C, *S) int16. :data:`AIR` outside of the brain, above that inside it, in every channel. What lies further than
        10 standard deviations below the mean is clipped there; above, only at 32.767.

    Raises:
        InputError: NaN or infinity, no brain, or a channel without contrast.
    """
    for channel, name in zip(image, names):
        if channel.dtype.kind == "f" and not np.isfinite(channel).all():
            raise InputError(f"{name} has NaN or infinity, finite values expected; download the case again.")
    brain = (image != 0).any(axis=0)
    if not brain.any():
        raise InputError(f"{names[0]} and the other channels are 0 everywhere, a brain expected; leave out the case.")
    result = np.full(image.shape, AIR, np.int16)
    for channel, name, target in zip(image, names, result):
        voxels = channel[brain].astype(np.float64)
        low, high = np.percentile(voxels, _PERCENTILES)
        mean = voxels.sum() / channel.size  # of the whole volume: air is 0
        kept = voxels[(voxels > low) & (voxels < high) & (voxels > mean)]
        spread = float(kept.std()) if len(kept) else 0.0
        if not spread > 0:
            raise InputError(
                f"{name} has no contrast (5th and 95th percentile of the brain {low:g} and {high:g}), an MR image "
                "expected; leave out the case."
            )
        stored = np.rint((voxels - kept.mean()) * (UNIT / spread))
        target[brain] = stored.clip(AIR + 1, _HIGHEST).astype(np.int16)
    return result


def class_map(labels: np.ndarray, name: str, enhancing: int = 4) -> np.ndarray:
    """(H, W, D) uint8 classes of a segmentation: 0, 1, 2 as in the file, and ``enhancing`` becomes 3.

    Args:
        labels: of the file.
        name: of the file.
        enhancing: 4 in the challenges until 2021; 3 since, where 4 does not occur.

    Raises:
        InputError: any other value.
    """
    known = [0, 1, 2, enhancing]
    values = np.unique(labels)
    wrong = [value for value in values.tolist() if value not in known]  # NaN too
    if wrong:
        hint = "give --enhancing 3 if that is enhancing tumour, as since 2023" if wrong == [3] else "check the file"
        raise InputError(
            f"{name} has the label {wrong[0]:g}, {', '.join(map(str, known))} (background, non-enhancing, oedema, "
            f"enhancing) expected; {hint}."
        )
    return np.where(labels == enhancing, 3, labels).astype(np.uint8)


def _header(path: Path) -> tuple[tuple[int, int, int], np.ndarray]:
    import nibabel as nib

    image = nib.load(path)
    first, second, third = (int(n) for n in image.shape)  # type: ignore[attr-defined]
    return (first, second, third), np.asarray(image.affine)  # type: ignore[attr-defined]


def _read(path: Path) -> RawImage:
    if not path.is_file():
        raise InputError(f"there is no file {path}, one expected; download the case again.")
    raw = read_nifti(path)
    if len(raw.array) != 1 or raw.array.dtype.kind not in "biuf":
        raise InputError(
            f"{path} has the shape {raw.array.shape} of {raw.array.dtype}, one volume of real numbers expected; "
            "download the case again."
        )
    return raw
