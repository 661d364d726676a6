"""What a PNG, TIFF or JPEG file holds, to the bit: Pillow reads PNG and JPEG, tifffile reads TIFF."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .raw_images import DEFLATE, RawImage, check_size, reading

__all__ = ["read_picture"]


def read_picture(path: Path, kind: str) -> RawImage:
    """PNG, TIFF or JPEG, (row, column[, page]), without alpha; indices where ``info["palette"]`` has their colours."""
    with reading(path, kind):
        array, info = _tiff(path) if kind == "TIFF" else _pillow(path, kind)
        return RawImage(array, None, None, kind, {"colour": False, **info})


def _pillow(path: Path, kind: str) -> tuple[np.ndarray, dict[str, Any]]:
    from PIL import Image

    with open(path, "rb") as file:
        head = file.read(26)
    depth, colours = (head[24], head[25]) if kind == "PNG" else (8, 0)
    if depth == 16 and colours != 0:
        raise InputError(
            f"{path} has 16 bits per channel with colour or transparency, which Pillow would cut to 8; save it as TIFF."
        )
    with Image.open(path, formats=[kind]) as picture:
        if getattr(picture, "n_frames", 1) > 1 and kind == "PNG":
            raise InputError(f"{path} is an animation, one picture expected; save its frames one by one.")
        picture.load()
        info: dict[str, Any] = {}
        turned = picture.getexif().get(0x0112, 1)
        if turned != 1:
            info["exif_orientation"] = turned
        if picture.mode == "CMYK":
            picture = picture.convert("RGB")
        if picture.mode == "P":
            palette = np.array(picture.getpalette() or [], np.uint8).reshape(-1, 3)
            info["palette"] = palette
        array = np.array(picture)
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if depth in (2, 4) and colours == 0:  # Pillow stretches these to 0..255
        array //= 255 // (2**depth - 1)
    return _channels(array, info, picture.mode.endswith("A"))


def _tiff(path: Path) -> tuple[np.ndarray, dict[str, Any]]:
    import tifffile

    with _damage_reported(), tifffile.TiffFile(path) as file:
        if len(file.series) != 1:
            sizes = ", ".join(str(series.shape) for series in file.series[:4])
            raise InputError(f"{path} holds {len(file.series)} pictures of sizes {sizes}, one size expected; split it.")
        series, page = file.series[0], file.pages[0].aspage()
        axes, colours, alpha = series.axes, page.photometric.name, bool(page.extrasamples)
        check_size(path, series.shape, series.dtype, path.stat().st_size * DEFLATE)
        try:
            array, as_stored = series.asarray(), True
        except ValueError as error:
            if "imagecodecs" not in str(error):
                raise
            array, as_stored = _decoded_by_pillow(path, series.shape, series.dtype), False  # LZW, JPEG and the like
        colormap = page.colormap
    info: dict[str, Any] = {}
    if colours not in ("MINISWHITE", "MINISBLACK", "PALETTE", "RGB") and as_stored:
        raise InputError(f"{path} has the colours {colours}, grey or RGB expected; save it as RGB.")
    if colours == "MINISWHITE" and as_stored and array.dtype.kind in "bu":
        array = ~array  # 0 is white: turned round, as Pillow and every viewer do
    if colours == "PALETTE" and colormap is not None:
        info["palette"] = (colormap.T >> 8).astype(np.uint8)
    array = array.astype(np.uint8 if array.dtype == bool else array.dtype.newbyteorder("="), copy=False)
    plane = [axes.index(axis) for axis in "YX" if axis in axes]
    samples = [k for k, axis in enumerate(axes) if axis in "SC" and array.shape[k] > 1]
    pages = [k for k, axis in enumerate(axes) if axis not in "YXSC" and array.shape[k] > 1]
    if len(plane) < 2 or len(samples) > 1 or len(pages) > 1:
        raise InputError(f"{path} has the axes {axes}, one picture or one stack of them expected; split it.")
    singles = [k for k in range(array.ndim) if k not in (*plane, *samples, *pages)]
    shape = [array.shape[k] for k in (*samples, *plane, *pages)]
    array = array.transpose(*samples, *plane, *pages, *singles).reshape(shape)
    array = array if samples else array[None]
    array = array if pages else array[..., None]
    if samples and axes[samples[0]] == "S":
        return _without_alpha(array, info, alpha)
    return np.ascontiguousarray(array), info


@contextlib.contextmanager
def _damage_reported() -> Iterator[None]:
    """tifffile drops the pages that a cut-off file lacks, and only logs it."""
    found: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("tifffile")
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
    if found:
        raise ValueError(found[0])


def _decoded_by_pillow(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    from PIL import Image, ImageSequence

    with Image.open(path, formats=["TIFF"]) as picture:
        array = np.stack([np.array(frame) for frame in ImageSequence.Iterator(picture)])
    if array.dtype != dtype or array.squeeze().shape != tuple(n for n in shape if n != 1):
        raise InputError(
            f"{path} is packed in a way that cannot be read without loss here; save it without compression."
        )
    return array.reshape(shape)


def _channels(array: np.ndarray, info: dict[str, Any], alpha: bool) -> tuple[np.ndarray, dict[str, Any]]:
    """(rows, columns[, samples]) -> (C, rows, columns, 1)."""
    if array.ndim == 2:
        return array[None, :, :, None], info
    return _without_alpha(np.moveaxis(array, -1, 0)[..., None], info, alpha)


def _without_alpha(array: np.ndarray, info: dict[str, Any], alpha: bool) -> tuple[np.ndarray, dict[str, Any]]:
    if alpha:
        info["transparent"] = bool((array[-1] != array[-1].max()).any())
        array = array[:-1]
    return np.ascontiguousarray(array), {**info, "colour": len(array) == 3}
