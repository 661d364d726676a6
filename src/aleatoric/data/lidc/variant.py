"""The field's variants of LIDC-IDRI's patches: which nodules, which centre, which annotations, which pixels.

The default is the rule that docs/data.md states first (15,729 patches); the table there counts the others.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ...errors import InputError

__all__ = ["ANNOTATIONS", "CENTRES", "CONTOURS", "DEFAULT", "LARGEST_CLUSTER", "RATERS", "Variant"]

RATERS = 4  # readers of every scan, and slots per patch by default
LARGEST_CLUSTER = 8  # annotations of one nodule, over the whole database (a test counts)
CENTRES = ("slice", "nodule")
ANNOTATIONS = ("first-four", "all")
CONTOURS = ("out", "in")


@dataclass(frozen=True)
class Variant:
    """One way to make patches of the raters' contours.

    Args:
        min_raters: nodules with at least so many annotations in their cluster, 1..4.
        centre: ``"slice"``: each patch on the mean of the centroids of its own masks; ``"nodule"``: all patches of a
            nodule on the mean of the centroids of all its masks (of every rater on every slice, each mask counting
            once; empty masks have none).
        annotations: ``"first-four"``: four slots, filled by the cluster's first four annotations in the database's
            order; ``"all"``: :data:`LARGEST_CLUSTER` slots, which no nodule overflows. The first four are always
            valid, because four readers read every scan; a slot beyond is valid where the nodule has that annotation.
        contour: ``"out"``: a contour's own pixels are not nodule, be it an inclusion or an exclusion (LIDC's protocol
            draws the outline just outside the nodule, and so pylidc's ``boolean_mask`` has it); ``"in"``: they are
            (an exclusion's own pixels stay nodule where they were, they add nothing).

    Raises:
        InputError: a value that is none of these.
    """

    min_raters: int = 1
    centre: str = "slice"
    annotations: str = "first-four"
    contour: str = "out"

    def __post_init__(self) -> None:
        if isinstance(self.min_raters, bool) or self.min_raters not in range(1, RATERS + 1):
            raise InputError(
                f"--min-raters {self.min_raters} found, 1 to {RATERS} expected (so many readers read every scan); "
                "choose one of them."
            )
        for option, value, known in (
            ("centre", self.centre, CENTRES),
            ("annotations", self.annotations, ANNOTATIONS),
            ("contour", self.contour, CONTOURS),
        ):
            if value not in known:
                raise InputError(f"--{option} {value} found, {' or '.join(known)} expected; choose one of them.")

    @property
    def slots(self) -> int:
        """Raters per patch."""
        return RATERS if self.annotations == "first-four" else LARGEST_CLUSTER

    def options(self) -> dict[str, Any]:
        """For dataset.json."""
        return asdict(self)


DEFAULT = Variant()
