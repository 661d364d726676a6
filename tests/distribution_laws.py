"""Laws of every distribution over vectors and of every density head; a test class inherits them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal
from torch.utils._python_dispatch import TorchDispatchMode

from aleatoric.losses.divergences import _kl

BATCH_SHAPES = [(), (3,), (2, 4)]


def grid(reach: float = 14.0, step: float = 0.12) -> tuple[Tensor, float]:
    """Points (G, 2) of a square around zero, and the area of a cell."""
    axis = torch.arange(-reach, reach, step)
    return torch.cartesian_prod(axis, axis), step**2


def moments(z: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean and covariance of (M, d), stacked: (1 + d, d)."""
    weight = torch.full(z.shape[:1], 1.0 / len(z)) if weight is None else weight
    mean = (weight.unsqueeze(-1) * z).sum(0)
    return torch.cat([mean[None], torch.einsum("m,mi,mj->ij", weight, z - mean, z - mean)])


def kl_on_grid(p: Distribution, q: Distribution) -> Tensor:
    """KL of distributions with batch shape () over the plane, by quadrature."""
    points, area = grid()
    log_p = p.log_prob(points)
    return (log_p.exp() * (log_p - q.log_prob(points))).sum() * area


class Operators(TorchDispatchMode):
    """Names of the operators that ran inside."""

    # each makes the program wait for an accelerator
    WAIT = ("_local_scalar_dense", "nonzero", "multinomial", "masked_select", "equal", "is_nonzero", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))

    @property
    def waiting(self) -> set[str]:
        return self.seen & set(self.WAIT)


class DistributionLaws:
    """``make`` gives a distribution over the plane and the tensors that require a gradient through it."""

    closed_moments = True

    def make(self, batch_shape: tuple[int, ...], seed: int = 0) -> tuple[Distribution, list[Tensor]]:
        raise NotImplementedError

    @pytest.mark.parametrize("batch_shape", BATCH_SHAPES)
    def test_shapes(self, batch_shape):
        distribution, _ = self.make(batch_shape)
        assert distribution.batch_shape == batch_shape and distribution.event_shape == (2,)
        for sample_shape in [(), (5,), (5, 6)]:
            z = distribution.rsample(sample_shape)
            assert z.shape == (*sample_shape, *batch_shape, 2) and z.dtype == torch.float32
            assert distribution.sample(sample_shape).shape == z.shape
            assert distribution.log_prob(z).shape == (*sample_shape, *batch_shape)

    @pytest.mark.parametrize("batch_shape", BATCH_SHAPES)
    def test_expanding_keeps_the_law(self, batch_shape):
        distribution, _ = self.make(batch_shape)
        wide = distribution.expand((7, *batch_shape))
        z = wide.rsample((3,))
        assert wide.batch_shape == (7, *batch_shape) and z.shape == (3, 7, *batch_shape, 2)
        assert z.flatten(0, 1).var(0).min() > 0  # new noise for each
        torch.testing.assert_close(wide.log_prob(z), distribution.log_prob(z))

    def test_batch_entries_do_not_mix(self):
        many, _ = self.make((2, 4))
        z = many.sample()
        log_prob = many.log_prob(z)
        z[1, 2] += 100.0
        changed = many.log_prob(z) != log_prob
        assert changed[1, 2] and changed.sum() == 1

    def test_one_prior_serves_all_raters(self):
        # a prior (B, 1) is asked for the draws (B, P) of the posteriors
        prior, _ = self.make((3, 1))
        z = torch.randn(3, 4, 2)
        together = prior.log_prob(z)
        for p in range(4):
            torch.testing.assert_close(together[:, p : p + 1], prior.log_prob(z[:, p : p + 1]), atol=1e-4, rtol=1e-5)

    @pytest.mark.parametrize("through", ["draw", "density"])
    def test_gradient_reaches_every_parameter(self, through):
        distribution, leaves = self.make((3,))
        if through == "draw":
            z = distribution.rsample((200,))
            value = (z.pow(3) + z * torch.tensor([1.0, 2.0])).sin().sum()
        else:
            value = distribution.log_prob(torch.randn(200, 3, 2)).sum()
        value.backward()
        for leaf in leaves:
            assert leaf.grad is not None and leaf.grad.isfinite().all() and leaf.grad.abs().max() > 0

    def test_density_integrates_to_one(self):
        distribution, _ = self.make(())
        points, area = grid()
        torch.testing.assert_close(
            distribution.log_prob(points).exp().sum() * area, torch.tensor(1.0), atol=2e-3, rtol=0
        )

    def test_draws_follow_the_density(self):
        distribution, _ = self.make(())
        points, area = grid()
        expected = moments(points, distribution.log_prob(points).exp() * area)
        torch.testing.assert_close(moments(distribution.rsample((40_000,))), expected, atol=0.06, rtol=0.06)

    def test_mean_and_variance_are_the_densitys(self):
        distribution, _ = self.make(())
        if not self.closed_moments:
            with pytest.raises(NotImplementedError):
                distribution.mean  # noqa: B018
            return
        points, area = grid()
        expected = moments(points, distribution.log_prob(points).exp() * area)
        torch.testing.assert_close(distribution.mean, expected[0], atol=5e-3, rtol=5e-3)
        torch.testing.assert_close(distribution.variance, expected[1:].diagonal(), atol=1e-2, rtol=5e-3)
        torch.testing.assert_close(distribution.stddev, expected[1:].diagonal().sqrt(), atol=1e-2, rtol=5e-3)

    def test_autocast_rounds_nothing(self):
        results = []
        for enabled in (False, True):
            torch.manual_seed(5)
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                distribution, _ = self.make((2, 4))
                z = distribution.rsample((3,))
                results.append((z, distribution.log_prob(z)))
        for plain, cast in zip(*results):
            assert cast.dtype == torch.float32
            torch.testing.assert_close(cast, plain, atol=0, rtol=0)

    def test_nothing_waits_for_the_device(self, monkeypatch):
        monkeypatch.setattr(Distribution, "_validate_args", False)  # validation does; heads switch it off themselves
        distribution, _ = self.make((2, 4))
        with Operators() as operators:
            distribution.log_prob(distribution.rsample((3,)))
            distribution.sample((3,))
        assert operators.seen & {"randn", "normal", "normal_"}
        assert not operators.waiting

    def test_kl_to_a_normal_is_what_the_density_says(self):
        # in closed form where there is one, else by Monte Carlo, as the objective takes it
        distribution, _ = self.make(())
        normal = Independent(Normal(torch.tensor([0.5, -0.3]), torch.tensor([2.0, 1.5])), 1)
        many = distribution.expand((40_000,))
        estimate = _kl(many, normal, many.sample()).mean()
        torch.testing.assert_close(estimate, kl_on_grid(distribution, normal), atol=0.03, rtol=0.03)

    def test_kl_to_itself_is_zero_at_every_draw(self):
        # not only on average: the estimate must take both densities at one point
        one, other = self.make((2, 4))[0], self.make((2, 4))[0]
        torch.testing.assert_close(_kl(one, other, one.rsample()), torch.zeros(2, 4), atol=2e-3, rtol=0)
