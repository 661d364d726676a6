"""One case of a dry run: read, made into patches as a real run would, looked over, and told in a few numbers."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError
from ..prepared.format import check_patches
from ..prepared.preparation import Patches
from .cases import LoadedCase, load_case
from .checks import COPIED_PIXELS, Finding, case_findings, distances
from .make import Task, make_patches, sound

__all__ = ["Look", "LookTask", "look"]

_VALUES = 256  # label files hold uint8


class LookTask(NamedTuple):
    """What :func:`look` is called with: the unit, its task, the names of the raters, what dataset.json would say."""

    unit: str
    task: Task
    raters: tuple[str, ...]
    signature: dict[str, Any]


class Look(NamedTuple):
    """What is known of one case; small, it travels back from another process.

    Attributes:
        number, case, patient, images: of the entry.
        skipped, excluded, problems: as a real run would report them.
        patches: how many would be made.
        cut: how many of these do not hold all that was drawn.
        shape, spacing: in words; ``None`` where the image could not be read, and so for all that follows.
        intensities: minimum, 0.5 and 99.5 percentile, maximum.
        image_hash: of the pixels.
        mask_hashes: of each rater's class map; "" where it is too small to be told apart.
        valid: of each rater, whether there is a mask that can be used.
        pixels: of each rater, (value, count); also of a mask that was read and cannot be used.
        distance: (R, R) 1 - IoU, NaN where a rater is missing.
        notes: what was done to the masks on reading.
        findings: what looks wrong.
    """

    number: int
    case: str
    patient: str
    images: tuple[str, ...]
    labels: tuple[str | None, ...]
    skipped: dict[str, int]
    excluded: dict[str, int]
    problems: tuple[str, ...]
    patches: int = 0
    cut: int = 0
    shape: str | None = None
    spacing: str | None = None
    intensities: tuple[float, float, float, float] | None = None
    image_hash: str = ""
    mask_hashes: tuple[str, ...] = ()
    valid: tuple[bool, ...] = ()
    pixels: tuple[tuple[tuple[int, int], ...], ...] = ()
    distance: tuple[tuple[float, ...], ...] = ()
    notes: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def look(job: LookTask) -> Look:
    """Read one case. Nothing that an image or a mask may be raises."""
    entry = job.task.entry
    known = (entry.number, entry.case, entry.patient, entry.image, entry.labels)
    unread = {"images that cannot be read": 1}  # in preparation's words
    try:
        read = load_case(entry)
    except InputError as error:
        return Look(*known, unread, {}, (str(error),))
    patches, wrong = Patches(), None
    case = read._replace(labels=np.zeros_like(read.labels), valid=np.zeros_like(read.valid))  # where no mask is sound
    try:
        case = sound(read, job.task)
        patches = make_patches(case, job.task)
        if patches.cases:
            arrays = (np.stack(patches.images), np.stack(patches.labels), np.stack(patches.rater_valid))
            check_patches(job.signature, job.unit, *arrays, patches.cases)
    except InputError as error:
        patches, wrong = Patches(), str(error)
    found = case_findings(case.scan.array, case.labels, case.valid, entry.case, job.raters) if case.valid.any() else []
    return Look(
        *known,
        unread if wrong else dict(patches.skipped),
        dict(patches.excluded),
        (wrong,) if wrong else tuple(patches.problems),
        len(patches.cases),
        sum(float(row["drawn_inside"]) < 1 for row in patches.cases),
        **_numbers(case, read, len(job.task.options.classes)),
        findings=tuple(found),
    )


def _numbers(case: LoadedCase, read: LoadedCase, classes: int) -> dict[str, Any]:
    """Of the case with its sound masks; pixels are those of all masks that were read."""
    array, spacing = case.scan.array, case.scan.spacing
    low, high = np.percentile(array, (0.5, 99.5))
    counts = [np.bincount(mask.reshape(-1), minlength=_VALUES) for mask in read.labels]
    return {
        "shape": " x ".join(map(str, array.shape[1:])) + (f", {len(array)} channels" if len(array) > 1 else ""),
        "spacing": "unknown" if spacing is None else " x ".join(f"{s:.3g}" for s in spacing) + " mm",
        "intensities": (float(array.min()), float(low), float(high), float(array.max())),
        "image_hash": _digest(array),
        "mask_hashes": tuple(_digest(mask) if np.count_nonzero(mask) >= COPIED_PIXELS else "" for mask in case.labels),
        "valid": tuple(bool(v) for v in case.valid),
        "pixels": tuple(
            tuple((int(v), int(count[v])) for v in np.flatnonzero(count)) if there else ()
            for count, there in zip(counts, read.valid)
        ),
        "distance": tuple(map(tuple, distances(case.labels, case.valid, classes).tolist())),
        "notes": tuple(dict.fromkeys(case.notes)),
    }


def _digest(array: np.ndarray) -> str:
    digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
