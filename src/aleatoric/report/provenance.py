"""Where the numbers of a report come from: data, split, samples, weights, training, versions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from .collect import Evaluation
from .content import Table
from .tables import text_table

__all__ = ["provenance_tables"]


def provenance_tables(evaluations: Sequence[Evaluation]) -> list[Table]:
    """What all evaluations have in common, and what each has of its own: data, split, samples, weights, versions."""
    facts = [_facts(evaluation) for evaluation in evaluations]
    keys = [key for key in dict.fromkeys(key for fact in facts for key in fact) if any(fact.get(key) for fact in facts)]
    common = [key for key in keys if len({fact.get(key) for fact in facts}) == 1]
    tables = [text_table("Of all evaluations", ["what", "value"], [[k, facts[0][k]] for k in common], numbers=False)]
    if len(evaluations) > 1:
        own = [key for key in keys if key not in common]
        rows = [[one.label, *(fact.get(key, "") for key in own)] for one, fact in zip(evaluations, facts)]
        tables.append(text_table("Of each", ["evaluation", *own], rows, numbers=False))
    return [table for table in tables if table.rows]


def _facts(evaluation: Evaluation) -> dict[str, str]:
    record = evaluation.record
    model, data, training = record["model"], record["dataset"], record.get("training") or {}
    sums: Mapping[str, str] = data.get("sha256") or {}
    bootstrap = record.get("bootstrap") or {}
    given: dict[str, Any] = {
        "bundle": model.get("bundle"),
        "bundle's version": model.get("version"),
        "variant": model.get("variant"),
        "checkpoint": model.get("checkpoint") or "none: untrained",
        "SHA-256 of the checkpoint": _short(model.get("checkpoint_sha256")),
        "trained on fold": training.get("fold"),
        "training's seed": training.get("seed"),
        **{f"training: {key}": _written(value) for key, value in (training.get("recipe") or {}).items()},
        **{f"network: {key}": _written(value) for key, value in (training.get("settings") or {}).items()},
        "data set": data.get("name"),
        "its source": data.get("source"),
        **{f"SHA-256 of {name}": _short(value) for name, value in sums.items()},
        "classes": ", ".join(map(str, data.get("classes") or [])),
        "image size": " x ".join(map(str, data.get("patch_size") or [])),
        "section": record["section"],
        "fold of the section": record.get("fold"),
        "hash of the split": record.get("split_hash"),
        "cases": record["cases"],
        "patients": record.get("patients"),
        "samples per image": record["num_samples"],
        "seed of the samples": record.get("seed"),
        "temperature": record.get("temperature"),
        "spacing": f"{record['spacing']} mm" if record.get("spacing") else None,
        "device": f"{record['device']}{', bfloat16' * bool(record.get('bf16'))}" if record.get("device") else None,
        "bootstrap": _bootstrap(bootstrap),
        **{f"version of {name}": value for name, value in (record.get("versions") or {}).items()},
        "command of the training": _command(evaluation),
        "folder": evaluation.folder.as_posix(),
    }
    return {key: "" if value is None else str(value) for key, value in given.items()}


def _short(digest: Any) -> str:
    """The first twelve digits: enough to tell two files apart."""
    return str(digest or "")[:12]


def _bootstrap(record: Mapping[str, Any]) -> str | None:
    """How often patients were drawn, and from which seed."""
    if not record.get("resamples"):
        return None
    curves = f" ({record['resamples_of_aurc']:,} of AURC)" if record.get("resamples_of_aurc") else ""
    return f"{record['resamples']:,} resamples{curves}, seed {record.get('seed')}"


def _written(value: Any) -> str | None:
    """A choice as text; nothing of what is null."""
    return None if value is None else value if isinstance(value, str) else json.dumps(value)


def _command(evaluation: Evaluation) -> str:
    """What tools/cross_validate.py was called with, where it made the folder."""
    path = evaluation.folder.parent / "fold.json"
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("command") or "")
    except (OSError, ValueError, AttributeError):
        return ""
