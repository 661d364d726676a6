"""Which cases, images and raters are found in QUBIQ's folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from aleatoric.data.qubiq.tree import TASKS, find_cases
from aleatoric.errors import InputError
from simulated import qubiq as simulated

SMALL = {"size": (24, 24), "slices": 4}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated.write(tmp_path_factory.mktemp("tree"), 3, **SMALL, strays=True)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_is_found_in_the_released_tree(tree: Path, task: str) -> None:
    cases = find_cases(tree, task)
    volume = TASKS[task].volume
    numbers = ["001-01", "001-02", "002-01", "002-02"] if volume else ["001", "002", "003", "004"]
    origins = ["Training"] * 3 + ["Validation"]
    assert [case.name for case in cases] == [f"{o.lower()}-case{n}" for o, n in zip(origins, numbers)]
    assert [case.origin for case in cases] == origins
    for case in cases:
        assert case.image == "image.nii.gz"
        assert list(case.masks) == list(range(1, TASKS[task].raters + 1))
        assert all(f"task{TASKS[task].number:02d}_seg{r:02d}.nii.gz" == file for r, file in case.masks.items())
        assert not case.problems and (tree / case.label / case.image).is_file()


def test_any_of_the_folders_may_be_given(tree: Path) -> None:
    whole = find_cases(tree, "kidney")
    training = [case.name for case in whole if case.origin == "Training"]
    upper = tree / "training_data_v3_QC"
    for root in (upper, upper / "kidney", upper / "kidney" / "Training"):
        assert [case.name for case in find_cases(root, "kidney")] == training
    assert [case.name for case in find_cases(upper / "kidney" / "Training" / "case02", "kidney")] == training[1:2]
    lesion = find_cases(upper / "pancreatic-lesion", "pancreatic-lesion")  # the level above says what it is for
    assert {case.origin for case in lesion} == {"Training"}


def test_links_are_followed_and_may_lead_back(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "qubiq").symlink_to(tree)
    (tmp_path / "back").symlink_to(tmp_path)
    assert len(find_cases(tmp_path, "kidney")) == 4


def test_folders_by_other_names(tree: Path, tmp_path: Path) -> None:
    shutil.copytree(tree / "training_data_v3_QC" / "brain-growth", tmp_path / "Brain_Growth")
    assert len(find_cases(tmp_path, "brain-growth")) == 3
    (tmp_path / "Brain_Growth").rename(tmp_path / "mine")
    assert [case.origin for case in find_cases(tmp_path / "mine", "brain-growth")] == ["Training"] * 3
    (tmp_path / "mine" / "Training").rename(tmp_path / "mine" / "all")
    assert [case.name for case in find_cases(tmp_path / "mine", "brain-growth")] == ["case001", "case002", "case003"]


@pytest.mark.parametrize("prefix", ["case", "both"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_other_names_of_masks(tmp_path: Path, prefix: str, suffix: str) -> None:
    simulated.write(tmp_path, 1, datasets=["kidney"], prefix=prefix, suffix=suffix, **SMALL)
    for case in find_cases(tmp_path, "kidney"):
        assert len(case.masks) == 3 and all(file.startswith("case0") for file in case.masks.values())


def test_without_a_task_in_its_name_a_mask_is_task_1s(tmp_path: Path) -> None:
    simulated.write(tmp_path, 1, datasets=["prostate"], validation=0, **SMALL)
    (case,) = find_cases(tmp_path, "prostate-1")
    Path(case.folder, "task01_seg04.nii.gz").rename(Path(case.folder, "case01_seg04.nii.gz"))
    assert find_cases(tmp_path, "prostate-1")[0].masks[4] == "case01_seg04.nii.gz"
    (other,) = find_cases(tmp_path, "prostate-2")
    assert other.masks[4] == "task02_seg04.nii.gz" and not other.problems


def test_files_too_many_are_named_and_not_used(tmp_path: Path) -> None:
    simulated.write(tmp_path, 1, datasets=["kidney"], validation=0, **SMALL)
    folder = Path(find_cases(tmp_path, "kidney")[0].folder)
    for name in ("case01_seg02.nii.gz", "task01_seg04.nii.gz", "image.nii"):
        shutil.copy(folder / "task01_seg01.nii.gz", folder / name)
    (case,) = find_cases(tmp_path, "kidney")
    assert case.masks == {r: f"task01_seg0{r}.nii.gz" for r in (1, 2, 3)}
    assert sorted(reason for reason, _ in case.problems) == [
        "mask of a rater beyond the task's",
        "second image of a case",
        "second mask of a rater",
    ]
    assert all(str(folder) in sentence for _, sentence in case.problems)


def test_the_same_number_in_training_and_validation(tmp_path: Path) -> None:
    simulated.write(tmp_path, 2, datasets=["kidney", "pancreas"], validation=2, restart=True, **SMALL)
    kidneys = find_cases(tmp_path, "kidney")
    assert len({case.name for case in kidneys}) == len({case.patient for case in kidneys}) == 4
    scans = find_cases(tmp_path, "pancreas")  # patient 1, scans 1 and 2, in both
    assert len({case.name for case in scans}) == 4
    assert {case.patient for case in scans} == {"case001"}


def test_numbers_sort_as_numbers(tmp_path: Path) -> None:
    for number in ("case2", "case10", "case1"):
        (tmp_path / "kidney" / number).mkdir(parents=True)
    assert [Path(case.folder).name for case in find_cases(tmp_path, "kidney")] == ["case1", "case2", "case10"]
    (tmp_path / "kidney" / "case01").mkdir()
    with pytest.raises(InputError, match=r"case0?1 and .*case0?1 have the same number"):
        find_cases(tmp_path, "kidney")


def test_two_releases_are_refused_by_name(tmp_path: Path) -> None:
    for release in ("2020", "2021"):
        simulated.write(tmp_path, 1, datasets=["kidney"], release=release, **SMALL)
    with pytest.raises(InputError, match=r"training_data_v2/kidney.* and in .*training_data_v3_QC/kidney"):
        find_cases(tmp_path, "kidney")
    assert len(find_cases(tmp_path / "training_data_v2", "kidney")) == 1


def test_the_2020_tree(tmp_path: Path) -> None:
    simulated.write(tmp_path, 2, release="2020", **SMALL)
    for task in TASKS:
        if TASKS[task].volume:
            with pytest.raises(InputError, match="cases of brain-growth, brain-tumor, kidney, prostate only"):
                find_cases(tmp_path, task)
        else:
            assert [case.origin for case in find_cases(tmp_path, task)] == ["Training", "Training", "Validation"]


def test_what_is_not_there_is_said_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"one of brain-growth, brain-tumor-1, .* expected"):
        find_cases(tmp_path, "prostate")
    with pytest.raises(InputError, match="is not a folder"):
        find_cases(tmp_path / "no", "kidney")
    (tmp_path / "__MACOSX" / "kidney" / "case01").mkdir(parents=True)
    (tmp_path / ".hidden" / "kidney" / "case01").mkdir(parents=True)
    with pytest.raises(InputError, match="no folder of a case"):
        find_cases(tmp_path, "kidney")
