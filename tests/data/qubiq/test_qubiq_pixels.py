"""Laws of QUBIQ's pixels: reading NIfTI as plain arrays, coding of masks, crop and resize."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path

import numpy as np
import pytest
from damage import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aleatoric.data.qubiq.pixels import (
    as_planes,
    crop,
    read_nifti,
    resize_image,
    resize_mask,
    to_mask,
    unit_range,
    window_at,
)
from aleatoric.errors import InputError
from simulated.qubiq import nifti_bytes

ARRAY = np.arange(7 * 9, dtype=np.int16).reshape(7, 9) - 20
fuzz = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(rows - centre[0], columns - centre[1]) <= radius


@pytest.mark.parametrize("affine", ["identity", "zeros", "nan"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", ">i2", "float32", "float64", "uint16"])
def test_an_array_is_read_whatever_its_affine_type_and_compression(tmp_path: Path, affine: str, dtype: str) -> None:
    array = (ARRAY + 20).astype(dtype)
    raw = nifti_bytes(array.astype(array.dtype.newbyteorder("=")), affine)
    path = tmp_path / "a.nii.gz"
    for data in (raw, gzip.compress(raw), gzip.compress(raw + b"padding")):
        path.write_bytes(data)
        np.testing.assert_array_equal(read_nifti(path), array)


def test_what_nibabel_saves_is_read_with_its_scaling(tmp_path: Path) -> None:
    import nibabel as nib

    for kind in (nib.Nifti1Image, nib.Nifti2Image):
        image = kind(ARRAY, np.diag([-1, -1, 3, 1]))
        image.header.set_slope_inter(2.0, -1024.0)
        nib.save(image, tmp_path / "a.nii")
        np.testing.assert_allclose(read_nifti(tmp_path / "a.nii"), nib.load(tmp_path / "a.nii").get_fdata())
        nib.save(image, tmp_path / "b.nii.gz")
        np.testing.assert_allclose(read_nifti(tmp_path / "b.nii.gz"), nib.load(tmp_path / "b.nii.gz").get_fdata())


@pytest.mark.parametrize("dtype", [np.complex64, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])])
def test_numbers_that_are_not_real_are_refused(tmp_path: Path, dtype: np.dtype) -> None:
    (tmp_path / "a.nii").write_bytes(nifti_bytes(np.zeros((4, 4), dtype)))
    with pytest.raises(InputError, match=r"a\.nii cannot be read"):
        read_nifti(tmp_path / "a.nii")


@fuzz
@given(st.data())
def test_a_damaged_compressed_file_is_refused_or_gives_the_right_pixels(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(data.draw(damaged(gzip.compress(nifti_bytes(ARRAY), mtime=0))))
    try:
        found = read_nifti(path)
    except InputError as error:
        assert "a.nii.gz cannot be read" in str(error)
    else:
        np.testing.assert_array_equal(found, ARRAY)


@fuzz
@given(st.data())
def test_a_damaged_header_of_an_uncompressed_file_raises_nothing_else(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(data.draw(damaged(nifti_bytes(ARRAY), head=352)))
    try:
        found = read_nifti(path)
    except InputError:
        return
    assert found.size * found.dtype.itemsize >= ARRAY.nbytes  # never a part of the pixels; scaling may make floats


def test_a_header_that_asks_for_less_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    raw = bytearray(nifti_bytes(ARRAY))
    raw[42] -= 1  # dim[1]: nothing but the length can tell that the pixels would be sheared
    (tmp_path / "a.nii").write_bytes(raw)
    with pytest.raises(InputError, match="478 bytes, 460 with pixels from 352"):
        read_nifti(tmp_path / "a.nii")


def test_odd_headers_are_read_in_silence(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw = bytearray(nifti_bytes(ARRAY, "zeros"))
    raw[108:112] = np.float32(372).tobytes()  # vox_offset: an extension of 20 bytes, which should be 16 or 32
    raw[348] = 1
    raw[352:352] = np.array([20, 6], np.int32).tobytes() + bytes(12)
    (tmp_path / "a.nii").write_bytes(raw)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii"), ARRAY)
    assert not caplog.records


def test_planes_of_every_axis_order() -> None:
    image = np.random.default_rng(0).normal(size=(5, 6))
    for array in (image, image[..., None], image[None], image[:, None, :, None]):
        np.testing.assert_array_equal(as_planes(array, 1, False), image[None])
    sequences = np.random.default_rng(1).normal(size=(5, 6, 4))
    for array in (sequences, np.moveaxis(sequences, -1, 0), sequences[:, :, None]):
        np.testing.assert_array_equal(as_planes(array, 4, False), np.moveaxis(sequences, -1, 0))
    volume = np.random.default_rng(2).normal(size=(3, 6, 6))
    for array in (volume, volume[..., None], np.moveaxis(volume, 0, -1)):
        np.testing.assert_array_equal(as_planes(array, 1, True), volume)
    for shape, channels, is_volume in [
        ((5, 6, 3), 1, False),
        ((5, 6, 3), 4, False),
        ((5, 6), 4, False),
        ((5, 6), 1, True),
    ]:
        assert as_planes(np.zeros(shape), channels, is_volume) is None


@pytest.mark.parametrize("value", [1, 255, 0.5, 3.0, 1e-3])
def test_two_values_of_any_kind_are_a_mask(value: float) -> None:
    drawn = disc((9, 9), (4, 4), 2)
    mask, two_valued = to_mask(drawn * np.asarray(value))
    assert two_valued
    np.testing.assert_array_equal(mask, drawn)


def test_other_codings_are_noticed() -> None:
    for array, expected in [
        ([0, 0, 0], [0, 0, 0]),
        ([np.nan, 0, 1.0], [0, 0, 1]),
    ]:
        mask, two_valued = to_mask(np.array(array))
        assert two_valued and mask.tolist() == [bool(e) for e in expected]
    for array, expected in [([0, 1, 2], [0, 0, 1]), ([0.0, 0.4, 0.6, 1.0], [0, 0, 1, 1]), ([0, -1, 0], [0, 0, 0])]:
        mask, two_valued = to_mask(np.array(array))
        assert not two_valued and mask.tolist() == [bool(e) for e in expected]


def test_unit_range_forgets_scale_and_offset_and_keeps_the_order() -> None:
    image = np.random.default_rng(0).gamma(2, 50, (40, 50))
    unit = unit_range(image)
    assert unit.dtype == np.float32 and unit.min() == 0 and unit.max() == 1
    np.testing.assert_allclose(unit_range(3 * image - 700), unit, atol=1e-6)
    order = np.argsort(image, axis=None)
    assert (np.diff(unit.ravel()[order]) >= 0).all()
    assert 0.98 < ((unit > 0) & (unit < 1)).mean() < 1
    assert not unit_range(np.full((5, 5), 7.0)).any()
    single = np.zeros((40, 50))
    single[3, 4] = 9  # above any percentile, yet there is something to see
    np.testing.assert_array_equal(unit_range(single), single / 9)


@pytest.mark.parametrize("shape", [(16, 16), (15, 24), (40, 33), (8, 8), (5, 12)])
def test_a_resized_mask_is_where_more_than_half_is_drawn(shape: tuple[int, int]) -> None:
    size = 8
    rng = np.random.default_rng(shape[0])
    mask = rng.random(shape) < 0.5
    # brute force: every pixel cut so small that old and new borders fall together
    fine = np.kron(mask, np.ones((size, size)))
    drawn = fine.reshape(size, shape[0], size, shape[1]).mean(axis=(1, 3))
    found = resize_mask(mask, size)
    decided = np.abs(drawn - 0.5) > 1e-9
    np.testing.assert_array_equal(found[decided], drawn[decided] > 0.5)
    for i, j in np.argwhere(~decided):
        assert found[i, j] == mask[int((i + 0.5) * shape[0] / size), int((j + 0.5) * shape[1] / size)]


@pytest.mark.parametrize("side", [240, 497, 512, 640])
def test_resizing_keeps_areas_on_average(side: int) -> None:
    rng = np.random.default_rng(0)
    before, after = 0.0, 0.0
    for _ in range(80):
        mask = disc((side, side), tuple(rng.uniform(0.4, 0.6, 2) * side), rng.uniform(0.06, 0.1) * side)
        before += mask.mean()
        after += resize_mask(mask, 128).mean()
    assert after / before == pytest.approx(1, abs=0.004)


def test_a_mask_inside_another_stays_inside() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        outer = rng.random((64, 48)) < 0.6
        inner = outer & (rng.random(outer.shape) < 0.8)
        assert not (resize_mask(inner, 16) & ~resize_mask(outer, 16)).any()


def test_resizing_leaves_constants_ramps_and_patches_of_the_size_alone() -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(32, 32)).astype(np.float32)
    np.testing.assert_array_equal(resize_image(image, 32), image)
    np.testing.assert_array_equal(resize_mask(image > 0, 32), image > 0)
    np.testing.assert_allclose(resize_image(np.full((50, 41), 7.0), 32), 7, rtol=1e-6)
    rows, columns = np.mgrid[:128, :96].astype(float)
    found = resize_image(2 * rows - 3 * columns, 32)
    new = np.arange(32) + 0.5
    expected = 2 * (new * 4 - 0.5)[:, None] - 3 * (new * 3 - 0.5)
    np.testing.assert_allclose(found[4:-4, 4:-4], expected[4:-4, 4:-4], atol=1e-3)


def test_noise_is_averaged_before_an_image_shrinks() -> None:
    noise = np.random.default_rng(0).normal(size=(256, 256))
    assert resize_image(noise, 64).std() < 0.3  # samples between four pixels would keep half of it


@pytest.mark.parametrize("shape", [(497, 496), (64, 64), (640, 320)])
def test_image_and_mask_stay_together(shape: tuple[int, int]) -> None:
    mask = disc(shape, (0.42 * shape[0], 0.61 * shape[1]), 0.13 * min(shape))
    image, label = resize_image(mask.astype(float), 128), resize_mask(mask, 128)
    grid = np.mgrid[:128, :128]
    for weights in (image, label):
        centre = (grid * weights).sum(axis=(1, 2)) / weights.sum()
        original = (np.argwhere(mask).mean(axis=0) + 0.5) * 128 / np.array(shape) - 0.5
        np.testing.assert_allclose(centre, original, atol=0.1)


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_the_window_lies_inside_with_the_mean_centroid_in_its_middle(data: st.DataObject) -> None:
    height, width, size = 40, 52, 16
    drawn = data.draw(st.lists(st.tuples(st.integers(0, height - 1), st.integers(0, width - 1)), max_size=3))
    masks = np.zeros((4, height, width), bool)
    for mask, pixel in zip(masks, drawn):
        mask[pixel] = True
    top, left = window_at(masks, size)
    row, column = np.mean(drawn, axis=0) if drawn else (height // 2, width // 2)
    assert 0 <= top <= height - size and 0 <= left <= width - size
    for start, centre, length in ((top, row, height), (left, column, width)):
        if size // 2 <= centre <= length - size // 2:
            assert abs(start + size // 2 - centre) <= 0.5
        elif centre < size // 2:
            assert start == 0
        else:
            assert start == length - size
    plane = np.arange(height * width).reshape(height, width)
    np.testing.assert_array_equal(crop(plane, (top, left), size, 0), plane[top : top + size, left : left + size])


def test_an_image_smaller_than_the_window_lies_in_its_middle() -> None:
    plane = np.arange(1, 7 * 30 + 1).reshape(7, 30)
    masks = np.zeros((1, 7, 30), bool)
    masks[0, 3, 25] = True
    corner = window_at(masks, 16)
    patch = crop(plane, corner, 16, -5)
    assert corner == (-4, 14)
    np.testing.assert_array_equal(patch[4:11], plane[:, 14:])
    assert (patch[:4] == -5).all() and (patch[11:] == -5).all()
