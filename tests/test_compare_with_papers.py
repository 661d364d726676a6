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
from compare_with_papers import HEAD
from papers import DATASETS, published_rows
from papers.protocol import AUGMENTATION

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
    ("SPU-Net", "Section IV", "lidc", None): ("ged", ".327"),
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
    ("SSN", "Section 5.3", "brats", None): ("share_better_than_mean dice_quantile_95", ".260 .703"),
    ("Generalized PU-Net", "Table 1", "lidc", None): ("ged", ".242", ".220", ".238", ".218"),
}

_SPUNET = "batch_size 32, learning_rate 1e-4, weight_decay 1e-5"
_CSAE = "batch_size 32, learning_rate 1e-4, weight_decay 5e-5, max_gradient_norm 1, kl_weight 10"
# How the papers trained, and on how many images: (paper, table, dataset), in the texts at SPU-Net Table I, IV-C and
# IV-D, cSAE Tables 3 and 4, SSN 5.2 and 5.3, Generalized PU-Net 4.1, 4.2 and A.
TRAINED = {
    ("SPU-Net", "Table II", "lidc"): (f"{_SPUNET}, max_epochs 200, warmup_epochs 5, raters 4", "15,096 cropped"),
    ("SPU-Net", "Table II", "qubiq-pancreas"): (
        f"{_SPUNET}, max_epochs 2500, warmup_epochs 50, raters 2",
        "702 cropped",
    ),
    ("SPU-Net", "Table II", "qubiq-pancreatic-lesion"): (
        f"{_SPUNET}, max_epochs 2500, warmup_epochs 50, raters 2",
        "206 cropped",
    ),
    ("SPU-Net", "Table IV", "lidc"): (f"{_SPUNET}, max_epochs 200, warmup_epochs 5, raters 4", "15,096 cropped"),
    ("SPU-Net", "Section IV", "lidc"): (f"{_SPUNET}, max_epochs 200, warmup_epochs 5, raters 4", "15,096 cropped"),
    ("cSAE", "Table 1", "lidc"): (f"{_CSAE}, early_stopping_patience 40, raters 4", "15,096 patches"),
    ("cSAE", "Table 1", "qubiq-pancreas"): (f"{_CSAE}, early_stopping_patience 200, raters 2", "869 patches"),
    ("cSAE", "Table 1", "qubiq-pancreatic-lesion"): (f"{_CSAE}, early_stopping_patience 500, raters 2", "156 resized"),
    ("cSAE", "Table 1", "qubiq-brain-growth"): (f"{_CSAE}, early_stopping_patience 300, raters 7", "39 resized"),
    **{
        ("cSAE", "Table 2", f"qubiq-brain-tumor-{task}"): (
            f"{_CSAE}, early_stopping_patience 300, raters 7",
            "32 channels",
        )
        for task in (1, 2, 3)
    },
    ("SSN", "Table 1", "lidc"): ("iterations 500000, raters 4", "15,096 nodules"),
    ("SSN", "Section 5.2", "lidc"): ("raters 4", "15,096 nodules"),
    ("SSN", "Table 2", "brats"): ("raters 1", "285 240"),
    ("SSN", "Section 5.3", "brats"): ("raters 1, rank 10", "285 240"),
    ("Generalized PU-Net", "Table 1", "lidc"): (
        "learning_rate 1e-4, early_stopping_patience 20, kl_weight 1, raters 4",
        "15,096 scaled",
    ),
}
# What holds for a model alone: the start of its name, under that paper and data set.
TRAINED_ALONE = {
    ("SPU-Net", "lidc", "SPU-Net, d"): "max_gradient_norm 1, kl_weight 10, sinkhorn_weight 100",
    ("SPU-Net", "lidc", "ConvNeXt (ours)"): "max_gradient_norm 1, kl_weight 10, sinkhorn_weight 100",
    ("cSAE", "lidc", "cSAE"): "sinkhorn_weight 10, sinkhorn_samples 16",
    ("cSAE", "qubiq-pancreas", "cSAE"): "sinkhorn_weight 1, sinkhorn_samples 16",
    ("cSAE", "qubiq-pancreatic-lesion", "cSAE"): "sinkhorn_weight 10, sinkhorn_samples 16",
    ("cSAE", "qubiq-brain-growth", "cSAE"): "sinkhorn_weight 10, sinkhorn_samples 16",
    ("cSAE", "qubiq-brain-tumor-2", "cSAE"): "sinkhorn_weight 1, sinkhorn_samples 16",
    ("SSN", "lidc", "proposed (low-rank)"): "monte_carlo_samples 20, rank 10",
    ("SSN", "brats", "low-rank"): "rank 10",
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


def read(text):
    return {key: float(value) for key, value in (part.split() for part in text.split(", "))}


def test_the_trainings_are_the_papers():
    assert {(row.paper, row.table, row.dataset) for row in PUBLISHED} == set(TRAINED)
    for row in PUBLISHED:
        recipe, data = TRAINED[row.paper, row.table, row.dataset]
        for key, value in read(recipe).items():
            assert row.recipe[key] == value, (row, key)
        count, word = data.split()
        assert row.data.startswith(count) and word in row.data
        assert set(row.inferred) <= set(row.recipe)
    for (paper, dataset, name), recipe in TRAINED_ALONE.items():
        rows = [row for row in PUBLISHED if (row.paper, row.dataset) == (paper, dataset) and row.name.startswith(name)]
        assert rows and all(row.recipe.get(key) == value for row in rows for key, value in read(recipe).items())
    for row in PUBLISHED:
        if row.paper == "SPU-Net" and row.models[0].startswith("punet"):  # only the proposed method is clipped
            assert row.recipe["max_gradient_norm"] is None and "sinkhorn_weight" not in row.recipe
        if row.paper == "Generalized PU-Net":
            assert row.recipe["filters"] == [32, 64, 128, 512] and row.recipe["norm"] == "batch"
        assert (row.augmentation == "none") == (row.paper == "Generalized PU-Net")
        assert (row.augmentation is None) == (row.paper == "SSN")  # in an appendix of another paper
        assert ("gamma 0.5 to 1.5" in str(row.augmentation)) == (row.paper == "cSAE")
        assert (
            row.empty == "two empty masks have distance 0 in both"
            or row.table in ("Section IV", "Section 5.3")
            or (row.paper == "Generalized PU-Net" and row.empty is None)
        )


def test_every_recipe_is_in_the_bundles_words():
    """An id that a bundle does not know would never be compared."""
    for row in PUBLISHED:
        for model in set(row.models) - {"*"}:
            configs = REPOSITORY / "bundles" / f"{model.partition(':')[0]}_segmentation" / "configs"
            known = json.loads((configs / "train.json").read_text())
            assert set(row.recipe) | set(row.settings) <= set(known) | {"iterations"}, (row, model)


def test_the_bundles_augment_as_the_tool_says():
    for path in (REPOSITORY / "bundles").glob("*_segmentation/configs/train.json"):
        bundle = path.parents[1].name.removesuffix("_segmentation")
        affine, *more = json.loads(path.read_text())["train"]["preprocessing"]["transforms"]
        if bundle == "ssn_3d":  # its paper says nothing of augmentation
            continue
        assert affine["rotate_range"] == np.pi and affine["scale_range"] == [0.2, 0.2]
        assert affine["translate_range"] == [12.8, 12.8] and np.allclose(
            np.rad2deg(np.arctan(affine["shear_range"])), 30
        )
        assert bool(more) == (bundle in AUGMENTATION)
        for transform in more:
            assert (transform["brightness"], transform["gamma"]) == ([0.8, 1.2], [0.5, 1.5])


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
    folder,
    bundle="punet",
    dataset="lidc",
    fold=0,
    seed=0,
    metrics=None,
    settings=None,
    recipe=None,
    epochs=None,
    source="CT",
    **record,
):
    """A folder as an evaluation leaves it, of one case; settings and recipe in run.json, epochs in training.csv."""
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
        "dataset": {"source": source, **(dataset if isinstance(dataset, dict) else {"name": dataset})},
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
    if settings is not None or recipe is not None:
        more = {} if recipe is None else {"recipe": recipe}  # older files lack it
        (folder / "run.json").write_text(json.dumps({"settings": settings or {}, **more}))
    if epochs is not None:
        lines = [f"{epoch},{1 / epoch}" for epoch in range(1, epochs + 1)]
        (folder / "training.csv").write_text("\n".join(["epoch,train_loss", *lines]) + "\n")
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
        ("SPU-Net", "Section IV", "ged"),
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
    assert "± there: standard deviation over three folds" in row.differs
    assert "± ours: standard deviation over 4 runs, folds and seeds together" in row.differs


def test_what_the_deviation_is_of(tmp_path):
    for name, runs, words in (
        ("one", [(0, 0)], "[ ] ours: 95 % interval over patients"),
        ("folds", [(0, 0), (1, 0), (2, 0)], "± ours: standard deviation over 3 folds"),
        ("seeds", [(1, 0), (1, 1)], "± ours: standard deviation over 2 seeds of one fold"),
        ("both", [(0, 0), (0, 1), (1, 0)], "± ours: standard deviation over 3 runs, folds and seeds together"),
    ):
        for fold, seed in runs:
            evaluation(tmp_path / name / f"{fold}{seed}", fold=fold, seed=seed, bootstrap={"level": 0.95})
        differs = by_table(rows_of(tmp_path / name))["SPU-Net", "Table II", "ewd"].differs
        assert differs[-2:] == ["± there: standard deviation over three folds", words], name
    # of a number that stands without one only ours is said
    metrics = {"share_better_than_mean": 0.3}
    (row,) = rows_of(evaluation(tmp_path / "3d", "ssn_3d", "brats", metrics=metrics, intervals={}))
    assert not any("±" in said or "[ ]" in said for said in row.differs)


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
    "patients": (
        {"cases": 1, "patients": 77},
        "1 cases of 77 patients; theirs 15,096 images, cropped to 128 x 128 around the centre: split by patient",
    ),
    "size": ({"dataset": {"name": "lidc", "patch_size": [64, 64]}}, "1 patients, 64 x 64; theirs 15,096 images"),
    "raters": ({"dataset": {"name": "lidc", "raters": 3}}, "raters 3, theirs 4"),
    "settings": (
        {"settings": {"max_epochs": 20, "filters": [8, 16]}},
        "20 epochs, theirs 200; filters 8-16, theirs 32-64-128-256 (from the number of parameters)",
    ),
    "network": ({"settings": {"num_convs": 1}}, "num_convs 1, theirs 3 (from the number of parameters)"),
    "learning rate": ({"recipe": {"learning_rate": 0.002}}, "learning_rate 0.002, theirs 0.0001"),
    "batch size": ({"recipe": {"batch_size": 8}}, "batch_size 8, theirs 32"),
    "weight decay": ({"recipe": {"weight_decay": 0.0}}, "weight_decay 0, theirs 1e-05"),
    "warm-up": ({"recipe": {"warmup_epochs": 0}}, "warmup_epochs 0, theirs 5"),
    "clipping": ({"recipe": {"max_gradient_norm": 1.0}}, "max_gradient_norm 1, theirs none"),
    "no augmentation": ({"recipe": {"augmentation_prob": 0}}, "augmentation: none; theirs: rotation by up to 180"),
    "augmentation": (
        {"recipe": {"augmentation_prob": 1}},
        "augmentation alike but ours with shear up to 30 degrees and theirs with shear of 30 %",
    ),
}


@pytest.mark.parametrize("case", SAID)
def test_the_row_says_what_differs(case, tmp_path):
    record, words = SAID[case]
    plain = by_table(rows_of(evaluation(tmp_path / "plain")))["SPU-Net", "Table II", "ewd"].cells()[-1]
    other = by_table(rows_of(evaluation(tmp_path / "other", **record)))["SPU-Net", "Table II", "ewd"].cells()[-1]
    assert words in other and words not in plain
    assert "one fold, theirs threefold cross-validation" in plain


PUBLISHED_RECIPE = {
    "latent_dim": 6,
    "filters": [32, 64, 128, 256],
    "num_convs": 3,
    "norm": None,
    "raters": 4,
    "batch_size": 32,
    "learning_rate": 1e-4,
    "weight_decay": 1e-5,
    "max_epochs": 200,
    "warmup_epochs": 5,
    "max_gradient_norm": 0,
    "early_stopping_patience": None,
}


def test_of_what_agrees_or_is_not_recorded_nothing_is_said(tmp_path):
    network = {key: PUBLISHED_RECIPE[key] for key in ("latent_dim", "filters", "num_convs", "norm", "raters")}
    agrees = evaluation(tmp_path / "a", settings=network, recipe=PUBLISHED_RECIPE, epochs=200)
    silent = evaluation(tmp_path / "b")
    for key in (("SPU-Net", "Table II", "ewd"), ("SPU-Net", "Section IV", "ged")):
        assert by_table(rows_of(agrees))[key].differs == by_table(rows_of(silent))[key].differs
    for row in rows_of(silent):
        assert not any("epoch" in said or "filters" in said or "known" in said for said in row.differs), row.differs


def test_training_of_each_paper_is_compared(tmp_path):
    found = by_table(rows_of(evaluation(tmp_path / "a", settings={}, recipe=PUBLISHED_RECIPE)))
    csae = found["cSAE", "Table 1", "ewd"].differs
    assert {
        "200 epochs, theirs as many as early stopping lets pass",
        "early_stopping_patience none, theirs 40",
        "weight_decay 1e-05, theirs 5e-05",
        "max_gradient_norm none, theirs 1",
        "filters 32-64-128-256, the paper gives none",
    } <= set(csae)
    assert not any("learning_rate" in said or "batch_size" in said or "latent_dim" in said for said in csae)
    assert "200 epochs, theirs 500,000 iterations" in found["SSN", "Table 1", "ged"].differs
    generalized = found["Generalized PU-Net", "Table 1", "ged"].differs
    assert "filters 32-64-128-256, theirs 32-64-128-512" in generalized and "norm none, theirs batch" in generalized
    assert "early_stopping_patience none, theirs 20" in generalized
    weights = {"kl_weight": 1.0, "sinkhorn_weight": 5.0, "augmentation_prob": 1.0}
    found = by_table(rows_of(evaluation(tmp_path / "b", "spunet", recipe=weights)))
    assert {"kl_weight 1, theirs 10", "sinkhorn_weight 5, theirs 100"} <= set(
        found["SPU-Net", "Table II", "ewd"].differs
    )
    found = by_table(rows_of(evaluation(tmp_path / "c", "csae", "qubiq-pancreas", recipe=weights)))
    said = found["cSAE", "Table 1", "ewd"].differs
    assert "kl_weight 1, theirs 10 (by its Table 4, which does not tell the models apart)" in said
    assert "sinkhorn_weight 5, theirs 1" in said and not any("augmentation" in sentence for sentence in said)
    found = by_table(rows_of(evaluation(tmp_path / "d", recipe=weights)))
    assert "augmentation alike but theirs with brightness 0.8 to 1.2, gamma 0.5 to 1.5" in (
        found["cSAE", "Table 1", "ewd"].differs
    )
    assert any(said.endswith("; theirs: none") for said in found["Generalized PU-Net", "Table 1", "ged"].differs)
    recipe = {"augmentation_prob": 0.0, "norm": ["batch", {"eps": 0.001}]}
    found = by_table(rows_of(evaluation(tmp_path / "e", "generalized_punet", recipe=recipe)))
    differs = found["Generalized PU-Net", "Table 1", "ged"].differs
    assert not any("augmentation" in said or "norm" in said.split() for said in differs)
    ours = {"name": "qubiq-brain-tumor-1", "raters": 3}
    row = rows_of(evaluation(tmp_path / "f", "csae", ours))[0]
    assert "raters 3, theirs 7 (by its Table 3)" in row.differs


def test_epochs_that_were_run(tmp_path):
    for name, epochs, limit, words in (
        ("all", 200, 200, None),
        ("fewer", 57, 200, "57 of 200 epochs, theirs 200"),
        ("other", 20, 20, "20 epochs, theirs 200"),
        ("asked for only", None, 20, "20 epochs, theirs 200"),
        ("run only", 30, None, "30 epochs, theirs 200"),
        ("none", None, None, None),
    ):
        recipe = None if limit is None else {"max_epochs": limit}
        row = by_table(rows_of(evaluation(tmp_path / name, recipe=recipe, epochs=epochs)))["SPU-Net", "Table II", "ewd"]
        assert [said for said in row.differs if "epochs" in said] == ([] if words is None else [words]), name
    for fold, epochs in enumerate((40, 200, 60)):
        evaluation(tmp_path / "folds" / str(fold), fold=fold, recipe={"max_epochs": 200}, epochs=epochs)
    found = by_table(rows_of(tmp_path / "folds"))
    assert "40 to 200 of 200 epochs, theirs 200" in found["SPU-Net", "Table II", "ewd"].differs
    assert "40 to 200 of 200 epochs, theirs as many as early stopping lets pass" in (
        found["cSAE", "Table 1", "ewd"].differs
    )


def test_the_evaluations_own_record_goes_first(tmp_path):
    """metrics.json says of which training the checkpoint is; run.json is of the last one, fold.json what was asked."""
    folder = evaluation(
        tmp_path / "one" / "eval",
        settings={"num_convs": 2, "latent_dim": 7, "raters": 5},
        recipe={"batch_size": 16, "learning_rate": 0.01},
        training={"fold": 0, "seed": 0, "settings": {"num_convs": 1}, "recipe": {"batch_size": 8}},
    )
    asked = {
        "num_convs": 4,
        "latent_dim": 4,
        "batch_size": 4,
        "learning_rate": 0.04,
        "warmup_epochs": 4,
        "raters": None,
    }
    (folder.parent / "fold.json").write_text(json.dumps({"settings": asked}))
    row = by_table(rows_of(folder))["SPU-Net", "Table II", "ewd"]
    assert row.paper.name == "PU-Net, d = 7"  # run.json before fold.json
    for words in (
        "num_convs 1, theirs 3 (from the number of parameters)",
        "batch_size 8, theirs 32",
        "learning_rate 0.01, theirs 0.0001",
        "warmup_epochs 4, theirs 5",
        "raters 5, theirs 4",
    ):
        assert words in row.differs
    empty = evaluation(tmp_path / "b", training={"fold": 0, "seed": 0, "settings": None, "recipe": None})
    assert rows_of(empty)


def test_the_gravest_first(tmp_path):
    folder = evaluation(
        tmp_path / "a",
        dataset="phantom",
        source="simulated",
        model={"bundle": "punet_segmentation", "variant": None, "checkpoint": None},
        num_samples=8,
        settings={"filters": [8], "latent_dim": 6},
        recipe={"batch_size": 1, "max_epochs": 3},
    )
    rows = rows_of(folder, beside="lidc")
    starts = (
        *("ours is NOT TRAINED", "ours are SIMULATED", "data set phantom, not lidc", "ours 1 cases", "8 samples"),
        *("V-statistic", "two empty masks", "3 epochs", "filters 8", "one fold", "± there"),
    )
    said = by_table(rows)["Generalized PU-Net", "Table 1", "ged"].differs
    places = [next((n for n, one in enumerate(said) if one.startswith(start)), None) for start in starts]
    assert places[-2] is None  # one split there, too
    known = [place for place in places if place is not None]
    assert len(known) == len(starts) - 1 and known == sorted(known)
    ewd = by_table(rows)["SPU-Net", "Table II", "ewd"].differs
    assert ewd.index("batch_size 1, theirs 32") > max(n for n, one in enumerate(ewd) if one.startswith("filters"))


def test_what_differs_is_said_in_each_row(tmp_path, capsys):
    folder = evaluation(tmp_path / "a", recipe={"batch_size": 8})
    out = tmp_path / "table.md"
    assert compare_with_papers.main([str(folder), "--out", str(out)]) == 0
    printed, text = capsys.readouterr().out, out.read_text(encoding="utf-8")
    part = printed.split("punet on lidc beside PU-Net, d = 6 (SPU-Net, Table II)\n")[1].split("punet on lidc")[0]
    assert " ".join(part.split()).count("batch_size 8, theirs 32") == 2  # ewd and effective_rank
    section = text.split("## punet on lidc beside PU-Net, d = 6 (SPU-Net, Table II)\n")[1].split("\n## ")[0]
    assert section.count("batch_size 8, theirs 32") == 2


def test_statistic_and_empty_masks_are_said_where_they_matter(tmp_path):
    found = by_table(rows_of(evaluation(tmp_path / "a")))
    for key in (("SSN", "Table 1", "ged"), ("Generalized PU-Net", "Table 1", "ged")):
        assert "V-statistic" in found[key].cells()[-1] and "without self-pairs 0.250" in found[key].cells()[-1]
    assert "16 samples, theirs 100" in found["SSN", "Table 1", "ged"].differs
    assert "two empty masks have distance 0 in both" in found["SSN", "Table 1", "ged"].differs
    for table in ("Table II", "Table 1"):
        paper = "SPU-Net" if table == "Table II" else "cSAE"
        assert "two empty masks have distance 0 in both" in found[paper, table, "ewd"].differs
    unsaid = "two empty masks have distance 0 in ours, the paper does not say"
    assert unsaid in found["Generalized PU-Net", "Table 1", "ged"].differs
    assert "V-statistic" not in found["SPU-Net", "Table II", "ewd"].cells()[-1]
    assert "empty" not in found["SPU-Net", "Table II", "effective_rank"].cells()[-1]
    experts = found["SSN", "Section 5.2", "rater_diversity"].cells()[-1]
    assert "samples" not in experts and "fold" not in experts  # of the data, whatever the model


def test_what_is_to_be_said_of_a_figure_alone(tmp_path):
    metrics = {"ewd": 0.5, "ewd_hausdorff": 9.0, "ewd_cross_entropy": 0.1, "gini_index": 0.4, "effective_rank": 2.0}
    found = by_table(rows_of(evaluation(tmp_path / "a", metrics=metrics)))

    def said(figure, table=("cSAE", "Table 1")):
        return found[(*table, figure)].cells()[-1]

    assert "where one mask is empty ours is the image's diagonal, the paper does not say" in said("ewd_hausdorff")
    assert "two empty masks have distance 0 in both" in said("ewd_hausdorff")
    assert "two empty masks have distance 0" not in said("ewd_cross_entropy")  # ours has no such rule
    assert "no such rule" in said("ewd_cross_entropy")
    assert '"trace" of the covariance matrix, which may mean variances; ours are standard dev' in said("gini_index")
    assert "diagonal of the covariance matrix, which may mean variances" in said(
        "effective_rank", ("SPU-Net", "Table II")
    )
    assert "variances" not in said("ewd")


def test_numbers_that_stand_in_the_text(tmp_path):
    row = by_table(rows_of(evaluation(tmp_path / "a")))["SPU-Net", "Section IV", "ged"]
    assert row.published == (0.327, 0.003)
    assert {
        "16 samples, theirs not said",
        "the paper does not say with which latent dimension",
        "± there: not said of what",
        "two empty masks have distance 0 in ours; the paper says so of the EWD, not of the GED",
    } <= set(row.differs)
    metrics = {"share_better_than_mean": 0.3, "dice_quantile_95": 0.6}
    rows = rows_of(evaluation(tmp_path / "b", "ssn_3d", "brats", metrics=metrics, num_samples=20))
    assert {row.figure: row.published for row in rows} == {
        "share_better_than_mean": (0.26, None),
        "dice_quantile_95": (0.703, None),
    }
    for row in rows:
        assert "20 samples, theirs 100" in row.differs
        assert "the paper does not say of which of its two low-rank models" in row.differs
        assert any(
            "averaged over the three lesion classes" in said and "ours counts it as 1" in said for said in row.differs
        )


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
