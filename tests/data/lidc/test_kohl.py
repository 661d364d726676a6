"""The crops of the hierarchical Probabilistic U-Net: pixels, raters, the release's split, and a tree with defects."""

from __future__ import annotations

import argparse
import io
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage.io import imread

from aleatoric.data.lidc.kohl import _read_png, add_arguments, prepare_kohl, run
from aleatoric.data.prepared.reading import PreparedDataset, load_dataset
from aleatoric.errors import InputError
from simulated import kohl as simulated


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated.write(tmp_path_factory.mktemp("kohl") / "crops", cases=6, slices=2)


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    """A tree to spoil."""
    return Path(shutil.copytree(pristine, tmp_path / "crops"))


def prepared(root: Path, out: Path, **options: Any) -> PreparedDataset:
    return load_dataset(prepare_kohl(root, out, workers=1, **options))


def report(data: PreparedDataset) -> dict[str, Any]:
    return data.info["report"]


@pytest.mark.parametrize(("size", "margin"), [(128, 26), (180, 0), (100, 40)])
@pytest.mark.parametrize("first_rater", [0, 1])
def test_pixels_are_those_of_another_reader(
    pristine: Path, tmp_path: Path, size: int, margin: int, first_rater: int
) -> None:
    root = pristine
    if first_rater:  # the README's numbers
        root = simulated.write(tmp_path / "crops", cases=6, slices=2, first_rater=1)
    data = prepared(root, tmp_path / "out", size=size)
    paths = {f"{path.parent.name}_{path.stem}": path for path in root.glob("*/images/*/*.png")}
    assert [row["case"] for row in data.cases] == sorted(paths)
    window = slice(margin, 180 - margin)
    for row, image, label in zip(data.cases, data.images, data.labels, strict=True):
        path = paths[row["case"]]
        assert np.array_equal(image[0], imread(path)[window, window])
        for rater in range(4):
            name = str(path.with_suffix("")).replace("/images/", "/gt/") + f"_l{rater + first_rater}.png"
            assert np.array_equal(label[rater] * 255, imread(name)[window, window])
        assert row["slice"] == path.stem[1:].split("_")[0] and row["spacing"] == "0.5"
        assert row["patient"] == path.parent.name and row["released_as"] == path.parts[-4]
    assert data.rater_valid.all() and data.info["intensity_window"] == [0, 255]
    assert not report(data)["skipped"]


def test_split_of_the_release(pristine: Path, tmp_path: Path) -> None:
    data = prepared(pristine, tmp_path / "out")
    fold = {"train": "train", "val": "0", "test": "test"}
    assert {row["released_as"] for row in data.cases} == set(fold)
    assert all(row["fold"] == fold[row["released_as"]] for row in data.cases)


def test_random_split_is_by_patient_and_seed(pristine: Path, tmp_path: Path) -> None:
    options = {"split": "random", "test_fraction": 0.34, "folds": 2}
    data = prepared(pristine, tmp_path / "a", seed=1, **options)
    folds: dict[str, set[str]] = {}
    for row in data.cases:
        folds.setdefault(row["patient"], set()).add(row["fold"])
    assert all(len(found) == 1 for found in folds.values())
    assert {fold for (fold,) in folds.values()} == {"test", "0", "1"}
    other = prepared(pristine, tmp_path / "b", seed=2, **options)
    assert [row["fold"] for row in other.cases] != [row["fold"] for row in data.cases]


def test_a_patient_in_two_splits_stays_together(root: Path, tmp_path: Path) -> None:
    for kind in ("images", "gt"):
        shutil.copytree(root / "train" / kind / "LIDC-IDRI-0001", root / "test" / kind / "LIDC-IDRI-0001")
        for path in sorted((root / "test" / kind / "LIDC-IDRI-0001").glob("z-105*")):
            path.rename(path.with_name(path.name.replace("z-105", "z-205")))
    data = prepared(root, tmp_path / "out")
    rows = [row for row in data.cases if row["patient"] == "LIDC-IDRI-0001"]
    assert {row["fold"] for row in rows} == {"test"}
    assert {row["released_as"] for row in rows} == {"train", "test"}
    assert "patient LIDC-IDRI-0001 lies in test and train, all images go to test." in report(data)["notes"]
    assert report(data)["skipped"] == {"image found twice": 2}  # those at z-107.5
    assert len({row["case"] for row in data.cases}) == len(data.cases)


def test_notes_count_what_the_release_has(root: Path, tmp_path: Path) -> None:
    shutil.rmtree(root / "val")
    notes = report(prepared(root, tmp_path / "out"))["notes"]
    assert "train: 12 images of 4 patients; the release has 8843 of 530." in notes
    assert "val: absent; the release has 1993 of 111." in notes


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


GREY = np.tile(np.arange(180, dtype=np.uint8), (180, 1))
HUGE = b"IHDR" + struct.pack(">IIBBBBB", 65536, 65536, 8, 0, 0, 0, 0)
UNUSABLE = {
    "text": b"this is no picture",
    "empty": b"",
    "jpeg": b"\xff\xd8\xff\xe0" + bytes(100),
    "other size": png(GREY[:128, :128]),
    "colour": png(np.dstack([GREY] * 3)),
    "16 bit": png(GREY.astype(np.uint16) * 256),
    "bomb": png(GREY)[:12] + HUGE + struct.pack(">I", zlib.crc32(HUGE)) + png(GREY)[33:],
    "cut off": png(GREY)[:-30],
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_unusable_image_is_reported_and_left_out(root: Path, tmp_path: Path, kind: str) -> None:
    spoiled = root / "train" / "images" / "LIDC-IDRI-0001" / "z-105.0_c0.png"
    spoiled.write_bytes(UNUSABLE[kind])
    data = prepared(root, tmp_path / "out")
    assert len(data.cases) == 17 and "LIDC-IDRI-0001_z-105.0_c0" not in [row["case"] for row in data.cases]
    assert report(data)["skipped"] == {"image that cannot be used": 1}
    (sentence,) = report(data)["problems"]
    assert str(spoiled) in sentence and "expected" in sentence


@pytest.mark.parametrize("kind", [*UNUSABLE, "grey levels", "missing"])
def test_an_unusable_mask_is_a_rater_who_was_not_asked(root: Path, tmp_path: Path, kind: str) -> None:
    spoiled = root / "train" / "gt" / "LIDC-IDRI-0001" / "z-105.0_c0_l2.png"
    if kind == "missing":
        spoiled.unlink()
    else:
        spoiled.write_bytes(UNUSABLE[kind] if kind in UNUSABLE else png(GREY))
    data = prepared(root, tmp_path / "out")
    assert len(data.cases) == 18
    assert data.rater_valid[0].tolist() == [True, True, False, True] and not data.labels[0, 2].any()
    assert data.rater_valid[1:].all()
    assert list(report(data)["skipped"].values()) == [1] and str(spoiled) in report(data)["problems"][0]


def test_no_mask_at_all_and_masks_without_an_image(root: Path, tmp_path: Path) -> None:
    for path in (root / "train" / "gt" / "LIDC-IDRI-0001").glob("z-105.0_c0_l*.png"):
        path.unlink()
    (root / "train" / "images" / "LIDC-IDRI-0002" / "z-105.0_c0.png").unlink()
    shutil.rmtree(root / "test" / "images" / "LIDC-IDRI-0005")
    (root / "val" / "images" / "LIDC-IDRI-0003" / "._z-105.0_c0.png").write_bytes(b"macOS")
    data = prepared(root, tmp_path / "out")
    assert report(data)["skipped"] == {"image missing": 4, "image without any mask": 1, "mask missing": 4}
    assert len(data.cases) == 13


def test_empty_masks_stay_valid(root: Path, tmp_path: Path) -> None:
    path = root / "train" / "gt" / "LIDC-IDRI-0001" / "z-105.0_c0_l2.png"
    path.write_bytes(png(np.zeros((180, 180), np.uint8)))
    data = prepared(root, tmp_path / "out")
    assert data.rater_valid[0].all() and not data.labels[0, 2].any()


def test_folders_as_people_unpack_them(root: Path, tmp_path: Path) -> None:
    (root / "train").rename(root / "lidc_crops_train")
    (root / "test").rename(root / "inner")
    (root / "test").mkdir()
    (root / "inner").rename(root / "test" / "test")
    assert len(prepared(root, tmp_path / "out").cases) == 18


def test_sentences_for_a_wrong_root(root: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder"):
        prepare_kohl(tmp_path / "none", tmp_path / "out")
    with pytest.raises(InputError, match="none of train/images"):
        prepare_kohl(root / "train" / "images", tmp_path / "out")
    shutil.rmtree(root / "val")
    (root / "val.tar.gz").write_bytes(b"packed")
    with pytest.raises(InputError, match=r"val\.tar\.gz is not unpacked.*run tar xzf val\.tar\.gz"):
        prepare_kohl(root, tmp_path / "out")
    (root / "val.tar.gz").unlink()
    shutil.rmtree(root / "test" / "gt")
    with pytest.raises(InputError, match="no folder gt"):
        prepare_kohl(root, tmp_path / "out")
    for options in ({"size": 0}, {"size": 181}, {"split": "by slice"}):
        with pytest.raises(InputError, match="expected"):
            prepare_kohl(root, tmp_path / "out", **options)
    assert not (tmp_path / "out.partial").exists()


def test_command(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = [str(root), str(tmp_path / "out"), "--size", "64", "--workers", "1"]
    assert run(parser.parse_args(words)) == 0
    assert "18 patches of 6 patients" in capsys.readouterr().out
    (root / "train" / "gt" / "LIDC-IDRI-0001" / "z-105.0_c0_l2.png").unlink()
    assert run(parser.parse_args([*words, "--overwrite"])) == 3
    assert load_dataset(tmp_path / "out").images.shape == (18, 1, 64, 64)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_png_is_refused_or_right(
    data: st.DataObject, pristine: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    sound = pristine / "train" / "images" / "LIDC-IDRI-0001" / "z-105.0_c0.png"
    path = tmp_path_factory.getbasetemp() / "damaged.png"
    path.write_bytes(data.draw(damaged(sound.read_bytes())))
    try:
        pixels = _read_png(path, 180)
    except InputError as error:
        assert str(path) in str(error)
    else:
        assert np.array_equal(pixels, imread(sound))


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    """The checksum of a PNG's pixels, which Pillow does not look at when it decodes."""
    pixels = np.zeros((180, 180), np.uint8)
    pixels[60:90, 70:80] = 255
    data = png(pixels)
    path = tmp_path / "flipped.png"
    for position in range(len(data)):
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :])
        try:
            found = _read_png(path, 180)
        except InputError:
            continue
        assert np.array_equal(found, pixels)
