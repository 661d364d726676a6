"""From an image and its raters' masks to patches: slices, spacing, size, intensities.

Image and labels always go through the same geometry, edge to edge: the image linearly (with a Gaussian before it where
it shrinks), the labels by the nearest pixel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ...errors import InputError
from ..prepared.patching import centred_window, percentile_range, to_unit
from ..prepared.preparation import Patches
from .cases import LoadedCase
from .entries import Entry

__all__ = ["FITS", "PLANES", "SLICES", "PatchOptions", "intensity_range", "patches_of", "plane_of", "resampled"]

PLANES = ("axial", "coronal", "sagittal")
FITS = ("crop", "resize", "pad")
SLICES = ("foreground", "all")
_MOST_PIXELS = 1 << 27  # of one resampled plane or volume

Ranges = list[tuple[float, float]]  # (low, high) per channel


class PatchOptions(NamedTuple):
    """What a patch is.

    Attributes:
        size: rows, columns[, slices].
        fit: how an image comes to that size, one of :data:`FITS`.
        keep_aspect: pad to the patch's aspect before resizing.
        spacing: mm per pixel to resample to first, or ``None``.
        plane: which slices of a volume.
        slices: those that a rater drew on, or all.
        keep_3d: patches are volumes.
        window: (low, high) where intensities stay as they are; ``None`` scales each image to [0, 1].
        integers: stored as int16.
        channels: number of channels.
        classes: names of the label values.
    """

    size: tuple[int, ...] = (128, 128)
    fit: str = "crop"
    keep_aspect: bool = False
    spacing: float | None = None
    plane: str = "axial"
    slices: str = "foreground"
    keep_3d: bool = False
    window: tuple[float, float] | None = None
    integers: bool = False
    channels: int = 1
    classes: tuple[str, ...] = ("background", "foreground")


class _Piece(NamedTuple):
    """One slice, or one volume: image (C, *S), labels (R, *S), spacing mm or None, number of the slice."""

    image: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, ...] | None
    number: int | None


def patches_of(case: LoadedCase, entry: Entry, options: PatchOptions) -> Patches:
    """The patches of one image.

    Raises:
        InputError: another number of channels or axes than the data set's; no spacing known where one is asked for;
            NaN; an image larger than the patch that only padding may change.
    """
    array, named = case.scan.array, entry.where
    if array.shape[0] != options.channels:
        raise InputError(
            f"{named}: {entry.image[0]} has {array.shape[0]} channels, {options.channels} as in the other images "
            "expected; convert it or list it in a data set of its own."
        )
    if options.keep_3d and array.ndim != 4:
        raise InputError(f"{named}: {entry.image[0]} is flat, a volume expected with --keep-3d; leave out that option.")
    ranges = intensity_range(array, options.window)
    fill = [float(_scaled(array[c].min(), ranges[c], options)) for c in range(options.channels)]
    patches = Patches(notes=list(case.notes))
    for reason, sentence in case.problems:
        patches.skip(reason, sentence)
    pieces = 0
    for piece in _pieces(case, options):
        pieces += 1
        drawn = int(np.count_nonzero(piece.labels))
        image = np.stack([_scaled(piece.image[c], ranges[c], options) for c in range(options.channels)])
        labels, spacing = piece.labels, piece.spacing
        steps = np.ones(labels.ndim - 1)  # native pixels per pixel of the patch
        if options.spacing is not None:
            image, labels, steps = _to_spacing(image, labels, spacing, options.spacing, named)
        drawn_now = int(np.count_nonzero(labels))
        image, labels, start, shrink = _fitted(image, labels, options, fill, named)
        if drawn and not labels.any():
            where = f"{named} ({entry.case}){'' if piece.number is None else f', slice {piece.number}'}"
            patches.skip(
                "patch without any of the drawn pixels",
                f"{where}: none of {drawn} drawn pixels lies in the patch, some expected; give a larger --patch-size "
                "or --fit resize.",
            )
            continue
        steps = steps * shrink
        centre = (np.array(start) + np.array(labels.shape[1:]) // 2 + 0.5) * steps - 0.5
        kept = 1.0
        if drawn_now and options.fit == "crop":
            kept = np.count_nonzero(labels) / drawn_now
        patches.add(image, labels, case.valid, _row(entry, piece, centre, steps, kept))
    if not pieces:
        patches.exclude("volume that no rater drew in")
    return patches


def plane_of(volume: np.ndarray, plane: str, index: int) -> np.ndarray:
    """(K, H, W) slice of (K, posterior, left, superior): head up, or anterior up; the patient's left at the right."""
    if plane == "axial":
        return volume[..., index]
    if plane == "coronal":
        return volume[:, index].transpose(0, 2, 1)[:, ::-1]
    return volume[:, :, index].transpose(0, 2, 1)[:, ::-1]


def intensity_range(array: np.ndarray, window: tuple[float, float] | None) -> Ranges:
    """What 0 and 1 stand for, per channel of (C, *S): the window, or percentiles of all pixels.

    Where the percentiles coincide (a bright spot on a constant ground) it is minimum and maximum.
    """
    if window is not None:
        return [window] * len(array)
    return [percentile_range(channel) for channel in array]


def _scaled(pixels: np.ndarray, limits: tuple[float, float], options: PatchOptions) -> np.ndarray:
    """float32: mapped to [0, 1] and clipped; with a window as they are (int16 cannot hold more than it can hold)."""
    if options.window is not None:
        values = np.asarray(pixels, np.float32)
        return values.clip(-32768, 32767) if options.integers else values
    return to_unit(pixels, *limits)


def _pieces(case: LoadedCase, options: PatchOptions) -> Iterator[_Piece]:
    array, labels = case.scan.array, case.labels
    spacing = _known(case.scan.spacing)
    if array.ndim == 3 or options.keep_3d:
        yield _Piece(array, labels, spacing, None)
        return
    axis = {"axial": 3, "coronal": 1, "sagittal": 2}[options.plane]
    in_plane = {"axial": (0, 1), "coronal": (2, 1), "sagittal": (2, 0)}[options.plane]
    others = tuple(a for a in range(4) if a != axis)
    wanted = labels.any(axis=others) if options.slices == "foreground" else np.ones(labels.shape[axis], bool)
    for index in np.flatnonzero(wanted).tolist():
        yield _Piece(
            plane_of(array, options.plane, index),
            plane_of(labels, options.plane, index),
            None if spacing is None else tuple(spacing[a] for a in in_plane),
            index,
        )


def _known(spacing: Sequence[float] | None) -> tuple[float, ...] | None:
    values = tuple(float(v) for v in spacing or ())
    return values if values and all(np.isfinite(v) and v > 0 for v in values) else None


def _to_spacing(
    image: np.ndarray, labels: np.ndarray, spacing: tuple[float, ...] | None, wanted: float, named: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if spacing is None:
        raise InputError(
            f"{named}: no pixel spacing is known of this image, one expected for --spacing; leave out that option or "
            "store the image as NIfTI with its spacing."
        )
    shape = tuple(max(1, round(n * s / wanted)) for n, s in zip(labels.shape[1:], spacing))
    if int(np.prod([float(n) for n in shape])) > _MOST_PIXELS:
        raise InputError(
            f"{named}: {' x '.join(map(str, shape))} pixels would be made at {wanted} mm, fewer expected; choose a "
            "larger --spacing."
        )
    steps = np.array(labels.shape[1:]) / shape
    return (*resampled(image, labels, shape), steps)


def resampled(image: np.ndarray, labels: np.ndarray, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The whole (C, *S) and (R, *S) on another grid over the same extent: image linear, labels nearest."""
    from skimage.transform import resize

    old = labels.shape[1:]
    if tuple(shape) == tuple(old):
        return image, labels
    shrinks = any(new < n for new, n in zip(shape, old))
    image = np.stack(
        [
            resize(channel, tuple(shape), order=1, mode="edge", anti_aliasing=shrinks, preserve_range=True)
            for channel in image
        ]
    ).astype(np.float32)
    for axis, (new, n) in enumerate(zip(shape, old), 1):
        labels = labels.take(((np.arange(new) + 0.5) * n / new).astype(int), axis=axis)
    return image, labels


def _fitted(
    image: np.ndarray, labels: np.ndarray, options: PatchOptions, fill: Sequence[float], named: str
) -> tuple[np.ndarray, np.ndarray, list[int], np.ndarray]:
    """Image, labels, first row and column of the patch in its own pixels, and how much the pixels grew."""
    old, size = labels.shape[1:], options.size
    grown = np.ones(len(size))
    if options.fit == "crop":
        start = centred_window(labels, size)
        return _window(image, fill, start, size), _window(labels, None, start, size), start, grown
    if options.fit == "pad":
        if any(n > s for n, s in zip(old, size)):
            raise InputError(
                f"{named}: an image of {' x '.join(map(str, old))} pixels found, at most {' x '.join(map(str, size))} "
                "expected with --fit pad; give a larger --patch-size, or --fit crop or resize."
            )
        start = [-((s - n) // 2) for n, s in zip(old, size)]
        return _window(image, fill, start, size), _window(labels, None, start, size), start, grown
    start = [0] * len(size)
    if options.keep_aspect:
        scale = max(n / s for n, s in zip(old, size))
        padded = [max(n, round(s * scale)) for n, s in zip(old, size)]
        start = [-((p - n) // 2) for n, p in zip(old, padded)]
        image, labels = _window(image, fill, start, padded), _window(labels, None, start, padded)
    grown = np.array(labels.shape[1:]) / np.array(size)
    image, labels = resampled(image, labels, size)
    return image, labels, [round(s / g) for s, g in zip(start, grown)], grown


def _window(array: np.ndarray, fill: Sequence[float] | None, start: Sequence[int], size: Sequence[int]) -> np.ndarray:
    """(K, *size) of (K, *S) from ``start``, which may lie before the first pixel: ``fill`` is there, or 0."""
    found = np.zeros((len(array), *size), array.dtype)
    if fill is not None:
        found[:] = np.reshape(np.asarray(fill, array.dtype), (-1, *[1] * len(size)))
    source, target = [slice(None)], [slice(None)]
    for first, length, n in zip(start, size, array.shape[1:]):
        low, high = max(first, 0), min(first + length, n)
        source.append(slice(low, high))
        target.append(slice(low - first, high - first))
    found[tuple(target)] = array[tuple(source)]
    return found


def _row(entry: Entry, piece: _Piece, centre: np.ndarray, steps: np.ndarray, kept: float) -> dict[str, str]:
    spacing = () if piece.spacing is None else [f"{s * k:.6g}" for s, k in zip(piece.spacing, steps)]
    return {
        "case": entry.case if piece.number is None else f"{entry.case}_{piece.number:04d}",
        "patient": entry.patient,
        "slice": str(piece.number or 0),
        "section": entry.section,
        "row": f"{centre[0]:.2f}",
        "column": f"{centre[1]:.2f}",
        "spacing": " x ".join(dict.fromkeys(spacing) if len(set(spacing)) == 1 else spacing),
        "drawn_inside": f"{kept:.3f}",
        **entry.columns,
    }
