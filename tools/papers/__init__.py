"""The papers' tables as data, published.json, each number with the table that it stands in."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Published", "published_rows"]


@dataclass(frozen=True)
class Published:
    """One line of one table: a model on a data set.

    Attributes:
        paper, reference, table: where it stands.
        name: the model as the paper calls it.
        models: our BUNDLE or BUNDLE:VARIANT that is this model; ``*``: a number of the data, whatever the model.
        dataset: ours, by the name in dataset.json.
        figures: name in metrics.json -> the number, and the deviation beside it if there is one; scores of 0 to 1.
        settings: what makes this line and not its neighbour; the first line of a model is the one that is meant
            where nothing is known.
        samples: per image.
        folds: over which the number is a mean; 1: one split.
        spread: what the deviation is of.
        split: what is known about training and test data.
        empty: convention on empty masks, where it is known.
        epochs: at most so many, where it is known.
    """

    paper: str
    reference: str
    table: str
    name: str
    models: tuple[str, ...]
    dataset: str
    figures: Mapping[str, tuple[float, float | None]]
    settings: Mapping[str, Any]
    samples: int
    folds: int
    spread: str
    split: str
    empty: str | None
    epochs: int | None


def published_rows() -> list[Published]:
    """All lines, in the order of the file."""
    content = json.loads((Path(__file__).parent / "published.json").read_text(encoding="utf-8"))
    rows = []
    for table in content["tables"]:
        for row in table["rows"]:
            merged = {"settings": {}, "epochs": None, **{key: table[key] for key in table if key != "rows"}, **row}
            merged["models"] = tuple(merged["models"])
            merged["figures"] = {key: (value[0], value[1]) for key, value in merged["figures"].items()}
            rows.append(Published(**merged))
    return rows
