"""LIST.json: every form that it may have, every mistake in one sentence, and nothing else whatever it holds."""

from __future__ import annotations

import copy
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from damage import damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import load_decathlon_datalist

from aleatoric.data.datalist.entries import DataList, numbered, read_datalist, stem
from aleatoric.data.datalist.json import as_classes
from aleatoric.errors import InputError

IMAGES = ("a.nii.gz", "b.png", "c.png", "p1/t1.nii.gz", "p2/t1.nii.gz")


def listed(root: Path, content: Any) -> Path:
    for name in IMAGES:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    path = root / "LIST.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def entry(image: Any = "a.nii.gz", label: Any = ("r1.png", "r2.png"), **more: Any) -> dict[str, Any]:
    return {"image": image, "label": list(label) if isinstance(label, tuple) else label, **more}


def labels(found: DataList) -> list[list[str | None]]:
    return [[label and Path(label).name for label in e.labels] for e in found.entries]


def test_raters_by_position(tmp_path):
    content = [entry("a.nii.gz", ["x", None]), entry("b.png", ["", "y", "z"]), entry("c.png", "w")]
    found = read_datalist(listed(tmp_path, content))
    assert found.raters == ("rater 1", "rater 2", "rater 3")
    assert labels(found) == [["x", None, None], [None, "y", "z"], ["w", None, None]]


def test_raters_by_name(tmp_path):
    content = {"training": [entry("a.nii.gz", {"Anna": "x", "Ben": None}), entry("b.png", {"Cem": "y", "Anna": "z"})]}
    found = read_datalist(listed(tmp_path, content))
    assert found.raters == ("Anna", "Ben", "Cem")
    assert labels(found) == [["x", None, None], ["z", None, "y"]]
    found = read_datalist(listed(tmp_path, {**content, "raters": ["Cem", "Ben", "Anna", "Dan"]}))
    assert labels(found) == [[None, None, "x", None], ["y", None, "z", None]]


def test_paths_are_those_of_monai(tmp_path):
    content = {"training": [entry(["a.nii.gz", "./p1/../b.png"], ["m/x.png", "y.png"]), entry("c.png", ["z", "w"])]}
    path = listed(tmp_path, content)
    theirs = load_decathlon_datalist(path, True, "training")
    ours = read_datalist(path).entries
    for mine, other in zip(ours, theirs):
        images = other["image"] if isinstance(other["image"], list) else [other["image"]]
        assert [str(Path(p)) for p in images] == [str(Path(p)) for p in mine.image]
        assert [str(Path(p)) for p in other["label"]] == list(mine.labels)


def test_root_and_absolute_paths(tmp_path):
    (tmp_path / "lists").mkdir()
    (tmp_path / "a.nii.gz").touch()
    path = tmp_path / "lists" / "LIST.json"
    path.write_text(json.dumps([entry("a.nii.gz", ["x", str(tmp_path / "y")])]))
    with pytest.raises(InputError, match=r"training entry 1: there is no image .*lists/a.nii.gz.*--root"):
        read_datalist(path)
    found = read_datalist(path, tmp_path).entries[0]
    assert found.image == (str(tmp_path / "a.nii.gz"),)
    assert found.labels == (str(tmp_path / "x"), str(tmp_path / "y"))


def test_sections_and_folds(tmp_path):
    content = {
        "training": [entry("a.nii.gz", fold=2), entry("b.png")],
        "validation": [entry("c.png")],
        "testing": [entry("p1/t1.nii.gz")],
        "test": ["p2/t1.nii.gz"],
    }
    found = read_datalist(listed(tmp_path, content))
    assert [e.fold for e in found.entries] == ["2", "train", "0", "test"]
    assert [e.section for e in found.entries] == ["training", "training", "validation", "testing"]
    assert [e.where for e in found.entries][-1] == "testing entry 1"
    assert found.has_folds
    assert any("1 of 5 entries name no label" in note for note in found.notes)


def test_names(tmp_path):
    found = read_datalist(listed(tmp_path, [entry("a.nii.gz"), entry("b.png")]))
    assert [(e.case, e.patient) for e in found.entries] == [("a", "a"), ("b", "b")]
    assert any("2 of 2 entries name no patient" in note for note in found.notes)
    # one file name in two folders is two patients
    found = read_datalist(listed(tmp_path, [entry("p1/t1.nii.gz"), entry("p2/t1.nii.gz")]))
    assert [(e.case, e.patient) for e in found.entries] == [("p1_t1", "p1_t1"), ("p2_t1", "p2_t1")]
    # one image listed twice is one patient
    found = read_datalist(listed(tmp_path, [entry(case="left"), entry(case="right")]))
    assert [(e.case, e.patient) for e in found.entries] == [("left", "a"), ("right", "a")]
    found = read_datalist(
        listed(tmp_path, [entry(patient=7, site="north", age=61, slice=3, drawn_inside="no", extra={"x": 1})])
    )
    assert found.entries[0].patient == "7"
    assert found.entries[0].columns == {"site": "north", "age": "61", "list_slice": "3", "list_drawn_inside": "no"}
    assert found.notes == ["keys of entries that were not used: extra"]
    assert [stem(name) for name in ("x/a.nii.gz", "a.b.png", "series/", ".hidden")] == ["a", "a.b", "series", ".hidden"]


def test_units_keep_the_order_and_fit_into_a_file_name(tmp_path):
    found = read_datalist(listed(tmp_path, [entry("b.png", case="ä/" * 200), entry("a.nii.gz")]))
    units = [unit for unit, _ in numbered(found.entries)]
    assert units == sorted(units)
    assert all(len(unit) < 80 and unit.isascii() and "/" not in unit for unit in units)


def test_classes_and_channels(tmp_path):
    assert as_classes(2, "x") == ("background", "foreground")
    assert as_classes(3, "x") == ("background", "class 1", "class 2")
    assert as_classes(["core", "edema"], "x") == ("background", "core", "edema")
    assert as_classes(["Background", "core"], "x") == ("Background", "core")
    assert as_classes({"0": "bg", "2": "core"}, "x") == ("bg", "class 1", "core")
    assert as_classes({"background": 0, "core": 1}, "x") == ("background", "core")
    found = read_datalist(
        listed(tmp_path, {"training": [entry()], "labels": {"0": "b", "1": "c"}, "modality": {"0": "CT"}})
    )
    assert (found.classes, found.channels) == (("b", "c"), ("CT",))


MISTAKES = {
    "not JSON": ("{'training': []}", "is not JSON"),
    "deeply nested": ("[" * 100_000, "is not JSON"),
    "a number": ("7", "holds a int"),
    "empty": ({}, "has no entries"),
    "no entries": ({"training": []}, "has no entries"),
    "section of another type": ({"training": {"image": 1}}, "'training' is a dict"),
    "mistyped section": ({"trainning": [entry()]}, "unknown key 'trainning' found, perhaps 'training'"),
    "section of another name": ({"fit": [entry()]}, "section 'fit' found, one of training"),
    "key twice": ('{"training": [], "training": []}', "key 'training' found twice"),
    "entry of another type": ([7], "training entry 1 is a int"),
    "mistyped key": ([entry(), entry("b.png", lable=1)], "training entry 2: unknown key 'lable'.*'label'"),
    "key of another program": ([entry(patient_id="p")], "unknown key 'patient_id'.*'patient'"),
    "no image": ([{"label": "x"}], "training entry 1 has no 'image'"),
    "image is missing": ([entry("none.png")], "training entry 1: there is no image"),
    "image with a null": ([entry("a\0.png")], "control characters"),
    "image that no file system knows": ([entry("\ud800.png")], "control characters"),
    "image name too long": ([entry("x" * 5000)], "there is no image"),
    "image is a number": ([entry([1])], "training entry 1: 1 found, a file as 'image'"),
    "no label at all": ([entry(label=None), entry("b.png", [None, ""])], "2 entries, none with a label"),
    "label is a number": ([entry(label=5)], "label 5 found"),
    "label in a list is a number": ([entry(label=[5])], "training entry 1: 5 found, a file as 'label'"),
    "named and not": ([entry(), entry("b.png", {"Anna": "x"})], "entry 1 gives its labels without.*entry 2 with"),
    "unknown rater": ({"raters": ["Ann"], "training": [entry(label={"Anna": "x"})]}, "names rater 'Anna', one of Ann"),
    "more labels than raters": ({"raters": ["Ann"], "training": [entry()]}, "has 2 labels, at most 1"),
    "one rater twice": ({"raters": ["A", "A"], "training": [entry()]}, "one name twice"),
    "one case twice": ([entry(case="k"), entry("b.png", case="k")], "entry 1 and training entry 2 are both case 'k'"),
    "one image twice": ([entry(), entry()], "entry 1 and training entry 2 are both case 'a'"),
    "fold in words": ([entry(fold="first")], "fold 'first' found"),
    "negative fold": ([entry(fold=-1)], "fold '-1' found"),
    "endless fold": ([entry(fold="9" * 5000)], "fold '9+' found"),
    "true as a fold": ([entry(fold=True)], "True found, a name as 'fold'"),
    "one class": ({"classes": 1, "training": [entry()]}, "1 classes found"),
    "classes in regions": (
        {"labels": {"background": 0, "whole": [1, 2]}, "training": [entry()]},
        "a number and a name",
    ),
    "classes of another type": ({"classes": 1.5, "training": [entry()]}, "a list of names expected"),
    "channels of another type": ({"channels": "CT", "training": [entry()]}, "channels: 'CT' found"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(tmp_path, mistake):
    content, words = MISTAKES[mistake]
    with pytest.raises(InputError, match=words) as caught:
        read_datalist(listed(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_no_list(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_datalist(tmp_path / "none.json")
    with pytest.raises(InputError, match="is a folder, a datalist in JSON expected; give the file itself"):
        read_datalist(tmp_path)
    (tmp_path / "a.nii").write_bytes(b"\x5c\x01" + bytes(400))
    (tmp_path / "a.nii.gz").write_bytes(b"\x1f\x8b\x08\xff\xfe")
    for name in ("a.nii", "a.nii.gz"):
        with pytest.raises(InputError, match="is no text, a datalist in JSON expected") as caught:
            read_datalist(tmp_path / name)
        assert "codec" not in str(caught.value)
    with pytest.raises(InputError, match="is not a folder"):
        read_datalist(listed(tmp_path, [entry()]), tmp_path / "none")


def raters_noted(tmp_path: Path, names: list[str], **top: Any) -> list[str]:
    """Notes on a list whose entries name these raters, one letter each (``"AA"`` as ``"a"``, ``"Anna"`` as ``"n"``)."""
    words = {"a": "AA", "n": "Anna"}
    entries = [
        entry("a.nii.gz", {words.get(letter, letter): "x.png" for letter in own}, case=f"c{k}")
        for k, own in enumerate(names)
    ]
    found = read_datalist(listed(tmp_path, {**top, "training": entries}))
    return [note for note in found.notes if "rater" in note]


def test_a_rater_who_is_hardly_named_is_a_note(tmp_path):
    (note,) = raters_noted(tmp_path, [*["AB"] * 5, "aB"])
    assert "rater 'AA' is named in 1 of 6 entries" in note and "perhaps 'A' is meant" in note
    (note,) = raters_noted(tmp_path, [*["AB"] * 10, "An", "nA"])
    assert "rater 'Anna' is named in 2 of 12 entries" in note and "perhaps" not in note
    assert len(raters_noted(tmp_path, [*["A"] * 5, "a"])) == 1  # the others' median, also of one other
    # honest: a rater of few cases beside others of few, two of nine, all alike
    assert not raters_noted(tmp_path, [*["AB"] * 4, "aB"])
    assert not raters_noted(tmp_path, [*["AB"] * 7, "Aa", "aB"])
    assert not raters_noted(tmp_path, ["A", "B", "C", "a"])
    # names that the list itself gives are meant; any other is refused
    assert not raters_noted(tmp_path, [*["AB"] * 5, "aB"], raters=["A", "AA", "B"])


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([*IMAGES, "training"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["image", "label", "case", "fold", "0", "1"]) | st.text(max_size=4), inner)
    ),
    max_leaves=6,
)
SOUND = {
    "name": "x",
    "labels": {"0": "background", "1": "lesion"},
    "raters": ["Anna", "Ben"],
    "training": [entry(label={"Anna": "x", "Ben": None}, patient="p", fold=0), entry(["b.png", "c.png"])],
    "testing": [entry("p1/t1.nii.gz")],
}


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    return [(value, key) for key in keys] + [place for key in keys for place in places(value[key])]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_whatever_a_list_holds(data):
    content = copy.deepcopy(SOUND)
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(content)))
        if isinstance(container, dict) and data.draw(st.booleans()):
            key = data.draw(st.text(max_size=8))
        container[key] = data.draw(JSON)
    with tempfile.TemporaryDirectory() as folder:
        survives(listed(Path(folder), json.dumps(content)))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_bytes(data):
    with tempfile.TemporaryDirectory() as folder:
        path = listed(Path(folder), SOUND)
        path.write_bytes(data.draw(damaged(path.read_bytes())))
        survives(path)


def survives(path: Path) -> None:
    try:
        found = read_datalist(path)
    except InputError as error:
        assert "\n" not in str(error).strip()
        return
    cases = [e.case for e in found.entries]
    assert cases and len(set(cases)) == len(cases)
    assert all(len(e.labels) == len(found.raters) and any(e.labels) for e in found.entries)
    assert all(e.fold in ("test", "train") or int(e.fold) >= 0 for e in found.entries)
