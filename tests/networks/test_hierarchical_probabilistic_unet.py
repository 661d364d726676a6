import pytest
import torch

from aleatoric.errors import InputError
from aleatoric.losses import GECOLoss, LadderKLDivergence, LevelKLDivergence, NegativeLogLikelihood
from aleatoric.networks.blocks import HierarchicalCore
from aleatoric.networks.blocks.residual import ResidualBlock
from aleatoric.networks.nets import HierarchicalProbabilisticUNet
from models import hierarchical_unet

NOTHING = [None, None]


def published_parameters(image_channels, encode_only, f=(24, 48, 96, 192, 192, 192, 192, 192), latents=4):
    """Of the authors' code, counted from its description: 3 blocks a level, 3 convolutions a block, half the width."""

    def block(cin, cout):
        mid = cout // 2
        count = 9 * cin * mid + mid + 2 * (9 * mid * mid + mid) + mid * cout + cout
        return count + (cin * cout + cout if cin != cout else 0)

    def level(cin, cout):
        return block(cin, cout) + 2 * block(cout, cout)

    total = sum(level(cin, cout) for cin, cout in zip((image_channels, *f), f))
    up = f[::-1]
    for i in range(len(f) - 1):
        if i < latents:
            total += 2 * up[i] + 2
        if not encode_only or i < latents - 1:
            total += level(up[i] + (i < latents) + up[i + 1], up[i + 1])
    return total


def test_published_size():
    network = HierarchicalProbabilisticUNet(HierarchicalCore(), HierarchicalCore(in_channels=2, decode=False))
    expected = published_parameters(1, 0) + published_parameters(2, 1) + 24 + 1
    assert sum(p.numel() for p in network.parameters()) == expected == 20_584_145
    output = network(torch.rand(1, 1, 128, 128), torch.zeros(1, 2, 128, 128))
    assert [d.event_shape for d in output.priors] == [(1, 1, 1), (1, 2, 2), (1, 4, 4), (1, 8, 8)]
    # at the start nothing has exploded on the way through some fifty blocks, and no density is degenerate
    assert output.logits.std() < 10
    assert all(0.1 < d.stddev.median() < 10 for d in output.priors + output.posteriors)


def test_residual_block_is_pre_activated():
    block, x = ResidualBlock(2, 4, 4, num_convs=2), -torch.rand(1, 4, 5, 5)
    # all of it is cut off by the first ReLU: the residual is a constant, up to the borders; the identity is untouched
    residual = (block(x) - x)[0, :, 2:3, 2:3]
    torch.testing.assert_close(block(x * 2) - x * 2, block(x) - x, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(residual, (block(x - 1) - (x - 1))[0, :, 2:3, 2:3], atol=1e-6, rtol=1e-5)
    assert block.residual[-1].weight.shape == (4, 2, 1, 1)  # half the width inside


@pytest.mark.parametrize(("spatial_dims", "classes"), [(2, 1), (2, 3), (3, 1)])
def test_training_output_has_the_stated_shapes(spatial_dims, classes):
    network = hierarchical_unet(spatial_dims=spatial_dims, classes=classes)
    size = [8] * spatial_dims
    label = torch.randint(0, max(2, classes), (3, 4, *size), dtype=torch.uint8)
    valid = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0]], dtype=torch.bool)
    output = network(torch.rand(3, 1, *size), label, valid)
    assert output.logits.shape == (3, classes, *size)
    assert valid[torch.arange(2), output.rater[:2]].all() and output.rater[1] == 2
    assert output.posterior_valid.tolist() == [[True], [True], [False]] and output.slot.tolist() == [0, 0, 0]
    for i, (prior, posterior, z) in enumerate(zip(output.priors, output.posteriors, output.posterior_draws)):
        event = (i + 1, *[2 * 2**i] * spatial_dims)
        assert prior.batch_shape == posterior.batch_shape == (3, 1)
        assert prior.event_shape == posterior.event_shape == event and z.shape == (3, 1, *event)
    assert network.sample(torch.rand(3, 1, *size), 5).shape == (3, 5, classes, *size)
    assert network(torch.rand(3, 1, *size)).shape == (3, classes, *size)


def test_raters_are_drawn_uniformly_among_the_valid():
    network = hierarchical_unet()
    valid = torch.tensor([[1, 0, 1, 1]], dtype=torch.bool).expand(3000, 4)
    drawn = network(torch.rand(3000, 1, 4, 4), torch.zeros(3000, 4, 4, 4), valid).rater.bincount(minlength=4)
    assert drawn[1] == 0 and (drawn[[0, 2, 3]] - 1000).abs().max() < 150


def test_each_posterior_belongs_to_its_image_and_rater():
    network = hierarchical_unet()
    image, label = torch.rand(6, 1, 8, 8), torch.randint(0, 2, (6, 4, 8, 8))
    output = network(image, label)
    for b in range(6):
        pair = torch.cat([image[b], label[b, output.rater[b], None] - 0.5])[None]
        z = [draw[b] for draw in output.posterior_draws]
        _, _, locs, scales = network.posterior.expand(network.posterior.contract(pair), [], z)
        for posterior, loc, scale in zip(output.posteriors, locs, scales):
            torch.testing.assert_close(posterior.mean[b], loc)
            torch.testing.assert_close(posterior.stddev[b], scale)


def test_forcing_every_posterior_draw_gives_the_training_logits():
    network = hierarchical_unet()
    image = torch.rand(5, 1, 16, 16)
    output = network(image, torch.randint(0, 2, (5, 4, 16, 16)))
    torch.testing.assert_close(network.decode(image, [z[:, 0] for z in output.posterior_draws]), output.logits)


def test_a_level_is_drawn_given_the_draws_above_it():
    network, image = hierarchical_unet((4, 8, 8, 8), (1, 1, 1)), torch.rand(2, 1, 16, 16)
    skips = network.prior.contract(image)
    noise = [n[:, 0] for n in network.prior.noise(skips, 1)]
    x, z, _, _ = network.prior.expand(skips, noise, [None] * 3)
    # the law of each map, given what was drawn above it, is the one that the map itself was drawn from
    for i in range(3):
        _, _, locs, scales = network.prior.expand(skips, [], [*z[:i], *[torch.zeros_like(n) for n in noise[i:]]])
        torch.testing.assert_close(z[i], locs[i] + scales[i] * noise[i])
    again, used, _, _ = network.prior.expand(skips, [], list(z))
    torch.testing.assert_close(again, x)
    assert all(torch.equal(one, other) for one, other in zip(used, z))


@pytest.mark.parametrize("level", [0, 1])
def test_forcing_a_map_moves_the_law_below_it_and_nothing_above(level):
    network, image = hierarchical_unet((4, 8, 8, 8), (1, 1, 1)), torch.rand(2, 1, 16, 16)
    skips = network.prior.contract(image)
    noise = [n[:, 0] for n in network.prior.noise(skips, 1)]
    _, z, locs, _ = network.prior.expand(skips, noise, [None] * 3)
    forced = [None] * 3
    forced[level] = z[level] + 1.0
    _, used, moved, _ = network.prior.expand(skips, noise, forced)
    for i in range(3):
        assert torch.equal(moved[i], locs[i]) == (i <= level)
        assert torch.equal(used[i], z[i]) == (i < level)


def test_decode_draws_what_is_not_given():
    network, image = hierarchical_unet(), torch.rand(2, 1, 8, 8)
    first = torch.randn(2, 1, 2, 2)
    logits = [network.decode(image, [first, None]) for _ in range(2)]
    assert not torch.equal(*logits)
    cold = [network.decode(image, [first, None], temperature=0.0) for _ in range(2)]
    assert torch.equal(*cold)
    assert not torch.equal(cold[0], network.decode(image, NOTHING, temperature=0.0))
    for wrong in ([first], [first, None, None], [first[:1], None], [None, first]):
        with pytest.raises(InputError, match="the given latents have shapes"):
            network.decode(image, wrong)


@pytest.mark.parametrize("chunk_size", [0, 1, 3, 5])
def test_samples_are_decodings_of_ancestral_draws(chunk_size):
    network, image = hierarchical_unet(), torch.rand(2, 1, 8, 8)
    torch.manual_seed(0)
    samples = network.sample(image, 5, 0.7, chunk_size)
    torch.manual_seed(0)
    skips = network.prior.contract(image)
    noise = network.prior.noise(skips, 5, 0.7)
    for n in range(5):
        x = network.prior.expand(skips, [level[:, n] for level in noise], NOTHING)[0]
        torch.testing.assert_close(samples[:, n], network.head(x), atol=1e-5, rtol=1e-5)
    assert samples.var(1).max() > 0


def test_temperature_scales_every_map():
    network, image = hierarchical_unet(), torch.rand(2, 1, 8, 8)
    skips = network.prior.contract(image)
    torch.manual_seed(0)
    plain = network.prior.noise(skips, 2000)
    torch.manual_seed(0)
    for one, scaled in zip(plain, network.prior.noise(skips, 2000, 3.0)):
        torch.testing.assert_close(3 * one, scaled)
        assert abs(one.mean()) < 0.05 and abs(one.std() - 1) < 0.05
    cold = network.sample(image, 3, temperature=0.0)
    _, z, locs, _ = network.prior.expand(skips, [n[:, 0] * 0 for n in plain], NOTHING)
    assert all(torch.equal(one, mean) for one, mean in zip(z, locs))
    for n in range(3):
        torch.testing.assert_close(cold[:, n], network.decode(image, list(locs)))


def test_the_contracting_path_runs_once_per_image():
    network, rows = hierarchical_unet().eval(), []
    for blocks in network.prior.contracting:
        blocks.register_forward_hook(lambda module, inputs, value: rows.append(len(value)))
    network.sample(torch.rand(3, 1, 16, 16), 7)
    assert rows == [3, 3, 3]


def test_kl_against_monte_carlo():
    # one image many times; the closed form and the log-ratio come from different draws
    network = hierarchical_unet()
    for density in network.posterior.densities:
        torch.nn.init.normal_(density.pointwise.bias, std=0.7)
    count = 20_000
    image = torch.rand(1, 1, 4, 4).expand(count, 1, 4, 4)
    label = torch.ones(1, 1, 4, 4).expand(count, 1, 4, 4)
    with torch.no_grad():
        closed, drawn = network(image, label), network(image, label)
    ratio = sum(q.log_prob(z) - p.log_prob(z) for q, p, z in zip(drawn.posteriors, drawn.priors, drawn.posterior_draws))
    values = LadderKLDivergence()(closed, label)
    assert values.shape == (count,) and values.mean() > 1
    torch.testing.assert_close(values.mean(), ratio.mean(), rtol=0.02, atol=0.0)
    levels = [LevelKLDivergence(i)(closed, label) for i in range(2)]
    torch.testing.assert_close(values, sum(levels))


def test_kl_is_zero_where_the_posterior_is_the_prior():
    network = hierarchical_unet()
    weights = network.prior.state_dict()
    for name, value in network.posterior.state_dict().items():
        value[tuple(slice(n) for n in weights[name].shape)] = weights[name]
        if value.shape != weights[name].shape:
            value[:, 1:] = 0  # it does not look at the label
    label = torch.randint(0, 2, (3, 4, 16, 16))
    values = LadderKLDivergence()(network(torch.rand(3, 1, 16, 16), label), label)
    torch.testing.assert_close(values, torch.zeros(3))


def test_an_image_without_raters_costs_nothing():
    network, label = hierarchical_unet(), torch.ones(2, 4, 16, 16)
    output = network(torch.rand(2, 1, 16, 16), label, torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool))
    for term in (NegativeLogLikelihood(), LadderKLDivergence(), LevelKLDivergence(1)):
        values = term(output, label)
        assert values[0] == 0 and values[1] > 0


def test_gradient_reaches_every_parameter():
    # of a posterior with a decoder behind its last map it would not; DistributedDataParallel refuses such parameters
    network, label = hierarchical_unet(num_convs=2, num_blocks=2), torch.randint(0, 2, (4, 4, 16, 16))
    GECOLoss()(network(torch.rand(4, 1, 16, 16), label), label).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_bf16_losses_are_within_one_percent_of_float32():
    network = hierarchical_unet((16, 32, 64), (1, 1), num_convs=2)
    image, label = torch.rand(8, 1, 16, 16), torch.randint(0, 2, (8, 4, 16, 16))
    values = {}
    for bf16 in (False, True):
        network.bf16 = bf16
        torch.manual_seed(0)
        output = network(image, label)
        for density in (*output.priors, *output.posteriors):
            assert density.mean.dtype == density.stddev.dtype == torch.float32
        assert output.logits.dtype == network.sample(image, 2).dtype == torch.float32
        values[bf16] = [term(output, label).mean() for term in (NegativeLogLikelihood(), LadderKLDivergence())]
    torch.testing.assert_close(values[True], values[False], rtol=0.01, atol=0.0)
    assert values[True] != values[False]  # it did run in bfloat16


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_inference_path_scripts(spatial_dims):
    network = hierarchical_unet(spatial_dims=spatial_dims).eval()
    image, first = torch.rand(2, 1, *[9] * spatial_dims), torch.randn(2, 1, *[3] * spatial_dims)
    scripted = torch.jit.script(network)
    for call in (
        lambda n: n(image),
        lambda n: n.sample(image, 3),
        lambda n: n.sample(image, 3, 0.5, 2),
        lambda n: n.decode(image, [first, None]),
    ):
        torch.manual_seed(0)
        expected = call(network)
        torch.manual_seed(0)
        torch.testing.assert_close(call(scripted), expected)


@pytest.mark.parametrize("size", [(128, 128), (37, 50), (9, 9), (1, 5)])
def test_any_image_size(size):
    network = hierarchical_unet((4, 8, 8, 8, 8), (1, 1, 1))
    assert network(torch.rand(1, 1, *size)).shape == (1, 1, *size)
    assert network(torch.rand(2, 1, *size), torch.zeros(2, 4, *size)).logits.isfinite().all()


@pytest.mark.parametrize("norm", ["instance", "batch", ("group", {"num_groups": 2})])
def test_normalisation_is_an_option(norm):
    network = hierarchical_unet(norm=norm)
    assert network(torch.rand(2, 1, 8, 8), torch.zeros(2, 4, 8, 8)).logits.isfinite().all()
    plain = sum(p.numel() for p in hierarchical_unet().parameters())
    more = sum(p.numel() for p in network.parameters()) > plain
    assert more == (norm != "instance")  # MONAI's instance normalisation has no weights


def test_normalisation_does_not_make_residual_sums_explode():
    network = hierarchical_unet((8, 16, 32, 64), (1, 1, 1), num_blocks=4, norm="batch")
    label = torch.randint(0, 2, (8, 4, 32, 32))
    output = network(torch.rand(8, 1, 32, 32), label)
    assert output.logits.std() < 5
    assert LadderKLDivergence()(output, label).mean() < 1000  # one log scale of 12 costs 1e10


@pytest.mark.parametrize("latent_dims", [(), (1, 1, 1), (1, 0)])
def test_latent_maps_that_do_not_fit_are_refused(latent_dims):
    with pytest.raises(InputError, match=r"for 3 resolutions, expected .* for 1 to 2 latent maps"):
        hierarchical_unet(latent_dims=latent_dims)


def test_disagreeing_parts_are_refused():
    cores = HierarchicalCore(2, 1, (4, 8, 8), (1, 1)), HierarchicalCore(2, 2, (4, 8, 8), (2, 1), decode=False)
    with pytest.raises(InputError, match=r"\[1, 1\] channels and the posterior of \[2, 1\]"):
        HierarchicalProbabilisticUNet(*cores)
    with pytest.raises(InputError, match=r"label has shape \(2, 8, 8\)"):
        hierarchical_unet()(torch.rand(2, 1, 8, 8), torch.zeros(2, 8, 8))


def test_densities_stay_finite_for_extreme_features():
    density = hierarchical_unet().prior.densities[0]
    for value in (0.0, 1e6, -1e6):
        loc, scale = density(torch.full((2, 8, 2, 2), value))
        assert loc.isfinite().all() and scale.square().isfinite().all() and (scale.square() > 0).all()


def test_instance_normalisation_of_one_pixel_is_refused_in_words():
    network = hierarchical_unet((4, 8, 8), norm="instance")
    label = torch.zeros(2, 4, 16, 16)
    assert network(torch.rand(2, 1, 16, 16), label).logits.isfinite().all()
    with pytest.raises(InputError, match="one pixel at the coarsest of 3 scales"):
        network(torch.rand(2, 1, 4, 4), label[..., :4, :4])
