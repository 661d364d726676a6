"""``tools/compare_with_papers.py``: the papers' numbers typed again, what is set beside what, and what the row says."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import compare_with_papers
from aleatoric.data.qubiq.tree import TASKS
from aleatoric.metrics.definitions import definition
from compare_with_papers import DATASETS, HEAD
from papers import published_rows

REPOSITORY = Path(__file__).resolve().parents[1]
PUBLISHED = published_rows()

# The papers' tables in another layout: (paper, table, dataset, settings), figures, then a line per model.
TYPED_AGAIN = {
    ("SPU-Net", "Table II", "lidc", 6): ("ewd effective_rank", ".451 1.92", ".446 2.94", ".440 5.12"),
    ("SPU-Net", "Table II", "qubiq-pancreas", 6): ("ewd effective_rank", ".603 1.52", ".585 2.77", ".530 5.33"),
    ("SPU-Net", "Table II", "qubiq-pancreatic-lesion", 6): (
        "ewd effective_rank",
        ".618 1.07",
        ".568 3.06",
        ".518 4.20",
    ),
    ("SPU-Net", "Table II", "lidc", 4): ("ewd effective_rank", ".451 1.68", ".451 2.90", ".447 3.52"),
    ("SPU-Net", "Table II", "qubiq-pancreatic-lesion", 7): (
        "ewd effective_rank",
        ".611 1.31",
        ".535 4.88",
        ".543 5.33",
    ),
    ("SPU-Net", "Table IV", "lidc", 6): ("ewd effective_rank", ".508 3.48", ".435 3.58", ".451 1.47", ".447 4.55"),
    ("cSAE", "Table 1", "lidc", 6): (
        "ewd ewd_dice ewd_hausdorff ewd_cross_entropy gini_index",
        ".308 .272 21.4 .330 .457",
        ".305 .269 21.0 .329 .289",
        ".291 .255 19.9 .303 .192",
    ),
    ("cSAE", "Table 1", "qubiq-pancreas", 6): (
        "ewd ewd_dice ewd_hausdorff ewd_cross_entropy gini_index",
        ".130 .092 12.0 .753 .470",
        ".145 .100 12.1 .692 .248",
        ".126 .089 9.80 .550 .198",
    ),
    ("cSAE", "Table 1", "qubiq-pancreatic-lesion", 6): (
        "ewd ewd_dice ewd_hausdorff ewd_cross_entropy gini_index",
        ".131 .081 5.87 .566 .539",
        ".145 .097 5.94 .544 .344",
        ".101 .062 5.00 .513 .205",
    ),
    ("cSAE", "Table 1", "qubiq-brain-growth", 6): (
        "ewd ewd_dice ewd_hausdorff ewd_cross_entropy gini_index",
        ".154 .084 6.77 3.06 .143",
        ".153 .084 6.53 3.18 .190",
        ".149 .081 6.75 2.95 .104",
    ),
    ("cSAE", "Table 2", "qubiq-brain-tumor-1", 6): ("ewd", ".098", ".086", ".073"),
    ("cSAE", "Table 2", "qubiq-brain-tumor-2", 6): ("ewd", ".365", ".308", ".279"),
    ("cSAE", "Table 2", "qubiq-brain-tumor-3", 6): ("ewd", ".126", ".111", ".105"),
    ("SSN", "Table 1", "lidc", None): (
        "dice_mean_prediction dice_nonempty_mean_prediction ged diversity",
        ".359 .435 .607 .000",
        ".390 .506 .252 .469",
        ".338 .403 .224 .496",
        ".370 .462 .622 .007",
        ".436 .685 .225 .609",
        ".375 .503 .698 .000",
        ".384 .572 .516 .290",
        ".391 .513 .456 .215",
        ".371 .512 .734 .001",
        ".407 .586 .365 .399",
    ),
    ("SSN", "Table 2", "brats", None): (
        "dice_shown_whole_mean_prediction dice_shown_non-enhancing_tumour_mean_prediction "
        "dice_shown_oedema_mean_prediction dice_shown_enhancing_tumour_mean_prediction ged diversity",
        ".880 .593 .717 .687 .635 .312",
        ".887 .596 .724 .692 .689 .217",
        ".882 .605 .721 .673 .886 .000",
    ),
    ("Generalized PU-Net", "Table 1", "lidc", None): ("ged", ".242", ".220", ".238", ".218"),
}


@pytest.mark.parametrize("key", TYPED_AGAIN, ids=lambda key: "-".join(map(str, key)))
def test_the_numbers_are_the_papers(key):
    paper, table, dataset, latent_dim = key
    names, *lines = TYPED_AGAIN[key]
    found = [
        row
        for row in PUBLISHED
        if (row.paper, row.table, row.dataset) == (paper, table, dataset)
        and latent_dim in (None, row.settings.get("latent_dim"))
    ]
    assert len(found) == len(lines)
    for row, line in zip(found, lines):
        for name, text in zip(names.split(), line.split()):
            digits = len(text.partition(".")[2])
            assert f"{row.figures[name][0]:.{digits}f}" == f"{float(text):.{digits}f}", row


def test_every_name_is_one_of_ours():
    """A bundle, a variant, a data set or a figure that is renamed would never be compared again."""
    for row in PUBLISHED:
        for model in set(row.models) - {"*"}:
            bundle, _, variant = model.partition(":")
            folder = REPOSITORY / "bundles" / f"{bundle}_segmentation" / "configs"
            assert (folder / (f"{variant}.json" if variant else "train.json")).is_file(), model
        assert row.dataset in {"lidc", "brats", *(f"qubiq-{task}" for task in TASKS)}
        assert all(definition(name) for name in row.figures), row.figures
        for value, deviation in row.figures.values():
            assert value >= 0 and (deviation is None or 0 <= deviation < value + 0.1)
    assert {"kohl", "lidc", "lidc_pickle"} == set(DATASETS)


METRICS = {
    "ewd": 0.5,
    "ged": 0.3,
    "ged_unbiased": 0.25,
    "diversity": 0.4,
    "effective_rank": 2.0,
    "rater_diversity": 0.41,
}


def evaluation(
    folder, bundle="punet", dataset="lidc", fold=0, seed=0, metrics=None, settings=None, source="CT", **record
):
    """A folder as an evaluation leaves it, of one case."""
    bundle, _, variant = bundle.partition(":")
    metrics = METRICS if metrics is None else metrics
    content = {
        "format_version": 2,
        "model": {
            "bundle": f"{bundle}_segmentation",
            "version": "0",
            "variant": variant or None,
            "checkpoint": "model.pt",
        },
        "training": {"fold": fold, "seed": seed},
        "dataset": {"name": dataset, "source": source},
        "section": "testing",
        "split_hash": "c3",
        "cases": 1,
        "patients": 1,
        "num_samples": 16,
        "temperature": 1.0,
        "definitions": {},
        "metrics": metrics,
        "intervals": {"ewd": [0.4, 0.6], "ged": None},
        **record,
    }
    folder.mkdir(parents=True)
    (folder / "metrics.json").write_text(json.dumps(content))
    with open(folder / "per_case.csv", "w", newline="") as file:
        csv.writer(file).writerows(
            [["case", "patient", *metrics], ["a", "p", *(value or "nan" for value in metrics.values())]]
        )
    if settings is not None:
        (folder / "run.json").write_text(json.dumps({"settings": settings}))
    return folder


def rows_of(*folders, beside=None):
    """What the tool makes of some folders."""
    return compare_with_papers.compare(
        compare_with_papers.gather(compare_with_papers.read_evaluations(folders)), PUBLISHED, beside
    )


def by_table(rows):
    return {(row.paper.paper, row.paper.table, row.figure): row for row in rows}


def test_what_has_both_names_is_compared(tmp_path):
    found = by_table(rows_of(evaluation(tmp_path / "a")))
    assert set(found) == {
        ("SPU-Net", "Table II", "ewd"),
        ("SPU-Net", "Table II", "effective_rank"),
        ("cSAE", "Table 1", "ewd"),
        ("SSN", "Table 1", "ged"),
        ("SSN", "Table 1", "diversity"),
        ("SSN", "Section 5.2", "rater_diversity"),
        ("Generalized PU-Net", "Table 1", "ged"),
    }
    row = found["SPU-Net", "Table II", "ewd"]
    assert row.published == (0.451, 0.006) and row.paper.name == "PU-Net, d = 6"
    assert row.cells()[:3] == ["ewd", "0.500 [0.400, 0.600]", "0.451 ± 0.006"]
    assert found["SSN", "Table 1", "ged"].cells()[1:4] == ["0.300", "0.252 ± 0.004", "probabilistic U-Net, all sets"]


def test_another_bundle_variant_or_data_set_is_another_row(tmp_path):
    assert {row.paper.name for row in rows_of(evaluation(tmp_path / "a", "spunet:convnext"))} == {
        "ConvNeXt (ours)",
        "the four experts",
    }
    assert {row.published[0] for row in rows_of(evaluation(tmp_path / "b", "csae", "qubiq-brain-tumor-2"))} == {0.279}
    for bundle in ("generalized_punet", "generalized_punet:mixture_full"):
        folder = evaluation(tmp_path / bundle, bundle)
        assert by_table(rows_of(folder))["Generalized PU-Net", "Table 1", "ged"].published == (0.218, 0.220)
    assert rows_of(evaluation(tmp_path / "c", dataset="phantom")) == []
    assert rows_of(evaluation(tmp_path / "d", "hpunet", "brats")) == []


def test_folds_and_seeds_are_one_row(tmp_path):
    values = {(0, 0): 0.4, (1, 0): 0.5, (2, 0): 0.9, (2, 1): 0.6}
    for (fold, seed), value in values.items():
        folder = tmp_path / f"fold{fold}_seed{seed}" / "eval"
        evaluation(folder, fold=fold, seed=seed, metrics={**METRICS, "ewd": value})
    row = by_table(rows_of(tmp_path))["SPU-Net", "Table II", "ewd"]
    listed = list(values.values())
    assert row.cells()[1] == f"{np.mean(listed):.3f} ± {np.std(listed, ddof=1):.3f}"
    assert not any("fold" in said and "theirs threefold" in said for said in row.differs)
    assert "± there: standard deviation over three folds; ours over 4 runs" in row.differs


def test_the_line_with_the_same_settings_is_meant(tmp_path):
    for number, (settings, name) in enumerate(
        [
            ({}, "PU-Net, d = 6"),
            ({"latent_dim": 6}, "PU-Net, d = 6"),
            ({"latent_dim": 7}, "PU-Net, d = 7"),
            ({"latent_dim": 12}, "PU-Net, d = 6"),
        ]
    ):
        row = by_table(rows_of(evaluation(tmp_path / str(number), settings=settings)))["SPU-Net", "Table II", "ewd"]
        assert row.paper.name == name
        assert ("latent_dim 12, theirs 6" in row.differs) == (settings == {"latent_dim": 12})
    folder = evaluation(tmp_path / "one" / "eval")
    (folder.parent / "fold.json").write_text(json.dumps({"settings": {"keep_raters": [0]}}))  # of cross_validate.py
    row = by_table(rows_of(folder))["SSN", "Table 1", "ged"]
    assert row.paper.name == "probabilistic U-Net, set 0" and row.published == (0.516, 0.007)


SAID = {
    "not trained": (
        {"model": {"bundle": "punet_segmentation", "variant": None, "checkpoint": None}},
        "ours is NOT TRAINED",
    ),
    "simulated": ({"source": "simulated scans"}, "ours are SIMULATED images"),
    "section": ({"section": "validation"}, "ours is the section validation, theirs testing"),
    "samples": ({"num_samples": 100}, "100 samples, theirs 16"),
    "temperature": ({"temperature": 0.5}, "temperature 0.5, theirs 1"),
    "patients": ({"cases": 1, "patients": 77}, "1 cases of 77 patients; theirs split by patient"),
    "settings": ({"settings": {"max_epochs": 20, "filters": [8, 16]}}, "20 epochs, theirs 200; filters 8-16"),
}


@pytest.mark.parametrize("case", SAID)
def test_the_row_says_what_differs(case, tmp_path):
    record, words = SAID[case]
    plain = by_table(rows_of(evaluation(tmp_path / "plain")))["SPU-Net", "Table II", "ewd"].cells()[-1]
    other = by_table(rows_of(evaluation(tmp_path / "other", **record)))["SPU-Net", "Table II", "ewd"].cells()[-1]
    assert words in other and words not in plain
    assert "one fold, theirs threefold cross-validation" in plain and "the paper does not say" in plain


def test_statistic_and_empty_masks_are_said_where_they_matter(tmp_path):
    found = by_table(rows_of(evaluation(tmp_path / "a")))
    for key in (("SSN", "Table 1", "ged"), ("Generalized PU-Net", "Table 1", "ged")):
        assert "V-statistic" in found[key].cells()[-1] and "without self-pairs 0.250" in found[key].cells()[-1]
    assert "16 samples, theirs 100" in found["SSN", "Table 1", "ged"].differs
    assert "two empty masks have distance 0 in both" in found["SSN", "Table 1", "ged"].differs
    assert "V-statistic" not in found["SPU-Net", "Table II", "ewd"].cells()[-1]
    assert "empty" not in found["SPU-Net", "Table II", "effective_rank"].cells()[-1]
    experts = found["SSN", "Section 5.2", "rater_diversity"].cells()[-1]
    assert "samples" not in experts and "fold" not in experts  # of the data, whatever the model


def test_a_figure_that_is_undefined_is_no_row(tmp_path):
    assert {row.figure for row in rows_of(evaluation(tmp_path / "a", metrics={**METRICS, "ewd": None}))} >= {"ged"}
    assert "ewd" not in {row.figure for row in rows_of(evaluation(tmp_path / "b", metrics={"ged": 0.3}))}


def test_beside_another_data_set_the_row_says_so(tmp_path):
    rows = rows_of(evaluation(tmp_path / "a", dataset="phantom"), beside="lidc")
    assert rows and all("data set phantom, not lidc" in row.differs for row in rows)
    kohl = rows_of(evaluation(tmp_path / "b", dataset="kohl"))
    assert kohl and all("crops of Kohl" in row.cells()[-1] and "not lidc" not in row.cells()[-1] for row in kohl)


def test_files_and_terminal_say_the_same(tmp_path, capsys):
    folders = [evaluation(tmp_path / "a"), evaluation(tmp_path / "b", "csae", fold=1)]
    out = tmp_path / "made" / "table.md"
    assert compare_with_papers.main([*map(str, folders), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    rows = rows_of(*folders)
    text = out.read_text(encoding="utf-8")
    for row in rows:
        assert "| " + " | ".join(row.cells()) + " |" in text
        assert all(cell in printed for cell in row.cells()[:-1])
        assert all(word in printed for word in row.cells()[-1].split())
    assert "## punet on lidc" in text and "- cSAE: Retained Singular Values" in text and "| ".join(HEAD)[:6] in text
    assert max(map(len, printed.partition("\nwrote")[0].splitlines())) < 180
    with open(out.with_suffix(".csv"), newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(rows)
    for line, row in zip(table, rows):
        assert float(line["published"]) == row.published[0] and float(line["ours"]) == pytest.approx(row.spread.mean)
        assert line["differs"] == row.cells()[-1] and line["runs"] == "1" and line["deviation"] == ""
    assert (table[0]["low"], table[0]["high"]) == ("0.4", "0.6")


def test_says_plainly_where_nothing_is_comparable(tmp_path, capsys):
    evaluation(tmp_path / "a", "hpunet", "phantom")
    assert compare_with_papers.main([str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "no paper has numbers for hpunet on phantom" in printed and "spunet" in printed and "--beside" in printed


def test_bad_input_is_one_sentence(tmp_path, capsys):
    good = evaluation(tmp_path / "a")
    damaged = evaluation(tmp_path / "b", settings={})
    (damaged / "run.json").write_text("{")
    for arguments, words in (
        ([str(tmp_path / "nowhere")], "is no folder"),
        ([str(good), "--out", "table.txt"], "ends with .md expected"),
        ([str(damaged)], "has no settings to read"),
    ):
        assert compare_with_papers.main(arguments) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and words in error
