"""``aleatoric show`` tells what is in the files: every figure has a slow twin, every refusal is a sentence."""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from aleatoric.data import PreparedDatasetWriter, load_dataset
from aleatoric.errors import InputError
from aleatoric.show import add_arguments, describe, label_figures, labels, run, spread


def make(out, raters=4, classes=2, channels=1, size=(12, 10), patients=5, patches=3, dtype="int16", **changes):
    """A data set whose raters scribble, leave masks empty and are missing at times."""
    writer = PreparedDatasetWriter(
        out,
        **{
            "name": "toy",
            "source": "made up",
            "options": {},
            "channels": [f"channel{c}" for c in range(channels)],
            "classes": ["background", *(f"class{c}" for c in range(1, classes))],
            "raters": raters,
            "intensity_window": (-1000, 400),
            "image_dtype": dtype,
            "patch_size": size,
            **changes,
        },
    )
    random = np.random.default_rng(3)
    for number in range(patients):
        name = f"p{number}"
        images = random.normal(-300, 600, (patches, channels, *size)).astype(dtype)
        drawn = random.integers(0, classes, (patches, raters, *size)) * (random.random((patches, raters, *size)) < 0.3)
        drawn *= (random.random((patches, raters)) < 0.7).reshape(patches, raters, *[1] * len(size))
        drawn[:, -1] = np.minimum(drawn[:, -1], 1)  # the last rater knows one class only
        valid = random.random((patches, raters)) < 0.7
        cases = [
            {"case": f"{name}-{i}", "patient": name, "slice": i, "spacing": 0.5 if number % 3 else 0.75}
            for i in range(patches)
        ]
        skipped = {"slice of another size": 2} if number == 0 else {}
        writer.write(name, images, drawn.astype(np.uint8), valid, cases, skipped=skipped)
    return writer.finish({"read": patients, "units": "scans", "problems": ["p0.nii is shorter than it says."]})


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return make(tmp_path_factory.mktemp("show") / "toy", patients=6)


def show(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(word) for word in words]))


def twin(dataset, positions):
    """The two means of 1 - IoU, pair by pair and pixel by pixel."""
    distinct, with_self = [], []
    for position in positions:
        maps = dataset.labels[position][dataset.rater_valid[position]]
        kinds = [int(k) for k in np.unique(maps) if k > 0]

        def one(a, b, kinds=kinds):
            scores = []
            for kind in kinds:
                union = ((a == kind) | (b == kind)).sum()
                scores.append(0.0 if union == 0 else 1 - ((a == kind) & (b == kind)).sum() / union)
            return float(np.mean(scores)) if scores else 0.0

        if len(maps) > 1:
            distinct.append(np.mean([one(a, b) for a, b in itertools.combinations(maps, 2)]))
        if len(maps):
            with_self.append(np.mean([one(a, b) for a, b in itertools.product(maps, maps)]))
    return distinct, with_self


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"classes": 4, "raters": 7},
        {"size": (6, 5, 4), "channels": 2, "dtype": "float32"},
        {"raters": 2},
        {"raters": 1},
    ],
    ids=["binary", "classes", "volumes", "two raters", "one rater"],
)
@pytest.mark.parametrize("block", [1, 500, 1 << 24])
def test_figures_equal_a_brute_force_twin_in_blocks_of_any_size(tmp_path, monkeypatch, changes, block):
    monkeypatch.setattr(labels, "_BLOCK", block)
    dataset = load_dataset(make(tmp_path / "set", **changes))
    positions = np.arange(len(dataset))[1:]
    found = label_figures(dataset, positions)
    maps, valid = dataset.labels[positions], dataset.rater_valid[positions]
    assert (~valid).any() and (maps[valid].reshape(valid.sum(), -1).max(1) == 0).any()

    distinct, with_self = twin(dataset, positions)
    assert (found.distinct_patches, found.with_self_patches) == (len(distinct), len(with_self))
    np.testing.assert_allclose(found.distinct, np.mean(distinct) if distinct else np.nan, atol=1e-6)
    np.testing.assert_allclose(found.with_self, np.mean(with_self), atol=1e-6)

    assert found.slots == valid.size and found.missing == (~valid).sum()
    drew = [sum(bool(v and m.any()) for m, v in zip(patch, there)) for patch, there in zip(maps, valid)]
    assert found.empty == valid.sum() - sum(drew)
    assert found.drew.tolist() == [drew.count(number) for number in range(valid.shape[1] + 1)]
    for value in range(len(dataset.info["classes"])):
        np.testing.assert_allclose(found.pixels[value], (maps[valid] == value).mean())
        np.testing.assert_allclose(found.occurs[value], np.mean([(m == value).any() for m in maps[valid]]))


def test_what_a_missing_rater_left_in_the_file_does_not_count(tmp_path):
    dataset = load_dataset(make(tmp_path / "set"))
    other = np.array(dataset.labels)
    other[~dataset.rater_valid] = 1
    changed = type(dataset)(dataset.root, dataset.info, dataset.cases, dataset.images, other, dataset.rater_valid)
    assert not np.array_equal(other, dataset.labels)
    positions = np.arange(len(dataset))
    for one, two in zip(label_figures(dataset, positions), label_figures(changed, positions)):
        np.testing.assert_array_equal(one, two)


def test_the_text_says_what_the_files_hold(toy):
    dataset = load_dataset(toy)
    text = "\n".join(describe(dataset, "testing"))
    for fold in range(3):
        (line,) = [line.split() for line in text.splitlines() if line.startswith(f"fold {fold}")]
        parts = [dataset.indices(section, fold) for section in ("training", "validation", "testing")]
        patients = [len({dataset.cases[i]["patient"] for i in part}) for part in parts]
        assert line[2:] == [word for part, p in zip(parts, patients) for word in (str(len(part)), f"({p})")]
    figures = label_figures(dataset, parts[2])
    assert re.search(rf"distinct pairs +{figures.distinct:.4f} .*: {figures.distinct_patches}\)", text)
    assert re.search(rf"self-pairs +{figures.with_self:.4f} ", text)
    assert re.search(r"spacing +0\.5 mm \(0\.5 to 0\.75\)", text)
    assert re.search(r"could not be used +2 x slice of another size", text)
    assert re.search(r"problems +p0\.nii is shorter", text) and re.search(r"read +6 scans", text)
    assert re.search(r"made by +a command that was not recorded", text)
    low, *_, high = np.quantile(dataset.images[parts[2]], [0, 1])
    (line,) = [line.split() for line in text.splitlines() if line.startswith("  channel0")]
    assert line[1] == f"{low:.5g}" and line[7] == f"{high:.5g}"
    shares = [(dataset.images[parts[2]] < -1000).mean(), (dataset.images[parts[2]] > 400).mean()]
    assert line[8:] == [f"{share:.1%}" for share in shares]


def test_a_set_without_the_optional_words_is_shown_too(tmp_path):
    out = make(tmp_path / "set", raters=1)
    info = json.loads((out / "dataset.json").read_text())
    for key in ("name", "source", "report", "command"):
        info.pop(key, None)
    (out / "dataset.json").write_text(json.dumps(info))
    assert "left out" in "\n".join(describe(load_dataset(out)))
    info["report"] = {"read": 5, "skipped": None, "excluded": [], "problems": ["a"] * 13, "problem_count": 120}
    (out / "dataset.json").write_text(json.dumps(info))
    assert "... and 110 more; dataset.json lists 13" in "\n".join(describe(load_dataset(out)))
    info["report"] = "nothing of use"
    (out / "dataset.json").write_text(json.dumps(info))
    text = "\n".join(describe(load_dataset(out)))
    assert "no patch with two raters or more" in text and re.search("left out +nothing", text)


def test_patches_are_spread_over_patients_and_depend_on_the_seed_alone():
    cases = [{"patient": "big"}] * 50 + [{"patient": f"small{i}"} for i in range(4)]
    positions = np.arange(len(cases))
    chosen = spread(cases, positions, 8, seed=1)
    assert [cases[i]["patient"] for i in chosen] == ["big"] * 4 + [f"small{i}" for i in range(4)]
    assert (
        chosen.tolist() == spread(cases, positions, 8, seed=1).tolist() != spread(cases, positions, 8, seed=2).tolist()
    )
    assert spread(cases, positions[3:5], 8).tolist() == [3, 4]


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": 4, "raters": 9, "channels": 3, "dtype": "float32", "size": (24, 20)},
        {"size": (20, 16, 8), "channels": 2, "dtype": "float32"},
        {"raters": 1, "size": (20, 24)},
    ],
    ids=["many", "volumes", "one rater"],
)
def test_any_set_becomes_a_picture(tmp_path, capsys, changes):
    out = make(tmp_path / "set", **changes)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    picture = tmp_path / "new" / "a.png"
    words = [
        "--channel",
        changes.get("channels", 1) - 1,
        "--patches",
        3,
        "--zoom",
        "--section",
        "training",
        "--fold",
        1,
    ]
    assert show(out, "--out", picture, *words) == 0
    assert picture.read_bytes().startswith(b"\x89PNG") and [path.name for path in picture.parent.iterdir()] == ["a.png"]
    assert capsys.readouterr().out.splitlines()[-1] == f"picture of 3 patches: {picture}"
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_without_out_the_picture_lies_right_here_and_cases_can_be_named(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shown = []
    monkeypatch.setattr("aleatoric.show.patch_sheet", lambda *_, **words: shown.extend(words["names"]))
    monkeypatch.setattr("aleatoric.show.save_figure", lambda _, path: shown.append(str(path)))
    assert show(toy, "--case", "p3-1", "p0-2", "p3-1") == 0
    assert shown == ["p3-1", "p0-2", "toy.png"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--patches", "0"], "expected 1 to 400"),
        (["--seed", "-1"], "expected 0 or more"),
        (["--fold", "7"], "0 to 2 expected"),
        (["--channel", "1"], "expected 0 to 0 \\(channel0\\)"),
        (["--case", "p3-1", "p33"], "no case p33 .* take p3-"),
        (["--case", "p3"], "take p3-0 or p3-1 or p3-2 for example"),
        (["--out", "a.docx"], "name it .png"),
        (["--out", "{set}/a.png"], "inside the data set"),
        (["--out", "{set}/deep/../deeper/a.png"], "inside the data set"),
        (["--out", "{link}/a.png"], "inside the data set"),
        (["--out", "{folder}"], "found the folder"),
        (["--out", "{file}/a.png"], "cannot be written"),
    ],
)
def test_bad_input_is_refused_in_a_sentence_and_the_set_stays_as_it_was(toy, tmp_path, monkeypatch, words, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(toy)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("")
    places = {"set": toy, "link": "link", "folder": "folder.png", "file": "file"}
    before = sorted(path.name for path in toy.iterdir())
    with pytest.raises(InputError, match=sentence):
        show(toy, *(word.format(**places) for word in words))
    assert sorted(path.name for path in toy.iterdir()) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png", "link"]


def test_a_section_without_a_patch_and_no_data_set_are_refused(tmp_path):
    from aleatoric.data.prepared.splits import RandomSplit

    out = make(tmp_path / "set", patients=1, split=RandomSplit(test_fraction=0.0, folds=1))
    with pytest.raises(InputError, match="no patch in section testing"):
        show(out, "--section", "testing", "--out", tmp_path / "a.png")
    with pytest.raises(InputError, match="not a folder"):
        show(tmp_path / "nowhere", "--out", tmp_path / "a.png")
    assert not (tmp_path / "a.png").exists()


def test_whether_it_is_a_data_set_is_said_before_anything_of_the_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in ([], ["--out", "a.docx"], ["--out", "a.png"]):
        with pytest.raises(InputError, match="is no prepared data set"):
            show(".", *words)
    assert not list(tmp_path.iterdir())


def test_help_needs_no_torch():
    code = "import sys, aleatoric.show; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
