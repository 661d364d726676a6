"""Our numbers beside those that the papers print, with what differs in the protocol said in the same row.

    python tools/compare_with_papers.py RUN_DIR [RUN_DIR ...] [--out table.md] [--beside lidc]

A RUN_DIR is the folder of an evaluation (metrics.json), or any above some, such as that of tools/cross_validate.py:
folds and seeds of one model are one row, mean ± standard deviation of all runs; a single run has its interval over
patients. Compared is what has a name in common, the bundle (with its variant) and the data set; --beside takes the data
sets given for another, and the row says so. What differs stands in every row, the gravest first. The papers' numbers
and protocols are tools/papers/published.json; ours come from metrics.json, run.json, fold.json and training.csv, and of
what they do not tell nothing is said.

--out FILE.md writes the table as Markdown, and FILE.csv beside it.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aleatoric.errors import InputError
from aleatoric.files import write_atomically
from aleatoric.report.collect import read_evaluations
from aleatoric.statistics import Spread
from papers import DATASETS, Ours, Published, differences, gather, published_rows

HEAD = ("figure", "ours", "published", "model there", "paper", "what differs")
_TERMINAL = (0, 1, 2, 5)  # of HEAD, the others stand in the heading
_WIDTH, _NARROWEST = 170, 60  # of the table on a terminal, and of its last column


@dataclass(frozen=True)
class Row:
    """One of our numbers beside one of a paper's."""

    ours: Ours
    figure: str
    spread: Spread
    interval: tuple[float, float] | None  # over patients, of a single run
    paper: Published
    published: tuple[float, float | None]
    differs: list[str]  # the gravest first

    def cells(self) -> list[str]:
        """As in :data:`HEAD`."""
        mine = f"{float(self.spread.mean):.3f}"
        if self.spread.runs > 1:
            mine += f" ± {float(self.spread.deviation):.3f}"
        elif self.interval is not None:
            mine += f" [{self.interval[0]:.3f}, {self.interval[1]:.3f}]"
        value, deviation = self.published
        theirs = f"{value:.3f}" + ("" if deviation is None else f" ± {deviation:.3f}")
        where = f"{self.paper.paper}, {self.paper.table}"
        return [self.figure, mine, theirs, self.paper.name, where, "; ".join(self.differs)]


def compare(ours: Sequence[Ours], published: Sequence[Published], beside: str | None = None) -> list[Row]:
    """What both have: of each line of a paper that is meant, every figure that ours have too."""
    rows = []
    for one in ours:
        known = beside if beside is not None else DATASETS.get(one.dataset, (one.dataset, ""))[0]
        for line in _meant(one, [line for line in published if line.dataset == known]):
            for figure, value in line.figures.items():
                spread = one.spread(figure)
                if spread is not None:
                    interval = (one.record.get("intervals") or {}).get(figure)
                    bounds = None if interval is None or None in interval else (interval[0], interval[1])
                    differs = differences(one, line, figure, spread, bounds)
                    rows.append(Row(one, figure, spread, bounds, line, value, differs))
    return rows


def _meant(one: Ours, lines: Iterable[Published]) -> list[Published]:
    """Of the lines of a table that are this model, the one with most of its settings; the first if none is known."""
    tables: dict[tuple[str, str], list[Published]] = {}
    for line in lines:
        if one.name in line.models or "*" in line.models:
            tables.setdefault((line.paper, line.table), []).append(line)

    def unlike(line: Published) -> int:
        return sum(one.settings.get(key, value) != value for key, value in line.settings.items())

    return [min(group, key=unlike) for group in tables.values()]


def nothing(ours: Sequence[Ours], published: Sequence[Published]) -> str:
    """Why there is no row."""
    mine = ", ".join(dict.fromkeys(f"{one.name} on {one.dataset}" for one in ours))
    models = ", ".join(dict.fromkeys(model for line in published for model in line.models if model != "*"))
    datasets = ", ".join(dict.fromkeys(line.dataset for line in published))
    return (
        f"nothing to compare: no paper has numbers for {mine}. The papers have {models} on {datasets}; "
        f"--beside, with one of these data sets, sets numbers of another one beside them."
    )


def sections(rows: Sequence[Row]) -> list[tuple[str, list[list[str]]]]:
    """For each of our models on a data set beside a paper's table: heading and rows."""
    groups: dict[str, list[list[str]]] = {}
    for row in rows:
        ours, paper = row.ours, row.paper
        heading = f"{ours.label} on {ours.dataset} beside {paper.name} ({paper.paper}, {paper.table})"
        groups.setdefault(heading, []).append(row.cells())
    return list(groups.items())


def text_table(rows: Sequence[Row]) -> str:
    """For a terminal: without the columns that the heading says, the last one broken into lines."""
    lines = []
    for heading, cells in sections(rows):
        table = [[line[column] for column in _TERMINAL] for line in [list(HEAD), *cells]]
        widths = [max(len(line[column]) for line in table) for column in range(len(_TERMINAL) - 1)]
        last = max(_WIDTH - sum(widths) - 2 * len(widths), _NARROWEST)
        lines += ["", heading, ""]
        for line in [table[0], ["-" * width for width in [*widths, last]], *table[1:]]:
            wrapped = textwrap.wrap(line[-1], last) or [""]
            front = "  ".join(cell.ljust(width) for cell, width in zip(line, widths))
            lines += [f"{front if not number else ' ' * len(front)}  {part}" for number, part in enumerate(wrapped)]
    return "\n".join(lines[1:]) + "\n"


def markdown_table(rows: Sequence[Row]) -> str:
    """The same as Markdown, with the papers' titles."""
    lines = ["# Our numbers beside the papers'", ""]
    for heading, cells in sections(rows):
        lines += [f"## {heading}", ""]
        for line in [list(HEAD), ["---"] * len(HEAD), *cells]:
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |")
        lines.append("")
    lines += [f"- {paper}: {title}" for paper, title in {row.paper.paper: row.paper.reference for row in rows}.items()]
    return "\n".join(lines) + "\n"


def csv_table(rows: Sequence[Row]) -> str:
    """A line per number, for programs."""
    columns: dict[str, Callable[[Row], Any]] = {
        "model": lambda row: row.ours.label,
        "dataset": lambda row: row.ours.dataset,
        "figure": lambda row: row.figure,
        "ours": lambda row: _number(row.spread.mean),
        "deviation": lambda row: _number(row.spread.deviation),
        "low": lambda row: _number(row.interval[0]) if row.interval and row.spread.runs == 1 else "",
        "high": lambda row: _number(row.interval[1]) if row.interval and row.spread.runs == 1 else "",
        "runs": lambda row: row.spread.runs,
        "published": lambda row: _number(row.published[0]),
        "published_deviation": lambda row: "" if row.published[1] is None else _number(row.published[1]),
        "paper": lambda row: row.paper.paper,
        "table": lambda row: row.paper.table,
        "paper_model": lambda row: row.paper.name,
        "differs": lambda row: "; ".join(row.differs),
    }
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([value(row) for value in columns.values()] for row in rows)
    return text.getvalue()


def _number(value: Any) -> str:
    return "" if math.isnan(value) else f"{float(value):.6g}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 a table, 1 nothing to compare, 2 bad input."""
    published = published_rows()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dirs", nargs="+", type=Path, metavar="RUN_DIR", help="evaluations, or folders above them")
    parser.add_argument("--out", type=Path, help="a Markdown file to write, and a CSV file beside it")
    parser.add_argument("--beside", choices=sorted({line.dataset for line in published}), help="a paper's data set")
    options = parser.parse_args(arguments)
    try:
        if options.out is not None and options.out.suffix != ".md":
            raise InputError(f"--out {options.out} found, a name that ends with .md expected: the CSV is beside it.")
        ours = gather(read_evaluations(options.run_dirs))
        rows = compare(ours, published, options.beside)
        if not rows:
            print(nothing(ours, published))
            return 1
        print(text_table(rows), end="")
        if options.out is not None:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(options.out, markdown_table(rows))
            write_atomically(options.out.with_suffix(".csv"), csv_table(rows))
            print(f"\nwrote {options.out} and {options.out.with_suffix('.csv')}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
