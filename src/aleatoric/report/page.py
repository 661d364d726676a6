"""One HTML file of a report: style, script, drawings and images are inside it, and nothing is asked of a network."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .. import __version__
from ..errors import InputError
from . import tiles
from .cases import Browser
from .cautions import cautions
from .collect import Evaluation
from .content import Picture, Section
from .figures import figure

__all__ = ["render", "warnings_of"]

_TEMPLATES = Path(__file__).with_name("page_template")
_UNTRAINED = "untrained: it has the weights that it was initialised with."
_TILES = 11  # of a line that is open: all outlines, mean, deviation, eight masks
_NUMBER = re.compile(r"^[^\w\s]*\d[\d.,\s]*(e[+-]?\d+)?\s*(%|[±(\[].*)?$|^(nan|–|-|—)$", re.IGNORECASE)
_SIZE = re.compile(r'\bviewBox="\s*[\d.eE+-]+[\s,]+[\d.eE+-]+[\s,]+([\d.eE+-]+)[\s,]+([\d.eE+-]+)\s*"')


def render(evaluations: Sequence[Evaluation], sections: Sequence[Section], browser: Browser, title: str) -> str:
    """The page.

    Args:
        evaluations: what was evaluated.
        sections: words, tables and pictures, in their order.
        browser: the cases.
        title: of the page.

    Returns:
        HTML that loads nothing: its Content-Security-Policy forbids it.

    Raises:
        InputError: a picture that is no SVG element, or two sections of one address.
    """
    anchors = [section.anchor for section in sections]
    if len(set(anchors)) < len(anchors):
        raise InputError(f"found the sections {', '.join(anchors)}, expected addresses that differ; rename one.")
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters |= {"width": _width, "number": _is_number, "counted": _counted}
    script = (_TEMPLATES / "page.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return environment.get_template("page.html").render(
        title=title,
        sections=sections,
        browser=browser,
        tiles_shown=_TILES,
        order=figure(browser.order).title,
        warnings=warnings_of(evaluations, browser),
        privacy=_privacy(evaluations, browser),
        data=_data(browser),
        legend=tiles.legend(browser.raters),
        gradients={name: (tiles.gradient(name), highest) for name, (_, highest) in tiles.MAPS.items()},
        sample_color=tiles.SAMPLE_COLOR,
        style=(_TEMPLATES / "page.css").read_text(encoding="utf-8"),
        script=script,
        script_hash=digest,
        version=__version__,
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def warnings_of(evaluations: Sequence[Evaluation], browser: Browser) -> list[str]:
    """What a reader must know before the numbers: each sentence once, and of which evaluations it is said."""
    said: dict[str, list[str]] = {}
    for one in evaluations:
        untrained = one.record["model"].get("checkpoint") is None
        for text in (*(one.record.get("warnings") or ()), *[_UNTRAINED] * untrained):
            said.setdefault(str(text), []).append(one.label)
    sentences = [
        text[:1].upper() + text[1:] if len(labels) == len(evaluations) else f"{', '.join(labels)}: {text}"
        for text, labels in said.items()
    ]
    return list(dict.fromkeys([*sentences, *cautions(browser.table.models), *browser.warnings]))


def _privacy(evaluations: Sequence[Evaluation], browser: Browser) -> str:
    """Whose images these are."""
    careful = "research data: do not pass it on carelessly"
    real = [one for one in evaluations if "simulated" not in str(one.record["dataset"].get("source"))]
    if not real:
        return "The images are simulated: they show no patient."
    if not browser.cards:
        return f"This page names single patients' cases ({careful})."
    if len(real) < len(evaluations):
        names = ", ".join(dict.fromkeys(str(one.record["dataset"].get("name")) for one in real))
        return f"This page contains images of patients, from {names} ({careful}); its other images are simulated."
    return f"This page contains images of patients ({careful})."


def _data(browser: Browser) -> str:
    """What the script sorts and filters, as JSON that may stand inside a script element."""
    table = browser.table
    record: dict[str, Any] = {
        "models": [model.name for model in table.models],
        "columns": [{"name": name, "values": values} for name, values in table.columns.items()],
        "figures": [
            {
                "name": name,
                "title": figure(name).title,
                "better": figure(name).better,
                "family": figure(name).family,
                "definition": next((text for model in table.models if (text := model.definition(name))), ""),
                "values": [_rounded(row) if np.isfinite(row).any() else None for row in values],
            }
            for name, values in table.figures.items()
        ],
        "first": browser.first,
        "cards": {str(card.row): f"case-{card.row}" for card in browser.cards},
    }
    text = json.dumps(record, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _rounded(values: np.ndarray) -> list[float | None]:
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in values.tolist()]


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _is_number(text: str) -> bool:
    return bool(_NUMBER.match(text.strip()))


def _width(picture: Picture) -> str:
    """Natural width of the picture's SVG in CSS pixels."""
    svg = picture.svg
    if not (svg.startswith("<svg") and svg.rstrip().endswith("</svg>")):
        raise InputError(f"the picture {picture.caption!r} is no <svg> element: found {svg[:40]!r}; pass one.")
    size = _SIZE.search(svg.partition(">")[0])
    return f"{float(size.group(1)) / 0.75 if size else 640.0:.0f}"  # from points
