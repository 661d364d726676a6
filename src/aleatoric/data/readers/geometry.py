"""Where a volume lies: turning it to one orientation, and bringing a label onto its image's grid.

An affine is (4, 4), index (axis 0, axis 1, axis 2, 1) -> RAS mm, NIfTI's convention. A 2D picture is one slice.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError

__all__ = [
    "Placement",
    "Turn",
    "checked_affine",
    "closest_turn",
    "from_lps",
    "locate",
    "onto_grid",
    "same_grid",
    "spacing_of",
    "turned",
]

_TOLERANCE = 0.05  # voxels: rounded headers (DICOM's 16 characters, float32) stay below; nearest-neighbour sees no more
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class Placement(NamedTuple):
    """The part of a label that lies in a grid, turned to the grid's axes."""

    inside: np.ndarray  # (a, b, c); empty if nothing does
    where: tuple[slice, ...]  # its place in the grid
    outside: int  # labelled voxels that do not


class Turn(NamedTuple):
    """Axis permutation and flips between a file and the standard orientation; picklable, kept with each image."""

    shape: tuple[int, int, int]  # in the file
    target: tuple[int, int, int]  # axis of the file -> axis of the result
    flip: tuple[int, int, int]  # -1 where that axis is turned round


def closest_turn(shape: tuple[int, ...], affine: np.ndarray | None) -> Turn:
    """The turn to (posterior, left, superior), in which the bundles infer; oblique volumes go to the closest.

    A single slice becomes the last axis, and its plane is shown as DICOM stores it: axial (posterior, left), coronal
    (inferior, left), sagittal (inferior, posterior). Without an affine the axes stay as the file has them.
    """
    import nibabel.orientations as nio

    single = [axis for axis in range(3) if shape[axis] == 1]
    if affine is None:
        last = single[-1] if single else 2
        order = [axis for axis in range(3) if axis != last] + [last]
        return Turn(_three(shape), _three(np.argsort(order)), (1, 1, 1))
    start = nio.io_orientation(affine)
    target = "PLS"
    if single:
        own = nio.ornt2axcodes(start)[single[-1]]
        target = {"A": "IL", "P": "IL", "R": "IP", "L": "IP"}.get(own, "PL") + own
    turn = nio.ornt_transform(start, nio.axcodes2ornt(target))
    return Turn(_three(shape), _three(turn[:, 0]), _three(turn[:, 1]))


def turned(array: np.ndarray, affine: np.ndarray | None, turn: Turn) -> tuple[np.ndarray, np.ndarray | None]:
    """(..., a, b, c) and its affine, turned: no interpolation, every voxel stays at its place in the world."""
    import nibabel.orientations as nio

    ornt = np.stack([turn.target, turn.flip], axis=-1).astype(float)
    front = np.moveaxis(array, (-3, -2, -1), (0, 1, 2))  # nibabel turns the leading axes
    result = np.moveaxis(nio.apply_orientation(front, ornt), (0, 1, 2), (-3, -2, -1))
    return result, None if affine is None else affine @ nio.inv_ornt_aff(ornt, turn.shape)


def spacing_of(affine: np.ndarray) -> tuple[float, ...]:
    """mm along the three axes."""
    return tuple(float(s) for s in np.linalg.norm(affine[:3, :3], axis=0))


def checked_affine(affine: Any, path: Path) -> np.ndarray:
    """(4, 4) float64. Raises InputError where it does not place a volume."""
    result = np.asarray(affine, np.float64)
    with np.errstate(all="ignore"):
        steps = np.linalg.norm(result[:3, :3], axis=0)
        sound = np.isfinite(result).all() and (steps > 0).all() and abs(np.linalg.det(result[:3, :3] / steps)) > 1e-3
    if not sound:
        raise InputError(f"{path} has the affine {result.tolist()}, which places no volume; export it again.")
    return result


def from_lps(affine: np.ndarray) -> np.ndarray:
    """The same affine in RAS (or back)."""
    return _LPS_TO_RAS @ affine


def same_grid(affine: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether the two affines place every voxel of a volume of ``shape`` within a twentieth of a voxel."""
    return _misfit(np.linalg.inv(affine) @ other, np.eye(4), shape) < _TOLERANCE


def onto_grid(
    label: np.ndarray, label_affine: np.ndarray, shape: tuple[int, ...], affine: np.ndarray, path: Path
) -> tuple[np.ndarray, list[str]]:
    """A class map (a, b, c) on the grid ``shape``, ``affine``, and what had to be done.

    On the same lattice (up to flips and permutations) voxels are copied, whatever part of the grid the label covers.
    On another lattice each voxel of the grid takes the label's nearest voxel; outside of the label it is 0.

    Raises:
        InputError: the two do not overlap, or all that is labelled lies outside of the grid.
    """
    placed = locate(label, np.linalg.inv(affine) @ label_affine, shape)
    if placed is None:
        return _resampled(label, label_affine, shape, affine, path)
    if placed.outside == np.count_nonzero(label) > 0 or not placed.inside.size:
        raise _elsewhere(path, label_affine, label.shape, affine, shape)
    result = np.zeros(shape, label.dtype)
    result[placed.where] = placed.inside
    notes = []
    if placed.inside.shape != tuple(shape):
        extent = " x ".join(f"{s.start}-{s.stop - 1}" for s in placed.where)
        notes.append(f"covers a part of the image and was placed there (rows x columns x slices {extent})")
    if placed.outside:
        notes.append(f"{placed.outside} labelled voxels lie outside of the image and were cut off")
    return result, notes


def locate(label: np.ndarray, transform: np.ndarray, shape: tuple[int, ...]) -> Placement | None:
    """Where a label lies in a grid of ``shape``; None if it is not on the grid's lattice.

    Args:
        label: (a, b, c); of one slice where the slice's thickness may be anything.
        transform: (4, 4), index in ``label`` -> index in the grid.
    """
    import nibabel.orientations as nio

    ornt = nio.io_orientation(transform)
    if np.isnan(ornt).any():
        return None
    whole = np.zeros((4, 4))
    for axis, (to, sign) in enumerate(ornt):
        whole[int(to), axis] = sign
    whole[:, 3] = np.rint(transform[:, 3])
    if _misfit(transform, whole, label.shape) >= _TOLERANCE:
        return None
    block = nio.apply_orientation(label, ornt)
    first = (whole @ _corners(label.shape))[:3].min(axis=1).astype(int)
    start = np.clip(first, 0, shape)
    stop = np.maximum(np.clip(first + block.shape, 0, shape), start)
    inside = block[tuple(slice(a - f, b - f) if b > a else slice(0, 0) for a, b, f in zip(start, stop, first))]
    outside = int(np.count_nonzero(label)) - int(np.count_nonzero(inside))
    return Placement(inside, tuple(slice(int(a), int(b)) for a, b in zip(start, stop)), outside)


def _resampled(
    label: np.ndarray, label_affine: np.ndarray, shape: tuple[int, ...], affine: np.ndarray, path: Path
) -> tuple[np.ndarray, list[str]]:
    from scipy.ndimage import affine_transform

    back = np.linalg.inv(label_affine) @ affine  # index in the grid -> index in the label
    if _apart(back, shape, label.shape) or _apart(np.linalg.inv(back), label.shape, shape):
        raise _elsewhere(path, label_affine, label.shape, affine, shape)
    # "grid-constant": the outer half of a border voxel belongs to it; "constant" would cut it off.
    result = affine_transform(
        label, back[:3, :3], back[:3, 3], output_shape=tuple(shape), order=0, mode="grid-constant", cval=0
    )
    ours, its = (" x ".join(f"{s:.4g}" for s in spacing_of(a)) for a in (affine, label_affine))
    notes = [f"resampled (nearest voxel) from its own grid, {its} mm, onto the image's, {ours} mm along file axes"]
    where = np.concatenate([np.argwhere(label).T, np.ones((1, np.count_nonzero(label)))])
    index = np.rint((np.linalg.inv(back) @ where)[:3]).T
    outside = int(((index < 0) | (index >= shape)).any(axis=1).sum())
    if outside and outside == where.shape[1]:
        raise _elsewhere(path, label_affine, label.shape, affine, shape)
    if outside:
        notes.append(f"{outside} labelled voxels lie outside of the image and were cut off")
    lost = sorted(set(np.unique(label).tolist()) - set(np.unique(result).tolist()) - {0})
    if lost:
        notes.append(f"classes {lost} have no voxel left after resampling")
    return result, notes


def _apart(transform: np.ndarray, shape: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether a face of ``other`` separates it from the box of voxels ``shape``."""
    corners = (transform @ _corners(shape, margin=0.5))[:3]
    return bool((corners.max(axis=1) <= -0.5).any() or (corners.min(axis=1) >= np.array(other) - 0.5).any())


def _elsewhere(
    path: Path, label_affine: np.ndarray, label_shape: tuple[int, ...], affine: np.ndarray, shape: tuple[int, ...]
) -> InputError:
    centres = [a @ [*((np.array(s) - 1) / 2), 1] for a, s in ((label_affine, label_shape), (affine, shape))]
    distance = float(np.linalg.norm(centres[0] - centres[1]))
    return InputError(
        f"{path}: the label lies elsewhere than the image (centres {distance:.4g} mm apart), "
        "a label of this image expected; correct the pairing of files, or export the label again."
    )


def _misfit(transform: np.ndarray, whole: np.ndarray, shape: tuple[int, ...]) -> float:
    return float(np.abs((transform - whole) @ _corners(shape)).max())


def _corners(shape: tuple[int, ...], margin: float = 0.0) -> np.ndarray:
    """(4, 8): the outermost voxels' centres, or their outer corners with a margin of half a voxel."""
    ends = [(-margin, n - 1 + margin) for n in shape]
    return np.array([(*corner, 1.0) for corner in itertools.product(*ends)]).T


def _three(values: Any) -> tuple[int, int, int]:
    first, second, third = (int(v) for v in values)
    return first, second, third
