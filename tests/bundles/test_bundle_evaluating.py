"""``run evaluating``: the table, the figures and the picture say the same and say what they are of."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil

import matplotlib.image
import numpy as np
import pytest
import torch
from bundle_runs import FLAT, LATENT, SMALL, SMALL_NETWORK, execute

from aleatoric.data import load_dataset
from aleatoric.metrics.functional import generalized_energy_distance
from aleatoric.report import read_evaluations


def evaluate(bundle, prepared, output_dir, **override):
    settings = {"num_samples": 4, "batch_size": 2, **SMALL_NETWORK, "dataset_dir": str(prepared), **override}
    return execute(bundle, "evaluate", "evaluating", output_dir=str(output_dir), **settings)


def read(folder):
    with open(folder / "per_case.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return json.loads((folder / "metrics.json").read_text()), rows


def test_evaluation_writes_table_figures_and_picture(trained, data, tmp_path):
    run = evaluate(trained.folder, data, tmp_path)
    result, rows = read(tmp_path)
    dataset = load_dataset(data)
    indices = dataset.indices("testing")
    assert [row["case"] for row in rows] == [dataset.cases[i]["case"] for i in indices]
    assert result["cases"] == len(rows) and result["patients"] == len({row["patient"] for row in rows})
    assert result["section"] == "testing" and result["dataset"]["sha256"] == dataset.info["sha256"]
    assert (result["num_samples"], result["seed"], result["temperature"]) == (4, 0, 1.0)
    for name, mean in result["metrics"].items():
        assert result["definitions"][name]
        low, high = result["intervals"][name]
        assert mean is None or low is None or low <= high
        if name in rows[0]:  # not a figure of all cases together
            values = np.array([float(row[name]) for row in rows])
            assert np.isnan(values).all() if mean is None else np.nanmean(values) == pytest.approx(mean, rel=1e-4), name
            assert result["defined_cases"][name] == np.isfinite(values).sum()
            if mean is not None:
                assert result["deviations"][name] == pytest.approx(np.nanstd(values, ddof=1), rel=0.01, abs=1e-5), name
    assert {"ged", "ece", "ewd_cross_entropy", "aurc", "presence_ece"} <= set(result["metrics"])
    raters = 4 if trained.folder.name in FLAT else 1
    assert (result["device"], result["bf16"], result["dataset"]["raters"]) == ("cpu", False, raters)
    assert {"scipy", "torch", "monai"} <= set(result["versions"])
    assert result["model"]["bundle"] == trained.folder.name
    weights = trained.folder / "models" / "model.pt"
    assert result["model"]["checkpoint_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert {"reliability", "area_coverage", "presence", "risk_coverage", "second_read"} == set(result["curves"])
    with np.load(tmp_path / "cases.npz") as kept:
        ged = np.array([float(row["ged"]) for row in rows])[kept["position"]]
        assert (np.diff(ged) >= 0).all() and kept["samples"].shape[:2] == (len(ged), 4)
        assert ("latent_mean" in kept) == (trained.folder.name in LATENT)
    assert ("effective_rank" in result["metrics"]) == (trained.folder.name in LATENT)
    if trained.folder.name in LATENT:
        assert 1 <= result["metrics"]["effective_rank"] <= SMALL["latent_dim"]
        assert 0 <= result["metrics"]["gini_index"] < 1
    picture = matplotlib.image.imread(tmp_path / "pictures.png")
    assert min(picture.shape[:2]) > 100 and picture[..., :3].std() > 0.01
    state = run.parser.get_parsed_content("evaluator").state
    assert state.best_metric == pytest.approx(result["metrics"]["ged"])  # MONAI's log names a number, not "-1"


def test_the_figures_are_those_of_the_samples(one_trained, prepared, tmp_path):
    run = evaluate(one_trained, prepared, tmp_path, batch_size=64)
    network, inferer = (run.parser.get_parsed_content(name) for name in ("network", "inferer"))
    dataset = load_dataset(prepared)
    indices = dataset.indices("testing")
    (batch,) = run.parser.get_parsed_content("dataloader")
    masks = inferer(batch["image"], network).masks
    ged = generalized_energy_distance(masks, batch["label"].long(), batch["rater_valid"])
    _, rows = read(tmp_path)
    assert len(rows) == len(indices)
    np.testing.assert_allclose([float(row["ged"]) for row in rows], ged.numpy(), rtol=1e-5, atol=1e-6)


def test_evaluation_is_repeatable_and_seeded(one_trained, prepared, tmp_path):
    texts = []
    for number, seed in enumerate((0, 0, 1)):
        evaluate(one_trained, prepared, tmp_path / str(number), seed=seed, pictures=0)
        texts.append((tmp_path / str(number) / "per_case.csv").read_text())
        assert not (tmp_path / str(number) / "pictures.png").exists()
    assert texts[0] == texts[1] != texts[2]


def test_samples_are_written_on_request(one_trained, prepared, tmp_path):
    evaluate(one_trained, prepared, tmp_path, pictures=0, save_samples=True)
    samples = torch.from_numpy(np.load(tmp_path / "samples.npy"))
    _, rows = read(tmp_path)
    dataset = load_dataset(prepared)
    assert samples.shape == (len(rows), 4, *dataset.labels.shape[2:])
    indices = dataset.indices("testing")
    labels, valid = (torch.from_numpy(part[indices]) for part in (dataset.labels, dataset.rater_valid))
    ged = generalized_energy_distance(samples, labels, valid)
    np.testing.assert_allclose([float(row["ged"]) for row in rows], ged, rtol=1e-5, atol=1e-6)


def test_hausdorff_distances_and_millimetres_on_request(one_trained, prepared, tmp_path):
    for name, spacing in (("pixels", None), ("mm", [0.5, 0.5])):
        evaluate(
            one_trained, prepared, tmp_path / name, pictures=0, kernels=["iou", "dice", "hausdorff"], spacing=spacing
        )
    (pixels, _), (mm, _) = (read(tmp_path / name) for name in ("pixels", "mm"))
    assert mm["metrics"]["ewd_hausdorff"] == pytest.approx(pixels["metrics"]["ewd_hausdorff"] / 2, rel=1e-4)
    assert mm["metrics"]["area_raters"] == pytest.approx(pixels["metrics"]["area_raters"] / 4, rel=1e-4)
    assert (
        mm["metrics"]["ewd"] == pixels["metrics"]["ewd"] and mm["spacing"] == [0.5, 0.5] and pixels["spacing"] is None
    )


def test_a_training_in_the_same_folder_is_named(one_trained, prepared, tmp_path):
    evaluate(one_trained, prepared, one_trained / "eval" / "again", pictures=0)
    assert read(one_trained / "eval" / "again")[0]["training"] is None  # no run.json there
    evaluate(one_trained, prepared, one_trained / "eval", pictures=0)
    result, _ = read(one_trained / "eval")
    training = result["training"]
    assert (training["fold"], training["seed"]) == (0, 0)
    assert training["settings"]["filters"] == SMALL["filters"] and training["settings"]["raters"] == 4
    assert training["recipe"]["batch_size"] == SMALL["batch_size"] and "kl_weight" in training["recipe"]
    evaluate(one_trained, prepared, tmp_path, pictures=0, untrained=True)
    assert read(tmp_path)[0]["model"]["checkpoint"] is None


def test_a_report_leaves_out_the_course_of_another_training(one_trained, prepared, tmp_path, monkeypatch):
    bundle = shutil.copytree(one_trained, tmp_path / one_trained.name)
    monkeypatch.chdir(bundle)
    evaluate(bundle, prepared, bundle / "eval", pictures=0)
    (one,) = read_evaluations([bundle / "eval"])
    assert one.training and not any("no longer" in text for text in one.record["warnings"])
    weights = bundle / "models" / "model.pt"
    state = torch.load(weights, weights_only=True)
    torch.save({name: value + 0.5 if value.is_floating_point() else value for name, value in state.items()}, weights)
    (one,) = read_evaluations([bundle / "eval"])
    assert one.training is None and one.latents is None
    assert "no longer those that were evaluated" in one.record["warnings"][-1]


def test_a_kernel_may_stand_alone(one_trained, prepared, tmp_path):
    evaluate(one_trained, prepared, tmp_path, pictures=0, kernels="dice")
    metrics = read(tmp_path)[0]["metrics"]
    assert "ewd_dice" in metrics and "ewd" not in metrics


def test_other_sections(one_trained, prepared, tmp_path):
    evaluate(one_trained, prepared, tmp_path, section="validation", fold=1, pictures=0)
    result, rows = read(tmp_path)
    assert {row["fold"] for row in rows} == {"1"} and result["section"] == "validation"


def test_evaluation_with_tracking(one_trained, prepared, tmp_path):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    pytest.importorskip("alembic", reason="the extra mlflow is not installed")
    evaluate(one_trained, prepared, tmp_path, pictures=0, tracking="mlflow")
    client = mlflow.tracking.MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlruns.db")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.data.metrics["ged"] == pytest.approx(read(tmp_path)[0]["metrics"]["ged"], rel=1e-5)
