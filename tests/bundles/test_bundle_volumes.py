"""The bundle of volumes: BraTS's files in, one law over the volume, samples in the files' grid out."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from bundle_runs import SMALL_NETWORK, copy_bundle, execute, train

from aleatoric.data.brats.command import prepare_brats
from data.open_ms import as_brats_case
from simulated import brats

OUTPUTS = ("mean", "std", "entropy", "samples")
SEQUENCES = ("flair", "t1", "t1ce", "t2")


@pytest.fixture
def volumes(_trained, monkeypatch) -> Path:
    """The trained bundle's folder."""
    monkeypatch.chdir(_trained("ssn_3d_segmentation").folder)
    return _trained("ssn_3d_segmentation").folder


def infer(bundle, images, output_dir, **override):
    settings = {"num_samples": 3, "roi_size": [30, 30, 30], **SMALL_NETWORK, "dataset_dir": str(images), **override}
    execute(bundle, "inference", kind="infer", output_dir=str(output_dir), **settings)
    return {path.name: nibabel.load(path) for path in sorted(Path(output_dir).glob("*.nii.gz"))}


def only_case(tree: Path) -> Path:
    (file,) = tree.rglob("*_seg.nii.gz")
    return file.parent


def test_four_files_and_one_of_four_channels_agree(volumes, tmp_path):
    tree = brats.write(tmp_path / "tree", 1, size=(22, 26, 20))
    case = only_case(tree)
    files = [nibabel.load(case / f"{case.name}_{key}.nii.gz") for key in SEQUENCES]
    stacked = np.stack([np.asarray(file.dataobj) for file in files], axis=-1)
    nibabel.save(nibabel.Nifti1Image(stacked, files[0].affine), tmp_path / "four.nii.gz")
    apart, together = infer(volumes, tree, tmp_path / "a"), infer(volumes, tmp_path / "four.nii.gz", tmp_path / "b")
    assert set(apart) == {f"{case.name}_{kind}.nii.gz" for kind in OUTPUTS}
    for kind in OUTPUTS:
        one, other = apart[f"{case.name}_{kind}.nii.gz"], together[f"four_{kind}.nii.gz"]
        assert one.shape[:3] == (22, 26, 20)
        np.testing.assert_allclose(one.affine, files[0].affine, atol=1e-4)
        np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))
    mean, samples = (np.asarray(apart[f"{case.name}_{kind}.nii.gz"].dataobj) for kind in ("mean", "samples"))
    assert mean.shape[-1] == 4 and samples.shape[-1] == 3 and samples.dtype == np.uint8
    np.testing.assert_allclose(mean.sum(-1).squeeze(), 1.0, atol=1e-4)
    assert set(np.unique(samples)) <= {0, 1, 2, 3}
    air = ~(stacked != 0).any(-1)
    assert (samples.squeeze()[air] == samples.squeeze()[air][:, :1]).all()  # outside of the brain nothing varies


def test_the_size_of_the_windows_changes_nothing(volumes, tmp_path):
    """One law over the volume: it is the same however the volume was cut, and so are its samples."""
    tree = brats.write(tmp_path / "tree", 1, size=(34, 33, 31))
    name = only_case(tree).name
    small, large = (infer(volumes, tree, tmp_path / str(n), roi_size=[n] * 3, seed=3) for n in (15, 45))
    for kind in ("mean", "std"):
        one, other = (np.asarray(each[f"{name}_{kind}.nii.gz"].dataobj) for each in (small, large))
        np.testing.assert_allclose(one, other, atol=1e-3)
    one, other = (np.asarray(each[f"{name}_samples.nii.gz"].dataobj) for each in (small, large))
    assert (one != other).mean() < 1e-3  # but where two classes are level to the last bit
    assert (one != one[..., :1]).any()


@pytest.mark.slow
def test_a_real_brain_end_to_end(real_data, tmp_path, monkeypatch):
    """One patient, every third voxel, lesions of another disease: a smoke test of sizes and files, no result."""
    drawn = as_brats_case(real_data, tmp_path / "tree", step=3)
    data = prepare_brats(tmp_path / "tree", tmp_path / "set", workers=1, test_fraction=0.0, folds=2)
    folder = copy_bundle("ssn_3d_segmentation", tmp_path)
    monkeypatch.chdir(folder)
    train(folder, data, max_epochs=1, windows_per_case=4, val_windows_per_case=2, batch_size=2)
    settings = {**SMALL_NETWORK, "dataset_dir": str(data), "num_samples": 2, "roi_size": [45, 45, 45]}
    execute(folder, "evaluate", "evaluating", section="validation", **settings)
    metrics = json.loads((folder / "eval" / "metrics.json").read_text())["metrics"]
    assert 0 <= metrics["dice_whole"] <= 1 and 0 <= metrics["ged"] <= 2
    results = infer(folder, tmp_path / "tree", tmp_path / "out", num_samples=2, roi_size=[45, 45, 45])
    samples = np.asarray(results["Brats17_OPENMS_19_1_samples.nii.gz"].dataobj)
    assert samples.shape[:3] == drawn.shape and set(np.unique(samples)) <= {0, 1, 2, 3}
