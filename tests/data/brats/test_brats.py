"""``aleatoric prepare brats`` on simulated trees with everything that is irregular in the released ones."""

from __future__ import annotations

import argparse
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from damage import damaged
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from open_ms import as_brats_case

from aleatoric.data import load_dataset
from aleatoric.data.brats import command as brats
from aleatoric.data.brats.command import prepare_brats
from aleatoric.data.brats.tree import SEQUENCES, find_cases
from aleatoric.data.brats.volumes import AIR, WINDOW, class_map, normalised
from aleatoric.data.prepared.reading import PreparedDataset
from aleatoric.errors import InputError
from simulated import brats as simulated

SIZE = (20, 24, 16)  # left, posterior, superior
KEYS = SEQUENCES


def tree(root: Path, cases: int = 3, **irregular: Any) -> Path:
    return simulated.write(root, cases, **{"size": SIZE, **irregular})


def prepared(root: Path, **options: Any) -> PreparedDataset:
    out = root.parent / f"{root.name}-set"
    return load_dataset(prepare_brats(root, out, **{"workers": 1, "overwrite": True, **options}))


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PreparedDataset]:
    root = tree(tmp_path_factory.mktemp("sound") / "tree", 6)
    return root, prepared(root)


def read(path: Path) -> np.ndarray:
    """Rows towards posterior, columns towards left: the released files' axes are left, posterior, superior."""
    image = nib.load(path)
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    return np.swapaxes(np.asarray(image.dataobj), 0, 1)


def by_hand(folder: Path, name: str) -> np.ndarray:
    """The authors' preprocessing, step by step on whole volumes, in standard deviations; air is NaN."""
    channels = [read(folder / f"{name}_{key}.nii.gz").astype(float) for key in KEYS]
    brain = np.zeros(channels[0].shape, bool)
    for channel in channels:
        brain |= channel != 0
    result = []
    for channel in channels:
        low, high = np.percentile(channel[brain], (5, 95))
        inner = brain & (channel > low) & (channel < high) & (channel > np.mean(channel))
        scaled = (channel - np.mean(channel[inner])) / np.std(channel[inner])
        scaled[~brain] = np.nan
        result.append(scaled)
    return np.stack(result)


def test_voxels_are_the_papers(sound: tuple[Path, PreparedDataset]) -> None:
    root, dataset = sound
    assert dataset.info["channels"] == ["flair", "t1", "t1ce", "t2"]
    assert dataset.images.dtype == np.int16 and dataset.images.shape == (6, 4, 24, 20, 16)
    for image, label, row in zip(dataset.images, dataset.labels, dataset.cases):
        expected = by_hand(root / row["folder"], row["case"])
        air = np.isnan(expected)
        np.testing.assert_array_equal(image == AIR, air)
        inside = ~air & (image < 32767) & (image > AIR + 1)
        assert inside.sum() > 0.99 * (~air).sum()
        # nothing but the rounding to a thousandth
        assert np.abs(image[inside] / 1000 - expected[inside]).max() <= 0.0005 + 1e-9
        drawn = read(root / row["folder"] / f"{row['case']}_seg.nii.gz")
        np.testing.assert_array_equal(label[0], np.where(drawn == 4, 3, drawn))
    assert dataset.rater_valid.all() and set(np.unique(dataset.labels)) == {0, 1, 2, 3}


def test_air_is_zero_after_the_loader_and_no_brain_voxel_is(sound: tuple[Path, PreparedDataset]) -> None:
    from aleatoric.data import DeviceLoader

    root, dataset = sound
    assert dataset.intensity_window == WINDOW
    # the paper's test set is 30% of all: there is something to train on
    loader = DeviceLoader(dataset, "training", batch_size=1)
    for position, batch in zip(dataset.indices("training"), loader):
        row = dataset.cases[position]
        air = np.isnan(by_hand(root / row["folder"], row["case"])).all(axis=0)
        image = batch["image"][0].numpy()
        assert (image[:, air] == 0).all() and (image[:, ~air] > 0).all()
        assert (image.max(axis=(1, 2, 3)) > 0.55).all()


def test_the_lowest_brain_voxel_is_above_air() -> None:
    image = np.zeros((1, 12, 10, 10))
    image[:, 1:11] = np.random.default_rng(0).normal(1000, 1, (1, 10, 10, 10))
    image[0, 5, 5, 5] = 0.001  # a thousand standard deviations below
    image[0, 5, 5, 6] = 5000
    result = normalised(image, ["t1"])
    assert result[0, 5, 5, 5] == AIR + 1 and result[0, 5, 5, 6] == 32767
    assert (result[0, 0] == AIR).all() and (result == AIR).sum() == 200


def test_what_is_darker_than_the_mean_of_the_volume_does_not_count() -> None:
    random = np.random.default_rng(0)
    image = np.zeros((1, 20, 20, 20))
    image[:, 5:] = random.normal(1000, 50, (1, 15, 20, 20))
    image[:, 5:8] = random.normal(100, 10, (1, 3, 20, 20))  # a fifth, so that no percentile leaves it out
    bright = image[image > image.mean()]
    low, high = np.percentile(image[image != 0], (5, 95))
    counted = bright[(bright > low) & (bright < high)]
    expected = (image - counted.mean()) / counted.std()
    inside = (image != 0) & (expected > -9.9)
    assert 0.75 < inside.sum() / (image != 0).sum() < 0.85
    np.testing.assert_allclose(normalised(image, ["t1"])[inside] / 1000, expected[inside], atol=6e-4)


def test_a_void_in_one_sequence_is_brain(sound: tuple[Path, PreparedDataset]) -> None:
    root, dataset = sound
    row = dataset.cases[0]
    t1, t2 = (read(root / row["folder"] / f"{row['case']}_{key}.nii.gz") for key in ("t1", "t2"))
    void = (t1 == 0) & (t2 != 0)
    assert void.any() and (dataset.images[0][:, void] > AIR).all()


def test_columns(sound: tuple[Path, PreparedDataset]) -> None:
    _, dataset = sound
    rows = {row["case"]: row for row in dataset.cases}
    assert rows["Brats17_TCIA_101_1"]["patient"] == "Brats17_TCIA_101"
    assert [rows[f"Brats17_{n}_1"]["site"] for n in ("2013_102", "CBICA_103", "TCIA_104")] == ["2013", "CBICA", "TCIA"]
    assert Counter(row["grade"] for row in rows.values()) == {"HGG": 4, "LGG": 2}
    low = [i for i, row in enumerate(dataset.cases) if row["grade"] == "LGG"]
    assert not (dataset.labels[low] == 3).any() and (dataset.labels == 3).any()
    report = dataset.info["report"]
    assert report["grades"] == {"HGG": 4, "LGG": 2} and report["sites"] == {"2013": 2, "CBICA": 2, "TCIA": 2}
    brain = (dataset.images[:, 0] > AIR).reshape(len(dataset), -1).sum(axis=1)
    assert [int(row["brain_voxels"]) for row in dataset.cases] == brain.tolist()
    assert sum(int(row["above_window"]) for row in dataset.cases) == (dataset.images > WINDOW[1]).sum() > 0


def test_sixty_ten_thirty(tmp_path: Path) -> None:
    dataset = prepared(tree(tmp_path / "tree", 20, size=(8, 8, 8)))
    sections = [len(dataset.indices(name)) for name in ("training", "validation", "testing")]
    assert sections == [12, 2, 6]
    assert dataset.info["folds"]["folds"] == 7
    chosen = prepared(tree(tmp_path / "tree", 20, size=(8, 8, 8)), test_fraction=0.5, folds=2)
    assert len(chosen.indices("testing")) == 10


def test_somebody_elses_split(tmp_path: Path) -> None:
    root, file = tree(tmp_path / "tree", 4, size=(8, 8, 8)), tmp_path / "published.json"
    names = [case.patient for case in find_cases(root)]
    file.write_text(json.dumps({"training": names[:2], "validation": names[2:3], "testing": names[3:]}))
    dataset = prepared(root, split=file)
    assert [row["fold"] for row in dataset.cases] == ["train", "train", "0", "test"]
    again = prepared(root, split=Path(shutil.copy(dataset.root / "cases.csv", tmp_path)))
    assert again.info["folds"]["split_hash"] == dataset.info["folds"]["split_hash"]
    file.write_text(json.dumps({"training": names[1:]}))
    with pytest.raises(InputError, match=f"published.json says nothing of 1 patients, for example {names[0]}"):
        prepared(root, split=file)
    with pytest.raises(InputError, match="absent.json cannot be read"):
        prepared(root, split=tmp_path / "absent.json")


def test_scans_of_one_patient_stay_together(tmp_path: Path) -> None:
    for release in ("2017", "2023"):
        root = tree(tmp_path / release, 4, release=release, second_scan=True, size=(8, 8, 8))
        dataset = prepared(root, enhancing=3 if release == "2023" else 4)
        folds: dict[str, set[str]] = {}
        for row in dataset.cases:
            folds.setdefault(row["patient"], set()).add(row["fold"])
        assert len(folds) == 3 and all(len(fold) == 1 for fold in folds.values())


@pytest.mark.parametrize(
    "irregular",
    [
        {"suffix": ".nii"},
        {"flat": True, "grades": False},
        {"release": "2020"},
        {"release": "2020", "stray_segmentation": 2},
        {"release": "2023"},
        {"strays": True},
        {"dtype": "float32"},
        {"axes": "RAS"},
        {"axes": "ASL"},
    ],
    ids=str,
)
def test_the_same_voxels_from_any_tree(tmp_path: Path, irregular: dict[str, Any]) -> None:
    plain = prepared(tree(tmp_path / "plain"))
    other = prepared(tree(tmp_path / "other", **irregular), enhancing=3 if irregular.get("release") == "2023" else 4)
    assert other.info["report"]["skipped"] == {}
    key = {row["case"].split("_")[-2 if "17" in row["case"] else -1][-2:]: i for i, row in enumerate(plain.cases)}
    order = [
        key[row["case"].replace("-000", "").split("_")[-2 if "17" in row["case"] else -1][-2:]] for row in other.cases
    ]
    np.testing.assert_array_equal(other.images, plain.images[order])
    np.testing.assert_array_equal(other.labels, plain.labels[order])


def test_the_root_at_either_level(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree")
    assert [case.name for case in find_cases(root.parent)] == [case.name for case in find_cases(root)]
    below = find_cases(root / "LGG")
    assert [case.grade for case in below] == ["LGG"] and below[0].label == below[0].name
    (single,) = find_cases(root / "LGG" / below[0].name)
    assert single.grade == "LGG" and single.name == below[0].name


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "tree",
        9,
        absent=["1/seg", "2/t1ce"],
        wider=["4/seg"],
        truncated=["5/t2"],
        values={"6/seg": 3, "7/t1": float("nan"), "8/seg": 1.5},
    )
    duplicate = next(root.glob("*/Brats17_*_109_1/*_t1.nii.gz"))
    shutil.copy(duplicate, duplicate.with_name(duplicate.name.replace("_t1.", "_T1gd.").replace("T1gd", "T1")))
    shutil.copy(duplicate, str(duplicate)[: -len(".gz")])
    dataset = prepared(root)
    report = dataset.info["report"]
    assert [row["case"] for row in dataset.cases] == ["Brats17_CBICA_103_1", "Brats17_CBICA_109_1"]
    sentences = " ".join(report["problems"])
    for said in (
        "has no Brats17_2013_101_1_seg.nii.gz".replace("2013", "TCIA"),
        "has no Brats17_2013_102_1_t1ce.nii.gz",
        "_104_1_seg.nii.gz does not lie on the grid of",
        "_105_1_t2.nii.gz cannot be read as NIfTI",
        "_106_1_seg.nii.gz has the label 3, 0, 1, 2, 4",
        "--enhancing 3",
        "_107_1_t1.nii.gz has NaN or infinity",
        "_108_1_seg.nii.gz has the label 1.5",
        "_109_1_T1.nii.gz and",
    ):
        assert said in sentences, said
    assert report["skipped"]["case without a segmentation"] == 1
    assert report["skipped"]["cases that cannot be read"] == 6
    assert report["skipped"]["second file of a sequence"] == 2


def test_one_size(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree", 4, wider=["3"])
    with pytest.raises(
        InputError, match=r"case Brats17_CBICA_103_1 .* 24 x 21 x 16 voxels, 24 x 20 x 16 expected .* 3 other"
    ):
        prepared(root)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda root: shutil.rmtree(root), "is not a folder"),
        (lambda root: [path.unlink() for path in root.rglob("*.nii.gz")], "holds no case"),
        (lambda root: shutil.copytree(root / "HGG", root / "LGG" / "again"), "found in .* and in .*, one expected"),
        (lambda root: [path.write_bytes(b"x") for path in root.rglob("*.nii.gz")], "none of 3 cases could be read"),
    ],
)
def test_refused(tmp_path: Path, spoil: Any, sentence: str) -> None:
    root = tree(tmp_path / "tree")
    spoil(root)
    with pytest.raises(InputError, match=sentence):
        prepared(root)
    assert not (tmp_path / "tree-set").exists()


def test_an_image_without_a_brain_or_contrast() -> None:
    with pytest.raises(InputError, match="0 everywhere"):
        normalised(np.zeros((2, 4, 4, 4)), ["a", "b"])
    with pytest.raises(InputError, match="b has no contrast"):
        noise = np.random.default_rng(0).normal(10, 1, (4, 4, 4))
        normalised(np.stack([noise, np.full((4, 4, 4), 7.0)]), ["a", "b"])


def test_labels_of_2023() -> None:
    labels = np.array([[[0, 1, 2, 3]]])
    np.testing.assert_array_equal(class_map(labels, "seg", 3), labels)
    with pytest.raises(InputError, match="label 4"):
        class_map(labels + 1, "seg", 3)
    with pytest.raises(InputError, match="label nan"):
        class_map(np.full((1, 1, 1), np.nan), "seg")


def test_labels_outside_of_the_brain_stay(tmp_path: Path) -> None:
    root = tree(tmp_path / "tree", 1)
    path = next(root.rglob("*_seg.nii.gz"))
    image = nib.load(path)
    labels = np.asarray(image.dataobj).copy()
    labels[0, 0, 0] = 2
    nib.save(nib.Nifti1Image(labels, image.affine), path)
    dataset = prepared(root)
    assert dataset.labels[0, 0, 0, 0, 0] == 2 and dataset.cases[0]["labelled_outside"] == "1"
    assert any("outside of the brain" in note for note in dataset.info["report"]["notes"])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from aleatoric.cli import main

    root = tree(tmp_path / "tree", 4, size=(8, 8, 8))
    assert main(["prepare", "brats", str(root), str(tmp_path / "set"), "--workers", "1"]) == 0
    assert "4 patches of 4 patients from 4 cases, 1 rater" in capsys.readouterr().out
    assert main(["show", str(tmp_path / "set"), "--out", str(tmp_path / "set.png")]) == 0
    parser = argparse.ArgumentParser()
    brats.add_arguments(parser)
    text = " ".join(parser.format_help().split())
    assert "for testing (default: 0.3)" in text and "other patients (default: 7)" in text


def test_a_killed_preparation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = tree(tmp_path / "tree", 3), tmp_path / "set"
    whole = prepared(root)
    make, made = brats._make, []

    def killed(task: Any) -> Any:
        made.append(task.case.name)
        if len(made) == 3:
            raise KeyboardInterrupt
        return make(task)

    monkeypatch.setattr(brats, "_make", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare_brats(root, out, workers=1)
    again = load_dataset(prepare_brats(root, out, workers=1))
    assert len(made) == 4 and made[3] == made[2]
    assert again.info["sha256"] == whole.info["sha256"]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_give_a_sentence_or_the_same_voxels(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("damaged")
    root = tree(folder / "tree", 1, size=(8, 8, 8), suffix=data.draw(st.sampled_from([".nii", ".nii.gz"])))
    path = next(root.rglob(f"*_{data.draw(st.sampled_from([*KEYS, 'seg']))}.nii*"))
    path.write_bytes(data.draw(damaged(path.read_bytes(), head=400)))
    try:
        dataset = prepared(root)
    except InputError as error:
        assert str(error).count("\n") == 0 and str(error).endswith((".", ")"))
    else:
        assert len(dataset) == 1


def test_a_real_mr(tmp_path: Path, real_data: Path) -> None:
    drawn = as_brats_case(real_data, tmp_path / "tree")
    dataset = prepared(tmp_path / "tree")
    assert dataset.images.shape == (1, 4, 218, 182, 182)
    assert (dataset.labels == 2).sum() == drawn.sum() and not (dataset.labels == 1).any()
    brain = dataset.images[0] > AIR
    assert 0.14 < brain.mean() < 0.16 and brain.all(axis=0).sum() == brain.any(axis=0).sum()
    # a brain in the window: the middle is near 0, hardly anything is cut off
    for channel in dataset.images[0]:
        inside = channel[channel > AIR]
        assert abs(np.median(inside)) < 1000 and 900 < inside.std() < 2000
        assert (inside > WINDOW[1]).mean() < 1e-3 and (inside == AIR + 1).mean() < 1e-3
    # files towards left, anterior, superior: the first row is the front
    assert np.argwhere(dataset.labels[0, 0])[:, 0].mean() == pytest.approx(217 - np.argwhere(drawn)[:, 1].mean())
