"""``aleatoric prepare datalist``: patches are the source's pixels, whatever the form; defects are reported skips."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from damage import damaged
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from raw_dicom import coded_hu, write_slice

from aleatoric.cli import main
from aleatoric.data.datalist.command import prepare_datalist
from aleatoric.data.datalist.entries import Entry
from aleatoric.data.datalist.make import Task, make
from aleatoric.data.datalist.patches import PatchOptions
from aleatoric.data.datalist.plan import plan_datalist
from aleatoric.data.prepared.reading import PreparedDataset, load_dataset
from aleatoric.data.readers import read_scan
from aleatoric.errors import InputError
from simulated import datalist as simulated


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> str:
    """A PNG of a 2D array, a NIfTI file of any other (by default without geometry)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".png":
        Image.fromarray(array).save(path)
    else:
        image = nib.Nifti1Image(array, np.eye(4) if affine is None else affine)
        if affine is None:
            image.header["qform_code"] = image.header["sform_code"] = 0
        nib.save(image, path)
    return str(path)


def task(image: str, *labels: str | None, named: bool = False, columns: Any = (), **options: Any) -> Task:
    entry = Entry(1, "training entry 1", "c", "p", (image,), labels, "training", "train", dict(columns))
    return Task(entry, PatchOptions(**options), named)


def disc(shape: tuple[int, ...], centre: tuple[float, ...], radius: float) -> np.ndarray:
    grid = np.indices(shape).astype(float)
    return (sum((g - c) ** 2 for g, c in zip(grid, centre)) <= radius**2).astype(np.uint8)


def prepared(path: Path, out: Path, **options: Any) -> PreparedDataset:
    return load_dataset(prepare_datalist(path, out, **{"workers": 1, "overwrite": True, **options}))


def listed(root: Path, content: Any) -> Path:
    path = root / "LIST.json"
    path.write_text(json.dumps(content))
    return path


# ---------------------------------------------------------------------------------------------------- pixels


@settings(max_examples=30, deadline=None)
@given(
    arrays.arrays(np.uint8, st.tuples(st.integers(4, 20), st.integers(4, 20))),
    st.tuples(st.integers(3, 24), st.integers(3, 24)),
    st.integers(0, 2**31),
)
def test_a_crop_is_the_source_pixel_by_pixel(image, size, seed):
    random = np.random.default_rng(seed)
    masks = [disc(image.shape, tuple(random.uniform(0, image.shape)), random.uniform(0, 5)) for _ in range(3)]
    masks[random.integers(3)][:] = 0
    with tempfile.TemporaryDirectory() as folder:
        files = [save(Path(folder) / f"{k}.png", mask) for k, mask in enumerate(masks)]
        patches = make(task(save(Path(folder) / "i.png", image), *files, size=size, window=(0.0, 255.0)))
    centroids = [np.mean(np.argwhere(mask), axis=0) for mask in masks if mask.any()]
    centre = np.mean(centroids, axis=0) if centroids else (np.array(image.shape) - 1) / 2
    start = []
    for c, n, s in zip(centre, image.shape, size):
        first = int(np.floor(c + 0.5)) - s // 2
        start.append(min(max(first, 0), n - s) if n >= s else -((s - n) // 2))
    if patches.skipped:
        window = tuple(slice(max(first, 0), first + s) for first, s in zip(start, size))
        assert centroids and not any(mask[window].any() for mask in masks)
        return
    for i in range(size[0]):
        for j in range(size[1]):
            row, column = start[0] + i, start[1] + j
            inside = 0 <= row < image.shape[0] and 0 <= column < image.shape[1]
            assert patches.images[0][0, i, j] == (image[row, column] if inside else image.min())
            for rater, mask in enumerate(masks):
                assert patches.labels[0][rater, i, j] == (mask[row, column] if inside else 0)


def test_a_crop_has_the_centroid_in_its_middle(tmp_path):
    mask = disc((80, 90), (40, 50), 5)
    image = save(tmp_path / "i.png", (mask * 90 + np.arange(90)).astype(np.uint8))
    patches = make(task(image, save(tmp_path / "m.png", mask), size=(32, 30)))
    found = np.argwhere(patches.labels[0][0]).mean(axis=0)
    assert found.tolist() == [16, 15]
    assert (patches.cases[0]["row"], patches.cases[0]["column"]) == ("40.00", "50.00")


def test_intensities_by_percentile(tmp_path):
    image = np.random.default_rng(0).normal(50, 20, (64, 64)).astype(np.float32)
    mask = save(tmp_path / "m.nii", disc((64, 64, 1), (30, 30, 0), 4))
    path = save(tmp_path / "i.nii", image[..., None])
    low, high = np.sort(image.ravel())[[20, 4075]]  # of 4096 pixels: 0.5% lie beyond on each side
    found = make(task(path, mask, size=(64, 64))).images[0][0]
    assert found.dtype == np.float32 and found.min() == 0 and found.max() == 1
    np.testing.assert_allclose(found, np.clip((image - low) / (high - low), 0, 1), atol=2e-3)
    # a linear change of the units is no change
    other = save(tmp_path / "j.nii", image[..., None] * 7 - 300)
    np.testing.assert_allclose(make(task(other, mask, size=(64, 64))).images[0][0], found, atol=1e-5)


def test_a_constant_image_is_zero_and_a_spot_is_not_lost(tmp_path):
    mask = disc((40, 40), (20, 20), 4)
    label, image = save(tmp_path / "m.png", mask), np.full((40, 40), 7, np.uint8)
    assert not make(task(save(tmp_path / "i.png", image), label, size=(40, 40))).images[0].any()
    image[20, 20] = 9  # fewer than 0.5% of the pixels
    found = make(task(save(tmp_path / "i.png", image), label, size=(40, 40))).images[0]
    assert found[0, 20, 20] == 1 and found.sum() == 1


@pytest.mark.parametrize("shape", [(90, 120), (30, 24)])
@pytest.mark.parametrize("keep_aspect", [False, True])
def test_resizing_keeps_the_share_of_the_area(tmp_path, shape, keep_aspect):
    mask = disc(shape, (shape[0] * 0.4, shape[1] * 0.6), shape[0] * 0.2)
    image = mask * 200
    found = make(
        task(save(tmp_path / "i.png", image), save(tmp_path / "m.png", mask), size=(60, 60), fit="resize",
             keep_aspect=keep_aspect)
    )  # fmt: skip
    label, picture = found.labels[0][0], found.images[0][0]
    whole = max(shape) ** 2 if keep_aspect else shape[0] * shape[1]
    assert label.mean() == pytest.approx(mask.sum() / whole, rel=0.06)
    assert picture.mean() == pytest.approx(mask.sum() / whole, rel=0.06)  # and the image keeps under its mask
    assert ((picture > 0.5) == label).mean() > 0.99
    rows, columns = (np.ptp(np.flatnonzero(label.any(axis=axis))) + 1 for axis in (1, 0))
    if keep_aspect:
        assert abs(rows - columns) <= max(1, 60 / max(shape))  # a pixel of the source
    else:
        assert rows / columns == pytest.approx(shape[1] / shape[0], rel=0.1)


def test_padding_keeps_everything_and_refuses_more(tmp_path):
    image = np.random.default_rng(0).integers(5, 200, (20, 30), dtype=np.uint8)
    mask = disc(image.shape, (4, 4), 3)
    path, label = save(tmp_path / "i.png", image), save(tmp_path / "m.png", mask)
    found = make(task(path, label, size=(31, 32), fit="pad", window=(0.0, 255.0)))
    assert (found.images[0][0, 5:25, 1:31] == image).all() and (found.labels[0][0, 5:25, 1:31] == mask).all()
    assert found.images[0].sum() == image.sum() + int(image.min()) * (31 * 32 - image.size)
    assert found.labels[0].sum() == mask.sum()
    with pytest.raises(InputError, match=r"20 x 30 pixels found, at most 31 x 29 expected"):
        make(task(path, label, size=(31, 29), fit="pad"))


def test_spacing_makes_pixels_of_that_size(tmp_path):
    mask = disc((60, 80, 1), (30, 40, 0), 12)
    affine = np.diag([0.8, 0.4, 3.0, 1])  # x: 0.8 mm; rows of the oriented image are y
    path, label = save(tmp_path / "i.nii", mask * 100, affine), save(tmp_path / "m.nii", mask, affine)
    found = make(task(path, label, size=(48, 48), spacing=0.8))
    native = make(task(path, label, size=(80, 60)))
    assert found.labels[0].sum() == pytest.approx(native.labels[0].sum() / 2, rel=0.05)
    rows, columns = (np.ptp(np.flatnonzero(found.labels[0][0].any(axis=axis))) + 1 for axis in (1, 0))
    assert (rows, columns) == pytest.approx((12.5, 25), abs=1.5)
    assert found.cases[0]["spacing"] == "0.8"
    centre = [float(found.cases[0][key]) for key in ("row", "column")]
    expected = [float(native.cases[0][key]) for key in ("row", "column")]
    assert centre == pytest.approx(expected, abs=2)
    with pytest.raises(InputError, match="no pixel spacing is known.*leave out that option"):
        make(task(save(tmp_path / "j.nii", mask), save(tmp_path / "n.nii", mask), spacing=0.8))
    with pytest.raises(InputError, match="pixels would be made at 0.001 mm"):
        make(task(path, label, spacing=0.001))


# --------------------------------------------------------------------------------------------------- volumes


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_slices_of_a_volume_are_its_pixels(tmp_path, plane):
    shape, affine = (14, 18, 10), np.diag([-0.8, -0.4, 3.0, 1.0])  # axes of the file: left, posterior, superior
    volume = np.random.default_rng(0).integers(-1000, 1000, shape).astype(np.int16)
    masks = [disc(shape, (6, 9, 4), 3), disc(shape, (7, 8, 6), 2)]
    files = [save(tmp_path / f"{k}.nii.gz", mask, affine) for k, mask in enumerate(masks)]
    source = task(
        save(tmp_path / "i.nii.gz", volume, affine), *files, size=(18, 18), plane=plane, window=(-1000.0, 400.0),
        integers=True, fit="pad",
    )  # fmt: skip
    patches = make(source)
    axis = {"axial": 2, "coronal": 1, "sagittal": 0}[plane]
    both = masks[0] | masks[1]
    wanted = np.flatnonzero(both.any(axis=tuple({0, 1, 2} - {axis})))
    assert [row["slice"] for row in patches.cases] == [str(k) for k in wanted]
    for patch, label, k in zip(patches.images, patches.labels, wanted):
        for array, found in ((volume, patch[0]), (masks[0], label[0]), (masks[1], label[1])):
            plane_pixels = np.take(array, k, axis=axis)  # remaining axes in the order left, posterior, superior
            shown = plane_pixels.T if plane == "axial" else plane_pixels.T[::-1]  # head up
            top, left = ((18 - n) // 2 for n in shown.shape)
            assert (found[top : top + shown.shape[0], left : left + shown.shape[1]] == shown).all()
    spacing = {"axial": "0.4 x 0.8", "coronal": "3 x 0.8", "sagittal": "3 x 0.4"}[plane]
    assert {row["spacing"] for row in patches.cases} == {spacing}
    everything = make(source._replace(options=source.options._replace(slices="all")))
    assert len(everything.cases) == shape[axis]
    assert sum(label.sum() for label in everything.labels) == sum(int(mask.sum()) for mask in masks)


def test_the_voxel_under_the_centroid_is_in_the_middle_of_its_slice(tmp_path):
    shape = (40, 44, 9)
    random = np.random.default_rng(1)
    volume = random.permutation(np.prod(shape)).reshape(shape).astype(np.int16)  # every voxel tells where it is from
    mask = np.zeros(shape, np.uint8)
    for k, centre in enumerate([(12, 20), (14, 22), (17, 25)], 3):
        mask[..., k] = disc(shape[:2], centre, 4)
    found = make(
        task(save(tmp_path / "i.nii", volume), save(tmp_path / "m.nii", mask), size=(20, 20), window=(-3e4, 3e4))
    )
    assert [patch[0, 10, 10] for patch in found.images] == [volume[12, 20, 3], volume[14, 22, 4], volume[17, 25, 5]]


def test_volumes_may_stay_volumes(tmp_path):
    shape = (30, 34, 20)
    mask = disc(shape, (12, 17, 9), 4)
    volume = np.random.default_rng(0).integers(0, 999, shape).astype(np.int16)
    files = save(tmp_path / "i.nii", volume), save(tmp_path / "m.nii", mask), None
    found = make(task(*files, size=(12, 16, 24), keep_3d=True, window=(0.0, 999.0)))
    assert found.images[0].shape == (1, 12, 16, 24) and found.labels[0].shape == (2, 12, 16, 24)
    assert (found.images[0][0, :, :, 2:22] == volume[6:18, 9:25]).all()
    assert (found.images[0][0, :, :, :2] == volume.min()).all()
    assert found.labels[0][0].sum() == mask.sum() and list(found.rater_valid[0]) == [True, False]
    with pytest.raises(InputError, match="is flat, a volume expected"):
        flat = save(tmp_path / "i.png", mask[..., 9])
        make(task(flat, save(tmp_path / "m.png", mask[..., 9]), size=(8, 8, 8), keep_3d=True))


# ------------------------------------------------------------------------------------- raters, classes, defects


def test_missing_is_not_empty(tmp_path):
    mask = disc((40, 40), (20, 20), 5)
    image, good = save(tmp_path / "i.png", mask * 99), save(tmp_path / "m.png", mask)
    empty, other = save(tmp_path / "e.png", mask * 0), save(tmp_path / "o.png", mask[:30])
    found = make(task(image, good, None, empty, str(tmp_path / "none.png"), other, size=(32, 32)))
    assert list(found.rater_valid[0]) == [True, False, True, False, False]
    assert found.labels[0].reshape(5, -1).any(axis=1).tolist() == [True, False, False, False, False]
    assert dict(found.skipped) == {"label file that is missing": 1, "label file that cannot be used": 1}
    assert "none.png" in found.problems[0] and "(30, 40)" in found.problems[1]
    with pytest.raises(InputError, match=r"training entry 1 \(c\): no label left.*none.png"):
        make(task(image, None, str(tmp_path / "none.png")))


def test_a_class_that_was_not_declared_is_not_lost(tmp_path):
    mask = disc((40, 40), (20, 20), 5)
    good = save(tmp_path / "g.png", mask)
    mask[20, 20] = 2
    image, label = save(tmp_path / "i.png", mask * 99), save(tmp_path / "m.png", mask)
    sentence = r"label value 2 found in .*m.png, 0..1 expected .*--classes 3"
    with pytest.raises(InputError, match=rf"no label left; the first: training entry 1: {sentence}"):
        make(task(image, label))
    found = make(task(image, label, classes=("background", "a", "b"), size=(40, 40)))
    assert (found.labels[0][0] == mask).all()
    # one such file is that rater's loss, not the image's
    found = make(task(image, label, good, size=(40, 40)))
    assert list(found.rater_valid[0]) == [False, True] and not found.labels[0][0].any() and found.labels[0][1].any()
    assert dict(found.skipped) == {"label file that cannot be used": 1}
    assert len(found.problems) == 1 and re.search(sentence, found.problems[0])


def test_a_picture_of_grey_values_is_no_matter_of_classes(tmp_path):
    mask = disc((40, 40), (20, 20), 5)
    image, good = save(tmp_path / "i.png", mask * 99), save(tmp_path / "g.png", mask)
    grey = save(tmp_path / "grey.png", mask * 200 + np.arange(40, dtype=np.uint8))
    found = make(task(image, good, grey, size=(40, 40)))
    assert list(found.rater_valid[0]) == [True, False]
    assert "grey.png" in found.problems[0] and "grey values or colours" in found.problems[0]
    assert "--classes 2" not in found.problems[0]


def test_class_names_of_label_files(tmp_path):
    nrrd = pytest.importorskip("nrrd")
    mask = disc((24, 24, 4), (12, 12, 2), 5)
    image = save(tmp_path / "i.nii", mask * 99, np.eye(4))

    def seg(name: str, word: str) -> str:
        header = {
            "space": "right-anterior-superior", "space directions": np.eye(3), "space origin": [0, 0, 0],
            "Segment0_Name": word, "Segment0_LabelValue": "1", "Segment0_Layer": "0", "Segment0_ID": "s",
        }  # fmt: skip
        nrrd.write(str(tmp_path / name), mask, header)
        return name

    content = [
        {"image": "i.nii", "label": [seg("a.seg.nrrd", "Tumour"), seg("b.seg.nrrd", "tumour")], "case": "one"},
        {"image": "i.nii", "label": [seg("c.seg.nrrd", "Vessel")], "case": "two"},
    ]
    found = prepared(listed(tmp_path, content), tmp_path / "out", patch_size=(24, 24))
    assert image and found.info["classes"] == ["background", "Tumour"]
    assert {row["case"].split("_")[0] for row in found.cases} == {"one"}
    assert "calls value 1 'Vessel', 'Tumour' as in the first file expected" in found.info["report"]["problems"][0]
    # who gives the names has said what a value means
    found = prepared(listed(tmp_path, content), tmp_path / "out", patch_size=(24, 24), classes="nodule")
    assert found.info["classes"] == ["background", "nodule"] and not found.info["report"]["problems"]
    # but a file that gives one class's name to another's value would be a mask of the wrong class
    found = prepared(listed(tmp_path, content), tmp_path / "out", patch_size=(24, 24), classes="tumour,vessel")
    assert {row["case"].split("_")[0] for row in found.cases} == {"one"}
    assert "calls value 1 'Vessel', which is value 2" in found.info["report"]["problems"][0]


def test_names_that_contradict_lose_the_rater_only(tmp_path):
    from aleatoric.data.datalist.cases import LoadedCase, usable

    mask = disc((40, 40), (20, 20), 5)
    image = save(tmp_path / "i.png", mask * 99)
    own = task(image, "a.seg.nrrd", "b.seg.nrrd").entry
    case = LoadedCase(
        read_scan(image), np.stack([mask, mask]), np.ones(2, bool), [], [{1: "tumour"}, {1: "vessel"}], ["note"]
    )
    found = usable(case, own, ("background", "tumour", "vessel"))
    assert found.valid.tolist() == [True, False] and (found.labels[0] == mask).all() and not found.labels[1].any()
    assert found.problems[0][0] == "label file that cannot be used" and "which is value 2" in found.problems[0][1]
    assert case.valid.all() and case.labels[1].any()  # what was read is left as it was


def test_what_was_done_to_masks_stands_in_the_report(tmp_path):
    mask = disc((24, 24, 4), (12, 12, 2), 5)
    save(tmp_path / "i.nii", mask * 99, np.diag([-1.0, -1.0, 1.0, 1.0]))
    save(tmp_path / "m.nii", mask[::2, ::2], np.diag([-2.0, -2.0, 1.0, 1.0]))
    save(tmp_path / "n.nii", mask[::-1], np.diag([1.0, -1.0, 1.0, 1.0]) + np.outer([-23, 0, 0, 0], [0, 0, 0, 1]))
    content = [{"image": "i.nii", "label": ["m.nii", "n.nii"], "case": case} for case in ("one", "two")]
    notes = prepared(listed(tmp_path, content), tmp_path / "out", patch_size=(24, 24)).info["report"]["notes"]
    assert any(note.startswith("resampled (nearest voxel)") and note.endswith("(2 x)") for note in notes)
    assert "stored in another orientation than the image: turned to it (2 x)" in notes


def test_nan_and_other_channels_are_reported(tmp_path):
    mask = disc((24, 24, 3), (12, 12, 1), 5)
    image = np.random.default_rng(0).normal(size=mask.shape).astype(np.float32)
    for name, array in (("a", image), ("b", np.where(mask, np.nan, image)), ("c", np.stack([image] * 2, -1))):
        save(tmp_path / f"{name}.nii", array.astype(np.float32))
    save(tmp_path / "m.nii", mask)
    path = listed(tmp_path, [{"image": f"{name}.nii", "label": ["m.nii"]} for name in "abc"])
    found = prepared(path, tmp_path / "out", patch_size=(16, 16))
    assert {row["patient"] for row in found.cases} == {"a"}
    assert found.info["report"]["skipped"] == {"images that cannot be read": 2}
    nan, channels = found.info["report"]["problems"]
    assert f"entry 2: {mask.sum()} pixels that are NaN" in nan and "2 channels, 1 as in the other" in channels
    # two files are two channels
    content = {"channels": ["T1", "T2"], "training": [{"image": ["a.nii", "a.nii"], "label": "m.nii"}]}
    found = prepared(listed(tmp_path, content), tmp_path / "out", patch_size=(16, 16))
    assert found.info["channels"] == ["T1", "T2"] and (found.images[:, 0] == found.images[:, 1]).all()
    with pytest.raises(InputError, match="names 1 channels .* the first image has 2"):
        prepare_datalist(listed(tmp_path, {**content, "channels": ["T1"]}), tmp_path / "out2")


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_damaged_files_are_reported_or_right(data):
    mask = disc((20, 22, 3), (10, 11, 1), 5)
    image = (mask * 90 + 7).astype(np.int16)
    kind = data.draw(st.sampled_from([".nii.gz", ".nii", ".png"]))
    which = data.draw(st.sampled_from(["image", "label"]))
    with tempfile.TemporaryDirectory() as folder:
        picture = kind == ".png"
        files = {
            "image": save(Path(folder) / f"i{kind}", (image[..., 1] if picture else image).astype(np.uint8)),
            "label": save(Path(folder) / f"m{kind}", mask[..., 1] if picture else mask),
            "other": save(Path(folder) / f"o{kind}", mask[..., 1] if picture else mask),
        }
        sound = make(task(*files.values(), size=(16, 16), window=(0.0, 100.0)))
        spoilt = Path(files[which])
        # in uncompressed pixels a flipped bit cannot be noticed: only the header is spoilt there
        spoilt.write_bytes(data.draw(damaged(spoilt.read_bytes(), head=348 if kind == ".nii" else None)))
        try:
            found = make(task(*files.values(), size=(16, 16), window=(0.0, 100.0)))
        except InputError as error:
            assert str(error)
            return
    if which == "label" and not all(valid[0] for valid in found.rater_valid):
        assert found.problems and not any(label[0].any() for label in found.labels)
        return
    if kind != ".nii":  # a header that lies plausibly (other axes, other units) is another, sound file
        assert len(found.images) == len(sound.images)
        for mine, other in zip([*found.images, *found.labels], [*sound.images, *sound.labels]):
            assert np.array_equal(mine, other)


# ------------------------------------------------------------------------------------------- whole data sets


def test_order_of_entries_and_raters_permutes_the_set(tmp_path):
    path = simulated.write(tmp_path / "raw", 5, size=64)
    content = json.loads(path.read_text())
    first = prepared(path, tmp_path / "one", patch_size=(48, 48))
    entries = content["training"]
    other = {
        **content,
        "raters": ["Cem", "Anna", "Ben"],
        "training": [{**e, "label": dict(reversed(e["label"].items()))} for e in reversed(entries)],
    }
    path.with_name("OTHER.json").write_text(json.dumps(other))
    second = prepared(path.with_name("OTHER.json"), tmp_path / "two", patch_size=(48, 48))
    assert np.array_equal(second.images, first.images[::-1])
    assert np.array_equal(second.labels, first.labels[::-1][:, [2, 0, 1]])
    assert np.array_equal(second.rater_valid, first.rater_valid[::-1][:, [2, 0, 1]])
    assert [row["patient"] for row in second.cases] == [row["patient"] for row in first.cases][::-1]
    assert {(row["patient"], row["fold"]) for row in second.cases} == {(r["patient"], r["fold"]) for r in first.cases}


def test_options_are_recorded(tmp_path):
    path = simulated.write(tmp_path / "raw", 3, size=64, volumes=True)
    found = prepared(path, tmp_path / "out", patch_size=(48, 40), window=(-100, 200), slices="all")
    assert found.images.dtype == np.int16 and found.intensity_window == (-100, 200)
    assert found.images.shape[1:] == (1, 48, 40) and len(found) == 36
    assert found.info["name"] == "simulated" and found.info["source"] == "simulated images, no patient's"
    options = found.info["options"]
    assert options["raters"] == ["Anna", "Ben", "Cem"] and options["slices"] == "all" and options["split"] == "patient"
    assert options["list_sha256"] == plan_datalist(path).datalist.sha256 and len(options["list_sha256"]) == 64
    assert found.cases[0]["site"] == "south"


def test_splits_never_share_a_patient(tmp_path):
    path = simulated.write(tmp_path / "raw", 12, size=48, patients=6)
    content = json.loads(path.read_text())
    sizes: dict[str, Any] = {"patch_size": (32, 32), "test_fraction": 0.34, "folds": 2}

    def folds(column: str, **options: Any) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for row in prepared(path, tmp_path / "out", **sizes, **options).cases:
            found.setdefault(row[column], set()).add(row["fold"])
        return found

    assert all(len(where) == 1 for where in folds("patient").values())
    for number, row in enumerate(content["training"]):
        row["site"] = "abc"[number % 6 % 3]
    path.write_text(json.dumps(content))
    by_site = folds("site", split="site")
    assert all(len(where) == 1 for where in by_site.values()) and {"test"} in by_site.values()
    assert folds("patient", split="site").keys() == {f"p{k:02d}" for k in range(6)}

    given = {f"p{k:02d}": fold for k, fold in enumerate(["test", "train", 0, 1, "1", "validation"])}
    wanted = {p: {"0" if f == "validation" else str(f)} for p, f in given.items()}
    (tmp_path / "split.json").write_text(json.dumps(given))
    assert folds("patient", split=str(tmp_path / "split.json")) == wanted
    (tmp_path / "split.csv").write_text("fold,patient\n" + "".join(f"{f},{p}\n" for p, f in given.items()))
    assert folds("patient", split=str(tmp_path / "split.csv")) == wanted
    (tmp_path / "split.json").write_text(
        json.dumps({str(f): [p for p in given if str(given[p]) == str(f)] for f in given.values()})
    )
    assert folds("patient", split=str(tmp_path / "split.json")) == wanted
    # a prepared set's own cases.csv is a split
    assert folds("patient", split=str(tmp_path / "out" / "cases.csv")) == wanted

    rows = content["training"]
    path.write_text(json.dumps({"training": rows[:2] + rows[6:8], "validation": rows[2:4] + rows[8:10],
                                "testing": rows[4:6] + rows[10:]}))  # fmt: skip
    assert folds("patient") == {f"p{k:02d}": {("train", "0", "test")[k // 2]} for k in range(6)}
    path.write_text(json.dumps({"training": [{**row, "fold": int(row["patient"][1:]) % 3} for row in rows]}))
    assert folds("patient") == {f"p{k:02d}": {str(k % 3)} for k in range(6)}
    assert load_dataset(tmp_path / "out").info["folds"]["folds"] == 3


SPLITS = {
    "unknown rule": ("random", "", "--split random found"),
    "patient missing": ("s.csv", "patient,fold\np00,0\n", "says nothing of 1 patients, for example p01"),
    "no columns": ("s.csv", "a,b\n1,2\n", "is no split"),
    "two folds": ("s.csv", "patient,fold\np00,0\np00,1\n", "patient p00 is in two folds"),
    "fold in words": ("s.json", '{"p00": "first"}', "fold 'first' of patient p00"),
    "endless fold": ("s.json", '{"p00": "' + "9" * 5000 + '"}', "fold '9+' of patient p00"),
    "a list": ("s.json", "[1]", "is no split"),
    "no JSON": ("s.json", "{", "is no split"),
    "no file": ("none.json", "", "cannot be read .*, a split expected"),
}


@pytest.mark.parametrize("mistake", SPLITS)
def test_mistakes_in_a_split(tmp_path, mistake):
    path = simulated.write(tmp_path, 2, size=32, patients=2)
    name, content, words = SPLITS[mistake]
    if content:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words):
        plan_datalist(path, split=str(tmp_path / name) if "." in name else name)


def test_a_patient_in_two_folds(tmp_path):
    path = simulated.write(tmp_path, 3, size=32, patients=1)
    rows = json.loads(path.read_text())["training"]
    path.write_text(json.dumps({"training": rows[:2], "testing": rows[2:]}))
    with pytest.raises(InputError, match="p00 is in 'train' by training entry 1 and in 'test' by testing entry 1"):
        plan_datalist(path)
    assert plan_datalist(path, split="patient").split.by == "patient"
    rows[1].pop("site")
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match="training entry 2 has no 'site'"):
        plan_datalist(path, split="site")


OPTIONS = {
    "--patch-size 3": "patch size 3 found, 2 numbers",
    "--patch-size 3 3 3": "patch size 3 3 3 found, 2 numbers",
    "--patch-size 0 3": "patch size 0 3 found",
    "--keep-3d": "without a patch size",
    "--keep-3d --patch-size 3 3": "3 numbers",
    "--spacing 0": "--spacing 0.0 found",
    "--keep-aspect": "--keep-aspect found without --fit resize",
    "--window 5 5": "LOW below HIGH",
    "--window nan 5": "LOW below HIGH",
    "--window 0 5 --normalize image": "--normalize image and --window",
    "--normalize none": "--normalize none found without a window",
    "--classes 1": "1 classes found",
    "--classes a,,b": "found, a name expected",
    "--workers 0": "0 workers found",
    "--workers 0 --dry-run": "0 workers found",
}


@pytest.mark.parametrize("words", OPTIONS)
def test_mistakes_in_the_options(tmp_path, capsys, words):
    path = simulated.write(tmp_path, 1, size=32)
    assert main(["prepare", "datalist", str(path), str(tmp_path / "out"), *words.split()]) == 2
    assert OPTIONS[words] in capsys.readouterr().err


def test_the_command(tmp_path, capsys):
    path = simulated.write(tmp_path / "raw", 4, size=64, defects=["missing mask"])
    command = ["prepare", "datalist", str(path), str(tmp_path / "out"), "--workers", "2", "--patch-size", "32", "32"]
    assert main(command) == 3  # a mask of the list could not be used
    assert "simulated_001_Ben.png" in capsys.readouterr().out
    assert load_dataset(tmp_path / "out").rater_valid.tolist() == [[True] * 3, [True, False, True], *[[True] * 3] * 2]
    path = simulated.write(tmp_path / "sound", 4, size=64)
    assert main(["prepare", "datalist", str(path), str(tmp_path / "out"), "--overwrite", "--workers", "1"]) == 0


def test_the_patient_of_a_dicom_series_counts_where_the_list_names_none(tmp_path):
    entries = []
    for number in range(6):
        folder = tmp_path / f"series{number}"
        for k in range(2):
            where = {"series_uid": f"1.2.{number}", "patient_id": f"P{number // 3}", "position": (0, 0, 2.0 * k)}
            write_slice(folder / f"{k}.dcm", coded_hu(k, (24, 24)), **where)
        scan = read_scan(folder)
        mask = np.zeros(scan.array.shape[1:], np.uint8)
        mask[8:12, 9:14] = 1
        entries.append({"image": folder.name, "label": save(tmp_path / f"m{number}.nii.gz", mask, scan.affine)})
    entries[5]["patient"] = "named"
    path = listed(tmp_path, {"training": entries})
    rows = prepared(path, tmp_path / "set", patch_size=(16, 16)).cases
    assert [row["patient"] for row in rows[::2]] == ["P0"] * 3 + ["P1"] * 2 + ["named"]
    given = tmp_path / "folds.csv"  # whose names are those of the list
    names = [entry.patient for entry in plan_datalist(path).datalist.entries]
    given.write_text("patient,fold\n" + "".join(f"{name},0\n" for name in names))
    rows = prepared(path, tmp_path / "given", patch_size=(16, 16), split=str(given)).cases
    assert [row["patient"] for row in rows[::2]] == names
