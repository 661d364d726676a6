"""The documentation names what is there."""

from __future__ import annotations

import re

from aleatoric.metrics.definitions import DEFINITIONS


def test_every_figure_stands_in_the_documentation_and_no_other(repository):
    text = (repository / "docs" / "evaluation.md").read_text(encoding="utf-8")
    table = text[text.index("| figure | formula") : text.index("What each says of empty masks")]
    named = {name for row in table.splitlines() if row for name in re.findall(r"`([a-z0-9_]+)", row.split("|")[1])}
    known = {name.removesuffix("_mean_prediction") for name in DEFINITIONS}
    assert known - {"area_coverage"} <= {name.rstrip("_") for name in named} | {"area_coverage"}
    assert {name.rstrip("_").removesuffix("_mean_prediction") for name in named} <= known | {""}
