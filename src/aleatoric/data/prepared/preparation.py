"""What every ``aleatoric prepare`` shares: options, processes, resuming, what went wrong, the report, the exit code.

A source is a function ``make(task) -> Patches`` and a mapping of units (a case, a scan) to tasks; all else is here.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import numpy as np

from ...errors import InputError
from .format import layout
from .parallel import each_result
from .splits import RandomSplit
from .target import CannotWriteError
from .writer import PreparedDatasetWriter

__all__ = [
    "EXIT_INCOMPLETE",
    "OutputOptions",
    "Patches",
    "add_output_arguments",
    "conclude",
    "output_options",
    "prepare_units",
    "random_split",
    "writer_options",
]

EXIT_INCOMPLETE = 3  #: a data set was made, but something that belongs to it could not be used
_UNITS_PER_PROCESS = 4  # a process takes longer to start than a few cases to read
_SHOWN = 10  # sentences that are printed; dataset.json has more

Task = TypeVar("Task")


class OutputOptions(TypedDict, total=False):
    """Keywords that every preparation takes beside its own.

    Keys:
        workers: processes; ``None``: one per core. 1 stays in this process.
        seed, test_fraction, folds: of the split, see :class:`.splits.RandomSplit`.
        overwrite: replace a prepared data set (only when the new one is complete).
        command: the command line, for dataset.json.
    """

    workers: int | None
    seed: int
    test_fraction: float
    folds: int
    overwrite: bool
    command: str | None


@dataclass
class Patches:
    """What a source makes of one unit."""

    images: list[np.ndarray] = field(default_factory=list)  # each (C, *S)
    labels: list[np.ndarray] = field(default_factory=list)  # each (R, *S)
    rater_valid: list[Any] = field(default_factory=list)  # each (R,) bool
    cases: list[Mapping[str, Any]] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    excluded: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what was done that a reader should know; equal ones are counted

    def add(self, image: np.ndarray, label: np.ndarray, rater_valid: Any, case: Mapping[str, Any]) -> None:
        """A patch: (C, *S), (R, *S), (R,) and its row of cases.csv (``case``, ``patient``, ``slice``, more)."""
        self.images.append(image)
        self.labels.append(label)
        self.rater_valid.append(rater_valid)
        self.cases.append(case)

    def skip(self, reason: str, sentence: str | None = None) -> None:
        """Something that belongs to the data set could not be used: a count, and a sentence that names the file."""
        self.skipped[reason] += 1
        if sentence:
            self.problems.append(sentence)

    def exclude(self, reason: str) -> None:
        """Something is left out by the data set's own rule."""
        self.excluded[reason] += 1


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments for :class:`OutputOptions`."""
    parser.add_argument("--workers", type=int, metavar="N", help="processes; default: as many as there are cores")
    parser.add_argument("--seed", type=int, default=0, help="of the split by patient (default: %(default)s)")
    parser.add_argument(
        "--test-fraction", type=float, default=0.2, help="share of patients for testing (default: %(default)s)"
    )
    parser.add_argument("--folds", type=int, default=3, help="folds among the other patients (default: %(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="replace a prepared data set at OUT")


def output_options(args: argparse.Namespace) -> OutputOptions:
    """What :func:`add_output_arguments` read, as keywords."""
    return OutputOptions(
        workers=args.workers,
        seed=args.seed,
        test_fraction=args.test_fraction,
        folds=args.folds,
        overwrite=args.overwrite,
        command=getattr(args, "command", None),
    )


def random_split(output: OutputOptions, by: str = "patient") -> RandomSplit:
    """The split that the options ask for."""
    return RandomSplit(output.get("seed", 0), output.get("test_fraction", 0.2), output.get("folds", 3), by)


def writer_options(output: OutputOptions) -> dict[str, Any]:
    """Those options that go to the writer as they are."""
    return {"overwrite": output.get("overwrite", False), "command": output.get("command")}


def prepare_units(
    writer: PreparedDatasetWriter,
    make: Callable[[Task], Patches],
    tasks: Mapping[str, Task],
    *,
    label: str = "cases",
    workers: int | None = None,
    report: Mapping[str, Any] | None = None,
) -> Path:
    """Make every unit that is not stored yet, then the data set.

    A unit that raises :class:`InputError` is reported and left out, and the next run tries it again; all others go on.

    Args:
        writer: where to.
        make: of module level (it is sent to other processes); reads one unit.
        tasks: unit -> what ``make`` is called with; small, can be pickled.
        label: what a unit is called, in the plural.
        workers: processes; ``None``: one per core.
        report: more to say in dataset.json's report; its ``skipped``, ``excluded`` and ``problems`` are added to.

    Returns:
        the data set's folder.

    Raises:
        InputError: units of other raw files are stored, no patch at all, a process killed, no space left, fewer
            than one worker.
    """
    if workers is not None and workers < 1:
        raise InputError(f"{workers} workers found, at least 1 expected; leave out --workers for one per core.")
    told = dict(report or {})
    writer.expect(tasks)
    waiting = [(unit, task) for unit, task in tasks.items() if not writer.has(unit)]
    processes = min(workers or os.cpu_count() or 1, -(-len(waiting) // _UNITS_PER_PROCESS))
    store = partial(_store, writer, make)
    failed = [
        sentence
        for sentence in each_result(store, waiting, processes, label, done=len(tasks) - len(waiting))
        if sentence is not None
    ]
    failed.sort()  # processes finish in any order
    if failed:
        told["skipped"] = Counter(told.get("skipped", {})) + Counter({f"{label} that cannot be read": len(failed)})
        told["problems"] = [*told.get("problems", []), *failed]
    return writer.finish({"units": label, "read": len(tasks) - len(failed), **told})


def _store(writer: PreparedDatasetWriter, make: Callable[[Task], Patches], named: tuple[str, Task]) -> str | None:
    unit, task = named
    try:
        patches = make(task)
        lists = {"images": patches.images, "labels": patches.labels, "rater_valid": patches.rater_valid}
        empty = layout(writer.signature, 0)
        arrays = {key: np.stack(values) if values else np.zeros(*empty[key]) for key, values in lists.items()}
        writer.write(
            unit,
            **arrays,
            cases=patches.cases,
            skipped=patches.skipped,
            excluded=patches.excluded,
            problems=patches.problems,
            notes=patches.notes,
        )
    except CannotWriteError:
        raise  # no fault of this unit: it ends the run
    except InputError as error:
        return str(error)
    return None


def conclude(out_dir: Path) -> int:
    """Print the report of a finished data set.

    Returns:
        the exit code: 0 where everything could be used, else :data:`EXIT_INCOMPLETE`.
    """
    from .reading import read_info

    info = read_info(out_dir)  # not load_dataset: it would map the pixels of the whole set into memory
    for line in _report_lines(out_dir, info):
        print(line)
    return EXIT_INCOMPLETE if info["report"].get("skipped") else 0


def _report_lines(out_dir: Path, info: Mapping[str, Any]) -> Iterator[str]:
    report = info["report"]
    kind = "simulated patches" if report.get("simulated") else "patches"
    raters = f"{info['raters']} rater{'' if info['raters'] == 1 else 's'}"
    read = f"{report['read']} {report['units']}"
    yield f"{out_dir}: {info['count']} {kind} of {info['patients']} patients from {read}, {raters}"
    for note in report.get("notes", []):
        yield f"  note: {note}"
    for key, word in (("excluded", "left out by rule"), ("skipped", "could not be used")):
        for reason, count in report.get(key, {}).items():
            yield f"  {word}: {count} x {reason}"
    problems = report.get("problems", [])
    for sentence in problems[:_SHOWN]:
        yield f"  {sentence}"
    if report.get("problem_count", 0) > _SHOWN:
        kept = " (dataset.json lists more)" if len(problems) > _SHOWN else ""
        yield f"  ... and {report['problem_count'] - _SHOWN} more{kept}"
