"""Overlays for other data sets: built, as the papers say, effective, and they train and evaluate."""

from __future__ import annotations

import json

import nibabel
import numpy as np
import pytest
import torch
from bundle_runs import FLAT, REPOSITORY, SMALL_NETWORK, copy_bundle, execute, train, write_prepared
from monai.bundle import ConfigParser

from aleatoric.data import DeviceLoader, intensity_transform, load_dataset
from aleatoric.data.datalist.command import prepare_datalist
from aleatoric.data.qubiq.command import prepare_qubiq
from aleatoric.errors import input_error_in
from simulated import datalist, qubiq

QUBIQ = {
    "brain_growth": (1, 7),
    **{f"brain_tumor_{task}": (4, 3) for task in (1, 2, 3)},
    "kidney": (1, 3),
    "prostate_1": (1, 6),
    "prostate_2": (1, 6),
    "pancreas": (1, 2),
    "pancreatic_lesion": (1, 2),
}
OVERLAYS = ["phantom", "kohl", "lidc_pickle", "datalist", *(f"qubiq_{task}" for task in QUBIQ)]
# A small network and training; what the overlay says of all else stands.
SMALL_RUN = {"filters": [4, 8], "num_convs": 1, "latent_dim": 3, "max_epochs": 1, "progress": False}


def config(bundle: str, name: str) -> dict:
    return json.loads((REPOSITORY / "bundles" / bundle / "configs" / f"{name}.json").read_text())


@pytest.mark.parametrize("name", OVERLAYS)
@pytest.mark.parametrize("bundle", FLAT)
def test_an_overlay_changes_ids_that_exist(bundle, name):
    overlay, plain = config(bundle, name), config(bundle, "evaluate") | config(bundle, "train")
    used = {key for key in overlay if any(f"@{key}" in str(value) for value in overlay.values())}
    assert set(overlay) - {"protocol", "+imports"} <= set(plain) | used
    changed = {key for key, value in overlay.items() if key in plain and plain[key] != value}
    assert "dataset_dir" in changed


@pytest.mark.parametrize("task", QUBIQ)
def test_channels_and_raters_are_those_of_the_challenge(task):
    for bundle in FLAT:
        overlay = config(bundle, f"qubiq_{task}")
        assert (overlay.get("channels", 1), overlay["raters"]) == QUBIQ[task]


def test_settings_are_those_of_the_papers(real_data):
    """cSAE, Table 4: the last column is the number of evaluation samples, the fourth before it the patience."""
    paper = real_data.parent / "papers" / "csae.txt"
    if not paper.is_file():
        pytest.skip(f"no text of the paper at {paper}")
    rows = {}
    table = paper.read_text(encoding="utf-8").split("Patience", 1)[1]
    for line in table.splitlines()[:12]:
        cells = line.split("\t")
        if len(cells) == 10:
            rows[cells[0].split(" (")[0].lower().replace(" ", "_")] = (int(cells[6]), int(cells[9]))
    assert len(rows) == 5
    for task in ("pancreas", "pancreatic_lesion", "brain_growth", "brain_tumor_1", "brain_tumor_2", "brain_tumor_3"):
        expected = rows.get(task) or rows["brain_tumor"]
        overlay = config(FLAT[0], f"qubiq_{task}")
        assert (overlay["early_stopping_patience"], overlay["num_samples"]) == expected
        assert (overlay["max_epochs"], overlay["warmup_epochs"]) == (2500, 50)
    for name in ("kohl", "lidc_pickle"):
        overlay = config(FLAT[0], name)
        assert (overlay["early_stopping_patience"], overlay["num_samples"]) == rows["lidc-idri"]


@pytest.mark.parametrize(
    ("bundle_name", "name", "shape"),
    [
        *((bundle_name, "datalist", {"channels": 2, "raters": 5, "classes": 3}) for bundle_name in FLAT),
        ("punet_segmentation", "qubiq_brain_tumor_2", {"channels": 4, "raters": 3}),
        ("spunet_segmentation", "qubiq_brain_growth", {"raters": 7}),
    ],
)
def test_an_overlay_trains_and_evaluates(bundle_name, tmp_path, monkeypatch, name, shape):
    bundle = copy_bundle(bundle_name, tmp_path)
    monkeypatch.chdir(bundle)
    data = str(write_prepared(tmp_path / "data", patients=8, **shape))
    run = train_with(bundle, name, data)
    assert run.parser.get_parsed_content("train::trainer").state.epoch == 1
    files, settings = ["evaluate", name], {**SMALL_NETWORK, "dataset_dir": data, "num_samples": 3}
    execute(bundle, files, "evaluating", **settings)
    metrics = json.loads((bundle / "eval" / name / "metrics.json").read_text())
    assert metrics["metrics"]


@pytest.mark.parametrize("task", ["brain_growth", "brain_tumor_1", "kidney"])
def test_inference_sees_the_intensities_of_training(tmp_path, task):
    """The overlay's transform on the raw image, 128x128 so that nothing is resized, is what the loader hands out."""
    root = qubiq.write(tmp_path / "raw", 3, datasets=[task.rstrip("_123").replace("_", "-")], size=(128, 128))
    dataset = load_dataset(prepare_qubiq(root, tmp_path / "set", task=task.replace("_", "-"), workers=1))
    parser = ConfigParser()
    files = [REPOSITORY / "bundles" / FLAT[0] / "configs" / f"{name}.json" for name in ("inference", f"qubiq_{task}")]
    parser.read_config([str(file) for file in files])
    transforms = {
        "overlay": parser.get_parsed_content("intensity"),
        "data set": intensity_transform(tmp_path / "set", "image"),
    }
    loader = DeviceLoader(dataset, "testing", 1)
    place = dataset.cases[int(loader.indices[0])]["file"]
    raw = nibabel.load(next(root.rglob(place), root / place)).get_fdata(dtype=np.float32)
    raw = np.moveaxis(raw, -1, 0) if raw.ndim == 3 else raw[None]
    expected = next(iter(loader))["image"][0]
    for name, transform in transforms.items():
        torch.testing.assert_close(
            torch.as_tensor(transform({"image": torch.from_numpy(raw)})["image"]).float(),
            expected,
            msg=name,
            rtol=0,
            atol=2e-3,
        )


def test_a_folder_of_ones_own_trains_evaluates_and_infers(one_bundle, tmp_path):
    source = datalist.write(tmp_path / "raw", 12, size=40)
    data = str(prepare_datalist(source, tmp_path / "set", patch_size=(32, 32), workers=1))
    train_with(one_bundle, "datalist", data)
    settings = {**SMALL_NETWORK, "num_samples": 3}
    execute(one_bundle, ["evaluate", "datalist"], "evaluating", **settings, dataset_dir=data)
    images = tmp_path / "images"
    images.mkdir()
    random = np.random.default_rng(0)
    nibabel.save(
        nibabel.Nifti1Image(random.normal(500, 90, (32, 32)).astype(np.float32), np.eye(4)), images / "a.nii.gz"
    )
    where = {"dataset_dir": str(images), "prepared_dir": data, "output_dir": str(tmp_path / "out")}
    execute(one_bundle, ["inference", "datalist"], "run", **settings, **where)
    mean = nibabel.load(tmp_path / "out" / "a_mean.nii.gz").get_fdata()
    assert mean.shape[:2] == (32, 32) and 0 <= mean.min() <= mean.max() <= 1


def train_with(bundle, name, data):
    return execute(bundle, ["train", name], "training", **SMALL_RUN, dataset_dir=data)


def test_data_of_another_set_are_refused(one_bundle, prepared, tmp_path):
    with pytest.raises(Exception) as caught:
        train_with(one_bundle, "qubiq_pancreas", str(prepared))
    assert "has 4 raters, 2 expected" in str(input_error_in(caught.value))
    with pytest.raises(Exception) as caught:
        train(one_bundle, prepared, spatial_dims=3)
    assert "holds 2D patches, the network is 3D" in str(input_error_in(caught.value))
