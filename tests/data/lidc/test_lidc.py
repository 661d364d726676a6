"""Raw LIDC to patches: the right pixels under the right masks from any raw folder, and never half a data set.

The raw series are written here: true UIDs and positions of four scans of the database, coded pixels, and only the
slices with nodules.
"""

from __future__ import annotations

import csv
import errno
import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from raw_dicom import coded_hu, nodule_positions, write_scan, write_slice

from aleatoric import cli
from aleatoric.data.lidc import command as lidc
from aleatoric.data.lidc.annotations import IMAGE_SIZE, NoduleSlice, nodule_slices, nodules, scan_records
from aleatoric.data.lidc.command import prepare_lidc
from aleatoric.data.lidc.resample import resample_patch
from aleatoric.data.prepared import preparation
from aleatoric.data.prepared import writer as prepared_writer
from aleatoric.errors import InputError

# scan id: 10 and 153 are one patient's (LIDC-IDRI-0151), 109 has two nodules; 2 to 4 nodule slices each
SCANS = (4, 10, 109, 153)


@pytest.fixture(scope="module")
def scans():
    records = {scan.scan_id: scan for scan in scan_records()}
    return [records[scan_id] for scan_id in SCANS]


@pytest.fixture(scope="module")
def patches(scans):
    """(scan, patch) that a preparation must give, by the order of units: patient, then scan."""
    return [
        (scan, patch)
        for scan in sorted(scans, key=lambda scan: (scan.patient_id, scan.scan_id))
        for nodule in nodules(scan)
        for patch in nodule_slices(scan, nodule)
    ]


@pytest.fixture(scope="module")
def raw_once(tmp_path_factory, scans):
    """A raw folder as unhelpful as NBIA's: folder names that say nothing, and things that are no CT slice."""
    root = tmp_path_factory.mktemp("raw")
    for i, scan in enumerate(scans):
        write_scan(root / "manifest" / f"NA-{i}" / "3000566.000000-NA-03192", scan)
    write_slice(
        root / "manifest" / "NA-0" / "dx.dcm", coded_hu(0, (9, 9)), series_uid="1.9", position=(), modality="DX"
    )
    write_slice(root / "other" / "ct.dcm", coded_hu(0, (9, 9)), series_uid="1.8", position=(0, 0, 0))
    (root / "LICENSE").write_text("CC BY 3.0")
    return root


@pytest.fixture
def raw(raw_once, tmp_path):
    """A copy to damage (hard links: no copy of the pixels)."""
    return Path(shutil.copytree(raw_once, tmp_path / "raw", copy_function=os.link))


def files_of(raw, scan):
    """z -> file of the scan's slices."""
    from aleatoric.data.readers.dicom import dicom_files, read_headers

    return {h.position[2]: Path(h.path) for h in read_headers(dicom_files(raw))[0] if h.series_uid == scan.series_uid}


def replace(path, content):
    """Not in place: other tests have the file by hard link."""
    path.unlink()
    path.write_bytes(content)


def contents(out):
    return {
        "images": np.load(out / "images.npy"),
        "labels": np.load(out / "labels.npy"),
        "rater_valid": np.load(out / "rater_valid.npy"),
        "cases": list(csv.DictReader(open(out / "cases.csv"))),
        "info": json.loads((out / "dataset.json").read_text()),
    }


def assert_same_set(a, b):
    first, second = contents(a), contents(b)
    for key in ("images", "labels", "rater_valid"):
        np.testing.assert_array_equal(first[key], second[key])
    assert first["cases"] == second["cases"]
    assert first["info"]["report"] == second["info"]["report"]


def test_pixels_lie_under_their_masks(raw_once, tmp_path, scans, patches):
    """Right series, right slice, right place: pixels are coded by slice, row and column."""
    out = prepare_lidc(raw_once, tmp_path / "out", workers=1)
    got = contents(out)
    assert got["images"].shape == (len(patches), 1, 128, 128) and got["images"].dtype == np.int16
    assert got["rater_valid"].all()
    for image, labels, case, (scan, patch) in zip(got["images"], got["labels"], got["cases"], patches):
        k = int(np.flatnonzero(scan.z_positions == patch.z).item())
        expected = coded_hu(k)[patch.top : patch.top + 128, patch.left : patch.left + 128]
        np.testing.assert_array_equal(image[0], expected)
        np.testing.assert_array_equal(labels, patch.masks)
        assert case["patient"] == scan.patient_id and float(case["slice"]) == pytest.approx(patch.z, rel=1e-4)
        assert int(case["raters"]) == patch.drawn.sum()
    report = got["info"]["report"]
    assert (report["read"], report["nodules"], report["skipped"], report["problems"]) == (4, 5, {}, [])
    assert got["info"]["patients"] == 3  # two scans of one patient
    assert not (tmp_path / "out.partial").exists()


def test_two_scans_of_a_patient_share_a_fold(raw_once, tmp_path):
    for seed in range(4):
        cases = contents(prepare_lidc(raw_once, tmp_path / f"out{seed}", workers=1, seed=seed))["cases"]
        assert len({case["fold"] for case in cases if case["patient"] == "LIDC-IDRI-0151"}) == 1
        assert len({case["series"] for case in cases if case["patient"] == "LIDC-IDRI-0151"}) == 2


def test_processes_give_the_same_set(raw_once, tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "_UNITS_PER_PROCESS", 2)
    assert_same_set(
        prepare_lidc(raw_once, tmp_path / "a", workers=1), prepare_lidc(raw_once, tmp_path / "b", workers=2)
    )


def test_missing_slices_are_counted_and_do_not_move_the_others(raw, raw_once, tmp_path, scans, patches):
    """pylidc's own volume would shift every later slice by one here."""
    scan = scans[3]
    gone = nodule_positions(scan)[1]
    files_of(raw, scan)[gone].unlink()
    got = contents(prepare_lidc(raw, tmp_path / "out", workers=1))
    kept = [(s, p) for s, p in patches if not (s is scan and p.z == gone)]
    assert len(got["images"]) == len(kept) == len(patches) - 1
    for image, (s, patch) in zip(got["images"], kept):
        k = int(np.flatnonzero(s.z_positions == patch.z).item())
        np.testing.assert_array_equal(image[0], coded_hu(k)[patch.top :, patch.left :][:128, :128])
    assert got["info"]["report"]["skipped"] == {"nodule slice whose DICOM file is missing": 1}


def test_damaged_files_are_named_and_their_slices_left_out(raw, tmp_path, capsys, scans, patches):
    cut_pixels, cut_header = (files_of(raw, scans[i])[nodule_positions(scans[i])[0]] for i in (1, 3))
    replace(cut_pixels, cut_pixels.read_bytes()[:-100])
    replace(cut_header, cut_header.read_bytes()[:400])
    assert cli.main(["prepare", "lidc", str(raw), str(tmp_path / "out"), "--workers", "1"]) == 3
    info = contents(tmp_path / "out")["info"]
    assert info["count"] == len(patches) - 2
    assert info["report"]["skipped"] == {
        "nodule slice whose pixels cannot be read": 1,
        "nodule slice whose DICOM file is missing": 1,
        "file that cannot be read": 1,
    }
    printed = capsys.readouterr().out
    assert str(cut_pixels.relative_to(raw)) in printed and str(cut_header) in printed


def test_duplicate_positions(raw, raw_once, tmp_path, scans):
    """The lower InstanceNumber is taken, unless it is damaged."""
    scan = scans[0]
    z = nodule_positions(scan)[0]
    options = {"series_uid": scan.series_uid, "patient_id": scan.patient_id, "position": (-180, -170, z)}
    write_slice(raw / "later.dcm", np.zeros((512, 512)), instance=10_000, **options)
    assert_images_equal = np.testing.assert_array_equal
    plain = contents(prepare_lidc(raw_once, tmp_path / "plain", workers=1))["images"]
    assert_images_equal(contents(prepare_lidc(raw, tmp_path / "later", workers=1))["images"], plain)
    earlier = write_slice(raw / "earlier.dcm", np.full((512, 512), 77), instance=0, **options)
    taken = contents(prepare_lidc(raw, tmp_path / "earlier", workers=1))["images"]
    assert (taken == 77).all(axis=(1, 2, 3)).sum() == 1
    earlier.write_bytes(earlier.read_bytes()[:-100])
    sound = contents(prepare_lidc(raw, tmp_path / "sound", workers=1))
    assert_images_equal(sound["images"], plain)
    assert sound["info"]["report"]["skipped"] == {}


def test_slices_of_another_size_are_left_out(raw, tmp_path, scans, patches):
    scan = scans[0]
    for z, path in files_of(raw, scan).items():
        path.unlink()
        write_slice(path, coded_hu(0, (256, 256)), series_uid=scan.series_uid, position=(0, 0, z))
    info = contents(prepare_lidc(raw, tmp_path / "out", workers=1))["info"]
    assert info["report"]["skipped"] == {"nodule slice of 256x256 pixels instead of 512x512": 2}
    assert info["count"] == len(patches) - 2


def refused(raw, out, *options):
    """The sentence of a command that ends with exit code 2 and leaves nothing."""
    before = set(out.parent.iterdir())
    with pytest.MonkeyPatch.context() as patch:
        lines: list[str] = []
        patch.setattr("builtins.print", lambda *words, **_: lines.append(" ".join(map(str, words))))
        assert cli.main(["prepare", "lidc", str(raw), str(out), "--workers", "1", *options]) == 2
    assert set(out.parent.iterdir()) == before
    assert len(lines) == 1 and lines[0].startswith("error: ") and lines[0].count("\n") == 0
    return lines[0]


def test_bad_raw_folders(tmp_path, scans):
    out = tmp_path / "out"
    assert "nowhere is not a folder" in refused(tmp_path / "nowhere", out)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "readme.txt").write_text("nothing")
    assert "holds no DICOM file" in refused(tmp_path / "empty", out)
    write_slice(tmp_path / "foreign" / "a.dcm", coded_hu(0, (9, 9)), series_uid="1.8", position=(0, 0, 0))
    assert "holds 1 CT series, for example 1.8, but none of the 1,018" in refused(tmp_path / "foreign", out)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.dcm").write_bytes(b"not DICOM")
    assert "1 files could not be read" in refused(tmp_path / "broken", out)
    # the scan is known, but none of its nodules' slices is there
    free = [z for z in scans[0].z_positions if z not in nodule_positions(scans[0])][:1]
    write_scan(tmp_path / "useless", scans[0], free)
    assert "nodule slice whose DICOM file is missing: 2" in refused(tmp_path / "useless", out)


def test_bad_options(raw_once, tmp_path):
    assert "spacing 0.0 mm found" in refused(raw_once, tmp_path / "out", "--spacing", "0")
    assert "spacing nan mm found" in refused(raw_once, tmp_path / "out", "--spacing", "nan")
    with pytest.raises(InputError, match="0 workers found"):
        prepare_lidc(raw_once, tmp_path / "out", workers=0)


def counting(monkeypatch, stop_after=None, how=None):
    """Count the slices read; after some, end as a kill or an interrupt would."""
    read, real = [], lidc.read_slice

    def read_slice(path, *args):
        if stop_after is not None and len(read) >= stop_after:
            how()
        read.append(path)
        return real(path, *args)

    monkeypatch.setattr(lidc, "read_slice", read_slice)
    return read


def _prepare_until_killed(raw, out, slices):
    with pytest.MonkeyPatch.context() as patch:
        counting(patch, slices, lambda: os.kill(os.getpid(), signal.SIGKILL))
        prepare_lidc(raw, out, workers=1)


def test_a_kill_leaves_no_data_set_and_the_next_run_goes_on(raw_once, tmp_path, monkeypatch, patches):
    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("no fork on this platform")
    out = tmp_path / "out"
    # the first scan has 2 slices, the second 3: killed within the second
    process = multiprocessing.get_context("fork").Process(target=_prepare_until_killed, args=(raw_once, out, 3))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    assert not out.exists() and len(list((tmp_path / "out.partial" / "units").glob("*.npz"))) == 1
    read = counting(monkeypatch)
    prepare_lidc(raw_once, out, workers=1)
    assert len(read) == len(patches) - 2  # the finished scan is not read again
    assert_same_set(out, prepare_lidc(raw_once, tmp_path / "uninterrupted", workers=1))
    assert not (tmp_path / "out.partial").exists()


def test_an_interrupt_is_exit_code_130(raw_once, tmp_path, monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        counting(patch, 3, interrupt)
        assert cli.main(["prepare", "lidc", str(raw_once), str(tmp_path / "out"), "--workers", "1"]) == 130
    assert "run it again to go on" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert cli.main(["prepare", "lidc", str(raw_once), str(tmp_path / "out"), "--workers", "1"]) == 0


def test_a_restart_still_reports_what_the_first_run_left_out(raw, tmp_path, monkeypatch, scans):
    first = scans[0]  # LIDC-IDRI-0101, the first unit
    files_of(raw, first)[nodule_positions(first)[0]].unlink()

    def interrupt():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        counting(patch, 2, interrupt)
        prepare_lidc(raw, tmp_path / "out", workers=1)
    report = contents(prepare_lidc(raw, tmp_path / "out", workers=1))["info"]["report"]
    assert report["skipped"] == {"nodule slice whose DICOM file is missing": 1}


def test_a_full_disk_is_a_sentence_and_the_next_run_goes_on(raw_once, tmp_path, monkeypatch, capsys):
    real, calls = os.fsync, []

    def fsync(descriptor):
        calls.append(descriptor)
        if len(calls) > 2:  # the working folder's description and the first scan still fit
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(prepared_writer.os, "fsync", fsync)
        assert cli.main(["prepare", "lidc", str(raw_once), str(out), "--workers", "1"]) == 2
    assert "error: no space left" in capsys.readouterr().err
    assert not out.exists() and len(list((tmp_path / "out.partial" / "units").glob("*"))) == 1
    assert_same_set(prepare_lidc(raw_once, out, workers=1), prepare_lidc(raw_once, tmp_path / "other", workers=1))


def test_other_options_do_not_mix(raw_once, tmp_path, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        counting(patch, 3, interrupt)
        prepare_lidc(raw_once, tmp_path / "out", workers=1)
    with pytest.raises(InputError, match="other settings .*spacing: .* found, 0.5 expected"):
        prepare_lidc(raw_once, tmp_path / "out", workers=1, spacing=0.5)


def test_an_existing_data_set_is_kept_unless_asked(raw_once, tmp_path):
    out = prepare_lidc(raw_once, tmp_path / "out", workers=1)
    with pytest.raises(InputError, match="exists already"):
        prepare_lidc(raw_once, out, workers=1)
    prepare_lidc(raw_once, out, workers=1, overwrite=True, seed=1)
    assert contents(out)["info"]["folds"]["seed"] == 1


def test_spacing_is_an_option_of_the_data_set(raw_once, tmp_path, patches):
    got = contents(prepare_lidc(raw_once, tmp_path / "out", workers=1, spacing=0.5))
    assert got["info"]["options"]["spacing"] == 0.5
    assert {case["spacing"] for case in got["cases"]} == {"0.5"}
    assert len(got["cases"]) == len(patches)
    # area in mm^2 is kept: over all masks within a few percent
    native = sum(patch.masks.sum() * scan.pixel_spacing**2 for scan, patch in patches)
    assert got["labels"].sum() * 0.25 == pytest.approx(native, rel=0.05)


def disc(row, column, radius=20.0):
    rows, columns = np.indices((IMAGE_SIZE, IMAGE_SIZE))
    mask = ((rows - row) ** 2 + (columns - column) ** 2 <= radius**2).astype(np.uint8)
    return NoduleSlice("p", "s", 0, 0.0, row, column, 0, 0, np.stack([mask] * 4), *np.ones((2, 4), dtype=bool))


def test_resampling_at_the_same_spacing_is_a_crop():
    patch, image = disc(200.0, 300.0), coded_hu(3)
    got, masks = resample_patch(image, patch, 0.7, 0.7)
    np.testing.assert_array_equal(got, image[136:264, 236:364])
    np.testing.assert_array_equal(masks, patch.masks[:, 136:264, 236:364])


@pytest.mark.parametrize("spacing", [0.35, 0.5, 1.1])
def test_resampling_samples_the_right_places(spacing):
    """A linear image is interpolated exactly; a disc keeps its area, its centre, and its place in the image."""
    patch, image = disc(200.0, 300.0), coded_hu(3)
    got, masks = resample_patch(image, patch, 0.7, spacing)
    offset = (np.arange(128) - 64) * spacing / 0.7
    expected = (200 + offset)[:, None] + 2 * (300 + offset) + 33 - 1000
    assert np.abs(got - expected).max() <= 0.51
    assert masks[0].sum() * spacing**2 == pytest.approx(patch.masks[0].sum() * 0.7**2, rel=0.03)
    np.testing.assert_allclose(np.argwhere(masks[0]).mean(axis=0), (64, 64), atol=0.5)


def test_resampled_windows_stay_in_the_image():
    image = coded_hu(0)
    got, masks = resample_patch(image, disc(8.0, 500.0, 5.0), 0.7, 0.35)
    assert got[0, -1] == image[0, 511] and masks.any()
    assert got.min() > lidc.LOWEST_HU
    # 128 * 5 mm is wider than the image: centred on it, air around
    wide, masks = resample_patch(image, disc(256.0, 256.0), 0.7, 5.0)
    assert (wide[0] == lidc.LOWEST_HU).all() and (wide[64, 64] > -900) and not masks[:, 0].any()


def test_real_series(tmp_path, real_data):
    """Two complete series: every slice found, and the nodules are denser than what surrounds them."""
    raw = real_data / "lidc"
    if not raw.is_dir():
        pytest.skip(f"no real LIDC series at {raw}")
    got = contents(prepare_lidc(raw, tmp_path / "out", workers=1))
    assert got["info"]["report"]["skipped"] == {}
    assert (got["info"]["count"], got["info"]["report"]["nodules"]) == (39, 5)
    image, agreed = got["images"][:, 0], got["labels"].all(axis=1)
    near = np.zeros_like(agreed)
    for shift in (-12, 12):
        for axis in (1, 2):
            near |= np.roll(agreed, shift, axis=axis)
    near &= ~got["labels"].any(axis=1)
    assert image[agreed].mean() > image[near].mean() + 300


def test_a_patch_says_where_it_lies_in_the_patient(raw, scans, patches, tmp_path):
    import pydicom

    scan = scans[0]
    out = prepare_lidc(raw, tmp_path / "out", workers=1)
    rows = [row for row in contents(out)["cases"] if row["series"] == scan.series_uid]
    files = files_of(raw, scan)
    for row in rows:
        header = pydicom.dcmread(files[float(row["slice"])], stop_before_pixels=True)
        right, down = (
            np.array(header.ImageOrientationPatient[:3], float),
            np.array(header.ImageOrientationPatient[3:], float),
        )
        between_rows, between_columns = (float(v) for v in header.PixelSpacing)
        point = np.array(header.ImagePositionPatient, float) + right * between_columns * float(row["column"])
        point = point + down * between_rows * float(row["row"])
        np.testing.assert_allclose([float(row["x"]), float(row["y"])], point[:2], atol=0.06)
    assert rows
