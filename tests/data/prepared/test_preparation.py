"""What every preparation shares: skips and exclusions, retries, exit codes, splits of every kind, bounded memory."""

from __future__ import annotations

import argparse
import subprocess
import sys
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest

from aleatoric.data import PreparedDatasetWriter, load_dataset
from aleatoric.data.datalist.command import prepare_datalist
from aleatoric.data.lidc.kohl import prepare_kohl
from aleatoric.data.lidc.pickled import prepare_pickle
from aleatoric.data.prepared.preparation import (
    EXIT_INCOMPLETE,
    Patches,
    add_output_arguments,
    conclude,
    output_options,
    prepare_units,
    random_split,
    writer_options,
)
from aleatoric.data.prepared.splits import TEST, TRAIN, FirstSplit, GivenSplit, RandomSplit
from aleatoric.data.qubiq.command import prepare_qubiq
from aleatoric.errors import InputError
from simulated import datalist, kohl, lidc_pickle, qubiq

SIZE = (4, 4)


class Task(NamedTuple):
    number: int
    broken: bool = False
    site: str = ""
    value: float = 1.0


def make(task: Task) -> Patches:
    if task.broken:
        raise InputError(f"file {task.number} is broken, a sound one expected; replace it.")
    patches = Patches()
    label = np.zeros((2, *SIZE), np.uint8)
    label[0, 1, 1] = 1
    case = {"case": f"c{task.number}", "patient": f"p{task.number:03d}", "slice": 0}
    patches.add(
        np.full((1, *SIZE), task.value), label, [True, False], {**case, "site": task.site} if task.site else case
    )
    if task.number == 1:
        patches.exclude("slice without a mask")
        patches.skip("rater without a file", "rater 2 of case 1 has no file")
    return patches


def writer(out, **changes):
    settings = {
        "name": "toy",
        "source": "made up",
        "options": {},
        "channels": ["x"],
        "classes": ["no", "yes"],
        "raters": 2,
    }
    settings |= {"intensity_window": (0, 1), "image_dtype": "float32", "patch_size": SIZE}
    return PreparedDatasetWriter(out, **{**settings, **changes})


def tasks(count=10, **fields):
    return {f"{number:03d}": Task(number, **fields) for number in range(count)}


def test_a_broken_unit_is_reported_and_read_again_by_the_next_run(tmp_path, capsys):
    some = tasks(6)
    some["003"] = Task(3, broken=True)
    some["004"] = Task(4, value=np.nan)
    dataset = load_dataset(prepare_units(writer(tmp_path / "set"), make, some, workers=1))
    assert [row["case"] for row in dataset.cases] == ["c0", "c1", "c2", "c5"]
    report = dataset.info["report"]
    assert report["skipped"] == {"cases that cannot be read": 2, "rater without a file": 1}
    assert report["excluded"] == {"slice without a mask": 1}
    assert report["read"] == 4 and report["problem_count"] == 3
    assert "file 3 is broken" in report["problems"][1] and "NaN" in report["problems"][0]
    assert conclude(tmp_path / "set") == EXIT_INCOMPLETE
    out = capsys.readouterr().out
    assert "4 patches of 4 patients from 4 cases, 2 raters\n" in out and "file 3 is broken" in out
    assert "left out by rule: 1 x slice without a mask" in out

    def stop(task):
        if task.number == 5:
            raise KeyboardInterrupt
        return make(task)

    with pytest.raises(KeyboardInterrupt):
        prepare_units(writer(tmp_path / "again"), stop, some, workers=1)
    seen = []

    def look(task):
        seen.append(task.number)
        return make(task)

    prepare_units(writer(tmp_path / "again"), look, tasks(6), workers=1)
    assert seen == [3, 4, 5]  # what failed and what was not reached


def test_units_of_other_raw_files_are_not_taken_over(tmp_path):
    unfinished = writer(tmp_path / "set")
    unfinished.write("other/9", **_arrays(make(Task(9))))
    with pytest.raises(InputError, match="set.partial holds other/9, which is not among the 3 cases of this run"):
        prepare_units(writer(tmp_path / "set"), make, tasks(3), workers=1)
    assert unfinished.has("other/9")


@pytest.mark.parametrize(
    ("write", "prepare"),
    [
        (kohl.write, prepare_kohl),
        (lidc_pickle.write, prepare_pickle),
        (datalist.write, prepare_datalist),
        (partial(qubiq.write, datasets=["brain-growth"]), partial(prepare_qubiq, task="brain-growth")),
    ],
    ids=["kohl", "pickle", "datalist", "qubiq"],
)
def test_a_killed_run_does_not_go_on_with_other_raw_files(tmp_path, monkeypatch, write, prepare):
    def killed(*_):
        raise KeyboardInterrupt

    first, second = (write(tmp_path / name, 2) for name in ("first", "second"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PreparedDatasetWriter, "finish", killed)
        prepare(first, tmp_path / "set", workers=1)
    with pytest.raises(InputError, match="begun with other .*origin: .*first.* found, .*second.* expected"):
        prepare(second, tmp_path / "set", workers=1)
    assert prepare(first, tmp_path / "set", workers=1).is_dir()
    assert "origin" not in load_dataset(tmp_path / "set").info


def _arrays(patches):
    stacked = {key: np.stack(getattr(patches, key)) for key in ("images", "labels", "rater_valid")}
    return {**stacked, "cases": patches.cases}


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_is_none_is_refused_before_anything_is_read(seed):
    with pytest.raises(InputError, match=f"seed {seed} found"):
        RandomSplit(seed=seed)


def test_nothing_but_exclusions_is_exit_code_0(tmp_path):
    def quiet(task):
        patches = make(task._replace(number=task.number + 10))
        patches.exclude("slice without a mask")
        return patches

    assert conclude(prepare_units(writer(tmp_path / "set"), quiet, tasks(3), workers=1)) == 0


def test_a_set_of_one_patient_is_a_note_and_no_failure(tmp_path, capsys):
    assert conclude(prepare_units(writer(tmp_path / "set"), make, tasks(1), workers=1)) == 0
    out = capsys.readouterr().out
    assert "note: no patient for testing" in out and "note: no patient for validation" in out


def test_no_sound_unit_is_one_error_that_says_why(tmp_path):
    with pytest.raises(InputError, match="cases that cannot be read: 10; the first: file 0 is broken"):
        prepare_units(writer(tmp_path / "set"), make, tasks(broken=True), workers=1)
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="0 workers found"):
        prepare_units(writer(tmp_path / "set"), make, tasks(), workers=0)


def test_processes_make_the_same_set_as_one(tmp_path):
    some = tasks(12)
    some["007"] = Task(7, broken=True)
    one, two = (
        load_dataset(prepare_units(writer(tmp_path / str(workers)), make, some, workers=workers)) for workers in (1, 2)
    )
    assert one.info == two.info and one.cases == two.cases


def test_options_reach_the_split_the_writer_and_dataset_json(tmp_path):
    parser = argparse.ArgumentParser()
    add_output_arguments(parser)
    words = ["--seed", "3", "--test-fraction", "0.5", "--folds", "2", "--overwrite", "--workers", "1"]
    args = parser.parse_args(words)
    args.command = "aleatoric prepare toy"
    output = output_options(args)
    for _ in range(2):  # the second overwrites
        target = writer(tmp_path / "set", split=random_split(output), **writer_options(output))
        info = load_dataset(prepare_units(target, make, tasks(), workers=output["workers"])).info
    assert info["command"] == "aleatoric prepare toy"
    folds = {"rule": "random", "seed": 3, "test_fraction": 0.5, "folds": 2, "by": "patient"}
    assert {**folds, "split_hash": info["folds"]["split_hash"]} == info["folds"]


def folds_of(out):
    dataset = load_dataset(out)
    return {row["patient"]: row["fold"] for row in dataset.cases}, dataset


def test_first_split_tests_on_the_first_fifth(tmp_path):
    split = FirstSplit(0.2, 3)
    fold_of, _ = folds_of(prepare_units(writer(tmp_path / "set", split=split), make, tasks(), workers=1))
    assert [fold_of[f"p{i:03d}"] for i in range(10)] == [TEST, TEST, "0", "1", "2", "0", "1", "2", "0", "1"]
    assert split.assign(reversed(list(fold_of))) == fold_of


def test_a_site_stays_on_one_side_and_a_patient_at_one_site(tmp_path):
    some = {unit: task._replace(site=f"site {task.number % 4}") for unit, task in tasks(12).items()}
    split = RandomSplit(folds=2, by="site")
    fold_of, dataset = folds_of(prepare_units(writer(tmp_path / "set", split=split), make, some, workers=1))
    by_site = {}
    for row in dataset.cases:
        by_site.setdefault(row["site"], set()).add(fold_of[row["patient"]])
    assert all(len(folds) == 1 for folds in by_site.values()) and len(by_site) == 4
    assert sorted(fold for folds in by_site.values() for fold in folds) == ["0", "0", "1", TEST]

    def wandering(task):
        patches = make(task)
        patches.cases[0] = {**patches.cases[0], "patient": "the same"}
        return patches

    with pytest.raises(InputError, match="patient the same found with site site 0 and site 1"):
        prepare_units(writer(tmp_path / "bad", split=split), wandering, some, workers=1)
    with pytest.raises(InputError, match="names no site"):
        prepare_units(writer(tmp_path / "none", split=split), make, tasks(), workers=1)


def test_a_given_split_with_patients_that_are_always_for_training(tmp_path):
    given = {f"p{i:03d}": TRAIN for i in range(10)} | {"p000": TEST, "p001": "0", "nobody": TEST}
    split = GivenSplit(given, 1, "a release")
    fold_of, dataset = folds_of(prepare_units(writer(tmp_path / "set", split=split), make, tasks(), workers=1))
    assert fold_of == {name: fold for name, fold in given.items() if name != "nobody"}
    assert dataset.indices("testing").tolist() == [0]
    assert dataset.indices("validation").tolist() == [1]
    assert dataset.indices("training").tolist() == list(range(2, 10))
    with pytest.raises(InputError, match="fold '1' found for patient p001 in a release"):
        GivenSplit({"p001": "1"}, 1, "a release")
    with pytest.raises(InputError, match="9 patients without a fold found in a list, for example p001"):
        target = writer(tmp_path / "lost", split=GivenSplit({"p000": "0"}, 1, "a list"))
        prepare_units(target, make, tasks(), workers=1)
    with pytest.raises(InputError, match="test fraction 1.0"):
        FirstSplit(1.0)
    with pytest.raises(InputError, match="0 folds"):
        RandomSplit(folds=0)


_PEAK = """
import resource, sys
import numpy as np
from aleatoric.data import PreparedDatasetWriter
from aleatoric.data.prepared.preparation import Patches, conclude, prepare_units

def make(number):
    patches = Patches()
    for z in range(4):
        case = {"case": f"{number}-{z}", "patient": str(number), "slice": z}
        patches.add(np.zeros((1, 128, 128)), np.ones((4, 128, 128), np.uint8), np.ones(4, bool), case)
    return patches

target = PreparedDatasetWriter(sys.argv[1], name="n", source="s", options={}, channels=["x"], classes=["a", "b"],
                               raters=4, intensity_window=(0, 1), image_dtype="float32")
conclude(prepare_units(target, make, {f"{i:05d}": i for i in range(int(sys.argv[2]))}, workers=1))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_number_of_cases(tmp_path):
    def peak(count):
        words = [sys.executable, "-c", _PEAK, str(tmp_path / str(count)), str(count)]
        printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
        return int(printed.splitlines()[-1])

    # 270 more cases are 140 MB of pixels and 4,000 rows; kilobytes
    assert peak(300) - peak(30) < 4000
