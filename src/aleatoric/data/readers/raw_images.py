"""What a NIfTI or NRRD file holds, in the order of the file; what all raw images share.

MONAI's readers (NibabelReader, NrrdReader, PILReader, PydicomReader) stand on the same libraries, but import torch into
every worker process, go by a file's name, take an identity affine for geometry, stack incomplete series and fall back
to each other without a word; so the libraries are called directly here.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import math
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError
from .geometry import checked_affine, spacing_of

__all__ = ["DEFLATE", "RawImage", "check_size", "quietly", "read_nifti", "read_nrrd", "reading"]

_SPACES = {  # NRRD's names of anatomical spaces -> signs that turn them into RAS
    "right-anterior-superior": (1, 1, 1),
    "ras": (1, 1, 1),
    "left-anterior-superior": (-1, 1, 1),
    "las": (-1, 1, 1),
    "left-posterior-superior": (-1, -1, 1),
    "lps": (-1, -1, 1),
}
_LENGTH = {"meter": 1000.0, "micron": 0.001}  # NIfTI's units other than mm
DEFLATE = 1032  # the most that deflate can shrink anything: a header that promises more lies


class RawImage(NamedTuple):
    """One file, its axes in the file's order."""

    array: np.ndarray  # (C, a, b, c), c = 1 in 2D
    affine: np.ndarray | None  # (4, 4), index (a, b, c) -> RAS mm
    spacing: tuple[float, ...] | None  # mm along a, b, c
    kind: str
    info: dict[str, Any]  # "colour": channels are red, green, blue; "palette": values are indices of colours


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Libraries' warnings about what is usual in the field's files do not reach the terminal."""
    loggers = [logging.getLogger(name) for name in ("nibabel.global", "pydicom", "highdicom", "tifffile", "PIL")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


@contextlib.contextmanager
def reading(path: Path, kind: str) -> Iterator[None]:
    """Whatever a library raises on damaged bytes becomes one sentence."""
    try:
        with quietly():
            yield
    except InputError:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0].rstrip(".: ") or type(error).__name__
        raise InputError(
            f"{path} cannot be read as {kind} ({reason}), a complete file expected; export it again."
        ) from error


def read_nifti(path: Path) -> RawImage:
    """NIfTI-1 or -2, one file or .hdr and .img, packed or not whatever its name says.

    A fourth axis, or a fifth (NIfTI's vectors), holds channels. Where neither transform's code is set, or the affine is
    the identity, the header says nothing about geometry.
    """
    import nibabel as nib

    if path.suffix.lower() == ".img" and path.with_suffix(".hdr").exists():
        path = path.with_suffix(".hdr")
    with reading(path, "NIfTI"):
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else open(path, "rb") as file:
            head = file.read(348)
            version2 = head[4:7] in (b"n+2", b"ni2")
            if head[344:347] == b"ni1" or head[4:7] == b"ni2":
                image = (nib.Nifti2Pair if version2 else nib.Nifti1Pair).from_filename(path.with_suffix(".hdr"))
                check_size(path, image.shape, image.get_data_dtype(), path.with_suffix(".img").stat().st_size)
                array = _values(image)
            else:
                file.seek(0)
                image = (nib.Nifti2Image if version2 else nib.Nifti1Image).from_stream(file)
                check_size(path, image.shape, image.get_data_dtype(), path.stat().st_size * (DEFLATE if packed else 1))
                array = _values(image)
                while packed and file.read(1 << 20):  # to the end, where gzip's checksum is
                    pass
        colour = array.dtype.names is not None
        if colour:  # RGB24, RGBA32
            array = np.stack([array[name] for name in "RGB"], axis=-1)
        if array.ndim == 5 and array.shape[3] == 1:
            array = array[:, :, :, 0]
        if array.ndim == 2 + colour:
            array = array[:, :, None]
        if not 3 <= array.ndim <= 4:
            raise InputError(
                f"{path} has the shape {array.shape}, 2 or 3 axes and channels expected; choose one volume of it."
            )
        array = np.moveaxis(array, 3, 0) if array.ndim == 4 else array[None]
        header = image.header
        affine = np.array(image.affine, np.float64)
        affine[:3] *= _LENGTH.get(header.get_xyzt_units()[0], 1.0)
        unset = (int(header["sform_code"]), int(header["qform_code"])) == (0, 0)
        identity = not unset and np.allclose(affine, np.eye(4))
    if unset or identity:
        return RawImage(array, None, None, "NIfTI", {"colour": colour, "identity": identity})
    if array.shape[3] == 1 and not affine[:3, 2].any():  # 2D files often leave the third direction out
        affine = _with_normal(affine)
    affine = checked_affine(affine, path)
    return RawImage(array, affine, spacing_of(affine), "NIfTI", {"colour": colour})


def read_nrrd(path: Path) -> RawImage:
    """NRRD with its data attached or in a file of its own; an axis that is not of space holds channels.

    ``info["segments"]``: 3D Slicer's segments in order, (name, label value, layer or None) each.
    """
    import nrrd

    with reading(path, "NRRD"), open(path, "rb") as file:
        lines: list[str] = []
        while (line := file.readline()).strip() or not lines:  # pynrrd drops what is not ASCII, names are UTF-8
            if not line:
                break
            lines.append(line.decode("utf-8", "replace"))
        header = nrrd.read_header(lines)
        for needed in ("sizes", "type", "dimension", "encoding"):
            if needed not in header:
                raise InputError(f"{path} has no field '{needed}' in its NRRD header, one expected; export it again.")
        array = nrrd.read_data(header, file, str(path))
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
        kinds = [str(kind).lower() for kind in header.get("kinds", ["domain"] * array.ndim)]
        directions = np.array(header["space directions"], np.float64) if "space directions" in header else None
        space = str(header.get("space", "")).lower()
        channels = [
            axis
            for axis in range(array.ndim)
            if kinds[axis] not in ("domain", "space", "none", "???")
            or (directions is not None and np.isnan(directions[axis]).all())
        ]
        spatial = [axis for axis in range(array.ndim) if axis not in channels]
        if not 2 <= len(spatial) <= 3 or len(channels) > 1:
            raise InputError(
                f"{path} has {len(spatial)} axes of space and {len(channels)} others (kinds {' '.join(kinds)}), 2 or 3 "
                "and at most one of channels expected; say in 'kinds' which axis holds channels."
            )
        colour = bool(channels) and "color" in kinds[channels[0]]
        array = array.transpose(channels + spatial) if channels else array[None]
        array = array[:3] if colour else array
        array = array.reshape((*array.shape, 1)) if array.ndim == 3 else array
        info = {"colour": colour, "segments": _segments(header)}
        if directions is None or space not in _SPACES:
            if directions is not None and space.endswith("-time"):
                raise InputError(f"{path} has the space '{space}', one without time expected; choose one volume of it.")
            return RawImage(array, None, None, "NRRD", info)
        affine = np.eye(4)
        affine[:3, : len(spatial)] = directions[spatial].T
        affine[:3, 3] = header.get("space origin", np.zeros(3))
        if len(spatial) == 2:
            affine = _with_normal(affine)
        affine = checked_affine(np.diag([*_SPACES[space], 1.0]) @ affine, path)
    return RawImage(array, affine, spacing_of(affine), "NRRD", info)


def _values(image: Any) -> np.ndarray:
    """Native type where the header does not rescale, else float32."""
    dtype = image.get_data_dtype()
    if dtype.kind == "c":
        raise InputError(
            f"{image.get_filename() or 'the file'} holds complex numbers; real ones expected: export the magnitude."
        )
    if image.dataobj.slope == 1 and image.dataobj.inter == 0:
        array = np.asarray(image.dataobj)
        return array if array.dtype.names else array.astype(array.dtype.newbyteorder("="), copy=False)
    return image.get_fdata(dtype=np.float32, caching="unchanged")


def check_size(path: Path, shape: tuple[int, ...], dtype: np.dtype, available: int) -> None:
    """A damaged header may promise terabytes: refuse before memory is asked for them."""
    needed = math.prod(int(n) for n in shape) * dtype.itemsize
    if needed <= 0 or needed > available + 4096:
        raise InputError(
            f"{path} promises an array of shape {tuple(int(n) for n in shape)} ({needed} bytes) that it cannot hold, "
            "a complete file expected; export it again."
        )


def _segments(header: dict[str, Any]) -> list[tuple[str, int, int | None]]:
    numbers = sorted({int(found[1]) for key in header if (found := re.fullmatch(r"Segment(\d+)_(ID|Name)", key))})
    return [
        (
            str(header.get(f"Segment{n}_Name", header.get(f"Segment{n}_ID"))),
            int(header.get(f"Segment{n}_LabelValue", 1)),
            int(header[f"Segment{n}_Layer"]) if f"Segment{n}_Layer" in header else None,
        )
        for n in numbers
    ]


def _with_normal(affine: np.ndarray) -> np.ndarray:
    """A third direction, 1 mm along the normal of the first two."""
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    length = float(np.linalg.norm(normal))
    result = affine.copy()
    result[:3, 2] = normal / length if length > 0 else 0.0
    return result
