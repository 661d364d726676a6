"""One file of a series is damaged or mislabelled: its patches are skipped and reported, or they are the right ones."""

from __future__ import annotations

import io
import json
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pydicom
import pytest
from damage import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raw_dicom import write_scan

from aleatoric.data.lidc.annotations import drawn_positions, scan_records
from aleatoric.data.lidc.command import prepare_lidc

FUZZ = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PIXELS = 512 * 512 * 2  # bytes at the end of a file
SCANS = {scan.scan_id: scan for scan in scan_records() if scan.scan_id in (4, 109)}


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Twelve slices around the two of scan 109 that were drawn on, three patches; padding makes stored values negative.

    Only the slices from the first to the last that is within reach: a series of whole length would say the same.
    """
    folder, scan = tmp_path_factory.mktemp("fuzz") / "raw", SCANS[109]
    drawn = np.flatnonzero(np.isin(scan.z_positions, drawn_positions(scan)))
    write_scan(folder, scan, scan.z_positions[drawn.min() - 5 : drawn.max() + 6], intercept=0)
    return folder


@pytest.fixture(scope="module")
def sound(series):
    return prepared(series)


def prepared(raw):
    """(case -> image, masks, place; the report)."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)  # nothing here has to outlive a power cut
        out = prepare_lidc(raw, Path(folder) / "out", workers=1)
        rows = (out / "cases.csv").read_text().splitlines()[1:]
        arrays = zip(np.load(out / "images.npy"), np.load(out / "labels.npy"))
        report = json.loads((out / "dataset.json").read_text())["report"]
    # the split depends on nothing here; the rest of the row is patient, slice, place
    return {row.split(",")[0]: (row, image, masks) for row, (image, masks) in zip(rows, arrays)}, report


@contextmanager
def spoiled(series, name, content):
    """The series with one file replaced, elsewhere, by hard links."""
    with tempfile.TemporaryDirectory(dir=series.parent) as folder:
        for path in series.iterdir():
            if path.name != name:
                os.link(path, Path(folder) / path.name)
        (Path(folder) / name).write_bytes(content)
        yield Path(folder)


def z_of(path):
    return float(pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient[2])


def names(series):
    """Files that were drawn on, and two others."""
    paths = sorted(series.iterdir())
    drawn = [path.name for path in paths if z_of(path) in drawn_positions(SCANS[109])]
    return [*drawn, *[path.name for path in paths if path.name not in drawn][:2]]


def assert_skipped_or_right(series, sound, name, content, pixels_too=True):
    with spoiled(series, name, content) as raw:
        got, report = prepared(raw)
    expected, z = sound[0], z_of(series / name)
    own = {case for case in expected if case.endswith(f"z{z:+.2f}")}
    assert set(expected) - own <= set(got) <= set(expected)
    for case, (row, image, masks) in got.items():
        assert row == expected[case][0]
        np.testing.assert_array_equal(masks, expected[case][2])
        if pixels_too or case not in own:
            np.testing.assert_array_equal(image, expected[case][1])
    if set(got) != set(expected):
        assert sum(report["skipped"].values()) >= len(expected) - len(got)


@FUZZ
@given(data=st.data())
def test_damage_in_the_header(series, sound, data):
    name = data.draw(st.sampled_from(names(series)))
    content = (series / name).read_bytes()
    assert_skipped_or_right(series, sound, name, data.draw(damaged(content, head=len(content) - PIXELS)))


@FUZZ
@given(data=st.data())
def test_damage_anywhere(series, sound, data):
    """Flipped bits of the pixels themselves cannot be noticed; no other patch may change."""
    name = data.draw(st.sampled_from(names(series)))
    content = data.draw(damaged((series / name).read_bytes()))
    assert_skipped_or_right(series, sound, name, content, pixels_too=False)


@st.composite
def labels(draw, series):
    """Tags that say something else: another slice's place, another series, another patient, another size."""
    other = z_of(series / draw(st.sampled_from(sorted(path.name for path in series.iterdir()))))
    scan = SCANS[4]
    choices = {
        "ImagePositionPatient": [-180.0, -170.0, other + draw(st.sampled_from([0, 0.01, 0.3]))],
        "SliceLocation": draw(st.floats(-1000, 1000)),
        "SeriesInstanceUID": draw(st.sampled_from([scan.series_uid, "1.2.3", ""])),
        "StudyInstanceUID": scan.study_uid,
        "PatientID": draw(st.sampled_from([scan.patient_id, ""])),
        "PixelSpacing": [0.5, 0.5],
        "ImageOrientationPatient": [1, 0, 0, 0, -1, 0],
        "RescaleIntercept": -1024,
        "RescaleSlope": 2,
        "Rows": draw(st.sampled_from([0, 256, 1024])),
        "SamplesPerPixel": 3,
        "BitsAllocated": 8,
        "NumberOfFrames": 2,
    }
    return {name: choices[name] for name in draw(st.sets(st.sampled_from(sorted(choices)), min_size=1, max_size=2))}


@FUZZ
@given(data=st.data())
def test_mislabelled(series, sound, data):
    name = data.draw(st.sampled_from(names(series)))
    header = pydicom.dcmread(series / name)
    tags = data.draw(labels(series))
    if {"ImagePositionPatient", "SliceLocation"} <= set(tags):
        del tags["SliceLocation"]  # a place and a second one that agrees with it: nothing could tell
    for tag, value in tags.items():
        setattr(header, tag, value)
    file = io.BytesIO()
    header.save_as(file)
    assert_skipped_or_right(series, sound, name, file.getvalue())
