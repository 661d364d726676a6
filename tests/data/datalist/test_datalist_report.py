"""The dry run: every planted defect is found, honest disagreement is none, and it foresees what a real run does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from aleatoric.cli import main
from aleatoric.data.datalist import report as datalist_report
from aleatoric.data.datalist.checks import case_findings, distances
from aleatoric.data.datalist.command import prepare_datalist
from aleatoric.data.datalist.report import dry_run
from aleatoric.data.prepared.parallel import each_result
from aleatoric.data.prepared.reading import load_dataset
from aleatoric.errors import InputError
from aleatoric.metrics.functional import iou_distance
from simulated import datalist as simulated

#: planted -> what is said of it; of the last four, a sentence that names the file
KINDS = {
    "shifted mask": "shifted mask",
    "flipped mask": "flipped or swapped mask",
    "transposed mask": "flipped or swapped mask",
    "mask of another image": "mask of another image",
    "mask on another lesion": "mask of another image",
    "mask outside the content": "mask outside the content",
    "copied mask": "copied mask",
    "image twice": "image twice",
    "empty masks": "empty masks",
    "constant image": "constant image",
    "mask of another size": "(88, 96), (96, 96)",
    "missing mask": "there is no label",
    "damaged mask": "cannot be",
    "damaged image": "cannot be",
}
RATERS = ["Anna", "Ben", "Cem"]


def run(path: Path, **options: Any) -> dict[str, Any]:
    return dry_run(path, path.parent / "out", **{"workers": 1, "picture": False, **options})


def said(report: dict[str, Any]) -> dict[str, set[str]]:
    """Case -> kinds of its findings and sentences of its problems."""
    found: dict[str, set[str]] = {}
    for row in report["findings"]:
        found.setdefault(row["case"], set()).add(row["kind"])
    for row in report["problems"]:
        found.setdefault(row["case"], set()).add(row["sentence"])
    return found


@pytest.mark.parametrize(("volumes", "seed"), [(False, 0), (False, 1), (True, 2)])
def test_every_planted_defect_is_found_and_nothing_else(tmp_path, volumes, seed):
    assert tuple(KINDS) == simulated.DEFECTS
    path = simulated.write(tmp_path, len(KINDS) + 3, seed, defects=simulated.DEFECTS, volumes=volumes, size=96)
    report = run(path)
    found = said(report)
    planted = json.loads((tmp_path / "PLANTED.json").read_text())
    assert sorted(planted.values()) == sorted(KINDS)
    for case, defect in planted.items():
        words = KINDS[defect]
        if volumes and defect == "mask of another size":
            # its geometry says where it lies: it is placed there, and what it lacks is background
            assert case not in found
            continue
        assert any(words in sentence for sentence in found.pop(case)), (case, defect, report["findings"])
    # the other half of what concerns two images
    assert set(found) <= {"simulated_003", "simulated_007"} - set(planted) | set()
    assert report["suspicious"] == len({row["number"] for key in ("findings", "problems") for row in report[key]})


def test_the_other_half_of_a_pair_is_named(tmp_path):
    path = simulated.write(tmp_path, 4, defects=["image twice", "mask of another image"])
    report = run(path)
    rows = {(row["case"], row["kind"]): row for row in report["findings"]}
    assert set(rows) - {("simulated_002", "shifted mask")} == {  # it may look so as well
        ("simulated_000", "image twice"),
        ("simulated_001", "image twice"),
        ("simulated_001", "mask of another image"),
        ("simulated_002", "mask of another image"),
    }
    copied = rows["simulated_002", "mask of another image"]
    assert copied["raters"] == ("Ben",) and copied["numbers"]["cases"] == ["simulated_001", "simulated_002"]


@pytest.mark.parametrize("seed", range(3))
def test_honest_disagreement_is_not_suspicious(tmp_path, seed):
    report = run(simulated.write(tmp_path, 14, seed, volumes=seed == 2, size=96))
    assert report["findings"] == report["problems"] == [] and report["suspicious"] == 0
    assert sum(row["empty"] for row in report["raters"]) and sum(row["missing"] for row in report["raters"])


def test_a_command_with_nothing_to_look_at(tmp_path, capsys):
    path = simulated.write(tmp_path, 3, size=64)
    command = ["prepare", "datalist", str(path), str(tmp_path / "out"), "--dry-run", "--workers", "1"]
    assert main(command) == 0
    report = json.loads((tmp_path / "out.dry-run.json").read_text())
    assert report["suspicious"] == 0 and report["picture"] == str(tmp_path / "out.dry-run.png")
    assert "nothing looks wrong" in capsys.readouterr().out
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()
    assert (tmp_path / "out.dry-run.png").stat().st_size > 10_000


def test_a_command_with_something_to_look_at(tmp_path, capsys):
    path = simulated.write(tmp_path, 3, defects=["shifted mask"])
    command = ["prepare", "datalist", str(path), str(tmp_path / "out"), "--dry-run", "--workers", "1"]
    assert main(command) == 3
    out = capsys.readouterr().out
    assert "[shifted mask] simulated_001: Ben's mask" in out and "once it is moved by" in out
    assert str(tmp_path / "out.dry-run.png") in out and str(tmp_path / "out.dry-run.json") in out


def test_it_foresees_the_real_run(tmp_path):
    path = simulated.write(tmp_path, 16, defects=simulated.DEFECTS, size=96)
    for options in ({}, {"classes": 3}, {"fit": "pad", "patch_size": (96, 100)}):
        report = run(path, **options)
        dataset = load_dataset(prepare_datalist(path, tmp_path / "out", workers=1, overwrite=True, **options))
        real = dataset.info["report"]
        assert report["patches"] == len(dataset) and report["read"] == real["read"]
        assert report["skipped"] == real["skipped"] and report["excluded"] == real["excluded"]
        assert sorted(row["sentence"] for row in report["problems"]) == sorted(real["problems"])
        if "fit" not in options:  # masks are counted of images that are too large, too
            assert [row["files"] for row in report["raters"]] == dataset.rater_valid.sum(axis=0).tolist()


def test_what_is_counted(tmp_path):
    path = simulated.write(tmp_path, 10, seed=3, size=64)
    report = run(path)
    dataset = load_dataset(prepare_datalist(path, tmp_path / "out", workers=1, patch_size=(64, 80), fit="pad"))
    labels, valid = np.asarray(dataset.labels), dataset.rater_valid
    drew = labels.reshape(*labels.shape[:2], -1).any(axis=-1)
    assert [row["empty"] for row in report["raters"]] == (valid & ~drew).sum(axis=0).tolist()
    assert [row["missing"] for row in report["raters"]] == (~valid).sum(axis=0).tolist()
    assert report["classes"][1]["pixels"] == labels.sum() and report["classes"][1]["masks"] == drew.sum()
    pairs = [
        [
            float(iou_distance(torch.tensor(label)[None, [a]], torch.tensor(label)[None, [b]], num_classes=2))
            for a in range(3)
            for b in range(a)
            if there[a] and there[b]
        ]
        for label, there in zip(labels, valid)
    ]
    # every image counts once, as in "aleatoric show"
    assert report["disagreement"] == pytest.approx(np.mean([np.mean(own) for own in pairs if own]), abs=1e-4)
    assert report["sizes"] == {"64 x 64": 5, "64 x 80": 5} and report["spacings"] == {"unknown": 10}


def test_the_same_on_one_process_and_two_in_any_order(tmp_path, monkeypatch):
    path = simulated.write(tmp_path, 8, defects=simulated.DEFECTS[:6], size=96)
    one, two = run(path), run(path, workers=2)
    assert one == two
    monkeypatch.setattr(
        datalist_report, "each_result", lambda look, jobs, *_: reversed(list(each_result(look, jobs, 1, "images")))
    )
    assert run(path) == one


def test_a_value_without_a_class_is_told(tmp_path, capsys):
    path = simulated.write(tmp_path, 3)
    content = json.loads(path.read_text())
    del content["classes"]
    path.write_text(json.dumps(content))
    file = tmp_path / "masks" / "simulated_001_Cem.png"
    Image.fromarray((np.array(Image.open(file)) > 0).astype(np.uint8) * 2).save(file)
    assert main(["prepare", "datalist", str(path), str(tmp_path / "out"), "--dry-run", "--workers", "1"]) == 3
    out = capsys.readouterr().out
    assert "2 NOT A CLASS, see --classes" in out and "label value 2 found in" in out
    assert "label file that cannot be used" in out and "images that cannot be read" not in out
    report = run(path)
    assert (report["read"], report["skipped"]) == (3, {"label file that cannot be used": 1})
    assert [row["files"] for row in report["raters"]] == [3, 3, 2]
    dataset = load_dataset(prepare_datalist(path, tmp_path / "set", workers=1))
    assert dataset.rater_valid.sum(axis=0).tolist() == [3, 3, 2]
    assert run(path, classes=3)["skipped"] == {}


def test_a_picture_of_grey_values_is_told_in_one_line(tmp_path, capsys):
    path = simulated.write(tmp_path, 3)
    grey = np.arange(128 * 144).reshape(128, 144) % 201
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "masks" / "simulated_001_Cem.png")
    assert main(["prepare", "datalist", str(path), str(tmp_path / "out"), "--dry-run", "--workers", "1"]) == 3
    out = capsys.readouterr().out
    assert "grey values or colours" in out and out.count("NOT A CLASS") <= 5 and "more values" in out


def test_nobody_left_is_no_rater_who_drew_nothing(tmp_path):
    path = simulated.write(tmp_path, 3)
    for rater in simulated.RATERS:
        file = tmp_path / "masks" / f"simulated_001_{rater}.png"
        Image.fromarray((np.array(Image.open(file)) > 0).astype(np.uint8) * 7).save(file)
    report = run(path)
    assert (report["read"], report["skipped"], report["findings"]) == (2, {"images that cannot be read": 1}, [])
    assert [row["files"] for row in report["raters"]] == [2, 2, 2]


@pytest.mark.parametrize("picture", [True, False])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path, monkeypatch, picture):
    path = simulated.write(tmp_path, 2, size=64)
    (tmp_path / "file").write_text("")
    with monkeypatch.context() as patch:
        patch.setattr(datalist_report, "plan_datalist", lambda *_, **__: pytest.fail("read"))
        with pytest.raises(InputError, match="file/set.dry-run.json cannot be written .*a writable folder expected"):
            dry_run(path, tmp_path / "file" / "set", workers=1, picture=picture)
    report = dry_run(path, tmp_path / "absent" / "deeper" / "set", workers=1, picture=picture)
    assert Path(report["json"]).is_file() and (not picture or Path(report["picture"]).is_file())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(datalist_report, "write_atomically", full)
    with pytest.raises(InputError, match="no space left for .*dry-run.json"):
        dry_run(path, tmp_path / "set", workers=1, picture=picture)


def test_two_constant_images_are_no_copies(tmp_path):
    path = simulated.write(tmp_path, 4)
    for number in (0, 2):
        Image.fromarray(np.full((128, 128), 9, np.uint8)).save(tmp_path / "images" / f"simulated_{number:03d}.png")
    assert {row["kind"] for row in run(path)["findings"]} == {"constant image"}


def test_nothing_readable(tmp_path):
    path = simulated.write(tmp_path, 2)
    for file in (tmp_path / "images").iterdir():
        file.write_bytes(b"")
    with pytest.raises(InputError, match="none of 2 entries could be read.*entry 1: .*simulated_000.png is empty"):
        run(path)


# ------------------------------------------------------------------------------------------------ the checks


def blob(centre: tuple[float, float], radius: float, shape: tuple[int, int] = (96, 96)) -> np.ndarray:
    y, x = np.indices(shape)
    angle = np.arctan2(y - centre[0], x - centre[1])
    return (np.hypot(y - centre[0], x - centre[1]) < radius * (1 + 0.25 * np.cos(2 * angle + 1))).astype(np.uint8)


def kinds(masks: list[np.ndarray], valid: list[bool] | None = None) -> list[tuple[str, tuple[str, ...]]]:
    image = np.random.default_rng(0).normal(size=(1, *masks[0].shape))
    found = case_findings(image, np.stack(masks), np.array(valid or [True] * len(masks)), "c", RATERS)
    return [(row.kind, row.raters) for row in found]


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(st.floats(35, 60), st.floats(35, 60)),
    st.floats(9, 14),
    st.tuples(st.integers(-25, 25), st.integers(-25, 25)),
)
def test_a_shift_is_found_with_its_size(centre, radius, shift):
    masks = [blob(centre, radius), np.roll(blob(centre, radius * 1.05), shift, (0, 1)), blob(centre, radius * 1.1)]
    image = np.random.default_rng(0).normal(size=(1, 96, 96))
    found = case_findings(image, np.stack(masks), np.ones(3, bool), "c", RATERS)
    before = (masks[0] & masks[1]).sum() / (masks[0] | masks[1]).sum()
    if before < 0.2:
        (row,) = found
        assert row.raters == ("Ben",)
        if row.kind == "shifted mask":
            assert np.abs(np.add(row.numbers["shift"], shift)).max() <= 1
        else:  # a shift that a flip undoes as well
            assert row.kind == "flipped or swapped mask" and row.numbers["iou_after"] >= 0.6
    elif before > 0.6:  # the others agree by 0.83, and 0.3 less than that is odd
        assert not found


def test_two_raters_who_cannot_be_told_apart():
    masks = [blob((30, 40), 10), blob((60, 75), 10)]
    ((kind, raters),) = kinds(masks)
    assert kind == "shifted mask" and raters == ("Anna", "Ben")


def test_what_is_honest():
    near, far = blob((40, 40), 10), blob((70, 20), 10)
    assert not kinds([near, blob((42, 41), 8), blob((40, 40), 10) * 0])  # one sees nothing
    assert not kinds([near, blob((41, 38), 16), blob((40, 40), 6)])  # one draws much more
    assert not kinds([blob((40, 40), 3), blob((43, 44), 3), blob((38, 40), 3)])  # too small to tell
    small = blob((40, 40), 2.5)
    assert 12 < small.sum() < 30 and not kinds([small, blob((60, 44), 2.5), small])  # too small to have a place
    assert not kinds([near, far, blob((70, 70), 14)])  # nobody agrees with anybody
    assert not kinds([near, far, near * 0], [True, False, True])  # a missing rater's mask is no mask
    assert kinds([near * 0] * 3) == [("empty masks", ())]
    assert kinds([near, near, blob((41, 40), 10)]) == [("copied mask", ("Anna", "Ben"))]
    assert not kinds([blob((40, 40), 4), blob((40, 40), 4), blob((41, 40), 4)])  # small ones may be equal


def test_ground_is_the_commonest_value():
    image = np.zeros((1, 96, 96))
    image[0, 20:80, 20:80] = np.random.default_rng(0).normal(size=(60, 60))
    inside, outside, half = blob((50, 50), 10), blob((10, 10), 8), blob((20, 50), 8)

    def names(*masks: np.ndarray) -> list[Any]:
        found = case_findings(image, np.stack(masks), np.ones(3, bool), "c", RATERS)
        return [row.raters for row in found if row.kind == "mask outside the content"]

    assert names(outside, inside, blob((51, 50), 9)) == [("Anna",)]
    assert names(inside, half, half) == []  # a border that reaches beyond the content is a border
    image[0, 40:60, 40:60] = 3  # a lesion of one value is no ground
    assert not names(inside, blob((50, 51), 9), blob((51, 50), 9))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 4))
def test_distances_are_those_of_the_metrics(seed, classes):
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, (4, 9, 8)).astype(np.uint8) * random.integers(0, 2, (4, 1, 1), dtype=np.uint8)
    valid = random.random(4) < 0.8
    found = distances(labels, valid, classes)
    both = torch.tensor(labels)[None]
    expected = iou_distance(both, both, spatial_dims=2, num_classes=classes)[0].numpy()
    there = valid[:, None] & valid
    np.testing.assert_allclose(found[there], expected[there], atol=1e-6)
    assert np.isnan(found[~there]).all()
