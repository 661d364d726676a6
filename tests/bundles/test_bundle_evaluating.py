"""``run evaluating``: the table, the figures and the picture say the same and say what they are of."""

from __future__ import annotations

import csv
import json

import matplotlib.image
import numpy as np
import pytest
from bundle_runs import LATENT, SMALL, SMALL_NETWORK, execute

from aleatoric.data import load_dataset
from aleatoric.metrics.functional import generalized_energy_distance


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
        values = np.array([float(row[name]) for row in rows])
        assert np.nanmean(values) == pytest.approx(mean, rel=1e-4), name
        assert result["definitions"][name]
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
    masks = (inferer(batch["image"], network)[:, :, 0] > 0).long()
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
