"""A simulated QUBIQ tree, with everything that is irregular in the released ones.

    write(Path("trees"), cases=3)                            # all nine tasks as the 2021 release lays them out
    write(root, cases=4, datasets=["prostate"], absent=["training/2/task01_seg03"], suffix=".nii")

What it writes is SIMULATED: no image of the challenge is in it, the outlines are random curves. Each NIfTI header says
so in its ``descrip``. The shapes, value ranges, file names and folders are those of the released data.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

NOTE = b"SIMULATED, no patient"


class _Dataset(NamedTuple):
    tasks: int
    raters: int
    sizes: tuple[tuple[int, int], ...]  # taken in turn
    modality: str
    slices: tuple[int, ...] = ()  # of a volume
    channels: int = 1
    singleton: bool = False  # (H, W, 1)
    level: bool = True  # has a folder Training / Validation


DATASETS: dict[str, _Dataset] = {
    "brain-growth": _Dataset(1, 7, ((256, 256),), "MR"),
    "brain-tumor": _Dataset(3, 3, ((240, 240),), "MR", channels=4),
    "kidney": _Dataset(1, 3, ((497, 497), (496, 497)), "CT"),
    "prostate": _Dataset(2, 6, ((640, 640), (960, 960), (320, 320)), "MR", singleton=True),
    "pancreas": _Dataset(1, 2, ((512, 512),), "CT", slices=(40, 53, 36), level=False),
    "pancreatic-lesion": _Dataset(1, 2, ((512, 512),), "CT", slices=(36, 44), level=False),
}
RELEASES = {
    "2021": ("training_data_v3_QC", "validation_data_qubiq2021_QC"),
    "2020": ("training_data_v2", "validation_data_v2"),
}


def write(
    root: Path,
    cases: int,
    seed: int = 0,
    *,
    datasets: Collection[str] | None = None,
    release: str = "2021",
    validation: int = 1,
    restart: bool = False,
    level: bool | None = None,
    size: tuple[int, int] | None = None,
    slices: int | None = None,
    channels: int | None = None,
    channels_first: bool = False,
    slices_last: bool = False,
    singleton: bool | None = None,
    prefix: str = "task",
    suffix: str = ".nii.gz",
    drawn: float = 1,
    mask_dtype: str = "uint8",
    image_dtype: str | None = None,
    affine: str = "identity",
    absent: Collection[str] = (),
    empty: Collection[str] = (),
    wider: Collection[str] = (),
    truncated: Collection[str] = (),
    strays: bool = False,
    said: Callable[[str], object] = str,
) -> Path:
    """Write ``cases`` training and ``validation`` validation cases of each data set below ``root``.

    Args:
        datasets: keys of :data:`DATASETS`; ``None``: all.
        release: ``"2021"`` or ``"2020"`` (which has no pancreas): the names of the upper folders.
        restart: count the validation cases from 1 again.
        level: a folder ``Training`` / ``Validation``; ``None``: where the release has one.
        size, slices, channels, singleton: instead of the released shapes.
        channels_first, slices_last: the axes in another order than released.
        prefix: ``"task"`` (task01_seg01), ``"case"`` (case01_seg01) or ``"both"`` (case01_task01_seg01).
        suffix: ``".nii.gz"`` or ``".nii"``.
        drawn: value of a drawn pixel.
        affine: ``"identity"``, ``"zeros"`` or ``"nan"`` (with an impossible quaternion).
        absent, empty, wider, truncated: files to leave out, to draw nothing in, to make one column wider, to cut off:
            ``"training/2/task01_seg03"`` or ``"validation/1/image"``, the number is the position from 1 on.
        strays: hidden files, macOS' copies, a preview, a majority vote, a table.
        said: called with a line for every case.

    Returns:
        ``root``.
    """
    chosen = [name for name in DATASETS if datasets is None or name in datasets]
    if release == "2020":
        chosen = [name for name in chosen if not DATASETS[name].slices]
    for name in chosen:
        kind = DATASETS[name]
        if channels is not None and kind.channels > 1:
            kind = kind._replace(channels=channels)
        if singleton is not None:
            kind = kind._replace(singleton=singleton)
        number = 0
        for part, (upper, count) in enumerate(zip(RELEASES[release], (cases, validation))):
            origin = ("Training", "Validation")[part]
            number = 0 if restart else number
            for position in range(1, count + 1):
                number += 1
                folder = root / upper / name
                if kind.level if level is None else level:
                    folder /= origin
                # two scans of a patient in turn: case1-1, case1-2, case2-1 ...
                case = f"case{(number + 1) // 2}-{2 - number % 2}" if kind.slices else f"case{number:02d}"
                folder /= case
                folder.mkdir(parents=True, exist_ok=True)
                rng = np.random.default_rng([seed, list(DATASETS).index(name), part, position])
                shape = size or kind.sizes[position % len(kind.sizes)]
                depth = (slices or kind.slices[position % len(kind.slices)]) if kind.slices else 0
                image, masks = _case(rng, kind, shape, depth)
                files = {"image": image.astype(image_dtype or image.dtype)}
                for (task, rater), mask in masks.items():
                    key = f"task{task:02d}_seg{rater:02d}"
                    files[key] = (mask * drawn).astype(mask_dtype)
                for key, array in files.items():
                    place = f"{origin.lower()}/{position}/{key}"
                    if place in absent:
                        continue
                    if place in empty:
                        array = np.zeros_like(array)
                    if place in wider:
                        axis = -2 if array.ndim == 3 and kind.singleton else -1
                        array = np.concatenate([array, array.take([-1], axis)], axis)
                    if channels_first and key == "image" and kind.channels > 1:
                        array = np.moveaxis(array, -1, 0)
                    if slices_last and kind.slices:
                        array = np.moveaxis(array, 0, -1)
                    data = nifti_bytes(array, affine)
                    data = gzip.compress(data, mtime=0) if suffix.endswith("gz") else data
                    data = data[: len(data) * 2 // 3] if place in truncated else data
                    (folder / f"{_named(key, case, prefix)}{suffix}").write_bytes(data)
                if strays:
                    _strays(folder, suffix)
                said(f"{name}: {origin.lower()} {position} of {count}")
    return root


def nifti_bytes(array: np.ndarray, affine: str = "identity") -> bytes:
    """An uncompressed NIfTI-1 file with a header of no use: spacing 1 and no orientation, or worse."""
    import nibabel as nib

    image = nib.Nifti1Image(array, np.eye(4), dtype=array.dtype)
    header = image.header
    header["descrip"], header["vox_offset"] = NOTE, 352
    if affine != "identity":
        value = np.nan if affine == "nan" else 0.0
        for key in ("srow_x", "srow_y", "srow_z"):
            header[key] = value
        header["quatern_b"], header["quatern_c"], header["quatern_d"] = (9.0, 9.0, 9.0) if affine == "nan" else (0,) * 3
        header["pixdim"][1:4] = value
        header["sform_code"], header["qform_code"] = (0, 1) if affine == "nan" else (1, 0)
    # by hand: nibabel computes the affine of a header anew
    return header.binaryblock + bytes(4) + array.tobytes(order="F")


def _named(key: str, case: str, prefix: str) -> str:
    if key == "image" or prefix == "task":
        return key
    return f"{case}_{key.split('_')[1]}" if prefix == "case" else f"{case}_{key}"


def _strays(folder: Path, suffix: str) -> None:
    (folder / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    for file in [path for path in folder.iterdir() if not path.name.startswith(".")]:
        (folder / f"._{file.name}").write_bytes(b"\0\5\x16\7 resource fork")
    (folder / "preview.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (folder / f"task01_seg_majority{suffix}").write_bytes(b"another kind of file")
    (folder.parent / "notes.csv").write_text("simulated\n")
    fork = folder.parent / "__MACOSX" / folder.name
    fork.mkdir(parents=True, exist_ok=True)
    (fork / f"image{suffix}").write_bytes(b"\0\5\x16\7 resource fork")


def _case(
    rng: np.random.Generator, kind: _Dataset, shape: tuple[int, int], depth: int
) -> tuple[np.ndarray, dict[tuple[int, int], np.ndarray]]:
    """The image and {(task, rater): mask} in the released axis order."""
    scale = min(shape)
    centre = np.array(shape) / 2 + rng.uniform(-0.1, 0.1, 2) * scale
    masks: dict[tuple[int, int], np.ndarray] = {}
    structures = []
    for task in range(1, kind.tasks + 1):
        radius = scale * rng.uniform(0.1, 0.16) * (0.75 ** (task - 1))
        outline = rng.normal(0, 1, (2, 5)) / np.arange(2, 7) * 0.12
        structures.append((radius, outline))
        for rater in range(1, kind.raters + 1):
            own = outline + rng.normal(0, 1, (2, 5)) / np.arange(2, 7) * 0.05
            size = radius * (1 + rng.normal(0, 0.06))
            masks[task, rater] = _blob(shape, centre, size, own, depth, rng.uniform(0.28, 0.36)) > 0
    tissue = np.sum(
        [
            _edge(_blob(shape, centre, radius, outline, depth, 0.32), 1.5) * (0.6 + 0.4 * i)
            for i, (radius, outline) in enumerate(structures)
        ],
        axis=0,
    )
    body = _edge(_ellipse(shape, 0.45), 1.5)
    texture = _smooth(rng.normal(0, 1, shape), 4)
    image = np.stack([_look(kind, tissue, body, texture, c, rng) for c in range(kind.channels)], -1)
    image = image[..., 0] if kind.channels == 1 else image
    if kind.singleton:
        return image[..., None], {key: mask[..., None] for key, mask in masks.items()}
    return image, masks


def _look(
    kind: _Dataset, tissue: np.ndarray, body: np.ndarray, texture: np.ndarray, channel: int, rng: np.random.Generator
) -> np.ndarray:
    noise = rng.normal(0, 1, tissue.shape).astype(np.float32)
    if kind.modality == "CT":
        hu = -1024 + body * (1064 + 20 * texture) + 60 * tissue * body + 12 * noise * body
        return np.rint(hu).clip(-1024, 3071).astype(np.int16 if kind.slices else np.float64)
    signal = body * (300 + 60 * texture + (1 - 0.4 * channel) * 200 * tissue) + 8 * np.abs(noise)
    return signal.clip(0).astype(np.float32)


def _blob(
    shape: tuple[int, int],
    centre: np.ndarray,
    radius: float,
    outline: np.ndarray,
    depth: int,
    half: float,
) -> np.ndarray:
    """Signed distance to a wobbly outline, inside positive; of a volume (depth, H, W): wide in the middle slices."""
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    y, x = rows - centre[0], columns - centre[1]
    angle = np.arctan2(y, x)
    waves: Sequence[np.ndarray] = [
        a * np.cos(k * angle) + b * np.sin(k * angle) for k, (a, b) in enumerate(outline.T, start=2)
    ]
    border = radius * (1 + sum(waves))
    distance = np.hypot(y, x)
    if not depth:
        return np.asarray(border - distance, dtype=np.float32)
    place = (np.arange(depth) - (depth - 1) / 2) / (half * depth)
    width = np.sqrt(np.clip(1 - place**2, 0, None)) - 0.2
    return (width[:, None, None].astype(np.float32) * border - distance).astype(np.float32)


def _ellipse(shape: tuple[int, int], half: float) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    away = np.hypot((rows / (shape[0] - 1) - 0.5) / half, (columns / (shape[1] - 1) - 0.5) / half)
    return np.asarray((1 - away) * half * min(shape), dtype=np.float32)


def _edge(distance: np.ndarray, width: float) -> np.ndarray:
    return np.clip(distance / (2 * width) + 0.5, 0, 1).astype(np.float32)


def _smooth(noise: np.ndarray, sigma: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(noise, sigma)
    return np.asarray(smooth / smooth.std(), dtype=np.float32)
