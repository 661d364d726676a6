"""The readers' one law: the value at a point of the world does not depend on the file that holds it."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
import tifffile
from PIL import Image
from raw_dicom import write_slice
from written_images import AFFINE, SHAPE, orientations, reoriented, seg_file, series, write_nifti, write_nrrd

from aleatoric.data.readers.class_maps import class_map
from aleatoric.data.readers.dicom import read_volume
from aleatoric.data.readers.geometry import onto_grid
from aleatoric.data.readers.raw_images import RawImage
from aleatoric.data.readers.scans import Scan, find_kind, read_label, read_scan
from aleatoric.errors import InputError

ORIENTATIONS = list(orientations())


@pytest.fixture
def volume() -> np.ndarray:
    """(5, 6, 7) int16, every voxel another value."""
    return np.random.default_rng(0).permutation(np.prod(SHAPE)).reshape(SHAPE).astype(np.int16) - 100


@pytest.fixture
def label() -> np.ndarray:
    """(5, 6, 7) uint8, classes 0 to 2 that differ under every flip and permutation; empty border slices."""
    array = np.zeros(SHAPE, np.uint8)
    array[1:3, 2:5, 2] = 1
    array[3, 2, 5] = 1
    array[4, 5, 3:5] = 2
    return array


@pytest.fixture
def scan(tmp_path: Path, volume: np.ndarray) -> Scan:
    return read_scan(write_nifti(tmp_path / "scan.nii.gz", volume, AFFINE))


def _at(array: np.ndarray, affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values of (a, b, c) at points (n, 3) in RAS mm: one voxel at a time, 0 outside."""
    values = []
    for point in points:
        index = np.rint(np.linalg.solve(affine, [*point, 1.0])[:3]).astype(int)
        inside = all(0 <= i < n for i, n in zip(index, array.shape))
        values.append(array[tuple(index)] if inside else 0)
    return np.array(values)


def _centres(affine: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    index = np.indices(shape).reshape(3, -1)
    return (affine[:3, :3] @ index + affine[:3, 3:]).T


# --- one volume, many files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".nhdr"])
def test_orientation_of_the_file_does_not_matter(tmp_path: Path, volume: np.ndarray, suffix: str) -> None:
    for k, ornt in enumerate(ORIENTATIONS):
        array, affine = reoriented(volume, AFFINE, ornt)
        path = tmp_path / f"{k}{suffix}"
        if "nii" in suffix:
            write_nifti(path, array, affine)
        else:
            space = ("left-posterior-superior", "right-anterior-superior", "left-anterior-superior")[k % 3]
            write_nrrd(path, array, affine, space)
        found = read_scan(path)
        np.testing.assert_array_equal(found.array[0], volume)
        np.testing.assert_allclose(found.affine, AFFINE, atol=1e-4)
        np.testing.assert_allclose(found.spacing, (0.8, 0.7, 2.5), atol=1e-5)
        assert found.array.dtype == np.int16 and found.kind == find_kind(path)


def test_a_dicom_series_is_the_same_volume(tmp_path: Path, volume: np.ndarray) -> None:
    found = read_scan(series(tmp_path / "ct", volume))
    np.testing.assert_array_equal(found.array[0], volume)
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-6)
    assert found.kind == "DICOM series"
    expected = {
        "patient_id": "somebody",
        "modality": "CT",
        "series_uid": "1.2.3.4",
        "frame_of_reference_uid": "1.2.3.9",
    }
    assert expected.items() <= found.info.items()


def test_sagittal_and_coronal_series_turn_too(tmp_path: Path, volume: np.ndarray) -> None:
    for k, order in enumerate([(2, 0, 1), (1, 2, 0)]):
        array, affine = reoriented(volume, AFFINE, np.array([order, (1, -1, 1)], float).T)
        if np.linalg.det(affine[:3, :3]) * np.linalg.det(AFFINE[:3, :3]) < 0:  # DICOM's slices are right-handed
            array, affine = reoriented(array, affine, np.array([(0, 1, 2), (1, 1, -1)], float).T)
        found = read_scan(series(tmp_path / str(k), array, affine))
        np.testing.assert_array_equal(found.array[0], volume)
        np.testing.assert_allclose(found.affine, AFFINE, atol=1e-5)


def test_every_voxel_keeps_its_place(tmp_path: Path, volume: np.ndarray) -> None:
    """Against a reader of one point at a time, far from any axis."""
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * (0.9, 1.3, 4.0), (3, -70, 200)
    found = read_scan(write_nifti(tmp_path / "oblique.nii", volume, affine))
    points = _centres(affine, SHAPE)
    np.testing.assert_array_equal(_at(found.array[0], found.affine, points), volume.reshape(-1))
    steps = found.affine[:3, :3] / np.linalg.norm(found.affine[:3, :3], axis=0)
    assert all(steps[axis, k] * sign > 0 for k, (axis, sign) in enumerate([(1, -1), (0, -1), (2, 1)]))


@pytest.mark.parametrize(
    ("target", "axes"),
    [("axial", ((1, -1), (0, -1))), ("coronal", ((2, -1), (0, -1))), ("sagittal", ((2, -1), (1, -1)))],
)
def test_one_slice_is_shown_as_dicom_stores_it(tmp_path: Path, volume: np.ndarray, target: str, axes: tuple) -> None:
    cut = {"axial": np.s_[:, :, 2:3], "coronal": np.s_[2:3], "sagittal": np.s_[:, 2:3]}[target]
    part, start = (
        volume[cut],
        [s.start if s.start else 0 for s in (*cut, slice(None))[:3]] if isinstance(cut, tuple) else [2, 0, 0],
    )
    affine = AFFINE.copy()
    affine[:, 3] = AFFINE @ [*start, 1]
    for k, ornt in enumerate(ORIENTATIONS[::5]):
        found = read_scan(write_nifti(tmp_path / f"{k}.nii", *reoriented(part, affine, ornt)))
        assert found.array.ndim == 3 and len(found.spacing) == 2
        for column, (axis, sign) in enumerate(axes):
            assert found.affine[axis, column] * sign > 0.5
        points = _centres(found.affine, (*found.array.shape[1:], 1))
        np.testing.assert_array_equal(_at(volume, AFFINE, points), found.array.reshape(-1))


# --- what each format may hold ---------------------------------------------------------------------------------------


def test_nifti_that_says_nothing_of_geometry(tmp_path: Path, volume: np.ndarray) -> None:
    for name, affine in (("codes", None), ("identity", np.eye(4))):
        found = read_scan(write_nifti(tmp_path / f"{name}.nii.gz", volume, affine))
        assert found.affine is None and found.spacing is None
        np.testing.assert_array_equal(found.array[0], volume)


def test_nifti_shapes(tmp_path: Path, volume: np.ndarray) -> None:
    plane = volume[:, :, 0]
    for k, (array, expected) in enumerate(
        [
            (plane, plane[None]),
            (plane[:, :, None], plane[None]),
            (volume[..., None] + np.arange(3, dtype=np.int16), np.stack([volume, volume + 1, volume + 2])),
            (plane[:, :, None, None] + np.arange(2, dtype=np.int16), np.stack([plane, plane + 1])),
            (volume[:, :, :, None, None] + np.arange(2, dtype=np.int16), np.stack([volume, volume + 1])),
        ]
    ):
        for affine in (None, AFFINE):
            found = read_scan(write_nifti(tmp_path / f"{k}.nii", array, affine))
            np.testing.assert_array_equal(found.array, expected)
    with pytest.raises(InputError, match="axes"):
        read_scan(write_nifti(tmp_path / "6.nii", np.zeros((2, 3, 4, 2, 2), np.int16), AFFINE))


def test_nifti_scale_units_and_byte_order(tmp_path: Path, volume: np.ndarray) -> None:
    import nibabel as nib

    image = nib.Nifti1Image(volume.astype(">i2"), AFFINE, nib.Nifti1Header(endianness=">"))
    image.header.set_slope_inter(0.5, -3)
    image.header.set_xyzt_units("micron")
    image.to_filename(tmp_path / "scaled.nii")
    found = read_scan(tmp_path / "scaled.nii")
    stored = nib.load(tmp_path / "scaled.nii").get_fdata()
    np.testing.assert_allclose(found.array[0], stored, rtol=1e-6)
    assert found.array.dtype == np.float32 and found.spacing == pytest.approx((0.8e-3, 0.7e-3, 2.5e-3), rel=1e-5)
    rgb = np.zeros((4, 3, 1), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["G"] = 7
    found = read_scan(write_nifti(tmp_path / "rgb.nii", rgb, None))
    assert found.array.shape == (3, 4, 3) and found.array[:, 0, 0].tolist() == [0, 7, 0]
    pair = nib.Nifti1Pair(volume, AFFINE)
    pair.to_filename(tmp_path / "pair.img")
    for name in ("pair.img", "pair.hdr"):
        np.testing.assert_array_equal(read_scan(tmp_path / name).array[0], volume)
    nib.Nifti2Image(volume, AFFINE).to_filename(tmp_path / "two.nii.gz")
    np.testing.assert_array_equal(read_scan(tmp_path / "two.nii.gz").array[0], volume)


def test_pictures_keep_their_values(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    grey8, grey16 = rng.integers(0, 256, (9, 8)).astype(np.uint8), rng.integers(0, 65536, (9, 8)).astype(np.uint16)
    floats, colour = rng.normal(size=(9, 8)).astype(np.float32), rng.integers(0, 256, (9, 8, 4)).astype(np.uint8)
    Image.fromarray(grey8).save(tmp_path / "8.png")
    Image.fromarray(grey16).save(tmp_path / "16.png")
    Image.fromarray(colour).save(tmp_path / "rgba.png")
    Image.fromarray(colour[..., :2].copy(), mode="LA").save(tmp_path / "la.png")
    Image.fromarray(grey8 > 99).save(tmp_path / "1.png")
    Image.fromarray(colour[..., :3]).quantize(5).save(tmp_path / "palette.png")
    Image.fromarray(grey8).save(tmp_path / "lzw.tif", compression="tiff_lzw")
    tifffile.imwrite(tmp_path / "f.tif", floats)
    tifffile.imwrite(tmp_path / "16.tif", grey16, compression="zlib")
    tifffile.imwrite(tmp_path / "rgb16.tif", np.stack([grey16] * 3, -1) // [[[1, 2, 3]]], photometric="rgb")
    tifffile.imwrite(tmp_path / "white.tif", grey8, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "planar.tif", np.moveaxis(colour[..., :3], -1, 0), photometric="rgb")
    expected = {
        "8.png": grey8[None],
        "16.png": grey16[None],
        "rgba.png": np.moveaxis(colour[..., :3], -1, 0),
        "la.png": colour[None, ..., 0],
        "1.png": (grey8 > 99)[None],
        "palette.png": np.moveaxis(np.array(Image.open(tmp_path / "palette.png").convert("RGB")), -1, 0),
        "lzw.tif": grey8[None],
        "f.tif": floats[None],
        "16.tif": grey16[None],
        "rgb16.tif": np.stack([grey16, grey16 // 2, grey16 // 3]),
        "white.tif": 255 - grey8[None],
        "planar.tif": np.moveaxis(colour[..., :3], -1, 0),
    }
    for name, array in expected.items():
        found = read_scan(tmp_path / name)
        np.testing.assert_array_equal(found.array, array, err_msg=name)
        assert found.affine is None and found.spacing is None and found.kind in ("PNG", "TIFF")
    assert read_scan(tmp_path / "16.png").array.dtype == np.uint16
    assert read_scan(tmp_path / "f.tif").array.dtype == np.float32


def test_pages_of_a_tiff_are_slices(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 256, (5, 9, 8)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    tifffile.imwrite(tmp_path / "imagej.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    pages = [Image.fromarray(page) for page in stack]
    pages[0].save(tmp_path / "pillow.tif", save_all=True, append_images=pages[1:])
    pages[0].save(tmp_path / "lzw.tif", save_all=True, append_images=pages[1:], compression="tiff_lzw")
    for name in ("a.tif", "imagej.tif", "pillow.tif", "lzw.tif"):
        np.testing.assert_array_equal(read_scan(tmp_path / name).array[0], np.moveaxis(stack, 0, -1), err_msg=name)
    channels = np.stack([stack, stack // 2], axis=1)  # Z, C, Y, X
    tifffile.imwrite(tmp_path / "channels.tif", channels, imagej=True, metadata={"axes": "ZCYX"})
    np.testing.assert_array_equal(read_scan(tmp_path / "channels.tif").array, channels.transpose(1, 2, 3, 0))


def test_a_jpeg_is_as_pillow_decodes_it(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    Image.fromarray(picture).save(tmp_path / "c.jpg")
    Image.fromarray(picture[..., 0]).save(tmp_path / "g.jpeg")
    Image.fromarray(picture).convert("CMYK").save(tmp_path / "k.jpg")
    assert [read_scan(tmp_path / n).array.shape for n in ("c.jpg", "g.jpeg", "k.jpg")] == [
        (3, 16, 24),
        (1, 16, 24),
        (3, 16, 24),
    ]
    np.testing.assert_array_equal(
        read_scan(tmp_path / "c.jpg").array, np.moveaxis(np.array(Image.open(tmp_path / "c.jpg")), -1, 0)
    )


def test_nrrd_channels_spaces_and_a_plane(tmp_path: Path, volume: np.ndarray) -> None:
    two = np.stack([volume, volume + 1])
    np.testing.assert_array_equal(read_scan(write_nrrd(tmp_path / "list.nrrd", two, AFFINE)).array, two)
    bare = read_scan(write_nrrd(tmp_path / "bare.nrrd", volume, None))
    assert bare.affine is None
    np.testing.assert_array_equal(bare.array[0], volume)
    plane = {
        "space": "LPS",
        "space directions": [[0.5, 0, 0], [0, 0.25, 0]],
        "space origin": [-3, 4, 9],
        "kinds": ["domain", "domain"],
    }
    found = read_scan(write_nrrd(tmp_path / "plane.nrrd", volume[:, :, 0], None, more=plane))
    np.testing.assert_array_equal(found.array[0], volume[:, :, 0].T)  # NRRD's first axis runs to the left
    np.testing.assert_allclose(found.affine @ [0, 0, 0, 1], [3, -4, 9, 1])
    assert found.spacing == (0.25, 0.5)
    with pytest.raises(InputError, match="kinds"):
        read_scan(write_nrrd(tmp_path / "four.nrrd", two, None))
    with pytest.raises(InputError, match="without time"):
        time = {"space": "right-anterior-superior-time", "space directions": np.eye(4)[:3], "kinds": ["domain"] * 3}
        read_scan(write_nrrd(tmp_path / "time.nrrd", volume, None, more=time))


def test_single_dicom_files(tmp_path: Path, volume: np.ndarray) -> None:
    folder = series(tmp_path / "ct", volume)
    one = read_scan(folder / "005.dcm")  # the second slice
    np.testing.assert_array_equal(one.array[0], volume[:, :, 1])
    np.testing.assert_allclose(one.affine[:3, [0, 1, 3]], np.c_[AFFINE[:3, :2], (AFFINE @ [0, 0, 1, 1])[:3]], atol=1e-6)
    flat = write_slice(tmp_path / "dx" / "a.dcm", volume[:, :, 0], series_uid="7.7", position=(0, 0, 0), modality="DX")
    for path in (flat, flat.parent):
        found = read_scan(path)
        assert found.affine is None and found.spacing == (0.7, 0.7) and found.array.shape == (1, 5, 6)


def test_dicom_values_that_int16_cannot_hold(tmp_path: Path, volume: np.ndarray) -> None:
    folder = series(tmp_path / "pet", volume, modality="PT")
    for file in folder.glob("*.dcm"):
        data = pydicom.dcmread(file)
        data.RescaleSlope = 0.25
        data.save_as(file)
    found = read_scan(folder)
    assert found.array.dtype == np.float32
    np.testing.assert_allclose(found.array[0], (volume + 1024.0) * 0.25 - 1024)
    assert read_volume(folder).image.dtype == np.float32


def test_several_files_are_channels(tmp_path: Path, volume: np.ndarray) -> None:
    a = write_nifti(tmp_path / "a.nii", volume, AFFINE)
    b = write_nrrd(tmp_path / "b.nrrd", *reoriented(volume + 1, AFFINE, ORIENTATIONS[17]))
    found = read_scan([a, str(b)])
    np.testing.assert_array_equal(found.array, np.stack([volume, volume + 1]))
    assert found.info["files"] == [str(a), str(b)]
    shifted = AFFINE.copy()
    shifted[0, 3] += 0.5
    with pytest.raises(InputError, match="another grid"):
        read_scan([a, write_nifti(tmp_path / "c.nii", volume, shifted)])
    with pytest.raises(InputError, match="size"):
        read_scan([a, write_nifti(tmp_path / "d.nii", volume[:4], AFFINE)])
    with pytest.raises(InputError, match="does not say where it lies"):
        read_scan([a, write_nifti(tmp_path / "e.nii", volume, None)])
    with pytest.raises(InputError, match="no files"):
        read_scan([])


# --- labels onto the image's grid ------------------------------------------------------------------------------------


def test_a_label_in_any_orientation(tmp_path: Path, scan: Scan, label: np.ndarray) -> None:
    for k, ornt in enumerate(ORIENTATIONS):
        array, affine = reoriented(label, AFFINE, ornt)
        path = (
            write_nifti(tmp_path / f"{k}.nii", array, affine)
            if k % 2
            else write_nrrd(tmp_path / f"{k}.nrrd", array, affine)
        )
        found = read_label(path, scan)
        np.testing.assert_array_equal(found.array, label)
        assert found.array.dtype == np.uint8 and not [n for n in found.notes if "orientation" not in n]


@pytest.mark.parametrize("k", [0, 13, 30, 47])
def test_a_cropped_label_lands_where_it_was(tmp_path: Path, scan: Scan, label: np.ndarray, k: int) -> None:
    """3D Slicer's .seg.nrrd holds the smallest box around the segments, in its own order of axes."""
    affine = AFFINE.copy()
    affine[:, 3] = AFFINE @ [1, 2, 2, 1]
    array, affine = reoriented(label[1:, 2:, 2:6], affine, ORIENTATIONS[k])
    names = {"Segment0_ID": "a", "Segment0_Name": "Tumor", "Segment0_LabelValue": "1", "Segment0_Layer": "0"}
    names |= {"Segment1_ID": "b", "Segment1_Name": "vessel", "Segment1_LabelValue": "2", "Segment1_Layer": "0"}
    path = write_nrrd(tmp_path / "crop.seg.nrrd", array, affine, more=names)
    path.write_bytes(path.read_bytes().replace(b"Tumor", "Tumör".encode()))  # pynrrd writes ASCII only
    found = read_label(path, scan)
    np.testing.assert_array_equal(found.array, label)
    assert found.names == {1: "Tumör", 2: "vessel"} and any("part of the image" in note for note in found.notes)
    only = read_label(path, scan, segment="vessel")
    np.testing.assert_array_equal(only.array, label == 2)
    assert only.names == {1: "vessel"}
    with pytest.raises(InputError, match=r"no segment 'liver'.*vessel"):
        read_label(path, scan, segment="liver")


def test_a_label_that_sticks_out(tmp_path: Path, scan: Scan, label: np.ndarray) -> None:
    wide = np.pad(label, 2, mode="edge")
    affine = AFFINE.copy()
    affine[:, 3] = AFFINE @ [-2, -2, -2, 1]
    found = read_label(write_nifti(tmp_path / "wide.nii", wide, affine), scan)
    np.testing.assert_array_equal(found.array, label)
    outside = np.count_nonzero(wide) - np.count_nonzero(label)
    assert outside and any(note.startswith(f"{outside} labelled voxels lie outside") for note in found.notes)
    clean = read_label(write_nifti(tmp_path / "clean.nii", np.pad(label, 2), affine), scan)
    np.testing.assert_array_equal(clean.array, label)
    assert not clean.notes


@pytest.mark.parametrize("far", [(100, 0, 0), (0, -50, 0), (0, 0, 7)])
@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_a_label_elsewhere(tmp_path: Path, scan: Scan, label: np.ndarray, far: tuple, fraction: float) -> None:
    affine = AFFINE.copy()
    affine[:, 3] = AFFINE @ [*(np.array(far) + fraction), 1]
    with pytest.raises(InputError, match=r"far\.nii: the label lies elsewhere than the image"):
        read_label(write_nifti(tmp_path / "far.nii", label, affine), scan)


def test_all_that_is_labelled_lies_outside(tmp_path: Path, scan: Scan) -> None:
    array = np.zeros(SHAPE, np.uint8)
    array[0] = 1
    for shift in (-2.0, -2.3):
        affine = AFFINE.copy()
        affine[:, 3] = AFFINE @ [shift, 0, 0, 1]
        with pytest.raises(InputError, match="elsewhere"):
            read_label(write_nifti(tmp_path / "off.nii", array, affine), scan)
    empty = read_label(write_nifti(tmp_path / "empty.nii", array * 0, affine), scan)  # nothing drawn: a valid rater
    assert not empty.array.any()


@pytest.mark.parametrize("seed", range(6))
def test_resampling_is_the_nearest_voxel(tmp_path: Path, scan: Scan, seed: int) -> None:
    """Against a twin that asks for one voxel at a time."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 4, (8, 7, 9)).astype(np.uint8)
    turn, _ = np.linalg.qr(np.eye(3) + 0.2 * rng.normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = turn @ (AFFINE[:3, :3] * rng.uniform(0.6, 1.2, 3))
    affine[:3, 3] = (AFFINE @ [2.0, 2.5, 3.0, 1])[:3] - affine[:3, :3] @ [3.3, 3.1, 4.2]
    path = write_nifti(tmp_path / "other.nii", classes, affine)
    import nibabel as nib

    stored = nib.load(path).affine
    found = read_label(path, scan)
    expected = _at(classes, stored, _centres(scan.affine, SHAPE)).reshape(SHAPE)
    np.testing.assert_array_equal(found.array, expected)
    assert any(note.startswith("resampled (nearest voxel)") for note in found.notes)
    assert (expected == 0).any() and len(np.unique(expected)) == 4


def test_rounded_headers_are_the_same_lattice(tmp_path: Path, scan: Scan, label: np.ndarray) -> None:
    affine = AFFINE + np.random.default_rng(0).uniform(-1e-3, 1e-3, (4, 4))
    affine[3] = (0, 0, 0, 1)
    found = read_label(write_nifti(tmp_path / "rounded.nii", label, affine), scan)
    np.testing.assert_array_equal(found.array, label)
    assert not found.notes
    half = AFFINE.copy()
    half[:, 3] = AFFINE @ [0.2, 0, 0, 1]
    found = read_label(write_nifti(tmp_path / "half.nii", label, half), scan)
    np.testing.assert_array_equal(found.array, label)
    assert "resampled" in found.notes[0]


def test_a_class_that_resampling_loses_is_named() -> None:
    label = np.zeros((20, 20, 1), np.uint8)
    label[3, 3], label[0:2, 0:2] = 5, 1
    _, notes = onto_grid(label, np.eye(4), (5, 5, 1), np.diag([4.0, 4, 1, 1]), Path("x"))
    assert any("[5] have no voxel left" in note for note in notes)


def test_without_geometry_the_order_of_the_file_counts(tmp_path: Path, volume: np.ndarray, label: np.ndarray) -> None:
    turned_scan = read_scan(write_nifti(tmp_path / "ras.nii", *reoriented(volume, AFFINE, ORIENTATIONS[29])))
    stored, _ = reoriented(label, AFFINE, ORIENTATIONS[29])
    found = read_label(write_nifti(tmp_path / "silent.nii", stored, None), turned_scan)
    np.testing.assert_array_equal(found.array, label)
    assert "does not say where it lies" in found.notes[0]
    silent = read_scan(write_nifti(tmp_path / "plain.nii", volume, None))
    found = read_label(write_nifti(tmp_path / "placed.nii", label, AFFINE), silent)
    np.testing.assert_array_equal(found.array, label)
    assert "image does not say where it lies" in found.notes[0]
    assert read_label(write_nifti(tmp_path / "both.nii", label, None), silent).notes == []


def test_transposition_is_never_guessed(tmp_path: Path) -> None:
    picture, square = np.zeros((9, 8), np.uint8), np.zeros((8, 8), np.uint8)
    Image.fromarray(picture).save(tmp_path / "image.png")
    Image.fromarray(picture.T).save(tmp_path / "label.png")
    Image.fromarray(square).save(tmp_path / "square.png")
    scan = read_scan(tmp_path / "image.png")
    with pytest.raises(InputError, match="transposed"):
        read_label(tmp_path / "label.png", scan)
    with pytest.raises(InputError, match=r"size \(8, 8\), \(9, 8\)"):
        read_label(tmp_path / "square.png", scan)
    with pytest.raises(InputError, match="square"):
        read_label(write_nifti(tmp_path / "s.nii", square, None), read_scan(tmp_path / "square.png"))
    found = read_label(write_nifti(tmp_path / "o.nii", picture, None), scan)
    assert "NIfTI label of a PNG image" in found.notes[0]


# --- what a label's values may be ------------------------------------------------------------------------------------


def _class_map(
    array: np.ndarray, kind: str = "PNG", segment: int | None = None, **info: object
) -> tuple[np.ndarray, list[str]]:
    array = array if array.ndim == 4 else array[None, :, :, None]
    result, _, notes = class_map(RawImage(array, None, None, kind, {"colour": False, **info}), Path("label"), segment)
    return result[..., 0], notes


def test_label_values() -> None:
    mask = np.array([[0, 1], [1, 0]])
    for dtype in (np.uint8, np.int16, np.int64, np.float32, np.float64, ">i2"):
        np.testing.assert_array_equal(_class_map((2 * mask).astype(dtype))[0], 2 * mask)
    for full, dtype in ((255, np.uint8), (255, np.float32), (65535, np.uint16)):
        for pattern in (mask, np.ones_like(mask)):
            found, notes = _class_map((full * pattern).astype(dtype))
            np.testing.assert_array_equal(found, pattern)
            assert notes == [f"values 0/{full} read as 0/1"]
    np.testing.assert_array_equal(_class_map((255 * mask).astype(np.uint8), segment=255)[0], mask)
    np.testing.assert_array_equal(_class_map((255 * mask).astype(np.uint8), segment=1)[0], mask)
    np.testing.assert_array_equal(_class_map(np.array([[0, 1], [2, 3]], np.uint8), segment=2)[0], [[0, 0], [1, 0]])
    np.testing.assert_array_equal(_class_map(np.array([[0, 128], [255, 3]], np.uint8))[0], [[0, 128], [255, 3]])
    np.testing.assert_array_equal(_class_map(mask * np.float32(1 + 1e-5))[0], mask)


@pytest.mark.parametrize(
    ("array", "info", "words"),
    [
        (np.array([[0.0, 0.25]]), {}, "fractions such as 0.25"),
        (np.array([[0, np.nan]]), {}, "not finite"),
        (np.array([[0, -1]]), {}, "from -1 to 0"),
        (np.array([[0, 256]]), {}, "from 0 to 256"),
        (np.array([[0, 300]], np.uint16), {}, "from 0 to 300"),
        (np.arange(6, dtype=np.uint8).reshape(3, 1, 2, 1), {"colour": True}, "colours"),
        (np.zeros((1, 2)), {"transparent": True}, "transparent"),
        (np.full((1, 2), 3, np.uint8), {"palette": np.zeros((2, 3), np.uint8)}, "2 colours"),
        (np.ones((2, 2, 2, 1), np.uint8), {}, "overlap in 4 voxels"),
        (np.full((2, 2, 2, 1), 3, np.uint8), {}, "values above 1"),
    ],
)
def test_what_is_no_class_map_is_refused(array: np.ndarray, info: dict, words: str) -> None:
    with pytest.raises(InputError, match=words):
        _class_map(array, **info)


def test_label_pictures(tmp_path: Path) -> None:
    classes = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "image.png")
    scan = read_scan(tmp_path / "image.png")
    Image.fromarray(np.stack([classes] * 3, -1)).save(tmp_path / "grey.png")
    palette = Image.fromarray(classes, mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    palette.save(tmp_path / "palette.png")
    inverted = Image.fromarray((classes > 0).astype(np.uint8), mode="P")
    inverted.putpalette([255, 255, 255, 0, 0, 0])
    inverted.save(tmp_path / "inverted.png")
    np.testing.assert_array_equal(read_label(tmp_path / "grey.png", scan).array, classes)
    found = read_label(tmp_path / "palette.png", scan)
    np.testing.assert_array_equal(found.array, classes)
    assert "palette" in found.notes[0]
    np.testing.assert_array_equal(
        read_label(tmp_path / "inverted.png", scan).array, classes == 0
    )  # as a viewer shows it
    Image.fromarray(classes).save(tmp_path / "label.jpg")
    with pytest.raises(InputError, match="JPEG"):
        read_label(tmp_path / "label.jpg", scan)
    with pytest.raises(InputError, match="no segments"):
        read_label(tmp_path / "grey.png", scan, segment="lesion")


def test_four_bits_of_grey_are_classes(tmp_path: Path) -> None:
    """Pillow stretches 0..15 to 0..255."""
    import zlib

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    head = (4).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes([4, 0, 0, 0, 0])
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\x00\x01\x23")) + chunk(b"IEND", b"")
    (tmp_path / "four.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    assert read_scan(tmp_path / "four.png").array.tolist() == [[[0, 1, 2, 3]]]
    head = head[:8] + bytes([16, 2, 0, 0, 0])
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(25))) + chunk(b"IEND", b"")
    (tmp_path / "sixteen.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    with pytest.raises(InputError, match="cut to 8"):
        read_scan(tmp_path / "sixteen.png")


def test_a_binary_stack(tmp_path: Path, scan: Scan, label: np.ndarray) -> None:
    stack = np.stack([label == 1, label == 2], axis=-1).astype(np.uint8)
    found = read_label(write_nifti(tmp_path / "stack.nii", stack, AFFINE), scan)
    np.testing.assert_array_equal(found.array, label)
    np.testing.assert_array_equal(read_label(tmp_path / "stack.nii", scan, segment=2).array, label == 2)
    hot = np.stack([label == 0, label == 1, label == 2], axis=-1).astype(np.uint8)
    found = read_label(write_nifti(tmp_path / "hot.nii", hot, AFFINE), scan)
    np.testing.assert_array_equal(found.array, label)
    assert "one-hot" in found.notes[0]


def test_layers_of_3d_slicer(tmp_path: Path, scan: Scan, label: np.ndarray) -> None:
    names = {"Segment0_ID": "a", "Segment0_Name": "one", "Segment0_LabelValue": "1", "Segment0_Layer": "1"}
    names |= {"Segment1_ID": "b", "Segment1_Name": "two", "Segment1_LabelValue": "1", "Segment1_Layer": "0"}
    layers = np.stack([label == 2, label == 1]).astype(np.uint8)
    found = read_label(write_nrrd(tmp_path / "layers.seg.nrrd", layers, AFFINE, more=names), scan)
    np.testing.assert_array_equal(found.array, label)
    assert found.names == {1: "one", 2: "two"} and "numbered from 1" in found.notes[0]
    layers[0] |= layers[1]
    path = write_nrrd(tmp_path / "overlap.seg.nrrd", layers, AFFINE, more=names)
    with pytest.raises(InputError, match="overlap in 7 voxels"):
        read_label(path, scan)
    np.testing.assert_array_equal(read_label(path, scan, segment="two").array, label > 0)
    older = {key: value for key, value in names.items() if "L" not in key}  # neither layer nor value
    found = read_label(
        write_nrrd(tmp_path / "old.seg.nrrd", np.flip(layers * 0 + [[[[1]]], [[[0]]]], 0)[::-1], AFFINE, more=older),
        scan,
    )
    assert found.array.min() == found.array.max() == 1


# --- DICOM segmentations ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
@pytest.mark.parametrize("flipped", [False, True])
def test_a_dicom_segmentation(tmp_path: Path, volume: np.ndarray, label: np.ndarray, kind: str, flipped: bool) -> None:
    folder = series(tmp_path / "ct", volume)
    masks = {"nodule": label == 1, "vessel": label == 2}
    path = seg_file(tmp_path / "seg" / "a.dcm", folder, masks, kind, flipped=flipped)
    assert find_kind(path) == find_kind(path.parent) == "DICOM segmentation"
    nifti = write_nifti(tmp_path / "same.nii", *reoriented(volume, AFFINE, ORIENTATIONS[11]))
    for scan in (read_scan(folder), read_scan(nifti)):
        for place in (path, path.parent):
            found = read_label(place, scan)
            np.testing.assert_array_equal(found.array, label)
            assert found.names == {1: "nodule", 2: "vessel"} and len(found.notes) == (kind == "FRACTIONAL")
    for segment in (2, "vessel", "2"):
        only = read_label(path, scan, segment=segment)
        np.testing.assert_array_equal(only.array, label == 2)
        assert only.names == {1: "vessel"}
    with pytest.raises(InputError, match=r"no segment 3.*1 \('nodule'\)"):
        read_label(path, scan, segment=3)
    with pytest.raises(InputError, match="an image expected"):
        read_scan(path)


def test_frames_far_apart_fill_no_gap(tmp_path: Path, volume: np.ndarray) -> None:
    """Two slices of seven: nothing in the file but their positions says how far apart they are."""
    folder = series(tmp_path / "ct", volume)
    mask = np.zeros(SHAPE, bool)
    mask[1:4, 2, 0] = mask[2, 2:5, 6] = True
    path = seg_file(tmp_path / "a.dcm", folder, {"x": mask})
    data = pydicom.dcmread(path)
    measures = data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    if "SpacingBetweenSlices" in measures:
        del measures.SpacingBetweenSlices
    data.save_as(path)
    np.testing.assert_array_equal(read_label(path, read_scan(folder)).array, mask)


def test_fractions_are_cut_at_one_half(tmp_path: Path, volume: np.ndarray) -> None:
    folder = series(tmp_path / "ct", volume)
    fractions = np.zeros(SHAPE)
    fractions[1:4, 2, 3] = (0.2, 0.51, 1.0)
    found = read_label(seg_file(tmp_path / "a.dcm", folder, {"x": fractions}, "FRACTIONAL"), read_scan(folder))
    np.testing.assert_array_equal(found.array, fractions > 0.5)


def test_segments_that_overlap(tmp_path: Path, volume: np.ndarray, label: np.ndarray) -> None:
    folder = series(tmp_path / "ct", volume)
    path = seg_file(tmp_path / "a.dcm", folder, {"whole": label > 0, "core": label == 2})
    with pytest.raises(InputError, match="overlap in 2 voxels"):
        read_label(path, read_scan(folder))
    np.testing.assert_array_equal(read_label(path, read_scan(folder), segment="whole").array, label > 0)


def test_a_segmentation_of_something_else(tmp_path: Path, volume: np.ndarray, label: np.ndarray) -> None:
    folder = series(tmp_path / "ct", volume)
    path = seg_file(tmp_path / "a" / "a.dcm", folder, {"x": label == 1})
    other = series(tmp_path / "other", volume, frame_of_reference="9.9.9")
    with pytest.raises(InputError, match=r"frame of reference 1\.2\.3\.9, the image's 9\.9\.9 expected"):
        read_label(path, read_scan(other))
    far = AFFINE.copy()
    far[2, 3] += 1000
    with pytest.raises(InputError, match="elsewhere"):
        read_label(path, read_scan(series(tmp_path / "far", volume, far)))
    same = read_scan(series(tmp_path / "same", volume, series_uid="5.5.5"))
    assert "another series" in read_label(path, same).notes[0]
    (tmp_path / "a" / "b.dcm").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="2 DICOM segmentations"):
        read_label(path.parent, same)


def test_a_segmentation_on_another_lattice(tmp_path: Path, volume: np.ndarray, label: np.ndarray) -> None:
    """The image has slices between those that were drawn on."""
    folder = series(tmp_path / "ct", volume)
    path = seg_file(tmp_path / "a.dcm", folder, {"x": label == 1, "y": label == 2}, omit_empty_frames=False)
    fine = AFFINE @ np.diag([0.5, 0.5, 0.4, 1])
    scan = read_scan(series(tmp_path / "fine", np.zeros((10, 12, 17), np.int16), fine))
    found = read_label(path, scan)
    expected = _at(label, AFFINE, _centres(scan.affine, scan.array.shape[1:]) + 1e-6).reshape(scan.array.shape[1:])
    exact = np.all(
        np.abs(np.mod(np.indices(expected.shape) * np.reshape([0.5, 0.5, 0.4], (3, 1, 1, 1)), 1) - 0.5) > 1e-3, axis=0
    )
    np.testing.assert_array_equal(found.array[exact], expected[exact])  # ties between two voxels may go either way
    assert exact.any() and "resampled" in found.notes[-1]


def test_a_segmentation_of_one_plane_without_position(tmp_path: Path, volume: np.ndarray, label: np.ndarray) -> None:
    folder = series(tmp_path / "ct", volume[:, :, :1])
    path = seg_file(tmp_path / "a.dcm", folder, {"x": label[:, :, 2:3] == 1})
    Image.fromarray(np.zeros(SHAPE[:2], np.uint8)).save(tmp_path / "image.png")
    found = read_label(path, read_scan(tmp_path / "image.png"))
    np.testing.assert_array_equal(found.array, label[:, :, 2] == 1)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "other.png")
    with pytest.raises(InputError, match="does not say where it lies"):
        read_label(path, read_scan(tmp_path / "other.png"))


# --- refusals and silence --------------------------------------------------------------------------------------------


def test_kinds_go_by_content(tmp_path: Path, volume: np.ndarray) -> None:
    grey = np.arange(72, dtype=np.uint8).reshape(9, 8)
    Image.fromarray(grey).save(tmp_path / "p.png")
    (tmp_path / "p.png").rename(tmp_path / "p.nii.gz")
    assert read_scan(tmp_path / "p.nii.gz").kind == "PNG"
    for name in ("plain.nii", "packed.nii.gz"):
        write_nifti(tmp_path / name, volume, AFFINE).rename(tmp_path / "x.png")
        np.testing.assert_array_equal(read_scan(tmp_path / "x.png").array[0], volume)
    write_nifti(tmp_path / "plain.nii", volume, AFFINE).rename(tmp_path / "claims.nii.gz")
    np.testing.assert_array_equal(read_scan(tmp_path / "claims.nii.gz").array[0], volume)
    one = next(iter(series(tmp_path / "ct", volume).iterdir()))
    one.rename(tmp_path / "noname")
    assert find_kind(tmp_path / "noname") == "DICOM series"
    (tmp_path / "text.nii").write_text("no image")
    for path, words in (
        (tmp_path / "nothing.nii", "there is no"),
        (tmp_path / "text.nii", "cannot be read as NIfTI"),
        (tmp_path, "a DICOM series expected"),
    ):
        (tmp_path / "ct").is_dir() and [p.unlink() for p in (tmp_path / "ct").glob("*")]
        (tmp_path / "noname").unlink(missing_ok=True)
        with pytest.raises(InputError, match=words):
            read_scan(path)
    (tmp_path / "a.xyz").write_bytes(b"?")
    (tmp_path / "b.nii").write_bytes(b"")
    with pytest.raises(InputError, match="no known kind"):
        read_scan(tmp_path / "a.xyz")
    with pytest.raises(InputError, match="empty"):
        read_scan(tmp_path / "b.nii")


def test_dicom_that_is_no_slice(tmp_path: Path, volume: np.ndarray) -> None:
    def changed(name: str, **tags: object) -> Path:
        path = write_slice(tmp_path / name, volume[:, :, 0], series_uid="1.2", position=(0, 0, 0))
        data = pydicom.dcmread(path)
        for key, value in tags.items():
            if value is None:
                delattr(data, key)
            else:
                setattr(data, key, value)
        data.save_as(path)
        return path

    for path, words in (
        (changed("colour.dcm", SamplesPerPixel=3, PhotometricInterpretation="RGB"), "in colour"),
        (changed("frames.dcm", NumberOfFrames=4), "4 frames"),
        (changed("contours.dcm", Rows=None, Modality="RTSTRUCT", PixelData=None), r"without pixels \(RTSTRUCT\)"),
    ):
        with pytest.raises(InputError, match=words):
            read_scan(path)
    changed("enhanced/a.dcm", NumberOfFrames=4, ImagePositionPatient=None)
    changed("enhanced/b.dcm", NumberOfFrames=4, ImagePositionPatient=None)
    with pytest.raises(InputError, match="4 frames"):
        read_scan(tmp_path / "enhanced")


def test_normal_files_are_read_in_silence(
    tmp_path: Path, volume: np.ndarray, label: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = [
        write_nifti(tmp_path / "zero.nii", volume, AFFINE, pixdim=[1, 0, 0, 0, 0, 0, 0, 0]),
        series(tmp_path / "ct", volume),
    ]
    seg = seg_file(tmp_path / "seg.dcm", tmp_path / "ct", {"x": label == 1})
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in paths:
            scan = read_scan(path)
        read_label(seg, scan)
    assert capfd.readouterr() == ("", "")


# --- real files ------------------------------------------------------------------------------------------------------


def test_real_volume(real_data: Path) -> None:
    import nibabel as nib

    folder = real_data / "open_ms" / "patient19"
    files = sorted(folder.glob("*.nii.gz"))
    images = [file for file in files if "GOLD" not in file.name][:2]
    (gold,) = (file for file in files if "GOLD" in file.name)
    scan = read_scan(images)
    label = read_label(gold, scan)
    reference = nib.as_closest_canonical(nib.load(gold))
    turned = np.asarray(reference.dataobj).transpose(1, 0, 2)[::-1, ::-1]  # R A S -> P L S
    np.testing.assert_array_equal(label.array, turned)
    assert scan.array.shape == (2, 218, 182, 182) and label.array.shape == scan.array.shape[1:] and not label.notes
    assert scan.array[0][label.array > 0].mean() > scan.array[0].mean()


def test_real_plane(real_data: Path) -> None:
    cases = sorted((real_data / "qubiq").glob("*/brain-growth/Training/case*"))
    scan = read_scan(cases[0] / "image.nii.gz")
    assert scan.affine is None and scan.array.shape == (1, 128, 128)
    for file in sorted(cases[0].glob("task01_seg*.nii.gz")):
        label = read_label(file, scan)
        assert label.array.shape == (128, 128) and set(np.unique(label.array)) == {0, 1} and not label.notes


def test_real_series(real_data: Path) -> None:
    scan = read_scan(real_data / "lidc" / "LIDC-IDRI-0001")
    assert scan.array.shape == (1, 512, 512, 133) and scan.array.dtype == np.int16
    assert scan.spacing == pytest.approx((0.703125, 0.703125, 2.5)) and scan.info["patient_id"] == "LIDC-IDRI-0001"


def test_a_label_of_another_orientation_than_an_identity_image_is_refused(tmp_path: Path) -> None:
    values = np.arange(5 * 6 * 4).reshape(5, 6, 4)
    mask = (values > 80).astype(np.uint8)
    lps = np.diag([-1.0, -1.0, 1.0, 1.0])
    lps[:2, 3] = 4, 5
    scan = read_scan(write_nifti(tmp_path / "image.nii", values.astype(np.float32), np.eye(4)))
    turned = write_nifti(tmp_path / "turned.nii", mask[::-1, ::-1], lps)  # the same places, stored the other way
    with pytest.raises(InputError, match="runs along LPS"):
        read_label(turned, scan)
    scaled = write_nifti(tmp_path / "scaled.nii", mask, np.diag([0.7, 0.7, 2.0, 1.0]))
    np.testing.assert_array_equal(read_label(scaled, scan).array, mask)
    # an image that says nothing at all: the order of the files is all there is
    silent = read_scan(write_nifti(tmp_path / "silent.nii", values.astype(np.float32), None))
    np.testing.assert_array_equal(read_label(turned, silent).array, mask[::-1, ::-1])
