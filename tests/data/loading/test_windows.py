"""WindowLoader: which windows an epoch has, that they are cut right, and that every way to read them gives the same."""

from __future__ import annotations

import threading
from collections import Counter
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aleatoric.data import DeviceLoader, PreparedDatasetWriter, WindowLoader, load_dataset
from aleatoric.data.loading.voxels import VoxelIndex, runs_of
from aleatoric.data.loading.windows import cut_windows, gather_windows
from aleatoric.data.prepared.splits import RandomSplit
from aleatoric.errors import InputError
from aleatoric.transforms import BatchRandIntensityd

SIZE = (14, 12, 10)
LOW, HIGH = -100, 100
CHANNELS = 2


def write(folder, size=SIZE, patients=8, image_dtype="int16", low=LOW):
    """Volumes whose voxels say where they are; air around a block, a drawn part in it, two raters."""
    writer = PreparedDatasetWriter(
        folder,
        name="toy",
        source="made up",
        options={},
        channels=["a", "b"],
        classes=["background", "one", "two"],
        raters=2,
        intensity_window=(low, HIGH),
        image_dtype=image_dtype,
        patch_size=size,
        split=RandomSplit(0, 0.25, 3),
    )
    random = np.random.default_rng(0)
    for number in range(patients):
        image = np.full((CHANNELS, *size), -100)
        block = tuple(slice(2, n - 1) for n in size)
        image[(slice(None), *block)] = random.integers(-99, 300, (CHANNELS, *[n - 3 for n in size]))
        image[(0, *[n // 2 for n in size])] = -100  # air in one channel only
        label = np.zeros((2, *size), np.uint8)
        label[(0, *[slice(4, 7)] * len(size))] = 1
        label[(1, *[slice(3, 5)] * len(size))] = 2
        valid = np.array([True, number % 2 == 0])
        row = {"case": f"c{number}", "patient": f"p{number}", "slice": ""}
        writer.write(f"c{number}", image[None], label[None], valid[None], [row])
    return writer.finish()


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return load_dataset(write(tmp_path_factory.mktemp("windows") / "set"))


@pytest.fixture(autouse=True)
def _no_thread_stays():
    yield
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("aleatoric")]


def loader(dataset, section="training", batch_size=2, window_size=6, **options):
    return WindowLoader(dataset, section, batch_size, window_size, **{"windows_per_case": 3, "seed": 1, **options})


def equal(one, other):
    one, other = list(one), list(other)
    assert len(one) == len(other)
    for a, b in zip(one, other):
        assert a.keys() == b.keys()
        for key in a:
            assert a[key].dtype == b[key].dtype
            torch.testing.assert_close(a[key], b[key], rtol=0, atol=0)
    return True


def stacked(batches, key="image"):
    return torch.cat([batch[key] for batch in batches])


def by_hand(dataset, position, start, size):
    """One window, voxel by voxel of a volume that air surrounds on all sides."""
    far = max(size) + max(SIZE)
    pads = [(0, 0), *[(far, far)] * len(size)]
    image = np.pad(dataset.images[position].astype(np.float32), pads, constant_values=-1e9)
    label = np.pad(dataset.labels[position], pads)
    place = (slice(None), *[slice(far + s, far + s + n) for s, n in zip(start, size)])
    low, high = dataset.intensity_window
    return np.clip((image[place] - low) / (high - low), 0, 1), label[place]


def test_batches_are_windows_of_the_volumes(dataset):
    made = loader(dataset, window_size=(6, 5, 4), margin=(1, 0, 1))
    images, labels = (stacked(list(made), key) for key in ("image", "label"))
    windows = made._windows(0)
    assert len(made) == len(windows) // 2 == 3 * len(made.indices) // 2
    assert images.shape == (len(windows), CHANNELS, 6, 5, 4) and images.dtype == torch.float32
    assert labels.shape == (len(windows), 2, 6, 5, 4) and labels.dtype == torch.uint8
    made.set_epoch(0)
    valid = stacked(list(made), "rater_valid")
    for (row, *start), image, label, asked in zip(windows, images, labels, valid):
        expected = by_hand(dataset, made.indices[row], start, (6, 5, 4))
        np.testing.assert_allclose(image, expected[0], atol=1e-6)
        np.testing.assert_array_equal(label, expected[1])
        np.testing.assert_array_equal(asked, dataset.rater_valid[made.indices[row]])
    assert images.min() == 0 and 0.9 < images.max() <= 1


@pytest.mark.parametrize("size", [(6, 6, 6), (20, 6, 16)])
@pytest.mark.parametrize("shuffle", [False, True])
def test_read_from_the_disk_resident_or_gathered_the_same(dataset, size, shuffle, monkeypatch):
    options = {"window_size": size, "margin": 2, "shuffle": shuffle, "transform": BatchRandIntensityd(prob=0.5)}
    streamed, resident = loader(dataset, memory_budget=0, **options), loader(dataset, **options)
    assert streamed.streaming and not resident.streaming
    for _ in range(2):
        assert equal(streamed, resident)
    gathered = loader(dataset, **options)

    class Elsewhere:  # the way of a GPU, on this machine's memory
        type = "cuda"

    batches = []
    with monkeypatch.context() as patch:
        patch.setattr(gathered, "device", Elsewhere())
        patch.setattr(torch.Tensor, "to", lambda self, device: self)
        batches = list(gathered)
    streamed.set_epoch(0)
    assert equal(streamed, batches)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_cut_and_gather_are_a_padded_slice(data):
    dims = data.draw(st.integers(1, 3))
    extent = data.draw(st.lists(st.integers(1, 7), min_size=dims, max_size=dims))
    size = data.draw(st.lists(st.integers(1, 9), min_size=dims, max_size=dims))
    array = np.arange(2 * 3 * np.prod(extent)).reshape(2, 3, *extent).astype(np.int16)
    windows = np.array(
        [
            [data.draw(st.integers(0, 1)), *[data.draw(st.integers(-12, 12)) for _ in range(dims)]]
            for _ in range(data.draw(st.integers(1, 4)))
        ]
    )
    padded = np.pad(array, [(0, 0), (0, 0), *[(25, 25)] * dims], constant_values=-7)
    expected = np.stack(
        [
            padded[(row, slice(None), *[slice(25 + s, 25 + s + n) for s, n in zip(start, size)])]
            for row, *start in windows
        ]
    )
    cut = cut_windows(array, windows, size, -7)
    np.testing.assert_array_equal(cut, expected)
    gathered = gather_windows(torch.from_numpy(array), torch.from_numpy(windows), size, -7)
    assert gathered.dtype == cut.dtype and torch.equal(gathered, cut)


def centres(made, epoch=0):
    windows = made._windows(epoch)
    return windows[:, 0], windows[:, 1:] + np.array(made.window_size) // 2


def test_the_share_of_windows_around_drawn_voxels(dataset):
    for share in (0.0, 0.3, 0.5, 1.0):
        made = loader(dataset, window_size=1, windows_per_case=400, foreground=share)
        rows, where = centres(made)
        drawn = []
        for row, voxel in zip(made.indices[rows], where):
            valid = dataset.rater_valid[row]
            drawn.append(dataset.labels[row][(slice(None), *voxel)][valid].any())
            assert (dataset.images[row][(slice(None), *voxel)] > LOW).any()
        error = 4 * np.sqrt(share * (1 - share) / len(drawn))
        assert np.mean(drawn) == pytest.approx(share, abs=error + 1e-9)
    # all voxels of a kind are as likely
    seen = Counter(map(tuple, np.c_[rows, where][rows == 0].tolist()))
    valid = dataset.rater_valid[made.indices[0]]
    assert len(seen) == (dataset.labels[made.indices[0]][valid] > 0).any(axis=0).sum() and max(seen.values()) < 40


def test_what_is_air_in_every_channel_is_no_content(dataset):
    made = loader(dataset)
    content = (dataset.images[made.indices] > LOW).any(axis=1).reshape(len(made.indices), -1).sum(axis=1)
    np.testing.assert_array_equal(made._drawn.counts + made._plain.counts, content)


def test_the_part_inside_the_margin_lies_in_the_volume(dataset):
    inside = loader(dataset, window_size=(11, 10, 8), margin=(3, 2, 3), windows_per_case=200)
    start = inside._windows(0)[:, 1:] + np.array([3, 2, 3])
    assert (start >= 0).all() and (start + np.array([5, 6, 2]) <= SIZE).all()
    rows, where = centres(inside)
    brain = dataset.images[inside.indices[rows]] > LOW
    kept = [brain[i][(slice(None), *voxel)].any() for i, voxel in enumerate(where)]
    assert np.mean(kept) > 0.5
    # larger than the volume: the volume is in the middle
    wide = loader(dataset, window_size=(40, 6, 17), margin=(4, 1, 0))
    assert (wide._windows(0)[:, 1] == -13).all() and (wide._windows(0)[:, 3] == -3).all()


def test_windows_depend_on_seed_and_epoch_alone(dataset):
    first, again, other = (loader(dataset, shuffle=True, seed=seed) for seed in (1, 1, 2))
    one, two = list(first), list(first)
    assert not torch.equal(stacked(one), stacked(two))
    assert not np.array_equal(first._windows(0), first._windows(1))  # not the order alone
    assert not torch.equal(stacked(one), stacked(list(other)))
    again.set_epoch(1)
    assert equal(again, two)


def test_validation_sees_the_same_windows_in_every_epoch(dataset):
    made = loader(dataset, "validation")
    assert equal(made, made)
    assert (np.diff(made._windows(0)[:, 0]) >= 0).all() and not equal_windows(
        made, loader(dataset, "validation", seed=5)
    )


def equal_windows(one, other):
    return np.array_equal(one._windows(0), other._windows(0))


def test_an_epoch_has_the_windows_of_every_case(dataset):
    made = loader(dataset, shuffle=True, windows_per_case=5, batch_size=4)
    assert Counter(made._windows(3)[:, 0].tolist()) == dict.fromkeys(range(len(made.indices)), 5)
    assert len(made) == len(list(made)) == -(-5 * len(made.indices) // 4)
    dropped = loader(dataset, shuffle=True, windows_per_case=5, batch_size=4, drop_last=True)
    assert len(dropped) == len(list(dropped)) == 5 * len(made.indices) // 4
    # cases are mixed
    assert len(set(made._windows(0)[made._order(0).numpy()][:4, 0].tolist())) > 1


@pytest.mark.parametrize("memory_budget", [None, 0])
def test_ranks_share_the_windows(dataset, memory_budget):
    whole = stacked(list(loader(dataset, shuffle=True, windows_per_case=4)))
    parts = [
        stacked(
            list(
                loader(dataset, shuffle=True, windows_per_case=4, rank=rank, world_size=2, memory_budget=memory_budget)
            )
        )
        for rank in range(2)
    ]
    assert torch.equal(torch.stack(parts, dim=1).flatten(0, 1), whole)


def test_a_case_without_the_wanted_kind_gives_the_other(tmp_path):
    def write_one(folder, image, label):
        writer = PreparedDatasetWriter(
            folder, name="toy", source="-", options={}, channels=["a"], classes=["0", "1"], raters=1,
            intensity_window=(0, 10), patch_size=(6, 6), split=RandomSplit(0, 0, 1),
        )  # fmt: skip
        writer.write(
            "c",
            image[None, None],
            label[None, None],
            np.ones((1, 1), bool),
            [{"case": "c", "patient": "p", "slice": ""}],
        )
        return load_dataset(writer.finish())

    brain, tumour = np.zeros((6, 6)), np.zeros((6, 6), np.uint8)
    brain[2:4, 2:4] = 5
    healthy = write_one(tmp_path / "healthy", brain, tumour)
    tumour[3, 2:4] = 1
    ill = write_one(tmp_path / "ill", np.where(tumour, 5, 0), tumour)
    empty = write_one(tmp_path / "empty", np.zeros((6, 6)), tumour * 0)
    options = {"batch_size": 8, "window_size": 1, "windows_per_case": 64}
    for made, allowed in (
        (loader(healthy, foreground=1.0, **options), {(2, 2), (2, 3), (3, 2), (3, 3)}),
        (loader(ill, foreground=0.0, **options), {(3, 2), (3, 3)}),
        (loader(empty, **options), set(np.ndindex(6, 6))),
    ):
        found = set(map(tuple, centres(made)[1].tolist()))
        assert found <= allowed and len(found) > len(allowed) / 2
        assert len(stacked(list(made))) == 64


def test_float_images_and_a_window_between_whole_numbers(tmp_path):
    for dtype, low in (("float32", -100.5), ("int16", -100.5)):
        dataset = load_dataset(write(tmp_path / f"{dtype}", patients=4, image_dtype=dtype, low=low))
        made = loader(dataset, window_size=30)
        for budget in (None, 0):
            image = stacked(list(loader(dataset, window_size=30, memory_budget=budget)))
            assert (image[:, :, 0] == 0).all() and image.max() > 0.5
        assert made._air() < low + 1e-9


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=30), min_size=1, max_size=5), st.integers(0, 999))
def test_drawn_voxels_are_those_of_the_mask(rows, seed):
    masks = [np.array(row) for row in rows]
    index = VoxelIndex([runs_of(mask) for mask in masks])
    np.testing.assert_array_equal(index.counts, [mask.sum() for mask in masks])
    full = np.flatnonzero(index.counts)
    for case in full:
        count = index.counts[case]
        steps = (np.arange(count) + np.random.default_rng(seed).random()) / count
        found = index.draw(np.full(count, case), steps)
        np.testing.assert_array_equal(found, np.flatnonzero(masks[case]))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"window_size": (4, 4)}, "one number or 3 expected"),
        ({"window_size": 8, "margin": 4}, "8 x 8 x 8 voxels with a margin of 4 x 4 x 4 found"),
        ({"margin": -1}, "margin of -1 x -1 x -1"),
        ({"windows_per_case": 0}, "0 windows per case"),
        ({"foreground": 1.5}, "share of 1.5"),
        ({"foreground": float("nan")}, "share of nan"),
        ({"batch_size": 99, "drop_last": True}, "12 patches found in section"),
    ],
)
def test_refused(dataset, options, sentence):
    with pytest.raises(InputError, match=sentence):
        loader(dataset, **options)


def test_only_the_windows_bytes_are_read(dataset):
    class Watched(np.ndarray):
        read: ClassVar = []

        def __getitem__(self, key):
            part = super().__getitem__(key)
            if isinstance(key, tuple) and isinstance(part, np.ndarray):
                Watched.read.append(part.size)
            return part

    array = np.zeros((3, 2, 50, 50, 50), np.int16).view(Watched)
    windows = np.array([[0, 0, 0, 0], [2, 45, 10, -3]])
    cut_windows(array, windows, (10, 10, 10), 0)
    assert Watched.read == [2 * 1000, 2 * 5 * 10 * 7]


def test_the_cases_are_a_device_loaders(dataset):
    made, plain = loader(dataset, fold=1), DeviceLoader(dataset, "training", 2, fold=1)
    np.testing.assert_array_equal(made.indices, plain.indices)
    volume = loader(dataset, fold=1, window_size=SIZE, margin=(6, 5, 4), windows_per_case=50)
    assert equal_sizes(volume, plain)


def equal_sizes(one, other):
    return next(iter(one))["image"].shape == next(iter(other))["image"].shape
