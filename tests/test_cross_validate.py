"""``tools/cross_validate.py``: every fold once, again after a kill, past a fold that fails; the table by hand."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from pathlib import Path

import fire
import monai.bundle
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "bundles"))

from bundle_runs import SMALL, write_prepared

import cross_validate
import cross_validation_table
from aleatoric.history import HistoryWriter

SET = [f"{key}={value}" for key, value in SMALL.items() if key != "progress"]
SET += ["warmup_epochs=0", "learning_rate=0.01"]  # else the only step would have the learning rate 0


def in_this_process(command, bundle, log):
    """``execute`` without the seconds that a process needs to start: the same command line, read by the same Fire."""
    assert command[1:6] == ["-W", "ignore", "-m", "monai.bundle", "run"]
    log.write_text("")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(bundle)
        patch.setattr(sys, "excepthook", sys.excepthook)
        patch.setattr(HistoryWriter, "_draw", lambda *_: None)  # the longest part of so small a training
        try:
            fire.Fire({"run": monai.bundle.run}, command=list(command[5:]))
        except Exception as error:
            log.write_text(f"noise\nerror: {error}\nmore noise\n")
            return 1
    return 0


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return write_prepared(tmp_path_factory.mktemp("prepared") / "discs", patients=6, size=16)


@pytest.fixture
def commands(monkeypatch):
    """The command lines that were run, in this process."""
    said = []

    def execute(command, bundle, log):
        said.append(command[6:])
        return in_this_process(command, bundle, log)

    monkeypatch.setattr(cross_validate, "execute", execute)
    return said


def call(out, prepared, *more, models=("punet",), epochs=1, folds=2):
    """The exit code. Small networks, without an overlay."""
    words = [*models, "--data", prepared, "--out", out, "--overlay", "", "--folds", folds]
    return cross_validate.main([str(w) for w in [*words, "--set", *SET, f"max_epochs={epochs}", "pictures=0", *more]])


@pytest.fixture(scope="module")
def made(tmp_path_factory, prepared):
    """A finished cross-validation of two models; tests work on copies."""
    out = tmp_path_factory.mktemp("made") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_validate, "execute", in_this_process)
        assert call(out, prepared, models=("punet", "spunet")) == 0
    return out


@pytest.fixture
def copied(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "out"))


def read(out):
    with open(out / "cross_validation.csv", newline="") as file:
        return list(csv.DictReader(file))


def change(path, **values):
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **values}))


def first_table(text):
    """Its lines."""
    blocks = [block.splitlines() for block in text.split("\n\n")]
    return next(block for block in blocks if block[0].startswith("|"))


def cells(text):
    """The first table's rows by model."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in first_table(text)]
    return {row[0]: dict(zip(rows[0], row)) for row in rows[2:]}


def test_every_model_and_fold_is_trained_and_evaluated(made, prepared):
    rows = read(made)
    assert [(row["model"], row["fold"], row["seed"]) for row in rows] == [
        (model, str(fold), "0") for model in ("punet", "spunet") for fold in (0, 1)
    ]
    split = json.loads((prepared / "dataset.json").read_text())["folds"]["split_hash"]
    for row in rows:
        folder = made / row["model"] / f"fold{row['fold']}_seed0"
        result = json.loads((folder / "eval" / "metrics.json").read_text())
        for name, value in result["metrics"].items():
            assert float(row[name]) == pytest.approx(value, rel=1e-5), name
        assert (row["epochs"], row["best_epoch"], row["section"], row["split_hash"]) == ("1", "1", "testing", split)
        assert 0 < float(row["seconds"]) < 100 and int(row["cases"]) == result["cases"]
        assert sorted(path.name for path in (folder / "models").iterdir()) == ["model.json", "model.pt"]
        assert (folder / "eval" / "per_case.csv").is_file()
    assert len({row["effective_rank"] for row in rows}) == 4


@pytest.mark.parametrize(
    ("name", "models", "words", "overlay"),
    [
        ("qubiq-brain-growth", ["punet", "ssn:diagonal"], [], "qubiq_brain_growth"),
        ("discs", ["punet"], [], ""),
        ("qubiq-kidney", ["punet", "ssn_3d"], [], ""),  # only one of them has it
        ("qubiq-kidney", ["punet"], ["--overlay", ""], ""),
    ],
)
def test_the_overlay_is_that_of_the_data_sets_name(name, models, words, overlay, prepared, tmp_path, monkeypatch):
    data = shutil.copytree(prepared, tmp_path / "data")
    change(data / "dataset.json", name=name)
    monkeypatch.setattr(cross_validate, "run_all", lambda jobs, options: [options.overlay])
    monkeypatch.setattr(cross_validate, "write_tables", lambda out: "")
    said = []
    monkeypatch.setattr(cross_validate, "print", lambda *words, file=None, **_: said.append(words), raising=False)
    cross_validate.main([*models, "--data", str(data), "--out", str(tmp_path / "out"), *words])
    assert said[-1] == (f"failed: {overlay}",)


def test_the_numbers_of_the_table(copied):
    random = np.random.default_rng(0)
    drawn = {}
    for model in ("punet", "spunet"):
        for fold in (0, 1):
            path = copied / model / f"fold{fold}_seed0" / "eval" / "metrics.json"
            metrics = {name: random.random() for name in json.loads(path.read_text())["metrics"]}
            change(path, metrics=metrics)
            drawn.setdefault(model, []).append(metrics)
    text = cross_validation_table.write_tables(copied)
    assert text == (copied / "cross_validation.md").read_text(encoding="utf-8")
    table = cells(text)
    assert list(table) == ["punet", "spunet"]
    for model, runs in drawn.items():
        assert table[model]["runs"] == "2"
        for name in cross_validation_table.FIGURES:
            values = [run[name] for run in runs]
            assert table[model][name] == f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}", name
    assert len({len(line) for line in first_table(text)}) == 1  # aligned


def test_a_single_run_has_no_deviation_and_a_missing_figure_no_mean(copied):
    for model in ("punet", "spunet"):
        shutil.rmtree(copied / model / "fold1_seed0")
    path = copied / "spunet" / "fold0_seed0" / "eval" / "metrics.json"
    metrics = json.loads(path.read_text())["metrics"]
    change(path, metrics={name: value for name, value in metrics.items() if name != "gini_index"})
    table = cells(cross_validation_table.write_tables(copied))
    assert table["punet"]["runs"] == "1" and "±" not in table["punet"]["ewd"]
    assert table["spunet"]["gini_index"] == "-"
    assert [row["gini_index"] == "" for row in read(copied)] == [False, True]


def test_the_head_says_what_holds_for_all_and_what_differs(made):
    text = (made / "cross_validation.md").read_text(encoding="utf-8")
    shared, punet, spunet = (line for line in text.splitlines() if line.startswith(("- all", "- punet", "- spunet")))
    for words in ("max_epochs 1", "warmup_epochs 0", "batch_size 8", "filters [4, 8]", "latent_dim 3", "norm null"):
        assert words in shared and f", {words}" not in punet
    assert "epochs run 1, best 1" in punet
    assert "all_raters false" in punet and "all_raters true" in spunet and "sinkhorn_weight" in spunet
    assert "cross_validate.py punet spunet --data" in text and "section testing" in text
    assert read(made)[0]["split_hash"] in text


def test_what_is_finished_is_not_run_again(copied, prepared, commands, capsys):
    before = (copied / "cross_validation.csv").read_text()
    (copied / "cross_validation.csv").unlink()
    assert call(copied, prepared, models=("punet", "spunet")) == 0
    assert not commands and capsys.readouterr().out.count("done before") == 4
    assert (copied / "cross_validation.csv").read_text() == before
    (copied / "cross_validation.csv").unlink()
    assert cross_validate.main(["--table-only", "--out", str(copied)]) == 0 and not commands
    assert (copied / "cross_validation.csv").read_text() == before
    # A model that is trained but was not evaluated is evaluated only.
    (copied / "punet" / "fold1_seed0" / "eval" / "metrics.json").unlink()
    assert call(copied, prepared) == 0
    assert [command[0] for command in commands] == ["evaluating"]
    assert (copied / "cross_validation.csv").read_text() == before


def test_an_interrupted_training_goes_on(tmp_path, prepared, commands, monkeypatch):
    """From the last checkpoint, to the same figures as the undisturbed one."""
    whole, folder = tmp_path / "whole", tmp_path / "broken" / "punet" / "fold0_seed0"
    assert call(whole, prepared, "--keep-checkpoints", epochs=2, folds=1) == 0
    with monkeypatch.context() as patch:
        patch.setattr(cross_validate, "execute", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert call(tmp_path / "broken", prepared, epochs=2, folds=1) == 130
    assert not (tmp_path / "broken" / "cross_validation.csv").exists()
    # What a kill after the first epoch leaves.
    started = json.loads((folder / "fold.json").read_text())["started"]
    shutil.copytree(whole / "punet" / "fold0_seed0" / "models", folder / "models")
    (folder / "models" / "checkpoint_epoch=2.pt").unlink()
    os.utime(folder / "models" / "checkpoint_epoch=1.pt", (0, started + 1000))
    (folder / "eval").mkdir()
    shutil.copy(whole / "punet" / "fold0_seed0" / "eval" / "training.csv", folder / "eval")
    commands.clear()
    assert call(tmp_path / "broken", prepared, epochs=2, folds=1) == 0
    assert [command[0] for command in commands] == ["training", "evaluating"]
    assert "--resume=True" in commands[0] and "--resume=True" not in commands[1]
    assert not list(folder.glob("models/*epoch=*.pt"))
    one, two = read(whole)[0], read(tmp_path / "broken")[0]
    assert 1000 <= float(two.pop("seconds")) < 1100 and float(one.pop("seconds")) < 100
    assert one == two and one["epochs"] == "2"


def test_a_fold_that_fails_stops_no_other(tmp_path, prepared, commands, capsys):
    blocked = tmp_path / "out" / "punet" / "fold0_seed0" / "models"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where the models go")
    assert call(tmp_path / "out", prepared) == 3
    captured = capsys.readouterr()
    assert "punet fold 0 seed 0: FAILED, training ended with exit code 1: " in captured.out
    assert "failed: punet fold 0 seed 0" in captured.err and "training.log" in captured.err
    assert [row["fold"] for row in read(tmp_path / "out")] == ["1"]
    assert cells((tmp_path / "out" / "cross_validation.md").read_text(encoding="utf-8"))["punet"]["runs"] == "1"
    blocked.unlink()
    commands.clear()
    assert call(tmp_path / "out", prepared) == 0
    assert [command[0] for command in commands] == ["training", "evaluating"] and len(read(tmp_path / "out")) == 2


def test_each_step_is_given_what_its_config_knows(tmp_path, prepared, commands):
    assert call(tmp_path / "out", prepared, "--seeds", 3, folds=1) == 0
    training, evaluating = (dict(part[2:].partition("=")[::2] for part in command[3:]) for command in commands)
    assert training["seed"] == evaluating["seed"] == "3" and training["fold"] == evaluating["fold"] == "0"
    assert "max_epochs" in training and "max_epochs" not in evaluating and "warmup_epochs" not in evaluating
    assert "pictures" in evaluating and "pictures" not in training
    assert evaluating["section"] == "testing" and evaluating["filters"] == training["filters"] == "[4, 8]"
    assert [command[2] for command in commands] == ['["configs/train.json"]', '["configs/evaluate.json"]']
    model = cross_validate.Model("punet:resnet")
    assert model.files("train", "kohl") == ["configs/train.json", "configs/resnet.json", "configs/kohl.json"]
    assert model.bundle == cross_validate.Model("punet").bundle


def test_a_command_of_its_own_process(tmp_path):
    """``execute`` itself: the folder, the log with the command line, both streams and the exit code."""
    code = "import os, sys; print(os.getcwd()); sys.stderr.write('error: no\\n'); sys.exit(5)"
    assert cross_validate.execute([sys.executable, "-c", code], tmp_path, tmp_path / "x.log") == 5
    lines = (tmp_path / "x.log").read_text().splitlines()
    assert lines[0].startswith("$ python -c ") and sorted(lines[1:]) == sorted([str(tmp_path), "error: no"])


@pytest.mark.slow
def test_as_programs_of_their_own(tmp_path, prepared, capsys):
    assert call(tmp_path / "out", prepared) == 0
    assert len(read(tmp_path / "out")) == 2 and "1 left, about" in capsys.readouterr().out
    bad = ["learning_rate=1e30", "log_interval=1", "batch_size=2"]
    assert call(tmp_path / "bad", prepared, "--set", *bad, folds=1) == 3
    assert "exit code 1: the loss term" in capsys.readouterr().out


BAD = {
    "no model": ({"models": ()}, [], "the models' names and --data"),
    "model": ({"models": ("ponet",)}, [], "choose BUNDLE or BUNDLE:VARIANT of"),
    "variant": ({"models": ("punet:bla",)}, [], "bla.json"),
    "no variant": ({"models": ("punet:demo",)}, [], "makes no other model"),
    "folds": ({"folds": 4}, [], "--folds 4 found, 1 to 3 expected"),
    "no value": ({}, ["--set", "max_epochs"], "KEY=VALUE expected"),
    "unknown id": ({}, ["--set", "max_epoch=3"], "--set max_epoch found"),
    "fold": ({}, ["--set", "fold=1"], "which every fold is given by this tool"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_before_anything_runs(case, tmp_path, prepared, commands, capsys):
    arguments, more, words = BAD[case]
    assert call(tmp_path / "out", prepared, *more, **arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and words in error
    assert not commands and not (tmp_path / "out").exists()


def test_other_settings_are_not_mixed(copied, prepared, commands, capsys):
    assert call(copied, prepared, epochs=2) == 2
    assert "max_epochs 1 and 2 (then and now): give another --out" in capsys.readouterr().err
    path = copied / "punet" / "fold1_seed0" / "fold.json"
    change(path, settings={**json.loads(path.read_text())["settings"], "filters": [8, 16]})
    assert cross_validate.main(["--table-only", "--out", str(copied)]) == 2
    assert "filters [4, 8] and [8, 16], and no average may mix them" in capsys.readouterr().err
    assert not commands


def test_folds_of_another_split_are_not_averaged(copied, tmp_path, capsys):
    for model in ("punet", "spunet"):  # the other fold of a model, and another model
        out = Path(shutil.copytree(copied, tmp_path / model))
        change(out / model / "fold1_seed0" / "eval" / "metrics.json", split_hash="another")
        assert cross_validate.main(["--table-only", "--out", str(out)]) == 2
        assert "and another, and no average may mix them" in capsys.readouterr().err
    assert cross_validate.main(["--table-only", "--out", str(tmp_path / "nothing")]) == 2
    assert "holds no finished fold" in capsys.readouterr().err
