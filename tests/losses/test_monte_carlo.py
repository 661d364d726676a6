"""The Monte-Carlo likelihood against loops over images, raters, maps and pixels, and its laws."""

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from aleatoric.distributions import LogitMapNormal
from aleatoric.errors import InputError
from aleatoric.losses import MonteCarloLikelihood, MonteCarloLikelihoodLoss, monte_carlo
from aleatoric.outputs import LogitMapOutput
from distribution_laws import Operators


def example(classes=1, batch=3, raters=4, size=(4, 5), rank=2, valid=None, seed=0):
    """Leaves (loc, factor, diagonal), an output maker and a label."""
    generator = torch.Generator().manual_seed(seed)
    shape = (classes, *size)
    loc = torch.randn(batch, *shape, generator=generator)
    factor = torch.randn(batch, rank, *shape, generator=generator)
    diagonal = torch.randn(batch, *shape, generator=generator).exp()
    leaves = [leaf.requires_grad_() for leaf in (loc, factor, diagonal)]
    label = torch.randint(0, max(classes, 2), (batch, raters, *size), generator=generator, dtype=torch.uint8)
    valid = torch.ones(batch, raters, dtype=torch.bool) if valid is None else valid
    return leaves, LogitMapOutput(LogitMapNormal(*leaves), valid), label


def drawn_maps(loss, law, seed):
    """The maps (M, B, K, *S) that the loss draws from ``seed``: the shared noise, then each map's own."""
    torch.manual_seed(seed)
    steps, maps = loss.num_samples // (1 + loss.antithetic), []
    for shared, noise in zip(torch.randn(steps, law.loc.shape[0], law.rank), torch.randn(steps, *law.loc.shape)):
        deviation = torch.einsum("br,br...->b...", shared, law.factor) + law.diagonal.sqrt() * noise
        maps += [law.loc + deviation] + [law.loc - deviation] * loss.antithetic
    return torch.stack(maps)


def by_loops(maps, output, label):
    """Equation 7 in numbers of Python."""
    total = []
    for b in range(label.shape[0]):
        nats = []
        for r in range(label.shape[1]):
            if not output.rater_valid[b, r]:
                continue
            likelihood = 0.0
            for eta in maps[:, b].double():
                exponent = 0.0
                for i, y in zip(range(eta[0].numel()), label[b, r].flatten().tolist()):
                    logits = eta.flatten(1)[:, i]
                    logits = torch.cat([torch.zeros(1).double(), logits]) if len(logits) == 1 else logits
                    exponent += float(logits[y] - math.log(sum(math.exp(x) for x in logits)))
                likelihood += math.exp(exponent)
            nats.append(-math.log(likelihood / len(maps)))
        total.append(sum(nats) / len(nats) if nats else 0.0)
    return torch.tensor(total)


VALID = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)


@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_equals_the_loops(classes, antithetic):
    _, output, label = example(classes, valid=VALID)
    module = MonteCarloLikelihood(num_samples=6, antithetic=antithetic)
    torch.manual_seed(7)
    values = module(output, label)
    expected = by_loops(drawn_maps(module, output.distribution, 7).detach(), output, label)
    torch.testing.assert_close(values, expected)
    assert values[2] == 0


@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("chunk_size", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("small", [0, 2**20])
def test_value_and_gradient_do_not_depend_on_the_chunks(chunk_size, antithetic, small, monkeypatch):
    monkeypatch.setattr(monte_carlo, "_SMALL", small)  # noise map by map, or at once
    results = []
    for chunk in (None, max(chunk_size, 1 + antithetic)):
        leaves, output, label = example(2)
        torch.manual_seed(3)
        value = MonteCarloLikelihoodLoss(6, chunk, antithetic)(output, label)
        results.append((value, torch.autograd.grad(value, leaves), torch.rand(1)))
    (whole, gradients, after), (parts, others, later) = results
    torch.testing.assert_close(parts, whole)
    for one, other in zip(gradients, others):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
        assert one.abs().max() > 0
    assert torch.equal(after, later)  # the same noise was used up


def test_chunks_bound_the_memory_of_the_backward_pass(monkeypatch):
    monkeypatch.setattr(monte_carlo, "_SMALL", 0)

    def kept(chunk):
        _, output, label = example(1, batch=1, size=(64, 64))
        saved = {}

        def pack(tensor):
            saved[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            MonteCarloLikelihoodLoss(40, chunk)(output, label)
        return sum(tensor.untyped_storage().nbytes() // 4 for tensor in saved.values())

    assert kept(None) > 40 * 64 * 64
    assert kept(2) < 20 * 64 * 64  # parameters and labels, no maps


def test_a_raters_and_an_images_value_are_their_own():
    _, output, label = example(2)
    module = MonteCarloLikelihood(5)

    def values(output, label):
        torch.manual_seed(0)
        return module.log_likelihoods(output.distribution, label)  # (M, B, R)

    whole = values(output, label)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(values(output, label[:, order]), whole[:, :, order])
    other = label.clone()
    other[1, 2] = 1 - other[1, 2]
    changed = (values(output, other) - whole).abs().amax(0) > 1e-4
    assert changed[1, 2] and changed.sum() == 1


def test_loss_is_the_mean_of_the_images_and_its_terms():
    _, output, label = example(valid=VALID)
    loss = MonteCarloLikelihoodLoss(4)
    results = []
    for call in (lambda: loss(output, label), lambda: loss.terms(output, label)["likelihood"]):
        torch.manual_seed(0)
        results.append(call())
    torch.manual_seed(0)
    results.append(loss.likelihood(output, label).mean())
    assert results[0] == results[1] == results[2]
    assert loss.named_terms() == {"likelihood": loss.likelihood}


def test_without_spread_it_is_the_cross_entropy():
    leaves, output, label = example(3)
    cold = output._replace(distribution=output.distribution.with_temperature(0.0))
    value = MonteCarloLikelihood(5)(cold, label)
    expected = torch.stack(
        [torch.nn.functional.cross_entropy(leaves[0], label[:, r].long(), reduction="none") for r in range(4)]
    )
    torch.testing.assert_close(value, expected.flatten(2).sum(-1).mean(0))


def test_many_samples_tend_to_the_integral():
    # one shared noise for all pixels: the likelihood is an integral over a line
    loc, factor = torch.randn(1, 1, 6), torch.randn(1, 1, 1, 6)
    output = LogitMapOutput(LogitMapNormal(loc, factor, torch.zeros(1, 1, 6)), torch.ones(1, 2, dtype=torch.bool))
    label = torch.randint(0, 2, (1, 2, 6))
    v = torch.linspace(-9, 9, 4001)
    eta = (loc + factor[0] * v.view(-1, 1, 1))[:, 0]  # (V, 6)
    likelihood = torch.where(label[0].unsqueeze(1) == 1, eta, -eta).sigmoid().prod(-1)  # (R, V)
    exact = -torch.trapezoid(likelihood * torch.exp(-0.5 * v**2) / math.sqrt(2 * math.pi), v).log().mean()
    torch.manual_seed(0)
    for antithetic in (False, True):
        value = MonteCarloLikelihoodLoss(30_000, antithetic=antithetic)(output, label)
        torch.testing.assert_close(value, exact, atol=0.03, rtol=0)


def test_one_logit_is_the_difference_of_two():
    # the same law: the difference of two jointly Normal logits; no own noise, so that one seed gives the same maps
    two = LogitMapNormal(torch.randn(3, 2, 4, 5), torch.randn(3, 2, 2, 4, 5), torch.zeros(3, 2, 4, 5))
    one = LogitMapNormal(
        two.loc[:, 1:] - two.loc[:, :1], two.factor[:, :, 1:] - two.factor[:, :, :1], torch.zeros(3, 1, 4, 5)
    )
    label, valid = torch.randint(0, 2, (3, 4, 4, 5)), torch.ones(3, 4, dtype=torch.bool)
    noise = torch.randn(7, 3, 2)
    maps = [law.loc + law.deviation(torch.zeros(7, *law.loc.shape), noise) for law in (one, two)]
    assert torch.allclose(maps[0][:, :, 0], maps[1][:, :, 1] - maps[1][:, :, 0], atol=1e-5)
    values = [by_loops(m, LogitMapOutput(law, valid), label) for m, law in zip(maps, (one, two))]
    torch.testing.assert_close(values[0], values[1])
    # and with own noise, whose variances add up
    own = torch.rand(3, 2, 4, 5)
    two = LogitMapNormal(two.loc, two.factor, own)
    one = LogitMapNormal(one.loc, one.factor, own.sum(1, keepdim=True))
    torch.manual_seed(0)
    many = MonteCarloLikelihood(20_000, chunk_size=10_000)
    values = [many(LogitMapOutput(law, valid), label) for law in (one, two)]
    torch.testing.assert_close(values[0], values[1], atol=0.15, rtol=0)


def test_large_logits_lose_nothing():
    # half of 40,000 pixels near +-5,000: sums of terms that cancel would be off by nats
    loc = (4000.0 + 1000.0 * torch.rand(1, 1, 40_000)) * torch.tensor([1.0, -1.0]).repeat(20_000)
    output = LogitMapOutput(LogitMapNormal(loc, torch.zeros(1, 0, 1, 40_000), torch.zeros(1, 1, 40_000)), VALID[:1, :1])
    label = (loc > 0).long()
    assert MonteCarloLikelihoodLoss(2)(output, label) == 0
    label[0, 0, 7] = 1 - label[0, 0, 7]
    torch.testing.assert_close(MonteCarloLikelihoodLoss(2)(output, label), loc[0, 0, 7].abs())


def test_a_label_of_the_windows_size_is_cropped_to_the_centre():
    _, output, label = example(2, size=(4, 6))
    wide = torch.nn.functional.pad(label, (3, 3, 3, 3), value=1)
    values = []
    for one in (label, wide):
        torch.manual_seed(0)
        values.append(MonteCarloLikelihood(3)(output, one))
    assert torch.equal(*values)
    for wrong in (label[..., :-2], wide[..., 1:]):
        with pytest.raises(InputError, match=r"the logits \(4, 6\) pixels"):
            MonteCarloLikelihood(3)(output, wrong)


def test_invalid_raters_have_no_gradient_even_of_impossible_labels():
    leaves, output, label = example(1, valid=VALID)
    label[2] = 255  # nobody looked at it
    MonteCarloLikelihoodLoss(3)(output, label).backward()
    for leaf in leaves:
        assert leaf.grad.isfinite().all() and leaf.grad[:2].abs().max() > 0 and not leaf.grad[2].any()


def test_autocast_rounds_nothing():
    values = []
    for enabled in (False, True):
        _, output, label = example(3)
        torch.manual_seed(0)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            values.append(MonteCarloLikelihood(4, chunk_size=2)(output, label))
    assert values[1].dtype == torch.float32 and torch.equal(*values)


def test_nothing_waits_for_the_device(monkeypatch):
    monkeypatch.setattr(monte_carlo, "_SMALL", 0)
    _, output, label = example(2, valid=VALID)
    loss = MonteCarloLikelihoodLoss(4, antithetic=True)
    with Operators() as operators:
        loss(output, label).backward()
    assert "normal_" in operators.seen and not operators.waiting


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(InputError, match="num_samples is 0"):
        MonteCarloLikelihoodLoss(0)
    with pytest.raises(InputError, match="num_samples is 5, expected an even number"):
        MonteCarloLikelihoodLoss(5, antithetic=True)
    with pytest.raises(InputError, match="chunk_size is 1, expected at least 2"):
        MonteCarloLikelihoodLoss(4, 1, antithetic=True)


@pytest.mark.parametrize("numel", [8, 300])  # of one side: below and above what is drawn in one call
def test_images_of_monai_and_double_precision_are_taken(numel):
    loc = torch.randn(2, 1, numel, numel)
    label = torch.randint(0, 2, (2, 2, numel, numel))
    valid = torch.ones(2, 2, dtype=torch.bool)
    values = []
    for convert in (torch.Tensor.clone, MetaTensor, torch.Tensor.double):
        torch.manual_seed(0)
        law = LogitMapNormal(convert(loc), convert(torch.ones(2, 3, 1, numel, numel)), convert(torch.ones_like(loc)))
        values.append(float(MonteCarloLikelihoodLoss(6)(LogitMapOutput(law, valid), label)))
    assert values[0] == values[1] and np.isfinite(values[2])
