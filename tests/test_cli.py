"""The command line: one sentence for bad input, an exit code for every end, nothing imported that is not used."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

import aleatoric.data.datalist.command
import aleatoric.show  # noqa: F401
from aleatoric import __version__, cli
from aleatoric.errors import InputError


@pytest.fixture
def command(monkeypatch):
    """A command ``prepare test NUMBER`` whose ``run`` the test supplies."""

    def add(run):
        module = types.ModuleType("aleatoric._test_command")
        module.add_arguments = lambda parser: parser.add_argument("number", type=int)
        module.run = run
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(
            cli, "COMMANDS", [*cli.COMMANDS, cli.Command(("prepare", "test"), "._test_command", "for this test")]
        )

    return add


def test_runs_a_command(command):
    command(lambda args: args.number + 1)
    assert cli.main(["prepare", "test", "0"]) == 1


def test_bad_input_is_one_sentence(command, capsys):
    def run(args):
        raise InputError("3 found, 4 expected; add one.")

    command(run)
    assert cli.main(["prepare", "test", "0"]) == 2
    captured = capsys.readouterr()
    assert captured.err == "error: 3 found, 4 expected; add one.\n" and captured.out == ""


def test_interrupt_says_how_to_go_on(command, capsys):
    def run(args):
        raise KeyboardInterrupt

    command(run)
    assert cli.main(["prepare", "test", "0"]) == 130
    assert "run it again to go on" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["show", "set"], ["prepare", "datalist", "a", "b", "--dry-run"], ["prepare", "datalist", "a", "b", "--dry"]],
)
def test_what_keeps_nothing_is_just_interrupted(monkeypatch, capsys, words):
    def stop(args):
        raise KeyboardInterrupt

    for module in ("aleatoric.show", "aleatoric.data.datalist.command"):
        monkeypatch.setattr(f"{module}.run", stop)
    assert cli.main(words) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_our_own_defects_keep_their_trace(command):
    command(lambda args: {}["missing"])
    with pytest.raises(KeyError):
        cli.main(["prepare", "test", "0"])


def test_version_and_help(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"aleatoric {__version__}\n"
    assert cli.main(["--help"]) == 0
    assert "prepare" in capsys.readouterr().out
    assert cli.main(["prepare", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(command.words[1] in text for command in cli.COMMANDS if command.words[0] == "prepare")


@pytest.mark.parametrize("words", [[], ["prepare"], ["prepare", "nothing"], ["prepare", "lidc"], ["--nothing"]])
def test_wrong_usage_is_exit_code_2(words, capsys):
    assert cli.main(words) == 2
    assert "usage: aleatoric" in capsys.readouterr().err


def test_help_imports_no_command():
    code = (
        "import sys; from aleatoric.cli import main; main(['--help']);"
        "sys.exit(any(m in sys.modules for m in ('numpy', 'torch', 'aleatoric.data')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_command_has_its_module():
    """A command in the table without ``add_arguments`` and ``run`` would fail only when it is typed."""
    import importlib

    for command in cli.COMMANDS:
        module = importlib.import_module(command.module, "aleatoric")
        assert callable(module.add_arguments) and callable(module.run)
