"""``aleatoric prepare phantom --brain``: simulated brains with a tumour in four MR sequences, prepared as BraTS is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
from typing_extensions import Unpack

from ...errors import InputError
from ..brats.command import volume_writer
from ..brats.tree import SEQUENCES
from ..brats.volumes import class_map, normalised
from ..prepared.preparation import OutputOptions, Patches, prepare_units, random_split, writer_options

__all__ = ["BRAIN_SIZE", "prepare_brain_phantom", "simulate_brain"]

BRAIN_SIZE = (64, 64, 48)  #: voxels towards posterior, left, superior

# brightness of white matter, grey matter, fluid, oedema, non-enhancing core, enhancing rim
_TISSUE = {
    "flair": (0.55, 0.75, 0.15, 1.25, 0.85, 1.0),
    "t1": (1.0, 0.75, 0.25, 0.7, 0.45, 0.7),
    "t1ce": (1.0, 0.75, 0.25, 0.7, 0.4, 1.9),
    "t2": (0.5, 0.7, 1.3, 1.1, 1.2, 0.9),
}


class _Task(NamedTuple):
    number: int
    seed: int


def prepare_brain_phantom(out_dir: str | os.PathLike[str], *, cases: int = 30, **output: Unpack[OutputOptions]) -> Path:
    """Write simulated brains as a prepared data set, channels, classes and normalisation as of BraTS.

    Args:
        out_dir: the data set; ``<out_dir>.partial`` beside it keeps finished cases, so a second call goes on.
        cases: how many; every third is of low grade, without an enhancing part.
        **output: see :class:`.prepared.preparation.OutputOptions`; the seed is also that of the images.

    Raises:
        InputError: no case, a data set that is already there, no space left.
    """
    if cases < 1:
        raise InputError(f"--brain {cases} found, 1 case or more expected; correct it.")
    seed = output.get("seed", 0)
    writer = volume_writer(
        out_dir,
        name="brain_phantom",
        source="simulated brains with simulated tumours in four MR sequences; no patient's image",
        options={"cases": cases, "seed": seed},
        patch_size=BRAIN_SIZE,
        split=random_split(output),
        **writer_options(output),
    )
    tasks = {f"brain_{number:04d}": _Task(number, seed) for number in range(1, cases + 1)}
    return prepare_units(writer, _make, tasks, label="cases", workers=output.get("workers"), report={"simulated": True})


def _make(task: _Task) -> Patches:
    low = task.number % 3 == 0
    height, width, depth = BRAIN_SIZE
    files = simulate_brain(np.random.default_rng([task.seed, task.number]), (width, height, depth), low)
    name = f"brain_{task.number:04d}"
    stored = {key: volume.swapaxes(0, 1) for key, volume in files.items()}  # rows run towards posterior
    image = normalised(np.stack([stored[key] for key in SEQUENCES]), [f"{key} of {name}" for key in SEQUENCES])
    row = {"case": name, "patient": name, "slice": "", "grade": "LGG" if low else "HGG"}
    patches = Patches()
    patches.add(image, class_map(stored["seg"], name)[None], np.ones(1, bool), row)
    return patches


def simulate_brain(
    rng: np.random.Generator, size: tuple[int, int, int], low: bool, enhancing: int = 4
) -> dict[str, np.ndarray]:
    """The four sequences, (X, Y, Z) float, and under ``"seg"`` the classes, uint8, of one simulated patient.

    The brain is an ellipsoid with folds, ventricles and exact zeros around it; the tumour has nested parts with the
    labels 2 (oedema), ``enhancing`` and 1 (non-enhancing), and some of the irregularities of real data: a vessel far
    brighter than the tissue, a void in one sequence.

    Args:
        rng: of all that is random.
        size: voxels towards left, posterior, superior.
        low: of low grade, without an enhancing part.
        enhancing: label of the enhancing part.
    """
    half = np.array(size) / 2
    brain = _ball(size, half - 0.5, half * rng.uniform(0.72, 0.86, 3)) > 0
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in size], indexing="ij"))
    folds = np.sin(grid * 0.9 + rng.uniform(0, 6, (3, 1, 1, 1))).prod(axis=0) + _smooth(rng, size, 2.0)
    matter = np.where(folds > 0.35, 1, 0)
    matter[_ball(size, half - 0.5, half * 0.2) > 0] = 2  # ventricles

    tumour = np.zeros(size, np.uint8)
    centre = half + rng.uniform(-0.3, 0.3, 3) * half
    radius = half.min() * rng.uniform(0.3, 0.42)
    wobble = 0.25 * _smooth(rng, size, 3.0)
    for label, share in ((2, 1.0), (enhancing, 0.62), (1, 0.42)):
        if label == enhancing and low:
            continue
        tumour[(_ball(size, centre, np.full(3, radius * share)) + wobble > 0) & brain] = label

    files: dict[str, np.ndarray] = {}
    bias = 1 + 0.1 * _smooth(rng, size, 12.0)
    for key in SEQUENCES:
        table = np.array(_TISSUE[key])
        signal = table[matter]
        for label, brightness in ((2, table[3]), (1, table[4]), (enhancing, table[5])):
            signal[tumour == label] = brightness
        signal = signal * bias + rng.normal(0, 0.06, size)
        image = np.rint(signal * rng.uniform(150, 900)).clip(1)
        if key == "t1ce":
            image[tuple((half + half * rng.uniform(-0.2, 0.2, 3)).astype(int))] *= 12  # a vessel, far beyond the tissue
        if key == "t1":
            image[tuple((half + (half * [0.5, 0, 0])).astype(int))] = 0  # signal void: brain by the other sequences
        image[~brain] = 0
        files[key] = image
    files["seg"] = tumour
    return files


def _ball(size: tuple[int, int, int], centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Positive inside of an ellipsoid, 1 in its centre."""
    axes = np.ogrid[tuple(slice(n) for n in size)]
    return np.asarray(1 - sum(((a - c) / r) ** 2 for a, c, r in zip(axes, centre, radii)))


def _smooth(rng: np.random.Generator, size: tuple[int, int, int], sigma: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(rng.normal(0, 1, size), sigma)
    field -= field.mean()
    return np.asarray(field / field.std())
