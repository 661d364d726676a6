"""Laws of the latent diagnostics: limits, brute-force twins, what a permutation of the axes must not change."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from torch.distributions import Independent, Normal

from aleatoric.diagnostics import (
    LatentLogger,
    freeze_axes,
    handlers,
    interpolate_axes,
    latent_curves,
    latent_summary,
    pearson,
    pixel_entropy,
    rater_entropy,
)
from aleatoric.distributions import base_of, principal_axes, principal_scales
from aleatoric.errors import InputError
from aleatoric.metrics.functional import effective_rank, empirical_wasserstein_distance, gini_index
from aleatoric.networks.blocks import DiagonalNormal, FullNormal, LowRankNormalDensity, MixtureDensity, PlanarFlow
from aleatoric.tables import read_table
from models import probabilistic_unet

FEATURES, D, SIZE = 8, 3, 16
DENSITIES = {
    "diagonal": lambda: DiagonalNormal(FEATURES, D),
    "full": lambda: FullNormal(FEATURES, D),
    "low_rank": lambda: LowRankNormalDensity(FEATURES, D, rank=1),
    "mixture": lambda: MixtureDensity(FullNormal(FEATURES, D), 3),
    "flow": lambda: PlanarFlow(DiagonalNormal(FEATURES, D), FEATURES),
    "dropped_flow": lambda: PlanarFlow(DiagonalNormal(FEATURES, D), FEATURES, drop_at_inference=True),
}


def lively(density: str = "diagonal", **options):
    """A network whose prior has axes of different size and whose samples differ."""
    network = probabilistic_unet(latent_dim=D, **options).eval()
    network.prior.density = DENSITIES[density]()
    with torch.no_grad():
        for parameter in network.prior.density.parameters():
            parameter.normal_(std=0.5)
        network.head.first.weight[:, network.head.in_channels :] *= 5.0
        # logits around 0, so that samples cross the threshold
        network.head.rest[-1].bias -= network.sample(pictures(), 50).mean((0, 1, 3, 4))
    return network


def pictures() -> torch.Tensor:
    """Images whose priors differ."""
    contrast = torch.tensor([0.1, 0.5, 1.0, 2.0, 4.0]).reshape(5, 1, 1, 1)
    return contrast * torch.rand(5, 1, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def images() -> torch.Tensor:
    return pictures()


@pytest.fixture
def labels() -> torch.Tensor:
    return (torch.rand(5, 3, SIZE, SIZE) > 0.5).to(torch.uint8)


def masks_of(network, images, z):
    return (network.decode(network.backbone(images), z)[:, :, 0] > 0).to(torch.uint8)


def base_draws(network, images, num_samples, seed):
    base = base_of(network.prior_distribution(images))
    torch.manual_seed(seed)
    return base.sample((num_samples,)).transpose(0, 1), base.mean.unsqueeze(1)


@pytest.mark.parametrize("density", DENSITIES)
def test_the_summary_is_that_of_the_prior_whatever_the_chunks(density, images):
    network = lively(density)
    found = latent_summary(network, images, chunk_size=2)
    prior = network.prior_distribution(images)
    scales = principal_scales(prior)
    torch.testing.assert_close(found.scales, scales, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found.mean, base_of(prior).mean)
    torch.testing.assert_close(found.variance, base_of(prior).variance)
    torch.testing.assert_close(found.effective_rank, effective_rank(found.scales))
    torch.testing.assert_close(found.gini_index, gini_index(found.scales))
    covariance = found.axes @ torch.diag_embed(found.scales**2) @ found.axes.mT
    torch.testing.assert_close(covariance.diagonal(dim1=1, dim2=2), found.variance, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("density", DENSITIES)
def test_interpolation_at_zero_decodes_the_mean(density, images):
    network = lively(density)
    logits = interpolate_axes(network, images, (-1.0, 0.0), chunk_size=2)
    assert logits.shape == (5, D, 2, 1, SIZE, SIZE)
    prior = network.prior_distribution(images)
    mean = base_of(prior).mean
    for step in getattr(prior, "steps", ()):
        mean = step(mean)
    with torch.no_grad():
        expected = network.decode(network.backbone(images), mean.unsqueeze(1))
    torch.testing.assert_close(logits[:, :, 1], expected.expand(-1, D, -1, -1, -1), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(logits[:, :, 0], logits[:, :, 1])


@pytest.mark.parametrize("density", ["diagonal", "full"])
def test_interpolation_moves_one_principal_axis(density, images):
    network = lively(density)
    logits = interpolate_axes(network, images, (2.0,), axes=[2, 0])
    prior = network.prior_distribution(images)
    scales, axes = principal_axes(prior)
    for place, axis in enumerate((2, 0)):
        z = prior.mean + 2.0 * scales[:, axis, None] * axes[:, :, axis]
        with torch.no_grad():
            expected = network.decode(network.backbone(images), z.unsqueeze(1))
        torch.testing.assert_close(logits[:, place], expected, rtol=1e-4, atol=1e-4)


def test_interpolation_refuses_an_axis_that_is_not_there(images):
    with pytest.raises(InputError, match="expected some of 0 to 2"):
        interpolate_axes(lively(), images, axes=[3])


def test_another_order_of_the_axes_permutes_the_interpolation_and_leaves_the_freezing(images, labels):
    network = lively()
    order = torch.tensor([2, 0, 1])
    moved, frozen = interpolate_axes(network, images), freeze_axes(network, images, labels, num_samples=4)
    with torch.no_grad():
        linear, first = network.prior.density.linear, network.head.first
        rows = torch.cat([order, D + order])
        linear.weight.copy_(linear.weight[rows].clone())
        linear.bias.copy_(linear.bias[rows].clone())
        channels = network.head.in_channels
        first.weight[:, channels:] = first.weight[:, channels:][:, order].clone()
    torch.testing.assert_close(interpolate_axes(network, images), moved[:, order], rtol=1e-4, atol=1e-4)
    again = freeze_axes(network, images, labels, num_samples=4)
    torch.testing.assert_close(again.smallest_first[:, -1], frozen.smallest_first[:, -1])  # draws differ, the mean not


@pytest.mark.parametrize("density", DENSITIES)
def test_nothing_frozen_is_plain_sampling_and_all_frozen_is_the_mean(density, images, labels):
    network = lively(density)
    found = freeze_axes(network, images, labels, num_samples=6, seed=3, chunk_size=2)
    draws, mean = base_draws(network, images, 6, 3)
    steps = getattr(network.prior_distribution(images), "steps", ())
    for step in steps:
        draws, mean = step(draws.transpose(0, 1)).transpose(0, 1), step(mean[:, 0]).unsqueeze(1)
    with torch.no_grad():
        free, still = masks_of(network, images, draws), masks_of(network, images, mean.expand(-1, 6, -1))
    assert (free != free[:, :1]).any() and (still == still[:, :1]).all()
    for curve in found:
        assert curve.shape == (5, D + 1)
        torch.testing.assert_close(curve[:, 0], empirical_wasserstein_distance(free, labels), atol=1e-3, rtol=0)
        torch.testing.assert_close(curve[:, -1], empirical_wasserstein_distance(still, labels), atol=1e-3, rtol=0)


def test_nothing_frozen_has_the_law_of_the_networks_samples(images, labels):
    network = lively()
    found = freeze_axes(network, images[:1], labels[:1], num_samples=600, seed=1).smallest_first[0, 0]
    sampled = (network.sample(images[:1], 600)[:, :, 0] > 0).to(torch.uint8)
    assert abs(found - empirical_wasserstein_distance(sampled, labels[:1])[0]) < 0.02


def test_axes_freeze_in_the_order_of_their_size_image_by_image(images, labels):
    network = lively()
    found = freeze_axes(network, images, labels, num_samples=6, seed=3)
    draws, mean = base_draws(network, images, 6, 3)
    scales = network.prior_distribution(images).stddev
    assert len({tuple(row.tolist()) for row in scales.argsort(-1)}) > 1  # images disagree on the order
    for name, descending in (("smallest_first", False), ("largest_first", True)):
        for frozen in range(D + 1):
            z = draws.clone()
            for image, order in enumerate(scales.argsort(-1, descending=descending)):
                for axis in order[:frozen]:
                    z[image, :, axis] = mean[image, 0, axis]
            with torch.no_grad():
                expected = empirical_wasserstein_distance(masks_of(network, images, z), labels)
            torch.testing.assert_close(getattr(found, name)[:, frozen], expected, atol=1e-3, rtol=0)


def test_principal_axes_freeze_where_no_coordinate_is_an_axis(images, labels):
    network = lively("full")
    found = freeze_axes(network, images, labels, num_samples=6, seed=3).largest_first[:, 1]
    draws, mean = base_draws(network, images, 6, 3)
    axes = principal_axes(network.prior_distribution(images)).axes
    first = axes[:, :, 0].unsqueeze(1)  # the largest eigenvalue's
    z = draws - ((draws - mean) * first).sum(-1, keepdim=True) * first
    with torch.no_grad():
        expected = empirical_wasserstein_distance(masks_of(network, images, z), labels)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_freezing_does_not_depend_on_chunks_and_leaves_the_random_state(images, labels):
    network, done = lively("mixture"), []
    state = torch.random.get_rng_state()
    whole = freeze_axes(network, images, labels, num_samples=4, chunk_size=5)
    parts = freeze_axes(network, images, labels, num_samples=4, chunk_size=2, progress=done.append)
    torch.testing.assert_close(parts.smallest_first, whole.smallest_first)
    assert done == [2, 2, 1] and torch.equal(torch.random.get_rng_state(), state)


def test_a_missing_rater_is_left_out_of_the_freezing(images, labels):
    network = lively()
    valid = torch.ones(5, 3, dtype=torch.bool)
    valid[:, 2] = False
    found = freeze_axes(network, images, labels, valid, num_samples=4)
    expected = freeze_axes(network, images, labels[:, :2], num_samples=4)
    torch.testing.assert_close(found.smallest_first, expected.smallest_first)


def test_class_maps_in_bfloat16(images):
    network = lively(classes=3, bf16=True)
    labels = torch.randint(0, 3, (5, 2, SIZE, SIZE))
    assert interpolate_axes(network, images).shape == (5, D, 7, 3, SIZE, SIZE)
    assert freeze_axes(network, images, labels, num_samples=4, num_classes=3).smallest_first.isfinite().all()


def test_entropy_has_its_limits():
    assert pixel_entropy(torch.full((2, 1, 4, 4), 0.5)).tolist() == pytest.approx([math.log(2)] * 2)
    assert pixel_entropy(torch.full((1, 4, 2, 2), 0.25)).item() == pytest.approx(math.log(4))
    assert pixel_entropy(torch.ones(1, 1, 2, 2)).item() == 0.0
    half = torch.tensor([[[[0.5, 1.0]]]])
    assert pixel_entropy(half).item() == pytest.approx(math.log(2) / 2)  # the mean over the pixels


def test_entropy_of_raters_who_split_is_ln_2_and_of_one_is_0():
    split = torch.stack([torch.zeros(4, 4), torch.ones(4, 4)]).unsqueeze(0).long()
    assert rater_entropy(split).item() == pytest.approx(math.log(2))
    assert rater_entropy(split, torch.tensor([[True, False]])).item() == 0.0
    assert rater_entropy(split, torch.tensor([[False, False]])).isnan().all()
    with pytest.raises(InputError, match="rater_valid has shape"):
        rater_entropy(split, torch.ones(1, 3, dtype=torch.bool))


def test_entropy_of_raters_is_that_of_their_mean():
    labels = torch.randint(0, 3, (2, 5, 6, 6))
    valid = torch.tensor([[True, True, False, True, True], [True] * 5])
    found = rater_entropy(labels, valid, num_classes=3)
    for image in range(2):
        one_hot = torch.nn.functional.one_hot(labels[image][valid[image]], 3).float().mean(0)  # (H, W, K)
        assert found[image].item() == pytest.approx(pixel_entropy(one_hot.movedim(-1, 0)[None]).item(), rel=1e-5)


def test_pearson_is_numpys():
    random = np.random.default_rng(0)
    x = random.normal(size=30)
    y = 0.9 * x + random.normal(size=30)
    found = pearson(torch.from_numpy(x), y.tolist())
    assert found.r == pytest.approx(np.corrcoef(x, y)[0, 1]) and found.pairs == 30 and 0 < found.p_value < 0.05
    assert pearson(x, -x).r == pytest.approx(-1.0)


def test_pearson_leaves_out_what_is_not_finite_and_is_nan_where_nothing_varies():
    assert pearson([1.0, 2.0, math.nan, 4.0], [2.0, 4.0, 9.0, 8.0])[::2] == (pytest.approx(1.0), 3)
    assert math.isnan(pearson([1.0, 1.0], [1.0, 2.0]).r) and math.isnan(pearson([], []).r)
    with pytest.raises(InputError, match="two of one length"):
        pearson([1.0], [1.0, 2.0])


def follow(folder, priors, epochs=(1,), start=0, **options) -> LatentLogger:
    """A trainer without work, whose validation meets these training outputs."""
    evaluator = Engine(lambda engine, batch: {"pred": batch})

    def validate(engine):
        evaluator.state.epoch = engine.state.epoch - 1
        evaluator.run([SimpleNamespace(prior=prior) for prior in priors], max_epochs=engine.state.epoch)

    logger = LatentLogger(str(folder), evaluator, **options)
    trainer = Engine(lambda engine, batch: None)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
    logger.attach(trainer)
    if start:
        trainer.load_state_dict({"iteration": start, "epoch_length": 1, "max_epochs": epochs[-1]})
    trainer.run([0], max_epochs=epochs[-1])
    return logger


def prior_of(*scales) -> Independent:
    scale = torch.tensor(scales)
    return Independent(Normal(torch.zeros_like(scale), scale), 1)


def test_the_logger_keeps_means_over_the_images(tmp_path):
    priors = [prior_of([[1.0, 1.0]], [[3.0, 1.0]]), prior_of([[2.0, 0.5]])]  # batch (B, 1), as a training output has it
    follow(tmp_path, priors)
    (row,) = read_table(tmp_path / "latents.csv")
    scales = torch.tensor([[1.0, 1.0], [3.0, 1.0], [2.0, 0.5]])
    assert row == pytest.approx(
        {
            "epoch": 1,
            "effective_rank": effective_rank(scales).mean().item(),
            "gini_index": gini_index(scales).mean().item(),
            "scale_1": 2.0,
            "scale_2": 2.5 / 3,
        },
        rel=1e-4,
    )
    assert (tmp_path / "latents.png").stat().st_size > 1000
    assert list(latent_curves([row])) == [
        "effective rank",
        "Gini index",
        "prior standard deviation/axis 1",
        "prior standard deviation/axis 2",
    ]


def test_tensorboard_gets_the_axes_and_the_figure(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    follow(tmp_path, [prior_of([[1.0, 2.0]])], epochs=(1, 2))
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    tags = events.Tags()
    assert tags["scalars"] == ["latent/scale_1", "latent/scale_2"] and tags["images"] == ["latent/figure"]
    assert [(event.step, event.value) for event in events.Scalars("latent/scale_2")] == [(1, 2.0), (2, 2.0)]


def test_a_resumed_training_goes_on_with_its_table_and_a_new_one_begins_anew(tmp_path, monkeypatch):
    prior = [prior_of([[1.0, 2.0]])]
    monkeypatch.setattr(LatentLogger, "_draw", lambda self: None)
    follow(tmp_path, prior, epochs=(1, 2, 3), tensorboard=False)
    follow(tmp_path, prior, epochs=(1, 2, 3, 4), start=2, tensorboard=False)
    assert [row["epoch"] for row in read_table(tmp_path / "latents.csv")] == [1, 2, 3, 4]
    (tmp_path / "latents.csv").write_text("epoch,scale_1\n1,much\n")  # not looked at
    follow(tmp_path, prior, epochs=(1,), tensorboard=False)
    assert [row["epoch"] for row in read_table(tmp_path / "latents.csv")] == [1]


@pytest.mark.parametrize("prior", [None, [prior_of([[1.0, 2.0]])]])
def test_a_network_without_a_single_prior_switches_the_logger_off(tmp_path, prior):
    follow(tmp_path, [prior], epochs=(1, 2))
    assert not list(tmp_path.iterdir())


def test_the_device_is_asked_once_per_validation(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(handlers, "_totals", lambda priors: calls.append(len(priors)))
    follow(tmp_path, [prior_of([[1.0, 2.0]])] * 3, epochs=(1, 2))
    assert calls == [3, 3]


def test_images_of_all_processes_count(monkeypatch):
    ours, theirs = np.array([1.0, 2.0]), np.array([3.0, 4.0])

    def gather(gathered, part):
        gathered[:] = [part, None, theirs]

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    assert handlers._over_processes(ours).tolist() == [4.0, 6.0]


def test_a_damaged_table_is_named(tmp_path):
    (tmp_path / "latents.csv").write_text("epoch,scale_1\n1,much\n")
    with pytest.raises(InputError, match=r"latents\.csv is no table of numbers"):
        read_table(tmp_path / "latents.csv")
