"""The picture of a dry run: what needs a look first, then images chosen by the seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...errors import InputError
from ..prepared.parallel import each_result
from .cases import load_case
from .make import Task, sound
from .patches import intensity_range, plane_of, resampled
from .plan import Plan

__all__ = ["draw_sheet"]

_PAIRS = 16  # images on the sheet
_SUSPICIOUS = 12  # of these at most, where there are others
_SIDE = 192  # pixels that an image is reduced to


class _Thumbnail(NamedTuple):
    number: int
    where: str
    image: np.ndarray
    labels: np.ndarray
    valid: np.ndarray


def draw_sheet(
    path: Path, tasks: Sequence[Task], report: Mapping[str, Any], plan: Plan, workers: int, seed: int
) -> bool:
    """Draw the sheet of a dry run's ``report``; the few images on it are read once more.

    Returns:
        whether there was an image to draw.
    """
    from ...visualize import patch_sheet, save_figure

    notes: dict[int, list[str]] = {}
    for row in report["findings"]:
        notes.setdefault(row["number"], []).append(f"{row['kind']}: {row['short']}")
    for row in report["problems"]:
        notes.setdefault(row["number"], []).append("cannot be used: see the report")
    order = [int(i) + 1 for i in np.random.RandomState(seed).permutation(len(tasks))]
    sound = [number for number in order if number not in notes]
    first = sorted(notes)[: max(_SUSPICIOUS, _PAIRS - len(sound))]
    chosen = [*first, *sound[: _PAIRS - len(first)]]
    by_number = {task.entry.number: task for task in tasks}
    drawn = [found for found in each_result(_thumbnail, [by_number[n] for n in chosen], workers, "pictures") if found]
    if not drawn:
        return False
    drawn.sort(key=lambda found: chosen.index(found.number))
    raters = ", ".join(f"{number} {name}" for number, name in enumerate(plan.datalist.raters, 1))
    figure = patch_sheet(
        [found.image for found in drawn],
        [found.labels for found in drawn],
        [found.valid for found in drawn],
        names=[f"{by_number[found.number].entry.case}{found.where}" for found in drawn],
        notes=["; ".join(dict.fromkeys(notes.get(found.number, []))) for found in drawn],
        columns=4,
        classes=plan.options.classes,
        title=f"{plan.settings['name']}: {report['suspicious']} of {report['entries']} images to look at",
        caption=f"raters: {raters}",
    )
    save_figure(figure, path)
    return True


def _thumbnail(task: Task) -> _Thumbnail | None:
    """The image, or of a volume the slice that most was drawn on, at most ``_SIDE`` pixels wide."""
    try:
        case = sound(load_case(task.entry), task)
    except InputError:
        return None
    image, labels, where = case.scan.array[:1], case.labels, ""
    low, high = intensity_range(image, None)[0]
    if image.ndim == 4:
        plane = task.options.plane
        axis = {"axial": 3, "coronal": 1, "sagittal": 2}[plane]
        drawn = np.count_nonzero(labels, axis=tuple(a for a in range(4) if a != axis))
        index = int(drawn.argmax()) if drawn.any() else len(drawn) // 2
        image, labels = plane_of(image, plane, index), plane_of(labels, plane, index)
        where = f", slice {index}"
    scaled = ((image.astype(np.float64) - low) / (high - low if high > low else 1.0)).clip(0, 1).astype(np.float32)
    shape = labels.shape[1:]
    shrink = max(1.0, max(shape) / _SIDE)
    image, labels = resampled(scaled, labels, [max(1, round(n / shrink)) for n in shape])
    return _Thumbnail(task.entry.number, where, image, labels, case.valid)
