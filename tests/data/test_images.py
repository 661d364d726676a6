"""Images for inference: which files, and that a voxel lies where DICOM says it does."""

from __future__ import annotations

import numpy as np
import pytest
from monai.data import Dataset, MetaTensor
from raw_dicom import coded_hu, write_slice

from aleatoric.data.images import DicomSeriesReader, LoadScand, find_images, output_name
from aleatoric.errors import InputError, input_error_in

SHAPE, COUNT, SPACING = (12, 9), 5, (0.8, 0.6)
RIGHT = np.array([0.0, 0.8, -0.6])  # direction of growing column, DICOM's LPS
DOWN = np.array([1.0, 0.0, 0.0])
FIRST, STEP = np.array([-100.0, 50.0, 20.0]), 2.5


def write_series(folder, skip=(), **options):
    """Slices in no useful order of names and numbers, along a normal that is no axis."""
    normal = np.cross(RIGHT, DOWN)
    for k in range(COUNT):
        if k not in skip:
            write_slice(
                folder / f"{(k * 3) % 7}.dcm",
                coded_hu(k, SHAPE),
                series_uid="1.2.3.4",
                patient_id="LIDC-1",
                position=FIRST + k * STEP * normal,
                orientation=(*RIGHT, *DOWN),
                spacing=SPACING,
                instance=COUNT - k,
                **options,
            )
    return folder


def dicom_position(row, column, k):
    """PS3.3 C.7.6.2.1.1: centre of a pixel in the patient's LPS, mm."""
    return FIRST + k * STEP * np.cross(RIGHT, DOWN) + column * SPACING[1] * RIGHT + row * SPACING[0] * DOWN


def test_a_voxel_lies_where_dicom_says(tmp_path):
    image = LoadScand("image")({"image": str(write_series(tmp_path / "a"))})["image"]
    assert isinstance(image, MetaTensor) and image.shape == (*SHAPE, COUNT)
    for row, column, k in [(0, 0, 0), (11, 0, 0), (0, 8, 0), (0, 0, 4), (5, 3, 2)]:
        ras = (image.affine.numpy() @ [row, column, k, 1])[:3]
        np.testing.assert_allclose(ras * [-1, -1, 1], dicom_position(row, column, k), atol=1e-6)
        assert image[row, column, k] == coded_hu(k, SHAPE)[row, column]
    assert image.meta["patient_id"] == "LIDC-1"


def test_a_reader_for_folders_alone(tmp_path):
    reader = DicomSeriesReader()
    assert reader.verify_suffix(str(tmp_path)) and not reader.verify_suffix(str(tmp_path / "x.nii"))


@pytest.mark.parametrize("through_dataset", [False, True])
def test_a_series_with_a_gap_is_refused_in_a_sentence(tmp_path, through_dataset):
    folder = str(write_series(tmp_path / "a", skip=(2,)))
    load = LoadScand("image")
    with pytest.raises(Exception) as caught:
        Dataset([{"image": folder}], load)[0] if through_dataset else load({"image": folder})
    cause = input_error_in(caught.value)
    assert cause is not None and "slices 5 mm apart" in str(cause) and "complete the series" in str(cause)


def test_a_file_that_nothing_reads_is_named(tmp_path):
    (tmp_path / "torn.nii.gz").write_bytes(b"\x1f\x8b torn")
    with pytest.raises(InputError, match="torn.nii.gz cannot be read .* export it again") as caught:
        LoadScand("image")({"image": str(tmp_path / "torn.nii.gz")})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_which_images_are_found(tmp_path):
    for name in ("b.nii.gz", "a.nii", "note.txt"):
        (tmp_path / name).touch()
    assert find_images(tmp_path) == [str(tmp_path / "a.nii"), str(tmp_path / "b.nii.gz")]
    assert find_images(tmp_path / "a.nii") == [str(tmp_path / "a.nii")]
    with pytest.raises(InputError, match="note.txt is no NIfTI file"):
        find_images(tmp_path / "note.txt")
    with pytest.raises(InputError, match="there is no .*nowhere"):
        find_images(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds neither NIfTI files nor a DICOM series"):
        find_images(tmp_path / "empty")


def test_each_folder_of_dicom_is_an_image(tmp_path):
    write_series(tmp_path / "in" / "one")
    write_series(tmp_path / "in" / "deeper" / "two")
    assert find_images(tmp_path / "in") == [str(tmp_path / "in" / "deeper" / "two"), str(tmp_path / "in" / "one")]


@pytest.mark.parametrize(
    ("meta", "name"),
    [
        ({"filename_or_obj": "/x/scan.nii.gz"}, "scan"),
        ({"filename_or_obj": "/x/a.b.nii"}, "a_b"),
        ({"filename_or_obj": "/x/CT", "patient_id": "LIDC-1", "series_uid": "1.2.34567"}, "LIDC-1_34567"),
        ({"filename_or_obj": "/x/CT", "patient_id": "", "series_uid": "1.23.45"}, "CT_23_45"),
        (
            {"filename_or_obj": "/x/CT", "patient_id": "../../etc/pass wd", "series_uid": "12345"},
            "______etc_pass_wd_12345",
        ),
        ({"filename_or_obj": "/x/Zürich 1.nii.gz"}, "Zürich_1"),
        (None, "image"),
    ],
)
def test_names_of_outputs(meta, name):
    assert output_name(meta, None) == {"subject": name, "idx": None}
