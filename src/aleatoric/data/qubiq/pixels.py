"""Pixels of QUBIQ: NIfTI files as plain arrays, masks of any coding, and the way from an image to a patch.

No geometry is read: the released headers have identity matrices and spacing 1, and nothing in them can be trusted.
"""

from __future__ import annotations

import gzip
import io
import os
import warnings
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..prepared.patching import centred_window, percentile_range, to_unit

__all__ = ["as_planes", "crop", "read_nifti", "resize_image", "resize_mask", "to_mask", "unit_range", "window_at"]


def read_nifti(path: str | os.PathLike[str]) -> np.ndarray:
    """The array of a NIfTI file (scaled as its header says), whatever its affine and however it is compressed.

    The whole file is decompressed first, so that gzip's checksum is looked at: a reader that stops after the last pixel
    takes many a damaged file for a sound one.

    Raises:
        InputError: no NIfTI, damaged, cut off, or not of real numbers.
    """
    import nibabel as nib

    try:
        raw = Path(path).read_bytes()
        compressed = raw[:2] == b"\x1f\x8b"
        if compressed:
            raw = gzip.decompress(raw)
        second = 540 in (int.from_bytes(raw[:4], "little"), int.from_bytes(raw[:4], "big"))
        header_type = nib.nifti2.Nifti2Header if second else nib.Nifti1Header
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # unchecked: nibabel's checks print, and refuse files for affines that do not matter here
            header = header_type.from_fileobj(io.BytesIO(raw), check=False)
        shape, dtype = tuple(int(n) for n in header.get_data_shape()), header.get_data_dtype()
        if not bytes(header["magic"]).startswith((b"n+1", b"n+2")):
            raise ValueError("it is no NIfTI")
        if not shape or min(shape) < 1 or dtype.kind not in "biuf":
            raise ValueError(f"shape {shape} of {dtype}")
        start = int(header.get_data_offset())
        size = start + int(np.prod(shape, dtype=object)) * dtype.itemsize
        # no checksum vouches for the header of an uncompressed file: its length must fit
        if start < header.sizeof_hdr or size > len(raw) or (size < len(raw) and not compressed):
            raise ValueError(f"{len(raw)} bytes, {size} with pixels from {start}")
        with np.errstate(all="ignore"):
            return np.asanyarray(nib.arrayproxy.ArrayProxy(io.BytesIO(raw), header))
    except Exception as error:  # readers raise nearly anything on damaged bytes
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".: ")
        raise InputError(
            f"{path} cannot be read ({reason}), a complete NIfTI file expected; download or export it again."
        ) from error


def as_planes(array: np.ndarray, channels: int, volume: bool) -> np.ndarray | None:
    """(C, H, W) of an image, (S, H, W) of a volume; ``None`` where the shape is neither.

    An image may have axes of length 1 anywhere; its channels are the last axis, or the first. A volume's slices lie
    along its first axis, except where only the first two axes have the same length: then along the last.
    """
    if volume:
        while array.ndim > 3 and array.shape[-1] == 1:
            array = array[..., 0]
        if array.ndim != 3:
            return None
        rows, columns, depth = array.shape
        return np.moveaxis(array, -1, 0) if rows == columns != depth else array
    array = array.squeeze()
    if channels == 1:
        return array[None] if array.ndim == 2 else None
    if array.ndim != 3 or channels not in (array.shape[0], array.shape[-1]):
        return None
    return np.moveaxis(array, -1, 0) if array.shape[-1] == channels else array


def to_mask(array: np.ndarray) -> tuple[np.ndarray, bool]:
    """Drawn pixels (bool) of a mask coded 0/1, 0/255 or in any other two values, and whether it had two only.

    A pixel counts as drawn above half of the greatest value, which in an interpolated mask is the outline.
    """
    array = np.nan_to_num(array, nan=0.0, posinf=0.0, neginf=0.0) if array.dtype.kind == "f" else array
    highest = array.max()
    if highest <= 0:
        return np.zeros(array.shape, bool), bool((array == 0).all())
    return array > highest / 2, bool(((array == 0) | (array == highest)).all())


def unit_range(image: np.ndarray) -> np.ndarray:
    """MR (H, W) to [0, 1] float32: its 0.5th and 99.5th percentile become 0 and 1, what lies beyond is clipped."""
    image = image.astype(np.float64)
    return to_unit(image, *percentile_range(image))


def resize_image(image: np.ndarray, size: int) -> np.ndarray:
    """(H, W) to (size, size) float32, linear, blurred before it shrinks; the axes are scaled independently."""
    if image.shape == (size, size):
        return image.astype(np.float32)
    from skimage.transform import resize

    resized: np.ndarray = resize(
        image.astype(np.float64), (size, size), order=1, mode="edge", anti_aliasing=True, preserve_range=True
    )
    return resized.astype(np.float32)


def resize_mask(mask: np.ndarray, size: int) -> np.ndarray:
    """(H, W) bool to (size, size) bool: pixels of which more than half is drawn.

    Where exactly half is drawn (common at factors 2 and 4), the original pixel next to the centre decides. So areas
    stay right on average, which neither rounding up nor rounding down would give; and a mask inside another one stays
    inside. What is thinner than half a new pixel is lost.
    """
    if mask.shape == (size, size):
        return mask.astype(bool)
    from skimage.transform import resize_local_mean

    drawn = resize_local_mean(mask.astype(np.float64), (size, size), grid_mode=True, preserve_range=True)
    rows, columns = (((np.arange(size) + 0.5) * n / size).astype(int) for n in mask.shape)
    nearest = mask[rows[:, None], columns]
    return np.where(np.isclose(drawn, 0.5, atol=1e-9), nearest, drawn > 0.5).astype(bool)


def window_at(masks: np.ndarray, size: int) -> tuple[int, int]:
    """Row and column of the upper left corner of the patch, as for LIDC: the mean of the centroids of the masks
    that are not empty lies on pixel (size // 2, size // 2); the window is shifted back inside the image.

    Where the image is smaller than the window, it lies in its middle and the corner is negative.

    Args:
        masks: (R, H, W) bool; all empty: the middle of the image.
    """
    top, left = centred_window(masks, (size, size))
    return top, left


def crop(plane: np.ndarray, corner: tuple[int, int], size: int, fill: float) -> np.ndarray:
    """The (size, size) window of (H, W) at ``corner``; where the plane is smaller, ``fill`` is around it."""
    top, left = corner
    inner = plane[max(top, 0) : top + size, max(left, 0) : left + size]
    if inner.shape == (size, size):
        return inner
    patch = np.full((size, size), fill, plane.dtype)
    top, left = max(-top, 0), max(-left, 0)
    patch[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
    return patch
