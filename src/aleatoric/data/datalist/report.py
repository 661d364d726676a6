"""The dry run of a datalist: everything is read, nothing is made but a report and a picture of what needs a look.

One case at a time, in processes; what comes back of each is a few numbers, so memory does not grow with the images.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import Unpack

from ...errors import InputError
from ...files import write_atomically
from ..prepared.parallel import each_result
from ..prepared.target import check_writable, plain_os_errors
from .checks import Finding
from .look import Look, LookTask, look
from .make import tasks_of
from .plan import DatalistOptions, Plan, plan_datalist
from .sheet import draw_sheet

__all__ = ["dry_run", "print_report"]

_BEYOND = 3  # label values without a class that are printed
_SHOWN = 20  # findings that are printed; the JSON has all


def dry_run(
    list_path: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    picture: bool = True,
    **options: Unpack[DatalistOptions],
) -> dict[str, Any]:
    """Read everything that :func:`.command.prepare_datalist` would, and report.

    Args:
        list_path, out_dir, **options: as there; ``out_dir`` is not made. ``<out_dir>.dry-run.json`` is the report and
            ``<out_dir>.dry-run.png`` shows the suspicious cases, then some chosen by the seed.
        picture: draw it.

    Returns:
        the report, as in the JSON.

    Raises:
        InputError: the report cannot be written (said before anything is read); a mistake in the list or in the
            options; nothing that can be read.
    """
    beside = Path(out_dir).with_name(Path(out_dir).name + ".dry-run")
    sheet, told = (Path(f"{beside}{suffix}") for suffix in (".png", ".json"))
    check_writable(told)  # now, not after an hour of reading
    plan = plan_datalist(list_path, **options)
    workers = options.get("workers")
    if workers is not None and workers < 1:
        raise InputError(f"{workers} workers found, at least 1 expected; leave out --workers for one per core.")
    tasks = tasks_of(plan)
    # as in preparing: a process takes longer to start than a few cases to read
    processes = min(workers or os.cpu_count() or 1, -(-len(tasks) // 4))
    signature = plan.writer(beside).signature  # a writer touches no disk before its first unit
    tally = _Tally(plan)
    jobs = [LookTask(unit, task, plan.datalist.raters, signature) for unit, task in tasks.items()]
    for seen in each_result(look, jobs, processes, "images"):
        tally.add(seen)
    report = tally.report()
    with plain_os_errors(told):
        drawn = picture and draw_sheet(sheet, list(tasks.values()), report, plan, processes, options.get("seed", 0))
        report |= {"picture": os.fspath(sheet) if drawn else None, "json": os.fspath(told)}
        write_atomically(told, json.dumps(report, indent=1) + "\n")
    return report


def print_report(report: Mapping[str, Any]) -> None:
    """The report in words, on stdout."""
    for line in _lines(report):
        print(line)


class _Tally:
    """Adds up cases in whatever order they come; holds a few numbers of each."""

    def __init__(self, plan: Plan) -> None:
        raters = len(plan.datalist.raters)
        self.plan = plan
        self.skipped: Counter[str] = Counter()
        self.excluded: Counter[str] = Counter()
        self.sizes: Counter[str] = Counter()
        self.spacings: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.disagreement: list[float] = []  # of each image; all count alike, as in "aleatoric show"
        self.patches = self.cut = self.read = 0
        self.lowest, self.highest = np.inf, -np.inf
        self.ranges: list[tuple[float, float]] = []
        self.files, self.empty = np.zeros(raters, int), np.zeros(raters, int)
        self.values: Counter[int] = Counter()  # label value -> pixels
        self.masks_with: Counter[int] = Counter()  # label value -> masks
        self.distance, self.pairs = np.zeros((raters, raters)), np.zeros((raters, raters), int)
        self.images: dict[str, list[tuple[int, str, str, tuple[str, ...]]]] = {}
        self.masks: dict[str, list[tuple[int, str, str, str]]] = {}
        self.problems: list[tuple[int, str, str]] = []
        self.findings: list[tuple[int, Finding]] = []

    def add(self, seen: Look) -> None:
        """Take in one case."""
        self.skipped.update(seen.skipped)
        self.excluded.update(seen.excluded)
        self.problems += [(seen.number, seen.case, sentence) for sentence in seen.problems]
        if seen.shape is None or seen.spacing is None or seen.intensities is None:
            return
        self.read += 1
        self.patches, self.cut = self.patches + seen.patches, self.cut + seen.cut
        self.sizes[seen.shape] += 1
        self.spacings[seen.spacing] += 1
        self.notes.update(seen.notes)
        low, *middle, high = seen.intensities
        self.lowest, self.highest = min(self.lowest, low), max(self.highest, high)
        self.ranges.append((middle[0], middle[1]))
        self.findings += [(seen.number, finding) for finding in seen.findings]
        if low < high:  # two constant images are two findings already
            self.images.setdefault(seen.image_hash, []).append((seen.number, seen.case, seen.patient, seen.images))
        for rater, (valid, pixels) in enumerate(zip(seen.valid, seen.pixels)):
            for value, count in pixels:
                self.values[value] += count
                self.masks_with[value] += 1
            if not valid:
                continue
            self.files[rater] += 1
            self.empty[rater] += all(value == 0 for value, _ in pixels)
            if seen.mask_hashes[rater]:
                name, file = self.plan.datalist.raters[rater], seen.labels[rater] or ""
                self.masks.setdefault(seen.mask_hashes[rater], []).append((seen.number, seen.case, name, file))
        distance = np.array(seen.distance)
        known = np.isfinite(distance)
        self.distance[known] += distance[known]
        self.pairs += known
        if (apart := np.triu(known, 1)).any():
            self.disagreement.append(float(distance[apart].mean()))

    def report(self) -> dict[str, Any]:
        """For JSON."""
        datalist, classes = self.plan.datalist, self.plan.options.classes
        self._between_cases()
        entries = len(datalist.entries)
        total = sum(self.values.values())
        known = range(max([len(classes) - 1, *self.values]) + 1)
        findings = sorted(self.findings, key=lambda found: (found[0], found[1].kind, found[1].raters))
        return {
            "list": os.fspath(datalist.path),
            "list_sha256": datalist.sha256,
            "entries": entries,
            "patients": len({entry.patient for entry in datalist.entries}),
            "read": entries - self.skipped.get("images that cannot be read", 0),
            "patches": self.patches,
            "patches_that_cut_masks": self.cut,
            "settings": {**self.plan.settings["options"], "split": self.plan.settings["options"]["split"]},
            "notes": [*self.plan.notes, *(f"{note} ({count} x)" for note, count in self.notes.most_common(5))],
            "sizes": dict(self.sizes.most_common()),
            "spacings": dict(self.spacings.most_common()),
            "intensities": self._intensities(),
            "raters": [self._rater(rater, name) for rater, name in enumerate(datalist.raters)],
            "classes": [
                {
                    "value": value,
                    "name": classes[value] if value < len(classes) else None,
                    "pixels": self.values[value],
                    "share": round(self.values[value] / total, 6) if total else 0.0,
                    "masks": self.masks_with[value],
                }
                for value in known
                if value < len(classes) or self.values[value]
            ],
            "disagreement": round(float(np.mean(self.disagreement)), 4) if self.disagreement else None,
            "skipped": dict(sorted(self.skipped.items())),
            "excluded": dict(sorted(self.excluded.items())),
            "problems": [
                {"number": number, "case": case, "sentence": sentence}
                for number, case, sentence in sorted(self.problems)
            ],
            "findings": [{"number": number, **found._asdict()} for number, found in findings],
            "suspicious": len({number for number, *_ in [*findings, *self.problems]}),
        }

    def _between_cases(self) -> None:
        for same in self.images.values():
            # one file listed twice for one patient (two lesions, say) is meant; anything else is a copy
            if len(same) > 1 and len({(patient, files) for _, _, patient, files in same}) > 1:
                self._copies("image twice", [(n, case, ()) for n, case, _, _ in same], "the same pixels", {})
        for masks in self.masks.values():
            if len({case for _, case, _, _ in masks}) > 1:
                files = sorted({file for *_, file in masks})
                copies = [(number, case, (rater,)) for number, case, rater, _ in masks]
                self._copies("mask of another image", copies, "the same mask in all pixels", {"files": files})

    def _copies(self, kind: str, copies: Sequence[tuple[int, str, tuple[str, ...]]], what: str, numbers: Any) -> None:
        cases = [case for _, case, _ in sorted(copies)]
        for number, case, raters in copies:
            others = ", ".join(dict.fromkeys(other for other in cases if other != case))
            who = f"{raters[0]}: " if raters else ""
            words = f"{who}{what} as {others}"
            told = {**numbers, "cases": cases}
            self.findings.append((number, Finding(kind, case, raters, f"{case}: {words}.", words, told)))

    def _intensities(self) -> dict[str, float | None]:
        if not self.ranges:
            return {"lowest": None, "highest": None, "percentile_0.5": None, "percentile_99.5": None}
        low, high = np.median(self.ranges, axis=0)
        return {
            "lowest": float(self.lowest),
            "highest": float(self.highest),
            "percentile_0.5": float(low),
            "percentile_99.5": float(high),
        }

    def _rater(self, rater: int, name: str) -> dict[str, Any]:
        others = np.arange(len(self.pairs)) != rater
        pairs = self.pairs[rater, others].sum()
        iou = 1 - self.distance[rater, others].sum() / pairs if pairs else None
        return {
            "name": name,
            "files": int(self.files[rater]),
            "missing": len(self.plan.datalist.entries) - int(self.files[rater]),
            "empty": int(self.empty[rater]),
            "iou_with_others": None if iou is None else round(float(iou), 4),
        }


def _lines(report: Mapping[str, Any]) -> Iterator[str]:
    raters = report["raters"]
    yield (
        f"{report['list']}: {report['entries']} images of {report['patients']} patients, {len(raters)} raters; "
        f"{report['patches']} patches would be made (dry run)"
    )
    for note in report["notes"]:
        yield f"  note: {note}"
    for key in ("sizes", "spacings"):
        found = list(report[key].items())
        more = f", and {len(found) - 5} more" if len(found) > 5 else ""
        yield f"  {key}: {', '.join(f'{what} ({count})' for what, count in found[:5])}{more}"
    levels = report["intensities"]
    if levels["lowest"] is not None:
        yield (
            f"  intensities: {levels['lowest']:g} to {levels['highest']:g}; the median image's 0.5 and 99.5 "
            f"percentile: {levels['percentile_0.5']:g} and {levels['percentile_99.5']:g}"
        )
    beyond = [row for row in report["classes"] if row["name"] is None]
    classes = [_class_words(row) for row in report["classes"] if row["name"] is not None]
    classes += [_class_words(row) for row in beyond[:_BEYOND]]
    if len(beyond) > _BEYOND:
        classes.append(f"and {len(beyond) - _BEYOND} more values up to {beyond[-1]['value']}")
    yield f"  classes: {', '.join(classes)}"
    width = max(5, *(len(row["name"]) for row in raters))
    yield f"  {'rater':{width}}  masks  missing  empty  mean IoU with the others"
    for row in raters:
        iou = "-" if row["iou_with_others"] is None else f"{row['iou_with_others']:.3f}"
        yield f"  {row['name']:{width}}  {row['files']:5}  {row['missing']:7}  {row['empty']:5}  {iou}"
    if report["disagreement"] is not None:
        yield f"  disagreement: mean 1 - IoU between two raters {report['disagreement']:.3f}"
    if report["patches_that_cut_masks"]:
        yield f"  {report['patches_that_cut_masks']} patches do not hold all that was drawn: see --patch-size and --fit"
    for key, word in (("excluded", "left out by rule"), ("skipped", "cannot be used")):
        for reason, count in report[key].items():
            yield f"  {word}: {count} x {reason}"
    sentences = [(row["number"], row["kind"], row["sentence"]) for row in report["findings"]]
    sentences += [(row["number"], "cannot be used", row["sentence"]) for row in report["problems"]]
    if sentences:
        yield f"  {report['suspicious']} images to look at:"
    for _, kind, sentence in sorted(sentences)[:_SHOWN]:
        yield f"    [{kind}] {sentence}"
    if len(sentences) > _SHOWN:
        yield f"    ... and {len(sentences) - _SHOWN} more in {report['json']}"
    if not sentences:
        yield "  nothing looks wrong"
    yield "  " + ", ".join(filter(None, [report["picture"], report["json"]]))


def _class_words(row: Mapping[str, Any]) -> str:
    name = row["name"] or "NOT A CLASS, see --classes"
    return f"{row['value']} {name} {row['share']:.2%} of the pixels in {row['masks']} masks"
