"""``run training``: what it leaves behind, that a seed or a resume makes it equal, and its overlays."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from bundle_runs import FLAT, LATENT, REPOSITORY, SMALL, copy_bundle, small, train, workflow
from monai.bundle import ConfigParser
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aleatoric.tables import read_table

TERMS = {
    "punet_segmentation": {"likelihood", "kl"},
    "punet_flow_segmentation": {"likelihood", "kl"},
    "generalized_punet_segmentation": {"likelihood", "kl"},
    "spunet_segmentation": {"likelihood", "kl", "sinkhorn"},
    "csae_segmentation": {"likelihood", "kl", "sinkhorn"},
    "hpunet_segmentation": {"reconstruction", "kl", "multiplier"},
    "phiseg_segmentation": {"likelihood", "kl_0", "kl_1"},
    "ssn_segmentation": {"likelihood"},
    "ssn_3d_segmentation": {"likelihood"},
    "unet_segmentation": {"likelihood"},
}


def stored(path: Path) -> dict:
    return torch.load(path, map_location="cpu", weights_only=True)


def assert_equal_weights(one: dict, other: dict, same: bool = True) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one) == same


def scalars(folder: Path) -> dict[str, list[float]]:
    """All figures of all TensorBoard files of a folder."""
    figures = {}
    for file in sorted(folder.glob("events.*")):
        events = EventAccumulator(str(file)).Reload()
        figures |= {tag: [e.value for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    return figures


def test_training_leaves_checkpoints_and_figures(trained):
    (bundle, run), name = trained, trained.folder.name
    models = bundle / "models"
    assert sorted(p.name for p in models.glob("*.pt")) == ["checkpoint_epoch=1.pt", "checkpoint_epoch=2.pt", "model.pt"]
    last = stored(models / "checkpoint_epoch=2.pt")
    assert set(last) == {"settings", "model", "optimizer", "lr_scheduler", "loss", "best", "trainer"}
    assert last["settings"]["raters"] == (4 if name in FLAT else 1) and last["settings"]["filters"] == [4, 8]
    assert_equal_weights(last["model"], run.parser.get_parsed_content("network_def").state_dict())
    figures = scalars(bundle / "eval")
    expected = {f"train_{term}" for term in TERMS[name] | {"loss"}}
    if name in LATENT:
        expected |= {"val_effective_rank", "val_gini_index"}
    assert expected | {"val_loss"} <= set(figures)
    assert all(len(values) == 2 and all(map(math.isfinite, values)) for values in figures.values())
    loss = run.parser.get_parsed_content("loss")
    if name != "hpunet_segmentation":  # the terms are the objective's: weighted, they sum to the loss
        weights = {name: term.weight for name, term in getattr(loss, "divergences", {}).items()}
        total = figures["train_likelihood"][1] + sum(w * figures[f"train_{name}"][1] for name, w in weights.items())
        assert total == pytest.approx(figures["train_loss"][1], rel=1e-4)
    best = min(range(2), key=lambda epoch: figures["val_loss"][epoch])
    kept = stored(models / f"checkpoint_epoch={best + 1}.pt")["model"]
    assert_equal_weights(stored(models / "model.pt"), kept)
    assert json.loads((models / "model.json").read_text()) == last["settings"]


def test_an_image_counts_once_in_the_rank_of_the_prior(one_bundle, prepared):
    run = train(one_bundle, prepared, max_epochs=1)
    indices = run.parser.get_parsed_content("validate::dataloader").indices
    assert len(indices) % SMALL["batch_size"]  # the last batch is a smaller one
    (course,), (latents,) = (read_table(one_bundle / "eval" / f"{name}.csv") for name in ("training", "latents"))
    for name in ("effective_rank", "gini_index"):
        assert course[f"val_{name}"] == pytest.approx(latents[name], rel=1e-5)


def test_one_seed_makes_two_runs_equal(trained, data, tmp_path, recwarn):
    # the second one also draws samples at every validation, which disturb nothing
    train(trained.folder, data, ckpt_dir=str(tmp_path), output_dir=str(tmp_path), val_samples=2)
    assert not any("not a scalar" in str(warning.message) for warning in recwarn)  # MONAI's key metric is a number
    one, other = (stored(folder / "checkpoint_epoch=2.pt")["model"] for folder in (trained.folder / "models", tmp_path))
    assert_equal_weights(one, other)
    course = read_table(tmp_path / "training.csv")
    figures = {
        "val_ged",
        "val_ged_unbiased",
        "val_ewd",
        "val_diversity",
        "val_dice",
        "val_dice_mean_prediction",
        "val_ece",
    }
    assert all(figures < set(row) and 0 <= row["val_ged"] <= 2 for row in course)
    assert scalars(tmp_path)["val_ged"] == pytest.approx([row["val_ged"] for row in course], rel=1e-4)
    assert not figures & set(read_table(trained.folder / "eval" / "training.csv")[-1])


def test_another_seed_makes_another_run(one_trained, prepared, tmp_path):
    train(one_trained, prepared, ckpt_dir=str(tmp_path), output_dir=str(tmp_path), seed=1)
    one, other = (stored(folder / "checkpoint_epoch=2.pt")["model"] for folder in (one_trained / "models", tmp_path))
    assert_equal_weights(one, other, same=False)


def test_a_resumed_run_equals_an_undisturbed_one(trained, data, tmp_path):
    models = trained.folder / "models"
    shutil.copy(models / "checkpoint_epoch=1.pt", tmp_path)  # as if killed in the second epoch
    torch.rand(7)  # whatever this process drew before
    run = train(trained.folder, data, ckpt_dir=str(tmp_path), output_dir=str(tmp_path), resume=True)
    one, other = (stored(folder / "checkpoint_epoch=2.pt") for folder in (models, tmp_path))
    assert_equal_weights(one["model"], other["model"])
    assert_equal_weights(one["loss"], other["loss"])
    assert one["best"] == other["best"]
    assert one["lr_scheduler"] == other["lr_scheduler"]
    for state, same in zip(one["optimizer"]["state"].values(), other["optimizer"]["state"].values()):
        assert all(torch.equal(state[key], same[key]) for key in state)
    assert run.parser.get_parsed_content("train::trainer").state.epoch == 2


def test_the_best_model_survives_a_resume(one_bundle, prepared):
    train(one_bundle, prepared, max_epochs=2)
    models = one_bundle / "models"
    best, checkpoint = models / "model.pt", models / "checkpoint_epoch=2.pt"
    content = stored(checkpoint)
    content["best"] = {"metric": -1.0, "epoch": 1}  # nothing to come is better
    torch.save(content, checkpoint)
    before = best.read_bytes()
    run = train(one_bundle, prepared, max_epochs=3, resume=True)
    assert best.read_bytes() == before
    assert run.parser.get_parsed_content("validate::evaluator").state.best_metric == -1.0
    content = stored(models / "checkpoint_epoch=3.pt")
    content["best"] = {"metric": 1e9, "epoch": 1}
    torch.save(content, models / "checkpoint_epoch=3.pt")
    train(one_bundle, prepared, max_epochs=4, resume=True)
    assert_equal_weights(stored(best), stored(models / "checkpoint_epoch=4.pt")["model"])


def test_a_training_shorter_than_the_validation_interval_leaves_a_model(one_bundle, prepared):
    train(one_bundle, prepared, max_epochs=2, val_interval=5)
    assert (one_bundle / "models" / "model.pt").is_file()


def test_early_stopping(one_bundle, prepared):
    run = train(one_bundle, prepared, max_epochs=6, learning_rate=0.0, early_stopping_patience=2)
    state = run.parser.get_parsed_content("validate::evaluator").state
    trainer = run.parser.get_parsed_content("train::trainer").state
    assert trainer.epoch == min(state.best_metric_epoch + 2, 6)


def test_early_stopping_and_clipping_can_be_switched(one_bundle, prepared):
    for override in ({"max_gradient_norm": None}, {"max_gradient_norm": 0.5, "early_stopping_patience": 1}):
        train(one_bundle, prepared, max_epochs=1, **override)


@pytest.mark.parametrize("name", ["csae_segmentation", "spunet_segmentation"])  # with and without intensities
def test_monais_own_transforms(name, prepared, tmp_path, monkeypatch):
    bundle = copy_bundle(name, tmp_path)
    monkeypatch.chdir(bundle)
    run = train(bundle, prepared, ("monai_transforms",))
    assert type(run.parser.get_parsed_content("train::dataloader")).__module__.startswith("monai")
    parts = tmp_path / "parts"
    parts.mkdir()
    shutil.copy(bundle / "models" / "checkpoint_epoch=1.pt", parts)
    train(bundle, prepared, ("monai_transforms",), ckpt_dir=str(parts), resume=True)
    one, other = (stored(folder / "checkpoint_epoch=2.pt")["model"] for folder in (bundle / "models", parts))
    assert_equal_weights(one, other)


def test_overlays_change_what_they_say(bundle):
    def config(*overlays):
        parser = ConfigParser()
        parser.read_config([str(bundle / "configs" / f"{name}.json") for name in ("train", *overlays)])
        return parser.get()

    plain = config()
    phantom = config("phantom")
    assert {key for key in plain if plain[key] != phantom.get(key)} == {"dataset_dir"}
    demo = config("phantom", "demo")
    assert set(demo) == set(plain) and demo["max_epochs"] < plain["max_epochs"]


def test_demo_overlay_trains(one_bundle, prepared):
    train(one_bundle, prepared, ("phantom", "demo"), max_epochs=1, bf16=True)


def test_tracking_with_mlflow(one_bundle, prepared):
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    pytest.importorskip("alembic", reason="the extra mlflow is not installed")  # of MLflow's SQLite store
    train(one_bundle, prepared, tracking="mlflow")
    client = mlflow.tracking.MlflowClient(tracking_uri=f"sqlite:///{one_bundle}/eval/mlruns.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()])
    metrics = {}
    for run in runs:
        metrics |= run.data.metrics
    assert {"train_kl", "train_sinkhorn", "train_likelihood", "val_loss"} <= set(metrics)
    assert all(map(math.isfinite, metrics.values()))


def command(config: str | list[str], *, launcher=("-m", "monai.bundle"), **override) -> list[str]:
    files = repr([f"configs/{name}.json" for name in ([config] if isinstance(config, str) else config)])
    options = [part for key, value in override.items() for part in (f"--{key}", str(value))]
    return [sys.executable, *launcher, "run", "training", "--config_file", files, *options]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY / "src"), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_resume_after_a_kill(one_bundle, prepared, tmp_path):
    settings = {**SMALL, "dataset_dir": prepared, "max_epochs": 60}
    whole = tmp_path / "whole"
    subprocess.run(command("train", **settings, ckpt_dir=whole), env=environment(), check=True, capture_output=True)
    process = subprocess.Popen(
        command("train", **settings), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    models = one_bundle / "models"
    deadline = time.monotonic() + 120
    while not list(models.glob("checkpoint_epoch=*.pt")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (models / "checkpoint_epoch=60.pt").exists(), "killed too late for this test to say anything"
    subprocess.run(command("train", **settings, resume=True), env=environment(), check=True, capture_output=True)
    one, other = stored(whole / "checkpoint_epoch=60.pt"), stored(models / "checkpoint_epoch=60.pt")
    assert_equal_weights(one["model"], other["model"])
    assert one["best"] == other["best"]
    assert_equal_weights(stored(whole / "model.pt"), stored(models / "model.pt"))


@pytest.mark.slow
def test_two_processes(bundle, data):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "monai.bundle")
    # the ranks have 2 and 1 validation batches, and batch normalisation has buffers to share: nobody may wait for ever
    settings = {
        **small(bundle.name),
        "dataset_dir": data,
        "fold": 2,
        "batch_size": 3,
        "norm": "batch" if "spunet" in bundle.name else "None",
        "val_samples": 2 * ("spunet" in bundle.name),
    }
    process = subprocess.Popen(
        command(["train", "multi_gpu_train"], launcher=launcher, **settings),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        errors = process.communicate(timeout=180)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # the ranks too
        raise
    assert process.returncode == 0, errors[-3000:]
    assert sorted(p.name for p in (bundle / "models").glob("*.pt"))[-1] == "model.pt"
    content = stored(bundle / "models" / "checkpoint_epoch=2.pt")
    assert not any(key.startswith("module.") for key in content["model"])
    assert all(torch.isfinite(value).all() for value in content["model"].values())
    assert math.isfinite(content["best"]["metric"])
    # trainer, validator and, with a prior, LatentLogger, and who draws samples
    writers = 2 + (bundle / "eval" / "latents.csv").is_file() + bool(settings["val_samples"])
    if settings["val_samples"]:
        assert all(0 <= row["val_ged"] <= 2 for row in read_table(bundle / "eval" / "training.csv"))
    assert len(list((bundle / "eval").glob("events.*"))) == writers  # of rank 0 alone


def test_what_runs_is_what_the_command_line_runs(one_bundle, prepared):
    run = workflow(one_bundle, "train", "training", **SMALL, dataset_dir=str(prepared))
    assert run.run_id == "training" and run.parser.get("training") == run.parser.get("run")


def test_a_warm_up_lasts_half_of_the_training_at_most(one_bundle, prepared):
    for epochs, warm_up, expected in ((2, 50, 1), (10, 3, 3)):
        run = workflow(
            one_bundle, "train", **{**SMALL, "max_epochs": epochs, "warmup_epochs": warm_up}, dataset_dir=str(prepared)
        )
        run.initialize()
        scheduler, loader = (run.parser.get_parsed_content(name) for name in ("lr_scheduler", "train::dataloader"))
        assert scheduler.warmup_steps == expected * len(loader)
