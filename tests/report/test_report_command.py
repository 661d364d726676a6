"""``aleatoric report``: where the page goes, what is printed, one sentence for bad input."""

from __future__ import annotations

import shutil

import pytest
from evaluation_folders import write_evaluation

from aleatoric import cli
from aleatoric.errors import InputError
from aleatoric.report import Section, command


@pytest.fixture
def no_sections(monkeypatch):
    """The sections have tests of their own, and take their time."""
    monkeypatch.setattr(command, "report_sections", lambda evaluations: [Section("one", "One", [], [], [])])


@pytest.fixture
def folder(tmp_path, three_models):
    return shutil.copytree(three_models[0], tmp_path / "evaluation")


def test_the_whole_report(folder, capsys):
    assert cli.main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!DOCTYPE html>") and "<title>punet on discs</title>" in page
    printed = capsys.readouterr().out
    assert "GED 0." in printed and "[0." in printed and "24 cases" in printed
    assert str(folder / "report.html") in printed.splitlines()[-1]


def test_several_folders_a_title_and_a_place(no_sections, three_models, tmp_path, capsys):
    out = tmp_path / "new" / "page.html"
    words = ["report", *map(str, three_models), "--out", str(out), "--cases", "3", "--title", "Three"]
    assert cli.main(words) == 0
    page = out.read_text(encoding="utf-8")
    assert "<title>Three</title>" in page and page.count("<article") == 3
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]  # nothing half written beside it
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[:3]] == [
        "punet",
        "generalized_punet:mixture_full",
        "ssn",
    ]
    assert cli.main(["report", str(three_models[0]), "--out", str(out), "--cases", "0"]) == 0
    assert "<article" not in out.read_text(encoding="utf-8")


def test_runs_of_one_model_are_one_line(no_sections, cross_validation, tmp_path, capsys):
    assert cli.main(["report", str(cross_validation), "--out", str(tmp_path / "r.html"), "--cases", "1"]) == 0
    first, second, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("punet ") and "4 runs, 24 cases" in first and second.startswith("spunet ")


def test_warnings_are_printed(no_sections, tmp_path, capsys):
    write_evaluation(tmp_path, kept=0, change=lambda record: record["warnings"].append("few patients"))
    assert cli.main(["report", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "warning: Few patients" in printed and "warning: punet: it has no cases.npz" in printed


def test_a_page_is_replaced_whole_or_not_at_all(no_sections, folder, monkeypatch, capsys):
    (folder / "report.html").write_text("before")

    def fail(*args):
        raise InputError("broken: mend it.")

    monkeypatch.setattr(command, "render", fail)
    assert cli.main(["report", str(folder)]) == 2
    assert (folder / "report.html").read_text() == "before"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nowhere"], "is no folder"),
        (["."], "there is no metrics.json"),
        (["EVALUATION", "--cases", "-1"], "found --cases -1, expected 0 or more"),
        (["EVALUATION", "--out", "."], "found the folder ., expected a file"),
        (["EVALUATION", "--out", "file/x.html"], "cannot be written"),
    ],
)
def test_bad_input_is_one_sentence(no_sections, folder, tmp_path, monkeypatch, capsys, words, said):
    away = tmp_path / "away"
    away.mkdir()
    (away / "file").write_text("")
    monkeypatch.chdir(away)
    assert cli.main(["report", *(str(folder) if word == "EVALUATION" else word for word in words)]) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(error) == 1 and said in error[0]
