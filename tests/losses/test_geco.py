import math

import pytest
import torch
from ignite.engine import Engine
from monai.utils.enums import CommonKeys
from torch.distributions import Independent, Normal

from aleatoric.errors import InputError
from aleatoric.handlers import LossTermLogger
from aleatoric.losses import GECOLoss, LagrangeMultiplier, NegativeLogLikelihood, WorstPixelsLikelihood
from aleatoric.losses.likelihoods import pixel_cross_entropy
from models import hierarchical_unet, variational_output


def ladder_output(batch=3, size=8, seed=0, valid=None):
    torch.manual_seed(seed)
    label = torch.randint(0, 2, (batch, 4, size, size))
    return hierarchical_unet()(torch.rand(batch, 1, size, size), label, valid), label


def select(output, b):
    """The training output of one image of the batch."""
    part = slice(b, b + 1)

    def rows(densities):
        return [Independent(Normal(d.mean[part], d.stddev[part]), d.reinterpreted_batch_ndims) for d in densities]

    return output._replace(
        logits=output.logits[part],
        rater=output.rater[part],
        slot=output.slot[part],
        priors=rows(output.priors),
        posteriors=rows(output.posteriors),
        posterior_draws=[z[part] for z in output.posterior_draws],
        posterior_valid=output.posterior_valid[part],
    )


def constraint_of(values, valid=None):
    """What a multiplier is updated with: values (B,) and which of them count."""
    values = torch.as_tensor(values, dtype=torch.float32)
    return values, torch.ones(len(values), dtype=torch.bool) if valid is None else torch.tensor(valid)


# ---- the worst pixels


def test_all_pixels_give_the_mean_of_the_likelihood():
    output, label = variational_output(), torch.randint(0, 2, (3, 4, 8, 8))
    values = WorstPixelsLikelihood(1.0)(output, label)
    torch.testing.assert_close(values, NegativeLogLikelihood()(output, label) / 64)


@pytest.mark.parametrize("classes", [1, 3])
def test_without_noise_they_are_the_largest_of_each_image(classes):
    output, label = variational_output(classes=classes), torch.randint(0, max(2, classes), (3, 4, 8, 8))
    output = output._replace(logits=output.logits * torch.tensor([1.0, 10.0, 100.0]).reshape(3, 1, 1, 1))
    term = WorstPixelsLikelihood(0.1, stochastic=False)
    values = term(output, label)
    for b in range(3):  # a batch-wide choice would take all of them from the last image
        pixels = sorted(pixel_cross_entropy(output, label)[b].flatten().tolist(), reverse=True)
        assert values[b].item() == pytest.approx(sum(pixels[:6]) / 6, rel=1e-5)


@pytest.mark.parametrize(("share", "pixels", "count"), [(0.02, 16_384, 327), (0.02, 10, 1), (0.29, 100, 29), (1, 7, 7)])
def test_how_many_they_are(share, pixels, count):
    assert WorstPixelsLikelihood(share).count(pixels) == count


def test_with_noise_a_pixel_is_drawn_as_often_as_its_cross_entropy_says():
    base = variational_output(batch=1, size=3)
    count = 40_000
    output = base._replace(
        logits=base.logits.expand(count, 1, 3, 3),
        rater=torch.zeros(count, dtype=torch.long),
        slot=torch.zeros(count, dtype=torch.long),
        posterior_valid=torch.ones(count, 1, dtype=torch.bool),
    )
    label = torch.randint(0, 2, (1, 1, 3, 3)).expand(count, 1, 3, 3)
    cross_entropy = pixel_cross_entropy(output, label)[0].flatten()
    drawn = WorstPixelsLikelihood(1 / 9)(output, label)  # one pixel of nine
    share = torch.stack([(drawn - value).abs() < 1e-6 for value in cross_entropy]).float().mean(1)
    torch.testing.assert_close(share, cross_entropy / cross_entropy.sum(), atol=0.01, rtol=0.0)


def test_with_noise_no_pixel_is_drawn_twice():
    output, label = variational_output(), torch.randint(0, 2, (3, 4, 8, 8))
    logits = output.logits.clone().requires_grad_()
    WorstPixelsLikelihood(0.25)(output._replace(logits=logits), label).sum().backward()
    assert (logits.grad.flatten(1) != 0).sum(1).tolist() == [16, 16, 16]


def test_perfect_pixels_are_no_trouble():
    output, label = variational_output(), torch.ones(3, 4, 8, 8)
    sure = output._replace(logits=torch.full((3, 1, 8, 8), 500.0).requires_grad_())
    values = WorstPixelsLikelihood(0.1)(sure, label)
    assert torch.equal(values, torch.zeros(3))
    values.sum().backward()
    assert sure.logits.grad.isfinite().all()


# ---- the multiplier


def test_the_multiplier_follows_its_rule():
    multiplier = LagrangeMultiplier(initial=2.0, rate=0.1, decay=0.9)
    raw, average = math.log(math.expm1(math.sqrt(2.0))), None
    for step in range(20):
        constraint = [math.sin(step), 0.3 * step - 2]
        multiplier.update(*constraint_of(constraint))
        mean = sum(constraint) / 2
        average = mean if average is None else 0.9 * average + 0.1 * mean
        raw += 0.1 * max(-1.0, min(1.0, average))
        assert multiplier.average.item() == pytest.approx(average, rel=1e-4, abs=1e-5)
        assert multiplier.value.item() == pytest.approx(math.log1p(math.exp(raw)) ** 2, rel=1e-4)


@pytest.mark.parametrize("steps", [100, 1000])
def test_the_multiplier_falls_as_fast_as_it_grew(steps):
    multiplier = LagrangeMultiplier(rate=0.01, decay=0.0)
    for constraint in [5.0] * steps + [-1.0] * steps:
        multiplier.update(*constraint_of([constraint]))
    assert multiplier.value.item() == pytest.approx(1.0, rel=0.02)


def test_the_constraint_is_relative_to_kappa():
    output, label = ladder_output()
    averages = []
    for kappa in (0.2, 0.4):
        loss = fixed_loss(kappa=kappa)
        loss(output, label)
        averages.append((loss.multiplier.average.item() + 1) * kappa)
    assert averages[0] == pytest.approx(averages[1])
    assert averages[0] == pytest.approx(loss.terms(output, label)["reconstruction"].item())
    with pytest.raises(InputError, match="kappa is 0"):
        GECOLoss(kappa=0.0)


def test_the_multiplier_keeps_to_its_bounds():
    multiplier = LagrangeMultiplier(rate=9.0, decay=0.0, smallest=0.5, largest=3.0)
    for constraint, bound in ((9.0, 3.0), (-9.0, 0.5)):
        for _ in range(3):
            multiplier.update(*constraint_of([constraint]))
        assert multiplier.value.item() == bound
    with pytest.raises(InputError, match="begins with 5"):
        LagrangeMultiplier(initial=5.0, largest=1.0)


def test_images_without_raters_do_not_move_the_multiplier():
    one, other = LagrangeMultiplier(), LagrangeMultiplier()
    one.update(*constraint_of([0.4, 7.0], [True, False]))
    other.update(*constraint_of([0.4]))
    nobody = {name: value.clone() for name, value in one.state_dict().items()}
    one.update(*constraint_of([3.0, 7.0], [False, False]))
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]) and torch.equal(value, nobody[name])


def test_processes_agree_on_the_multiplier(monkeypatch):
    whole, part = LagrangeMultiplier(), LagrangeMultiplier()
    whole.update(*constraint_of([0.4, 0.2, 0.9]))
    elsewhere = torch.tensor([0.2 + 0.9, 2.0])  # what the other process sends: sum and count
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda total: total.add_(elsewhere))
    part.update(*constraint_of([0.4]))
    torch.testing.assert_close(part.value, whole.value)
    torch.testing.assert_close(part.average, whole.average)


# ---- the objective


def fixed_loss(**options):
    return GECOLoss(WorstPixelsLikelihood(0.1, stochastic=False), **options)


def test_total_is_what_its_formula_says():
    output, label = ladder_output()
    loss = fixed_loss(multiplier=LagrangeMultiplier(initial=3.0), kappa=0.2)
    terms = loss.terms(output, label)
    assert list(terms) == ["reconstruction", "kl", "multiplier"] and terms["multiplier"] == 3
    expected = terms["kl"] + 3.0 * 6 * (terms["reconstruction"] - 0.2)  # the worst 6 of 64 pixels
    torch.testing.assert_close(loss(output, label), expected)


def test_an_images_loss_does_not_depend_on_its_batch():
    output, label = ladder_output(batch=5)
    loss = fixed_loss().eval()
    alone = torch.stack([loss(select(output, b), label[b : b + 1]) for b in range(5)])
    torch.testing.assert_close(loss(output, label), alone.mean())


def test_an_image_without_raters_costs_nothing():
    output, label = ladder_output(2, valid=torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool))
    loss = fixed_loss().eval()
    for module in (loss.reconstruction, loss.divergence):
        values = module(output, label)
        assert values[0] == 0 and values[1] > 0
    assert loss(select(output, 0), label[:1]) == 0 and loss(select(output, 1), label[1:]) != 0
    torch.testing.assert_close(loss(output, label), loss(select(output, 1), label[1:]) / 2)


def test_only_a_training_step_moves_the_state():
    output, label = ladder_output()
    loss = fixed_loss()
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    assert set(before) == {f"multiplier.{name}" for name in ("value", "average", "begun")}

    def moved():
        return any(not torch.equal(value, before[name]) for name, value in loss.state_dict().items())

    with torch.no_grad():  # a validation
        loss(output, label)
    loss.terms(output, label)
    loss.eval()(output, label)
    assert not moved()
    loss.train()(output, label)
    assert moved()


def test_a_checkpoint_keeps_the_state():
    output, label = ladder_output()
    loss = fixed_loss()
    for _ in range(3):
        loss(output, label)
    resumed = fixed_loss()
    resumed.load_state_dict(loss.state_dict())
    for _ in range(2):
        torch.testing.assert_close(resumed(output, label), loss(output, label), rtol=0, atol=0)
    assert torch.equal(resumed.multiplier.value, loss.multiplier.value)


def test_every_term_is_logged_and_nothing_is_computed_for_it():
    output, label = ladder_output()
    loss, calls = fixed_loss(), []
    for module in loss.named_terms().values():
        module.register_forward_hook(lambda module, inputs, value: calls.append(value.shape))

    trainer = Engine(lambda engine, batch: {CommonKeys.LOSS: loss(output, label)})
    LossTermLogger(loss, progress=False).attach(trainer)
    trainer.run([0, 1])
    assert calls == [(3,)] * 6
    figures = trainer.state.metrics
    assert set(figures) == {"train_reconstruction", "train_kl", "train_multiplier", "train_loss"}
    assert figures["train_multiplier"] > 1  # the untrained network violates the constraint


def test_share_must_be_a_part():
    with pytest.raises(InputError, match=r"share is 2.0"):
        WorstPixelsLikelihood(2.0)


def discs(batch, size=16):
    """Discs that four raters draw with four radii, and their images."""
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    center = torch.rand(batch, 2, 1, 1) * size / 2 + size / 4
    distance = ((rows - center[:, 0]) ** 2 + (columns - center[:, 1]) ** 2).sqrt()
    label = distance.unsqueeze(1) < torch.tensor([2.0, 3.0, 4.0, 5.0]).reshape(1, 4, 1, 1)
    return (3 - distance).sigmoid().unsqueeze(1), label.long()


def test_training_approaches_the_constraint():
    torch.manual_seed(0)
    network = hierarchical_unet((4, 8, 8))
    loss = GECOLoss(WorstPixelsLikelihood(0.1), multiplier=LagrangeMultiplier(rate=0.1, decay=0.8), kappa=0.7)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    averages, multipliers = [], [1.0]
    for _ in range(60):
        image, label = discs(8)
        value = loss(network(image, label), label)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        averages.append(loss.multiplier.average.item())
        multipliers.append(loss.multiplier.value.item())
    # the reconstruction is too bad at first, then good enough; the multiplier grows, then falls below where it began
    assert min(averages[:5]) > 0 and max(averages[-20:]) < 0
    assert multipliers[5] > 1 and multipliers[-1] < 0.8
    for average, before, after in zip(averages, multipliers, multipliers[1:]):
        assert (after > before) == (average > 0)
