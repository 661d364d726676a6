import pytest
import torch
from torch.nn import functional as F

from aleatoric.errors import InputError
from aleatoric.losses import (
    LadderKLDivergence,
    NegativeLogLikelihood,
    ResidualLikelihood,
    VariationalLoss,
    level_divergences,
)
from aleatoric.networks.blocks import PHiSegLadder, PHiSegLikelihood, UNetBackbone
from aleatoric.networks.blocks.phiseg_ladder import SoftplusNormalMap
from aleatoric.networks.nets import PHiSeg
from models import phiseg

NOTHING = [None, None]


def published_parameters(classes, unread, f=(32, 64, 128, 192, 192, 192, 192), levels=5, c=2, n0=32):
    """Of the authors' code, counted from its description, level 0 the finest; ``unread``: what nothing reads."""

    def normalised(cin, cout, *more):
        return sum(9 * a * b + 2 * b for a, b in zip((cin, cout, *more), (cout, *more)))

    def pointwise(cin, cout):
        return cin * cout + cout

    def encoder(cin):
        total = sum(normalised(a, b, b, b) for a, b in zip((cin, *f), f))
        total += 9 * f[-1] * c + c + pointwise(f[-1], c)
        for i in range(levels - 1):
            total += normalised(c, c * n0, c * n0)  # the draw of level i + 1 at the size of level i
            total += unread * i * normalised(c * n0, c * n0, c * n0)  # and at the sizes of all finer ones
            total += normalised(f[i + 2] + c * n0, f[i], f[i]) + 2 * pointwise(f[i], c)
        return total

    total = encoder(1) + encoder(1 + classes)
    width = [f[i + 2] if i < levels - 1 else f[i] for i in range(levels)]
    for i in range(levels):
        total += normalised(c, f[i], f[i], f[i], f[i]) + pointwise(width[i], classes)
        if i < levels - 1:
            total += normalised(width[i + 1], f[i]) + normalised(2 * f[i], width[i], width[i])
    return total


@pytest.mark.parametrize(("classes", "expected"), [(1, 17_817_997), (2, 17_819_186)])
def test_published_size(classes, expected):
    with torch.device("meta"):
        network = PHiSeg(PHiSegLadder(), PHiSegLadder(in_channels=1 + classes), PHiSegLikelihood(out_channels=classes))
    assert sum(p.numel() for p in network.parameters()) == published_parameters(classes, unread=False) == expected
    assert published_parameters(2, unread=True) == 18_706_994  # "18.7 M"


def test_published_latent_maps():
    network = PHiSeg(PHiSegLadder(), PHiSegLadder(in_channels=2), PHiSegLikelihood())
    output = network(torch.rand(2, 1, 128, 128), torch.zeros(2, 2, 128, 128))
    assert [d.event_shape for d in output.priors] == [(2, s, s) for s in (2, 4, 8, 16, 32)]
    assert len(output.level_logits) == 5
    # at the start nothing has exploded on the way, and no density is degenerate
    assert output.logits.std() < 10
    assert all(0.1 < d.stddev.median() < 10 for d in output.priors + output.posteriors)


@pytest.mark.parametrize(("spatial_dims", "classes"), [(2, 1), (2, 3), (3, 1)])
def test_training_output_has_the_stated_shapes(spatial_dims, classes):
    network = phiseg(spatial_dims=spatial_dims, classes=classes)
    size = [8] * spatial_dims
    label = torch.randint(0, max(2, classes), (3, 4, *size), dtype=torch.uint8)
    valid = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    output = network(torch.rand(3, 1, *size), label, valid)
    assert output.logits.shape == (3, classes, *size)
    assert [logits.shape for logits in output.level_logits] == [(3, classes, *size)] * 2
    assert torch.equal(output.level_logits[-1], output.logits)
    assert valid[torch.arange(2), output.rater[:2]].all() and output.rater[1] == 2
    assert output.posterior_valid.tolist() == [[True], [True], [False]] and output.slot.tolist() == [0, 0, 0]
    for i, (prior, posterior, z) in enumerate(zip(output.priors, output.posteriors, output.posterior_draws)):
        event = (i + 1, *[2 * 2**i] * spatial_dims)
        assert prior.batch_shape == posterior.batch_shape == (3, 1)
        assert prior.event_shape == posterior.event_shape == event and z.shape == (3, 1, *event)
    assert network.sample(torch.rand(3, 1, *size), 5).shape == (3, 5, classes, *size)
    assert network(torch.rand(3, 1, *size)).shape == (3, classes, *size)


def test_each_posterior_belongs_to_its_image_and_rater():
    network = phiseg().eval()
    image, label = torch.rand(6, 1, 8, 8), torch.randint(0, 2, (6, 4, 8, 8))
    output = network(image, label)
    for b in range(6):
        pair = torch.cat([image[b], label[b, output.rater[b], None] - 0.5])[None]
        z = [draw[b] for draw in output.posterior_draws]
        for core, x, densities in (
            (network.posterior, pair, output.posteriors),
            (network.prior, image[b : b + 1], output.priors),
        ):
            _, locs, scales = core.expand(core.contract(x), [], z)
            for density, loc, scale in zip(densities, locs, scales):
                torch.testing.assert_close(density.mean[b], loc)
                torch.testing.assert_close(density.stddev[b], scale)


def test_forcing_every_posterior_draw_gives_the_training_logits():
    network, image = phiseg((4, 8, 8, 8), (1, 1, 2)).eval(), torch.rand(5, 1, 16, 16)
    output = network(image, torch.randint(0, 2, (5, 4, 16, 16)))
    z = [draw[:, 0] for draw in output.posterior_draws]
    torch.testing.assert_close(network.decode(image, z), output.logits)
    torch.testing.assert_close(network.residuals(z, [16, 16]).cumsum(1), torch.stack(output.level_logits, 1))
    # given the maps, the image says nothing more
    torch.testing.assert_close(network.decode(torch.rand_like(image), z), output.logits)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_without_finer_residuals_the_logits_are_a_coarser_level_brought_to_size(level):
    network, image = phiseg((4, 8, 8, 8), (1, 1, 2)).eval(), torch.rand(3, 1, 16, 16)
    z = [torch.randn(3, c, s, s) for c, s in ((1, 2), (1, 4), (2, 8))]
    expected = network.residuals(z, [16, 16])[:, : level + 1].sum(1)
    for head in network.likelihood.heads[level + 1 :]:
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
    logits = network.decode(image, z)
    torch.testing.assert_close(logits, expected)
    cell = 4 // 2**level  # a level's logits are constant on its own pixels
    assert torch.equal(logits, F.interpolate(logits[..., ::cell, ::cell], scale_factor=cell))
    other = [*z[: level + 1], *[torch.randn_like(finer) for finer in z[level + 1 :]]]
    torch.testing.assert_close(network.decode(image, other), expected)
    assert not torch.allclose(network.decode(image, [*z[:level], z[level] + 1, *z[level + 1 :]]), expected)


def coupled(filters=(4, 8, 8, 8), latent_dims=(1, 1, 1)) -> PHiSeg:
    """Whose draws depend much on those above them."""
    torch.manual_seed(0)
    network = phiseg(filters, latent_dims).eval()
    for density in network.prior.densities[1:]:
        density.loc.weight.data *= 10
    return network


def test_a_level_is_drawn_given_the_draws_above_it():
    network, count = coupled(), 4000
    image = torch.rand(1, 1, 8, 8).expand(count, 1, 8, 8)
    with torch.no_grad():
        features = network.prior.contract(image)
        noise = [n[:, 0] for n in network.prior.noise(features, 1)]
        z, _, _ = network.prior.expand(features, noise, [None] * 3)
        for i in range(1, 3):
            # the law of the map given what was drawn above it; were the maps drawn anew for each level, the map would
            # follow another draw's law, and what is left of it would neither be a standard normal nor independent
            _, locs, scales = network.prior.expand(features, [], [*z[:i], *noise[i:]])
            loc, left = locs[i], (z[i] - locs[i]) / scales[i]
            assert loc.var(0).mean() > 0.5 * scales[i].square().mean()
            assert abs(left.mean()) < 0.05 and abs(left.var() - 1) < 0.05
            covariance = ((z[i] - z[i].mean(0)) * (loc - loc.mean(0))).mean(0)
            torch.testing.assert_close(covariance, loc.var(0), rtol=0.15, atol=0.05 * loc.var(0).max().item())


@pytest.mark.parametrize("level", [0, 1])
def test_forcing_a_map_moves_the_law_below_it_and_nothing_above(level):
    network, image = coupled(), torch.rand(2, 1, 16, 16)
    features = network.prior.contract(image)
    noise = [n[:, 0] for n in network.prior.noise(features, 1)]
    z, locs, _ = network.prior.expand(features, noise, [None] * 3)
    forced = [None] * 3
    forced[level] = z[level] + 1.0
    used, moved, _ = network.prior.expand(features, noise, forced)
    for i in range(3):
        assert torch.equal(moved[i], locs[i]) == (i <= level)
        assert torch.equal(used[i], z[i]) == (i < level)


def test_decode_draws_what_is_not_given():
    network, image = phiseg().eval(), torch.rand(2, 1, 8, 8)
    first = torch.randn(2, 1, 2, 2)
    assert not torch.equal(*(network.decode(image, [first, None]) for _ in range(2)))
    cold = [network.decode(image, [first, None], temperature=0.0) for _ in range(2)]
    assert torch.equal(*cold)
    assert not torch.equal(cold[0], network.decode(image, NOTHING, temperature=0.0))
    for wrong in ([first], [first, None, None], [first[:1], None], [None, first]):
        with pytest.raises(InputError, match="the given latents have shapes"):
            network.decode(image, wrong)


@pytest.mark.parametrize("chunk_size", [0, 1, 3, 5])
def test_samples_are_decodings_of_ancestral_draws(chunk_size):
    network, image = coupled((4, 8, 8), (1, 2)), torch.rand(2, 1, 8, 8)
    torch.manual_seed(0)
    samples = network.sample(image, 5, 0.7, chunk_size)
    torch.manual_seed(0)
    features = network.prior.contract(image)
    noise = network.prior.noise(features, 5, 0.7)
    for n in range(5):
        above = []
        for i in range(2):  # one map at a time, given those above it
            _, locs, scales = network.prior.expand(features, [], [*above, *[level[:, n] for level in noise[i:]]])
            above.append(locs[i] + scales[i] * noise[i][:, n])
        torch.testing.assert_close(samples[:, n], network.decode(image, above), atol=1e-5, rtol=1e-5)
    assert samples.var(1).mean() > 0
    assert len({tuple(sample.flatten().tolist()) for sample in samples[0]}) == 5


def test_at_temperature_zero_every_map_is_its_mean():
    network, image = coupled((4, 8, 8), (1, 2)), torch.rand(2, 1, 8, 8)
    cold = network.sample(image, 3, temperature=0.0)
    features = network.prior.contract(image)
    z, locs, _ = network.prior.expand(features, [n[:, 0] * 0 for n in network.prior.noise(features, 1)], NOTHING)
    assert all(torch.equal(one, mean) for one, mean in zip(z, locs))
    for n in range(3):
        torch.testing.assert_close(cold[:, n], network.decode(image, list(locs)))


def test_the_path_of_the_image_runs_once_per_image():
    network, rows = phiseg().eval(), []
    network.prior.encoder.register_forward_hook(lambda module, inputs, value: rows.append(len(value[0])))
    network.sample(torch.rand(3, 1, 16, 16), 7)
    assert rows == [3]


def objective(levels=2):
    return VariationalLoss(ResidualLikelihood(), level_divergences([4.0 ** (levels - 1 - i) for i in range(levels)]))


@pytest.mark.parametrize("norm", ["batch", None])
def test_gradient_reaches_every_parameter(norm):
    # DistributedDataParallel refuses parameters without; a bias before batch normalisation would have none
    torch.manual_seed(0)
    network, label = phiseg((8, 8, 8, 8), (2, 2, 2), 3, norm=norm), torch.randint(0, 2, (4, 4, 32, 32))
    objective(3)(network(torch.rand(4, 1, 32, 32), label), label).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-3, name


def test_bf16_losses_are_within_two_percent_of_float32():
    torch.manual_seed(0)  # one deviation near zero makes a divergence that no two bits agree on
    network = phiseg((16, 32, 64), (2, 2))
    image, label = torch.rand(8, 1, 16, 16), torch.randint(0, 2, (8, 4, 16, 16))
    values = {}
    for bf16 in (False, True):
        network.bf16 = bf16
        torch.manual_seed(0)
        output = network(image, label)
        for density in (*output.priors, *output.posteriors):
            assert density.mean.dtype == density.stddev.dtype == torch.float32
        assert output.logits.dtype == network.sample(image, 2).dtype == torch.float32
        terms = (NegativeLogLikelihood(), ResidualLikelihood(), LadderKLDivergence())
        values[bf16] = [term(output, label).mean() for term in terms]
    torch.testing.assert_close(values[True], values[False], rtol=0.02, atol=0.0)
    assert values[True] != values[False]  # it did run in bfloat16


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_inference_path_scripts(spatial_dims):
    network = phiseg(spatial_dims=spatial_dims).eval()
    image, first = torch.rand(2, 1, *[9] * spatial_dims), torch.randn(2, 1, *[3] * spatial_dims)
    maps = [first, torch.randn(2, 2, *[5] * spatial_dims)]
    scripted = torch.jit.script(network)
    for call in (
        lambda n: n(image),
        lambda n: n.sample(image, 3),
        lambda n: n.sample(image, 3, 0.5, 2),
        lambda n: n.decode(image, [first, None]),
        lambda n: n.residuals(maps, [9] * spatial_dims),
    ):
        torch.manual_seed(0)
        expected = call(network)
        torch.manual_seed(0)
        torch.testing.assert_close(call(scripted), expected)


@pytest.mark.parametrize("size", [(128, 128), (37, 50), (9, 9), (1, 5)])
@pytest.mark.parametrize("latent_dims", [(1, 1, 1), (1, 1, 1, 1, 1)])
def test_any_image_size(size, latent_dims):
    network = phiseg((4, 8, 8, 8, 8), latent_dims)
    assert network(torch.rand(2, 1, *size), torch.zeros(2, 4, *size)).logits.isfinite().all()
    assert network.eval()(torch.rand(1, 1, *size)).shape == (1, 1, *size)


@pytest.mark.parametrize("norm", ["instance", ("batch", {"eps": 1e-3}), ("group", {"num_groups": 2}), None])
def test_normalisation_is_an_option(norm):
    network = phiseg(norm=norm)
    assert network(torch.rand(2, 1, 8, 8), torch.zeros(2, 4, 8, 8)).logits.isfinite().all()
    biased = [m.bias is not None for m in network.prior.encoder.modules() if isinstance(m, torch.nn.Conv2d)]
    assert all(biased) if norm is None else not any(biased)


@pytest.mark.parametrize(("norm", "batch"), [("instance", 2), ("batch", 1)])
def test_normalisation_of_one_pixel_is_refused_in_words(norm, batch):
    network, label = phiseg(norm=norm), torch.zeros(batch, 4, 8, 8)
    assert network(torch.rand(batch, 1, 8, 8), label).logits.isfinite().all()
    with pytest.raises(InputError, match=f"one pixel at the coarsest of 3 scales, which {norm} normalisation"):
        network(torch.rand(batch, 1, 4, 4), label[..., :4, :4])
    if norm == "batch":
        assert network.eval()(torch.rand(1, 1, 4, 4), label[..., :4, :4]).logits.isfinite().all()


@pytest.mark.parametrize("latent_dims", [(), (1, 1, 1, 1), (1, 0)])
def test_latent_maps_that_do_not_fit_are_refused(latent_dims):
    for part in (PHiSegLadder, PHiSegLikelihood):
        with pytest.raises(InputError, match=r"for 3 resolutions, expected .* for 1 to 3 latent maps"):
            part(filters=(4, 8, 8), latent_dims=latent_dims)


def test_disagreeing_parts_are_refused():
    ladders = PHiSegLadder(2, 1, (4, 8, 8), (1, 1)), PHiSegLadder(2, 2, (4, 8, 8), (1, 1))
    for filters, latent_dims in (((4, 8, 8), (2, 1)), ((4, 8, 8, 8), (1, 1))):
        with pytest.raises(InputError, match=r"\[1, 1\] channels at 3 resolutions, the likelihood"):
            PHiSeg(*ladders, PHiSegLikelihood(2, filters, latent_dims))
    with pytest.raises(InputError, match=r"\[1, 1\] channels and the posterior of \[2, 1\]"):
        PHiSeg(ladders[0], PHiSegLadder(2, 2, (4, 8, 8), (2, 1)), PHiSegLikelihood(2, (4, 8, 8), (1, 1)))
    with pytest.raises(InputError, match=r"label has shape \(2, 8, 8\)"):
        phiseg()(torch.rand(2, 1, 8, 8), torch.zeros(2, 8, 8))


def test_densities_stay_finite_for_extreme_features():
    density = phiseg().prior.densities[0]
    for value in (0.0, 1e6, -1e6):
        loc, scale = density(torch.full((2, 8, 2, 2), value))
        assert loc.isfinite().all() and scale.square().isfinite().all() and (scale.square() > 0).all()


def test_it_learns_balls_in_3d():
    torch.manual_seed(0)
    network = phiseg((8, 16), (2, 2), 1, spatial_dims=3)
    grid = torch.stack(torch.meshgrid(*[torch.arange(8.0)] * 3, indexing="ij"))
    label = ((grid[None] - 3.5).square().sum(1) < 8).expand(4, 2, 8, 8, 8) * 1
    image = label[:, :1] + 0.2 * torch.randn(4, 1, 8, 8, 8)
    loss_fn, optimizer = objective(2), torch.optim.Adam(network.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = loss_fn(network(image, label), label)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    samples = network.eval().sample(image, 4)
    assert samples.shape == (4, 4, 1, 8, 8, 8) and samples.isfinite().all() and samples.var(1).max() > 0


def test_volumes_with_a_side_of_one_voxel():
    """Pooling keeps it: torch's own refuses in 3D what it takes in 2D."""
    backbone = UNetBackbone(3, 1, (2, 4, 4), 1)
    flat = UNetBackbone(2, 1, (2, 4, 4), 1)
    with torch.no_grad():
        for module, other in zip(backbone.modules(), flat.modules()):
            if isinstance(module, torch.nn.Conv3d):  # its middle plane alone sees anything
                module.weight.zero_()
                module.weight[..., 1] = other.weight
                module.bias.copy_(other.bias)
        image = torch.rand(2, 1, 9, 8)
        torch.testing.assert_close(backbone(image.unsqueeze(-1)).squeeze(-1), flat(image))
    assert phiseg(spatial_dims=3).eval().sample(torch.rand(1, 1, 4, 4, 1), 2).shape == (1, 2, 1, 4, 4, 1)


def test_no_latent_pixel_is_so_narrow_that_it_explodes():
    density = SoftplusNormalMap(2, 3, 2)
    with torch.no_grad():
        density.scale.bias.fill_(-60.0)
    _, scale = density(torch.randn(1, 3, 4, 4))
    assert scale.min() >= 0.01
    with torch.no_grad():
        density.scale.bias.fill_(-10.0)
    _, scale = density(torch.randn(1, 3, 4, 4))
    scale.log().sum().backward()
    assert (density.scale.bias.grad > 0).all()  # and it can widen again
