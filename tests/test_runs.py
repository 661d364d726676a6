"""run.json: written as a training starts, found from either folder, right after a move."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from ignite.engine import Engine

from aleatoric.errors import InputError
from aleatoric.handlers import ModelSettings
from aleatoric.runs import RunRecord, read_run
from bundles.bundle_runs import write_prepared


@pytest.fixture
def place(tmp_path) -> Path:
    """A bundle, a data set beside it, and the record of a training."""
    bundle = tmp_path / "place" / "bundle"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "configs" / "metadata.json").write_text(json.dumps({"name": "A model", "version": "1.2.3"}))
    (bundle / "configs" / "inference.json").write_text("{}")
    (bundle / "models").mkdir()
    write_prepared(tmp_path / "place" / "discs", patients=10, size=8)
    record(bundle)
    return bundle


def record(bundle: Path, output: str = "eval") -> None:
    writer = RunRecord(
        str(bundle / output),
        str(bundle),
        str(bundle / "models"),
        str(bundle.parent / "discs"),
        1,
        7,
        ModelSettings(filters=[4, 8], variant=None),
        {"learning_rate": 0.1},
    )
    trainer = Engine(lambda engine, batch: None)
    writer.attach(trainer)
    trainer.run([0], max_epochs=1)


def test_a_training_is_found_from_its_folder_and_from_its_bundle(place):
    run = read_run(place)
    assert run == read_run(place / "eval")
    assert (run.output_dir, run.bundle_root, run.ckpt_dir) == (place / "eval", place, place / "models")
    assert run.dataset_dir == place.parent / "discs" and (run.fold, run.seed) == (1, 7)
    assert run.settings == {"filters": [4, 8], "variant": None} and run.recipe == {"learning_rate": 0.1}
    assert run.bundle == {"name": "A model", "folder": "bundle", "version": "1.2.3"}
    assert run.dataset["name"] == "discs" and run.versions["torch"]


def test_a_folder_that_was_moved_whole_still_works(place, tmp_path):
    moved = shutil.move(place.parent, tmp_path / "elsewhere")
    run = read_run(Path(moved) / "bundle")
    assert run.bundle_root == tmp_path / "elsewhere" / "bundle"
    assert run.dataset_dir == tmp_path / "elsewhere" / "discs" and run.dataset_dir.is_dir()


def test_a_bundle_that_was_moved_alone_still_finds_its_data(place, tmp_path):
    moved = Path(shutil.move(place, tmp_path / "far" / "away"))
    run = read_run(moved)
    assert run.bundle_root == moved and run.dataset_dir == tmp_path / "place" / "discs"


def test_a_copy_of_the_output_alone_still_finds_its_bundle(place, tmp_path):
    copied = Path(shutil.copytree(place / "eval", tmp_path / "far" / "eval"))  # that has a folder above it, too
    run = read_run(copied)
    assert (run.bundle_root, run.dataset_dir) == (place, place.parent / "discs") and run.output_dir == copied


def test_several_trainings_are_listed(place):
    record(place, "eval/second")
    with pytest.raises(InputError, match=r"has 2 trainings, expected one: give the folder of one of .*eval, .*second"):
        read_run(place)
    assert read_run(place / "eval" / "second").output_dir == place / "eval" / "second"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "does not describe a training"),
        ("[]", "does not describe a training"),
        ('{"format_version": 1}', "does not describe a training"),
        ('{"format_version": 9}', "has format version 9, expected 1"),
    ],
)
def test_a_damaged_record_is_one_sentence(place, text, sentence):
    (place / "eval" / "run.json").write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_run(place)


def test_a_folder_without_a_training_is_one_sentence(place, tmp_path):
    (place / "eval" / "run.json").unlink()
    with pytest.raises(InputError, match=r"there is no run\.json in"):
        read_run(place)
    with pytest.raises(InputError, match="is no folder"):
        read_run(tmp_path / "nowhere")
