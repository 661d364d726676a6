"""``aleatoric inspect`` on a small trained bundle: the numbers are those of the network, bad input is one sentence."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from monai.bundle import ConfigParser
from torch import nn

from aleatoric import cli
from aleatoric.data import DeviceLoader, load_dataset
from aleatoric.diagnostics import freeze_axes, latent_summary, pearson
from aleatoric.handlers import ModelSettings
from aleatoric.inspection import load_weights, rebuild_network
from aleatoric.inspection.findings import evenly, read_cases
from aleatoric.runs import read_run
from bundles.bundle_runs import NAMES, copy_bundle, train, write_prepared

PICTURES = {
    "correlations.png",
    "freezing.png",
    "interpolation.png",
    "latent_per_image.png",
    "samples.png",
    "training.png",
}


@pytest.fixture(scope="session")
def _place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inspected")
    prepared = write_prepared(folder / "discs", patients=10, size=32)
    bundle = copy_bundle("punet_segmentation", folder)
    train(bundle, prepared)
    return folder


@pytest.fixture(scope="session")
def _inspected(_place) -> Path:
    out = _place / "pictures"
    assert inspect(_place / "punet_segmentation", "--out", out, "--images", 3) == 0
    return out


@pytest.fixture
def place(_place, tmp_path) -> Path:
    """A copy of the folder with the bundle and its data set."""
    return shutil.copytree(_place, tmp_path / "place", ignore=shutil.ignore_patterns("pictures"))


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Pictures are not rendered, which takes most of the time."""
    monkeypatch.setattr("aleatoric.inspection.command.save_figure", lambda figure, path: path.write_bytes(b""))


def inspect(*words) -> int:
    return cli.main(["inspect", *map(str, words), "--device", "cpu", "--num-samples", "4", "--freezing-cases", "3"])


def test_it_writes_every_picture_and_the_numbers_behind_them(_inspected):
    out = _inspected
    assert {path.name for path in out.iterdir()} == PICTURES | {"inspect.json", "per_image.csv"}
    assert all((out / name).read_bytes()[:4] == b"\x89PNG" for name in PICTURES)
    record = json.loads((out / "inspect.json").read_text())
    assert record["section"] == "testing" and record["notes"] == [] and record["versions"]["torch"]
    with open(out / "per_image.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == record["images"] and rows[0]["case"]
    for name in ("effective_rank", "gini_index", "output_entropy", "rater_entropy"):
        assert sum(float(row[name]) for row in rows) / len(rows) == pytest.approx(record[name], rel=1e-4)
    columns = {name: [float(row[name]) for row in rows] for name in ("effective_rank", "rater_entropy")}
    expected = pearson(columns["effective_rank"], columns["rater_entropy"]).r
    assert record["correlations"]["effective_rank_rater_entropy"]["r"] == pytest.approx(expected, abs=1e-3)
    assert record["freezing"]["frozen_axes"] == [0, 1, 2, 3] and record["freezing"]["images"] == 3
    assert record["freezing"]["ewd_smallest_first"][3] == record["freezing"]["ewd_largest_first"][3]


def test_its_network_is_the_one_that_was_trained(_place, _inspected):
    run = read_run(_place / "punet_segmentation")
    network = rebuild_network(run)
    load_weights(network, run, run.ckpt_dir / "model.pt", run.settings["intensity"])
    stored = torch.load(run.ckpt_dir / "model.pt", weights_only=True)
    assert stored.keys() == network.state_dict().keys() and not network.training
    assert all(torch.equal(value, stored[name]) for name, value in network.state_dict().items())

    dataset = load_dataset(run.dataset_dir)
    (batch,) = DeviceLoader(dataset, "testing", 100)
    record = json.loads((_inspected / "inspect.json").read_text())
    summary = latent_summary(network, batch["image"])
    assert record["effective_rank"] == pytest.approx(summary.effective_rank.mean().item(), rel=1e-5)
    assert record["prior_variance"] == pytest.approx(summary.variance.mean(0).tolist(), rel=1e-4)
    some = evenly(len(batch["image"]), 3)
    frozen = freeze_axes(*(network, batch["image"][some], batch["label"][some], batch["rater_valid"][some]), 4)
    assert record["freezing"]["ewd_smallest_first"] == pytest.approx(frozen.smallest_first.mean(0).tolist(), rel=1e-4)


def test_the_cases_are_those_of_the_loader(_place):
    dataset = load_dataset(_place / "discs")
    (batch,) = DeviceLoader(dataset, "testing", 100)
    cases = read_cases(dataset, "testing", 0, 0)
    assert torch.equal(cases.images, batch["image"]) and torch.equal(cases.rater_valid, batch["rater_valid"])
    fewer = read_cases(dataset, "testing", 0, 2)
    assert len(fewer.rows) == 2 and torch.equal(fewer.images[-1], cases.images[-1])
    assert evenly(10, 4) == [0, 3, 6, 9] and evenly(3, 0) == evenly(3, 8) == [0, 1, 2]


def test_the_same_seed_gives_the_same_numbers(_inspected, place, undrawn, capsys):
    again = place / "again"
    assert inspect(place / "punet_segmentation" / "eval", "--out", again, "--images", 1) == 0
    assert (again / "per_image.csv").read_bytes() == (_inspected / "per_image.csv").read_bytes()
    out = capsys.readouterr().out
    assert "effective rank" in out and "Pearson's r" in out and str(again) in out


def test_a_run_without_its_tables_says_which_picture_is_missing(place, undrawn, capsys):
    bundle = place / "punet_segmentation"
    for name in ("latents.csv", "training.csv"):
        (bundle / "eval" / name).unlink()
    assert inspect(bundle, "--cases", 3) == 3
    assert "training.png is not drawn" in capsys.readouterr().out
    out = bundle / "eval" / "inspect"
    assert not (out / "training.png").exists() and (out / "samples.png").exists()


def test_another_data_set_is_noted(place, undrawn, capsys):
    other = write_prepared(place / "other", patients=12, size=32)
    assert inspect(place / "punet_segmentation", "--cases", 3, "--dataset_dir", other) == 0
    assert "other is another data set than the one of the training" in capsys.readouterr().out


class Ladder(nn.Module):
    """A network with samples and no single prior."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def sample(self, image, num_samples):
        return torch.randn(image.shape[0], num_samples, 1, *image.shape[2:])


def test_a_network_without_a_single_prior_gets_the_pictures_that_apply(place, undrawn, capsys, monkeypatch):
    monkeypatch.setattr("aleatoric.inspection.command.rebuild_network", lambda *args: Ladder())
    monkeypatch.setattr("aleatoric.inspection.command.load_weights", lambda *args: None)
    bundle = place / "punet_segmentation"
    (bundle / "eval" / "latents.csv").unlink()
    (bundle / "eval" / "training.csv").write_text("epoch,train_loss\n1,2\n")
    assert inspect(bundle, "--cases", 3, "--out", place / "out") == 0
    assert {path.suffix for path in (place / "out").iterdir()} == {".png", ".json", ".csv"}
    assert {path.stem for path in (place / "out").glob("*.png")} == {"samples", "correlations"}
    assert "has no single prior" in capsys.readouterr().out


def spoil(place: Path, what: str) -> list[str]:
    """Words that end in a sentence."""
    bundle, words = place / "punet_segmentation", []
    if what == "no training":
        (bundle / "eval" / "run.json").unlink()
    elif what == "no checkpoint":
        (bundle / "models" / "model.pt").unlink()
    elif what == "damaged checkpoint":
        (bundle / "models" / "model.pt").write_bytes(b"nothing")
    elif what == "another model":
        state = torch.load(bundle / "models" / "model.pt", weights_only=True)
        torch.save({name: value for name, value in state.items() if "head" not in name}, bundle / "models" / "model.pt")
    elif what == "later training":
        beside = bundle / "models" / "model.json"
        beside.write_text(json.dumps(json.loads(beside.read_text()) | {"latent_dim": 5}))
    elif what == "no data":
        record = bundle / "eval" / "run.json"
        record.write_text(record.read_text().replace("/discs", "/gone"))
    elif what == "channels":
        words = ["--dataset_dir", str(write_prepared(place / "other", patients=10, size=32, channels=2))]
    elif what == "intensities":
        about = place / "discs" / "dataset.json"
        about.write_text(json.dumps(json.loads(about.read_text()) | {"intensity_window": [0, 1]}))
    elif what == "no config":
        (bundle / "configs" / "inference.json").unlink()
    elif what == "damaged config":
        (bundle / "configs" / "inference.json").write_text("{")
    elif what == "no overlay":
        words = ["--config-file", "nowhere.json"]
    elif what == "device":
        words = ["--device", "abacus"]
    elif what == "images":
        words = ["--images", "0"]
    elif what == "out":
        words = ["--out", str(bundle / "LICENSE")]
    return words


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("no training", "there is no run.json"),
        ("no checkpoint", "there is no checkpoint"),
        ("damaged checkpoint", "cannot be read"),
        ("another model", "is of another model"),
        ("later training", "the checkpoint was trained with latent_dim 5 (here 3)"),
        ("no data", "is gone; name its folder with --dataset_dir"),
        ("channels", "gives 2 channels, the network has 1"),
        ("intensities", "the checkpoint was trained with intensity"),
        ("no config", "the config of a bundle expected"),
        ("damaged config", "no network can be made of"),
        ("no overlay", "there is no nowhere.json"),
        ("device", "the device abacus cannot be used"),
        ("images", "found --images 0, expected 1 or more"),
        ("out", "expected a folder"),
    ],
)
def test_bad_input_is_one_sentence(place, capsys, what, sentence):
    words = spoil(place, what)
    arguments = [*([] if "--device" in words else ["--device", "cpu"]), *words]
    assert cli.main(["inspect", str(place / "punet_segmentation"), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and sentence in error and error.count("\n") == 1
    assert not (place / "punet_segmentation" / "eval" / "inspect").exists()


def test_a_variant_is_rebuilt_with_its_overlay(place):
    bundle = copy_bundle("generalized_punet_segmentation", place)
    run = read_run(place / "punet_segmentation")
    kinds = set()
    for variant in (None, "full", "low_rank"):
        changed = run._replace(bundle_root=bundle, settings={**run.settings, "variant": variant})
        kinds.add(type(rebuild_network(changed).prior.density).__name__)
    assert len(kinds) == 3


# ids of a training config that make another network, beside the small one that all others are changed from
CHOICES = {"spatial_dims": 3, "filters": [4, 8, 8], "num_convs": 2, "norm": "batch", "latent_dim": 3, "channels": 2}
CHOICES |= {"combiner_layers": 3, "flow_steps": 3, "num_blocks": 2, "latent_levels": 2}


@pytest.mark.parametrize("name", NAMES)
def test_every_choice_that_makes_another_network_is_remembered(_place, tmp_path, name):
    bundle, run = copy_bundle(name, tmp_path), read_run(_place / "punet_segmentation")
    for key, value in CHOICES.items():
        parser = ConfigParser()
        parser.read_config(str(bundle / "configs" / "train.json"))
        if key in parser:
            parser.update({"filters": [4, 8], "num_convs": 1, "classes": 1, key: value})
            kept = [one for one in parser["settings"] if one not in ("_target_", "raters", "intensity")]
            settings = ModelSettings(**{one: parser.get_parsed_content(f"settings::{one}") for one in kept})
            trained = parser.get_parsed_content("network_def").state_dict()
            again = rebuild_network(run._replace(bundle_root=bundle, settings=settings.state_dict())).state_dict()
            assert {k: v.shape for k, v in again.items()} == {k: v.shape for k, v in trained.items()}, key


def test_the_configs_of_a_packed_bundle_make_the_network_too(place):
    bundle = place / "punet_segmentation"
    config = bundle / "configs" / "inference.json"
    config.write_text(config.read_text().replace("aleatoric.", "scripts.aleatoric."))
    assert type(rebuild_network(read_run(bundle))).__name__ == "ProbabilisticUNet"


def test_why_there_is_no_correlation_is_said():
    from aleatoric.inspection.pictures import Pictures

    pictures = Pictures.__new__(Pictures)
    pictures.latents, pictures._pairs, nan = None, [("a", "b")], float("nan")
    for found, told in (({"r": nan, "pairs": 1}, "too few images"), ({"r": nan, "pairs": 9}, "the same in all")):
        pictures.correlations = {"a_b": found}
        assert told in list(pictures.lines())[-1]
