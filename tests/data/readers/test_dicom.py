"""DICOM files are known by their headers, ordered by position, and named when they are broken."""

from __future__ import annotations

import errno
import os

import numpy as np
import pydicom
import pytest
from pydicom.uid import BasicTextSRStorage, MediaStorageDirectoryStorage
from raw_dicom import coded_hu, write_slice

from aleatoric.data.readers.dicom import (
    LOWEST_HU,
    NotAnImage,
    dicom_files,
    group_series,
    read_header,
    read_headers,
    read_slice,
    read_volume,
    unique_positions,
)
from aleatoric.errors import InputError

SHAPE = (6, 8)


def series(folder, positions=(0.0, 2.5, 5.0), uid="1.2.3.4", **options):
    """Written in a shuffled order of names; slice i has coded_hu(i)."""
    return [
        write_slice(
            folder / f"{(i * 7) % 10}.dcm", coded_hu(i, SHAPE), series_uid=uid, position=(-10, -20, z), **options
        )
        for i, z in enumerate(positions)
    ]


def test_header_and_pixels(tmp_path):
    (path,) = series(tmp_path, positions=(3.5,), spacing=(0.5, 0.75), instance=9, patient_id="P")
    header = read_header(path)
    assert (header.patient_id, header.series_uid, header.instance, header.shape) == ("P", "1.2.3.4", 9, SHAPE)
    assert (header.spacing, header.position) == ((0.5, 0.75), (-10.0, -20.0, 3.5))
    np.testing.assert_array_equal(read_slice(path), coded_hu(0, SHAPE))


def test_hu_are_clipped_below(tmp_path):
    hu = np.full(SHAPE, -3024, dtype=np.int16)
    hu[0, 0] = 3071
    path = write_slice(tmp_path / "a.dcm", hu, series_uid="1.2", position=(0, 0, 0))
    assert (read_slice(path).min(), read_slice(path).max()) == (LOWEST_HU, 3071)
    assert read_slice(path, lowest=None).min() == -3024


def test_files_are_found_by_content(tmp_path):
    paths = series(tmp_path / "b")
    paths[0].rename(tmp_path / "b" / "IM0001")  # no extension, as some exports have
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "._0.dcm").write_bytes(b"what macOS leaves on foreign disks")
    (tmp_path / "broken.dcm").write_bytes(b"")
    assert [p.rsplit("/", 1)[1] for p in dicom_files(tmp_path)] == ["broken.dcm", "4.dcm", "7.dcm", "IM0001"]


def test_links_are_followed_once(tmp_path):
    series(tmp_path / "disk")
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "patient").symlink_to(tmp_path / "disk")
    (raw / "again").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "up").symlink_to(raw)
    assert len(list(dicom_files(raw))) == 3


def test_a_folder_that_may_not_be_listed_is_a_sentence(tmp_path, monkeypatch):
    """Not by permissions: the tests may run as root."""
    real = os.scandir

    def scandir(path):
        if str(path).endswith("secret"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    series(tmp_path / "secret")
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(InputError, match="secret cannot be listed"):
        list(dicom_files(tmp_path))


@pytest.mark.parametrize("kept", [0, 100, 300])
def test_a_damaged_header_is_a_sentence(tmp_path, kept):
    good, bad, _ = series(tmp_path)
    bad.write_bytes(bad.read_bytes()[:kept])
    headers, problems = read_headers([str(good), str(bad)])
    assert [header.path for header in headers] == [str(good)]
    assert len(problems) == 1 and str(bad) in problems[0] and problems[0].endswith("download it again.")


def test_cut_off_pixels_name_the_file(tmp_path):
    (path,) = series(tmp_path, positions=(0,))
    path.write_bytes(path.read_bytes()[:-10])
    read_header(path)
    with pytest.raises(InputError, match=str(path)):
        read_slice(path)


def test_duplicates_lowest_instance_first(tmp_path):
    second = write_slice(tmp_path / "a.dcm", coded_hu(1, SHAPE), series_uid="1", position=(0, 0, 5.0), instance=20)
    first = write_slice(tmp_path / "b.dcm", coded_hu(2, SHAPE), series_uid="1", position=(0, 0, 5.0), instance=3)
    below = write_slice(tmp_path / "c.dcm", coded_hu(3, SHAPE), series_uid="1", position=(0, 0, 2.5), instance=21)
    headers, _ = read_headers(dicom_files(tmp_path))
    groups = [[header.path for header in group] for group in unique_positions(headers)]
    assert groups == [[str(below)], [str(first), str(second)]]


def test_radiographs_have_no_place(tmp_path):
    series(tmp_path / "ct")
    series(tmp_path / "dx", positions=(0,), uid="9.9", modality="DX")
    assert list(group_series(read_headers(dicom_files(tmp_path))[0])) == ["1.2.3.4"]


def test_volume_is_sorted_and_placed(tmp_path):
    series(tmp_path, positions=(5.0, 0.0, 2.5), spacing=(0.5, 0.75))
    volume = read_volume(tmp_path)
    assert volume.image.shape == (*SHAPE, 3) and volume.image.dtype == np.int16
    np.testing.assert_array_equal(volume.image, np.stack([coded_hu(i, SHAPE) for i in (1, 2, 0)], axis=-1))
    # row 2, column 3, slice 1: LPS (-10 + 3 * .75, -20 + 2 * .5, 2.5); RAS negates the first two
    np.testing.assert_allclose(volume.affine @ (2, 3, 1, 1), (7.75, 19.0, 2.5, 1))


def test_affine_equals_nibabels_formula_for_an_oblique_series(tmp_path):
    """DICOM PS3.3 C.7.6.2.1-1: P = S + c * Xxyz * delta_j + r * Yxyz * delta_i, here along a rotated normal."""
    right, down = np.array([0.8, 0.6, 0.0]), np.array([0.0, 0.0, -1.0])
    normal = np.cross(right, down)
    for i in range(3):
        write_slice(
            tmp_path / f"{i}.dcm",
            coded_hu(i, SHAPE),
            series_uid="1",
            position=np.array([1.0, 2.0, 3.0]) + 4.0 * i * normal,
            orientation=(*right, *down),
            spacing=(0.5, 0.75),
        )
    volume = read_volume(tmp_path)
    for r, c, k in [(0, 0, 0), (1, 0, 0), (0, 1, 0), (5, 7, 2)]:
        lps = np.array([1.0, 2.0, 3.0]) + 4.0 * k * normal + c * 0.75 * right + r * 0.5 * down
        np.testing.assert_allclose((volume.affine @ (r, c, k, 1))[:3], lps * (-1, -1, 1), atol=1e-6)


def test_volume_refuses_what_is_not_one_series(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        read_volume(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds 0 DICOM images"):
        read_volume(tmp_path)
    series(tmp_path / "a")
    series(tmp_path / "b", uid="5.6")
    with pytest.raises(InputError, match=r"holds 2 series, one expected; choose one of 1\.2\.3\.4 \(3 images\), 5\.6"):
        read_volume(tmp_path)
    assert read_volume(tmp_path, "5.6").headers[0].series_uid == "5.6"
    with pytest.raises(InputError, match=r"not the series 7\.7"):
        read_volume(tmp_path, "7.7")


def test_volume_refuses_gaps_and_mixed_geometry(tmp_path):
    series(tmp_path / "gap", positions=(0.0, 2.5, 7.5, 10.0))
    with pytest.raises(InputError, match="slices 5 mm apart after .*, 2.5 mm expected"):
        read_volume(tmp_path / "gap")
    assert read_volume(tmp_path / "gap", allow_gaps=True).image.shape[-1] == 4
    series(tmp_path / "mixed")
    write_slice(tmp_path / "mixed" / "9.dcm", coded_hu(1, (4, 4)), series_uid="1.2.3.4", position=(-10, -20, 7.5))
    with pytest.raises(InputError, match="differs from"):
        read_volume(tmp_path / "mixed")


def test_volume_names_a_broken_file(tmp_path):
    paths = series(tmp_path)
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    with pytest.raises(InputError, match=str(paths[1])):
        read_volume(tmp_path)


def test_what_exports_put_beside_the_images_is_passed_over(tmp_path):
    for k in range(3):
        write_slice(tmp_path / f"{k}.dcm", coded_hu(k, (8, 8)), series_uid="1.2", position=(0, 0, 2.0 * k))
    alone = read_volume(tmp_path)
    for name, kind in {"DICOMDIR": MediaStorageDirectoryStorage, "sr.dcm": BasicTextSRStorage}.items():
        data = pydicom.dcmread(tmp_path / "0.dcm")
        for keyword in ("Rows", "Columns", "PixelData"):
            delattr(data, keyword)
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = kind
        data.save_as(tmp_path / name)
        with pytest.raises(NotAnImage, match="without an image"):
            read_header(tmp_path / name)
    np.testing.assert_array_equal(read_volume(tmp_path).image, alone.image)
    # an image that lost its size is a damaged file, not something else
    data = pydicom.dcmread(tmp_path / "0.dcm")
    del data.Rows
    data.save_as(tmp_path / "0.dcm")
    with pytest.raises(InputError, match="lacks its series UID or image size"):
        read_volume(tmp_path)
