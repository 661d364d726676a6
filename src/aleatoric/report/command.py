"""``aleatoric report``: evaluated models on one page, which opens without network."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

from ..errors import InputError
from ..files import write_atomically
from .cases import browse
from .collect import Evaluation, read_evaluations
from .figures import HEADLINES, figure, interval_text, value_text
from .models import pool
from .page import render, warnings_of
from .sections import report_sections

__all__ = ["add_arguments", "run"]

_PRINTED = 4  # figures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of ``aleatoric report``."""
    parser.add_argument(
        "run_dirs",
        nargs="+",
        type=Path,
        metavar="RUN_DIR",
        help="folder of an evaluation (metrics.json in it), or one above several",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: report.html in the first evaluation's folder"
    )
    parser.add_argument("--cases", type=int, default=24, metavar="N", help="with pictures; 0: none (default: 24)")
    parser.add_argument("--title", help="of the page (default: the models' names)")


def run(args: argparse.Namespace) -> int:
    """``aleatoric report``: read, draw, write; print the main numbers, the warnings and where the page is."""
    if args.cases < 0:
        raise InputError(f"found --cases {args.cases}, expected 0 or more; correct it.")
    if args.out is not None and args.out.is_dir():
        raise InputError(f"found the folder {args.out}, expected a file; name one in it: --out {args.out}/report.html.")
    with tqdm(total=3 + args.cases, desc="reading", unit="part", dynamic_ncols=True) as bar:
        evaluations = read_evaluations(args.run_dirs)
        bar.update()
        bar.set_description("cases")
        browser = browse(evaluations, args.cases, progress=bar.update)
        bar.total = 3 + len(browser.cards)
        bar.set_description("drawing")
        sections = report_sections(evaluations)
        bar.update()
        bar.set_description("writing")
        page = render(evaluations, sections, browser, args.title or _title(evaluations))
        out = args.out if args.out is not None else evaluations[0].folder / "report.html"
        try:
            write_atomically(out, page)
        except OSError as error:
            raise InputError(
                f"{out} cannot be written ({error.strerror or error}), a writable folder with space expected; name "
                "another file with --out."
            ) from error
        bar.update()
        bar.set_description("done")
    for line in _lines(evaluations):
        print(line)
    for text in warnings_of(evaluations, browser):
        print(f"warning: {text}")
    print(f"\n{out} ({len(page.encode('utf-8')) / 2**20:.1f} MiB)")
    return 0


def _title(evaluations: Sequence[Evaluation]) -> str:
    """What was evaluated, in a line."""
    models = list(dict.fromkeys(one.model for one in evaluations))
    data = list(dict.fromkeys(str(one.record["dataset"].get("name")) for one in evaluations))
    many = f"{len(models)} models" if len(models) > 3 else ", ".join(models)
    return f"{many} on {' and '.join(data) if len(data) < 4 else f'{len(data)} data sets'}"


def _lines(evaluations: Sequence[Evaluation]) -> list[str]:
    """A line per model: the first few figures with their intervals."""
    models = pool(evaluations)
    width = max(len(model.name) for model in models)
    lines = []
    for model in models:
        words = []
        for name in [name for name in HEADLINES if math.isfinite(model.metrics.get(name, math.nan))][:_PRINTED]:
            interval = interval_text(*model.intervals.get(name, (math.nan, math.nan)))
            words.append(f"{figure(name).title} {value_text(model.metrics[name])} {interval}".rstrip())
        runs = f"{len(model.runs)} runs, " if len(model.runs) > 1 else ""
        lines.append(f"{model.name:<{width}}  {runs}{len(model.keys):,} cases  {'  '.join(words)}".rstrip())
    return lines
