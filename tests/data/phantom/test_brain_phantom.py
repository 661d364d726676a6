"""Simulated brains: the same from the same seed, and in channels, classes and air what ``prepare brats`` makes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from aleatoric import cli
from aleatoric.data import DeviceLoader, load_dataset
from aleatoric.data.brats.command import prepare_brats
from aleatoric.data.brats.volumes import AIR
from aleatoric.data.phantom import brain
from aleatoric.data.phantom.brain import prepare_brain_phantom
from aleatoric.data.prepared import preparation
from simulated import brats as simulated

SIZE = (28, 24, 20)  # posterior, left, superior


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(brain, "BRAIN_SIZE", SIZE)  # in this process only: workers have the true size


def info(folder: Path) -> dict:
    return json.loads((folder / "dataset.json").read_text())


def test_the_same_arrays_from_the_same_seed_on_any_number_of_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation, "_UNITS_PER_PROCESS", 1)
    one, two, other = (
        info(prepare_brain_phantom(tmp_path / name, cases=3, workers=workers, seed=seed))["sha256"]
        for name, workers, seed in (("one", 1, 3), ("two", 2, 3), ("other", 1, 4))
    )
    assert one == two
    assert one["images.npy"] != other["images.npy"] and one["labels.npy"] != other["labels.npy"]


def test_every_third_is_of_low_grade_and_has_no_enhancing_part(tmp_path, small):
    dataset = load_dataset(prepare_brain_phantom(tmp_path / "set", cases=7, workers=1))
    for row, label in zip(dataset.cases, dataset.labels, strict=True):
        low = int(row["case"].removeprefix("brain_")) % 3 == 0
        assert row["grade"] == ("LGG" if low else "HGG")
        assert set(np.unique(label)) == ({0, 1, 2} if low else {0, 1, 2, 3})
    assert [row["grade"] for row in dataset.cases].count("LGG") == 2
    assert len({image.tobytes() for image in dataset.images}) == 7
    assert dataset.rater_valid.all()


def test_air_is_zero_after_the_loader_in_all_channels_and_only_there(tmp_path, small):
    dataset = load_dataset(prepare_brain_phantom(tmp_path / "set", cases=6, workers=1, test_fraction=0.34))
    stored = dataset.images[dataset.indices("training")]
    loader = DeviceLoader(dataset, "training", batch_size=1, device="cpu")
    assert len(loader) == len(stored) > 0
    for position, batch in zip(dataset.indices("training"), loader):
        number = int(dataset.cases[position]["case"].removeprefix("brain_"))
        height, width, depth = SIZE
        files = brain.simulate_brain(np.random.default_rng([0, number]), (width, height, depth), number % 3 == 0)
        air = np.all([files[key] == 0 for key in ("flair", "t1", "t1ce", "t2")], axis=0).swapaxes(0, 1)
        assert 0.2 < air.mean() < 0.9
        image = batch["image"][0].numpy()
        assert (image[:, air] == 0).all() and (image[:, ~air] > 0).all()
        np.testing.assert_array_equal(
            batch["label"][0, 0].numpy(), np.where(files["seg"] == 4, 3, files["seg"]).swapaxes(0, 1)
        )
        assert not batch["label"][0, 0].numpy()[air].any()
        # the void is one voxel of T1 alone: brain by the other sequences
        void = (files["t1"] == 0).swapaxes(0, 1) & ~air
        assert void.sum() == 1 and (image[:, void] > 0).all()


def test_it_is_what_prepare_brats_makes(tmp_path, small):
    root = simulated.write(tmp_path / "tree", 3, size=(24, 28, 20))
    real = load_dataset(prepare_brats(root, tmp_path / "brats", workers=1))
    made = load_dataset(prepare_brain_phantom(tmp_path / "set", cases=3, workers=1))
    for key in ("channels", "classes", "intensity_window"):
        assert made.info[key] == real.info[key]
    assert made.images.shape[1:] == real.images.shape[1:] == (4, *SIZE)
    assert made.labels.shape[1:] == real.labels.shape[1:] == (1, *SIZE)
    assert (made.images.dtype, made.labels.dtype) == (real.images.dtype, real.labels.dtype)
    assert {"case", "patient", "grade"} <= set(made.cases[0]) & set(real.cases[0])
    assert (made.images.min(), real.images.min()) == (AIR, AIR)
    for image in made.images:  # thousandths of a standard deviation about the mean of what is bright
        inside = image[:, (image != AIR).all(axis=0)]
        assert (np.abs(np.median(inside, axis=1)) < 1500).all()
    assert made.info["source"].startswith("simulated") and made.info["report"]["simulated"] is True


def test_the_command_writes_it(tmp_path, small, capsys):
    out = tmp_path / "brains"
    assert cli.main(["prepare", "phantom", str(out), "--brain", "3", "--seed", "5", "--workers", "1"]) == 0
    python = prepare_brain_phantom(tmp_path / "python", cases=3, seed=5, workers=1)
    assert info(out)["sha256"] == info(python)["sha256"] and info(out)["name"] == "brain_phantom"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--brain", "0"], "--brain 0 found, 1 case or more expected"),
        (["--brain", "3", "--patches", "2"], "--patches found beside --brain"),
        (["--brain", "3", "--dicom"], "--dicom found beside --brain"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(tmp_path, capsys, arguments, words):
    out = tmp_path / "set"
    assert cli.main(["prepare", "phantom", str(out), *arguments]) == 2
    text = capsys.readouterr().err.strip()
    assert words in text and "\n" not in text and text.endswith(".") and "Traceback" not in text
    assert not out.exists()
