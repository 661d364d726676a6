"""Evaluations read back: found wherever they lie, named apart, refused with one sentence."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from evaluation_folders import write_evaluation

from aleatoric.errors import InputError
from aleatoric.report import read_evaluations


def test_an_evaluation_is_read_as_written(three_models):
    (one,) = read_evaluations(three_models[:1])
    assert (one.label, one.model, one.folder) == ("punet", "punet", three_models[0])
    assert len(one.rows) == one.record["cases"] == len(one.figures["ged"])
    assert list(one.rows[0]) == ["case", "patient", "slice", "fold"]
    for name, values in one.figures.items():  # but the six digits of the file
        assert np.nanmean(values) == pytest.approx(one.metrics[name], rel=1e-4, abs=1e-6), name
    assert "aurc" in one.metrics and "aurc" not in one.figures
    assert one.npz == three_models[0] / "cases.npz"
    assert one.training[0]["epoch"] == 1 and "val_loss" not in one.training[0] and "val_loss" in one.training[1]
    assert one.latents[0]["epoch"] == 2


def test_null_is_nan(tmp_path):
    folder = write_evaluation(tmp_path / "e", change=lambda record: record["metrics"].update(aurc=float("nan")))
    assert '"aurc": null' in (folder / "metrics.json").read_text()
    assert np.isnan(read_evaluations([folder])[0].metrics["aurc"])


def test_what_is_optional_may_be_absent(tmp_path):
    (one,) = read_evaluations([write_evaluation(tmp_path / "e", kept=0, epochs=0)])
    assert (one.npz, one.training, one.latents) == (None, None, None)


def test_any_folder_above_will_do(tmp_path):
    write_evaluation(tmp_path / "bundle" / "eval" / "deeper")
    (one,) = read_evaluations([tmp_path / "bundle"])
    assert one.folder == tmp_path / "bundle" / "eval" / "deeper"


def test_a_folder_met_twice_counts_once(three_models):
    assert len(read_evaluations([three_models[0], three_models[0].parent, three_models[0]])) == 3


def test_variants_are_named(three_models):
    assert [one.label for one in read_evaluations(three_models)] == ["punet", "generalized_punet:mixture_full", "ssn"]


def test_folds_and_seeds_are_runs_of_one_model(cross_validation):
    evaluations = read_evaluations([cross_validation])
    assert [one.model for one in evaluations] == ["punet"] * 4 + ["spunet"] * 4
    assert [one.label for one in evaluations[:4]] == [f"punet, fold {f}, seed {s}" for f in (0, 1) for s in (0, 1)]
    single = read_evaluations(sorted((cross_validation / "punet").glob("fold0_*")))  # as a shell's * gives them
    assert [one.label for one in single] == ["punet, seed 0", "punet, seed 1"]
    assert {one.model for one in single} == {"punet"}


@pytest.mark.parametrize(
    "change",
    [
        lambda record: None,
        lambda record: record.update(training=None),
        lambda record: record.update(num_samples=99, training={"fold": 0, "seed": 5}),
        lambda record: (record["definitions"].update(ged="another"), record.update(training={"fold": 0, "seed": 5})),
        lambda record: (record["dataset"].update(name="discs 2"), record.update(training={"fold": 0, "seed": 5})),
        lambda record: (record["dataset"].update(sha256={"a": "b"}), record.update(training={"fold": 0, "seed": 5})),
        lambda record: record.update(split_hash="another", training={"fold": 0, "seed": 5}),
        lambda record: record.update(training={"fold": 0, "seed": 5, "settings": {"filters": [4]}}),
        lambda record: record.update(training={"fold": 0, "seed": 5, "recipe": {"learning_rate": 0.1}}),
    ],
    ids=[
        *("same fold and seed", "unknown fold", "other number of samples", "other definition", "other data set"),
        *("other images", "other split", "another network", "trained otherwise"),
    ],
)
def test_what_cannot_be_runs_of_one_model_is_named_by_its_folder(tmp_path, change):
    folders = [write_evaluation(tmp_path / "first" / "eval"), write_evaluation(tmp_path / "b" / "eval", change=change)]
    evaluations = read_evaluations(folders)
    assert [one.model for one in evaluations] == [one.label for one in evaluations] == ["punet (first)", "punet (b)"]


def test_two_trainings_of_one_model_with_folds_each(tmp_path):
    for name in ("short", "long"):
        for fold in (0, 1):
            write_evaluation(tmp_path / name / "punet" / f"fold{fold}_seed0" / "eval", fold=fold)
    evaluations = read_evaluations([tmp_path / "short", tmp_path / "long"])
    assert [one.label for one in evaluations] == [f"punet ({n}), fold {f}" for n in ("short", "long") for f in (0, 1)]


def test_one_folder_in_another(tmp_path):
    write_evaluation(tmp_path / "a")
    write_evaluation(tmp_path / "a" / "later")
    assert [one.label for one in read_evaluations([tmp_path / "a", tmp_path / "a" / "later"])] == [
        "punet (.)",
        "punet (later)",
    ]


def test_cases_have_the_same_keys_in_all_models(three_models):
    first, second, _ = read_evaluations(three_models)
    assert first.keys == second.keys
    assert len(set(first.keys)) == len(first.keys)
    first.rows[1] = dict(first.rows[0])  # a data set may name two cases alike
    assert len(set(first.keys)) == len(first.keys)


def _damage(folder, name, text):
    (folder / name).write_text(text)


def _edit(folder, **changes):
    record = json.loads((folder / "metrics.json").read_text())
    for key, value in changes.items():
        record.pop(key, None)
        if value is not None:
            record[key] = value
    (folder / "metrics.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: shutil.rmtree(folder), "is no folder"),
        (lambda folder: (folder / "metrics.json").unlink(), "no metrics.json in .* evaluate first"),
        (lambda folder: _damage(folder, "metrics.json", '{"format_'), "is no JSON .* evaluate again"),
        (lambda folder: _damage(folder, "metrics.json", "[]"), "has format version None, expected 2"),
        (lambda folder: _edit(folder, format_version=None), "has format version 1, expected 2: evaluate again"),
        (lambda folder: _edit(folder, format_version=3), "has format version 3"),
        (lambda folder: _edit(folder, model=None, section=None), "lacks model, section: evaluate again"),
        (lambda folder: (folder / "per_case.csv").unlink(), "there is no .*per_case.csv"),
        (lambda folder: _edit(folder, cases=99), "has 24 cases, metrics.json says 99"),
        (lambda folder: _damage(folder, "latents.csv", "epoch,gini_index\n1,many\n"), "is no table of numbers"),
    ],
)
def test_damage_is_said_in_one_sentence(tmp_path, damage, words):
    folder = write_evaluation(tmp_path / "e")
    damage(folder)
    with pytest.raises(InputError, match=words):
        read_evaluations([folder])


def test_a_figure_that_is_no_number(tmp_path):
    folder = write_evaluation(tmp_path / "e")
    text = (folder / "per_case.csv").read_text()
    (folder / "per_case.csv").write_text(text.replace(",1,", ",one,").rsplit(",", 1)[0] + ",x\n")
    with pytest.raises(InputError, match="a figure that is no number"):
        read_evaluations([folder])


def test_no_folder_at_all():
    with pytest.raises(InputError, match="expected at least one"):
        read_evaluations([])
