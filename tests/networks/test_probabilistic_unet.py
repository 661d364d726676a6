import pytest
import torch

from aleatoric.errors import InputError
from aleatoric.losses import DivergenceTerm, KLDivergence, NegativeLogLikelihood, SinkhornDivergence, VariationalLoss
from aleatoric.networks.blocks import FeatureCombiner
from models import probabilistic_unet


def test_published_parameter_count():
    network = probabilistic_unet((32, 64, 128, 256), latent_dim=6, num_convs=3)
    assert sum(p.numel() for p in network.parameters()) == 6_844_761  # SPU-Net, Table III


@pytest.mark.parametrize(("spatial_dims", "classes"), [(2, 1), (2, 3), (3, 1)])
@pytest.mark.parametrize("chunk_size", [0, 2, 5])
def test_shared_features_equal_tiling(spatial_dims, classes, chunk_size):
    network = probabilistic_unet(spatial_dims=spatial_dims, classes=classes)
    features, z = torch.randn(2, 4, *[6] * spatial_dims), torch.randn(2, 5, 3)
    plain = torch.stack([network.head.plain(features, z[:, n]) for n in range(5)], dim=1)
    torch.testing.assert_close(network.decode(features, z, chunk_size), plain, atol=1e-5, rtol=1e-5)


def test_samples_are_decodings_of_prior_draws():
    network, image = probabilistic_unet(), torch.rand(2, 1, 8, 8)
    torch.manual_seed(0)
    samples = network.sample(image, 4)
    torch.manual_seed(0)
    prior = network.prior_distribution(image)
    noise = torch.randn(2, 4, 3)
    z = prior.mean.unsqueeze(1) + prior.stddev.unsqueeze(1) * noise
    for n in range(4):
        plain = network.head.plain(network.backbone(image), z[:, n])
        torch.testing.assert_close(samples[:, n], plain, atol=1e-5, rtol=1e-5)


def test_temperature_zero_gives_the_prior_mean():
    network, image = probabilistic_unet(), torch.rand(2, 1, 8, 8)
    cold = network.sample(image, 3, temperature=0.0)
    expected = network.head(network.backbone(image), network.prior_distribution(image).mean)
    for n in range(3):
        torch.testing.assert_close(cold[:, n], expected)
    assert network.sample(image, 3).var(1).max() > 0


def test_samples_are_not_nested_in_each_other():
    # A combiner without a nonlinearity adds one constant per sample: any two samples are then nested
    torch.manual_seed(1)
    network = probabilistic_unet(latent_dim=6)
    difference = network.sample(torch.rand(1, 1, 16, 16), 8, temperature=3.0)[0, :, 0].diff(dim=0)
    assert (difference.flatten(1).std(1) > 1e-3 * difference.abs().flatten(1).mean(1)).all()
    with pytest.raises(ValueError, match="hidden layer"):
        FeatureCombiner(num_layers=1)


@pytest.mark.parametrize("all_raters", [False, True])
def test_training_output_has_the_stated_shapes(all_raters):
    network = probabilistic_unet(all_raters=all_raters)
    label = torch.randint(0, 2, (3, 4, 8, 8), dtype=torch.uint8)
    valid = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 0], [1, 0, 0, 1]], dtype=torch.bool)
    output = network(torch.rand(3, 1, 8, 8), label, valid)
    posteriors = 4 if all_raters else 1
    assert output.logits.shape == (3, 1, 8, 8)
    assert output.prior.batch_shape == (3, 1) and output.posterior.batch_shape == (3, posteriors)
    assert output.posterior_draws.shape == (3, posteriors, 3) and output.posterior_valid.shape == (3, posteriors)
    assert valid[torch.arange(3), output.rater].all()


def test_raters_are_drawn_uniformly_among_the_valid():
    network = probabilistic_unet()
    valid = torch.tensor([[1, 0, 1, 1]], dtype=torch.bool).expand(3000, 4)
    drawn = network(torch.rand(3000, 1, 2, 2), torch.zeros(3000, 4, 2, 2), valid).rater.bincount(minlength=4)
    assert drawn[1] == 0
    assert (drawn[[0, 2, 3]] - 1000).abs().max() < 150  # 5.8 standard deviations


def test_each_posterior_belongs_to_its_image_and_rater():
    network = probabilistic_unet(all_raters=True)
    image, label = torch.rand(3, 1, 8, 8), torch.randint(0, 2, (3, 4, 8, 8))
    posterior = network(image, label).posterior
    for b in range(3):
        for r in range(4):
            alone = network.posterior(torch.cat([image[b], label[b, r, None] - 0.5])[None])
            torch.testing.assert_close(posterior.mean[b, r], alone.mean[0])
            torch.testing.assert_close(posterior.stddev[b, r], alone.stddev[0])


def test_logits_are_decoded_from_the_chosen_raters_draw():
    network = probabilistic_unet(all_raters=True)
    image, label = torch.rand(5, 1, 8, 8), torch.randint(0, 2, (5, 4, 8, 8))
    output = network(image, label)
    z = torch.stack([output.posterior_draws[b, output.slot[b]] for b in range(5)])
    torch.testing.assert_close(output.logits, network.head.plain(network.backbone(image), z))
    assert torch.equal(output.slot, output.rater)


def test_gradient_reaches_every_parameter():
    network = probabilistic_unet(all_raters=True)
    loss = VariationalLoss(
        NegativeLogLikelihood(),
        {"kl": DivergenceTerm(KLDivergence(), 10.0), "sinkhorn": DivergenceTerm(SinkhornDivergence(), 100.0)},
    )
    label = torch.randint(0, 2, (4, 4, 16, 16))
    loss(network(torch.rand(4, 1, 16, 16), label), label).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_bf16_losses_are_within_one_percent_of_float32():
    network = probabilistic_unet((16, 32, 64), latent_dim=6, num_convs=2, all_raters=True)
    loss = VariationalLoss(
        NegativeLogLikelihood(),
        {"kl": DivergenceTerm(KLDivergence()), "sinkhorn": DivergenceTerm(SinkhornDivergence())},
    )
    image, label = torch.rand(8, 1, 32, 32), torch.randint(0, 2, (8, 4, 32, 32))
    terms = {}
    for bf16 in (False, True):
        network.bf16 = bf16
        torch.manual_seed(0)
        output = network(image, label)
        assert output.prior.mean.dtype == output.posterior.stddev.dtype == output.logits.dtype == torch.float32
        terms[bf16] = loss.terms(output, label)
    for name, value in terms[False].items():
        torch.testing.assert_close(terms[True][name], value, rtol=0.01, atol=0.0, msg=name)
    assert terms[True]["likelihood"] != terms[False]["likelihood"]  # it did run in bfloat16


def test_inference_path_scripts():
    network = probabilistic_unet().eval()
    scripted, image = torch.jit.script(network), torch.rand(2, 1, 16, 16)
    for call in (lambda n: n(image), lambda n: n.sample(image, 3)):
        torch.manual_seed(0)
        expected = call(network)
        torch.manual_seed(0)
        torch.testing.assert_close(call(scripted), expected)


@pytest.mark.parametrize("size", [(128, 128), (37, 50), (9, 9)])
def test_any_image_size(size):
    network = probabilistic_unet((4, 8, 8, 8))
    assert network(torch.rand(1, 1, *size)).shape == (1, 1, *size)


@pytest.mark.parametrize("norm", ["instance", "batch", ("group", {"num_groups": 2})])
def test_normalisation_is_the_same_option_everywhere(norm):
    network = probabilistic_unet(norm=norm, all_raters=True)
    assert network(torch.rand(2, 1, 8, 8), torch.zeros(2, 4, 8, 8)).logits.isfinite().all()


def test_disagreeing_parts_are_refused():
    other = probabilistic_unet(latent_dim=2)
    network = probabilistic_unet(latent_dim=3)
    with pytest.raises(InputError, match="3 latent dimensions"):
        type(network)(network.backbone, network.prior, other.posterior, network.head)
    with pytest.raises(InputError, match=r"label has shape \(2, 8, 8\)"):
        network(torch.rand(2, 1, 8, 8), torch.zeros(2, 8, 8))


def test_densities_stay_finite_for_extreme_features():
    density = probabilistic_unet().prior.density
    for value in (0.0, 1e6, -1e6):
        distribution = density(torch.full((2, 8), value))
        assert distribution.stddev.isfinite().all() and (distribution.variance > 0).all()
        assert density.draw(torch.full((2, 8), value)).isfinite().all()
