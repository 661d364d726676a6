"""The report's tables: the numbers of the evaluations, tests where tests may be made, and what each number is."""

from __future__ import annotations

import re

import numpy as np
import pytest
from evaluation_folders import write_evaluation
from scipy import stats

from aleatoric.metrics.definitions import DEFINITIONS
from aleatoric.report import read_evaluations
from aleatoric.report.cautions import cautions
from aleatoric.report.figures import FAMILIES, HEADLINES, figure, in_order, value_text, with_interval
from aleatoric.report.models import compare, pool
from aleatoric.report.provenance import provenance_tables
from aleatoric.report.tables import (
    family_tables,
    matrix_table,
    p_text,
    run_table,
    spread_table,
    summary_table,
)
from aleatoric.report.units import area_unit


def compared(evaluations):
    models = pool(evaluations)
    return models, compare(models, list(models[0].figures))


@pytest.fixture(scope="module")
def three(three_models):
    return compared(read_evaluations(three_models))


@pytest.fixture(scope="module")
def runs(cross_validation):
    return compared(read_evaluations([cross_validation]))


def row_of(table, start):
    (number,) = (i for i, row in enumerate(table.rows) if row[0] == start)
    return table.rows[number], table.marks[number]


def written(tmp_path, name, **options):
    return write_evaluation(tmp_path / name, bundle=f"{name}_segmentation", epochs=0, kept=0, **options)


def test_the_summary_says_what_the_evaluation_wrote(three):
    models, result = three
    table = summary_table(models, result)
    assert table.head == ["figure", "punet", "generalized_punet:mixture_full", "ssn"]
    assert {len(row) for row in table.rows + table.marks} == {4} and len(table.rows) == len(table.marks)
    cells, _ = row_of(table, "GED ↓")
    for model, cell in zip(models, cells[1:]):
        low, high = model.runs[0].record["intervals"]["ged"]
        assert cell == f"{model.metrics['ged']:.3f} [{low:.3f}, {high:.3f}]"
    assert row_of(table, "cases")[0][1:] == ["24"] * 3
    assert row_of(table, "samples per image")[0][1:] == ["8"] * 3


def test_a_figure_that_a_model_lacks_has_an_empty_cell(three):
    assert row_of(summary_table(*three), "Effective rank")[0][3] == ""


def test_a_figure_of_the_whole_section_has_no_mark(three):
    cells, marks = row_of(summary_table(*three), "AURC ↓")
    assert all(cells) and marks == [""] * 4


def test_every_figure_has_its_definition_below(three):
    models, result = three
    tables = family_tables(models, result)
    assert [table.caption for table in tables] == [name for name in FAMILIES if name != "Other figures"]
    for table in (*tables, summary_table(models, result)):
        for row in table.rows:
            name = row[0].rstrip(" ↓↑").removesuffix(", pixels")
            if name not in ("cases", "patients", "samples per image", "trainings"):
                assert any(note.startswith(f"{name} (") for note in table.notes), name
    assert summary_table(models, result).notes[0] == "In brackets: 95 % interval; percentiles."
    head = "Conventions, here and below: two empty masks have distance 0"
    assert any(note.startswith(head) for note in summary_table(models, result).notes)
    assert sum(len(table.rows) for table in tables) == len(models[0].metrics)


def test_the_best_is_marked_and_what_cannot_be_told_from_it(tmp_path):
    folders = [
        written(tmp_path, "one"),
        written(tmp_path, "same", change=lambda record: None),
        written(tmp_path, "far", noise=4.0),
    ]
    models, result = compared(read_evaluations(folders))
    table = summary_table(models, result)
    for name, best in (("GED ↓", min), ("Dice, best sample per rater ↑", max)):
        cells, marks = row_of(table, name)
        values = [float(cell.split()[0]) for cell in cells[1:]]
        assert marks[1:][values.index(best(values))] == "best"
        assert sorted(marks[1:3]) == ["best", "noise"] and marks[3] == ""


def test_neither_direction_no_mark(three):
    for name in ("Diversity of the samples, E d(s,s')", "Diversity of the raters, E d(y,y')", "Effective rank"):
        assert row_of(summary_table(*three), name)[1] == [""] * 4


def test_the_matrix_is_the_comparison(three):
    _, result = three
    comparison, place = result.comparison, result.figures.index("ged")
    table = matrix_table(result, "ged")
    assert table.head[1:] == [row[0] for row in table.rows] == [model.name for model in result.models]
    first, second, _ = result.models
    difference = float(table.rows[0][2].split()[0])
    assert difference == pytest.approx(first.metrics["ged"] - second.metrics["ged"], abs=6e-4)
    assert difference < 0 and "below 0 the row is better" in table.notes[0]
    assert table.rows[1][1] == p_text(comparison.adjusted[0, 1, place])
    assert all(table.rows[i][i + 1] == "" for i in range(3))
    for i in range(3):
        for j in range(3):
            assert (table.marks[i][j + 1] == "noise") == bool(i != j and comparison.inside[i, j, place])
    assert "Holm's correction for 3 pairs" in table.notes[1] and "8 patients" in table.notes[1]


def test_the_runs_of_a_model_are_taken_together_case_by_case(runs):
    models, result = runs
    assert [(model.name, len(model.runs)) for model in models] == [("punet", 4), ("spunet", 4)]
    model = models[0]
    mean = np.mean([[run.figures["ged"][run.keys.index(key)] for key in model.keys] for run in model.runs], axis=0)
    np.testing.assert_allclose(model.figures["ged"], mean)
    assert model.metrics["ged"] == pytest.approx(np.mean([run.metrics["ged"] for run in model.runs]), rel=1e-4)
    low, high = model.intervals["ged"]
    assert low < model.metrics["ged"] < high
    assert model.metrics["aurc"] == pytest.approx(np.mean([run.metrics["aurc"] for run in model.runs]))
    assert "aurc" not in model.intervals
    seeds = [[run.metrics["ged"] for run in model.runs if run.record["fold"] == fold] for fold in (0, 1)]
    pooled = np.sqrt(np.mean([np.var(pair, ddof=1) for pair in seeds]))
    assert model.spread("ged").between_seeds == pytest.approx(pooled)
    other = [[run.metrics["ged"] for run in models[1].runs if run.record["fold"] == fold] for fold in (0, 1)]
    within = np.mean([np.var(pair, ddof=1) for pair in (*seeds, *other)])  # of 4 degrees of freedom
    half = stats.t.isf(0.025, 4) * np.sqrt(within / 2)  # means of 4 runs each
    assert result.comparison.trainings[0, 1, result.figures.index("ged")] == pytest.approx(half)


def test_areas_in_other_units_are_not_compared(tmp_path):
    def change(record):
        record["spacing"] = [0.5, 0.5]

    models, result = compared(read_evaluations([written(tmp_path, "one"), written(tmp_path, "two", change=change)]))
    assert "area_crps" in models[0].figures and "area_crps" not in result.figures and "ewd" in result.figures
    assert any("Area" in w or "area" in w for w in result.warnings if "other units" in w and "mm, spacing" in w)
    assert [area_unit(model.runs[0].record) for model in models] == ["pixels", "mm²"]
    _, own = provenance_tables([model.runs[0] for model in models])
    assert own.rows[1][own.head.index("spacing")] == "[0.5, 0.5] mm"


def test_nobody_is_best_in_a_tie(tmp_path):
    models = pool(read_evaluations([written(tmp_path, "one"), written(tmp_path, "two")]))
    models[1].figures["ged"][:] = models[0].figures["ged"]
    result = compare(models, ["ged", "ewd"])
    assert result.comparison.difference[0, 1, result.figures.index("ged")] == 0
    assert row_of(summary_table(models, result), "GED ↓")[1] == [""] * 3


@pytest.mark.parametrize(
    ("figures", "words"),
    [
        ({"presence_samples": 0.01, "presence_raters": 0.6}, "one: only 1.0% of its samples show anything"),
        ({"diversity": 0.0}, "one: the samples of a case are all the same."),
        ({}, None),
    ],
)
def test_answers_that_are_none_are_named(tmp_path, figures, words):
    evaluations = read_evaluations([written(tmp_path, "one", change=lambda record: record["metrics"].update(figures))])
    said = cautions(pool(evaluations))
    assert len(said) == (words is not None) and all(sentence.startswith(words) for sentence in said)


def test_models_of_other_folds_are_told_apart(tmp_path):
    folders = [
        written(tmp_path / f"{name}{seed}", name, fold=fold, seed=seed)
        for name, fold in (("one", 0), ("two", 1))
        for seed in (0, 1)
    ]
    _, result = compared(read_evaluations(folders))
    assert any(w.startswith("two and one were not trained on the same folds") for w in result.warnings)
    assert np.isnan(result.comparison.trainings).all()


def test_the_best_is_that_of_the_cases_that_all_have(tmp_path):
    """A model that has no value where the others are bad is not the better for it."""
    folders = [written(tmp_path, name) for name in ("one", "two")]
    _, result = compared(read_evaluations(folders))
    one, two = result.models
    two.figures["ged"][:] = one.figures["ged"] + 0.01
    two.figures["ged"][one.figures["ged"] > np.median(one.figures["ged"])] = np.nan
    assert np.nanmean(two.figures["ged"]) < np.mean(one.figures["ged"])
    assert result.best("ged") == 0
    shared = np.isfinite(two.figures["ged"])
    assert result.means("ged") == pytest.approx(
        {"one": one.figures["ged"][shared].mean(), "two": two.figures["ged"][shared].mean()}
    )
    two.figures["ged"][:] = np.nan
    assert result.best("ged") is None


def test_a_case_that_a_run_leaves_undefined_counts_with_the_others(tmp_path):
    folders = [
        written(tmp_path, f"f{seed}", seed=seed, change=lambda r: r["model"].update(bundle="m")) for seed in (0, 1)
    ]
    text = (folders[0] / "per_case.csv").read_text().splitlines()
    column = text[0].split(",").index("ged")
    text[1] = ",".join("nan" if i == column else part for i, part in enumerate(text[1].split(",")))
    (folders[0] / "per_case.csv").write_text("\n".join(text) + "\n")
    one, two = read_evaluations(folders)
    (model,) = pool([one, two])
    key = one.keys[0]
    assert np.isnan(one.figures["ged"][0])
    assert model.figures["ged"][model.keys.index(key)] == two.figures["ged"][two.keys.index(key)]


def test_folds_on_other_cases_are_pooled(tmp_path):
    """The validation section of each fold has cases of its own."""

    def of_fold(fold):
        folder = write_evaluation(tmp_path / f"fold{fold}", fold=fold, epochs=0, kept=0)
        path = folder / "per_case.csv"
        path.write_text(path.read_text().replace("p0", f"fold{fold}_p0"))
        return folder

    (model,) = pool(read_evaluations([of_fold(0), of_fold(1)]))
    assert len(model.keys) == 48 and len(set(model.patients)) == 16


def test_spread_over_folds_and_seeds(runs):
    models, _ = runs
    table = spread_table(models)
    values = [run.metrics["ged"] for run in models[0].runs]
    cell = row_of(table, "GED ↓")[0][1]
    assert cell.startswith(f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f} (folds ")
    assert "seeds" in cell
    assert "punet: 4 trainings, folds 2, seeds 2" in table.notes
    each = run_table(models)
    assert [row[0] for row in each.rows[:2]] == ["punet, fold 0, seed 0", "punet, fold 0, seed 1"]
    assert each.rows[0][1 + each.head[1:].index("GED ↓")] == value_text(values[0])


def test_single_trainings_have_no_spread(three):
    assert spread_table(three[0]) is None and run_table(three[0]) is None


def test_other_cases_are_not_tested(tmp_path):
    models, result = compared(read_evaluations([written(tmp_path, "one"), written(tmp_path, "two", cases=16)]))
    assert result.comparison is None
    (warning,) = result.warnings
    assert "two: 16 cases, not the same" in warning and "no test is made" in warning
    assert not any(mark for row in summary_table(models, result).marks for mark in row)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda record: record["dataset"].update(sha256={"images.npy": "f" * 64}),
            "other: other data (discs, 24 cases)",
        ),
        (lambda record: record["dataset"].update(sha256={}, name="squares"), "other: other data (squares, 24 cases)"),
    ],
)
def test_other_data_is_not_tested(tmp_path, change, words):
    folders = [written(tmp_path, "one"), written(tmp_path, "two"), written(tmp_path, "other", change=change)]
    _, result = compared(read_evaluations(folders))
    assert [model.name for model in result.models] == ["one", "two"]
    (warning, _few) = result.warnings
    assert warning.endswith("only one, two are compared.")
    assert words in warning


def test_other_split_or_section_is_said(tmp_path):
    for change, words in (
        (lambda record: record.update(split_hash="0123456789abcdef"), "two: another split (0123456789ab)"),
        (lambda record: record.update(section="validation"), "two: the section validation"),
    ):
        folders = [written(tmp_path, "one"), written(tmp_path, "two", cases=16, change=change)]
        _, result = compared(read_evaluations(folders))
        assert words in result.warnings[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda record: record.update(num_samples=16), "numbers of samples differ.*one: 8; two: 16"),
        (lambda record: record.update(temperature=0.5), "temperatures of sampling differ.*one: 1.0; two: 0.5"),
        (lambda record: record.update(conventions="others"), "conventions .* are not worded alike"),
    ],
)
def test_what_makes_numbers_unlike_is_said(tmp_path, change, words):
    _, result = compared(read_evaluations([written(tmp_path, "one"), written(tmp_path, "two", change=change)]))
    assert result.comparison is not None
    assert any(re.search(words, warning) for warning in result.warnings)


def test_a_figure_defined_differently_is_not_compared(tmp_path):
    def change(record):
        record["definitions"]["ged"] = "U-statistic"

    models, result = compared(read_evaluations([written(tmp_path, "one"), written(tmp_path, "two", change=change)]))
    assert "ged" not in result.figures and "ewd" in result.figures
    assert any('two: "U-statistic"' in warning for warning in result.warnings)
    table = summary_table(models, result)
    assert row_of(table, "GED ↓")[1] == [""] * 3
    assert any(note.startswith("GED (ged) is not defined alike") for note in table.notes)


def test_where_it_comes_from(three_models, tmp_path):
    evaluations = read_evaluations(three_models)
    common, own = provenance_tables(evaluations)
    said = dict(common.rows)
    assert said["hash of the split"] == "c3" * 8 and said["SHA-256 of images.npy"] == "a1" * 6
    assert said["samples per image"] == "8" and said["version of torch"] == "2.0"
    assert own.head == ["evaluation", "bundle", "variant", "folder"]
    assert own.rows[1][1:3] == ["generalized_punet_segmentation", "mixture_full"]
    assert own.rows[0][2] == ""
    (alone,) = provenance_tables(evaluations[:1])
    assert dict(alone.rows)["bundle"] == "punet_segmentation"


def test_the_command_of_a_cross_validation(tmp_path):
    folder = written(tmp_path / "fold0_seed0", "eval")
    (folder.parent / "fold.json").write_text('{"command": "python tools/cross_validate.py punet"}')
    (table,) = provenance_tables(read_evaluations([folder]))
    assert dict(table.rows)["command of the training"] == "python tools/cross_validate.py punet"
    (folder.parent / "fold.json").write_text("[]")
    (table,) = provenance_tables(read_evaluations([folder]))
    assert "command of the training" not in dict(table.rows)


@pytest.mark.parametrize("key", [*DEFINITIONS, *HEADLINES])
def test_every_figure_of_an_evaluation_has_a_name_for_readers(key):
    one = figure(key)
    assert one.family != "Other figures" and one.better in ("lower", "higher", "")
    assert one.title != key


def test_figures_of_classes_are_named():
    assert figure("dice_class_whole_tumour").head == "Dice of whole tumour, all pairs ↑"
    assert figure("dice_shown_core_mean_prediction").title == "Dice of core, mean prediction, where shown"
    assert figure("dice_whole_mean_prediction").title == "Dice of whole, mean prediction, all pairs"
    assert figure("area_coverage_90").title == "Raters' areas in the samples' 90 % interval"
    assert figure("ewd_mine").head == "ewd mine ↓"
    assert figure("mine") == ("mine", "mine", "", "Other figures")
    assert [one.key for one in in_order(["mine", "gini_index", "ewd", "ged"])] == ["ged", "ewd", "gini_index", "mine"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.12345, "0.123"),
        (0, "0.000"),
        (-0.0053, "-0.0053"),
        (2e-5, "2e-05"),
        (12.345, "12.3"),
        (12345.6, "12,346"),
        (float("nan"), "–"),
    ],
)
def test_numbers_are_as_long_as_they_mean_something(value, text):
    assert value_text(value) == text


def test_numbers_of_a_cell_have_as_many_decimals():
    assert with_interval(0.0241, 0.00832, 0.0404) == "0.024 [0.008, 0.040]"
    assert with_interval(-0.002, -0.0031, 0.0009) == "-0.0020 [-0.0031, 0.0009]"
    assert with_interval(12.3456, 9.8765, 14.0) == "12.3 [9.9, 14.0]"
    assert with_interval(0.5, float("nan"), float("nan")) == "0.500"


def test_p_values_read_as_papers_print_them():
    texts = [p_text(p) for p in (0.0004, 0.0312, 1.0, float("nan"))]
    assert not any(" " in text for text in texts)  # which do not break
    assert [text.replace("\u00a0", " ") for text in texts] == ["p < 0.001", "p = 0.031", "p = 1", ""]
