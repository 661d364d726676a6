"""Bad input to a bundle: one sentence that says what was found, what was expected and what to do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from bundle_runs import REPOSITORY, SMALL_NETWORK, execute, train, write_prepared

from aleatoric.errors import input_error_in


def sentence(action, *args, **settings) -> str:
    """The InputError that a user would be shown."""
    with pytest.raises(Exception) as caught:
        action(*args, **settings)
    error = input_error_in(caught.value)
    assert error is not None, caught.value
    text = str(error)
    assert text.endswith(".") and "\n" not in text
    return text


def infer(bundle, images, tmp_path, **override):
    settings = {**SMALL_NETWORK, "num_samples": 2, "dataset_dir": str(images), **override}
    execute(bundle, "inference", kind="infer", output_dir=str(tmp_path / "out"), **settings)


def evaluate(bundle, prepared, tmp_path, **override):
    settings = {**SMALL_NETWORK, "dataset_dir": str(prepared), "pictures": 0, **override}
    execute(bundle, "evaluate", "evaluating", output_dir=str(tmp_path / "out"), **settings)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "x.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((32, 32), np.float32), np.eye(4)), path)
    return path


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ({"latent_dim": 6}, ["latent_dim 3", "here 6"]),
        ({"filters": [4, 8, 16]}, ["filters [4, 8]", "here [4, 8, 16]"]),
        ({"norm": "batch"}, ["norm None", "here batch"]),
        ({"channels": 2}, ["channels 1", "here 2"]),
        ({"intensity_window": [0, 255]}, ["intensity {'window': [-1000.0, 400.0]}", "here {'window': [0.0, 255.0]}"]),
    ],
    ids=lambda value: next(iter(value)),
)
def test_settings_that_disagree_with_the_checkpoint(one_trained, image, tmp_path, override, words):
    text = sentence(infer, one_trained, image, tmp_path, **override)
    if "channels" not in override:  # there the image is refused first, or the checkpoint: both are right
        assert all(word in text for word in [*words, "the same settings as in training"]), text


def test_a_checkpoint_of_other_raters(one_trained, tmp_path):
    others = write_prepared(tmp_path / "five", raters=5, patients=6)
    assert "raters 4 (here 5)" in sentence(evaluate, one_trained, others, tmp_path)


def test_resuming_with_other_settings(one_bundle, prepared):
    train(one_bundle, prepared, max_epochs=1)
    assert "latent_dim 3 (here 4)" in sentence(train, one_bundle, prepared, latent_dim=4, resume=True)
    shutil.rmtree(one_bundle / "models")
    assert "run training without resume first" in sentence(train, one_bundle, prepared, resume=True)


def test_resuming_where_nothing_is_left(one_bundle, prepared):
    train(one_bundle, prepared, max_epochs=2)
    text = sentence(train, one_bundle, prepared, max_epochs=1, resume=True)
    assert "is of epoch 2, and max_epochs is 1" in text


def test_a_training_says_which_models_it_replaces(one_bundle, prepared, caplog):
    train(one_bundle, prepared, max_epochs=1)
    assert "earlier training" not in caplog.text
    train(one_bundle, prepared, max_epochs=2, resume=True)
    assert "earlier training" not in caplog.text
    train(one_bundle, prepared, max_epochs=1)
    assert "model.pt of an earlier training" in caplog.text and "--ckpt_dir" in caplog.text


def test_no_checkpoint(one_bundle, prepared, image, tmp_path):
    for text in (
        sentence(evaluate, one_bundle, prepared, tmp_path),
        sentence(infer, one_bundle, image, tmp_path),
    ):
        assert "there is no checkpoint" in text and "train first" in text
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_images_that_cannot_be_answered(one_trained, tmp_path):
    bad = np.zeros((32, 32, 2), np.float32)
    bad[3, 4, 1] = np.nan
    nibabel.save(nibabel.Nifti1Image(bad, np.eye(4)), tmp_path / "nan.nii.gz")
    text = sentence(infer, one_trained, tmp_path / "nan.nii.gz", tmp_path)
    assert "nan.nii.gz has 1 values that are NaN" in text
    nibabel.save(nibabel.Nifti1Image(np.zeros((32, 32, 4, 3), np.float32), np.eye(4)), tmp_path / "rgb.nii.gz")
    text = sentence(infer, one_trained, tmp_path / "rgb.nii.gz", tmp_path)
    assert "3 channels" in text and "expects 1" in text
    (tmp_path / "text.txt").write_text("no image")
    assert "is no NIfTI file" in sentence(infer, one_trained, tmp_path / "text.txt", tmp_path)
    assert "there is no" in sentence(infer, one_trained, tmp_path / "nowhere", tmp_path)
    (tmp_path / "empty").mkdir()
    assert "neither NIfTI files nor a DICOM series" in sentence(infer, one_trained, tmp_path / "empty", tmp_path)
    (tmp_path / "broken.nii.gz").write_bytes(b"no image")
    assert "broken.nii.gz" in sentence(infer, one_trained, tmp_path / "broken.nii.gz", tmp_path)
    assert not list((tmp_path / "out").glob("*")) if (tmp_path / "out").exists() else True


def test_a_point_outside_the_image(one_trained, tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((32, 32, 2), np.float32), np.eye(4)), tmp_path / "x.nii.gz")
    text = sentence(infer, one_trained, tmp_path / "x.nii.gz", tmp_path, center=[5.0, 5.0, 1.0])
    assert "LPS" in text and "give a point inside the image" in text


def test_prepared_folders_that_do_not_fit(one_bundle, prepared, tmp_path):
    assert "nowhere" in sentence(train, one_bundle, tmp_path / "nowhere")
    for change in ("version", "hash"):
        folder = tmp_path / change
        shutil.copytree(prepared, folder)
        if change == "version":
            info = json.loads((folder / "dataset.json").read_text())
            (folder / "dataset.json").write_text(json.dumps({**info, "format_version": 99}))
        else:
            labels = np.load(folder / "labels.npy")
            labels[0, 0, 0, 0] ^= 1
            np.save(folder / "labels.npy", labels)
        assert "prepare the data set again" in sentence(train, one_bundle, folder)
    assert not list((one_bundle / "models").glob("*.pt"))


def test_a_loss_that_is_not_finite_stops_the_run(one_bundle, prepared):
    text = sentence(train, one_bundle, prepared, learning_rate=1e30, warmup_epochs=0, log_interval=1)
    assert "the loss term '" in text and "not finite at iteration 2" in text and "lower the learning rate" in text
    assert not list((one_bundle / "models").glob("*.pt"))


def test_the_command_line_shows_the_sentence_alone(one_trained, prepared, tmp_path):
    """Exit code not 0, one line on stderr, no trace, as a program of its own."""
    command = [sys.executable, "-m", "monai.bundle", "run", "evaluating", "--config_file", "configs/evaluate.json"]
    options = {
        "dataset_dir": prepared,
        "output_dir": tmp_path / "out",
        "filters": "[4,8]",
        "num_convs": 1,
        "latent_dim": 5,
    }
    result = subprocess.run(
        [*command, *(str(part) for key, value in options.items() for part in (f"--{key}", value))],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert "Traceback" not in result.stderr + result.stdout
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "latent_dim 3 (here 5)" in lines[0]
    assert not (tmp_path / "out").exists()
