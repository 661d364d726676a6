"""A simulated BraTS tree, with everything that is irregular in the released ones.

    write(Path("trees"), 10)                                   # HGG and LGG, as the 2017 release lays them out
    write(root, 4, release="2023", absent=["2/seg"], wider=["3"], truncated=["1/t2"])

What it writes is SIMULATED: the brains are ellipsoids, the tumours random nested blobs. Each NIfTI header says so in
its ``descrip``. File names, folders, value ranges and geometry are those of the released data; volumes are smaller.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aleatoric.data.phantom.brain import simulate_brain

NOTE = b"SIMULATED, no patient"
_2023 = {"flair": "t2f", "t1": "t1n", "t1ce": "t1c", "t2": "t2w"}
_SITES = ("CBICA", "TCIA", "2013")


class _Named(NamedTuple):
    grade: str
    folder: str
    prefix: str


def write(
    root: Path,
    cases: int,
    seed: int = 0,
    *,
    size: tuple[int, int, int] = (48, 48, 40),
    release: str = "2017",
    grades: bool = True,
    flat: bool = False,
    suffix: str = ".nii.gz",
    dtype: str = "int16",
    axes: str = "LPS",
    enhancing: int | None = None,
    absent: Collection[str] = (),
    wider: Collection[str] = (),
    truncated: Collection[str] = (),
    values: Mapping[str, float] | None = None,
    stray_segmentation: int | None = None,
    second_scan: bool = False,
    strays: bool = False,
    said: Callable[[str], object] = str,
) -> Path:
    """Write ``cases`` cases below ``root``; every third is of low grade, and those have no enhancing tumour.

    Args:
        size: voxels towards left, posterior, superior.
        release: ``"2017"``, ``"2020"`` or ``"2023"``: names of cases and files.
        grades: folders HGG and LGG.
        flat: all files in one folder.
        suffix: ``".nii.gz"`` or ``".nii"``.
        dtype: of the images.
        axes: what the files' axes point to; ``"LPS"`` as released.
        enhancing: its label; ``None``: the release's.
        absent: files or cases to leave out, ``"2/seg"``, ``"3/t1ce"``: the number is the position from 1 on.
        wider: cases of one more voxel, ``"2"``, or files, ``"2/seg"``.
        truncated: files to cut off.
        values: file -> value that one of its voxels inside the brain gets, ``{"1/seg": 3, "2/t1": float("nan")}``.
        stray_segmentation: the case whose segmentation has a name of its own, as one of 2020's has.
        second_scan: the last case is another scan of the first one's patient (2017 and 2023).
        strays: hidden files, macOS' copies, a table, a preview.
        said: called with a line for every case.

    Returns:
        ``root``.
    """
    values = values or {}
    rim = enhancing if enhancing is not None else 3 if release == "2023" else 4
    for position in range(1, cases + 1):
        rng = np.random.default_rng([seed, position])
        low = position % 3 == 0
        again = second_scan and position == cases
        name = _named(release, 1 if again else position, low, 2 if again else 1)
        own = (size[0] + 1, *size[1:]) if str(position) in wider else size
        files = simulate_brain(rng, own, low, rim)
        folder = root / name.grade if grades and release == "2017" else root
        folder = folder if flat else folder / name.folder
        folder.mkdir(parents=True, exist_ok=True)
        for key, array in files.items():
            place = f"{position}/{key}"
            if place in absent:
                continue
            array = array.astype(dtype if key != "seg" else "uint8" if release == "2023" else "int16")
            if place in wider:
                array = np.concatenate([array, array[-1:]])
            if place in values:
                array = array.astype("float32") if key != "seg" or values[place] % 1 else array
                array[tuple(n // 2 for n in own)] = values[place]
            data = nifti_bytes(array, axes)
            data = gzip.compress(data, 1, mtime=0) if suffix.endswith("gz") else data
            data = data[: len(data) * 2 // 3] if place in truncated else data
            file = (
                f"{name.prefix}{'-' if release == '2023' else '_'}{_2023.get(key, key) if release == '2023' else key}"
            )
            if key == "seg" and stray_segmentation == position:
                file = "W39_1998.09.19_Segm"
            (folder / f"{file}{suffix}").write_bytes(data)
        if strays:
            _strays(folder, suffix)
        said(f"case {position} of {cases}")
    return root


def nifti_bytes(array: np.ndarray, axes: str = "LPS") -> bytes:
    """An uncompressed NIfTI-1 file of 1 mm voxels; the array comes along left, posterior, superior."""
    import nibabel as nib
    from nibabel import orientations as nio

    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[1, 3] = array.shape[1] - 1  # BraTS: the origin is the first voxel's x and z, the last one's y
    image = nib.Nifti1Image(array, affine)
    image = image.as_reoriented(nio.ornt_transform(nio.io_orientation(affine), nio.axcodes2ornt(axes)))
    image.header["descrip"] = NOTE
    return image.to_bytes()


def _named(release: str, position: int, low: bool, scan: int) -> _Named:
    if release == "2023":
        name = f"BraTS-GLI-{position:05d}-{scan - 1:03d}"
    elif release == "2020":
        name = f"BraTS20_Training_{position:03d}"
    else:
        name = f"Brats17_{_SITES[position % len(_SITES)]}_{100 + position}_{scan}"
    return _Named("LGG" if low else "HGG", name, name)


def _strays(folder: Path, suffix: str) -> None:
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    for file in [path for path in folder.iterdir() if not path.name.startswith(".")]:
        (folder / f"._{file.name}").write_bytes(b"\0\5\x16\7 resource fork")
    (folder / "preview.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder.parent / "survival_data.csv").write_text("simulated\n")
    fork = folder.parent / "__MACOSX" / folder.name
    fork.mkdir(parents=True, exist_ok=True)
    (fork / f"{folder.name}_flair{suffix}").write_bytes(b"\0\5\x16\7 resource fork")
