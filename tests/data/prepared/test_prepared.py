"""The prepared data set: whole or absent, resumable, split by patient, checked when it is opened."""

from __future__ import annotations

import builtins
import csv
import errno
import hashlib
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

import aleatoric
from aleatoric.data import PreparedDatasetWriter, load_dataset
from aleatoric.data.prepared.splits import RandomSplit, assign_folds, split_hash
from aleatoric.errors import InputError

SIZE = (8, 8)


def writer(out, **changes):
    arguments = {
        "name": "toy",
        "source": "made up",
        "options": {"spacing": None, "size": SIZE},
        "channels": ["ct"],
        "classes": ["background", "nodule"],
        "raters": 4,
        "intensity_window": (-1000, 400),
        "patch_size": SIZE,
    }
    return PreparedDatasetWriter(out, **{**arguments, **changes})


def unit(name, count=3, dtype=np.int16, size=SIZE):
    random = np.random.default_rng(sum(name.encode()))
    images = random.integers(-1000, 400, (count, 1, *size)).astype(dtype)
    labels = random.integers(0, 2, (count, 4, *size)).astype(np.uint8)
    labels[:, 3] = 0
    valid = np.ones((count, 4), bool)
    valid[:, 2] = False
    cases = [{"case": f"{name}-{i}", "patient": name, "slice": i, "nodule": i // 2} for i in range(count)]
    return images, labels, valid, cases


def make(out, names="cabdefgh", **changes):
    target = writer(out, **changes)
    for name in names:
        target.write(name, *unit(name, dtype=changes.get("image_dtype", "int16")))
    return target.finish({"read": len(names)})


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in Path(folder).iterdir()}


def edit(folder, **changes):
    path = Path(folder) / "dataset.json"
    info = json.loads(path.read_text())
    info.update(changes)
    path.write_text(json.dumps(info))


def test_round_trip_with_numpy_alone(tmp_path):
    out = make(tmp_path / "set")
    images, labels, valid = (np.load(out / f"{name}.npy") for name in ("images", "labels", "rater_valid"))
    expected = [unit(name) for name in sorted("cabdefgh")]
    np.testing.assert_array_equal(images, np.concatenate([u[0] for u in expected]))
    np.testing.assert_array_equal(labels, np.concatenate([u[1] for u in expected]))
    np.testing.assert_array_equal(valid, np.concatenate([u[2] for u in expected]))
    assert (images.dtype, labels.dtype, valid.dtype) == (np.int16, np.uint8, bool)
    with open(out / "cases.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["case", "patient", "slice", "raters", "fold", "nodule"]
    assert [row["case"] for row in rows] == [case["case"] for u in expected for case in u[3]]
    assert {row["raters"] for row in rows} == {"2"}  # one of four is missing, one drew nothing
    info = json.loads((out / "dataset.json").read_text())
    assert (info["count"], info["patients"], info["format_version"]) == (24, 8, 1)
    assert info["tool_version"] == aleatoric.__version__
    assert info["sha256"] == {name: hashes(out)[name] for name in ("images.npy", "labels.npy", "rater_valid.npy")}
    assert info["report"] == {"read": 8, "skipped": {}, "excluded": {}, "problem_count": 0, "problems": []}
    assert not (tmp_path / "set.partial").exists()

    dataset = load_dataset(out)
    assert len(dataset) == 24 and dataset.cases == rows and dataset.intensity_window == (-1000.0, 400.0)
    np.testing.assert_array_equal(dataset.images, images)


def test_the_order_of_writing_does_not_matter_and_floats_are_rounded(tmp_path):
    one, other = make(tmp_path / "one"), make(tmp_path / "other", names="hgfedcba")
    assert hashes(one) == hashes(other)
    target = writer(tmp_path / "floats")
    images, *rest = unit("a")
    target.write("a", images + 0.4, *rest)
    np.testing.assert_array_equal(load_dataset(target.finish()).images, images)


def test_units_survive_an_interrupted_run(tmp_path):
    first = writer(tmp_path / "set")
    first.write("a", *unit("a"), skipped={"gap": 2})
    again = pickle.loads(pickle.dumps(writer(tmp_path / "set")))  # as another process gets it
    assert again.has("a") and not again.has("b") and not again.has("a/b")
    again.write("a/b", *unit("b"), skipped={"gap": 1, "unread": 1})
    again.write("nothing", *unit("nothing", count=0))
    assert again.has("nothing")
    out = again.finish({"read": 3, "skipped": {"unread": 1}})
    dataset = load_dataset(out)
    assert len(dataset) == 6
    report = dataset.info["report"]
    assert (report["read"], report["skipped"]) == (3, {"gap": 3, "unread": 2})


SCRIPT = """
import os, signal, sys
import numpy as np
sys.path.insert(0, {tests!r})
from test_prepared import unit, writer

target = writer({out!r})
dying = {dying!r}
if dying == "write":
    def torn(file, **arrays):
        file.write(b"half of it")
        file.flush()
        os.kill(os.getpid(), signal.SIGKILL)
done = []
for name in "cabdefgh":
    if dying == "write" and len(done) == 4:
        np.savez = torn
    if not target.has(name):
        target.write(name, *unit(name))
        done.append(name)
if dying == "finish":
    target._write_cases = lambda *a: os.kill(os.getpid(), signal.SIGKILL)
print(",".join(done))
target.finish({{"read": 8}})
"""


def run_script(out, dying=None):
    code = SCRIPT.format(tests=str(Path(__file__).parent), out=str(out), dying=dying)
    source = str(Path(aleatoric.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": source},
    )


@pytest.mark.parametrize(("dying", "left"), [("write", 4), ("finish", 0)])
def test_killed_preparation_resumes_to_the_same_bytes(tmp_path, dying, left):
    undisturbed = make(tmp_path / "undisturbed")
    out = tmp_path / "set"
    killed = run_script(out, dying)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not out.exists()
    second = run_script(out)
    assert second.returncode == 0, second.stderr
    assert len([name for name in second.stdout.strip().split(",") if name]) == left  # the units before were kept
    assert hashes(out) == hashes(undisturbed)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "undisturbed"]


@pytest.mark.parametrize("phase", ["write", "finish"])
def test_full_disk_is_one_sentence_and_leaves_no_data_set(tmp_path, monkeypatch, phase):
    out = tmp_path / "set"
    target = writer(out)
    target.write("a", *unit("a"))
    opened = builtins.open

    def full(path, mode="r", *args, **kwargs):
        file = opened(path, mode, *args, **kwargs)
        if "w" in mode and "set.partial" in str(path):
            file.close()
            file = opened("/dev/full", mode, *args, **kwargs)
        return file

    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    monkeypatch.setattr(builtins, "open", full)
    with pytest.raises(InputError, match="no space left .* free some and repeat") as caught:
        target.write("b", *unit("b", 50)) if phase == "write" else target.finish()
    monkeypatch.undo()
    assert caught.value.__cause__.errno == errno.ENOSPC
    assert not out.exists()
    assert [path.name for path in (tmp_path / "set.partial" / "units").iterdir()] == ["a.npz"]
    again = writer(out)  # the disk has room again
    again.write("b", *unit("b"))
    assert len(load_dataset(again.finish())) == 6


def test_other_options_or_a_taken_folder_are_refused(tmp_path):
    writer(tmp_path / "set").write("a", *unit("a"))
    with pytest.raises(
        InputError, match=r"begun with other .*\(spacing: nothing found, 0.5 expected; size: \[8, 8\] found, n"
    ):
        writer(tmp_path / "set", options={"spacing": 0.5})
    with pytest.raises(InputError, match=r"\(folds.seed: 0 found, 1 expected\)"):
        writer(tmp_path / "set", split=RandomSplit(seed=1))
    with pytest.raises(InputError, match=r'\(origin: nothing found, ".*raw" expected\)'):
        writer(tmp_path / "set", origin=tmp_path / "raw")
    many = {f"option{k}": "x" * 1000 for k in range(8)}
    with pytest.raises(InputError, match=r"option3: nothing found, \"x{1,80}\.\.\.x{1,80}\" expected; and 4 more\)"):
        writer(tmp_path / "set", options=many)
    out = make(tmp_path / "other")
    with pytest.raises(InputError, match="exists already, a new folder expected; .* give --overwrite to replace"):
        writer(out)
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").touch()
    for overwrite in (False, True):
        with pytest.raises(InputError, match="home exists already and is no prepared data set") as caught:
            writer(tmp_path / "home", overwrite=overwrite)
        assert ("--overwrite" in str(caught.value)) == overwrite
    before = hashes(out)
    assert hashes(make(out, names="xyz", overwrite=True)) != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "other", "set.partial"]


def test_overwriting_touches_nothing_beside_the_set(tmp_path):
    out = make(tmp_path / "set")
    for name in ("set.old", "set.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "thesis.tex").touch()
    with pytest.raises(InputError, match="set.partial is no preparation that was interrupted"):
        make(out, overwrite=True)
    (tmp_path / "set.partial" / "thesis.tex").unlink()
    before = hashes(out)
    assert hashes(make(out, names="xyz", overwrite=True)) != before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "set.old"]
    assert (tmp_path / "set.old" / "thesis.tex").is_file()


@pytest.mark.parametrize("content", ["{", "[]", "null", "7"])
def test_a_damaged_partial_folder_is_a_sentence(tmp_path, content):
    target = writer(tmp_path / "set")
    target.write("a", *unit("a"))
    (target.partial / "partial.json").write_text(content)
    with pytest.raises(InputError, match="partial.json is damaged"):
        writer(tmp_path / "set")


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="set.partial cannot be written .*a writable folder expected"):
        writer(tmp_path / "file" / "deep" / "set")
    writer(tmp_path / "absent" / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]

    def refused(dir):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)  # whoever runs the tests may write everywhere
    with pytest.raises(InputError, match="cannot be written .Permission denied"):
        writer(tmp_path / "set")


def test_units_of_a_partial_folder_that_was_half_removed_are_not_taken_over(tmp_path):
    target = writer(tmp_path / "set")
    target.write("a", *unit("a"))
    (target.partial / "partial.json").unlink()  # killed while the folder was removed at the end
    with pytest.raises(InputError, match=r"has no partial\.json"):
        writer(tmp_path / "set", options={"spacing": 0.5})
    next(target.units.glob("*.npz")).unlink()  # as killed at the very begin
    make(tmp_path / "set")


def test_a_folder_named_by_dots_is_found_by_its_own_name(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert writer(".").partial.name == "here.partial"
    with pytest.raises(InputError, match="exists already"):
        writer("/")


def test_a_preparation_that_finds_nothing_leaves_nothing(tmp_path):
    target = writer(tmp_path / "set")
    assert not list(tmp_path.iterdir())
    target.write("a", *unit("a", count=0), skipped={"no contour": 1})
    with pytest.raises(InputError, match="no patch found .no contour: 1"):
        target.finish()
    assert not list(tmp_path.iterdir())


def test_damaged_unit_is_named(tmp_path):
    target = writer(tmp_path / "set")
    target.write("a", *unit("a"))
    path = tmp_path / "set.partial" / "units" / "a.npz"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match="a.npz is damaged"):
        target.finish()


def test_bad_units_are_refused(tmp_path):
    target = writer(tmp_path / "set", image_dtype="float32")
    images, labels, valid, cases = unit("a", dtype=np.float32)
    spoiled = images.copy()
    spoiled[1, 0, 3, 3] = np.nan
    with pytest.raises(InputError, match="NaN .* case a-1"):
        target.write("a", spoiled, labels, valid, cases)
    with pytest.raises(InputError, match="label values 0..2 found, 0..1 expected .background, nodule."):
        target.write("a", images, labels * 2, valid, cases)
    with pytest.raises(InputError, match="labels of shape"):
        target.write("a", images, labels[:, :3], valid, cases)
    with pytest.raises(InputError, match="without patient"):
        target.write("a", images, labels, valid, [{"case": 1, "slice": 1}] * 3)
    with pytest.raises(InputError, match="do not fit into int16"):
        writer(tmp_path / "ints").write("a", images.astype(np.int32) + 40000, labels, valid, cases)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "changes",
    [
        {"intensity_window": (1, 1)},
        {"classes": ["nodule"]},
        {"image_dtype": "uint8"},
        {"channels": []},
    ],
)
def test_bad_options_are_refused(tmp_path, changes):
    with pytest.raises(InputError):
        writer(tmp_path / "set", **changes)


def test_memory_of_finish_does_not_grow_with_the_number_of_units(tmp_path):
    def peak(count):
        target = writer(tmp_path / f"set{count}", patch_size=(128, 128))
        for number in range(count):
            target.write(f"{number:03}", *unit(f"{number:03}", size=(128, 128)))
        tracemalloc.start()
        target.finish()
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    size_of_unit = 3 * 128 * 128 * (2 + 4)
    assert peak(40) - peak(4) < size_of_unit  # 36 units more


def spoil_hash(out):
    path = out / "labels.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def spoil_labels(out):
    labels = np.load(out / "labels.npy")
    labels[5, 1, 2, 2] = 7
    np.save(out / "labels.npy", labels)
    rehash(out)


def spoil_image(out):
    images = np.load(out / "images.npy")
    images[7, 0, 0, 0] = np.inf
    np.save(out / "images.npy", images)
    rehash(out)


def spoil_patient(out):
    path = out / "cases.csv"
    lines = path.read_text().splitlines()
    columns = lines[1].split(",")
    columns[4] = "0" if columns[4] != "0" else "1"
    path.write_text("\n".join([lines[0], ",".join(columns), *lines[2:]]) + "\n")


def cut_array(out):
    path = out / "images.npy"
    path.write_bytes(path.read_bytes()[:-100])
    rehash(out)


def rehash(out):
    edit(out, sha256={name: value for name, value in hashes(out).items() if name.endswith(".npy")})


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (spoil_hash, "labels.npy has another SHA-256 .* prepare the data set again"),
        (lambda out: edit(out, format_version=2), "has format version 2, 1 expected"),
        (lambda out: (out / "images.npy").unlink(), "lacks images.npy, .* prepare the data set again"),
        (
            lambda out: (out / "dataset.json").unlink(),
            r"no prepared data set \(it has no dataset.json\).*--dataset_dir .--prepared_dir for inference",
        ),
        (lambda out: (out / "dataset.json").write_text("{"), "does not describe a prepared data set"),
        (spoil_labels, r"label value 7 found .* 0..1 expected"),
        (spoil_image, "NaN or infinity found in the image of case c-1"),
        (spoil_patient, "puts a patient into two folds"),
        (lambda out: edit(out, raters=3), "labels.npy is uint8 of shape"),
        (lambda out: (out / "cases.csv").write_text("case,patient\n"), "cases.csv has no row"),
        (cut_array, "no complete numpy array"),
    ],
)
def test_what_load_dataset_refuses(tmp_path, spoil, sentence):
    out = make(tmp_path / "set", image_dtype="float32")
    load_dataset(out)
    spoil(out)
    with pytest.raises(InputError, match=sentence):
        load_dataset(out)


def test_preparing_needs_no_torch():
    """Worker processes of the preparation start quickly, and no raw format's library comes in by the way."""
    code = "import sys, aleatoric.data; print({'torch', 'monai', 'pylidc', 'pydicom'} & set(sys.modules))"
    source = str(Path(aleatoric.__file__).parents[1])
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": source}
    )
    assert found.stdout.strip() == "set()", found.stderr
    with pytest.raises(AttributeError, match="no attribute 'Loader'"):
        aleatoric.data.Loader  # noqa: B018


def test_missing_folder_and_skipped_hash(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        load_dataset(tmp_path / "none")
    out = make(tmp_path / "set")
    spoil_hash(out)
    assert len(load_dataset(out, check_hash=False)) == 24


def test_patients_never_lie_on_two_sides(tmp_path):
    dataset = load_dataset(make(tmp_path / "set"))
    patient = np.array([row["patient"] for row in dataset.cases])
    everything = []
    for fold in range(3):
        sides = [set(patient[dataset.indices(section, fold)]) for section in ("training", "validation", "testing")]
        assert all(sides) and sum(map(len, sides)) == len(set().union(*sides)) == 8
        everything += list(dataset.indices("validation", fold))
    assert sorted([*everything, *dataset.indices("testing")]) == list(range(24))
    assert dataset.indices("training").dtype == np.int64
    with pytest.raises(InputError, match="section 'train' found"):
        dataset.indices("train")
    with pytest.raises(InputError, match="fold 3 found, 0 to 2 expected"):
        dataset.indices("training", 3)


@pytest.mark.parametrize("patients", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("folds", [1, 3, 5])
def test_split_laws(patients, folds):
    names = [f"p{i}" for i in range(patients)]
    split = assign_folds(names, 0.2, folds, seed=4)
    assert set(split) == set(names)
    tests = sum(fold == "test" for fold in split.values())
    assert tests == (0 if patients == 1 else max(1, round(0.2 * patients)))
    sizes = [sum(fold == str(f) for fold in split.values()) for f in range(folds)]
    assert sum(sizes) + tests == patients and max(sizes) - min(sizes) <= 1
    assert split_hash(assign_folds(reversed(names * 2), 0.2, folds, seed=4)) == split_hash(split)
    if patients == 100:
        assert split_hash(assign_folds(names, 0.2, folds, seed=5)) != split_hash(split)
        assert assign_folds(names, 0.0, folds).keys() == split.keys()
        assert "test" not in assign_folds(names, 0.0, folds).values()


@pytest.mark.parametrize(("patients", "folds"), [(1, 3), (2, 3), (3, 3), (4, 3), (5, 3), (3, 1), (8, 2)])
def test_a_missing_section_is_noted_where_the_loader_finds_it_missing(tmp_path, patients, folds):
    dataset = load_dataset(make(tmp_path / "set", names="abcdefgh"[:patients], split=RandomSplit(folds=folds)))
    notes = " ".join(dataset.info["report"].get("notes", []))
    assert ("no patient for testing" in notes) == (not len(dataset.indices("testing")))
    same = [f for f in range(folds) if set(dataset.indices("training", f)) == set(dataset.indices("validation", f))]
    assert ("for validation" in notes) == bool(same)
    if same:
        assert f"fold {', '.join(map(str, same))}:" in notes


@pytest.mark.parametrize("fold", [0, 1, 2])
def test_too_few_patients_for_a_validation_says_so(tmp_path, caplog, fold):
    dataset = load_dataset(make(tmp_path / "set", names="ab"))
    with caplog.at_level(logging.WARNING):
        training, validation = dataset.indices("training", fold), dataset.indices("validation", fold)
    np.testing.assert_array_equal(training, validation)
    assert len(training) == 3 and not set(training) & set(dataset.indices("testing", fold))
    assert sum("the training patients are used" in record.message for record in caplog.records) == 1


def test_a_set_of_other_channels_or_classes_than_the_networks_is_refused(tmp_path):
    out = make(tmp_path / "set")
    load_dataset(out, channels=1, classes=1)
    with pytest.raises(
        InputError, match=r"has 1 channels \(ct\), the network 3; give --channels 1, or .*datalist.json"
    ):
        load_dataset(out, channels=3)
    with pytest.raises(InputError, match="has 1 classes .*, the network 4"):
        load_dataset(out, channels=1, classes=4)
