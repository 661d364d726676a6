"""The phantom: LIDC's raters exactly, images that are simulated, say so, and do not give the answer away."""

from __future__ import annotations

import json

import numpy as np
import pydicom
import pytest
from scipy import ndimage

from aleatoric import cli
from aleatoric.data import load_dataset
from aleatoric.data.lidc.annotations import nodule_slices, nodules, scan_records
from aleatoric.data.lidc.command import prepare_lidc
from aleatoric.data.phantom.anatomy import Anatomy, Place, smooth_noise
from aleatoric.data.phantom.appearance import ScanPhantom
from aleatoric.data.phantom.command import prepare_phantom
from aleatoric.data.phantom.raw_dicom import prepare_phantom_dicom


@pytest.fixture(scope="module")
def records():
    return {scan.scan_id: scan for scan in scan_records()}


@pytest.fixture(scope="module")
def phantoms(records):
    """Some scans with one to four raters a nodule, and their patches rendered."""
    chosen = [ScanPhantom(records[i]) for i in (4, 10, 60, 109, 300, 511, 702, 900)]
    return [(p, s, p.render(s.z, s.top, s.left, 128, 128)) for p in chosen for s in p.slices]


def test_masks_are_lidcs_own_and_whole_patients_are_taken(tmp_path, records):
    dataset = load_dataset(prepare_phantom(tmp_path / "set", patches=30, workers=1))
    assert len(dataset) == 30 and dataset.images.shape == (30, 1, 128, 128)
    by_series = {scan.series_uid: scan for scan in records.values()}
    expected = {}
    for uid in {row["series"] for row in dataset.cases}:
        for nodule in nodules(by_series[uid]):
            for patch in nodule_slices(by_series[uid], nodule):
                expected[uid, str(patch.nodule), f"{patch.z:g}"] = patch.masks
    for row, label in zip(dataset.cases, dataset.labels):
        np.testing.assert_array_equal(label, expected[row["series"], row["nodule"], row["slice"]])
    assert dataset.rater_valid.all()
    assert len(dataset.cases) >= len(expected) - max(sum(uid == u for u, *_ in expected) for uid in by_series)


def test_it_says_that_it_is_simulated(tmp_path):
    info = json.loads((prepare_phantom(tmp_path / "set", patches=2, workers=1) / "dataset.json").read_text())
    assert info["name"] == "phantom" and info["source"].startswith("simulated") and info["report"]["simulated"] is True


def test_the_same_arrays_from_the_same_seed_on_any_number_of_processes(tmp_path):
    hashes = [
        json.loads(
            (prepare_phantom(tmp_path / name, patches=60, workers=workers, seed=seed) / "dataset.json").read_text()
        )["sha256"]
        for name, workers, seed in (("one", 1, 3), ("two", 2, 3), ("other", 1, 4))
    ]
    assert hashes[0] == hashes[1]
    assert hashes[0]["images.npy"] != hashes[2]["images.npy"]


def test_raw_series_are_taken_for_the_true_scan(tmp_path, records):
    """The whole raw path: DICOM of the phantom through `prepare lidc` gives LIDC's own masks, a nodule under each."""
    scan = records[109]
    prepare_phantom_dicom(tmp_path / "raw", [[scan]], margin=0, workers=1)
    assert "SIMULATED" in (tmp_path / "raw" / "SIMULATED.txt").read_text()
    files = sorted((tmp_path / "raw" / scan.patient_id / scan.study_uid / scan.series_uid).iterdir())
    for file in files:
        data = pydicom.dcmread(file)
        assert "SIMULATED" in data.SeriesDescription and "SIMULATED" in data.ImageComments
    dataset = load_dataset(prepare_lidc(tmp_path / "raw", tmp_path / "set", workers=1))
    expected = [patch for nodule in nodules(scan) for patch in nodule_slices(scan, nodule)]
    np.testing.assert_array_equal(dataset.labels, np.stack([patch.masks for patch in expected]))
    phantom = ScanPhantom(scan)
    for image, patch in zip(dataset.images, expected):
        same_place = phantom.render(patch.z, patch.top, patch.left, 128, 128)  # same anatomy, other noise
        smooth = ndimage.uniform_filter(image[0].astype(float), 5) - ndimage.uniform_filter(same_place.astype(float), 5)
        assert np.abs(smooth).mean() < 15
    # a second call writes nothing again
    before = {file: file.stat().st_mtime_ns for file in files}
    prepare_phantom_dicom(tmp_path / "raw", [[scan]], margin=0, workers=1)
    assert {file: file.stat().st_mtime_ns for file in files} == before


def test_nodules_are_brighter_and_what_few_raters_saw_is_faint(phantoms):
    contrast: dict[int, list[float]] = {1: [], 2: [], 3: [], 4: []}
    for _, patch, image in phantoms:
        union = patch.masks.any(0)
        around = ndimage.binary_dilation(union, iterations=8) & ~ndimage.binary_dilation(union, iterations=3)
        around &= ndimage.uniform_filter(image.astype(float), 5) < -600
        if around.sum() > 30 and union.sum() >= 12:
            core = patch.masks.sum(0) == patch.masks.sum(0).max()
            contrast[int(patch.drawn.sum())].append(float(image[core].mean() - image[around].mean()))
    assert np.median(contrast[4]) > 1.5 * np.median(contrast[1]) > 0
    assert np.median(contrast[4]) > 150


def test_nobodys_outline_is_an_edge_of_the_picture(phantoms):
    """A rater's outline is no steeper than the one next to it, beyond what a blurred disc would show."""
    at, inside, outside = [], [], []
    for _, patch, image in phantoms:
        gradient = np.hypot(ndimage.sobel(image.astype(float), 0), ndimage.sobel(image.astype(float), 1)) / 8
        for mask in patch.masks.astype(bool):
            if mask.sum() < 30:
                continue

            def rim(region, gradient=gradient):
                return gradient[region & ~ndimage.binary_erosion(region)].mean()

            at.append(rim(mask))
            inside.append(rim(ndimage.binary_erosion(mask)))
            outside.append(rim(ndimage.binary_dilation(mask)))
    neighbours = (np.mean(inside) + np.mean(outside)) / 2
    assert np.mean(at) < 1.15 * neighbours  # a drawn-in edge has 1.5 and more, see below

    drawn_in = []
    for _, patch, _ in phantoms:
        mask = patch.masks[0].astype(bool)
        if mask.sum() >= 30:
            planted = np.where(mask, 0.0, -850.0)
            gradient = np.hypot(ndimage.sobel(planted, 0), ndimage.sobel(planted, 1)) / 8
            rims = [
                gradient[region & ~ndimage.binary_erosion(region)].mean()
                for region in (mask, ndimage.binary_erosion(mask), ndimage.binary_dilation(mask))
            ]
            drawn_in.append(2 * rims[0] / (rims[1] + rims[2]))
    assert np.mean(drawn_in) > 1.3


def test_no_threshold_gives_a_raters_mask(phantoms):
    best = []
    for _, patch, image in phantoms:
        smooth = ndimage.gaussian_filter(image.astype(float), 1.0)
        near = ndimage.binary_dilation(patch.masks.any(0), iterations=4)
        for mask in patch.masks.astype(bool):
            if mask.sum() >= 30:
                ious = [
                    (found & mask).sum() / (found | mask).sum()
                    for found in ((smooth > level) & near for level in range(-850, 50, 30))
                ]
                best.append(max(ious))
    assert max(best) < 0.97 and np.mean(best) < 0.85


def test_a_nodule_looks_alike_on_neighbouring_slices(phantoms):
    """Seed and type are the nodule's: its brightest part varies less from slice to slice than between nodules."""
    level: dict[tuple[int, int], list[float]] = {}
    for phantom, patch, image in phantoms:
        if patch.drawn.all() and patch.masks.all(0).sum() >= 20:
            level.setdefault((phantom.scan.scan_id, patch.nodule), []).append(float(image[patch.masks.all(0)].mean()))
    within = np.mean([np.std(values) for values in level.values() if len(values) > 1])
    between = np.std([np.mean(values) for values in level.values()])
    assert within < between


def test_every_nodule_lies_in_a_lung():
    places = [Place(150.0, 20.0, 0.0, 5.0), Place(-20.0, -90.0, 30.0, 8.0), Place(0.0, 0.0, -40.0, 12.0)]
    anatomy = Anatomy(0, 1, 350.0, (-150.0, 150.0), places)
    for place in places:
        assert anatomy.depth(np.array([[place.x]]), np.array([[place.y]]), place.z)[0, 0] > -2 * place.radius


def test_noise_is_a_function_of_the_place():
    x, y = np.arange(40.0)[None], np.arange(30.0)[:, None]
    whole = smooth_noise(x, y, 5.0, 20.0, (1, 2))
    np.testing.assert_allclose(smooth_noise(x[:, 10:20], y[5:9], 5.0, 20.0, (1, 2)), whole[5:9, 10:20], atol=1e-5)
    far = smooth_noise(np.linspace(0, 4000, 300)[None], np.linspace(0, 4000, 300)[:, None], 0.0, 20.0, (3,))
    assert abs(far.mean()) < 0.1 and abs(far.std() - 1) < 0.1


def test_command_line(tmp_path, capsys):
    assert cli.main(["prepare", "phantom", str(tmp_path / "set"), "--patches", "3", "--workers", "1"]) == 0
    assert "3 simulated patches" in capsys.readouterr().out
    for words, sentence in (
        (["--patches", "-1"], "--patches -1 found"),
        (["--patients", "2"], "--patients found without --dicom"),
        (["--dicom", "--patches", "3"], "--patches found beside --dicom"),
        (["--dicom", "--patients", "0"], "--patients 0 found"),
        (["--patches", "3"], "set"),  # it is there already
    ):
        assert cli.main(["prepare", "phantom", str(tmp_path / "set"), *words]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and sentence in error and "Traceback" not in error


@pytest.mark.slow
def test_disagreement_of_the_whole_database():
    """The figures that docs/data.md states, from every mask of the database."""
    import torch

    from aleatoric.metrics.functional import sample_diversity

    masks = [p.masks for scan in scan_records() for nodule in nodules(scan) for p in nodule_slices(scan, nodule)]
    assert len(masks) == 15_729
    drawn = np.array([[mask.any() for mask in case] for case in masks])
    assert round(1 - drawn.mean(), 3) == 0.369
    biased, distinct = [], []
    for start in range(0, len(masks), 500):
        block = torch.from_numpy(np.stack(masks[start : start + 500]))
        biased.append(sample_diversity(block))
        distinct.append(sample_diversity(block, unbiased=True))
    assert torch.cat(biased).mean().item() == pytest.approx(0.390, abs=5e-4)
    assert torch.cat(distinct).mean().item() == pytest.approx(0.519, abs=1e-3)
