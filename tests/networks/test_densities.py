"""Density heads: the laws of distributions hold for what they give, and each works in a Probabilistic U-Net."""

import io

import pytest
import torch
from torch import nn
from torch.distributions import MixtureSameFamily

from aleatoric.errors import InputError
from aleatoric.losses import DivergenceTerm, KLDivergence, NegativeLogLikelihood, SinkhornDivergence, VariationalLoss
from aleatoric.networks.blocks import (
    ConditionalDensity,
    DiagonalNormal,
    Encoder,
    FeatureCombiner,
    FullNormal,
    LowRankNormalDensity,
    MixtureDensity,
    PlanarFlow,
    UNetBackbone,
)
from aleatoric.networks.nets import ProbabilisticUNet
from distribution_laws import DistributionLaws, Operators, moments
from models import variational_output

FEATURES = 8


class Draw(nn.Module):
    """A head as an inference network calls it."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, features: torch.Tensor, temperature: float) -> torch.Tensor:
        return self.head.draw(features, temperature)


def exported(module):
    """The module as it is read back from a TorchScript file."""
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(module), file)
    file.seek(0)
    return torch.jit.load(file)


class HeadLaws(DistributionLaws):
    """``head(latent_dim)`` gives the head; its distribution at some features obeys the laws of distributions."""

    def head(self, latent_dim: int) -> nn.Module:
        raise NotImplementedError

    def drawn(self, distribution):
        """The distribution that ``draw`` follows."""
        return distribution

    def seeded_head(self, latent_dim=2, seed=0):
        torch.manual_seed(seed)
        head = self.head(latent_dim)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.mul_(0.5)  # the plane of the grid holds what it gives
        return head

    def make(self, batch_shape, seed=0):
        head = self.seeded_head(seed=seed)
        features = torch.randn(*batch_shape, FEATURES, generator=torch.Generator().manual_seed(seed))
        return head(features), list(head.parameters())

    def network(self, all_raters=False):
        def density(in_channels):
            return ConditionalDensity(Encoder(2, in_channels, (4, FEATURES), 1), self.head(3))

        return ProbabilisticUNet(
            UNetBackbone(2, 1, (4, FEATURES), 1), density(1), density(2), FeatureCombiner(2, 4, 3), all_raters
        )

    def test_draws_follow_the_distribution_eager_and_exported(self):
        head = self.seeded_head()
        features = torch.randn(FEATURES)
        expected = moments(self.drawn(head(features)).sample((40_000,)))
        many = features.expand(40_000, FEATURES)
        for draw in (Draw(head), exported(Draw(head))):
            torch.testing.assert_close(moments(draw(many, 1.0).detach()), expected, atol=0.06, rtol=0.06)

    def test_temperature_scales_the_spread(self):
        head = self.seeded_head()
        features = torch.randn(FEATURES)
        distribution = self.drawn(head(features))
        cold, hot = (Draw(head)(features.expand(40_000, FEATURES), t).detach() for t in (0.0, 2.0))
        if isinstance(distribution, MixtureSameFamily):
            components, weights = distribution.component_distribution, distribution.mixture_distribution.probs
            assert torch.cdist(cold, components.mean).min(-1).values.max() < 1e-3
            within = (weights.unsqueeze(-1) * components.variance).sum(-2)
            expected = distribution.variance + 3 * within
        else:
            torch.testing.assert_close(cold, distribution.mean.expand_as(cold))
            expected = 4 * distribution.variance
        torch.testing.assert_close(hot.mean(0), distribution.mean, atol=0.06, rtol=0.05)
        torch.testing.assert_close(hot.var(0), expected, atol=0.06, rtol=0.05)

    def test_a_draw_is_float32_and_does_not_wait(self):
        head = self.seeded_head()
        features = torch.randn(2, 4, FEATURES)
        results = []
        for enabled in (False, True):
            torch.manual_seed(3)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled), Operators() as operators:
                results.append(head.draw(features))
                distribution = head(features)
                distribution.log_prob(distribution.rsample())
            assert not operators.waiting
        assert results[1].dtype == torch.float32
        torch.testing.assert_close(results[1], results[0], atol=0, rtol=0)
        assert head.draw(features.bfloat16()).dtype == head(features.bfloat16()).rsample().dtype == torch.float32

    @pytest.mark.parametrize("value", [0.0, 1e4, -1e4, "alternating"])
    def test_extreme_features_stay_finite(self, value):
        for seed in range(5):
            torch.manual_seed(seed)
            head, other = self.head(6), self.head(6)
            features = torch.full((3, FEATURES), 1e4) * torch.randn(3, FEATURES).sign() if value == "alternating" else (
                torch.full((3, FEATURES), value)
            )  # fmt: skip
            distribution = head(features)
            z = distribution.rsample()
            points = torch.stack([z, torch.zeros(3, 6), other.draw(features)])
            log_prob = distribution.log_prob(points)
            assert z.isfinite().all() and head.draw(features).isfinite().all() and log_prob.isfinite().all()
            (z.sum() + log_prob.sum()).backward()
            for name, parameter in head.named_parameters():
                assert parameter.grad.isfinite().all(), name

    def test_works_in_one_latent_dimension(self):
        head = self.head(1)
        distribution = head(torch.randn(5, FEATURES))
        assert distribution.log_prob(distribution.rsample()).shape == (5,)
        assert head.draw(torch.randn(5, FEATURES)).shape == (5, 1)

    def test_the_network_scripts_and_samples(self):
        network = self.network().eval()
        scripted, image = exported(network), torch.rand(2, 1, 8, 8)
        for call in (lambda n: n(image), lambda n: n.sample(image, 3), lambda n: n.sample(image, 3, 0.5, 2)):
            torch.manual_seed(0)
            expected = call(network)
            torch.manual_seed(0)
            torch.testing.assert_close(call(scripted), expected, atol=1e-5, rtol=1e-4)

    @pytest.mark.parametrize("all_raters", [False, True])
    def test_the_network_trains(self, all_raters):
        network = self.network(all_raters)
        terms = {"kl": DivergenceTerm(KLDivergence())}
        if all_raters:
            terms["sinkhorn"] = DivergenceTerm(SinkhornDivergence())
        loss = VariationalLoss(NegativeLogLikelihood(), terms)
        label = torch.randint(0, 2, (6, 4, 8, 8))
        valid = torch.ones(6, 4, dtype=torch.bool)
        valid[1, 2:] = False
        output = network(torch.rand(6, 1, 8, 8), label, valid)
        value = loss(output, label)
        assert output.posterior_draws.shape == (6, 4 if all_raters else 1, 3) and value.isfinite()
        value.backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().max() > 0, name

    @pytest.mark.parametrize("posteriors", [1, 4])
    def test_the_objectives_kl_is_right(self, posteriors):
        # posteriors (B, P) against priors (B, 1), each image's KL by many new draws of its own
        posterior_head, prior_head = self.seeded_head(seed=1), self.seeded_head(seed=2)
        q = posterior_head(torch.randn(3, posteriors, FEATURES).repeat(6_000, 1, 1))
        p = prior_head(torch.randn(3, 1, FEATURES).repeat(6_000, 1, 1))
        slot = torch.arange(3).repeat(6_000) % posteriors
        output = variational_output(1)._replace(
            prior=p,
            posterior=q,
            posterior_draws=q.sample(),
            posterior_valid=torch.ones(18_000, posteriors, dtype=torch.bool),
            slot=slot,
        )
        value = KLDivergence()(output, torch.zeros(0)).detach().unflatten(0, (6_000, 3)).mean(0)
        z = q.sample()
        independent = (q.log_prob(z) - p.log_prob(z)).detach()[torch.arange(18_000), slot]
        torch.testing.assert_close(value, independent.unflatten(0, (6_000, 3)).mean(0), atol=0.12, rtol=0.06)


class TestDiagonalNormal(HeadLaws):
    def head(self, latent_dim):
        return DiagonalNormal(FEATURES, latent_dim)


class TestFullNormal(HeadLaws):
    def head(self, latent_dim):
        return FullNormal(FEATURES, latent_dim)

    def test_any_covariance_can_be_reached(self):
        # L of the head for chosen parameters, against an independent factor of the same covariance
        root = torch.randn(4, 4)
        covariance = root @ root.T + 0.1 * torch.eye(4)
        factor = torch.linalg.cholesky(covariance)
        rows, columns = torch.tril_indices(4, 4, -1)
        head = FullNormal(1, 4)
        with torch.no_grad():
            head.linear.weight.zero_()
            head.linear.bias.copy_(torch.cat([torch.arange(4.0), factor.diagonal().log(), factor[rows, columns]]))
        distribution = head(torch.zeros(1))
        torch.testing.assert_close(distribution.covariance_matrix, covariance)
        torch.testing.assert_close(distribution.mean, torch.arange(4.0))

    def test_parameters_are_as_many_as_a_covariance_has(self):
        assert FullNormal(FEATURES, 6).linear.out_features == 6 + 21


class TestLowRankNormalDensity(HeadLaws):
    def head(self, latent_dim):
        return LowRankNormalDensity(FEATURES, latent_dim, rank=2)

    def test_covariance_is_low_rank_plus_a_diagonal(self):
        head = LowRankNormalDensity(1, 5, rank=2)
        loc, log_scale, factor = torch.randn(5), torch.randn(5), torch.randn(5, 2)
        with torch.no_grad():
            head.linear.weight.zero_()
            head.linear.bias.copy_(torch.cat([loc, log_scale, factor.flatten()]))
        expected = factor @ factor.T + torch.diag((2 * log_scale).exp())
        torch.testing.assert_close(head(torch.zeros(1)).covariance_matrix, expected)


class TestMixtureOfDiagonal(HeadLaws):
    component = DiagonalNormal

    def head(self, latent_dim):
        return MixtureDensity(self.component(FEATURES, latent_dim), num_components=3)

    def test_all_numbers_come_from_one_layer(self):
        component = self.component(FEATURES, 4)
        head = MixtureDensity(component, num_components=5, temperature=0.28)
        assert [name for name, _ in head.named_parameters()] == ["linear.weight", "linear.bias"]
        assert head.linear.out_features == 5 * (component.linear.out_features + 1)
        assert head(torch.zeros(FEATURES)).temperature == 0.28

    def test_a_mixture_of_one_is_its_component(self):
        component = self.component(FEATURES, 2)
        mixture = MixtureDensity(component, num_components=1)
        with torch.no_grad():
            mixture.linear.weight[:-1] = component.linear.weight
            mixture.linear.bias[:-1] = component.linear.bias
        features, z = torch.randn(4, FEATURES), torch.randn(4, 2)
        torch.testing.assert_close(mixture(features).log_prob(z), component(features).log_prob(z))
        assert isinstance(component.linear, nn.Linear)  # the head that was given is left as it was


class TestMixtureOfFull(TestMixtureOfDiagonal):
    component = FullNormal


class TestMixtureOfLowRank(TestMixtureOfDiagonal):
    component = LowRankNormalDensity


class TestPlanarFlow(HeadLaws):
    closed_moments = False

    def base(self, latent_dim):
        return DiagonalNormal(FEATURES, latent_dim)

    def head(self, latent_dim):
        return PlanarFlow(self.base(latent_dim), FEATURES)

    def test_temperature_scales_the_spread(self):
        # of the base: at zero the draw is the base's mean, moved
        head = self.seeded_head()
        flow = head(torch.randn(5, FEATURES, generator=torch.Generator().manual_seed(0)))
        cold = head.draw(torch.randn(5, FEATURES, generator=torch.Generator().manual_seed(0)), 0.0)
        z = flow.base_dist.mean
        for step in flow.transforms:
            z = step(z)
        torch.testing.assert_close(cold, z)


class TestPlanarFlowOverMixture(TestPlanarFlow):
    def base(self, latent_dim):
        return MixtureDensity(FullNormal(FEATURES, latent_dim), num_components=2)

    test_temperature_scales_the_spread = None  # the mixture's mean is no draw of it


class TestPlanarFlowDroppedAtInference(HeadLaws):
    closed_moments = False

    def head(self, latent_dim):
        return PlanarFlow(DiagonalNormal(FEATURES, latent_dim), FEATURES, drop_at_inference=True)

    def drawn(self, distribution):
        return distribution.base_dist

    def test_an_exported_model_holds_no_flow(self):
        network = self.network()
        kept = {name for name, _ in exported(network).named_parameters()}
        assert kept == {name for name, _ in network.named_parameters() if ".flow." not in name}
        assert any(".flow." in name for name in network.state_dict())  # a checkpoint can go on training

    def test_the_objective_still_sees_the_flow(self):
        distribution, _ = self.make((3,))
        z, log_prob, base_draw = distribution.rsample_with_log_prob()
        assert (z - base_draw).abs().max() > 0.01
        assert (log_prob - distribution.base_dist.log_prob(z)).abs().max() > 0.01


class TestFlowIsKeptOtherwise:
    def test_an_exported_model_holds_the_flow(self):
        network = TestPlanarFlow().network()
        kept = {name for name, _ in exported(network).named_parameters()}
        assert kept == {name for name, _ in network.named_parameters()}


def test_impossible_heads_are_refused():
    flow = PlanarFlow(DiagonalNormal(FEATURES, 2), FEATURES)
    with pytest.raises(InputError, match="the component is a PlanarFlow"):
        MixtureDensity(flow)
    with pytest.raises(InputError, match="the component is a MixtureDensity"):
        MixtureDensity(MixtureDensity(DiagonalNormal(FEATURES, 2)))
    with pytest.raises(InputError, match="num_components is 0"):
        MixtureDensity(DiagonalNormal(FEATURES, 2), 0)
    with pytest.raises(InputError, match="steps is 0"):
        PlanarFlow(DiagonalNormal(FEATURES, 2), FEATURES, steps=0)
