"""The Normal over a logit map: laws of every distribution, and each manipulation against a dense-covariance twin."""

import pytest
import torch
from torch.distributions import Distribution, MultivariateNormal

from aleatoric.distributions import LogitMapNormal
from aleatoric.errors import InputError
from distribution_laws import DistributionLaws, Operators

SHAPE = (2, 3, 4)  # classes, rows, columns


def make(batch=2, rank=3, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    return LogitMapNormal(normal(batch, *SHAPE), normal(batch, rank, *SHAPE), normal(batch, *SHAPE).exp())


def dense(law):
    """The same law by torch's, through an S x S covariance made entry by entry of P P^T + D."""
    factor = law.factor.flatten(2)
    covariance = torch.einsum("bri,brj->bij", factor, factor) + torch.diag_embed(law.diagonal.flatten(1))
    return MultivariateNormal(law.loc.flatten(1), covariance)


def schur(law, sample, inside):
    """Mean and covariance of the entries inside given those outside, image by image."""
    whole, found = dense(law), []
    for b in range(len(sample)):
        i, o = inside[b].flatten().nonzero()[:, 0], (~inside[b]).flatten().nonzero()[:, 0]
        c = whole.covariance_matrix[b]
        gain = c[i][:, o] @ torch.linalg.inv(c[o][:, o])
        mean = whole.mean[b, i] + gain @ (sample[b].flatten()[o] - whole.mean[b, o])
        found.append((i, mean, c[i][:, i] - gain @ c[o][:, i]))
    return found


def regions():
    square = torch.zeros(3, 4, dtype=torch.bool)
    square[1:, :2] = True
    generator = torch.Generator().manual_seed(3)
    return {
        "pixels": square,
        "pixels of a class": torch.stack([square, ~square]),
        "of each image": torch.rand(2, *SHAPE, generator=generator) < 0.4,
        "all": torch.ones(3, 4, dtype=torch.bool),
        "nothing": torch.zeros(3, 4, dtype=torch.bool),
    }


class TestLogitMapNormal(DistributionLaws):
    def make(self, batch_shape, seed=0):
        generator = torch.Generator().manual_seed(seed)
        shapes = [(*batch_shape, 2), (*batch_shape, 1, 2), (*batch_shape, 2)]
        loc, factor, raw = leaves = [torch.randn(s, generator=generator).requires_grad_() for s in shapes]
        return LogitMapNormal(loc, factor, (0.5 * raw).exp(), event_dims=1), leaves


class TestDiagonalLogitMap(DistributionLaws):
    """Rank 0."""

    def make(self, batch_shape, seed=0):
        generator = torch.Generator().manual_seed(seed)
        loc, raw = leaves = [torch.randn(*batch_shape, 2, generator=generator).requires_grad_() for _ in range(2)]
        return LogitMapNormal(loc, torch.zeros(*batch_shape, 0, 2), (0.5 * raw).exp(), event_dims=1), leaves


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_equals_the_dense_normal_of_the_flattened_map(rank):
    law = make(rank=rank)
    twin, value = dense(law), torch.randn(5, 2, *SHAPE, dtype=torch.float64)
    torch.testing.assert_close(law.log_prob(value), twin.log_prob(value.flatten(2)))
    torch.testing.assert_close(law.entropy(), twin.entropy())
    torch.testing.assert_close(law.covariance_matrix, twin.covariance_matrix)
    torch.testing.assert_close(law.variance.flatten(1), twin.variance)
    assert law.batch_shape == (2,) and law.event_shape == SHAPE and law.rank == rank
    draws = law.expand((4, 2)).sample((3,))
    assert draws.shape == (3, 4, 2, *SHAPE)


@pytest.mark.parametrize("rank", [0, 3])
def test_draws_have_mean_and_covariance_of_the_map(rank):
    law = make(batch=1, rank=rank, dtype=torch.float32)
    torch.manual_seed(0)
    draws = law.sample((100_000,))[:, 0].flatten(1)
    twin = dense(law)
    torch.testing.assert_close(draws.mean(0), twin.mean[0], atol=0.05, rtol=0)
    torch.testing.assert_close(draws.T.cov(), twin.covariance_matrix[0], atol=0.15, rtol=0.03)


def test_a_deviation_and_its_mirror_are_the_noise_through_the_factor():
    law = make()
    noise, shared = torch.randn(5, 2, *SHAPE, dtype=torch.float64), torch.randn(5, 2, 3, dtype=torch.float64)
    expected = torch.einsum("nbr,brkhw->nbkhw", shared, law.factor) + law.diagonal.sqrt() * noise
    torch.testing.assert_close(law.deviation(noise, shared), expected)
    torch.testing.assert_close(law.deviation(-noise, -shared), -expected)


def test_drawing_copies_no_factor():
    # 40 draws of 2 x 64 x 64 logits of rank 10: a draw is 33 kB, the factor 330 kB
    law = LogitMapNormal(
        torch.zeros(1, 2, 64, 64), torch.randn(1, 10, 2, 64, 64), torch.ones(1, 2, 64, 64), None, False
    )
    assert law.flat().factor.data_ptr() == law.factor.data_ptr()
    with torch.profiler.profile(profile_memory=True) as profile:
        law.sample((1,))
    assert max(event.self_cpu_memory_usage for event in profile.events()) < 1e5


@pytest.mark.parametrize("temperature", [0.0, 0.5, 2.0])
def test_temperature_multiplies_the_covariance_by_its_square(temperature):
    law = make()
    tempered = law.with_temperature(temperature)
    torch.testing.assert_close(tempered.covariance_matrix, temperature**2 * dense(law).covariance_matrix)
    assert torch.equal(tempered.mean, law.mean)
    if temperature == 0:
        assert torch.equal(tempered.sample((3,)), law.mean.expand(3, -1, -1, -1, -1))


@pytest.mark.parametrize("scale", [-3.0, 0.0, 1.0, 3.0])
def test_class_scale_is_the_congruence_of_the_dense_covariance(scale):
    law = make()
    weight = torch.ones(SHAPE, dtype=torch.float64)
    weight[1] = scale
    matrix = torch.diag(weight.flatten())
    scaled = law.with_class_scale(1, scale)
    torch.testing.assert_close(scaled.covariance_matrix, matrix @ dense(law).covariance_matrix @ matrix)
    assert torch.equal(scaled.mean, law.mean)
    sample = law.sample((4,))
    moved = law.scale_class(sample, 1, scale)
    torch.testing.assert_close(moved, law.mean + weight * (sample - law.mean))
    assert torch.equal(moved[:, :, 0], sample[:, :, 0])
    if scale == 1:
        assert torch.equal(moved, sample) and torch.equal(scaled.factor, law.factor)


def test_a_manipulated_sample_is_a_sample_of_the_manipulated_law():
    law = make()
    noise, shared = torch.randn(5, 2, *SHAPE, dtype=torch.float64), torch.randn(5, 2, 3, dtype=torch.float64)
    sample, other = (one.mean + one.deviation(noise, shared) for one in (law, law.with_class_scale(0, 3.0)))
    torch.testing.assert_close(law.scale_class(sample, 0, 3.0), other)


@pytest.mark.parametrize("name", regions())
@pytest.mark.parametrize("rank", [0, 1, 3])
def test_the_law_given_the_rest_is_the_schur_complement(rank, name):
    law, region = make(rank=rank), regions()[name]
    sample = law.sample()
    conditional = law.given(sample, region)
    inside = region.expand(2, *SHAPE)
    assert torch.equal(conditional.mean[~inside], sample[~inside]) and not conditional.variance[~inside].any()
    for b, (i, mean, covariance) in enumerate(schur(law, sample, inside)):
        torch.testing.assert_close(conditional.mean[b].flatten()[i], mean)
        torch.testing.assert_close(conditional.covariance_matrix[b][i][:, i], covariance)
    if name == "all":
        torch.testing.assert_close(conditional.covariance_matrix, law.covariance_matrix)


@pytest.mark.parametrize("name", regions())
def test_resampling_changes_nothing_but_the_region(name):
    law, region = make(), regions()[name]
    sample = law.sample()
    draws = law.resample(sample, region, 6)
    inside = region.expand(2, *SHAPE)
    assert draws.shape == (6, 2, *SHAPE)
    assert torch.equal(draws[:, ~inside], sample[~inside].expand(6, -1))
    if inside.any():
        assert draws[:, inside].std(0).min() > 0 and (draws[:, inside] != sample[inside]).all()


def test_resampled_draws_follow_the_law_given_the_rest():
    law, region = make(batch=1, dtype=torch.float32), regions()["pixels of a class"]
    torch.manual_seed(0)
    sample = law.sample()
    draws = law.resample(sample, region, 100_000)[:, 0].flatten(1)
    ((i, mean, covariance),) = schur(law, sample, region.expand(1, *SHAPE))
    torch.testing.assert_close(draws[:, i].mean(0), mean, atol=0.03, rtol=0)
    torch.testing.assert_close(draws[:, i].T.cov(), covariance, atol=0.08, rtol=0.03)


def test_a_draw_whose_region_is_drawn_anew_is_a_draw():
    # Gibbs' step keeps the law: the joint covariance of kept and new entries is that of the map
    law, region = make(batch=1, dtype=torch.float32), regions()["pixels"]
    torch.manual_seed(0)
    draws = law.sample((40_000,))[:, 0]
    renewed = law.expand((40_000,)).resample(draws, region, 1)[0].flatten(1)
    torch.testing.assert_close(renewed.T.cov(), dense(law).covariance_matrix[0], atol=0.2, rtol=0.05)


def test_constants_are_left_out_of_density_and_conditioning():
    law = make()
    mask = torch.tensor([True, False, True, True]).expand(SHAPE)
    masked = LogitMapNormal(law.loc, torch.where(mask, law.factor, 0.0), torch.where(mask, law.diagonal, 0.0))
    assert torch.equal(masked.sample((3,))[..., 1], law.loc[..., 1].expand(3, -1, -1, -1))
    rest = LogitMapNormal(*(x[..., [0, 2, 3]] for x in (law.loc, law.factor, law.diagonal)))
    value = masked.sample((3,))
    torch.testing.assert_close(masked.log_prob(value), rest.log_prob(value[..., [0, 2, 3]]))
    torch.testing.assert_close(masked.entropy(), rest.entropy())
    region = torch.tensor([True, False, False, False]).expand(3, 4)
    conditional = masked.given(value[0], region)
    expected = rest.given(value[0][..., [0, 2, 3]], region[:, [0, 2, 3]])
    torch.testing.assert_close(conditional.mean[..., [0, 2, 3]], expected.mean)
    torch.testing.assert_close(conditional.variance[..., [0, 2, 3]], expected.variance)


def test_conditioning_holds_at_any_spread():
    # pixels that go together to 1 in 10,000: all others follow the one that is given, in float32
    factor = 1e3 * torch.tensor([1.0, -1.0, 0.5, 2.0]).reshape(1, 1, 1, 4)
    law = LogitMapNormal(torch.zeros(1, 1, 4), factor, torch.full((1, 1, 4), 1e-2))
    sample = torch.tensor([[[700.0, 0.0, 0.0, 0.0]]])
    conditional = law.given(sample, torch.tensor([False, True, True, True]))
    torch.testing.assert_close(conditional.mean, torch.tensor([[[700.0, -700.0, 350.0, 1400.0]]]), rtol=1e-4, atol=0)
    assert conditional.stddev.isfinite().all() and conditional.stddev.max() < 1


def test_conditioning_makes_no_pixel_by_pixel_matrix():
    law = LogitMapNormal(torch.zeros(1, 1, 128, 128), torch.randn(1, 4, 1, 128, 128), torch.ones(1, 1, 128, 128))
    region = torch.zeros(128, 128, dtype=torch.bool)
    region[:64] = True
    with torch.profiler.profile(profile_memory=True) as profile:
        law.resample(law.sample(), region, 2)
    assert max(event.self_cpu_memory_usage for event in profile.events()) < 2e6  # the matrix would have 1 GB


def test_nothing_waits_for_the_device(monkeypatch):
    monkeypatch.setattr(Distribution, "_validate_args", False)
    law = make()
    with Operators() as operators:
        law.with_class_scale(1, 2.0).with_temperature(0.5).resample(law.mean, regions()["pixels"], 3)
    assert not operators.waiting


def test_what_does_not_fit_is_refused():
    law = make()
    with pytest.raises(ValueError, match=r"factor \(2, 3, 2, 3, 5\)"):
        LogitMapNormal(law.loc, torch.zeros(2, 3, 2, 3, 5), law.diagonal)
    with pytest.raises(ValueError, match="diagonal"):
        LogitMapNormal(law.loc, law.factor, -law.diagonal)
    for call in (law.with_class_scale, lambda i, s: law.scale_class(law.mean, i, s)):
        with pytest.raises(InputError, match="class 2, expected one of the 2"):
            call(2, 1.0)
    with pytest.raises(InputError, match=r"region of torch.float32 and shape \(3, 4\)"):
        law.resample(law.mean, torch.ones(3, 4), 1)
    with pytest.raises(InputError, match=r"region of torch.bool and shape \(4, 3\)"):
        law.given(law.mean, torch.ones(4, 3, dtype=torch.bool))
    with pytest.raises(InputError, match=r"sample of shape \(5, 2, 2, 3, 4\)"):
        law.given(law.sample((5,)), regions()["pixels"])


def test_conditioning_has_a_gradient_where_there_are_constants():
    factor = torch.randn(1, 2, 1, 6, requires_grad=True)
    diagonal = torch.tensor([[[0.5, 0.2, 0.0, 1.0, 0.0, 0.3]]], requires_grad=True)
    air = (diagonal.detach() > 0).unsqueeze(1)
    law = LogitMapNormal(torch.zeros(1, 1, 6), factor * air, diagonal)
    region = torch.tensor([True, True, True, False, False, False])
    given = law.given(torch.randn(1, 1, 6), region)
    (given.loc.sum() + given.factor.square().sum() + given.diagonal.sum()).backward()
    assert torch.isfinite(factor.grad).all() and torch.isfinite(diagonal.grad).all()


def test_a_zero_diagonal_with_a_factor_is_no_constant():
    law = LogitMapNormal(torch.zeros(1, 1, 2), torch.ones(1, 1, 1, 2), torch.tensor([[[0.0, 1.0]]]))
    assert not torch.isfinite(law.log_prob(torch.ones(1, 1, 2)))  # it has no density, and says no wrong one
    assert law.sample((100,)).std() > 0
