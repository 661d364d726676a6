"""DICOM segmentations: each frame by its position onto the grid of the image, never by its number.

Frames of empty slices are usually left out of the file, so the distance between its frames is not that between slices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError
from .geometry import checked_affine, from_lps, locate, onto_grid
from .raw_images import reading

__all__ = ["chosen_segments", "read_segmentation"]


class _Frame(NamedTuple):
    mask: np.ndarray  # (rows, columns, 1) bool
    segment: int
    affine: np.ndarray | None  # (4, 4), index (row, column, 0) -> RAS mm; None without a position in the patient


class _OffLattice(Exception):
    """A frame that does not lie on the image's lattice."""


def read_segmentation(
    path: Path,
    shape: tuple[int, ...],
    affine: np.ndarray | None,
    info: Mapping[str, Any],
    segment: str | int | None = None,
) -> tuple[np.ndarray, dict[int, str], list[str]]:
    """A DICOM-SEG (binary, fractional or label map) on an image's grid: class map, names of the classes, notes.

    Args:
        shape, affine: the grid, (rows, columns, slices) and index -> RAS mm.
        info: the image's ``frame_of_reference_uid`` and ``series_uid``, where known.
        segment: number or label of the only one wanted; it becomes class 1. Otherwise a class is a segment's number.

    Raises:
        InputError: damaged; another frame of reference; no such segment; segments that overlap; elsewhere in space.
    """
    import highdicom as hd

    with reading(path, "DICOM segmentation"):
        seg = hd.seg.segread(path)
        names = {int(s.SegmentNumber): str(s.get("SegmentLabel", "")) for s in seg.SegmentSequence}
        names.pop(0, None)  # a label map may describe its background
        ours, its = str(info.get("frame_of_reference_uid") or ""), str(seg.get("FrameOfReferenceUID") or "")
        series = [str(item.SeriesInstanceUID) for item in seg.get("ReferencedSeriesSequence") or []]
        fractional = seg.segmentation_type.value == "FRACTIONAL"
    if ours and its and ours != its:
        raise InputError(
            f"{path} was drawn in the frame of reference {its}, the image's {ours} expected; correct the pairing."
        )
    wanted = chosen_segments(path, names, segment)
    if max(wanted.values(), default=0) > 255:
        raise InputError(f"{path} has segment numbers above 255, classes 1 to 255 expected; choose one segment.")
    notes = ["fractional: read as labelled where at least one half"] if fractional else []
    if info.get("series_uid") and series and info["series_uid"] not in series:
        notes.append(f"drawn on another series of the same examination ({series[0]})")
    with reading(path, "DICOM segmentation"):
        try:
            result, more = _frame_by_frame(path, seg, wanted, shape, affine)
        except _OffLattice:
            assert affine is not None
            result, more = _off_lattice(path, seg, wanted, shape, affine)
    return result, {value: names[number] for number, value in wanted.items()}, notes + more


def chosen_segments(path: Path, names: Mapping[int, str], segment: str | int | None) -> dict[int, int]:
    """Number of a segment -> its class: all as they are, or the one chosen as class 1.

    Raises:
        InputError: no such segment, or several of that name.
    """
    if segment is None:
        return {number: number for number in names}
    found = [number for number, name in names.items() if segment in (number, name)]
    if not found and isinstance(segment, str) and segment.isdigit():
        found = [number for number in names if number == int(segment)]
    if len(found) != 1:
        listing = ", ".join(f"{number} ('{name}')" for number, name in sorted(names.items())) or "none"
        many = "no segment" if not found else f"{len(found)} segments"
        raise InputError(f"{path} has {many} {segment!r}, one expected; choose by number among {listing}.")
    return {found[0]: 1}


def _frame_by_frame(
    path: Path, seg: Any, wanted: Mapping[int, int], shape: tuple[int, ...], affine: np.ndarray | None
) -> tuple[np.ndarray, list[str]]:
    result = np.zeros(shape, np.uint8)
    back = None if affine is None else np.linalg.inv(affine)
    outside = overlap = 0
    planes: set[tuple[float, ...] | None] = set()
    for frame in _frames(path, seg, wanted):
        planes.add(None if frame.affine is None else tuple(frame.affine[:3, 3].round(3)))
        if back is None:
            if len(planes) > 1 or frame.mask.shape != tuple(shape):
                raise InputError(
                    f"{path} holds planes of {frame.mask.shape[:2]} pixels, the image of {tuple(shape)} does not say "
                    "where it lies, one plane of that size expected; give the image as DICOM or NIfTI."
                )
            placed = locate(frame.mask, np.eye(4), shape)
        elif frame.affine is None:
            raise InputError(f"{path} has frames without a position, one for each expected; export it again.")
        else:
            placed = locate(frame.mask, back @ frame.affine, shape)
        if placed is None:
            raise _OffLattice
        outside += placed.outside
        overlap += _add(result[placed.where], placed.inside, wanted[frame.segment])
    _refuse_overlap(path, overlap)
    if outside and not result.any():
        raise InputError(
            f"{path}: the label lies elsewhere than the image (none of its {outside} labelled pixels is inside), "
            "a label of this image expected; correct the pairing of files."
        )
    notes = [f"{outside} labelled voxels lie outside of the image and were cut off"] if outside else []
    if back is None and planes:
        notes.append("the image does not say where it lies: taken pixel by pixel")
    return result, notes


def _off_lattice(
    path: Path, seg: Any, wanted: Mapping[int, int], shape: tuple[int, ...], affine: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """The segmentation as a volume of its own, resampled."""
    own: np.ndarray | None = None
    own_affine = np.eye(4)
    for number, value in wanted.items():
        volume = seg.get_volume(segment_numbers=[number], allow_missing_positions=True)
        mask = volume.array[..., 0] >= 0.5
        own = np.zeros(mask.shape, np.uint8) if own is None else own
        own_affine = checked_affine(from_lps(volume.affine), path)
        _refuse_overlap(path, _add(own, mask, value))
    if own is None:
        return np.zeros(shape, np.uint8), []
    return onto_grid(own, own_affine, shape, affine, path)


def _frames(path: Path, seg: Any, wanted: Mapping[int, int]) -> Iterator[_Frame]:
    labelmap = seg.segmentation_type.value == "LABELMAP"
    half = float(seg.get("MaximumFractionalValue", 1)) / 2
    shared = seg.SharedFunctionalGroupsSequence[0]
    for k, own in enumerate(seg.PerFrameFunctionalGroupsSequence):

        def group(name: str, own: Any = own) -> Any:
            found = own.get(name) or shared.get(name)
            return found[0] if found else None

        number = None if labelmap else int(group("SegmentIdentificationSequence").ReferencedSegmentNumber)
        if number is not None and number not in wanted:
            continue
        affine = _plane(
            path, *map(group, ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"))
        )
        values = seg.get_stored_frame(k + 1)[..., None]
        if number is not None:
            yield _Frame(values >= half, number, affine)
            continue
        for present in np.unique(values).tolist():
            if present in wanted:
                yield _Frame(values == present, present, affine)


def _plane(path: Path, position: Any, orientation: Any, measures: Any) -> np.ndarray | None:
    if position is None or orientation is None or measures is None or "ImagePositionPatient" not in position:
        return None
    cosines = np.array(orientation.ImageOrientationPatient, float)
    affine = np.eye(4)
    affine[:3, 0] = cosines[3:] * float(measures.PixelSpacing[0])
    affine[:3, 1] = cosines[:3] * float(measures.PixelSpacing[1])
    affine[:3, 2] = np.cross(cosines[:3], cosines[3:])
    affine[:3, 3] = np.array(position.ImagePositionPatient, float)
    return checked_affine(from_lps(affine), path)


def _add(result: np.ndarray, mask: np.ndarray, value: int) -> int:
    """Write ``value`` where ``mask``; the number of voxels that another class had taken."""
    taken = int(((result != 0) & (result != value) & mask).sum())
    result[mask] = value
    return taken


def _refuse_overlap(path: Path, voxels: int) -> None:
    if voxels:
        raise InputError(
            f"{path} has segments that overlap in {voxels} voxels, one class a voxel expected; choose one by number."
        )
