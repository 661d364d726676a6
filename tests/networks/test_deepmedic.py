"""DeepMedic: the paper's sizes, the same centre in every pathway, shifts, the receptive field, one scripted path."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.nn import functional as F

from aleatoric.errors import InputError
from aleatoric.networks.blocks import LogitMapDensity, Pathway
from aleatoric.networks.nets import DeepMedic


def tiny(spatial_dims=2, channels=2, filters=(2,) * 8, **options) -> DeepMedic:
    torch.manual_seed(0)
    network = DeepMedic(spatial_dims, channels, filters=filters, **{"hidden_channels": (6, 6), **options})
    randomize(network)
    return network.eval()


def randomize(module) -> None:
    """Statistics, scales and slopes that are not those of the start, so that a forgotten one shows."""
    for layer in module.modules():
        if isinstance(layer, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(layer.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(layer.running_var, 0.5, 2)
            torch.nn.init.uniform_(layer.weight, 0.5, 2)
            torch.nn.init.uniform_(layer.bias, -0.2, 0.2)
        elif isinstance(layer, torch.nn.PReLU):
            torch.nn.init.uniform_(layer.weight, 0.1, 0.6)


@pytest.mark.parametrize(("patch", "expected"), [(95, 15), (110, 30), (140, 60)])
def test_sizes_of_the_paper(patch, expected):
    network = tiny(3, 4, hidden_channels=(4, 4)) if patch < 140 else tiny(2, 4)
    dims = 3 if patch < 140 else 2
    assert network(torch.rand(1, 4, *[patch] * dims)).shape == (1, 4, *[expected] * dims)
    assert network.margin == 40 and network.output_multiple == 15


def test_sides_of_different_length():
    network = tiny(3, 1, hidden_channels=(4,))
    assert network(torch.rand(2, 1, 95, 110, 95)).shape == (2, 4, 15, 30, 15)


def count(module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_as_many_parameters_as_the_authors():
    """Theirs less the unused normalisation and slope of each first layer (27), plus 4 biases of the class layer.

    The weights by hand: 27 (4*30 + 30*30 + 30*40 + 3*40*40 + 40*50 + 50*50) in each of three pathways.
    """
    convolutions, classes = 3 * 27 * 11_520 + 150 * 250 + 250 * 250, 251 * 4
    norms = 3 * 2 * (30 + 30 + 4 * 40 + 50) + 2 * (150 + 250 + 250)
    slopes = 3 * 7 + 3
    assert count(DeepMedic()) == convolutions + classes + norms + slopes == 1_037_091 - 27 + 4
    # the stochastic one has 1.05 M in the paper; here with 50 biases more than the authors' third small layer
    maps = LogitMapDensity(3, 250, 4, rank=10, num_layers=1, hidden_channels=50)
    assert count(DeepMedic(out_channels=None)) + count(maps) == 1_051_039 - 27 + 50


def twin(pathway: Pathway, image, margin, factor, layers):
    """Each output voxel by itself: the voxels that it looks at, ``factor`` apart around its block's centre."""
    batch, _, height, width = image.shape
    reach = torch.arange(-layers, layers + 1) * factor
    rows = []
    for y, x in product(range(height - 2 * margin), range(width - 2 * margin)):
        centre = [margin + factor * (v // factor) + factor // 2 for v in (y, x)]
        patch = image[:, :, (centre[0] + reach)[:, None], (centre[1] + reach)[None]]
        rows.append(pathway.convolutions(patch).flatten(1))
    return torch.stack(rows, -1).reshape(batch, -1, height - 2 * margin, width - 2 * margin)


@pytest.mark.parametrize("factor", [1, 3, 5])
def test_a_pathway_is_its_brute_force_twin(factor):
    torch.manual_seed(1)
    pathway = Pathway(2, 2, (3, 3), factor)
    randomize(pathway)
    pathway.eval()
    image = torch.rand(2, 2, 2 * 2 * factor + 15, 2 * 2 * factor + 30)
    torch.testing.assert_close(pathway(image), twin(pathway, image, 2 * factor, factor, 2))


def test_pathways_are_put_together_around_one_centre():
    network = tiny(filters=(3, 3))
    image = torch.rand(1, 2, 2 * 10 + 15, 2 * 10 + 30)
    maps = [
        twin(pathway, image[..., cut : image.shape[2] - cut, cut : image.shape[3] - cut], 2 * factor, factor, 2)
        for pathway, factor in zip(network.pathways, (1, 3, 5))
        for cut in [10 - 2 * factor]
    ]
    torch.testing.assert_close(network.features(image), network.hidden(torch.cat(maps, 1)))


def test_the_centre_of_what_a_block_looks_at_is_its_own_centre():
    """With every weight equal, a pathway averages around the middle voxel of the block that it answers for."""
    for factor in (1, 3, 5):
        pathway = Pathway(2, 1, (1, 1), factor, norm=None)
        for p in pathway.parameters():
            torch.nn.init.ones_(p)
        image = torch.rand(1, 1, 4 * factor + 15, 4 * factor + 15, requires_grad=True)
        output = pathway(image)
        for y, x in [(0, 0), (7, 7), (4, 14)]:
            (gradient,) = torch.autograd.grad(output[0, 0, y, x], image, retain_graph=True)
            weight = gradient[0, 0] / gradient.sum()
            place = torch.arange(image.shape[2], dtype=weight.dtype)
            centre = [float((weight.sum(1) * place).sum()), float((weight.sum(0) * place).sum())]
            assert centre == pytest.approx(
                [2 * factor + factor * (v // factor) + factor // 2 for v in (y, x)], abs=1e-3
            )


def test_the_receptive_field_is_81_voxels():
    network = tiny()
    image = torch.rand(1, 2, 95, 110, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(image)[0, :, 7, 22].sum(), image)
    seen = gradient[0].abs().sum(0).nonzero()
    assert seen.min(0).values.tolist() == [7, 22] and (seen.max(0).values - seen.min(0).values + 1).tolist() == [81, 81]
    assert (seen.min(0).values + seen.max(0).values).tolist() == [2 * (40 + 7), 2 * (40 + 22)]  # around the voxel


def test_an_image_shifted_by_15_has_an_output_shifted_by_15():
    network = tiny()
    image = torch.rand(1, 2, 125, 110)
    logits = network(image)
    torch.testing.assert_close(network(image[:, :, 15:]), logits[:, :, 15:])
    torch.testing.assert_close(network(image[..., 15:]), logits[..., 15:])
    assert not torch.allclose(network(image[:, :, 5:115])[:, :, :25], logits[:, :, 5:30])  # another grid of every third


def test_layers_of_equal_width_are_residual():
    network = tiny(filters=(2, 2, 3), factors=(1,), hidden_channels=(3, 3, 4))
    convolutions = network.pathways[0].convolutions
    assert [c.is_residual for c in convolutions] == [True, True, False]
    image = torch.rand(1, 2, 9, 9)
    x = convolutions[0](image)
    torch.testing.assert_close(convolutions[1](x), convolutions[1].conv(convolutions[1].adn(x)) + x[..., 1:-1, 1:-1])
    torch.testing.assert_close(x, convolutions[0].conv(image) + image[..., 1:-1, 1:-1])  # nothing before the first
    wide = convolutions[2]
    torch.testing.assert_close(wide(x), wide.conv(wide.adn(x)))


def test_training_and_inference_are_one_path():
    network = tiny(dropout=0.0, out_channels=None)
    assert network.out_channels == 6
    image = torch.rand(2, 2, 95, 95)
    assert network(image).shape == (2, 6, 15, 15)
    network.train()(image).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_dropout_stands_before_all_small_layers_but_the_first():
    network = tiny(dropout=0.5, hidden_channels=(6, 6))
    drops = [name for name, m in network.named_modules() if isinstance(m, torch.nn.modules.dropout._DropoutNd)]
    assert drops == ["hidden.1.adn.D", "hidden.2.D"]
    (drop,) = {network.get_submodule(name) for name in drops[:1]}
    values = drop.train()(torch.ones(1, 6, 8, 8))
    assert 0 < (values == 0).flatten(2).float().mean(-1).min() < 1  # values, not whole maps


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_it_scripts(spatial_dims):
    network = tiny(spatial_dims, 1, filters=(2, 2), hidden_channels=(4, 4))
    scripted = torch.jit.script(network)
    image = torch.rand(1, 1, *[35] * spatial_dims)
    assert torch.equal(scripted(image), network(image)) and torch.equal(
        scripted.features(image), network.features(image)
    )
    assert scripted.margin == 10 and scripted.output_multiple == 15


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((100, 95), "the image is 100 x 95 voxels.*80 more than a multiple of 15.*to 95 x 95 or 110 x 95[.]"),
        ((80, 80), "the image is 80 x 80 voxels.*to 95 x 95[.]"),
        ((64, 126), "to 95 x 125 or 95 x 140[.]"),
    ],
)
def test_another_size_is_an_error_that_names_the_nearest(size, message):
    with pytest.raises(InputError, match=message):
        tiny()(torch.rand(1, 2, *size))


def test_even_factors_have_no_middle_voxel():
    with pytest.raises(InputError, match=r"the factors are \(1, 2\).*odd"):
        tiny(factors=(1, 2))


def test_nearest_exact_takes_the_middle_voxel():
    """What the subsampling leans on, for every factor and many sizes."""
    for factor, blocks in product((3, 5, 7, 9), (1, 7, 64, 333)):
        line = torch.arange(factor * blocks, dtype=torch.float64)[None, None]
        assert torch.equal(F.interpolate(line, size=[blocks], mode="nearest-exact"), line[..., factor // 2 :: factor])
