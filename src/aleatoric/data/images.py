"""Images to run a trained bundle on: NIfTI files or DICOM series."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.data import ImageReader
from monai.transforms import LoadImaged
from monai.utils import ImageMetaKey, ensure_tuple
from monai.utils.enums import MetaKeys, SpaceKeys

from ..errors import InputError, input_error_in
from .readers.dicom import DicomVolume, dicom_files, read_volume

__all__ = ["DicomSeriesReader", "LoadScand", "find_images", "output_name"]

_SUFFIXES = (".nii", ".nii.gz")
_COMMON_NAME = "common_name"  # in the metadata of an image that was read from several files


def find_images(path: str | Path) -> list[str]:
    """The images at ``path``, sorted: a NIfTI file, the NIfTI files of a folder, or each folder that holds DICOM.

    Raises:
        InputError: nothing there that could be read.
    """
    root = Path(path)
    if root.is_file():
        if not root.name.endswith(_SUFFIXES):
            raise InputError(f"{root} is no NIfTI file: give a .nii or .nii.gz file, or the folder of a DICOM series.")
        return [str(root)]
    if not root.is_dir():
        raise InputError(f"there is no {root}: give dataset_dir, a NIfTI file, a folder of them or a DICOM series.")
    nifti = sorted(str(p) for p in root.iterdir() if p.name.endswith(_SUFFIXES))
    found = nifti or sorted({str(Path(file).parent) for file in dicom_files(root)})
    if not found:
        raise InputError(f"{root} holds neither NIfTI files nor a DICOM series: give a folder that does.")
    return found


class DicomSeriesReader(ImageReader):
    """MONAI image reader for a folder with one DICOM series: slices by position, clear errors, HU from -1024.

    The array is (row, column, slice); MONAI's own ``PydicomReader`` stacks a series with missing slices as if it were
    complete.
    """

    def verify_suffix(self, filename: Sequence[Any] | Any) -> bool:
        """True for a folder."""
        return Path(ensure_tuple(filename)[0]).is_dir()

    def read(self, data: Sequence[Any] | Any, **kwargs: Any) -> DicomVolume:
        """Read the series. Raises InputError."""
        return read_volume(ensure_tuple(data)[0])

    def get_data(self, img: DicomVolume) -> tuple[np.ndarray, dict[str, Any]]:  # type: ignore[override]
        """Array (rows, columns, slices) and MONAI's metadata."""
        meta = {
            MetaKeys.AFFINE: img.affine,
            MetaKeys.ORIGINAL_AFFINE: img.affine.copy(),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.SPATIAL_SHAPE: np.asarray(img.image.shape),
            MetaKeys.ORIGINAL_CHANNEL_DIM: float("nan"),
            "patient_id": img.headers[0].patient_id,
            "series_uid": img.headers[0].series_uid,
        }
        return img.image.astype(np.float32), meta


class LoadScand(LoadImaged):
    """MONAI's ``LoadImaged`` with :class:`DicomSeriesReader` for folders.

    A reader that is given to ``LoadImaged`` by argument falls back to MONAI's others when it refuses a series; one that
    is registered does not, and its sentence reaches the user.

    Args:
        keys: paths; a folder is one DICOM series. A list of files becomes one image, a channel each, named after what
            the files' names have in common (``Brats17_TCIA_101_1`` of ``Brats17_TCIA_101_1_flair.nii.gz`` ...).
        **kwargs: as MONAI's, without ``reader``.

    Raises:
        InputError: a file that no reader can read; a series that is damaged or incomplete.
    """

    def __init__(self, keys: KeysCollection, **kwargs: Any) -> None:
        super().__init__(keys, **kwargs)
        self.register(DicomSeriesReader())

    def __call__(self, data: Any, reader: ImageReader | None = None) -> dict[Hashable, Any]:
        """Load. MONAI's sentence on a broken file is a page on all its readers."""
        try:
            loaded = super().__call__(data, reader)
            for key in self.key_iterator(data):
                if not isinstance(data[key], str | Path) and len(data[key]) > 1:
                    loaded[key].meta[_COMMON_NAME] = _common_name(data[key])
            return loaded
        except Exception as error:  # readers raise nearly anything on damaged bytes
            if input_error_in(error) is not None:
                raise
            paths = ", ".join(str(self._broken(data[key], reader)) for key in self.key_iterator(data))
            reason = (str(error.__cause__ or error).strip().splitlines() or [type(error).__name__])[0].rstrip(".: ")
            raise InputError(
                f"{paths} cannot be read ({reason}), a complete NIfTI file or DICOM series expected: export it again."
            ) from error

    def _broken(self, paths: Any, reader: ImageReader | None) -> Any:
        """Of several files the first that cannot be read; all of them if each can."""
        for path in ensure_tuple(paths):
            try:
                self._loader(path, reader)
            except Exception:
                return path
        return paths


def output_name(meta: Mapping[str, Any] | None, saver: Any) -> dict[str, Any]:
    """``SaveImage``'s ``output_name_formatter``: the file's name, or what the names of several have in common; of DICOM
    the patient and the end of the series' UID.

    A patient may have several series, whose results must not replace each other, and what an ID may hold (a slash, say)
    is not all fit for a file's name.
    """
    meta = meta or {}
    source = Path(str(meta.get(ImageMetaKey.FILENAME_OR_OBJ, "image")))
    name = source.name
    for suffix in reversed(_SUFFIXES):
        name = name.removesuffix(suffix)
    if meta.get(_COMMON_NAME):
        name = str(meta[_COMMON_NAME])
    if meta.get("series_uid"):
        name = f"{meta.get('patient_id') or name}_{str(meta['series_uid'])[-5:]}"
    return {"subject": re.sub(r"[^\w-]", "_", name), "idx": None}


def _common_name(paths: Sequence[str | Path]) -> str:
    """What the files' names begin with, up to the last sign that separates words."""
    names = [Path(path).name for path in paths]
    common = "".join(letters[0] for letters in takewhile(lambda letters: len(set(letters)) == 1, zip(*names)))
    return re.sub(r"[_-][^_-]*$", "", common) or names[0]
