"""A simulated tree of the crops that come with the hierarchical Probabilistic U-Net.

    write(Path("crops"), cases=30)
    aleatoric prepare kohl crops OUT

SIMULATED: the images are drawn, no patient is in them; every PNG says so in its text. Names, folders, sizes and values
are those of the release.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

NOTE = "SIMULATED, no patient"
SIZE = 180


def nodule_slice(rng: np.random.Generator, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """A slice of a made-up lung with a lumpy nodule in its centre, (size, size) in 0..1, and four masks of it, bool.

    The raters disagree about the border where it is soft; about one in four sees no nodule, never all of them.
    """
    from scipy.ndimage import gaussian_filter

    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    angle, distance = np.arctan2(rows, columns), np.hypot(rows, columns)
    image = 0.12 + 0.5 * gaussian_filter(rng.standard_normal((size, size)), 1.2) * 0.12
    for _ in range(rng.integers(4, 9)):  # vessels
        y, x, turn, width = rng.uniform(-80, 80), rng.uniform(-80, 80), rng.uniform(0, np.pi), rng.uniform(1, 3)
        along = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
        across = (rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)
        image += 0.45 * np.exp(-((across / width) ** 2) - (along / rng.uniform(8, 30)) ** 2)
    wall = rng.uniform(0, 2 * np.pi)  # chest wall on one side
    depth = columns * np.cos(wall) + rows * np.sin(wall) - rng.uniform(45, 70) - distance**2 / 900
    image += 0.65 / (1 + np.exp(-np.clip(depth, -30, 30)))
    lumps = sum(
        rng.normal(0, 0.12 / order) * np.cos(order * angle + rng.uniform(0, 2 * np.pi)) for order in range(1, 6)
    )
    radius, softness = rng.uniform(7, 22), rng.uniform(0.6, 4)
    inside = radius * (1 + lumps) - distance  # > 0 in the nodule
    image += rng.uniform(0.35, 0.7) / (1 + np.exp(-np.clip(inside / softness, -30, 30)))
    image = np.clip(image + rng.normal(0, 0.02, image.shape), 0, 1)
    masks = np.zeros((4, size, size), bool)
    sees = rng.random(4) < 0.75
    sees[rng.integers(4)] = True
    for rater in np.flatnonzero(sees):
        bend = sum(
            rng.normal(0, 0.5 * softness / order) * np.cos(order * angle + rng.uniform(0, 6)) for order in (2, 3, 4)
        )
        masks[rater] = inside + bend + rng.normal(0, softness) > 0
    if not masks.any():
        masks[np.flatnonzero(sees)[0]] = inside > 0
    return image, masks


def write(
    root: Path,
    cases: int,
    seed: int = 0,
    *,
    splits: tuple[str, ...] = ("train", "val", "test"),
    slices: int = 3,
    first_rater: int = 0,
    said: Callable[[str], object] = str,
    **tags: Any,
) -> Path:
    """Write ``cases`` patients with ``slices`` images each, dealt to ``splits`` in the proportion 4 : 1 : 1.

    Args:
        root: folder to fill.
        cases: number of patients.
        seed: of everything.
        splits: which to write; patients are dealt to those three all the same.
        slices: images of a patient, every second one with a second crop.
        first_rater: 0 as the release's code counts raters, 1 as its README does.
        said: called with a line for every patient.
        tags: more text for the PNG files.
    """
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    for key, value in {"Comment": NOTE, **tags}.items():
        text.add_text(key, str(value))

    def save(pixels: np.ndarray, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, pnginfo=text)

    rng = np.random.default_rng(seed)
    for case in range(cases):
        split = ("train", "train", "val", "train", "test", "train")[case % 6]
        patient = f"LIDC-IDRI-{case + 1:04d}"
        for number in range(slices):
            for crop in range(1 + (number % 2)):
                image, masks = nodule_slice(rng)
                if split not in splits:
                    continue
                name = f"z-{105 + 2.5 * number:.1f}_c{crop}"
                save(np.rint(image * 255).astype(np.uint8), root / split / "images" / patient / f"{name}.png")
                for rater, mask in enumerate(masks):
                    path = root / split / "gt" / patient / f"{name}_l{rater + first_rater}.png"
                    save(mask.astype(np.uint8) * 255, path)
        said(f"{patient}: {split}")
    return root
