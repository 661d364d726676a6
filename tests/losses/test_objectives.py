import math

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch.distributions import Categorical, Independent, Normal

from aleatoric.distributions import FlowDistribution, PlanarTransform, ReparameterizedMixture
from aleatoric.errors import InputError
from aleatoric.losses import DivergenceTerm, KLDivergence, NegativeLogLikelihood, SinkhornDivergence, VariationalLoss
from models import probabilistic_unet, variational_output


def objective():
    return VariationalLoss(
        NegativeLogLikelihood(),
        {"kl": DivergenceTerm(KLDivergence(), 10.0), "sinkhorn": DivergenceTerm(SinkhornDivergence(), 100.0)},
    )


def select(output, index):
    """The training output of some images of the batch."""

    def part(d):
        return Independent(Normal(d.mean[index], d.stddev[index]), 1)

    return output._replace(
        logits=output.logits[index],
        rater=output.rater[index],
        slot=output.slot[index],
        prior=part(output.prior),
        posterior=part(output.posterior),
        posterior_draws=output.posterior_draws[index],
        posterior_valid=output.posterior_valid[index],
    )


def frozen_prior_draws(monkeypatch, output):
    """A prior whose draws are its mean plus fixed noise, so that a loss can be compared with itself."""
    noise = torch.randn(output.posterior_draws.shape[1], 1, 1, output.posterior_draws.shape[2])

    def rsample(self, shape=()):
        return self.mean + self.stddev * noise[: shape[0]]

    monkeypatch.setattr(Independent, "rsample", rsample)


def test_likelihood_is_summed_over_pixels_and_is_the_bernoulli_likelihood():
    output, label = variational_output(), torch.randint(0, 2, (3, 4, 8, 8))
    values = NegativeLogLikelihood()(output, label)
    for b in range(3):
        p = torch.sigmoid(output.logits[b, 0])
        y = label[b, output.rater[b]]
        torch.testing.assert_close(values[b], -torch.log(torch.where(y == 1, p, 1 - p)).sum())


def test_likelihood_of_class_maps_is_categorical():
    output, label = variational_output(classes=3), torch.randint(0, 3, (3, 4, 8, 8))
    values = NegativeLogLikelihood()(output, label)
    for b in range(3):
        log_p = output.logits[b].log_softmax(0)
        expected = -sum(log_p[label[b, output.rater[b], i, j], i, j] for i in range(8) for j in range(8))
        torch.testing.assert_close(values[b], expected)


def test_kl_of_the_chosen_rater_against_monte_carlo():
    output = variational_output(batch=4, seed=3)
    values = KLDivergence()(output, torch.zeros(4, 4, 8, 8))
    z = output.posterior.sample((200_000,))
    estimate = (output.posterior.log_prob(z) - output.prior.log_prob(z)).mean(0)
    chosen = estimate[torch.arange(4), output.slot]
    torch.testing.assert_close(values, chosen, rtol=0.03, atol=0.03)


def no_closed_form(loc, scale):
    """A Normal in disguise: a mixture of it alone, for which no KL divergence is registered."""
    weights = Categorical(torch.ones(*loc.shape[:-1], 1))
    return ReparameterizedMixture(weights, Independent(Normal(loc.unsqueeze(-2), scale.unsqueeze(-2)), 1))


def disguised(latent_dim):
    """4000 images whose posterior is N(0, 1) and whose prior is N(0, 4), and what their KL divergence is."""
    output = variational_output(batch=4000, posteriors=1, latent_dim=latent_dim)
    zeros, ones = torch.zeros(4000, 1, latent_dim), torch.ones(4000, 1, latent_dim)
    output = output._replace(prior=no_closed_form(zeros, 2 * ones), posterior=no_closed_form(zeros, ones))
    return output, latent_dim * (math.log(2) + 1 / 8 - 1 / 2)


def test_kl_without_a_closed_form_is_estimated_from_the_draw():
    output, expected = disguised(2)
    draws = output.posterior.sample()
    values = KLDivergence()(output._replace(posterior_draws=draws), torch.zeros(4000, 1, 2, 2))
    assert values.mean().item() == pytest.approx(expected, abs=0.06)
    torch.testing.assert_close(values, (output.posterior.log_prob(draws) - output.prior.log_prob(draws))[:, 0])


def clouds(posterior, prior):
    """An output whose posterior draws and prior draws are the given clouds, (B, P, d) each."""
    base = variational_output(posterior.shape[0], posterior.shape[1], posterior.shape[2])

    class Fixed(type(base.prior)):
        def rsample(self, shape=()):
            return prior.transpose(0, 1).unsqueeze(2)  # (P, B, 1, d), as a distribution of batch (B, 1) gives

    fixed = Fixed(Normal(base.prior.mean, base.prior.stddev), 1)
    return base._replace(posterior_draws=posterior, prior=fixed)


def test_sinkhorn_tends_to_half_the_squared_wasserstein_distance():
    x, y = torch.randn(5, 4, 3) * 3, torch.randn(5, 4, 3) * 3
    values = SinkhornDivergence(blur=0.01, scaling=0.9)(clouds(x, y), torch.zeros(5, 4, 2, 2))
    for b in range(5):
        cost = torch.cdist(x[b], y[b]) ** 2 / 2
        rows, columns = linear_sum_assignment(cost.numpy())
        torch.testing.assert_close(values[b], cost[rows, columns].mean(), rtol=0.02, atol=1e-3)


def test_sinkhorn_keeps_each_image_with_its_own_prior():
    # Far apart images whose posterior is their prior: zero, unless images and raters are mixed by a reshape
    centre = torch.arange(6.0).reshape(6, 1, 1) * 20
    cloud = centre + torch.randn(6, 4, 2)
    values = SinkhornDivergence()(clouds(cloud, cloud.flip(1)), torch.zeros(6, 4, 2, 2))
    assert values.abs().max() < 1e-2
    swapped = cloud[[1, 0, 2, 3, 4, 5]]
    values = SinkhornDivergence()(clouds(swapped, cloud), torch.zeros(6, 4, 2, 2))
    assert (values[:2] > 100).all() and values[2:].abs().max() < 1e-2


def test_the_networks_clouds_are_not_mixed():
    # The same through the network: a prior equal to each image's posterior must cost nothing
    network = probabilistic_unet(all_raters=True)
    output = network(
        torch.rand(5, 1, 16, 16) * torch.arange(1.0, 6).reshape(5, 1, 1, 1) * 30, torch.zeros(5, 4, 16, 16)
    )
    means = output.posterior.mean.detach()
    assert torch.cdist(means[:, 0], means[:, 0]).fill_diagonal_(9.0).min() > 1  # the images lie apart
    tight = Independent(Normal(means[:, :1], torch.full_like(means[:, :1], 1e-3)), 1)
    output = output._replace(prior=tight, posterior_draws=means)
    assert SinkhornDivergence()(output, torch.zeros(5, 4, 16, 16)).abs().max() < 1e-2


def test_sinkhorn_ignores_missing_raters(monkeypatch):
    valid = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    output = variational_output(valid=valid)
    frozen_prior_draws(monkeypatch, output)
    term, label = SinkhornDivergence(), torch.zeros(3, 4, 8, 8)
    values = term(output, label)
    moved = output.posterior_draws + 100.0 * ~valid[:, :, None]
    torch.testing.assert_close(term(output._replace(posterior_draws=moved), label), values, rtol=1e-4, atol=1e-4)
    two = output._replace(posterior_draws=output.posterior_draws[:, :2], posterior_valid=valid[:, :2])
    torch.testing.assert_close(term(two, label)[0], values[0], rtol=1e-4, atol=1e-4)
    assert values[2] == 0


def test_rater_order_does_not_matter(monkeypatch):
    output = variational_output()
    frozen_prior_draws(monkeypatch, output)
    order = torch.tensor([2, 0, 3, 1])
    turned = output._replace(posterior_draws=output.posterior_draws[:, order])
    label = torch.zeros(3, 4, 8, 8)
    torch.testing.assert_close(SinkhornDivergence()(turned, label), SinkhornDivergence()(output, label))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 50.0])
def test_sinkhorn_gradient_is_finite(scale):
    output = variational_output(valid=torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool))
    draws = (output.posterior_draws * scale).requires_grad_()
    SinkhornDivergence()(output._replace(posterior_draws=draws), torch.zeros(3, 4, 8, 8)).sum().backward()
    assert draws.grad.isfinite().all() and draws.grad[1].abs().max() > 0


def test_an_images_loss_does_not_depend_on_its_batch(monkeypatch):
    output, label = variational_output(batch=6), torch.randint(0, 2, (6, 4, 8, 8))
    frozen_prior_draws(monkeypatch, output)
    loss = objective()
    alone = torch.stack([loss(select(output, slice(b, b + 1)), label[b : b + 1]) for b in range(6)])
    torch.testing.assert_close(loss(output, label), alone.mean(), rtol=1e-4, atol=0.0)
    torch.testing.assert_close(loss(select(output, slice(0, 2)), label[:2]), alone[:2].mean(), rtol=1e-4, atol=0.0)


def test_total_is_the_weighted_sum_of_its_terms(monkeypatch):
    output, label = variational_output(), torch.randint(0, 2, (3, 4, 8, 8))
    frozen_prior_draws(monkeypatch, output)
    loss = objective()
    terms = loss.terms(output, label)
    assert list(terms) == ["likelihood", "kl", "sinkhorn"]
    torch.testing.assert_close(loss(output, label), terms["likelihood"] + 10 * terms["kl"] + 100 * terms["sinkhorn"])


def test_an_image_without_raters_costs_nothing():
    valid = torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    output = variational_output(batch=2, valid=valid)
    for name, module in objective().named_terms().items():
        values = module(output, torch.zeros(2, 4, 8, 8))
        assert values[0] == 0 and values[1] > 0, name


def projected(output):
    """The same output with planar flows over its prior and its posteriors."""

    def flow(base, seed):
        generator = torch.Generator().manual_seed(seed)
        u, w = torch.randn(2, *base.mean.shape, generator=generator)
        return FlowDistribution(base, [PlanarTransform(u, w, torch.zeros(base.batch_shape))])

    return output._replace(prior=flow(output.prior, 1), posterior=flow(output.posterior, 2))


def test_kl_of_the_bases_does_not_see_the_flows():
    output, label = variational_output(), torch.zeros(3, 4, 8, 8)
    expected = KLDivergence()(output, label)
    torch.testing.assert_close(KLDivergence(bases=True)(projected(output), label), expected)
    torch.testing.assert_close(KLDivergence(bases=True)(output, label), expected)
    assert (KLDivergence()(projected(output), label) - expected).abs().min() > 1e-3


def test_kl_of_bases_without_a_closed_form_takes_draws_of_the_base():
    output, expected = disguised(1)
    output = output._replace(posterior_draws=output.posterior_draws + 100.0)  # of the flow, say: not of the base
    values = KLDivergence(bases=True)(output, torch.zeros(4000, 1, 2, 2))
    assert values.mean().item() == pytest.approx(expected, abs=0.05)


def test_sinkhorn_with_more_draws_is_of_the_chosen_rater_and_nears_the_wasserstein_distance():
    # posteriors of four raters at 0, 10, 20, 30; the prior at 0: half the squared distance is 0, 50, 200, 450
    output = variational_output(batch=4, latent_dim=1)
    loc = 10.0 * torch.arange(4.0).expand(4, 4).unsqueeze(-1)
    output = output._replace(
        posterior=Independent(Normal(loc, torch.full_like(loc, 0.01)), 1),
        prior=Independent(Normal(loc[:, :1], torch.full_like(loc[:, :1], 0.01)), 1),
        posterior_draws=torch.full((4, 4, 1), 1e6),  # not looked at
        slot=torch.arange(4),
    )
    values = SinkhornDivergence(num_samples=16)(output, torch.zeros(4, 4, 2, 2))
    torch.testing.assert_close(values, torch.tensor([0.0, 50.0, 200.0, 450.0]), rtol=0.01, atol=0.05)


def test_sinkhorn_with_more_draws_weighs_them_alike(monkeypatch):
    # half the squared Wasserstein distance of the two clouds, whatever the densities at their points
    output = variational_output()
    frozen_prior_draws(monkeypatch, output)
    values = SinkhornDivergence(blur=0.01, scaling=0.9, num_samples=4)(output, torch.zeros(3, 4, 8, 8))
    posterior, prior = output.posterior.rsample((4,)), output.prior.rsample((4,))  # (4, B, P, d), (4, B, 1, d)
    for b in range(3):
        cost = torch.cdist(posterior[:, b, output.slot[b]], prior[:, b, 0]) ** 2 / 2
        rows, columns = linear_sum_assignment(cost.numpy())
        torch.testing.assert_close(values[b], cost[rows, columns].mean(), rtol=0.02, atol=1e-3)


def test_sinkhorn_with_more_draws_transports_the_projections():
    output = variational_output(batch=2, posteriors=1, latent_dim=2)
    same = output._replace(posterior=output.prior, posterior_draws=output.prior.sample())
    far = PlanarTransform(torch.tensor([50.0, 0.0]), torch.tensor([1.0, 0.0]), torch.tensor(9.0))  # 50 along the first
    moved = same._replace(posterior=FlowDistribution(same.posterior, [far]))
    term, label = SinkhornDivergence(num_samples=16), torch.zeros(2, 4, 2, 2)
    torch.manual_seed(0)
    near, away = term(same, label), term(moved, label)
    assert (near < 20).all() and (away > 500).all()


def test_sinkhorn_with_more_draws_keeps_each_image_and_ignores_missing_raters():
    valid = torch.tensor([[1], [1], [0]], dtype=torch.bool)
    output = variational_output(batch=3, posteriors=1, valid=valid)
    centre = torch.tensor([0.0, 40.0, 80.0]).reshape(3, 1, 1)
    tight = Independent(Normal(output.prior.mean * 0 + centre, torch.full_like(output.prior.mean, 1e-2)), 1)
    output = output._replace(prior=tight, posterior=tight)
    term, label = SinkhornDivergence(num_samples=5), torch.zeros(3, 4, 2, 2)
    assert term(output, label).abs().max() < 1e-2
    away = output._replace(posterior=Independent(Normal(tight.mean + 30, tight.stddev), 1))
    values = term(away, label)
    assert (values[:2] > 100).all() and values[2] == 0
    with pytest.raises(InputError, match="num_samples is 0"):
        SinkhornDivergence(num_samples=0)
