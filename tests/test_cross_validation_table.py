"""What ``tools/cross_validation_table.py`` says of models that differ, and of models that do not: folders by hand."""

from __future__ import annotations

import csv
import json
import math

import numpy as np
import pytest

import cross_validation_table
from aleatoric.statistics import compare_models, holm

PATIENTS = 20
CASES = 3  # of each patient


@pytest.fixture
def random():
    return np.random.default_rng(0)


def run(out, model, values, fold=0, seed=0, cases=None):
    """A finished fold: ``values`` figure -> (n,), a value per case."""
    folder = out / model.replace(":", "-") / f"fold{fold}_seed{seed}"
    (folder / "eval").mkdir(parents=True)
    count = len(next(iter(values.values())))
    record = {"model": model, "fold": fold, "seed": seed, "settings": {}, "command": "made by hand", "seconds": 60.0}
    (folder / "fold.json").write_text(json.dumps(record))
    means = {name: float(np.nanmean(value)) for name, value in values.items()}
    result = {
        "format_version": 2,
        "model": {"bundle": f"{model}_segmentation", "variant": None},
        "training": {"fold": fold, "seed": seed},
        "dataset": {"name": "made"},
        "section": "testing",
        "split_hash": "c3",
        "cases": count,
        "num_samples": 4,
        "definitions": {},
        "metrics": means | {"ged": None},
    }
    (folder / "eval" / "metrics.json").write_text(json.dumps(result))
    (folder / "eval" / "training.csv").write_text("epoch,val_loss\n1,0.5\n")
    names = cases or [f"case{number}" for number in range(count)]
    with open(folder / "eval" / "per_case.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "patient", *values])
        for number, name in enumerate(names):
            writer.writerow([name, f"p{number // CASES}", *(repr(float(column[number])) for column in values.values())])


def verdicts_of(out):
    with open(out / "cross_validation_tests.csv", newline="") as file:
        return {(row["figure"], row["model"], row["other"]): row for row in csv.DictReader(file)}


def test_the_matrix_is_that_of_the_means_over_runs(tmp_path, random):
    truth = random.random((PATIENTS * CASES, 1))
    values = {
        model: truth + shift + 0.05 * random.normal(size=(len(truth), 4))  # of two folds and two seeds
        for model, shift in (("a", 0.0), ("b", 0.2), ("c", 0.0))
    }
    for model, of_model in values.items():
        for number, column in enumerate(of_model.T):
            run(tmp_path, model, {"ewd": column}, *divmod(number, 2))
    text = cross_validation_table.write_tables(tmp_path)
    runs = {m: {divmod(k, 2): v for k, v in enumerate(x.mean(0))} for m, x in values.items()}
    patients = np.repeat(np.arange(PATIENTS), CASES).astype(str)
    twin = compare_models({m: x.mean(1) for m, x in values.items()}, patients, trainings=runs)
    rows = verdicts_of(tmp_path)
    pairs = {("a", "b"): (0, 1), ("a", "c"): (0, 2), ("b", "c"): (1, 2)}
    assert set(rows) == {("ewd", *pair) for pair in pairs}
    for pair, place in pairs.items():
        row = rows[("ewd", *pair)]
        for name, matrix in (("difference", twin.difference), ("p", twin.p), ("p_holm_pairs", twin.adjusted)):
            assert float(row[name]) == pytest.approx(matrix[place], rel=1e-4), name
        assert [float(row["low"]), float(row["high"])] == pytest.approx([twin.low[place], twin.high[place]], rel=0.05)
        assert float(row["half_interval_over_trainings"]) == pytest.approx(twin.trainings[place], rel=1e-4)
        assert row["inside_noise"] == str(twin.inside[place]) == str(pair == ("a", "c"))
        assert row["verdict"] == twin.verdict(*pair).sentence or row["verdict"][:6] == twin.verdict(*pair).sentence[:6]
    np.testing.assert_allclose(
        [float(r["p_holm_pairs"]) for r in rows.values()], holm([float(r["p"]) for r in rows.values()])
    )
    assert "the mean of 4 runs of each model" in text and "means of 20 patients" in text
    assert f"~ {twin.difference[0, 2]:+.3f} (p {twin.adjusted[0, 2]:.2g})" in text
    assert f"| {twin.difference[1, 0]:+.3f} (p {twin.adjusted[1, 0]:.2g})" in text
    assert "- ewd: inside the noise: a and c\n" in text
    assert text == (tmp_path / "cross_validation.md").read_text(encoding="utf-8")


def test_folds_and_seeds_have_deviations_of_their_own(tmp_path):
    for fold, seed, value in ((0, 0, 0.1), (0, 1, 0.3), (1, 0, 0.6), (1, 1, 1.0)):
        run(tmp_path, "a", {"ewd": np.full(3, value)}, fold, seed)
    text = cross_validation_table.write_tables(tmp_path)
    assert f"0.500 ± {np.std([0.1, 0.3, 0.6, 1.0], ddof=1):.3f}" in text
    rows = {tuple(line.split("|")[1:4]) for line in text.replace(" ", "").splitlines() if line.startswith("|a|")}
    assert {("a", "folds", f"{np.std([0.2, 0.8], ddof=1):.3f}"), ("a", "seeds", f"{math.sqrt(0.05):.3f}")} <= rows
    assert not (tmp_path / "cross_validation_tests.csv").exists()  # of one model


def test_only_runs_that_all_have_are_compared(tmp_path, random):
    values = random.random(PATIENTS * CASES)
    run(tmp_path, "a", {"ewd": values})
    run(tmp_path, "a", {"ewd": values + 100}, fold=1)
    run(tmp_path, "b", {"ewd": values + 1})
    assert "the mean of one run of each model" in cross_validation_table.write_tables(tmp_path)
    assert float(verdicts_of(tmp_path)["ewd", "a", "b"]["difference"]) == pytest.approx(-1)


def test_folds_that_score_other_cases_are_put_together(tmp_path, random):
    """With --section validation every fold has cases of its own."""
    first, second = random.random((2, PATIENTS * CASES))
    for model, shift in (("a", 0), ("b", 1)):
        run(tmp_path, model, {"ewd": first + shift})
        run(tmp_path, model, {"ewd": second + shift}, fold=1, cases=[f"other{n}" for n in range(len(second))])
    cross_validation_table.write_tables(tmp_path)
    row = verdicts_of(tmp_path)["ewd", "a", "b"]
    assert float(row["difference"]) == pytest.approx(-1) and float(row["high"]) == pytest.approx(-1)


def test_a_figure_that_one_model_lacks(tmp_path, random):
    one, two = random.random((2, PATIENTS * CASES))
    run(tmp_path, "a", {"ewd": one, "gini_index": one})
    run(tmp_path, "b", {"ewd": two})
    run(tmp_path, "c", {"ewd": two, "gini_index": two})
    text = cross_validation_table.write_tables(tmp_path)
    rows = verdicts_of(tmp_path)
    assert {key[0] for key in rows} == {"ewd", "gini_index"}
    assert float(rows["gini_index", "a", "c"]["difference"]) == pytest.approx((one - two).mean(), rel=1e-4)
    assert rows["gini_index", "a", "b"]["difference"] == "" and "nan" not in text


def test_where_there_is_no_test_the_averages_stand(tmp_path, random):
    values = {"ewd": random.random(12)}
    run(tmp_path, "a", values)
    run(tmp_path, "b", values, fold=1)
    text = cross_validation_table.write_tables(tmp_path)
    assert "- no tests between models: a, b have no fold and seed in common" in text and "| a " in text
    run(tmp_path, "b", values, cases=[f"x{number}" for number in range(12)])
    assert "were not scored on the same cases" in cross_validation_table.write_tables(tmp_path)
    assert not (tmp_path / "cross_validation_tests.csv").exists()


def test_few_patients_are_warned_of(tmp_path, random):
    for model in "ab":
        run(tmp_path, model, {"ewd": random.random(12)})
    assert "- warning: only 4 patients" in cross_validation_table.write_tables(tmp_path)


def test_an_undefined_figure_is_an_empty_cell(tmp_path, random):
    run(tmp_path, "a", {"ewd": random.random(12)})
    assert "-" in cross_validation_table.write_tables(tmp_path)
    with open(tmp_path / "cross_validation.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["ged"] == "" and float(row["ewd"]) > 0
