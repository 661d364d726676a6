"""What an evaluation writes: complete or not at all, and equal to the metric's own cases."""

from __future__ import annotations

import csv
import json

import matplotlib.image
import numpy as np
import pytest
import torch
from monai.engines import SupervisedEvaluator
from monai.handlers import from_engine

from aleatoric.data import DeviceLoader, PreparedDatasetWriter, load_dataset
from aleatoric.data.prepared.splits import RandomSplit
from aleatoric.engines import PrepareMultiRaterBatch
from aleatoric.evaluation import EvaluationWriter
from aleatoric.files import write_atomically
from aleatoric.inferers import SummarizingInferer
from aleatoric.metrics import MarkMissingRatersd, MultiRaterMetricHandler, MultiRaterMetrics
from aleatoric.metrics.definitions import DEFINITIONS, definition
from models import probabilistic_unet

SIZE = (16, 16)
OF_ALL_CASES = {"ece_pooled", "ace_pooled", "presence_ece", "area_calibration_error", "aurc", "aurc_excess"}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    writer = PreparedDatasetWriter(
        tmp_path_factory.mktemp("prepared") / "set",
        name="squares",
        source="simulated squares",
        options={},
        channels=["ct"],
        classes=["background", "nodule"],
        raters=3,
        intensity_window=(0, 1000),
        patch_size=SIZE,
        split=RandomSplit(test_fraction=0.5),
    )
    random = np.random.default_rng(0)
    for patient in "abcdef":
        labels = np.zeros((2, 3, *SIZE), np.uint8)
        for i in range(2):
            for rater in range(3):
                labels[i, rater, 3 : random.integers(4, 12), 3 : random.integers(4, 12)] = 1
        labels[0, 0] = 0
        valid = np.ones((2, 3), bool)
        valid[1, 2] = False
        images = random.integers(0, 1000, (2, 1, *SIZE))
        cases = [{"case": f"{patient}{i}", "patient": patient, "slice": i, "note": "a, b"} for i in range(2)]
        writer.write(patient, images, labels, valid, cases)
    return load_dataset(writer.finish())


def evaluate(dataset, folder, batch_size=4, network=None, **options):
    torch.manual_seed(0)
    network = network or probabilistic_unet()
    loader = DeviceLoader(dataset, "testing", batch_size)
    metrics = MultiRaterMetrics()
    writer = EvaluationWriter(str(folder), dataset, loader, metrics, network, 3, 0, **options)
    engine = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=loader,
        prepare_batch=PrepareMultiRaterBatch(),
        network=network,
        inferer=SummarizingInferer(3, seed=0, temperature=options.get("temperature", 1.0)),
        postprocessing=MarkMissingRatersd("label"),
        key_val_metric={
            "multi_rater": MultiRaterMetricHandler(metric_fn=metrics, output_transform=from_engine(["pred", "label"]))
        },
        val_handlers=[writer],
        decollate=False,
    )
    engine.run()
    with open(folder / "per_case.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    return json.loads((folder / "metrics.json").read_text()), rows, engine


def test_rows_are_the_cases_in_their_order(dataset, tmp_path):
    result, rows, engine = evaluate(dataset, tmp_path)
    indices = dataset.indices("testing")
    assert [row["case"] for row in rows] == [dataset.cases[i]["case"] for i in indices]
    assert all(row["note"] == "a, b" for row in rows)  # extra columns come along, quoted
    assert set(result["metrics"]) - set(rows[0]) == OF_ALL_CASES
    for name, mean in result["metrics"].items():
        if name in rows[0]:
            assert np.nanmean([float(row[name]) for row in rows]) == pytest.approx(mean, rel=1e-4)
        assert engine.state.metrics[name] == pytest.approx(mean)
    assert set(result["metrics"]) == set(result["definitions"]) <= set(DEFINITIONS)
    assert all(result["definitions"].values())
    assert result["split_hash"] == dataset.info["folds"]["split_hash"]


def test_every_figure_is_defined(dataset, tmp_path):
    _, rows, _ = evaluate(dataset, tmp_path, temperature=0.0, pictures=0)
    for row in rows:  # without noise the mean prediction is what every sample is
        for one, other in (("dice", ""), ("dice_quantile_95", ""), ("dice_nonempty", "_nonempty")):
            assert float(row[one]) == pytest.approx(float(row[f"dice{other}_mean_prediction"]), rel=1e-4, nan_ok=True)
        assert float(row["share_better_than_mean"]) == 0
        # and the samples' mean mask is their mask, each of whose pixels a rater marks or not
        assert float(row["dice_max"]) == pytest.approx(float(row["dice"]), rel=1e-4)
    names = ["background", "a b", "c"]
    blank = torch.zeros(1, 1, 2, 2, dtype=torch.uint8)
    metrics = MultiRaterMetrics(class_names=names)
    metrics(blank, blank, mean_prediction=blank[:, 0])
    for name in metrics.names:
        assert definition(name), name
    assert definition("dice_class_a_b") != definition("dice_class_a_b_mean_prediction") and not definition("loss")


@pytest.mark.parametrize("norm", [None, "batch"])
def test_figures_of_the_prior_are_those_of_the_network(dataset, tmp_path, norm):
    torch.manual_seed(0)
    network = probabilistic_unet(norm=norm)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    _, rows, _ = evaluate(dataset, tmp_path, network=network, pictures=0)
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name  # running statistics too: nothing learns from the test set
    (batch,) = DeviceLoader(dataset, "testing", 64)
    network.eval()
    scale = network.prior_distribution(batch["image"]).stddev.detach()
    share = scale / scale.sum(1, keepdim=True)
    expected = torch.exp(-(share * share.log()).sum(1))  # SPU-Net, effective rank
    np.testing.assert_allclose([float(row["effective_rank"]) for row in rows], expected, rtol=1e-4)


def test_a_network_without_a_prior_has_no_figures_of_it(dataset, tmp_path):
    class Coin(torch.nn.Module):
        def sample(self, image, num_samples, temperature):
            return torch.randn(len(image), num_samples, 1, *image.shape[2:])

    result, rows, _ = evaluate(dataset, tmp_path, network=Coin())
    assert "effective_rank" not in result["metrics"] and "effective_rank" not in rows[0] and "ged" in rows[0]


def test_the_batch_size_changes_no_metric_of_a_deterministic_network(dataset, tmp_path):
    network = probabilistic_unet()
    one, other = (evaluate(dataset, tmp_path / str(size), size, network, temperature=0.0)[1] for size in (1, 64))
    assert len(one) == len(other)
    for row, same in zip(one, other):
        assert row["case"] == same["case"] and float(row["ged"]) == pytest.approx(float(same["ged"]), abs=1e-5)


def test_a_second_run_starts_anew(dataset, tmp_path):
    first, rows, engine = evaluate(dataset, tmp_path)
    engine.run()
    with open(tmp_path / "per_case.csv", newline="") as file:
        assert list(csv.DictReader(file)) == rows
    assert json.loads((tmp_path / "metrics.json").read_text()) == first


def test_pictures_are_of_as_many_cases_as_asked_for(dataset, tmp_path):
    heights = []
    for number in (1, 3):
        evaluate(dataset, tmp_path / str(number), pictures=number)
        heights.append(matplotlib.image.imread(tmp_path / str(number) / "pictures.png").shape[0])
    assert heights[1] > 1.5 * heights[0]
    evaluate(dataset, tmp_path / "none", pictures=0)
    assert sorted(p.name for p in (tmp_path / "none").iterdir()) == ["cases.npz", "metrics.json", "per_case.csv"]
    evaluate(dataset, tmp_path / "less", pictures=0, kept_cases=0)
    assert sorted(p.name for p in (tmp_path / "less").iterdir()) == ["metrics.json", "per_case.csv"]


def test_figures_are_there_only_when_all_is(dataset, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr("aleatoric.visualize.save_figure", broken)
    with pytest.raises(OSError, match="no space"):
        evaluate(dataset, tmp_path, pictures=1)
    assert not (tmp_path / "metrics.json").exists()  # tools that ask whether an evaluation is finished look for it


def test_files_are_replaced_whole(tmp_path, monkeypatch):
    path = tmp_path / "deeper" / "x.json"
    write_atomically(path, "old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError):
        write_atomically(path, "new")
    assert path.read_text() == "old" and list(path.parent.iterdir()) == [path]
