"""The command ``aleatoric``.

A command is one line in :data:`COMMANDS` and a module with two functions, ``add_arguments(parser)`` and
``run(args) -> exit code``. Only the module of the command in use is imported, so ``--help`` is instant and no command
pays for the libraries of another.

Exit codes: 0 done; 3 done, but something could not be used (the report says what); 2 bad input or usage, one sentence
on stderr that begins with ``error:``; 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

from . import __version__
from .errors import InputError

__all__ = ["COMMANDS", "Command", "main"]


class Command(NamedTuple):
    """What is typed, the module that does it (relative to this package), and its line in ``--help``."""

    words: tuple[str, ...]
    module: str
    help: str


COMMANDS = [
    Command(("prepare", "lidc"), ".data.lidc.command", "raw LIDC-IDRI DICOM (CT of lung nodules, four raters)"),
    Command(
        ("prepare", "kohl"), ".data.lidc.kohl", "LIDC-IDRI as PNG crops, as the hierarchical PU-Net was released with"
    ),
    Command(("prepare", "pickle"), ".data.lidc.pickled", "LIDC-IDRI as the pickle of 15,096 slices, read safely"),
    Command(
        ("prepare", "qubiq"), ".data.qubiq.command", "the QUBIQ challenges 2020 and 2021 (NIfTI, two to seven raters)"
    ),
    Command(
        ("prepare", "brats"), ".data.brats.command", "the BraTS challenge (brain tumours in 3D MR, four sequences)"
    ),
    Command(
        ("prepare", "datalist"),
        ".data.datalist.command",
        "your own images: a MONAI datalist with a list of labels each",
    ),
    Command(
        ("prepare", "phantom"), ".data.phantom.command", "simulated CT around LIDC's real contours: needs no images"
    ),
    Command(("show",), ".show", "a prepared data set in numbers and a picture"),
    Command(("inspect",), ".inspection", "a trained network's latent space and samples in pictures"),
    Command(("report",), ".report.command", "evaluated models on one page: numbers, tests, pictures, every case"),
]

_GROUPS = {"prepare": "turn raw images and their raters' masks into a prepared data set"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: words after ``aleatoric``; ``None``: those of this process.

    Returns:
        the exit code.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    resumes = False  # whether what was finished is kept
    try:
        args = _parser(words).parse_args(words)
        resumes = words[0] == "prepare" and not getattr(args, "dry_run", False)
        args.command = shlex.join(["aleatoric", *words])
        return int(args.run(args))
    except SystemExit as stop:  # argparse: 0 after --help and --version, 2 after wrong usage
        return stop.code if isinstance(stop.code, int) else 2
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        how = ": what is finished is kept, run it again to go on" if resumes else ""
        print(f"interrupted{how}", file=sys.stderr)
        return 130


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of every command, with the arguments of the one that ``words`` begin with."""
    parser = argparse.ArgumentParser(prog="aleatoric", description=(sys.modules[__package__].__doc__ or "").strip())
    parser.add_argument("--version", action="version", version=f"aleatoric {__version__}")
    top = parser.add_subparsers(metavar="COMMAND", required=True)
    groups: dict[str, Any] = {}
    for command in COMMANDS:
        place = top
        if len(command.words) == 2:
            group = command.words[0]
            if group not in groups:
                about = _GROUPS[group]
                groups[group] = top.add_parser(group, help=about, description=about).add_subparsers(
                    metavar="SOURCE", required=True
                )
            place = groups[group]
        own = place.add_parser(command.words[-1], help=command.help, description=command.help)
        if tuple(words[: len(command.words)]) == command.words:
            module = importlib.import_module(command.module, __package__)
            module.add_arguments(own)
            own.set_defaults(run=module.run)
    return parser


if __name__ == "__main__":
    sys.exit(main())
