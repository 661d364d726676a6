"""The distributions themselves: the laws of all, and what each promises besides."""

import importlib
import pkgutil

import pytest
import torch
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    Laplace,
    LowRankMultivariateNormal,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
    kl_divergence,
)

import aleatoric
from aleatoric.distributions import (
    CholeskyNormal,
    FlowDistribution,
    LowRankNormal,
    PlanarTransform,
    ReparameterizedMixture,
)
from aleatoric.losses import KLDivergence
from aleatoric.losses.divergences import _kl
from distribution_laws import DistributionLaws, kl_on_grid
from models import variational_output


def tensors(seed, *shapes):
    """Standard Normal leaves that require a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).requires_grad_() for shape in shapes]


def triangle(raw):
    return raw.tril(-1) + torch.diag_embed((0.3 * raw.diagonal(dim1=-2, dim2=-1)).exp())


class TestCholeskyNormal(DistributionLaws):
    def make(self, batch_shape, seed=0):
        loc, raw = leaves = tensors(seed, (*batch_shape, 2), (*batch_shape, 2, 2))
        return CholeskyNormal(loc, triangle(raw)), leaves


class TestLowRankNormal(DistributionLaws):
    def make(self, batch_shape, seed=0, rank=1):
        loc, factor, raw = leaves = tensors(seed, (*batch_shape, 2), (*batch_shape, 2, rank), (*batch_shape, 2))
        return LowRankNormal(loc, factor, (0.5 * raw).exp()), leaves

    @pytest.mark.parametrize("rank", [1, 2, 5])
    def test_equals_torchs(self, rank):
        ours, _ = self.make((2, 4), rank=rank)
        theirs = LowRankMultivariateNormal(ours.loc, ours.factor, ours.diagonal)
        z = torch.randn(3, 2, 4, 2)
        torch.testing.assert_close(ours.log_prob(z), theirs.log_prob(z))
        torch.testing.assert_close(ours.entropy(), theirs.entropy())
        torch.testing.assert_close(ours.covariance_matrix, theirs.covariance_matrix)
        torch.testing.assert_close(ours.variance, theirs.variance)

    @pytest.mark.parametrize("rank", [1, 5])
    def test_gradient_equals_that_of_the_dense_normal(self, rank):
        ours, leaves = self.make((3,), rank=rank)
        z = torch.randn(3, 2)
        mine = torch.autograd.grad(ours.log_prob(z).sum(), leaves)
        again, leaves = self.make((3,), rank=rank)
        dense = MultivariateNormal(again.loc, again.covariance_matrix)
        for one, other in zip(mine, torch.autograd.grad(dense.log_prob(z).sum(), leaves)):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)

    def test_making_and_sampling_factorise_nothing(self, monkeypatch):
        def refuse(*args, **kwargs):
            raise AssertionError("a factorisation")

        for name in ("qr", "cholesky", "cholesky_ex", "eigh", "solve_triangular"):
            monkeypatch.setattr(torch.linalg, name, refuse)
        ours, _ = self.make((3,))
        ours.rsample((2,))
        assert ours.stddev.isfinite().all() and ours.expand((4, 3)).covariance_matrix.shape == (4, 3, 2, 2)
        with pytest.raises(AssertionError):
            ours.log_prob(torch.zeros(3, 2))

    def test_a_growing_covariance_is_no_obstacle(self):
        generator = torch.Generator().manual_seed(1)
        factor = 1e5 * torch.randn(6, 3, generator=generator)
        factor[:, 2] = factor[:, 1] * (1 + 1e-5)  # nearly dependent columns
        loc, diagonal = torch.zeros(6), torch.full((6,), 1e-4)
        with pytest.raises(torch.linalg.LinAlgError):
            LowRankMultivariateNormal(loc, factor, diagonal)
        ours = LowRankNormal(loc, factor, diagonal)
        z = ours.rsample((100,))
        assert z.isfinite().all()
        exact = LowRankNormal(loc.double(), factor.double(), diagonal.double())
        torch.testing.assert_close(ours.entropy().double(), exact.entropy(), rtol=1e-3, atol=0)
        assert ours.log_prob(z).isfinite().all() and ours.squared_norm(z.mT)[0].min() >= 0

    def test_many_draws_do_not_copy_the_factor(self):
        # 50 draws over 20,000 pixels of rank 10: 4 MB of draws, but 40 MB if the factor were copied for each
        ours = LowRankNormal(torch.zeros(20_000), torch.randn(20_000, 10), torch.ones(20_000))
        with torch.profiler.profile(profile_memory=True) as profile:
            ours.rsample((50,))
        assert max(event.self_cpu_memory_usage for event in profile.events()) < 8e6

    def test_shapes_that_disagree_are_refused(self):
        with pytest.raises(ValueError, match=r"factor \(3, 1\)"):
            LowRankNormal(torch.zeros(2), torch.zeros(3, 1), torch.ones(2))


class TestMixture(DistributionLaws):
    def make(self, batch_shape, seed=0, temperature=0.5):
        logits, loc, raw = leaves = tensors(seed, (*batch_shape, 3), (*batch_shape, 3, 2), (*batch_shape, 3, 2))
        components = Independent(Normal(3 * loc, (0.3 * raw).exp()), 1)
        return ReparameterizedMixture(Categorical(logits=logits), components, temperature), leaves

    def test_equals_torchs(self):
        ours, _ = self.make((2, 4))
        theirs = MixtureSameFamily(ours.mixture_distribution, ours.component_distribution)
        z = torch.randn(3, 2, 4, 2)
        torch.testing.assert_close(ours.log_prob(z), theirs.log_prob(z))
        torch.testing.assert_close(ours.variance, theirs.variance)

    @pytest.mark.parametrize("temperature", [0.1, 3.0])
    def test_a_draw_is_of_one_component_with_its_weight(self, temperature):
        weights, loc = torch.tensor([0.1, 0.3, 0.6]), torch.tensor([[-1e6, 0.0], [0.0, 0.0], [1e6, 0.0]])
        components = Independent(Normal(loc, torch.full((3, 2), 1e-4)), 1)
        draws = ReparameterizedMixture(Categorical(weights), components, temperature).rsample((40_000,))
        distance = torch.cdist(draws, loc, compute_mode="donot_use_mm_for_euclid_dist")
        chosen = distance.argmin(-1)
        assert distance[chosen == 1, 1].max() < 1e-3  # nothing of the other components' 1e6 is in it
        frequency = chosen.bincount(minlength=3) / 40_000
        torch.testing.assert_close(frequency, weights, atol=0.012, rtol=0)

    def test_gradient_of_the_weights_points_the_true_way(self):
        # components that are points: d/d logits of E z = gamma_i (c_i - E z), to which the relaxation tends when cold
        logits, points = torch.tensor([0.2, -0.5, 0.4], requires_grad=True), torch.tensor([[-1.0], [0.5], [2.0]])
        components = Independent(Normal(points, torch.full((3, 1), 1e-6)), 1)
        ReparameterizedMixture(Categorical(logits=logits), components, 0.3).rsample((150_000,)).mean().backward()
        weights = logits.detach().softmax(0)
        expected = weights * (points[:, 0] - weights @ points[:, 0])
        torch.testing.assert_close(logits.grad, expected, atol=0.02, rtol=0.05)

    def test_a_draws_gradient_goes_to_its_component_alone(self):
        mixture, leaves = self.make(())
        (gradient,) = torch.autograd.grad(mixture.rsample()[0], leaves[1])
        assert (gradient[:, 0] != 0).sum() == 1 and gradient[:, 0].max() == 3.0 and (gradient[:, 1] == 0).all()

    def test_what_cannot_be_reparameterised_is_refused(self):
        with pytest.raises(ValueError, match="reparameterised"):
            ReparameterizedMixture(Categorical(torch.ones(3)), Normal(torch.zeros(3), torch.ones(3)))
        with pytest.raises(ValueError, match="temperature is 0"):
            self.make((), temperature=0.0)


class TestMixtureOfLowRank(TestMixture):
    def make(self, batch_shape, seed=0, temperature=0.5):
        shape = (*batch_shape, 3, 2)
        logits, loc, factor, raw = leaves = tensors(seed, shape[:-1], shape, (*shape, 1), shape)
        components = LowRankNormal(3 * loc, factor, (0.5 * raw).exp())
        return ReparameterizedMixture(Categorical(logits=logits), components, temperature), leaves


class TestFlow(DistributionLaws):
    closed_moments = False

    def base(self, batch_shape, seed):
        loc, raw = leaves = tensors(seed, (*batch_shape, 2), (*batch_shape, 2))
        return Independent(Normal(loc, (0.3 * raw).exp()), 1), leaves

    def make(self, batch_shape, seed=0):
        base, leaves = self.base(batch_shape, seed)
        parameters = [tensors(seed + 1 + k, (*batch_shape, 2), (*batch_shape, 2), batch_shape) for k in range(2)]
        return FlowDistribution(base, [PlanarTransform(2 * u, w, b) for u, w, b in parameters]), [
            *leaves,
            *(leaf for step in parameters for leaf in step),
        ]

    @pytest.mark.parametrize("batch_shape", [(), (2, 4)])
    def test_draw_and_density_come_from_one_pass(self, batch_shape, monkeypatch):
        flow, _ = self.make(batch_shape)
        with monkeypatch.context() as patched:
            patched.setattr(PlanarTransform, "_inverse", lambda *_: pytest.fail("an inverse"))
            z, log_prob, base_draw = flow.rsample_with_log_prob((100,))
        torch.testing.assert_close(log_prob, flow.log_prob(z), atol=1e-3, rtol=1e-3)
        for step in flow.steps:
            base_draw = step(base_draw)
        torch.testing.assert_close(base_draw, z)

    def test_gradient_of_the_one_pass_equals_that_through_the_inverse(self):
        # the total derivative with respect to all parameters, with the noise held
        gradients = []
        for one_pass in (True, False):
            flow, leaves = self.make((3,))
            torch.manual_seed(0)
            z, log_prob, _ = flow.rsample_with_log_prob((50,))
            gradients.append(torch.autograd.grad((log_prob if one_pass else flow.log_prob(z)).sum(), leaves))
        for one, other in zip(*gradients):
            torch.testing.assert_close(one, other, atol=5e-2, rtol=5e-3)

    def test_kl_counts_the_log_determinants_and_the_moved_draw(self):
        # A step that stretches far: two estimators in use elsewhere (the base's closed form minus the log-determinant;
        # the base's density at the moved draw minus it) are far from the truth, ours is not
        base = Independent(Normal(torch.tensor([0.4, 0.0]), torch.tensor([0.5, 0.8])), 1)
        prior = Independent(Normal(torch.zeros(2), torch.tensor([0.7, 0.7])), 1)
        step = PlanarTransform(torch.tensor([4.0, 2.0]), torch.tensor([1.5, 0.5]), torch.tensor(0.3))
        flow = FlowDistribution(base, [step])
        truth = kl_on_grid(flow, prior)
        z, log_prob, base_draw = flow.rsample_with_log_prob((50_000,))
        torch.testing.assert_close((log_prob - prior.log_prob(z)).mean(), truth, rtol=0.02, atol=0)
        objective = _kl(flow.expand((50_000,)), prior, None).mean()  # as PU-Net+NF takes it
        torch.testing.assert_close(objective, truth, rtol=0.02, atol=0)
        log_determinant = step.log_abs_det_jacobian(base_draw, z)
        for wrong in (
            kl_divergence(base, prior) - log_determinant,
            base.log_prob(z) - prior.log_prob(z) - log_determinant,
            log_prob + 2 * log_determinant - prior.log_prob(z),
        ):
            assert (wrong.mean() - truth).abs() > 0.15 * truth

    def test_the_objective_inverts_nothing(self, monkeypatch):
        monkeypatch.setattr(PlanarTransform, "_inverse", lambda *_: pytest.fail("an inverse"))
        flow, _ = self.make((3, 4))
        output = variational_output(3, 4)._replace(posterior=flow, posterior_draws=flow.sample())
        assert KLDivergence()(output, torch.zeros(0)).isfinite().all()


class TestFlowOverMixture(TestFlow):
    def base(self, batch_shape, seed):
        return TestMixture().make(batch_shape, seed)


def steps(count, dimensions, dtype=torch.float32, scale=3.0):
    """A batch of planar steps and points, many of the steps with w u < -1, where the published condition acts."""
    generator = torch.Generator().manual_seed(2)
    u, w, z = (scale * torch.randn(count, dimensions, generator=generator, dtype=dtype) for _ in range(3))
    b = torch.randn(count, generator=generator, dtype=dtype)
    assert ((u * w).sum(-1) < -1).sum() > count // 6
    return u, w, b, z


@pytest.mark.parametrize("dimensions", [1, 2, 6])
def test_planar_log_determinant_equals_autograds(dimensions):
    u, w, b, z = steps(100, dimensions, torch.float64)

    def one(u, w, b, z):
        return torch.linalg.slogdet(torch.func.jacrev(lambda z: PlanarTransform(u, w, b)(z))(z))

    sign, expected = torch.vmap(one)(u, w, b, z)
    transform = PlanarTransform(u, w, b)
    assert (sign == 1).all()
    torch.testing.assert_close(transform.log_abs_det_jacobian(z, transform(z)), expected, atol=1e-8, rtol=1e-6)


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0, 30.0])
def test_planar_inverse_is_the_inverse_everywhere(scale):
    u, w, b, y = steps(2000, 6, torch.float64, scale=3.0)
    u = u * scale
    transform = PlanarTransform(u, w, b)
    torch.testing.assert_close(transform(transform.inv(y)), y, atol=1e-8, rtol=0)
    torch.testing.assert_close(transform(PlanarTransform(u.float(), w.float(), b.float()).inv(y.float()).double()),
                               y, atol=1e-3 * max(scale, 1.0), rtol=0)  # fmt: skip


def test_planar_inverse_has_the_gradient_of_the_implicit_function():
    u, w, b, y = (t[:6].requires_grad_() for t in steps(100, 3, torch.float64, scale=1.0))
    torch.autograd.gradcheck(lambda y, u, w, b: PlanarTransform(u, w, b).inv(y), (y, u, w, b), atol=1e-5)


def test_planar_equals_pyros():
    pytest.importorskip("pyro")
    oracle = importlib.import_module("pyro.distributions.transforms.planar").ConditionedPlanar
    u, w, b, z = steps(500, 4)
    keep = (u * w).sum(-1) > -9  # below, ours keeps the slope away from zero
    u, w, b, z = u[keep], w[keep], b[keep], z[keep]
    theirs, ours = oracle((b.unsqueeze(-1), u, w)), PlanarTransform(u, w, b)
    y = theirs(z)
    torch.testing.assert_close(ours(z), y, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.log_abs_det_jacobian(z, y), theirs.log_abs_det_jacobian(z, y), atol=1e-3, rtol=1e-3)


def test_planar_stays_finite_and_invertible_at_the_edges():
    for u, w in [(0.0, 0.0), (-20.0, 1.0), (-1e5, 1e5), (1e5, 1e5), (-1e5, 1e-3), (3.0, 1e-20)]:
        u, w = torch.full((2,), u, requires_grad=True), torch.full((2,), w, requires_grad=True)
        transform = PlanarTransform(u, w, torch.tensor(0.0))  # at z = 0 the slope is the smallest
        z = torch.tensor([[0.0, 0.0], [1.0, -2.0], [1e4, 1e4]])
        y, log_determinant = transform.forward_with_log_det(z)
        back = transform.inv(y)
        assert y.isfinite().all() and log_determinant.isfinite().all() and back.isfinite().all()
        for gradient in torch.autograd.grad(log_determinant.sum() + back.sum() + y.sum(), [u, w]):
            assert gradient.isfinite().all()


def normals(batch_shape, seed, dimensions=4):
    """One Normal of each family."""
    shape = (*batch_shape, dimensions)
    loc, raw, factor, matrix = (t.detach() for t in tensors(seed, shape, shape, (*shape, 2), (*shape, dimensions)))
    return {
        "diagonal": Independent(Normal(loc, (0.3 * raw).exp()), 1),
        "full": CholeskyNormal(loc, triangle(matrix)),
        "low_rank": LowRankNormal(loc, factor, (0.5 * raw).exp()),
    }


def dense(distribution):
    if isinstance(distribution, Independent):
        return MultivariateNormal(distribution.mean, torch.diag_embed(distribution.variance))
    return MultivariateNormal(distribution.mean, distribution.covariance_matrix)


@pytest.mark.parametrize("p", ["diagonal", "full", "low_rank"])
@pytest.mark.parametrize("q", ["diagonal", "full", "low_rank"])
def test_kl_between_normals_of_any_two_families(p, q):
    # posteriors (B, P) against a prior (B, 1)
    posterior, prior = normals((3, 4), 1)[p], normals((3, 1), 2)[q]
    closed = kl_divergence(posterior, prior)
    assert closed.shape == (3, 4)
    torch.testing.assert_close(closed, kl_divergence(dense(posterior), dense(prior)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(kl_divergence(posterior, posterior), torch.zeros(3, 4), rtol=0, atol=1e-4)
    z = posterior.sample((50_000,))
    estimate = (posterior.log_prob(z) - prior.log_prob(z)).mean(0)
    torch.testing.assert_close(closed, estimate, rtol=0.1, atol=0.1)


def test_there_is_no_closed_form_where_one_side_is_no_normal():
    laplace = Independent(Laplace(torch.zeros(4), torch.ones(4)), 1)
    for other in ("full", "low_rank"):
        with pytest.raises(NotImplementedError):
            kl_divergence(normals((), 1)[other], laplace)


def test_no_module_of_ours_switches_validation_off():
    # `import zuko`, for one, does it for the whole process: every later Normal(0, -1) goes unnoticed
    for module in pkgutil.walk_packages(aleatoric.__path__, "aleatoric."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert Distribution._validate_args
    with pytest.raises(ValueError, match="scale"):
        Normal(0.0, -1.0)
