"""The parts of a report: what there is is shown, what is missing is left out, and no two pictures share an id."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from evaluation_folders import write_evaluation

from aleatoric.report import drawings, models, read_evaluations, report_sections
from aleatoric.report.models import pool
from aleatoric.statistics import few_patients

ALL = [
    *("summary", "tests", "energy", "calibration", "selection", "latent", "training", "figures", "provenance"),
]


@pytest.fixture(scope="module")
def three(three_models):
    return {section.anchor: section for section in report_sections(read_evaluations(three_models))}


@pytest.fixture
def quick(monkeypatch):
    """Without the drawing and with few resamples, which take most of the time."""
    monkeypatch.setattr(drawings, "figure_svg", lambda figure, name: f"<svg id='{name}'/>")
    monkeypatch.setattr(models, "_RESAMPLES", 100)


def pictures_of(sections):
    return [picture for section in sections for picture in section.pictures]


def test_every_part_is_there_in_its_order(three):
    assert list(three) == ALL
    assert all(re.fullmatch("[a-z-]+", anchor) for anchor in three)
    assert all(section.title for section in three.values())


def test_every_picture_is_told_in_words(three):
    pictures = pictures_of(three.values())
    assert len(pictures) == 16
    for picture in pictures:
        assert len(picture.caption) > 80 and picture.caption.endswith(".") and "{" not in picture.caption
        assert re.search(r"\d", picture.alt) and "nan" not in picture.alt and picture.alt.endswith(".")
    assert len({picture.alt for picture in pictures}) == 16


def test_no_two_elements_of_the_page_share_an_id(three):
    ids = [
        element.get("id")
        for picture in pictures_of(three.values())
        for element in ElementTree.fromstring(picture.svg).iter()
        if element.get("id")
    ]
    assert len(ids) > 100 and len(set(ids)) == len(ids)


def test_the_summary_names_data_and_the_best(three):
    words = " ".join(three["summary"].words)
    assert "3 models on discs (simulated discs): 24 cases of 8 patients, section testing, 8 samples each." in words
    assert "Only 8 patients" in words  # what the tests warn of
    assert re.search(r"By GED, (punet|ssn) has the best mean, 0\.\d{3}; its difference to .*(punet|ssn)", words)


def test_every_pair_has_a_verdict_in_words(three):
    words = three["tests"].words
    assert len(words) == 3 and all(sentence.startswith("GED of ") for sentence in words)
    assert any("is inside the noise" in sentence for sentence in words)
    assert [table.caption for table in three["tests"].tables[:2]] == ["Tests: GED", "Tests: EWD (1 - IoU)"]


def test_the_main_numbers_stand_in_the_alternative_text(three, three_models):
    metrics = [json.loads((folder / "metrics.json").read_text())["metrics"] for folder in three_models]
    alt = three["energy"].pictures[0].alt
    for one in metrics:
        assert f"2 E d(s,y) {2 * one['cross']:.3f} = raters {one['rater_diversity']:.3f}" in alt
        assert f"GED {one['ged']:.3f}" in alt
    curve = json.loads((three_models[0] / "metrics.json").read_text())["curves"]["reliability"]["disc"]
    pixels, predicted, observed = (np.array(curve[key], float) for key in ("pixels", "probability", "frequency"))
    error = np.nansum(np.abs(predicted - observed) * pixels) / pixels.sum()
    assert f"punet: weighted distance from the diagonal {error:.3f}" in three["calibration"].pictures[0].alt


def test_a_model_without_latent_vector_has_no_latent_picture(three):
    latent = [picture.alt for picture in three["latent"].pictures]
    assert len(latent) == 4 and not any("ssn" in alt for alt in latent)


def test_of_one_model_no_test_is_told(three_models, quick):
    sections = report_sections(read_evaluations(three_models[2:]))
    assert [section.anchor for section in sections] == [name for name in ALL if name not in ("tests", "latent")]
    assert sections[0].words[0].startswith("ssn on discs")
    assert not any(mark for section in sections for table in section.tables for row in table.marks for mark in row)


def test_what_is_missing_is_left_out(tmp_path, quick):
    def bare(record):
        kept = {"ewd": record["metrics"]["ewd"]}
        record.update(metrics=kept, curves={}, intervals={}, training=None, bootstrap={}, versions={})
        record["model"].update(checkpoint=None, checkpoint_sha256=None)

    folder = write_evaluation(tmp_path / "e", epochs=0, kept=0, change=bare)
    sections = report_sections(read_evaluations([folder]))
    assert [section.anchor for section in sections] == ["summary", "figures", "provenance"]
    assert pictures_of(sections) == []
    assert re.fullmatch(r"0\.\d{3}", sections[0].tables[0].rows[0][1])  # no interval


def test_no_curve_from_half_of_the_runs(cross_validation, tmp_path, quick):
    evaluations = read_evaluations([cross_validation / "punet"])
    evaluations[1].record["curves"].pop("presence")
    (model,) = pool(evaluations)
    assert drawings.presence_picture([model]) is None
    assert drawings.reliability_pictures([model])


def test_what_the_tests_warn_of_is_said_once(tmp_path, quick):
    warning = few_patients([f"p{i}" for i in range(8)])
    assert warning is not None
    change = {"one": lambda r: None, "two": lambda r: r["warnings"].append(warning)}
    folders = [write_evaluation(tmp_path / name, bundle=name, epochs=0, kept=0, change=change[name]) for name in change]

    def times():
        words = report_sections(read_evaluations(folders))[0].words
        return sum(sentence.startswith("Only 8 patients") for sentence in words)

    assert times() == 0  # the page's head says it
    said = " ".join(report_sections(read_evaluations(folders))[0].words)
    assert "Wilcoxon's test cannot" not in said
    shutil.rmtree(folders[1])
    folders[1] = write_evaluation(tmp_path / "two", bundle="two", epochs=0, kept=0)
    assert times() == 1


def test_models_of_other_data_are_said_apart(tmp_path, quick):
    other = lambda record: record["dataset"].update(name="pancreas", sha256={"labels.npy": "0"})  # noqa: E731
    folders = [
        write_evaluation(
            tmp_path / name, bundle=name, epochs=0, kept=0, change=other if name == "c" else lambda r: None
        )
        for name in "abc"
    ]
    words = report_sections(read_evaluations(folders))[0].words
    assert words[0].startswith("a, b on discs (") and words[1].startswith("c on pancreas (")
    assert any(re.match(r"By GED, (a|b) has the best mean, .* its difference to (a|b) is", word) for word in words)


def test_a_difference_of_single_trainings_is_one_between_patients(tmp_path, quick):
    folders = [
        write_evaluation(tmp_path / name, bundle=name, epochs=0, kept=0, noise=noise, cases=60, patients=20)
        for name, noise in (("near", 0.5), ("far", 6.0))
    ]
    words = " ".join(report_sections(read_evaluations(folders))[0].words)
    assert "By GED, near has the best mean" in words
    assert "outside the noise of other patients; what other trainings would change is not known." in words


def test_runs_are_taken_together(cross_validation, quick):
    sections = {section.anchor: section for section in report_sections(read_evaluations([cross_validation]))}
    assert list(sections) == [*ALL[:2], "runs", *ALL[2:]]
    assert [table.caption for table in sections["runs"].tables] == ["Folds and seeds", "Every training"]
    assert "2 models, 8 trainings together on discs" in sections["summary"].words[0]
    loss = sections["training"].pictures[0]
    assert loss.caption.endswith("A line is one training.")
    assert len(re.findall(r"0\.\d{3}", loss.alt.partition(";")[0])) == 4


def test_bins_of_several_runs_are_summed(cross_validation):
    evaluations = read_evaluations([cross_validation / "punet"])
    curves = [run.record["curves"]["reliability"]["disc"] for run in evaluations]
    count, predicted, _ = drawings._binned(curves, ("pixels", "probability", "frequency"))
    pixels = np.array([curve["pixels"] for curve in curves])
    np.testing.assert_allclose(count, pixels.sum(0))
    first = [i for i in range(15) if count[i]][1]
    total = sum(c["pixels"][first] * c["probability"][first] for c in curves if c["pixels"][first])
    assert predicted[first] == pytest.approx(total / count[first])
    assert np.isnan(predicted[count == 0]).all()


def test_more_models_than_a_picture_holds_are_named(tmp_path, quick):
    folders = [
        write_evaluation(tmp_path / f"m{i}", bundle=f"m{i}_segmentation", kept=0, epochs=2, cases=12) for i in range(8)
    ]
    sections = {section.anchor: section for section in report_sections(read_evaluations(folders))}
    for anchor in ("energy", "calibration", "selection", "training"):
        for picture in sections[anchor].pictures:
            assert picture.caption.endswith("Left out, because a picture holds 6 models: m6, m7."), picture.alt
    assert len(sections["summary"].tables[0].head) == 9


def test_of_classes_each_has_its_diagram(tmp_path, quick):
    def two(record):
        record["curves"]["reliability"]["core"] = record["curves"]["reliability"]["disc"]

    folder = write_evaluation(tmp_path / "e", kept=0, epochs=0, change=two)
    pictures = drawings.reliability_pictures(pool(read_evaluations([folder])))
    assert [picture.alt.partition(".")[0] for picture in pictures] == [
        f"Reliability diagram of the class {name}" for name in ("disc", "core")
    ]
    assert len({picture.svg for picture in pictures}) == 2
