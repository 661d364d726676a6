"""Damaged, cut and renamed files: one sentence, or pixels; never another exception, never silently another size."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from damage import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from raw_dicom import write_slice
from written_images import AFFINE, SHAPE, seg_file, series, write_nifti, write_nrrd

from aleatoric.data.readers.scans import LabelMap, Scan, find_kind, read_label, read_scan
from aleatoric.errors import InputError

_RUNS = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
_LABEL = (np.arange(np.prod(SHAPE)).reshape(SHAPE) % 3).astype(np.uint8)
_PLANE = _LABEL[..., 0]
_NAMES = {"Segment0_ID": "a", "Segment0_Name": "one", "Segment0_LabelValue": "1", "Segment0_Layer": "0"}


def _png(path: Path) -> None:
    Image.fromarray(_PLANE).save(path)


def _palette(path: Path) -> None:
    picture = Image.fromarray(_PLANE, mode="P")
    picture.putpalette(bytes(range(9)))
    picture.save(path)


def _jpeg(path: Path) -> None:
    Image.fromarray(np.stack([_PLANE * 100] * 3, -1)).save(path)


def _seg(path: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        series(Path(folder), np.zeros(SHAPE, np.int16))
        seg_file(path, Path(folder), {"one": _LABEL == 1, "two": _LABEL == 2})


_WRITERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "nifti": ("a.nii", lambda path: write_nifti(path, _LABEL, AFFINE)),
    "packed nifti": ("a.nii.gz", lambda path: write_nifti(path, _LABEL, AFFINE)),
    "nrrd": ("a.nrrd", lambda path: write_nrrd(path, _LABEL, AFFINE)),
    "raw nrrd": ("a.nrrd", lambda path: write_nrrd(path, _LABEL, AFFINE, more={"encoding": "raw"})),
    "segments": ("a.seg.nrrd", lambda path: write_nrrd(path, _LABEL % 2, AFFINE, more=_NAMES)),
    "png": ("a.png", _png),
    "palette": ("a.png", _palette),
    "jpeg": ("a.jpg", _jpeg),
    "tiff": ("a.tif", lambda path: tifffile.imwrite(path, _PLANE)),
    "packed tiff": ("a.tif", lambda path: tifffile.imwrite(path, _LABEL, photometric="minisblack", compression="zlib")),
    "lzw tiff": ("a.tif", lambda path: Image.fromarray(_PLANE).save(path, compression="tiff_lzw")),
    "dicom": (
        "a.dcm",
        lambda path: write_slice(path, _PLANE.astype(np.int16), series_uid="1.2", position=(0, 0, 0)),
    ),
    "dicom seg": ("a.dcm", _seg),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    files = {}
    for kind, (name, write) in _WRITERS.items():
        path = tmp_path_factory.mktemp("sound") / name
        write(path)
        files[kind] = path.read_bytes()
    return files


def _scans() -> list[Scan]:
    placed = Scan(np.zeros((1, *SHAPE), np.int16), AFFINE, (0.8, 0.7, 2.5), "NIfTI", {})
    plane = Scan(np.zeros((1, *SHAPE[:2]), np.uint8), None, None, "PNG", {})
    return [placed, plane]


def _read(name: str, data: bytes) -> list[object]:
    """What becomes of the file as an image and as a label: results, or sentences."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        results: list[object] = []
        for job in (
            lambda: read_scan(path),
            *(lambda scan=scan: read_label(path, scan) for scan in _scans()),
        ):
            try:
                results.append(job())
            except InputError as error:
                assert str(path) in str(error) and "\n" not in str(error) and str(error).endswith("."), str(error)
                results.append(str(error))
    return results


def _check(results: list[object]) -> None:
    for result, scan in zip(results[1:], _scans()):
        if isinstance(result, LabelMap):
            assert result.array.shape == scan.array.shape[1:] and result.array.dtype == np.uint8
    if isinstance(results[0], Scan):
        assert results[0].array.ndim in (3, 4) and results[0].array.size


@pytest.mark.parametrize("kind", _WRITERS)
@pytest.mark.parametrize("head", [None, 400])
def test_damaged(sound: dict[str, bytes], kind: str, head: int | None) -> None:
    @_RUNS
    @given(damaged(sound[kind], head))
    def check(data: bytes) -> None:
        _check(_read(_WRITERS[kind][0], data))

    check()


@pytest.mark.parametrize(
    "kind", ["nifti", "packed nifti", "nrrd", "raw nrrd", "png", "tiff", "packed tiff", "dicom", "dicom seg"]
)
def test_cut_off_is_noticed(sound: dict[str, bytes], kind: str) -> None:
    """A label that lost its end never comes back with empty slices. What follows the pixels may be lost."""
    whole = _read(_WRITERS[kind][0], sound[kind])
    for part in np.linspace(0, len(sound[kind]) - 1, 30).astype(int):
        for before, after in zip(whole, _read(_WRITERS[kind][0], sound[kind][:part])):
            if not isinstance(after, str):
                np.testing.assert_array_equal(after.array, before.array)


@pytest.mark.parametrize("kind", ["packed nifti", "png"])
def test_a_flipped_bit_under_a_checksum_is_noticed(sound: dict[str, bytes], kind: str) -> None:
    whole = _read(_WRITERS[kind][0], sound[kind])
    rng = np.random.default_rng(0)
    for position in rng.integers(60, len(sound[kind]), 40):
        data = bytearray(sound[kind])
        data[position] ^= 1 << int(rng.integers(8))
        for before, after in zip(whole, _read(_WRITERS[kind][0], bytes(data))):
            if not isinstance(after, str):
                np.testing.assert_array_equal(after.array, before.array)


@_RUNS
@given(st.data())
def test_another_name_changes_nothing(sound: dict[str, bytes], data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(_WRITERS)))
    name = data.draw(st.sampled_from(["x", "x.nii.gz", "x.nii", "x.png", "x.dcm", "x.nrrd", "x.txt"]))
    for before, after in zip(_read(_WRITERS[kind][0], sound[kind]), _read(name, sound[kind])):
        assert type(before) is type(after)
        if not isinstance(after, str):
            np.testing.assert_array_equal(after.array, before.array)


@_RUNS
@given(st.binary(max_size=600), st.sampled_from(["x", "x.nii.gz", "x.img", "x.png", "x.dcm", "x.nhdr", "x.tif"]))
def test_noise_is_refused(data: bytes, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        with pytest.raises(InputError):
            find_kind(path)
            read_scan(path)


def test_a_damaged_series(tmp_path: Path) -> None:
    folder = series(tmp_path, np.zeros(SHAPE, np.int16))
    files = {path: path.read_bytes() for path in sorted(folder.iterdir())}

    @_RUNS
    @given(st.data())
    def check(data: st.DataObject) -> None:
        victim = data.draw(st.sampled_from(list(files)))
        victim.write_bytes(data.draw(damaged(files[victim])))
        try:
            found = read_scan(folder)
        except InputError:
            return
        finally:
            victim.write_bytes(files[victim])
        assert found.array.shape[1:3] == SHAPE[:2] and found.array.shape[3] in (SHAPE[2], SHAPE[2] - 1)

    check()


def test_the_checksum_of_a_large_file_is_read_too(tmp_path: Path) -> None:
    """Large enough that no buffer reaches gzip's checksum by chance; of noise, so that only it sees the bit."""
    array = np.random.default_rng(0).integers(0, 256, (64, 64, 64)).astype(np.uint8)
    path = write_nifti(tmp_path / "large.nii.gz", array, AFFINE)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read as NIfTI"):
        read_scan(path)
