"""A real four-channel MR, laid out as a case of BraTS; no part of it is in the repository."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest


def as_brats_case(real_data: Path, root: Path, step: int = 1) -> np.ndarray:
    """Images of open_ms's patient below ``root``, every ``step``-th voxel, lesions as oedema; returns the lesions."""
    folder = real_data / "open_ms" / "patient19"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    case = root / "HGG" / "Brats17_OPENMS_19_1"
    case.mkdir(parents=True)
    for key, start in {"flair": "FLAIR", "t1": "T1_", "t1ce": "T1POST", "t2": "T2", "seg": "GOLD"}.items():
        (source,) = folder.glob(f"{start}*.nii.gz")
        image = nib.load(source).slicer[::step, ::step, ::step]
        array = np.asarray(image.dataobj)
        array = (array * 2).astype(np.uint8) if key == "seg" else array
        nib.save(nib.Nifti1Image(array, image.affine), case / f"{case.name}_{key}.nii.gz")
    return array // 2
