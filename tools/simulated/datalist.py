"""A simulated user's folder: images of one made-up lesion each, three raters' masks, LIST.json.

Nothing here is a picture of anybody: a textured ellipse on black with a lumpy bright lesion, whose border each
rater follows in a way of their own. File names and LIST.json say "simulated".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RATERS = ("Anna", "Ben", "Cem")
DEFECTS = (
    "shifted mask",
    "flipped mask",
    "transposed mask",
    "mask of another image",
    "mask on another lesion",
    "mask outside the content",
    "copied mask",
    "image twice",
    "empty masks",
    "constant image",
    "mask of another size",
    "missing mask",
    "damaged mask",
    "damaged image",
)
_SPACING = (0.7, 0.7, 2.5)  # mm: rows, columns, slices


def write(
    root: Path,
    cases: int,
    seed: int = 0,
    *,
    volumes: bool = False,
    raters: Sequence[str] = RATERS,
    defects: Sequence[str] = (),
    patients: int | None = None,
    size: int = 128,
    said: Callable[[str], object] = str,
) -> Path:
    """Write ``cases`` images, their masks and ``LIST.json``; returns its path.

    Args:
        root: folder to fill.
        cases: number of images; every other one is wider than high, but for the spoilt ones.
        seed: of everything.
        volumes: NIfTI volumes of 12 slices instead of PNG pictures.
        raters: their names. In every fifth case one of them draws nothing, in every seventh one was not asked.
        defects: what to spoil, of :data:`DEFECTS`: one case each, from case 1 on; ``PLANTED.json`` says which.
        patients: number of patients; ``None``: one for two images.
        size: rows of an image.
        said: called with a line for every case.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    planted: dict[str, str] = {}
    entries = []
    for number in range(cases):
        name = f"simulated_{number:03d}"
        before = f"simulated_{number - 1:03d}"
        defect = defects[number - 1] if 0 < number <= len(defects) else None
        wide = (
            number > len(defects) and number % 2 == 1
        )  # a mask can only be taken for one of another image of that size
        scene = number - 1 if defect == "image twice" else number
        image, masks = _case(number, scene, seed, volumes, raters, (size, size + 16 * wide))
        if number > len(defects):  # a defect is seen beside masks that are as they should be
            if number % 5 == 4:
                masks[number % len(raters)] = np.zeros_like(masks[0])  # sees nothing
            if number % 7 == 6:
                masks[(number + 1) % len(raters)] = None  # was not asked
        files: dict[str, str | None] = {
            rater: None if mask is None else f"masks/{name}_{rater}{_suffix(volumes)}"
            for rater, mask in zip(raters, masks)
        }
        if defect:
            planted[name] = defect
            image, masks = _spoil(defect, image, list(masks))
        _save(root / "images" / f"{name}{_suffix(volumes)}", image)
        for file, mask in zip(files.values(), masks):
            if file is not None and mask is not None:
                _save(root / file, mask if volumes else mask * 255)
        _spoil_files(defect, root, f"images/{name}{_suffix(volumes)}", before, files, list(raters), volumes)
        entries.append(
            {
                "image": f"images/{name}{_suffix(volumes)}",
                "label": files,
                "patient": f"p{number % (patients or max(1, cases // 2)):02d}",
                "site": "north" if number % 3 else "south",
            }
        )
        said(f"{name}: {defect}" if defect else name)
    (root / "PLANTED.json").write_text(json.dumps(planted, indent=1))
    path = root / "LIST.json"
    about = {"name": "simulated", "description": "simulated images, no patient's", "classes": ["background", "lesion"]}
    path.write_text(json.dumps({**about, "training": entries}, indent=1))
    return path


def _suffix(volumes: bool) -> str:
    return ".nii.gz" if volumes else ".png"


def _case(
    number: int, scene: int, seed: int, volumes: bool, raters: Sequence[str], plane: tuple[int, int]
) -> tuple[np.ndarray, list[Any]]:
    """Image (H, W[, D]) uint8 or int16 of a scene, and a mask per rater."""
    from scipy.ndimage import gaussian_filter

    random, hands = np.random.default_rng([seed, scene]), np.random.default_rng([seed, number, 1])
    size = plane[0]
    shape: tuple[int, ...] = (*plane, *([12] if volumes else []))
    grid = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij")
    rows, columns = grid[0], grid[1]
    body = (rows / (0.44 * shape[0])) ** 2 + (columns / (0.44 * shape[1])) ** 2 < 1
    angle = random.uniform(0.25, 0.65) + random.integers(4) * np.pi / 2  # off the axes: a flip must tell
    distance = random.uniform(0.19, 0.25) * size
    radius = random.uniform(0.08, 0.11) * size
    away = (grid[2] / 5.0) ** 2 if volumes else 0.0
    y, x = rows - distance * np.sin(angle), columns - distance * np.cos(angle)
    theta = np.arctan2(y, x)
    lumps = sum(random.normal(0, 0.1) * np.cos(k * theta + random.uniform(0, 6.3)) for k in (2, 3, 4))
    # below 0 inside: the distance to the border as a share of the radius
    level = np.sqrt((y**2 + x**2) / radius**2 + away) - 1 - lumps
    texture = gaussian_filter(random.normal(size=shape), (2.0, 2.0, 1.0)[: len(shape)])
    image = body * (90 + 110 * texture / texture.std() * 0.12 + 60 / (1 + np.exp(8 * level)))
    image = gaussian_filter(image, (0.7, 0.7, 0.3)[: len(shape)]) + random.normal(0, 3, shape) * body
    masks = []
    for _ in raters:
        wobble = sum(hands.normal(0, 0.05) * np.cos(k * theta + hands.uniform(0, 6.3)) for k in (1, 2, 5))
        masks.append(((level + hands.normal(0, 0.07) + wobble < 0) & body).astype(np.uint8))
    return (image.clip(0, 255).astype(np.int16 if volumes else np.uint8)), masks


def _spoil(defect: str, image: np.ndarray, masks: list[Any]) -> tuple[np.ndarray, list[Any]]:
    second = masks[1]
    if defect == "shifted mask":
        middle = np.argwhere(second).mean(axis=0)[:2] - np.array(image.shape[:2]) / 2
        inward = -np.sign(middle) * (0.17 * image.shape[0], 0.11 * image.shape[0])
        masks[1] = np.roll(second, [int(v) for v in inward], (0, 1))
    elif defect == "flipped mask":
        masks[1] = second[:, ::-1]
    elif defect == "transposed mask":
        masks[1] = second.swapaxes(0, 1)
    elif defect == "mask on another lesion":
        ring = np.zeros_like(second)
        centre = [int(v) for v in np.argwhere(second).mean(axis=0)[:2]]
        row, column = image.shape[0] - centre[0], centre[1]
        ring[row - 4 : row + 5, column - 14 : column + 14] = 1  # long and thin: no shift makes it fit
        masks[1] = ring
    elif defect == "mask outside the content":
        masks = [np.zeros_like(second) for _ in masks]
        for number, mask in enumerate(masks):
            mask[1 : 8 + number, 1:9] = 1
    elif defect == "copied mask":
        masks[2] = second.copy()
    elif defect == "empty masks":
        masks = [np.zeros_like(second) for _ in masks]
    elif defect == "constant image":
        image = np.full_like(image, 90)
    elif defect == "mask of another size":
        masks[1] = second[: second.shape[0] - 8]
    return image, masks


def _spoil_files(
    defect: str | None, root: Path, image: str, before: str, files: dict[str, Any], raters: list[str], volumes: bool
) -> None:
    suffix = _suffix(volumes)
    if defect == "mask of another image":
        (root / files[raters[1]]).write_bytes((root / f"masks/{before}_{raters[1]}{suffix}").read_bytes())
    elif defect == "image twice":
        (root / image).write_bytes((root / f"images/{before}{suffix}").read_bytes())
    elif defect == "missing mask":
        (root / files[raters[1]]).unlink()
    elif defect in ("damaged mask", "damaged image"):
        file = root / (image if defect == "damaged image" else files[raters[1]])
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])


def _save(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if array.ndim == 2:
        from PIL import Image

        Image.fromarray(np.ascontiguousarray(array, np.uint8)).save(path)
        return
    import nibabel as nib

    # axes of the file: left, posterior, superior
    affine = np.diag([-_SPACING[1], -_SPACING[0], _SPACING[2], 1.0])
    volume = nib.Nifti1Image(np.ascontiguousarray(array.swapaxes(0, 1)), affine)
    volume.header["descrip"] = b"simulated, no patient's image"
    nib.save(volume, path)
