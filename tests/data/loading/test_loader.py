"""The device loader: right pixels, an order that depends on seed and epoch alone, equal shares among ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import Dataset, ThreadDataLoader
from monai.engines import SupervisedTrainer
from monai.transforms import CastToTyped, Compose, RandAffined
from toy_set import SIZE, write_dataset

from aleatoric.data import DeviceLoader, PreparedCases, load_dataset
from aleatoric.data.loading import loader as loader_module
from aleatoric.errors import InputError
from aleatoric.handlers import EpochSetter
from aleatoric.transforms import BatchRandAffined, BatchRandIntensityd


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return load_dataset(write_dataset(tmp_path_factory.mktemp("prepared") / "set"))


def augmentation():
    return Compose(
        [
            BatchRandAffined(prob=0.8, rotate_range=3.1, translate_range=(1.0, 1.0), scale_range=(0.2, 0.2)),
            BatchRandIntensityd(prob=0.5),
        ]
    )


def keys_of(loader):
    """One hashable per patch, in the order of the loader."""
    return [tuple(image.flatten().tolist()) for batch in loader for image in batch["image"]]


def assert_equal_batches(one, other):
    one, other = list(one), list(other)
    assert len(one) == len(other)
    for a, b in zip(one, other):
        assert all(torch.equal(a[key], b[key]) for key in ("image", "label", "rater_valid"))


def test_batches_hold_the_stored_patches(dataset):
    loader = DeviceLoader(dataset, "training", 5)
    batches = list(loader)
    indices = dataset.indices("training")
    assert len(loader) == len(batches) == -(-len(indices) // 5)
    image, label, valid = (torch.cat([batch[key] for batch in batches]) for key in ("image", "label", "rater_valid"))
    assert (image.dtype, label.dtype, valid.dtype) == (torch.float32, torch.uint8, torch.bool)
    expected = np.clip((dataset.images[indices] + 1000.0) / 1400.0, 0, 1)
    np.testing.assert_allclose(image.numpy(), expected, atol=1e-6)
    assert image.min() == 0 and image.max() == 1  # intensities beyond the window were there
    np.testing.assert_array_equal(label.numpy(), dataset.labels[indices])
    np.testing.assert_array_equal(valid.numpy(), dataset.rater_valid[indices])


def test_a_section_larger_than_a_copy_step_arrives_whole(dataset, monkeypatch):
    expected = DeviceLoader(dataset, "training", 5)
    for step in (1, 5 * 8 * 8 * 2):  # bytes: a patch at a time; five images, one label
        monkeypatch.setattr(loader_module, "_COPY_STEP", step)
        assert_equal_batches(DeviceLoader(dataset, "training", 5), expected)
        expected.set_epoch(0)


def test_what_a_user_does_to_a_batch_stays_in_the_batch(dataset):
    loader = DeviceLoader(dataset, "validation", 4)
    for batch in loader:
        for value in batch.values():
            value.zero_()
    assert_equal_batches(DeviceLoader(dataset, "validation", 4), loader)


def test_two_runs_from_one_seed_are_equal(dataset):
    def loader(seed):
        return DeviceLoader(dataset, "training", 4, transform=augmentation(), shuffle=True, seed=seed)

    one, other = loader(3), loader(3)
    for _ in range(2):
        assert_equal_batches(one, other)
    assert keys_of(loader(3)) != keys_of(loader(4))


def test_each_iteration_is_the_next_epoch_and_an_epoch_can_be_asked_for(dataset):
    loader = DeviceLoader(dataset, "training", 4, transform=augmentation(), shuffle=True, seed=0)
    epochs = [keys_of(loader) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    resumed = DeviceLoader(dataset, "training", 4, transform=augmentation(), shuffle=True, seed=0)
    iterator = iter(resumed)
    resumed.set_epoch(2)  # after iter(), as in an engine's EPOCH_STARTED
    assert [tuple(i.flatten().tolist()) for batch in iterator for i in batch["image"]] == epochs[2]
    loader.set_epoch(0)
    next(iter(loader))  # an epoch that is broken off
    assert keys_of(loader) == epochs[1]


def test_augmentation_alone_changes_with_the_epoch(dataset):
    loader = DeviceLoader(dataset, "training", 4, transform=augmentation())
    assert keys_of(loader) != keys_of(loader)


def test_shuffle_permutes(dataset):
    plain = keys_of(DeviceLoader(dataset, "training", 4))
    loader = DeviceLoader(dataset, "training", 4, shuffle=True)
    first, second = keys_of(loader), keys_of(loader)
    assert plain != first != second != plain
    assert sorted(plain) == sorted(first) == sorted(second)


@pytest.mark.parametrize("world_size", [2, 5])  # of 12 patches
@pytest.mark.parametrize("drop_last", [False, True])
def test_ranks_share_the_epoch(dataset, world_size, drop_last):
    def loaders(**options):
        return [
            DeviceLoader(
                dataset,
                "training",
                2,
                shuffle=True,
                seed=1,
                rank=rank,
                world_size=world_size,
                drop_last=drop_last,
                **options,
            )
            for rank in range(world_size)
        ]

    parts = loaders()
    assert len({len(part) for part in parts}) == 1
    seen = [keys_of(part) for part in parts]
    assert len({len(part) for part in seen}) == 1
    everything = set(keys_of(DeviceLoader(dataset, "training", 2)))
    if not drop_last:
        assert set().union(*seen) == everything
        uneven = [key for part in loaders(even_divisible=False) for key in keys_of(part)]
        assert len(uneven) == len(set(uneven)) == len(everything)  # nobody twice


def test_ranks_augment_differently(dataset):
    class Recorder(BatchRandAffined):
        def randomize(self, batch_size, spatial_dims):
            drawn = super().randomize(batch_size, spatial_dims)
            self.drawn.append(drawn[1])
            return drawn

    drawn = []
    for rank in range(2):
        transform = Recorder(rotate_range=1.0)
        transform.drawn = []
        list(DeviceLoader(dataset, "training", 2, transform=transform, rank=rank, world_size=2))
        drawn.append(np.concatenate(transform.drawn))
    assert not np.isin(drawn[0][:, 0], drawn[1][:, 0]).any()


def test_drop_last(dataset):
    count = len(dataset.indices("training"))
    loader = DeviceLoader(dataset, "training", count - 1, drop_last=True)
    assert len(loader) == 1 and [len(batch["image"]) for batch in loader] == [count - 1]
    with pytest.raises(InputError, match="take smaller batches"):
        DeviceLoader(dataset, "training", count + 1, drop_last=True)


def test_bad_arguments(dataset, monkeypatch):
    with pytest.raises(InputError, match="batch size 0"):
        DeviceLoader(dataset, "training", 0)
    with pytest.raises(InputError, match="rank 2 found, 0 to 1 expected"):
        DeviceLoader(dataset, "training", 1, rank=2, world_size=2)
    with pytest.raises(InputError, match="section 'test' found"):
        DeviceLoader(dataset, "test", 1)
    alone = type(dataset)(
        dataset.root,
        dataset.info,
        [{**row, "fold": "0"} for row in dataset.cases],
        dataset.images,
        dataset.labels,
        dataset.rater_valid,
    )
    with pytest.raises(InputError, match="no patch found in section 'testing'"):
        DeviceLoader(alone, "testing", 1)
    with pytest.raises(InputError, match="no patch found in section 'testing'"):
        PreparedCases(alone, "testing")

    def full(*args, **kwargs):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(InputError, match="GB, more than is free on cpu"):
        DeviceLoader(dataset, "training", 1)


class Segmenter(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 3, 1)

    def forward(self, image):
        return self.conv(image)


def trainer(loader, max_epochs, handlers=()):
    torch.manual_seed(0)
    network = Segmenter()
    seen = []

    def loss(output, label):
        seen.append(float(label.sum()) + float(output.detach().sum()))
        return torch.nn.functional.binary_cross_entropy_with_logits(output, label.float())

    engine = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=max_epochs,
        train_data_loader=loader,
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.0),
        loss_function=loss,
        train_handlers=list(handlers),
        decollate=False,
    )
    engine.run()
    return engine, seen


def test_monai_trainer_and_resume(dataset):
    def loader():
        return DeviceLoader(dataset, "training", 4, transform=augmentation(), shuffle=True, seed=0)

    ours = loader()
    engine, seen = trainer(ours, 3, [EpochSetter(ours)])
    length = len(ours)
    assert engine.state.iteration == len(seen) == 3 * length
    assert len(set(seen)) == len(seen)  # no epoch repeats another

    # A trainer that starts after epoch 2, as one does that loaded a checkpoint.
    class AfterTwo:
        def attach(self, engine):
            from ignite.engine import Events

            engine.add_event_handler(Events.STARTED, lambda e: setattr(e.state, "epoch", 2))
            engine.add_event_handler(Events.STARTED, lambda e: setattr(e.state, "iteration", 2 * length))

    ours = loader()
    _, resumed = trainer(ours, 3, [AfterTwo(), EpochSetter(ours)])
    assert resumed == seen[2 * length :]


def test_cases_feed_monai_per_sample_chain(dataset):
    cases = PreparedCases(dataset, "training", fold=1)
    item = cases[2]
    position = dataset.indices("training", 1)[2]
    assert item["image"].shape == (1, *SIZE) and item["label"].shape == (3, *SIZE) and item["rater_valid"].shape == (3,)
    np.testing.assert_array_equal(item["label"].numpy(), dataset.labels[position])
    batch = next(iter(DeviceLoader(dataset, "training", 4, fold=1)))
    for key in batch:
        assert torch.equal(torch.stack([cases[i][key] for i in range(4)]), batch[key])
    chain = Compose(
        [
            RandAffined(("image", "label"), prob=1.0, rotate_range=3.1, mode=("bilinear", "nearest")),
            CastToTyped("label", dtype=torch.uint8),
        ]
    ).set_random_state(0)
    loader = ThreadDataLoader(Dataset(cases, chain), batch_size=4, num_workers=0)
    batches = list(loader)
    assert sum(len(batch["image"]) for batch in batches) == len(cases)
    assert batches[0]["label"].dtype == torch.uint8 and batches[0]["rater_valid"].dtype == torch.bool
    assert batches[0]["image"].dtype == torch.float32


@pytest.mark.parametrize("budget", [None, 0])
def test_raters_who_do_not_count_are_handed_out_as_missing(tmp_path, budget):
    data = load_dataset(write_dataset(tmp_path / "set"))
    whole = list(DeviceLoader(data, "training", 4, memory_budget=budget))
    for kept in ([0], [2, 1]):
        for batch, all_of_them in zip(DeviceLoader(data, "training", 4, memory_budget=budget, keep_raters=kept), whole):
            expected = all_of_them["rater_valid"].clone()
            expected[:, [rater for rater in range(3) if rater not in kept]] = False
            assert torch.equal(batch["rater_valid"], expected) and torch.equal(batch["label"], all_of_them["label"])
    for wrong in ([], [3], [-1]):
        with pytest.raises(InputError, match="some of 0 to 2 expected"):
            DeviceLoader(data, "training", 4, keep_raters=wrong)
