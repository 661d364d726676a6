"""What is kept of the cases while an evaluation runs: exactly what was given, in little memory, and no half file."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aleatoric.evaluation import keeping
from aleatoric.evaluation.keeping import CaseKeeper, SampleFile, best_to_worst


def batch(images, size=(6, 7), raters=3, samples=4, seed=0):
    torch.manual_seed(seed)
    image = torch.randn(images, 2, *size)
    labels = torch.randint(0, 3, (images, raters, *size), dtype=torch.uint8)
    labels[0, 1] = 255
    return image, labels, torch.randint(0, 3, (images, samples, *size), dtype=torch.uint8)


@pytest.mark.parametrize("limit", [1, 1 << 20])
def test_cases_come_back_as_they_were(monkeypatch, limit):
    monkeypatch.setattr(keeping, "_IN_MEMORY", limit)  # in a file, and in memory
    keeper = CaseKeeper()
    batches = [batch(3, seed=0), batch(2, seed=1)]
    for parts in batches:
        keeper.add(*parts)
    assert len(keeper) == 5
    images, labels, masks = (torch.cat(parts) for parts in zip(*batches))
    for number in (4, 0, 2, 1, 3, 0):
        shown = keeper.read(number)
        np.testing.assert_array_equal(shown.labels, labels[number])
        np.testing.assert_array_equal(shown.samples, masks[number])
        grey = images[number].flatten(1)
        scaled = (grey - grey.amin(1, True)) / (grey.amax(1, True) - grey.amin(1, True))
        np.testing.assert_allclose(shown.image.reshape(2, -1) / 255, scaled, atol=0.51 / 255)


def test_an_image_of_one_value_is_black():
    keeper = CaseKeeper()
    _, labels, masks = batch(1)
    keeper.add(torch.full((1, 1, 6, 7), 0.3), labels, masks)
    assert not keeper.read(0).image.any()


def test_a_volume_shows_its_fullest_slice():
    image = torch.arange(5.0).expand(2, 1, 3, 4, 5).contiguous()
    image[..., 0, 0, :] = torch.tensor([0.0, 0, 0, 0, 4])  # every slice has the same corner
    labels, masks = torch.zeros(2, 2, 3, 4, 5, dtype=torch.uint8), torch.zeros(2, 3, 3, 4, 5, dtype=torch.uint8)
    labels[0, 0, 1, 1, 3] = 2
    masks[1, :, 1, 1, 1] = 1
    labels[1, 0, 1, :2, 2] = 1
    labels[1, 1] = 255  # missing
    keeper = CaseKeeper()
    keeper.add(image, labels, masks)
    np.testing.assert_array_equal(keeper.read(0).labels, labels[0, ..., 3])
    np.testing.assert_array_equal(keeper.read(1).samples, masks[1, ..., 1])
    assert keeper.read(1).labels.shape == (2, 3, 4)


def test_what_is_kept_is_small():
    keeper = CaseKeeper()
    masks = torch.zeros(8, 16, 128, 128, dtype=torch.uint8)
    masks[:, :, 40:70, 50:90] = 1
    keeper.add(torch.zeros(8, 1, 128, 128), masks[:, :4], masks)
    kept = sum(length for _, length in keeper._places)
    assert kept < masks.numel() / 50


@given(
    st.lists(st.one_of(st.floats(0, 2), st.just(float("nan"))), min_size=1, max_size=40),
    st.integers(0, 12),
)
def test_from_the_best_to_the_worst(values, count):
    values = np.array(values)
    chosen = best_to_worst(values, count)
    finite = values[np.isfinite(values)]
    assert len(set(chosen.tolist())) == len(chosen) <= count + 1
    shown = values[chosen]
    assert (np.diff(shown[np.isfinite(shown)]) >= 0).all() and np.isnan(shown[np.isfinite(shown).sum() :]).all()
    if count >= len(values) * 2:
        assert len(chosen) == len(values)
    if count and len(finite):
        assert values[chosen[0]] == finite.min()
        if count > 2:
            assert finite.max() in shown
        if len(finite) % 2 and count > 4:
            assert np.median(finite) in shown


def test_the_best_the_worst_and_median_ones_are_kept():
    values = np.random.default_rng(0).random(272)
    ranks = np.flatnonzero(np.isin(np.argsort(values), best_to_worst(values, 40))).tolist()
    assert {*range(5), *range(134, 137), *range(267, 272)} <= set(ranks)
    assert np.diff(ranks).max() < 60  # and some between


def test_some_cases_are_the_same_for_every_model():
    random = np.random.default_rng(0)
    one, other = (set(best_to_worst(random.random(1000), 25).tolist()) for _ in range(2))
    assert len(one & other) >= 12 and {0, 999} <= one & other


def test_samples_are_there_when_they_are_whole(tmp_path):
    path = tmp_path / "eval" / "samples.npy"
    file = SampleFile(path, 5)
    parts = batch(3)[2], batch(2, seed=1)[2]
    for masks in parts:
        file.add(masks)
        assert not path.exists()
    file.finish()
    np.testing.assert_array_equal(np.load(path), torch.cat(parts))
    other = SampleFile(path, 5)
    other.add(parts[0])
    other.discard()
    np.testing.assert_array_equal(np.load(path), torch.cat(parts))  # the old one stays
    assert [p.name for p in path.parent.iterdir()] == ["samples.npy"]
