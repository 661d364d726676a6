"""Which files are taken: those of slices that were drawn on, by UID and z, unless they contradict their series."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pydicom
import pytest
from raw_dicom import coded_hu, nodule_positions, write_scan

from aleatoric.data.lidc import files as lidc_files
from aleatoric.data.lidc.annotations import drawn_positions, nodule_slices, nodules, scan_records
from aleatoric.data.lidc.command import prepare_lidc
from aleatoric.data.lidc.files import find_files


@pytest.fixture(scope="module")
def scans():
    return {scan.scan_id: scan for scan in scan_records()}


@pytest.fixture(scope="module")
def series_once(tmp_path_factory, scans):
    """Twelve slices of scan 109 around its two that were drawn on."""
    folder = tmp_path_factory.mktemp("series")
    write_scan(folder, scans[109], around(scans[109], 5))
    return folder


@pytest.fixture
def series(series_once, tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    for path in series_once.iterdir():
        os.link(path, folder / path.name)
    return folder


def around(scan, margin):
    drawn = np.flatnonzero(np.isin(scan.z_positions, drawn_positions(scan)))
    return scan.z_positions[max(0, drawn.min() - margin) : drawn.max() + margin + 1]


def found_in(folder, scan, workers=1):
    return find_files(folder, {scan.series_uid: drawn_positions(scan)}, workers)


def file_at(folder, z) -> Path:
    return next(p for p in sorted(folder.iterdir()) if pydicom.dcmread(p).ImagePositionPatient[2] == z)


def change(path, **tags):
    data = pydicom.dcmread(path)
    for name, value in tags.items():
        setattr(data, name, value)
    path.unlink()  # other tests have the file by hard link
    data.save_as(path)


def prepared(raw, out):
    out = prepare_lidc(raw, out, workers=1)
    rows = [line.split(",")[0] for line in (out / "cases.csv").read_text().splitlines()[1:]]
    report = json.loads((out / "dataset.json").read_text())["report"]
    return dict(zip(rows, np.load(out / "images.npy"))), report


def test_drawn_positions_are_those_of_the_patches(scans):
    for scan_id in (4, 10, 205):
        assert set(nodule_positions(scans[scan_id])) <= set(drawn_positions(scans[scan_id]))
        assert set(drawn_positions(scans[scan_id])) <= set(scans[scan_id].z_positions)


def test_only_slices_that_were_drawn_on_are_remembered(series, scans):
    write_scan(series / "unknown", scans[4])  # its UID is not asked for
    found = found_in(series, scans[109])
    assert set(found.slices) == {scans[109].series_uid} and found.series == {scans[i].series_uid for i in (4, 109)}
    assert sorted(found.slices[scans[109].series_uid]) == drawn_positions(scans[109]).tolist()
    assert found.files == 14 and not found.contradictions


def test_paths_are_read_as_they_are_needed(series, scans, monkeypatch):
    """A few tasks are read ahead, never the whole list."""
    read, ahead = [], []
    paths = [str(path) for path in sorted(series.iterdir())] * 20

    def listed(_):
        for i, path in enumerate(paths):
            ahead.append(i - len(read))
            yield path

    real = lidc_files.read_headers
    monkeypatch.setattr(lidc_files, "dicom_files", listed)
    monkeypatch.setattr(lidc_files, "_CHUNK", 1)
    monkeypatch.setattr(lidc_files, "read_headers", lambda chunk: (read.extend(chunk), real(chunk))[1])
    assert found_in(Path("anywhere"), scans[109]).files == len(paths) == 240
    assert max(ahead) <= lidc_files._ONE_PROCESS + 1


def test_many_unreadable_files_are_counted_and_the_first_are_named(tmp_path, scans):
    for i in range(150):
        (tmp_path / f"{i:03d}.dcm").write_bytes(b"nothing")
    found = found_in(tmp_path, scans[109])
    assert found.unreadable == 150 and len(found.problems) == lidc_files._LISTED
    assert found.problems == sorted(found.problems) and "000.dcm" in found.problems[0]


@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ({"PatientID": "LIDC-IDRI-0001"}, "PatientID"),
        ({"StudyInstanceUID": "1.2.4"}, "StudyInstanceUID"),
        ({"PixelSpacing": [0.9, 0.9]}, "PixelSpacing"),
        ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "ImageOrientationPatient"),
        ({"SliceLocation": 3.0}, "SliceLocation"),
        ({"RescaleSlope": 2}, "RescaleSlope"),
        ({"RescaleIntercept": 0}, "RescaleSlope or RescaleIntercept"),
        ({"PixelRepresentation": 0}, "PixelRepresentation"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_file_that_contradicts_its_series_is_not_used(series, series_once, tmp_path, scans, tags, named):
    z = nodule_positions(scans[109])[0]
    plain, _ = prepared(series_once, tmp_path / "plain")
    change(file_at(series, z), **tags)
    images, report = prepared(series, tmp_path / "out")
    assert set(images) == {case for case in plain if not case.endswith(f"z{z:+.2f}")}
    assert report["skipped"] == {"nodule slice whose file contradicts its series": len(plain) - len(images)}
    assert len(report["problems"]) == 1 and named in report["problems"][0]
    for case, image in images.items():
        np.testing.assert_array_equal(image, plain[case])


@pytest.mark.parametrize("both_numbered_low", [False, True])
def test_a_slice_that_claims_anothers_place_does_not_get_it(series, series_once, tmp_path, scans, both_numbered_low):
    first, second = nodule_positions(scans[109])[:2]
    plain, _ = prepared(series_once, tmp_path / "plain")
    moved = {"ImagePositionPatient": [-180, -170, second]}
    change(file_at(series, first), **moved, **({"InstanceNumber": 0} if both_numbered_low else {}))
    images, report = prepared(series, tmp_path / "out")
    assert set(images) == {case for case in plain if case.endswith(f"z{second:+.2f}")}
    for case, image in images.items():
        np.testing.assert_array_equal(image, plain[case])
    assert report["skipped"] == {"nodule slice whose DICOM file is missing": len(plain) - len(images)}


def test_where_a_series_does_not_agree_nothing_is_expected(series, scans):
    """A tilted gantry's y is another in each slice; half of the slices may have come from another computer."""
    for i, path in enumerate(sorted(series.iterdir())):
        data = pydicom.dcmread(path)
        change(path, ImagePositionPatient=[-180, -170 + i, data.ImagePositionPatient[2]], RescaleSlope=1 + i % 2)
    assert not found_in(series, scans[109]).contradictions


def test_a_file_in_another_patients_folder_stays_with_its_own_series(series, tmp_path, scans):
    write_scan(tmp_path / "apart", scans[4])
    expected = prepared(tmp_path / "apart", tmp_path / "one")[0]
    misfiled = sorted((tmp_path / "apart").iterdir())[0]
    (series / "misfiled.dcm").write_bytes(misfiled.read_bytes())
    misfiled.unlink()
    (tmp_path / "apart").rename(series / "apart")
    images, report = prepared(series, tmp_path / "two")
    assert report["skipped"] == {} and report["read"] == 2
    for case, image in expected.items():
        np.testing.assert_array_equal(images[case], image)


def test_scans_with_gaps(tmp_path, scans):
    """0672's slices lack some z below its nodules, which shifts every index; 0514 has a gap and nobody drew on it."""
    wide, holed = scans[520], scans[983]
    assert (wide.patient_id, holed.patient_id) == ("LIDC-IDRI-0514", "LIDC-IDRI-0672")
    gap = np.diff(holed.z_positions).argmax()
    near = holed.z_positions[[gap - 1, gap, gap + 1, gap + 2]]
    write_scan(tmp_path / "raw" / "a", holed, sorted({*near, *drawn_positions(holed)}))
    write_scan(tmp_path / "raw" / "b", wide, wide.z_positions[:3])
    images, report = prepared(tmp_path / "raw", tmp_path / "out")
    assert report["read"] == 2 and report["skipped"] == {}
    expected = [patch for nodule in nodules(holed) for patch in nodule_slices(holed, nodule)]
    assert len(images) == len(expected) > 5
    for image, patch in zip(images.values(), expected):
        k = int(np.flatnonzero(holed.z_positions == patch.z).item())
        np.testing.assert_array_equal(image[0], coded_hu(k)[patch.top : patch.top + 128, patch.left : patch.left + 128])
