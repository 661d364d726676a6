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
        samples: per image; None where the paper does not say.
        folds: over which the number is a mean; 1: one split.
        spread: what the deviation is of.
        split: what is known about training and test data.
        data: how many images there are, and how they were cut, where it is known.
        empty: convention on empty masks, where it is known.
        recipe: of network and training, under the ids of the bundles' train.json (null: without it), and
            ``iterations``, in place of epochs; only what the paper says.
        inferred: id in recipe -> by what, where the text does not say it of this very model.
        augmentation: its parts, with commas between, or "none".
        note: what else is to be said of the numbers.
    """

    paper: str
    reference: str
    table: str
    name: str
    models: tuple[str, ...]
    dataset: str
    figures: Mapping[str, tuple[float, float | None]]
    settings: Mapping[str, Any]
    samples: int | None
    folds: int
    spread: str
    split: str
    data: str | None
    empty: str | None
    recipe: Mapping[str, Any]
    inferred: Mapping[str, str]
    augmentation: str | None
    note: str | None


_OPTIONAL: dict[str, Any] = {"settings": {}, "inferred": {}, "data": None, "augmentation": None, "note": None}


def published_rows() -> list[Published]:
    """All lines, in the order of the file; a line is its table's fields, its data set's over them, and its own."""
    content = json.loads((Path(__file__).parent / "published.json").read_text(encoding="utf-8"))
    rows = []
    for table in content["tables"]:
        common = {key: value for key, value in table.items() if key not in ("rows", "datasets")}
        for row in table["rows"]:
            parts = [common, table.get("datasets", {}).get(row["dataset"], {}), row]
            merged: dict[str, Any] = dict(_OPTIONAL)
            for part in parts:
                merged |= part
            merged["recipe"] = {key: value for part in parts for key, value in part.get("recipe", {}).items()}
            merged["models"] = tuple(merged["models"])
            merged["figures"] = {key: (value[0], value[1]) for key, value in merged["figures"].items()}
            rows.append(Published(**merged))
    return rows
