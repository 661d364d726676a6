"""Reading DICOM series: by UID and position, never by folder or file name; every failure names the file.

Two users: the preparation of LIDC, which wants single slices, and inference, which wants a volume with its geometry.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError

__all__ = [
    "LOWEST_HU",
    "DicomVolume",
    "NotAnImage",
    "SliceHeader",
    "dicom_files",
    "group_series",
    "read_exact",
    "read_header",
    "read_headers",
    "read_slice",
    "read_volume",
    "stack_affine",
    "unique_positions",
]

LOWEST_HU = -1024  # air; what lies below is padding outside the scanner's field of view (down to -3024 in LIDC)

_TAGS = (
    "PatientID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "InstanceNumber",
    "Rows",
    "Columns",
    "PixelSpacing",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "FrameOfReferenceUID",
    "NumberOfFrames",
    "SliceLocation",
    "RescaleSlope",
    "RescaleIntercept",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
)


class NotAnImage(InputError):
    """A DICOM object of a kind that never holds an image."""


class SliceHeader(NamedTuple):
    """What one DICOM file says about itself, without its pixels. Lengths in mm, directions in DICOM's LPS."""

    path: str
    patient_id: str
    study_uid: str
    series_uid: str
    modality: str  # "CT", "DX", ...
    instance: int
    shape: tuple[int, int]  # rows, columns
    spacing: tuple[float, float] | None  # between rows, between columns; None in plain radiographs
    position: tuple[float, float, float] | None  # centre of the first pixel
    orientation: tuple[float, ...] | None  # direction of growing column (3), of growing row (3)
    frame_of_reference: str = ""  # UID of the coordinate system; images of one examination often share it
    frames: int = 1  # more in enhanced DICOM, ultrasound and segmentations
    location: float | None = None  # SliceLocation; its zero is the scanner's own
    rescale: tuple[float, float] | None = None  # slope, intercept
    stored: tuple[Any, ...] = ()  # bits allocated, bits stored, signed or not


class DicomVolume(NamedTuple):
    """A series as one array."""

    image: np.ndarray  # (rows, columns, slices) int16, HU in CT; float32 where int16 cannot hold it (PET, 16 bits)
    affine: np.ndarray  # (4, 4) float64: index (row, column, slice, 1) -> RAS mm, NIfTI's convention
    headers: list[SliceHeader]  # one per slice, in the order of the last axis


def dicom_files(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Paths of the files below ``folder`` that are DICOM or claim to be (``.dcm``), in a stable order.

    Links to folders are followed: large collections are often put together of several disks.

    Raises:
        InputError: a folder that may not be listed.
    """
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_unlisted):
        place = os.path.realpath(parent)
        if place in seen:  # a link back up, or a second way to the same place
            folders.clear()
            continue
        seen.add(place)
        folders.sort()
        for name in sorted(names):
            path = os.path.join(parent, name)
            if not name.startswith(".") and (name.lower().endswith(".dcm") or _has_preamble(path)):
                yield path


def _unlisted(error: OSError) -> None:
    raise InputError(
        f"{error.filename} cannot be listed ({error.strerror}), a readable folder expected; change its permissions."
    ) from error


def _has_preamble(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def read_header(path: str | os.PathLike[str]) -> SliceHeader:
    """The header of one file.

    Raises:
        NotAnImage: a report, a directory or another object that never holds an image.
        InputError: not DICOM, cut off within the header, or without a series UID or image size.
    """
    import pydicom

    try:
        data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
        rows, columns = data.get("Rows"), data.get("Columns")
        if not data.get("SeriesInstanceUID") or not rows or not columns:
            kind = pydicom.uid.UID(str(data.file_meta.get("MediaStorageSOPClassUID", "")))
            if kind.type == "SOP Class" and "Image Storage" not in kind.name:
                raise NotAnImage(
                    f"{path} is a DICOM object without an image ({kind.name}), an image expected; leave it out."
                )
            raise InputError(f"{path} lacks its series UID or image size, a DICOM image expected; download it again.")
        return SliceHeader(
            str(path),
            str(data.get("PatientID", "")).strip(),
            str(data.get("StudyInstanceUID", "")).strip(),
            str(data.SeriesInstanceUID).strip(),
            str(data.get("Modality", "")),
            int(data.get("InstanceNumber") or 0),
            (int(rows), int(columns)),
            _floats(data.get("PixelSpacing"), 2),
            _floats(data.get("ImagePositionPatient"), 3),
            _floats(data.get("ImageOrientationPatient"), 6),
            str(data.get("FrameOfReferenceUID") or "").strip(),
            int(data.get("NumberOfFrames") or 1),
            location=None if data.get("SliceLocation") is None else float(data.SliceLocation),
            rescale=_floats((data.get("RescaleSlope", 1), data.get("RescaleIntercept", 0)), 2),
            stored=tuple(data.get(tag) for tag in ("BitsAllocated", "BitsStored", "PixelRepresentation")),
        )
    except InputError:
        raise
    except Exception as error:  # pydicom raises nearly anything on damaged bytes
        raise InputError(
            f"{path} cannot be read as DICOM ({_reason(error)}), a complete file expected; download it again."
        ) from error


def read_headers(paths: Iterable[str]) -> tuple[list[SliceHeader], list[str]]:
    """(headers, problems): a file that cannot be read becomes a sentence among the problems, not the end.

    What exports put beside the images (DICOMDIR, reports, contours) is passed over.
    """
    headers, problems = [], []
    for path in paths:
        try:
            headers.append(read_header(path))
        except NotAnImage:
            continue
        except InputError as error:
            problems.append(str(error))
    return headers, problems


def group_series(headers: Iterable[SliceHeader]) -> dict[str, list[SliceHeader]]:
    """Series UID -> its headers that have a place in space; radiographs and scouts without one are left out."""
    series: dict[str, list[SliceHeader]] = {}
    for header in headers:
        if header.position is not None:
            series.setdefault(header.series_uid, []).append(header)
    return series


def unique_positions(headers: Iterable[SliceHeader], tolerance: float = 1e-3) -> list[list[SliceHeader]]:
    """Slices by ascending position along the normal; each a list of the files that claim it, best first.

    Duplicates occur in LIDC. The lower InstanceNumber is the better one, as in pylidc.
    """
    placed = sorted(((_offset(header), header) for header in headers), key=lambda pair: pair[0])
    groups: list[list[SliceHeader]] = []
    last = -np.inf
    for offset, header in placed:
        if offset - last > tolerance:
            groups.append([])
            last = offset
        groups[-1].append(header)
    return [sorted(group, key=lambda header: (header.instance, header.path)) for group in groups]


def read_slice(path: str | os.PathLike[str], lowest: int | None = LOWEST_HU) -> np.ndarray:
    """(rows, columns) int16: the pixels after RescaleSlope and RescaleIntercept (HU in CT), clipped from below.

    Raises:
        InputError: the pixels are cut off, compressed in a way that no installed decoder knows, or not one plane.
    """
    pixels = _rescaled(path)
    limits = np.iinfo(np.int16)
    low = limits.min if lowest is None else lowest
    return np.clip(np.rint(pixels), low, limits.max).astype(np.int16)


def read_exact(path: str | os.PathLike[str]) -> np.ndarray:
    """(rows, columns): the pixels after RescaleSlope and RescaleIntercept, int16 if it holds them, else float32.

    Raises:
        InputError: as :func:`read_slice`.
    """
    pixels = _rescaled(path)
    limits = np.iinfo(np.int16)
    fits = pixels.min() >= limits.min and pixels.max() <= limits.max and not np.mod(pixels, 1).any()
    return pixels.astype(np.int16 if fits else np.float32)


def _rescaled(path: str | os.PathLike[str]) -> np.ndarray:
    import pydicom

    try:
        data = pydicom.dcmread(path)
        frames, samples = int(data.get("NumberOfFrames") or 1), int(data.get("SamplesPerPixel") or 1)
        if frames > 1:
            raise _multi_frame(path, frames)
        if samples > 1:
            raise InputError(f"{path} is a DICOM picture in colour, a grey one expected; export it as PNG.")
        pixels = data.pixel_array.astype(np.float64)
        slope, intercept = float(data.get("RescaleSlope", 1)), float(data.get("RescaleIntercept", 0))
    except InputError:
        raise
    except Exception as error:  # as above: any kind, one meaning
        raise InputError(
            f"the pixels of {path} cannot be read ({_reason(error)}), a complete DICOM slice expected; "
            "download it again."
        ) from error
    if pixels.ndim != 2:
        raise InputError(
            f"{path} holds an array of shape {pixels.shape}, one plane expected; convert it to single slices."
        )
    return pixels * slope + intercept


def _multi_frame(path: str | os.PathLike[str], frames: int) -> InputError:
    return InputError(
        f"{path} holds {frames} frames (enhanced or multi-frame DICOM), one slice a file expected; "
        "convert it to NIfTI (dcm2niix) or to single slices."
    )


def read_volume(folder: str | os.PathLike[str], series_uid: str | None = None, allow_gaps: bool = False) -> DicomVolume:
    """One DICOM series below ``folder`` as a volume, slices along their normal in ascending order.

    Args:
        series_uid: which series, where the folder holds several.
        allow_gaps: accept missing slices; the affine then has the usual distance, so places beyond a gap are wrong.

    Raises:
        InputError: no folder, no series, several series, a file that cannot be read, slices of different size or
            orientation, or slices that are not equally spaced.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder, a folder with a DICOM series expected; correct the path.")
    headers, problems = read_headers(dicom_files(folder))
    if problems:
        raise InputError(problems[0])
    series = group_series(headers)
    if series_uid is not None:
        series = {uid: found for uid, found in series.items() if uid == series_uid}
    if not series:
        for header in headers:
            if header.frames > 1 and header.modality != "SEG":
                raise _multi_frame(header.path, header.frames)
        wanted = "a DICOM series" if series_uid is None else f"the series {series_uid}"
        raise InputError(
            f"{folder} holds {len(headers)} DICOM images, but not {wanted} with positions; correct the path."
        )
    if len(series) > 1:
        listing = ", ".join(f"{uid} ({len(found)} images)" for uid, found in sorted(series.items()))
        raise InputError(f"{folder} holds {len(series)} series, one expected; choose one of {listing}.")
    chosen = [group[0] for group in unique_positions(next(iter(series.values())))]
    affine = stack_affine(folder, chosen, allow_gaps)
    read = read_slice if chosen[0].modality == "CT" else read_exact
    return DicomVolume(np.stack([read(header.path) for header in chosen], axis=-1), affine, chosen)


def stack_affine(folder: str | os.PathLike[str], headers: list[SliceHeader], allow_gaps: bool = False) -> np.ndarray:
    """(4, 4), index (row, column, slice, 1) -> RAS mm, of slices in ascending order; a single one is 1 mm thick.

    Raises:
        InputError: as :func:`read_volume`, which names ``folder``.
    """
    first = headers[0]
    if first.spacing is None or first.orientation is None or first.position is None:
        raise InputError(f"{first.path} lacks pixel spacing or orientation, both expected; export the series again.")
    for header in headers:
        same = header.shape == first.shape and header.spacing is not None and header.orientation is not None
        if not same or not np.allclose(
            (*header.spacing, *header.orientation),  # type: ignore[misc]
            (*first.spacing, *first.orientation),
            atol=1e-3,
        ):
            raise InputError(
                f"{header.path} differs from {first.path} in size, spacing or orientation, one geometry expected; "
                "choose a single series."
            )
    offsets = np.array([_offset(header) for header in headers])
    distances = np.diff(offsets)
    usual = float(np.median(distances)) if len(distances) else 1.0
    wrong = np.flatnonzero(np.abs(distances - usual) > 0.1 * usual)
    if len(wrong) and not allow_gaps:
        k = int(wrong[0])
        raise InputError(
            f"{folder} has slices {distances[k]:.3g} mm apart after {headers[k].path}, {usual:.3g} mm expected "
            "as elsewhere; complete the series."
        )
    right, down = np.array(first.orientation[:3]), np.array(first.orientation[3:])
    affine = np.eye(4)
    affine[:3, 0] = down * first.spacing[0]
    affine[:3, 1] = right * first.spacing[1]
    affine[:3, 2] = np.cross(right, down) * usual
    if len(headers) > 1:  # positions, not the normal: with a tilted gantry they also drift within the plane
        span = np.subtract(headers[-1].position, first.position)  # type: ignore[arg-type]
        affine[:3, 2] = span / (offsets[-1] - offsets[0]) * usual
    affine[:3, 3] = first.position
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS -> RAS


def _offset(header: SliceHeader) -> float:
    """Distance along the slices' normal; without an orientation, z."""
    assert header.position is not None  # group_series leaves such headers out
    if header.orientation is None:
        return header.position[2]
    normal = np.cross(header.orientation[:3], header.orientation[3:])
    return float(np.dot(normal, header.position))


def _floats(value: Any, count: int) -> Any:
    """``count`` finite floats, or None where the tag is absent or empty."""
    if value is None or len(value) != count:
        return None
    numbers = tuple(float(v) for v in value)
    return numbers if np.isfinite(numbers).all() else None


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
