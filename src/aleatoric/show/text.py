"""A prepared data set in lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..data import PreparedDataset
from ..data.prepared.reading import SECTIONS
from ..errors import InputError
from .labels import LabelFigures, label_figures

__all__ = ["describe", "section_positions"]

_SAMPLE = 1 << 24  # intensities that the quantiles are of
_QUANTILES = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
_SENTENCES = 10  # of the report; dataset.json has more


def describe(dataset: PreparedDataset, section: str = "all", fold: int = 0) -> Iterator[str]:
    """The data set in lines of text.

    Args:
        dataset: the data set.
        section: the patches that raters and intensities are told of: ``training``, ``validation``, ``testing``,
            ``all``.
        fold: of training and validation.

    Raises:
        InputError: no such section or fold; no patch in it.
    """
    positions = section_positions(dataset, section, fold)
    info, size = dataset.info, " x ".join(str(length) for length in dataset.labels.shape[2:])
    low, high = dataset.intensity_window
    facts = [
        ("data set", str(info.get("name", dataset.root.name))),
        ("source", str(info.get("source", "not said"))),
        ("made by", str(info.get("command") or "a command that was not recorded")),
        ("patches", f"{len(dataset)} of {_patients(dataset, np.arange(len(dataset)))} patients"),
        ("patch", f"{size} {'pixels' if dataset.labels.ndim == 4 else 'voxels'}, {dataset.images.dtype}"),
        *_spacing(dataset.cases),
        ("channels", ", ".join(f"{number} {name}" for number, name in enumerate(info["channels"]))),
        ("classes", ", ".join(f"{number} {name}" for number, name in enumerate(info["classes"]))),
        ("rater slots", str(info["raters"])),
        ("split", ", ".join(f"{k} {v}" for k, v in info["folds"].items() if k != "split_hash")),
    ]
    yield from _table(facts)

    yield ""
    table: list[tuple[str, ...]] = [("patches (patients)", *SECTIONS)]
    for number in range(int(info["folds"]["folds"])):
        parts = [dataset.indices(name, number) for name in SECTIONS]
        table.append((f"fold {number}", *(f"{len(part)} ({_patients(dataset, part)})" for part in parts)))
    yield from _table(table, right=True)

    yield ""
    which = "all patches" if section == "all" else f"{section}, fold {fold}"
    yield f"raters ({which}: {len(positions)})"
    yield from _table(_rater_facts(label_figures(dataset, positions), info["classes"]), indent=2)

    yield ""
    sample = _sample(dataset, positions)
    yield f"intensities (of {len(sample)} patches); loaders map {low:g}..{high:g} to 0..1"
    yield from _table(_intensities(dataset, sample), indent=2, right=True)

    yield ""
    yield "report of the preparation"
    yield from _table(_report(info.get("report")), indent=2)


def section_positions(dataset: PreparedDataset, section: str, fold: int = 0) -> np.ndarray:
    """Positions of a section's patches, ``all`` being a section too.

    Raises:
        InputError: no such section or fold; no patch in it.
    """
    chosen = dataset.indices("training" if section == "all" else section, fold)  # checks the fold, too
    if section == "all":
        return np.arange(len(dataset), dtype=np.int64)
    if not len(chosen):
        raise InputError(
            f"found no patch in section {section} of {dataset.root}, expected some; choose another section"
        )
    return chosen


def _patients(dataset: PreparedDataset, positions: np.ndarray) -> int:
    return len({dataset.cases[position]["patient"] for position in positions})


def _spacing(cases: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, str]]:
    """A line for each column of cases.csv that is called spacing or spacing_..."""
    for column in [name for name in cases[0] if name and name.lower().startswith("spacing")]:
        texts = [row[column] for row in cases if row[column]]
        try:
            values = np.array([float(text) for text in texts])
        except ValueError:
            kinds = sorted(set(texts))
            yield column, ", ".join(kinds[:4]) + (f" and {len(kinds) - 4} more" if len(kinds) > 4 else "")
            continue
        if len(values):
            same = values.min() == values.max()
            spans = "" if same else f" ({values.min():g} to {values.max():g})"
            yield column, f"{np.median(values):g} mm{spans}"


def _rater_facts(figures: LabelFigures, classes: Sequence[str]) -> Iterator[tuple[str, str]]:
    masks = figures.slots - figures.missing
    yield "missing raters", f"{_share(figures.missing, figures.slots)} of {figures.slots} slots"
    yield "empty masks", f"{_share(figures.empty, masks)} of {masks} masks"
    total = int(figures.drew.sum())
    for number, patches in enumerate(figures.drew):
        if patches or len(figures.drew) <= 9:
            yield (
                f"patches that {number} rater{'s' * (number != 1)} drew on",
                f"{patches:>7d}  {_share(patches, total):>6}",
            )
    for name, pixels, occurs in zip(classes, figures.pixels, figures.occurs):
        yield f"class {name}", f"{pixels:.3%} of the pixels, in {occurs:.1%} of the masks"
    for words, mean, patches in (
        ("mean 1 - IoU, distinct pairs", figures.distinct, figures.distinct_patches),
        ("mean 1 - IoU, with self-pairs", figures.with_self, figures.with_self_patches),
    ):
        least = "two raters or more" if "distinct" in words else "a rater"
        yield words, f"{mean:.4f} (patches with {least}: {patches})" if patches else f"no patch with {least}"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "0"


def _sample(dataset: PreparedDataset, positions: np.ndarray) -> np.ndarray:
    """Patches evenly from all of the section, as many as memory is given for."""
    count = min(len(positions), 256, max(1, _SAMPLE // int(np.prod(dataset.images.shape[1:]))))
    return positions[np.linspace(0, len(positions) - 1, count).round().astype(int)]


def _intensities(dataset: PreparedDataset, sample: np.ndarray) -> Iterator[tuple[str, ...]]:
    low, high = dataset.intensity_window
    yield ("quantile", *(f"{q:.0%}" for q in _QUANTILES), "below", "above")
    for number, name in enumerate(dataset.info["channels"]):
        values = dataset.images[sample, number]
        found = [f"{value:.5g}" for value in np.quantile(values, _QUANTILES)]
        yield (str(name), *found, f"{(values < low).mean():.1%}", f"{(values > high).mean():.1%}")


def _report(report: Any) -> Iterator[tuple[str, str]]:
    report = dict(report) if isinstance(report, Mapping) else {}
    if "read" in report:
        yield "read", f"{report.pop('read')} {report.pop('units', '')}".strip()
    whole = True
    for key, words in (("excluded", "left out by rule"), ("skipped", "could not be used")):
        reasons = report.pop(key, None)
        for reason, count in reasons.items() if isinstance(reasons, Mapping) else ():
            whole = False
            yield words, f"{count} x {reason}"
    if whole:
        yield "left out", "nothing"
    total = report.pop("problem_count", None)
    for key, value in report.items():
        if not isinstance(value, list):
            yield str(key), str(value)
            continue
        for sentence in value[:_SENTENCES]:
            yield str(key), str(sentence)
        more = (total if key == "problems" and isinstance(total, int) else len(value)) - _SENTENCES
        if more > 0:
            yield str(key), f"... and {more} more; dataset.json lists {len(value)}"


def _table(rows: Any, indent: int = 0, right: bool = False) -> Iterator[str]:
    """Rows of words in columns; ``right`` aligns all but the first column at the right."""
    rows = [tuple(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows)]
    for first, *others in rows:
        cells = [f"{text:>{width}}" if right else text for text, width in zip(others, widths[1:])]
        yield " " * indent + "  ".join([f"{first:<{widths[0]}}", *cells]).rstrip()
