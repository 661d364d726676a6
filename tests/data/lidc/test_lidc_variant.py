"""The variants of LIDC's patches: each does what it says and nothing else, and the default is what it was."""

from __future__ import annotations

import csv
import hashlib
import json
from itertools import chain

import numpy as np
import pytest
from raw_dicom import write_scan
from scipy import ndimage

from aleatoric import cli
from aleatoric.data.lidc.annotations import IMAGE_SIZE, RATERS, _annotations, nodule_slices, nodules, scan_records
from aleatoric.data.lidc.command import prepare_lidc
from aleatoric.data.lidc.contours import contour_points, fill_contours
from aleatoric.data.lidc.resample import resample_masks, resample_patch
from aleatoric.data.lidc.variant import DEFAULT, LARGEST_CLUSTER, Variant
from aleatoric.errors import InputError

SAMPLE = (4, 9, 80, 109, 205, 252)  # 205 and 252 have a cluster of more than four annotations
EXPECTED = {  # SHA-256 (begin) of the arrays of scans 4, 10, 109 and 153 before there were variants
    (None, "images"): "47ae62cd7b70a4dada0954532bee93cf",
    (None, "labels"): "40afe7be5e19777e8dac864adcad32f1",
    (None, "rater_valid"): "5bf90435cd45d0475cbb0ace7e7e3a67",
    (0.5, "images"): "b7f159879efd07214b24bca591bf04b4",
    (0.5, "labels"): "326386c410cc163cbc4c781cfbdb34b2",
    (0.5, "rater_valid"): "5bf90435cd45d0475cbb0ace7e7e3a67",
}


@pytest.fixture(scope="module")
def scans():
    return {scan.scan_id: scan for scan in scan_records()}


@pytest.fixture(scope="module")
def raw(tmp_path_factory, scans):
    """Nodules of one to five annotations."""
    root = tmp_path_factory.mktemp("raw")
    for scan_id in (4, 109, 205):
        write_scan(root / str(scan_id), scans[scan_id])
    return root


def patches(scans, variant, size=IMAGE_SIZE):
    """(scan, nodule, z) -> the patch, masks on the whole image."""
    return {
        (scan_id, nodule.number, patch.z): patch
        for scan_id in SAMPLE
        for nodule in nodules(scans[scan_id], variant)
        for patch in nodule_slices(scans[scan_id], nodule, size, variant)
    }


@pytest.mark.parametrize("spacing", [None, 0.5])
def test_the_default_is_the_same_to_the_bit(tmp_path, scans, spacing):
    for scan_id in (4, 10, 109, 153):
        write_scan(tmp_path / "raw" / str(scan_id), scans[scan_id])
    out = prepare_lidc(tmp_path / "raw", tmp_path / "out", workers=1, spacing=spacing)
    for name in ("images", "labels", "rater_valid"):
        digest = hashlib.sha256(np.load(out / f"{name}.npy").tobytes()).hexdigest()
        assert digest.startswith(EXPECTED[spacing, name]), name


@pytest.mark.parametrize("minimum", [2, 3, 4])
def test_min_raters_drops_nodules_and_changes_no_other(scans, minimum):
    everything, some = patches(scans, DEFAULT, 128), patches(scans, Variant(min_raters=minimum), 128)
    raters = {(i, n.number): len(n.annotation_ids) for i in SAMPLE for n in nodules(scans[i])}
    assert set(some) == {key for key in everything if raters[key[:2]] >= minimum}
    assert 0 < len(some) < len(everything)
    for key, patch in some.items():
        np.testing.assert_array_equal(patch.masks, everything[key].masks)


def test_one_centre_per_nodule_is_the_mean_of_all_its_masks_centroids(scans):
    own, shared = patches(scans, DEFAULT), patches(scans, Variant(centre="nodule"))
    window = patches(scans, Variant(centre="nodule"), 128)
    assert set(own) == set(shared)
    for number in {key[:2] for key in own}:
        keys = [key for key in own if key[:2] == number]
        centroids = [np.argwhere(mask).mean(axis=0) for key in keys for mask in own[key].masks if mask.any()]
        for key in keys:
            assert (shared[key].row, shared[key].column) == pytest.approx(tuple(np.mean(centroids, axis=0)))
            np.testing.assert_array_equal(shared[key].masks, own[key].masks)  # on the whole image: the same
        assert len({(window[key].top, window[key].left) for key in keys}) == 1
    assert any(own[key].row != pytest.approx(shared[key].row) for key in own)


def test_all_annotations_add_slots_and_leave_the_first_four(scans):
    four, every = patches(scans, DEFAULT), patches(scans, Variant(annotations="all"))
    annotated = {(i, n.number): len(n.annotation_ids) for i in SAMPLE for n in nodules(scans[i])}
    assert set(four) <= set(every) and max(annotated.values()) > RATERS
    for key, patch in every.items():
        assert patch.masks.shape == (LARGEST_CLUSTER, IMAGE_SIZE, IMAGE_SIZE) and patch.valid.shape == (
            LARGEST_CLUSTER,
        )
        assert patch.valid.tolist() == [slot < max(RATERS, annotated[key[:2]]) for slot in range(LARGEST_CLUSTER)]
        assert not patch.masks[~patch.valid].any() and not patch.drawn[~patch.valid].any()
        if key in four:
            np.testing.assert_array_equal(patch.masks[:RATERS], four[key].masks)
    assert any(patch.drawn[RATERS:].any() for patch in every.values())


def test_a_simple_outline_is_what_lies_within_it_with_and_without_its_pixels(scans):
    """Against scipy's hole filling: the outline's pixels closed up; the rim is in or out."""
    compared = 0
    for contour in chain.from_iterable(a.contours for i in SAMPLE for a in _annotations()[scans[i].scan_id]):
        points = contour_points(contour[2])
        closed = np.vstack([points, points[:1]])
        if not contour[0] or np.abs(np.diff(closed, axis=0)).max() > 1:
            continue
        rim = np.zeros(points.max(axis=0) - points.min(axis=0) + 1, dtype=bool)
        rim[tuple((points - points.min(axis=0)).T)] = True
        filled = ndimage.binary_fill_holes(rim)
        top, left, without = fill_contours([(True, points)])
        assert (top, left) == tuple(points.min(axis=0))
        np.testing.assert_array_equal(without, filled & ~rim)
        np.testing.assert_array_equal(fill_contours([(True, points)], own=True)[2], filled)
        compared += 1
    assert compared > 100


def square(low: int, high: int) -> np.ndarray:
    """The pixels of a square's rim, in turn."""
    side = np.arange(low, high)
    return np.concatenate(
        [
            np.column_stack([np.full_like(side, low), side]),
            np.column_stack([side, np.full_like(side, high)]),
            np.column_stack([np.full_like(side, high), side[::-1] + 1]),
            np.column_stack([side[::-1] + 1, np.full_like(side, low)]),
        ]
    )


def test_an_exclusions_own_pixels_stay_nodule_with_the_contour_in():
    outer, inner = square(0, 20), square(5, 10)
    out, within = (fill_contours([(True, outer), (False, inner)], own)[2] for own in (False, True))
    assert (out.sum(), within.sum()) == (19 * 19 - 6 * 6, 21 * 21 - 4 * 4)
    assert not out[5:11, 5:11].any() and not out[0].any()
    assert within[5, 5:11].all() and not within[6:10, 6:10].any() and within[0].all()
    # an exclusion that lies outside adds nothing
    apart = fill_contours([(True, square(0, 4)), (False, square(8, 12))], True)[2]
    assert apart.sum() == 25


def test_the_contour_in_holds_the_contour_out(scans):
    out, within = patches(scans, DEFAULT), patches(scans, Variant(contour="in"))
    assert set(out) <= set(within)
    grown = [(within[key].masks & ~patch.masks & 1).sum() for key, patch in out.items()]
    assert all((patch.masks <= within[key].masks).all() for key, patch in out.items()) and min(grown) > 0


@pytest.mark.parametrize(
    "variant",
    [
        Variant(min_raters=2),
        Variant(centre="nodule"),
        Variant(annotations="all"),
        Variant(contour="in"),
        Variant(3, "nodule", "all", "in"),
    ],
    ids=str,
)
@pytest.mark.parametrize("spacing", [None, 0.5])
def test_a_preparation_writes_its_variant(raw, tmp_path, scans, variant, spacing):
    out = prepare_lidc(raw, tmp_path / "out", workers=1, spacing=spacing, variant=variant)
    images, labels, valid = (np.load(out / f"{name}.npy") for name in ("images", "labels", "rater_valid"))
    expected = [
        (scans[i], patch)
        for i in sorted((4, 109, 205), key=lambda i: scans[i].patient_id)
        for nodule in nodules(scans[i], variant)
        for patch in nodule_slices(scans[i], nodule, IMAGE_SIZE, variant)
    ]
    from raw_dicom import coded_hu

    assert len(images) == len(expected)
    for image, label, flags, (scan, patch) in zip(images, labels, valid, expected):
        np.testing.assert_array_equal(flags, patch.valid)
        hu = coded_hu(int(np.flatnonzero(scan.z_positions == patch.z).item()))
        if spacing is None:
            top, left = (int(np.clip(np.floor(c + 0.5) - 64, 0, IMAGE_SIZE - 128)) for c in (patch.row, patch.column))
            np.testing.assert_array_equal(image[0], hu[top : top + 128, left : left + 128])
            np.testing.assert_array_equal(label, patch.masks[:, top : top + 128, left : left + 128])
        else:
            there, masks = resample_patch(hu, patch, scan.pixel_spacing, spacing)
            np.testing.assert_array_equal(image[0], there)
            np.testing.assert_array_equal(label, masks)
            np.testing.assert_array_equal(masks, resample_masks(patch, scan.pixel_spacing, spacing))
    options = json.loads((out / "dataset.json").read_text())["options"]
    assert {name: options[name] for name in variant.options()} == variant.options()
    assert json.loads((out / "dataset.json").read_text())["raters"] == variant.slots
    drew = [int((label.any(axis=(1, 2)) & flags).sum()) for label, flags in zip(labels, valid)]
    assert [int(row["raters"]) for row in csv.DictReader((out / "cases.csv").read_text().splitlines())] == drew


def test_options_on_the_command_line(raw, tmp_path, capsys):
    words = ["--min-raters", "3", "--centre", "nodule", "--annotations", "all", "--contour", "in", "--workers", "1"]
    assert cli.main(["prepare", "lidc", str(raw), str(tmp_path / "out"), *words]) == 0
    options = json.loads((tmp_path / "out" / "dataset.json").read_text())["options"]
    assert Variant(*(options[name] for name in Variant().options())) == Variant(3, "nodule", "all", "in")
    capsys.readouterr()
    assert cli.main(["prepare", "lidc", str(raw), str(tmp_path / "no"), "--min-raters", "5"]) == 2
    assert "--min-raters 5 found, 1 to 4 expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"min_raters": 0}, "--min-raters 0 found"),
        ({"min_raters": 5}, "--min-raters 5 found"),
        ({"min_raters": True}, "--min-raters True found"),
        ({"centre": "middle"}, "--centre middle found, slice or nodule expected"),
        ({"annotations": "five"}, "--annotations five found, first-four or all expected"),
        ({"contour": "on"}, "--contour on found, out or in expected"),
    ],
)
def test_another_value_is_refused(values, sentence):
    with pytest.raises(InputError, match=sentence):
        Variant(**values)


@pytest.mark.slow
def test_no_cluster_overflows_the_slots(scans):
    assert max(len(nodule.annotation_ids) for scan in scans.values() for nodule in nodules(scan)) == LARGEST_CLUSTER
