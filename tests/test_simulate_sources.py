"""``tools/simulate_sources.py``: says what it does, plants what the dry run shall find, ends in a sentence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import simulate_sources
from simulated import datalist


def run(*words: object) -> int:
    return simulate_sources.main([str(word) for word in words])


@pytest.mark.parametrize("source", ["kohl", "lidc_pickle", "datalist"])
def test_a_line_for_every_case(tmp_path, capsys, source):
    assert run(tmp_path / "raw", "--source", source, "--cases", 3) == 0
    captured = capsys.readouterr()
    assert len(captured.err.splitlines()) == 3 and "next: aleatoric prepare" in captured.out


def test_a_line_for_every_case_of_every_challenge(tmp_path, capsys, monkeypatch):
    from simulated import qubiq

    monkeypatch.setattr(qubiq, "DATASETS", {name: qubiq.DATASETS[name] for name in ("brain-growth", "kidney")})
    assert run(tmp_path / "raw", "--source", "qubiq", "--cases", 2) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 * 3 and sum("kidney" in line for line in lines) == 3


def test_defects_are_planted_for_the_dry_run(tmp_path, capsys):
    assert run(tmp_path / "raw", "--source", "datalist", "--defects") == 0
    assert set(json.loads((tmp_path / "raw" / "PLANTED.json").read_text()).values()) == set(datalist.DEFECTS)
    assert "--dry-run" in capsys.readouterr().out
    assert run(tmp_path / "sound", "--source", "datalist", "--cases", 2) == 0
    assert not json.loads((tmp_path / "sound" / "PLANTED.json").read_text())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["new", "--source", "kohl", "--defects"], "--source datalist expected"),
        (["new", "--source", "kohl", "--cases", "0"], "1 or more expected"),
        (["new", "--source", "kohl", "--seed", "-1"], "0 or more expected"),
        (["file", "--source", "kohl"], "a new folder expected"),
        (["file/deeper", "--source", "kohl"], "cannot be written"),
        ([".", "--source", "kohl"], "is not empty"),
    ],
)
def test_bad_input_is_a_sentence(tmp_path, monkeypatch, capsys, words, sentence):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    assert run(*words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and sentence in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_interrupt_is_a_sentence(tmp_path, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(datalist, "write", stop)
    assert run(tmp_path / "raw", "--source", "datalist") == 130
    assert capsys.readouterr().err.startswith("interrupted: ")
