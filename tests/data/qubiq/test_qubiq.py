"""``aleatoric prepare qubiq`` on simulated trees with everything that is irregular in the released ones."""

from __future__ import annotations

import argparse
import gzip
import itertools
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aleatoric.data.prepared.reading import PreparedDataset, load_dataset
from aleatoric.data.qubiq import command as qubiq
from aleatoric.data.qubiq.command import HU_WINDOW, prepare_qubiq
from aleatoric.data.qubiq.pixels import read_nifti, resize_image, resize_mask, unit_range
from aleatoric.data.qubiq.tree import TASKS, find_cases
from aleatoric.errors import InputError
from simulated import qubiq as simulated

SMALL: dict[str, Any] = {"size": (48, 48), "slices": 8}


def tree(root: Path, dataset: str, cases: int = 2, **irregular: Any) -> Path:
    return simulated.write(root, cases, datasets=[dataset], **{**SMALL, **irregular})


def prepared(root: Path, task: str, **options: Any) -> PreparedDataset:
    out = root.parent / f"{root.name}-{task}"
    return load_dataset(prepare_qubiq(root, out, task=task, **{"size": 32, "workers": 1, "overwrite": True, **options}))


def command(root: Path, out: Path, *words: str) -> int:
    parser = argparse.ArgumentParser()
    qubiq.add_arguments(parser)
    return qubiq.run(parser.parse_args([str(root), str(out), "--size", "32", "--workers", "1", *words]))


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated.write(tmp_path_factory.mktemp("every") / "tree", 2, **SMALL)


@pytest.mark.parametrize("name", TASKS)
def test_every_task(every: Path, name: str) -> None:
    task, dataset = TASKS[name], prepared(every, name)
    channels = 4 if task.dataset == "brain-tumor" else 1
    assert dataset.images.shape[1:] == (channels, 32, 32)
    assert dataset.labels.shape[1:] == (task.raters, 32, 32) and dataset.rater_valid.all()
    assert dataset.labels.any(axis=(2, 3)).mean() > 0.6
    if task.modality == "CT":
        assert dataset.images.dtype == np.int16 and dataset.intensity_window == HU_WINDOW
        assert -1024 <= dataset.images.min() < 0
    else:
        assert dataset.images.dtype == np.float32 and dataset.intensity_window == (0, 1)
        assert 0 <= dataset.images.min() < 0.1 and 0.5 < dataset.images.max() <= 1
    assert dataset.info["report"]["cases"] == {"Training": 2, "Validation": 1}
    assert dataset.info["report"]["skipped"] == {}
    assert {row["origin"] for row in dataset.cases} == {"Training", "Validation"}
    assert all((every / row["file"]).is_file() for row in dataset.cases)
    if task.volume:
        assert 3 < len(dataset) < 24
        assert dataset.info["report"]["excluded"]["slice on which nobody drew"] == 24 - len(dataset)
    else:
        assert len(dataset) == 3


def test_resized_patches_are_those_of_the_files(every: Path) -> None:
    for name in ("brain-tumor-2", "pancreatic-lesion"):
        dataset = prepared(every, name)
        for image, label, row in zip(dataset.images, dataset.labels, dataset.cases):
            file, task = every / row["file"], TASKS[name]
            raw = read_nifti(file)
            planes = raw[int(row["slice"])][None] if task.volume else np.moveaxis(raw, -1, 0)
            for found, plane in zip(image, planes):
                if task.volume:
                    np.testing.assert_array_equal(found, np.rint(resize_image(plane, 32)))
                else:
                    np.testing.assert_array_equal(found, resize_image(unit_range(plane), 32))
            for r, found in enumerate(label, start=1):
                mask = read_nifti(file.with_name(f"task{task.number:02d}_seg{r:02d}.nii.gz")) > 0
                np.testing.assert_array_equal(found, resize_mask(mask[int(row["slice"])] if task.volume else mask, 32))


def test_crops_are_windows_of_every_slice_on_which_somebody_drew(every: Path) -> None:
    dataset = prepared(every, "pancreas")
    found = {(row["file"], int(row["slice"])): i for i, row in enumerate(dataset.cases)}
    assert len(found) == len(dataset)
    for file in every.glob("*/pancreas/*/image.nii.gz"):
        image = read_nifti(file)
        masks = [read_nifti(file.with_name(f"task01_seg0{r}.nii.gz")) for r in (1, 2)]
        for s in range(len(image)):
            index = found.pop((file.relative_to(every).as_posix(), s), None)
            places = [np.argwhere(mask[s]) for mask in masks if mask[s].any()]
            assert (index is None) == (not places)
            if index is None:
                continue
            row, column = np.mean([place.mean(axis=0) for place in places], axis=0)
            top, left = (min(max(int(np.floor(c + 0.5)) - 16, 0), 48 - 32) for c in (row, column))
            window = (s, slice(top, top + 32), slice(left, left + 32))
            np.testing.assert_array_equal(dataset.images[index, 0], image[window])
            for r in (0, 1):
                np.testing.assert_array_equal(dataset.labels[index, r], masks[r][window])
            assert (dataset.cases[index]["top"], dataset.cases[index]["left"]) == (str(top), str(left))
    assert not found


# However the files are laid out, the patches are the same: the same pixels lie in them.
WRITTEN = {
    "uncompressed": ("brain-growth", {"suffix": ".nii"}),
    "case prefix": ("kidney", {"prefix": "case"}),
    "both prefixes": ("prostate", {"prefix": "both"}),
    "0 and 255": ("brain-growth", {"drawn": 255}),
    "floating masks": ("kidney", {"mask_dtype": "float64"}),
    "half masks": ("kidney", {"mask_dtype": "float32", "drawn": 0.5}),
    "floating volume": ("pancreas", {"image_dtype": "float32"}),
    "zero affine": ("brain-growth", {"affine": "zeros"}),
    "NaN affine": ("pancreatic-lesion", {"affine": "nan"}),
    "channels first": ("brain-tumor", {"channels_first": True}),
    "channels and an axis of one": ("brain-tumor", {"singleton": True}),
    "flat prostate": ("prostate", {"singleton": False}),
    "kidney with an axis of one": ("kidney", {"singleton": True}),
    "slices last": ("pancreas", {"slices_last": True}),
    "a level Training": ("pancreas", {"level": True}),
    "no level Training": ("kidney", {"level": False}),
    "strays": ("brain-growth", {"strays": True}),
    "stray copies of volumes": ("pancreatic-lesion", {"strays": True}),
    "2020": ("brain-growth", {"release": "2020"}),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_the_patches_do_not_depend_on_how_files_are_written(every: Path, tmp_path: Path, kind: str) -> None:
    name, irregular = WRITTEN[kind]
    task = next(key for key, task in TASKS.items() if task.dataset == name)
    if kind == "channels and an axis of one":
        irregular = {}
        tree(tmp_path / "raw", name)
        for file in tmp_path.rglob("image.nii.gz"):
            array = read_nifti(file)
            file.write_bytes(gzip.compress(simulated.nifti_bytes(array[:, :, None])))
    else:
        tree(tmp_path / "raw", name, **irregular)
    one, other = prepared(every, task), prepared(tmp_path / "raw", task)
    assert other.info["report"]["skipped"] == {}
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_array_equal(one.images, other.images)
    assert [row["case"] for row in one.cases] == [row["case"] for row in other.cases]


def test_absent_and_empty_raters(every: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = ["training/2/task01_seg03", *(f"validation/1/task01_seg0{r}" for r in (1, 2, 3, 5, 6))]
    tree(tmp_path / "raw", "prostate", absent=gone, empty=["training/1/task01_seg02", "validation/1/task01_seg04"])
    dataset, whole = prepared(tmp_path / "raw", "prostate-1"), prepared(every, "prostate-1")
    valid = np.ones((3, 6), bool)
    valid[1, 2] = valid[2, [0, 1, 2, 4, 5]] = False
    np.testing.assert_array_equal(dataset.rater_valid, valid)
    drawn = valid.copy()
    drawn[0, 1] = drawn[2, 3] = False  # they were asked, and drew nothing
    np.testing.assert_array_equal(dataset.labels, whole.labels * drawn[:, :, None, None])
    np.testing.assert_array_equal(dataset.images, whole.images)
    assert [row["missing"] for row in dataset.cases] == ["", "3", "1 2 3 5 6"]
    assert [row["raters"] for row in dataset.cases] == ["5", "5", "0"]
    assert dataset.info["report"]["excluded"] == {"rater whose mask is not in the case's folder": 6}
    assert prepared(tmp_path / "raw", "prostate-2").rater_valid.all()  # the other task lacks nothing
    assert command(tmp_path / "raw", tmp_path / "out", "--task", "prostate-1") == 0
    assert "6 x rater whose mask is not in the case's folder" in capsys.readouterr().out


def test_an_absent_rater_of_a_volume(every: Path, tmp_path: Path) -> None:
    tree(tmp_path / "raw", "pancreas", absent=["training/1/task01_seg02"], empty=["training/2/task01_seg01"])
    dataset, whole = prepared(tmp_path / "raw", "pancreas", fit="resize"), prepared(every, "pancreas", fit="resize")
    scans = np.array([row["case"].split("_")[0] for row in dataset.cases])
    first, second = scans == "training-case001-01", scans == "training-case001-02"
    assert first.any() and second.any()
    assert not dataset.rater_valid[first, 1].any() and not dataset.labels[first, 1].any()
    assert dataset.rater_valid[~first].all() and not dataset.labels[second, 0].any()
    assert dataset.labels[first, 0].any(axis=(1, 2)).all()  # only slices that the remaining rater drew on
    assert dataset.labels[second, 1].any(axis=(1, 2)).all()
    assert len(dataset) <= len(whole)


@pytest.mark.parametrize("dataset", ["kidney", "prostate", "pancreas", "brain-tumor"])
def test_a_mask_of_another_size_is_no_mask_of_that_image(
    tmp_path: Path, dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    task = next(key for key, task in TASKS.items() if task.dataset == dataset)
    tree(tmp_path / "raw", dataset, wider=["training/1/task01_seg02"])
    assert command(tmp_path / "raw", tmp_path / "out", "--task", task) == 3
    found = load_dataset(tmp_path / "out")
    first = [row["case"].startswith("training-case001") and "-02" not in row["case"] for row in found.cases]
    assert not found.rater_valid[first, 1].any() and not found.labels[first, 1].any()
    assert found.rater_valid.sum() == found.rater_valid.size - sum(first)
    printed = capsys.readouterr().out
    assert "1 x rater whose mask differs in size from the image" in printed
    assert "task01_seg02.nii.gz has shape" in printed


def test_a_mask_of_more_values_is_used_and_named(tmp_path: Path) -> None:
    tree(tmp_path / "raw", "kidney")
    file = next((tmp_path / "raw").rglob("case01/task01_seg01.nii.gz"))
    drawn = read_nifti(file)
    soft = drawn.astype(np.float32)
    soft[drawn == 0] = np.float32(0.2)
    file.write_bytes(gzip.compress(simulated.nifti_bytes(soft)))
    dataset = prepared(tmp_path / "raw", "kidney")
    np.testing.assert_array_equal(dataset.labels[0, 0], resize_mask(drawn > 0, 32))
    assert dataset.rater_valid.all() and dataset.info["report"]["skipped"] == {"mask with more than two values": 1}


@pytest.mark.parametrize("how", ["absent", "truncated"])
@pytest.mark.parametrize("dataset", ["brain-growth", "pancreas"])
def test_without_its_image_a_case_is_left_out_and_named(
    every: Path, tmp_path: Path, how: str, dataset: str, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(tmp_path / "raw", dataset, **{how: ["training/2/image"]})
    assert command(tmp_path / "raw", tmp_path / "out", "--task", dataset) == 3
    printed = capsys.readouterr().out
    assert "1 x cases that cannot be read" in printed and re.search(r"case(02|1-2)\b.* expected; download", printed)
    found, whole = load_dataset(tmp_path / "out"), prepared(every, dataset)
    kept = [row["case"].split("_")[0] not in ("training-case002", "training-case001-02") for row in whole.cases]
    np.testing.assert_array_equal(found.images, whole.images[kept])
    np.testing.assert_array_equal(found.labels, whole.labels[kept])


def test_a_truncated_mask_is_a_missing_rater(tmp_path: Path) -> None:
    tree(tmp_path / "raw", "brain-growth", truncated=["training/1/task01_seg05"])
    dataset = prepared(tmp_path / "raw", "brain-growth")
    assert np.argwhere(~dataset.rater_valid).tolist() == [[0, 4]]
    assert dataset.info["report"]["skipped"] == {"rater whose mask cannot be read": 1}
    assert "case01/task01_seg05.nii.gz cannot be read" in dataset.info["report"]["problems"][0]


def test_a_case_without_any_mask_is_named(tmp_path: Path) -> None:
    tree(tmp_path / "raw", "kidney", absent=[f"validation/1/task01_seg0{r}" for r in (1, 2, 3)])
    dataset = prepared(tmp_path / "raw", "kidney")
    assert len(dataset) == 2 and dataset.info["report"]["skipped"] == {"case without a usable mask": 1}
    assert "case03 has no usable mask of task 1" in dataset.info["report"]["problems"][0]


def test_odd_sizes_and_a_small_image(tmp_path: Path) -> None:
    tree(tmp_path / "raw", "prostate", size=(61, 37))
    for fit in ("crop", "resize"):
        dataset = prepared(tmp_path / "raw", "prostate-1", fit=fit, size=40)
        assert dataset.images.shape == (3, 1, 40, 40) and dataset.labels.any(axis=(2, 3)).all()
        assert {(row["height"], row["width"]) for row in dataset.cases} == {("61", "37")}
    assert not prepared(tmp_path / "raw", "prostate-1", fit="crop", size=40).labels[..., [0, -1]].any()


def test_other_channels_are_no_brain_tumor(tmp_path: Path) -> None:
    tree(tmp_path / "raw", "brain-tumor", channels=3)
    with pytest.raises(InputError, match=r"shape \(48, 48, 3\), one image of 4 channels expected"):
        prepared(tmp_path / "raw", "brain-tumor-1")


def test_values_that_are_no_hu_need_a_window(tmp_path: Path) -> None:
    tree(tmp_path / "raw", "kidney")
    plain = prepared(tmp_path / "raw", "kidney")
    for file in tmp_path.rglob("image.nii.gz"):
        file.write_bytes(gzip.compress(simulated.nifti_bytes(read_nifti(file) + 1024)))
    with pytest.raises(InputError, match=r"values 0 to \d+, HU \(air below 0\) expected; give --window"):
        prepared(tmp_path / "raw", "kidney")
    shifted = prepared(tmp_path / "raw", "kidney", window=(864, 1264))
    assert shifted.intensity_window == (864, 1264)
    np.testing.assert_array_equal(shifted.images, plain.images + 1024)
    for file in tmp_path.rglob("image.nii.gz"):
        file.write_bytes(gzip.compress(simulated.nifti_bytes((read_nifti(file) / 4096).astype(np.float32))))
    unit = prepared(tmp_path / "raw", "kidney", window=(0, 1))
    assert unit.images.dtype == np.float32  # whole numbers would leave nothing of it
    np.testing.assert_allclose(unit.images, shifted.images / 4096, atol=2e-4)


def test_padding_below_air_is_air(every: Path, tmp_path: Path) -> None:
    tree(tmp_path / "raw", "pancreas")
    for file in tmp_path.rglob("image.nii.gz"):
        array = read_nifti(file).copy()
        array[array == -1024] = -3024  # would drag its neighbours down when it is resized
        file.write_bytes(gzip.compress(simulated.nifti_bytes(array)))
    one, other = (prepared(root, "pancreas", fit="resize") for root in (every, tmp_path / "raw"))
    np.testing.assert_array_equal(one.images, other.images)


def test_nan_in_an_image_is_named(tmp_path: Path) -> None:
    tree(tmp_path / "raw", "pancreas", image_dtype="float32")
    file = next((tmp_path / "raw").rglob("case1-1/image.nii.gz"))
    array = read_nifti(file).copy()
    array[3:5, 0, 0] = np.nan, np.inf
    file.write_bytes(gzip.compress(simulated.nifti_bytes(array)))
    dataset = prepared(tmp_path / "raw", "pancreas")
    assert dataset.info["report"]["skipped"] == {"image with NaN or infinity": 2}
    assert "case1-1/image.nii.gz, slice 3 has NaN" in dataset.info["report"]["problems"][0]
    assert not {"training-case001-01_s003", "training-case001-01_s004"} & {row["case"] for row in dataset.cases}


def test_a_slice_whose_outline_vanishes_is_left_out_by_rule(tmp_path: Path) -> None:
    tree(tmp_path / "raw", "pancreatic-lesion", validation=0, cases=1)
    for file in tmp_path.rglob("task01_seg*.nii.gz"):
        mask = np.zeros((8, 48, 48), np.uint8)
        mask[2, 20, 20] = 1  # less than half of a pixel of 1.5 x 1.5
        mask[3, 20:26, 20:26] = 1
        file.write_bytes(gzip.compress(simulated.nifti_bytes(mask)))
    dataset = prepared(tmp_path / "raw", "pancreatic-lesion")
    assert [row["slice"] for row in dataset.cases] == ["3"]
    expected = {"slice on which nobody drew": 6, "slice without a drawn pixel in the patch": 1}
    assert dataset.info["report"]["excluded"] == expected
    cropped = prepared(tmp_path / "raw", "pancreatic-lesion", fit="crop")
    assert [row["slice"] for row in cropped.cases] == ["2", "3"]


def folds(dataset: PreparedDataset) -> dict[str, str]:
    return {row["patient"]: row["fold"] for row in dataset.cases}


def test_splits(tmp_path: Path) -> None:
    tree(tmp_path / "raw", "brain-growth", cases=8, validation=2)
    names = [f"training-case{n:03d}" for n in range(1, 9)] + ["validation-case009", "validation-case010"]
    first = folds(prepared(tmp_path / "raw", "brain-growth"))
    assert first == dict(zip(names, ["test", "test", *"01201201"]))
    challenge = folds(prepared(tmp_path / "raw", "brain-growth", split="challenge", folds=2))
    assert challenge == dict(zip(names, [*"01010101", "test", "test"]))
    drawn = [folds(prepared(tmp_path / "raw", "brain-growth", split="random", seed=seed)) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert sorted(drawn[0].values()) == sorted(first.values())
    with pytest.raises(InputError, match="8 training patients and 0 for validation found"):
        prepare_qubiq(tmp_path / "raw/training_data_v3_QC", tmp_path / "o", task="brain-growth", split="challenge")


def test_a_patients_scans_stay_together(tmp_path: Path) -> None:
    tree(tmp_path / "raw", "pancreas", cases=6, validation=2)
    for split in ("first", "challenge", "random"):
        dataset = prepared(tmp_path / "raw", "pancreas", split=split)
        assert dataset.info["patients"] == 4
        assert len({row["case"].split("_")[0] for row in dataset.cases}) == 8
        assert len({(row["patient"], row["fold"]) for row in dataset.cases}) == 4
    tree(tmp_path / "again", "pancreas", cases=2, validation=2, restart=True)
    with pytest.raises(InputError, match="patient case001 has scans in Training and in Validation"):
        prepared(tmp_path / "again", "pancreas", split="challenge")


def test_the_same_number_twice_is_two_cases(tmp_path: Path) -> None:
    tree(tmp_path / "raw", "brain-growth", cases=2, validation=2, restart=True)
    dataset = prepared(tmp_path / "raw", "brain-growth")
    assert len(dataset) == len({row["case"] for row in dataset.cases}) == dataset.info["patients"] == 4
    assert len(np.unique(dataset.images.reshape(4, -1), axis=0)) == 4


def test_two_releases_end_in_a_sentence(tmp_path: Path) -> None:
    for release in ("2020", "2021"):
        tree(tmp_path / "raw", "kidney", release=release)
    with pytest.raises(InputError, match=r"training_data_v2.* and in .*training_data_v3_QC.* one release expected"):
        prepared(tmp_path / "raw", "kidney")


@pytest.mark.parametrize(
    ("task", "options", "sentence"),
    [
        ("kidney", {"fit": "stretch"}, "fit 'stretch'"),
        ("kidney", {"split": "last"}, "split 'last'"),
        ("kidney", {"size": 8}, "patches of 8 pixels"),
        ("kidney", {"window": (5, 5)}, "intensity window"),
        ("prostate-1", {"window": (0, 400)}, "MR and has no fixed units"),
        ("kidney", {"workers": 0}, "0 workers"),
        ("liver", {}, "task 'liver'"),
    ],
)
def test_bad_options_are_said_in_one_sentence(
    every: Path, tmp_path: Path, task: str, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        prepare_qubiq(every, tmp_path / "out", task=task, **options)
    assert not (tmp_path / "out").exists()


def test_the_terminal_stays_clean(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tree(tmp_path / "raw", "pancreas", affine="nan", strays=True)
    tree(tmp_path / "raw", "kidney", affine="zeros", truncated=["training/1/task01_seg01"])
    for task in ("pancreas", "kidney"):
        prepared(tmp_path / "raw", task)
    printed = capfd.readouterr()
    assert printed.out == ""
    assert all(line.strip().startswith("cases:") for line in re.split(r"[\r\n]+", printed.err) if line.strip())


def test_processes_give_what_one_gives(every: Path) -> None:
    one, several = prepared(every, "pancreas"), prepared(every, "pancreas", workers=2)
    assert one.info["sha256"] == several.info["sha256"]


fuzz = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(
    data=st.data(), task=st.sampled_from(["brain-tumor-1", "pancreas"]), key=st.sampled_from(["image", "task01_seg02"])
)
def test_a_damaged_file_is_left_out_or_gives_the_right_pixels(
    every: Path, tmp_path: Path, data: st.DataObject, task: str, key: str
) -> None:
    case = find_cases(every, task)[0]
    copy = tmp_path / "case"
    shutil.copytree(case.folder, copy, dirs_exist_ok=True)
    file = copy / f"{key}.nii.gz"
    file.write_bytes(data.draw(damaged(file.read_bytes())))
    sound, spoiled = (
        qubiq._CaseTask(case._replace(folder=folder), TASKS[task], "resize", 32, None)
        for folder in (case.folder, str(copy))
    )
    expected = qubiq._make(sound)
    try:
        found = qubiq._make(spoiled)
    except InputError as error:
        assert key == "image" and str(file) in str(error)
        return
    images = {row["case"]: image for image, row in zip(expected.images, expected.cases)}
    masks = {row["case"]: label for label, row in zip(expected.labels, expected.cases)}
    lost = bool(found.skipped)
    assert not (lost and key == "image")
    for image, label, valid, row in zip(found.images, found.labels, found.rater_valid, found.cases):
        assert valid.tolist() == [True, not lost] + [True] * (len(valid) - 2)
        np.testing.assert_array_equal(image, images[row["case"]])
        np.testing.assert_array_equal(label, masks[row["case"]] * valid[:, None, None])


def test_brain_growth_as_released(real_data: Path, tmp_path: Path) -> None:
    if not (real_data / "qubiq").is_dir():
        pytest.skip(f"no QUBIQ at {real_data}")
    out = prepare_qubiq(real_data / "qubiq", tmp_path / "growth", task="brain-growth", workers=1)
    dataset = load_dataset(out)
    assert dataset.info["report"]["cases"] == {"Training": 34, "Validation": 5}
    assert dataset.images.shape == (39, 1, 128, 128) and dataset.labels.shape == (39, 7, 128, 128)
    assert dataset.rater_valid.all() and dataset.info["report"]["skipped"] == {}
    labels = dataset.labels.astype(bool)
    pairs = [(labels[:, a], labels[:, b]) for a, b in itertools.combinations(range(7), 2)]
    distance = [1 - (a & b).sum(axis=(1, 2)) / (a | b).sum(axis=(1, 2)) for a, b in pairs]
    assert np.mean(distance) == pytest.approx(0.249, abs=0.0005)
