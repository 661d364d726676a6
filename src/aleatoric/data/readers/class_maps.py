"""A rater's label file as a class map: what its values mean, and what cannot be meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import InputError
from .dicom_seg import chosen_segments
from .raw_images import RawImage

__all__ = ["class_map"]


def class_map(
    raw: RawImage, path: Path, segment: str | int | None = None
) -> tuple[np.ndarray, dict[int, str], list[str]]:
    """(a, b, c) uint8 in the file's order, names of its classes where it has them, notes.

    A mask of 0 and 255 (65535 in 16 bits) is 0 and 1. Several channels are one binary mask per class, class k + 1 in
    channel k, or, where they sum to one everywhere, one-hot with the background first. ``segment`` leaves one class or
    named segment, as class 1.

    Raises:
        InputError: fractions, negative values, more than 255 classes, colours, classes that overlap, no such segment.
    """
    if raw.kind == "JPEG":
        raise InputError(
            f"{path} is a JPEG, whose compression changes values; a label expected as PNG, TIFF or a volume."
        )
    array, notes = _plain(raw, path)
    segments = raw.info.get("segments") or []
    if segments:
        return _segments(array, segments, path, segment, notes)
    if isinstance(segment, str) and not segment.isdigit():
        raise InputError(f"{path} names no segments, '{segment}' expected; choose a class by its number.")
    number = None if segment is None else int(segment)
    if len(array) > 1:
        layers = [_values(layer, path)[0] for layer in array]
        result = _one_hot(layers, path, number, notes)
    else:
        result = _values(array[0], path, notes)[0]
        if number is not None and notes and number == array[0].max():  # 255 was asked for by its name in the file
            number = int(result.max())
    if number is not None:
        result = (result == number).astype(np.uint8)
    return result.astype(np.uint8, copy=False), {}, notes


def _plain(raw: RawImage, path: Path) -> tuple[np.ndarray, list[str]]:
    """(C, a, b, c) without colours."""
    array, info, notes = raw.array, raw.info, []
    if info.get("transparent"):
        raise InputError(f"{path} has transparent parts, a class in every pixel expected; save it without alpha.")
    if info.get("exif_orientation"):
        notes.append(f"EXIF orientation {info['exif_orientation']} ignored")
    if info.get("colour"):
        if not (array == array[:1]).all():
            raise InputError(
                f"{path} is a picture in colours, a class number a pixel expected; save it as grey values."
            )
        array = array[:1]
    palette = info.get("palette")
    if palette is not None:
        used = np.unique(array)
        if used[-1] >= len(palette):
            raise InputError(
                f"{path} has the value {used[-1]}, {len(palette)} colours in its palette; save it as grey values."
            )
        if (palette[used] == palette[used][:, :1]).all():  # grey: what a viewer shows
            array = palette[:, 0][array]
        else:
            notes.append(f"indices {used.tolist()} of its palette's colours read as classes")
    return array, notes


def _values(array: np.ndarray, path: Path, notes: list[str] | None = None) -> tuple[np.ndarray, list[int]]:
    """uint8 classes, and which occur."""
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InputError(f"{path} has values that are not finite, class numbers expected; export the label again.")
        whole = np.rint(array)
        if np.abs(array - whole).max(initial=0) > 1e-3:  # rescaled integers are off by less
            fraction = float(array.flat[np.abs(array - whole).argmax()])
            raise InputError(
                f"{path} has fractions such as {fraction:.4g} (probabilities?), class numbers expected; threshold it."
            )
        array = whole
    present = [int(v) for v in np.unique(array)]
    full = 65535 if array.dtype.itemsize == 2 and present[-1] > 255 else 255
    if present[-1] == full and set(present) <= {0, full}:
        if notes is not None:
            notes.append(f"values 0/{full} read as 0/1")
        return (array == full).astype(np.uint8), sorted({min(v, 1) for v in present})
    if present[0] < 0 or present[-1] > 255:
        raise InputError(
            f"{path} has values from {present[0]} to {present[-1]}, classes 0 to 255 expected; renumber them."
        )
    return array.astype(np.uint8), present


def _one_hot(layers: Sequence[np.ndarray], path: Path, number: int | None, notes: list[str]) -> np.ndarray:
    if max(int(layer.max()) for layer in layers) > 1:
        raise InputError(
            f"{path} has {len(layers)} channels with values above 1, one binary mask per class or a single class map "
            "expected; choose one channel."
        )
    if len(layers) > 255:
        raise InputError(f"{path} has {len(layers)} channels, at most 255 classes expected; choose some.")
    if number is not None and not 1 <= number <= len(layers):
        raise InputError(f"{path} has {len(layers)} channels, a class among them expected, not {number}; correct it.")
    total = np.sum(layers, axis=0, dtype=np.int32)
    if (total == 1).all():
        notes.append("one-hot: channel 0 read as background")
        return np.argmax(np.stack(layers), axis=0).astype(np.uint8)
    if number is not None:
        return np.where(layers[number - 1] != 0, np.uint8(number), np.uint8(0))
    if (total > 1).any():
        raise InputError(_overlap(path, int((total > 1).sum())))
    notes.append(f"{len(layers)} channels read as classes 1 to {len(layers)}")
    result = np.zeros(layers[0].shape, np.uint8)
    for k, layer in enumerate(layers):
        result[layer != 0] = k + 1
    return result


def _segments(
    array: np.ndarray,
    segments: Sequence[tuple[str, int, int | None]],
    path: Path,
    segment: str | int | None,
    notes: list[str],
) -> tuple[np.ndarray, dict[int, str], list[str]]:
    """3D Slicer's: each segment has a value in a layer (older files: a layer of its own)."""
    layered = [
        (name, value, (k if layer is None else layer) if len(array) > 1 else 0)
        for k, (name, value, layer) in enumerate(segments)
    ]
    values = [value for _, value, _ in layered]
    if len(set(values)) < len(values):
        values = list(range(1, len(values) + 1))
        notes.append("segments share label values: numbered from 1 in the file's order")
    if max(values) > 255 or min(values) < 1 or max(layer for *_, layer in layered) >= len(array):
        raise InputError(
            f"{path} describes segments of values {values} in {len(array)} layers that it lacks, values 1 to 255 "
            "in its layers expected; export it again."
        )
    names = {value: name for value, (name, _, _) in zip(values, layered)}
    wanted = chosen_segments(path, names, segment)
    result = np.zeros(array.shape[1:], np.uint8)
    overlap = undescribed = 0
    maps = [_values(layer, path)[0] for layer in array]
    for value, (_, stored, layer) in zip(values, layered):
        if value in wanted:
            mask = array[layer] == stored
            overlap += int((result[mask] != 0).sum())
            result[mask] = wanted[value]
    for k, layer_map in enumerate(maps):
        known = [stored for _, stored, layer in layered if layer == k]
        undescribed += int((~np.isin(layer_map, [0, *known])).sum())
    if overlap:
        raise InputError(_overlap(path, overlap))
    if undescribed:
        notes.append(f"{undescribed} voxels have values that no segment describes, taken as background")
    return result, {value: names[number] for number, value in wanted.items()}, notes


def _overlap(path: Path, voxels: int) -> str:
    return f"{path} has classes that overlap in {voxels} voxels, one class a voxel expected; choose one by its number."
