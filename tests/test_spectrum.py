"""Principal axes of latent densities: draws are uncorrelated along them, with the stated spread."""

import pytest
import torch
from torch.distributions import Categorical, Independent, Normal

from aleatoric.distributions import (
    CholeskyNormal,
    FlowDistribution,
    LowRankNormal,
    PlanarTransform,
    ReparameterizedMixture,
    base_of,
    principal_axes,
    principal_scales,
)

D = 3


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def diagonal(*batch):
    return Independent(Normal(numbers(*batch, D), numbers(*batch, D, seed=1).exp()), 1)


def full(*batch):
    raw = numbers(*batch, D, D)
    return CholeskyNormal(numbers(*batch, D), raw.tril(-1) + torch.diag_embed(raw.diagonal(dim1=-2, dim2=-1).exp()))


def low_rank(*batch):
    return LowRankNormal(numbers(*batch, D), numbers(*batch, D, 2), numbers(*batch, D, seed=1).exp())


def mixture(component):
    def make(*batch):
        return ReparameterizedMixture(Categorical(logits=numbers(*batch, 4)), component(*batch, 4))

    return make


FAMILIES = {
    "diagonal": diagonal,
    "full": full,
    "low_rank": low_rank,
    "mixture_diagonal": mixture(diagonal),
    "mixture_full": mixture(full),
    "mixture_low_rank": mixture(low_rank),
}


@pytest.fixture(params=FAMILIES, ids=str)
def make(request):
    return FAMILIES[request.param]


def test_draws_are_uncorrelated_along_the_axes_with_the_stated_spread(make):
    torch.manual_seed(0)
    distribution = make(2)
    scales, axes = principal_axes(distribution)
    draws = distribution.sample((200_000,)) - distribution.mean  # (n, 2, d)
    along = torch.einsum("nbd,bdj->bjn", draws, axes)
    for b in range(2):
        expected = torch.diag(scales[b].square())
        torch.testing.assert_close(along[b].cov(), expected, rtol=0.03, atol=0.02 * scales[b].max().item() ** 2)
    torch.testing.assert_close(axes.mT @ axes, torch.eye(D).expand(2, D, D), rtol=1e-4, atol=1e-5)


def test_the_total_variance_is_kept_and_the_batch_shape_too(make):
    for batch in ((), (5,), (2, 3)):
        distribution = make(*batch)
        scales = principal_scales(distribution)
        assert scales.shape == (*batch, D)
        torch.testing.assert_close(scales.square().sum(-1), distribution.variance.sum(-1))


def test_an_axis_aligned_normal_keeps_its_own_order():
    distribution = diagonal(4)
    torch.testing.assert_close(principal_scales(distribution), distribution.stddev, rtol=0.0, atol=0.0)
    assert torch.equal(principal_axes(distribution).axes, torch.eye(D).expand(4, D, D))


def test_others_come_with_the_largest_first():
    assert (principal_scales(full(50)).diff(dim=-1) <= 0).all()


def test_a_rotation_turns_the_axes_and_leaves_the_scales():
    distribution = full(4)
    rotation = torch.linalg.qr(numbers(D, D, seed=7)).Q
    covariance = rotation @ distribution.covariance_matrix @ rotation.mT
    turned = CholeskyNormal(distribution.mean, torch.linalg.cholesky(covariance))
    (scales, axes), (turned_scales, turned_axes) = principal_axes(distribution), principal_axes(turned)
    torch.testing.assert_close(turned_scales, scales, rtol=1e-3, atol=1e-4)
    same_line = torch.einsum("bij,bij->bj", rotation @ axes, turned_axes).abs()  # up to the sign of an eigenvector
    torch.testing.assert_close(same_line, torch.ones(4, D), rtol=1e-3, atol=1e-3)


def test_a_flow_shows_its_base(make):
    step = PlanarTransform(numbers(D), numbers(D, seed=1), numbers(()))
    base = make(4)
    flow = FlowDistribution(base, [step, step])
    assert base_of(flow) is base and base_of(base) is base
    torch.testing.assert_close(principal_scales(flow), principal_scales(base))
