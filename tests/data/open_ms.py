"""A real four-channel MR, laid out as a case of BraTS; no part of it is in the repository."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest


def as_brats_case(real_data: Path, root: Path) -> np.ndarray:
    """Links to the images of open_ms's patient below ``root``, lesions as oedema; the lesions as the file has them."""
    folder = real_data / "open_ms" / "patient19"
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    case = root / "HGG" / "Brats17_OPENMS_19_1"
    case.mkdir(parents=True)
    for key, start in {"flair": "FLAIR", "t1": "T1_", "t1ce": "T1POST", "t2": "T2"}.items():
        (source,) = folder.glob(f"{start}*.nii.gz")
        (case / f"{case.name}_{key}.nii.gz").symlink_to(source)
    (source,) = folder.glob("GOLD*.nii.gz")
    lesions = nib.load(source)
    drawn = np.asarray(lesions.dataobj)
    nib.save(nib.Nifti1Image((drawn * 2).astype(np.uint8), lesions.affine), case / f"{case.name}_seg.nii.gz")
    return drawn
