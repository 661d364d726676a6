"""Images to run a trained bundle on: NIfTI files or a DICOM series."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError

__all__ = ["find_images"]

_SUFFIXES = (".nii", ".nii.gz")


def find_images(path: str | Path) -> list[str]:
    """The images at ``path``, sorted: a NIfTI file, a folder of NIfTI files, or a folder with a DICOM series.

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
    return nifti or [str(folder) for folder in _series_folders(root)]


def _series_folders(root: Path) -> list[Path]:
    # a folder as it comes from TCIA may lie some levels above its series
    folders = sorted({p.parent for p in root.rglob("*") if p.is_file() and _is_dicom(p)})
    if not folders:
        raise InputError(f"{root} holds neither NIfTI files nor a DICOM series: give a folder that does.")
    return folders


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"
