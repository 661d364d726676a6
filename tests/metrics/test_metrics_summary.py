"""What is kept of samples against float64 formulas that see all of them at once, and how little of them is kept."""

from __future__ import annotations

import itertools
import math
import weakref

import pytest
import torch
from torch.nn import functional as nnf

from aleatoric.errors import InputError
from aleatoric.metrics import SampleSummary, functional, summarize_samples, summary
from aleatoric.metrics._costs import cross_entropy_cost
from aleatoric.transforms import LogitsToMasksd, MeanPredictiond

LAYOUTS = [(1, (9, 7)), (3, (9, 7)), (1, (5, 6, 4)), (4, (5, 6, 4)), (2, (8, 8))]


def draw(channels, size, number=7, images=3, raters=4, spread=4.0, seed=0):
    """Logits (B, N, K, *S) and labels (B, R, *S)."""
    chance = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(images, number, channels, *size, generator=chance)
    return logits, torch.randint(0, max(channels, 2), (images, raters, *size), generator=chance)


def probabilities(logits):
    """(B, N, C, *S) float64 of all classes, the background first."""
    logits = logits.double()
    if logits.shape[2] > 1:
        return logits.softmax(2)
    return torch.cat([torch.sigmoid(-logits), torch.sigmoid(logits)], dim=2)


def same(a: SampleSummary, b: SampleSummary, **tolerance):
    for name, first, second in zip(a._fields, a, b, strict=True):
        if first is not None:
            torch.testing.assert_close(first, second, equal_nan=True, msg=lambda m, n=name: f"{n}: {m}", **tolerance)


@pytest.mark.parametrize(("channels", "size"), LAYOUTS)
def test_sums_are_those_of_all_samples_at_once(channels, size):
    logits, labels = draw(channels, size)
    result = summarize_samples([logits], labels)
    full = probabilities(logits)
    mean = full.mean(1)
    torch.testing.assert_close(result.mean.double(), mean[:, -channels:], rtol=0, atol=1e-6)
    torch.testing.assert_close(result.mean_log.double(), full.log().mean(1), rtol=1e-6, atol=1e-5)
    assert torch.equal(result.masks.long(), full.argmax(2))
    assert torch.equal(result.mean_mask.long(), mean.argmax(1))
    assert (result.masks.dtype, result.mean_mask.dtype) == (torch.uint8, torch.uint8)
    assert (result.mean.dtype, result.mean_log.dtype, result.cross_entropy.dtype) == (torch.float32,) * 3


@pytest.mark.parametrize(("channels", "size"), LAYOUTS)
def test_cross_entropy_is_the_one_of_the_probabilities(channels, size):
    logits, labels = draw(channels, size)
    expected = cross_entropy_cost(probabilities(logits).float(), labels)
    torch.testing.assert_close(summarize_samples([logits], labels).cross_entropy, expected, rtol=0, atol=1e-5)


def test_certain_samples_lose_no_digits_and_end_at_100():
    # float32 probabilities are 1 from a logit of 17 on: from the logits the cost goes on to grow, as torch's own does
    logits = torch.tensor([20.0, 50.0, 99.0, 150.0, -20.0, -99.0, -150.0])
    result = summarize_samples([logits.view(1, -1, 1, 1, 1)], torch.tensor([0, 1]).view(1, 2, 1, 1))
    for rater, target in enumerate((torch.zeros(7), torch.ones(7))):
        expected = nnf.binary_cross_entropy_with_logits(logits.double(), target.double(), reduction="none")
        torch.testing.assert_close(
            result.cross_entropy[0, :, rater].double(), expected.clamp(max=100.0), atol=1e-5, rtol=0
        )
    classes = torch.tensor([[200.0, 0.0, 30.0]]).view(1, 1, 3, 1, 1)
    result = summarize_samples([classes], torch.tensor([0, 1, 2]).view(1, 3, 1, 1))
    assert result.cross_entropy.flatten().tolist() == [0.0, 100.0, 100.0]
    assert result.mean_log.flatten().tolist() == [0.0, -100.0, -100.0]


@pytest.mark.parametrize(("channels", "size"), LAYOUTS)
def test_the_split_into_pieces_changes_nothing(channels, size):
    logits, labels = draw(channels, size)
    expected = summarize_samples([logits], labels)
    for split in ([1] * 7, [3, 4], [4, 1, 2]):
        same(summarize_samples(iter(logits.split(split, dim=1)), labels), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("budget", [1, 5, 40, 130, 700, 5000])
@pytest.mark.parametrize(("channels", "size"), LAYOUTS)
def test_the_size_of_blocks_changes_nothing(channels, size, budget, monkeypatch):
    logits, labels = draw(channels, size)
    expected = summarize_samples([logits], labels)
    monkeypatch.setitem(summary._BLOCK_ELEMENTS, "cpu", budget)
    same(summarize_samples(logits.split(3, dim=1), labels), expected, rtol=1e-6, atol=1e-5)


def test_no_block_is_larger_than_the_budget(monkeypatch):
    monkeypatch.setitem(summary._BLOCK_ELEMENTS, "cpu", 500)
    sizes = []
    add = summary._Sums._add_binary

    def watched(x, *others):
        sizes.append(x.numel())
        return add(x, *others)

    monkeypatch.setattr(summary._Sums, "_add_binary", staticmethod(watched))
    logits, _ = draw(1, (20, 12), number=9)
    summarize_samples([logits])
    assert max(sizes) <= 500 and sum(sizes) == logits.numel()


def test_no_piece_is_alive_when_the_next_one_is_drawn():
    alive = []

    def pieces():
        for seed in range(4):
            assert all(memory() is None for memory in alive)
            yield remember(draw(1, (6, 6), seed=seed)[0].numpy())

    def remember(memory):
        alive.append(weakref.ref(memory))  # which every view of the piece keeps
        return torch.from_numpy(memory)

    result = summarize_samples(pieces())
    assert len(alive) == 4 and result.masks.shape == (3, 28, 6, 6)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_permutation_of_raters_permutes_the_costs_alone(channels):
    logits, labels = draw(channels, (9, 7))
    first = summarize_samples([logits], labels)
    for order in itertools.islice(itertools.permutations(range(4)), 1, None, 5):
        second = summarize_samples([logits], labels[:, order])
        same(second, first._replace(cross_entropy=first.cross_entropy[..., order]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("junk", [0, 1, 255])
def test_a_missing_raters_map_is_not_looked_at(channels, junk):
    logits, labels = draw(channels, (9, 7))
    kept = summarize_samples([logits], labels[:, :3])
    labels[:, 3] = junk
    valid = torch.tensor([[True, True, True, False]]).expand(3, 4)
    result = summarize_samples([logits], labels, valid)
    assert result.cross_entropy[..., 3].isnan().all()
    same(result._replace(cross_entropy=result.cross_entropy[..., :3]), kept, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_half_precision_logits_are_summed_in_float32(channels):
    logits, labels = draw(channels, (16, 16), number=32)
    logits = logits.bfloat16()
    expected = summarize_samples([logits.float()], labels)
    same(summarize_samples([logits], labels), expected, rtol=0, atol=0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        same(summarize_samples([logits], labels), expected, rtol=0, atol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_masks_and_mean_mask_are_those_of_the_transforms(channels):
    logits, _ = draw(channels, (9, 7))
    data = LogitsToMasksd()(MeanPredictiond()({"pred": logits}))
    result = summarize_samples(logits.split(2, dim=1))
    assert torch.equal(result.masks, data["pred"])
    assert torch.equal(result.mean_mask, data["pred_mean_mask"])
    assert result.cross_entropy is None


@pytest.mark.parametrize("channels", [1, 3])
def test_a_networks_own_mean_gives_the_mean_mask(channels):
    logits, _ = draw(channels, (9, 7))
    own = -logits.mean(1)
    result = summarize_samples([logits], mean_logits=own)
    assert torch.equal(result.mean_mask.long(), own[:, 0].gt(0).long() if channels == 1 else own.argmax(1))
    torch.testing.assert_close(result.mean, summarize_samples([logits]).mean)
    with pytest.raises(InputError, match="mean_logits have shape"):
        summarize_samples([logits], mean_logits=own[:1])


def test_ties_go_to_the_background_or_the_first_class():
    zero = summarize_samples([torch.zeros(1, 2, 1, 2, 2)])
    assert not zero.masks.any() and not zero.mean_mask.any()
    zero = summarize_samples([torch.zeros(1, 2, 3, 2, 2)])
    assert not zero.masks.any() and not zero.mean_mask.any()


def test_a_hundred_samples_of_a_large_image_take_the_memory_of_the_summary():
    # 100 samples of 96 x 96 come one by one: what lives at the end is (masks + two maps), no float per sample.
    result = summarize_samples(torch.randn(1, 1, 1, 96, 96) for _ in range(100))
    held = sum(t.untyped_storage().nbytes() for t in result if t is not None)
    assert held <= 100 * 96 * 96 + 3 * 4 * 96 * 96 + 96 * 96


def test_masks_of_one_piece_are_views_of_nothing():
    logits, _ = draw(1, (9, 7))
    result = summarize_samples([logits])
    logits.fill_(math.nan)
    assert result.mean.isfinite().all() and result.mean_log.isfinite().all()


def test_an_empty_batch_has_an_empty_summary():
    result = summarize_samples([torch.zeros(0, 3, 1, 4, 4)], torch.zeros(0, 2, 4, 4))
    assert result.masks.shape == (0, 3, 4, 4) and result.cross_entropy.shape == (0, 3, 2)


@pytest.mark.parametrize(
    ("pieces", "labels", "valid", "words"),
    [
        ([], None, None, "no samples"),
        ([torch.zeros(2, 3, 4)], None, None, "pass logits"),
        ([torch.zeros(1, 2, 1, 4, 4, dtype=torch.int64)], None, None, "pass logits"),
        ([torch.zeros(1, 2, 1, 4, 4), torch.zeros(1, 2, 1, 4, 5)], None, None, "pieces of the same images"),
        ([torch.zeros(1, 2, 1, 4, 4), torch.zeros(1, 2, 2, 4, 4)], None, None, "pieces of the same images"),
        ([torch.zeros(1, 2, 1, 4, 4), torch.zeros(1, 0, 1, 4, 4)], None, None, "pieces of the same images"),
        ([torch.full((1, 2, 1, 4, 4), math.nan)], None, None, "NaN"),
        ([torch.full((1, 2, 3, 4, 4), math.inf)], None, None, "NaN"),
        ([torch.zeros(1, 300, 300, 1, 1)], None, None, "classes"),
        ([torch.zeros(1, 2, 1, 4, 4)], torch.zeros(1, 2, 4, 5), None, "labels have shape"),
        ([torch.zeros(1, 2, 1, 4, 4)], torch.zeros(2, 2, 4, 4), None, "labels have shape"),
        ([torch.zeros(1, 2, 1, 4, 4)], torch.full((1, 2, 4, 4), 2), None, "the class 2"),
        ([torch.zeros(1, 2, 3, 4, 4)], torch.full((1, 2, 4, 4), 3), None, "the class 3"),
        ([torch.zeros(1, 2, 1, 4, 4)], torch.zeros(1, 2, 4, 4), torch.ones(1, 3), "rater_valid"),
        ([[1.0]], None, None, "torch tensor"),
    ],
)
def test_what_cannot_be_summed_is_refused(pieces, labels, valid, words):
    with pytest.raises(InputError, match=words):
        summarize_samples(pieces, labels, valid)


TIED = torch.tensor([12.0, 12.0, -12.0, -12.0, 1.5, -1.5, 0.4, -0.4, 3.0, -3.0])  # probabilities that add up to 5 of 10


def orders(number=40):
    chance = torch.Generator().manual_seed(3)
    return [torch.randperm(10, generator=chance) for _ in range(number)]


@pytest.mark.parametrize("pieces", [10, 3, 1])
def test_at_a_tie_the_order_of_the_samples_decides_nothing(pieces):
    """Each pixel's mean is one half exactly, but for the rounding of a float32 sum, which depends on the order."""
    logits = torch.stack([TIED[order] for order in orders()], dim=1).view(1, 10, 1, 5, 8)
    summed = summarize_samples(logits.split(pieces, dim=1))
    assert not summed.mean_mask.any()
    raters = torch.zeros(1, 2, 5, 8, dtype=torch.uint8)
    raters[:, 0] = 1
    figures = functional.pixel_figures(summed, raters)
    assert figures["qubiq_score"].item() == 1  # above .1 to .4 everywhere, above .5 nowhere, like the raters
    assert figures["ace"].item() == pytest.approx(0, abs=1e-6)
    bins = functional.reliability_bins(summed.mean, raters, num_bins=2)
    assert bins[0, 0, :, 0].tolist() == [0, 40]


@pytest.mark.parametrize("pieces", [12, 1])
def test_the_first_of_classes_that_are_alike_is_the_mean_mask(pieces):
    chance = torch.Generator().manual_seed(5)
    logits = 4 * torch.randn(1, 12, 1, 5, 8, generator=chance)
    both = torch.cat([-9 + 0 * logits, logits, logits[:, torch.randperm(12, generator=chance)]], dim=2)
    summed = summarize_samples(both.split(pieces, dim=1))
    # twice the same means, of samples in another order: but for the background the first wins
    twice = summarize_samples([torch.cat([both, both.flip(2)[:, :, :2]], 2)])
    assert set(twice.mean_mask.unique().tolist()) <= {0, 1, 2}
    mirrored = torch.cat([both, both[:, :, [0, 2, 1]]], dim=1)  # both classes have the same mean
    assert set(summarize_samples(mirrored.split(pieces, dim=1)).mean_mask.unique().tolist()) <= {0, 1}
    assert {1, 2} <= set(summed.mean_mask.unique().tolist())


def test_a_thousand_samples_one_by_one_have_their_mean():
    logits = torch.full((1, 1, 1, 1, 1), math.log(0.1 / 0.9))  # in float32 a thousand tenths are 99.999
    result = summarize_samples(logits for _ in range(1000))
    assert result.mean.item() == pytest.approx(0.1, abs=2e-8)


@pytest.mark.parametrize("size", [(3, 3), (64, 64)])
def test_of_certain_samples_the_cost_keeps_its_digits_and_is_never_negative(size):
    chance = torch.Generator().manual_seed(4)
    labels = torch.randint(0, 2, (1, 3, *size), generator=chance)
    certain = (2 * labels[:, :, None] - 1) * torch.linspace(12, 60, math.prod(size)).view(size)
    result = summarize_samples([certain], labels)
    full = certain.squeeze(2).double()
    expected = nnf.binary_cross_entropy_with_logits(
        full[:, :, None].expand(1, 3, 3, *size), labels[:, None].double().expand(1, 3, 3, *size), reduction="none"
    )
    expected = expected.flatten(3).mean(3)
    torch.testing.assert_close(result.cross_entropy.double(), expected, rtol=1e-5, atol=0)
    assert (result.cross_entropy >= 0).all() and expected[0].diagonal().max() < 1e-5
    logs = torch.stack([nnf.logsigmoid(-full), nnf.logsigmoid(full)], 1).mean(2)
    torch.testing.assert_close(result.mean_log.double(), logs, rtol=1e-5, atol=0)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_mean_of_nan_is_refused(channels):
    logits, _ = draw(channels, (9, 7))
    own = logits.mean(1)
    own[0, 0, 0, 0] = math.nan
    with pytest.raises(InputError, match="mean_logits hold NaN"):
        summarize_samples([logits], mean_logits=own)
    own[0, 0, 0, 0] = math.inf  # certain
    assert summarize_samples([logits], mean_logits=own).mean_mask[0, 0, 0] == (channels == 1)
