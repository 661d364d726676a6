"""Baselines without a density: one contract of sampling, and what each of them promises besides."""

import copy

import pytest
import torch
from monai.networks.blocks import Convolution
from monai.networks.nets import BasicUNet, UNet
from torch import nn

from aleatoric.errors import InputError
from aleatoric.losses import MemberCrossEntropy
from aleatoric.networks.blocks import DropoutUNetBackbone, UNetBackbone
from aleatoric.networks.nets import (
    AugmentedInferenceNetwork,
    DeterministicSegmentationNetwork,
    EnsembleNetwork,
    MonteCarloDropoutNetwork,
    MultiHeadNetwork,
    fresh_copies,
)
from aleatoric.networks.nets.deterministic import mean_prediction

KINDS = ["deterministic", "dropout", "ensemble", "multi_head", "augmented"]
RANDOM = ["dropout", "augmented"]


def head(spatial_dims=2, classes=1) -> nn.Module:
    return Convolution(spatial_dims, 4, classes, kernel_size=1, conv_only=True)


def build(kind, spatial_dims=2, classes=1, members=3, bf16=False, filters=(4, 6, 8)) -> nn.Module:
    shape = (spatial_dims, 1, filters, 1, "batch")
    if kind == "dropout":
        return MonteCarloDropoutNetwork(DropoutUNetBackbone(*shape), head(spatial_dims, classes), bf16)
    if kind == "augmented":
        return AugmentedInferenceNetwork(UNetBackbone(*shape), head(spatial_dims, classes), bf16=bf16)
    if kind == "multi_head":
        return MultiHeadNetwork(UNetBackbone(*shape), head(spatial_dims, members * classes), members, bf16)
    member = DeterministicSegmentationNetwork(UNetBackbone(*shape), head(spatial_dims, classes), bf16)
    return member if kind == "deterministic" else EnsembleNetwork(fresh_copies(member, members), bf16)


def drawn(network, image, *args, seed=0, **options) -> torch.Tensor:
    torch.manual_seed(seed)
    with torch.no_grad():
        return network.sample(image, *args, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("spatial_dims", "classes"), [(2, 1), (2, 3), (3, 1)])
def test_shapes_of_all_three_calls(kind, spatial_dims, classes):
    network, size = build(kind, spatial_dims, classes), (9, 8, 8)[:spatial_dims]
    image, label = torch.rand(2, 1, *size), torch.randint(0, 2, (2, 4, *size))
    output = network(image, label)
    members = 3 if kind in ("ensemble", "multi_head") else 1
    assert output.logits.shape == (2, members, classes, *size) and output.logits.dtype == torch.float32
    assert output.rater_valid.shape == (2, 4) and output.rater_valid.all()
    network.eval()
    assert network(image).shape == (2, classes, *size)
    assert drawn(network, image, 5).shape == (2, 5, classes, *size)
    with pytest.raises(InputError, match="label has shape"):
        network(image, label[:, :, :4])


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_is_trained(kind):
    network, label = build(kind), torch.randint(0, 2, (2, 4, 8, 8))
    MemberCrossEntropy()(network(torch.rand(2, 1, 8, 8), label), label).sum().backward()
    for name, parameter in network.named_parameters():
        # a bias before batch normalisation has no effect
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert "conv.bias" in name or parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("classes", [1, 3])
def test_temperature_scales_the_deviation_from_the_mean_prediction(kind, classes):
    network, image = build(kind, classes=classes).eval(), torch.rand(2, 1, 8, 8)
    samples, mean = drawn(network, image, 4), network(image).detach().unsqueeze(1)
    torch.testing.assert_close(drawn(network, image, 4, temperature=0.0), mean.expand_as(samples))
    torch.testing.assert_close(drawn(network, image, 4, temperature=2.0), mean + 2 * (samples - mean))
    assert (kind == "deterministic") == torch.equal(samples, mean.expand_as(samples))


@pytest.mark.parametrize("classes", [1, 3])
def test_the_mean_prediction_averages_probabilities(classes):
    members = 4 * torch.randn(2, 5, classes, 6, 6)
    logits = mean_prediction(members)
    if classes == 1:
        torch.testing.assert_close(logits.sigmoid(), members.sigmoid().mean(1))
    else:
        torch.testing.assert_close(logits.softmax(1), members.softmax(2).mean(1))
    assert mean_prediction(300 * members).isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_change_no_number(kind):
    network, image = build(kind).eval(), torch.rand(2, 1, 8, 8)
    expected = drawn(network, image, 5)
    for chunk_size in (1, 3, 7):
        torch.testing.assert_close(drawn(network, image, 5, chunk_size=chunk_size), expected)


@pytest.mark.parametrize(("kind", "spatial_dims"), [*((kind, 2) for kind in KINDS), ("dropout", 3), ("augmented", 3)])
def test_inference_path_scripts(kind, spatial_dims, tmp_path):
    network = build(kind, spatial_dims, members=2, filters=(4, 6)).eval()
    image = torch.rand(2, 1, *[8] * spatial_dims)
    torch.jit.script(network).save(tmp_path / "model.ts")
    scripted = torch.jit.load(tmp_path / "model.ts")
    torch.testing.assert_close(scripted(image), network(image))
    for arguments in [(4,), (4, 0.0), (4, 0.5, 2)]:
        torch.testing.assert_close(drawn(scripted, image, *arguments), drawn(network, image, *arguments))


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_is_close_and_answers_in_float32(kind):
    network, image = build(kind, bf16=True).eval(), torch.rand(2, 1, 8, 8)
    low = drawn(network, image, 4)
    network.bf16 = False
    for module in network.modules():
        if hasattr(module, "bf16"):
            module.bf16 = False
    full = drawn(network, image, 4)
    assert low.dtype == torch.float32 and not torch.equal(low, full)
    assert (low - full).abs().max() < 0.1 * full.abs().max()


def test_an_ensembles_bf16_is_its_members():
    network, image = build("ensemble").eval(), torch.rand(1, 1, 8, 8)
    full = drawn(network, image, 3)
    network.bf16 = True
    assert not torch.equal(drawn(network, image, 3), full)


@pytest.mark.parametrize(
    "wrapped", [UNet(2, 1, 2, (4, 8), (2,)), BasicUNet(2, 1, 2, (4, 4, 8, 8, 8, 4))], ids=["UNet", "BasicUNet"]
)
def test_a_network_of_monai_gives_logits_itself(wrapped):
    network, image = DeterministicSegmentationNetwork(wrapped).eval(), torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(network(image), wrapped(image))
    ensemble = EnsembleNetwork(fresh_copies(wrapped, 2)).eval()
    torch.testing.assert_close(drawn(ensemble, image, 2)[:, 0], wrapped(image))
    if isinstance(wrapped, UNet):
        torch.testing.assert_close(drawn(torch.jit.script(network), image, 2), drawn(network, image, 2))


def test_the_margin_of_unpadded_convolutions_is_passed_on():
    backbone = nn.Conv2d(1, 1, 5)
    backbone.margin = 2
    member = DeterministicSegmentationNetwork(backbone)
    for network in (
        member,
        AugmentedInferenceNetwork(backbone),
        EnsembleNetwork([member, member]),
        MultiHeadNetwork(backbone, nn.Conv2d(1, 2, 1), 2),
    ):
        assert network.margin == 2
        assert drawn(network, torch.rand(1, 1, 9, 9), 2).shape == (1, 2, 1, 5, 5)
    assert build("deterministic").margin == 0
    with pytest.raises(InputError, match=r"margins \[0, 2\]"):
        EnsembleNetwork([member, build("deterministic")])


# ---- ensembles and heads


@pytest.mark.parametrize("count", [2, 3, 7])
def test_samples_are_the_members_in_turn(count):
    network, image = build("ensemble").eval(), torch.rand(2, 1, 8, 8)
    samples = drawn(network, image, count)
    for n in range(count):
        torch.testing.assert_close(samples[:, n], network.networks[n % 3](image))


def test_an_ensemble_of_equal_members_is_the_member():
    member, image = build("deterministic").eval(), torch.rand(2, 1, 8, 8)
    network = EnsembleNetwork([copy.deepcopy(member) for _ in range(3)])
    torch.testing.assert_close(network(image), member(image))
    torch.testing.assert_close(drawn(network, image, 3), drawn(member, image, 3))


def test_permuted_members_give_permuted_samples():
    network, image = build("ensemble").eval(), torch.rand(2, 1, 8, 8)
    permuted = EnsembleNetwork([network.networks[i] for i in (2, 0, 1)])
    torch.testing.assert_close(drawn(permuted, image, 3), drawn(network, image, 3)[:, [2, 0, 1]])
    torch.testing.assert_close(permuted(image), network(image))


def test_members_train_as_if_each_were_alone():
    network = build("ensemble")
    alone = copy.deepcopy(network.networks[1])
    image, label = torch.rand(2, 1, 8, 8), torch.randint(0, 2, (2, 4, 8, 8))
    for each in (network, alone):
        optimizer = torch.optim.Adam(each.parameters(), 1e-2, weight_decay=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            MemberCrossEntropy()(each(image, label), label).mean().backward()
            optimizer.step()
    for (name, together), single in zip(network.networks[1].state_dict().items(), alone.state_dict().values()):
        torch.testing.assert_close(together, single, msg=name)


def test_fresh_copies_differ_and_follow_the_same_law():
    torch.manual_seed(3)
    plain = build("deterministic")
    torch.manual_seed(3)
    copies = fresh_copies(build("deterministic"), 3)
    for first, parameter in zip(plain.parameters(), copies[0].parameters()):
        assert torch.equal(first, parameter)  # the first member is the network that would be alone
    for first, second, third in zip(*(member.parameters() for member in copies)):
        assert torch.equal(first.sort().values.flatten().sort().values, second.flatten().sort().values)
        if first.numel() > 4 and first.min() < first.max():
            assert not torch.equal(first, second) and not torch.equal(second, third)
    with pytest.raises(InputError, match="0 copies"):
        fresh_copies(plain, 0)


def test_heads_are_groups_of_the_last_layers_channels():
    network, image = build("multi_head", classes=2).eval(), torch.rand(2, 1, 8, 8)
    logits = network.head(network.backbone(image))
    for n, sample in enumerate(drawn(network, image, 4).unbind(1)):
        m = n % 3
        torch.testing.assert_close(sample, logits[:, 2 * m : 2 * m + 2])


# ---- dropout


def test_the_dropout_backbone_without_masks_is_the_plain_one():
    torch.manual_seed(0)
    plain = UNetBackbone(2, 1, (4, 6, 8), 2, "batch")
    after = torch.rand(1)
    torch.manual_seed(0)
    dropped = DropoutUNetBackbone(2, 1, (4, 6, 8), 2, "batch", dropout=0.0)
    assert torch.equal(torch.rand(1), after)  # the same random numbers were used
    image = torch.rand(2, 1, 9, 8)
    state = torch.get_rng_state()
    for train in (True, False):
        torch.testing.assert_close(dropped.train(train)(image), plain.train(train)(image))
    assert torch.equal(torch.get_rng_state(), state)  # no mask was drawn
    assert dropped.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize(("blocks", "channels", "shared"), [(0, 0, 3), (1, 6 + 14, 2), (3, 4 + 6 + 14 + 10, 1)])
def test_dropout_stands_before_the_innermost_blocks(blocks, channels, shared):
    backbone = DropoutUNetBackbone(2, 1, (4, 6, 8), 1, dropout_blocks=blocks)
    assert backbone.mask_channels == channels and len(backbone.shared(torch.rand(1, 1, 8, 8))) == shared
    seen = []
    for block in [*backbone.encoder.blocks, *backbone.decoder]:
        block.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    image = torch.rand(1, 1, 8, 8)
    backbone.finish(backbone.shared(image), torch.zeros(1, channels))
    dark = [bool((x == 0).all()) for x in seen]
    assert dark == [i >= 3 - min(blocks, 2) for i in range(3)] + [i < blocks for i in range(2)]


def test_each_block_has_entries_of_the_mask_of_its_own():
    backbone = DropoutUNetBackbone(2, 1, (4, 6, 8), 1)
    blocks = [*backbone.encoder.blocks[1:], *backbone.decoder]
    seen = {}
    for number, block in enumerate(blocks):
        block.register_forward_pre_hook(lambda module, inputs, number=number: seen.update({number: inputs[0]}))
    image, start = torch.rand(1, 1, 8, 8), 0
    for number, channels in enumerate((4, 6, 14, 10)):
        mask = torch.ones(1, 34)
        mask[:, start : start + channels] = 0.0
        backbone.finish(backbone.shared(image), mask)
        assert [bool((seen[i] == 0).all()) for i in range(4)] == [i == number for i in range(4)]
        start += channels


def test_masks_keep_the_mean():
    backbone = DropoutUNetBackbone(2, 1, (4, 6, 8), 1, dropout=0.3)
    masks = backbone.draw_mask(torch.rand(1), 5000)
    torch.testing.assert_close(masks.unique(), torch.tensor([0.0, 1 / 0.7]))
    assert abs(masks.mean() - 1) < 0.01


def test_a_sample_is_the_network_under_one_mask():
    network, image = build("dropout").eval(), torch.rand(2, 1, 8, 8)
    samples = drawn(network, image, 4)
    torch.manual_seed(0)
    masks = network.backbone.draw_mask(image, 8)
    for b in range(2):
        for n in range(4):
            features = network.backbone.shared(image[b : b + 1])
            one = network.head(network.backbone.finish(features, masks[4 * b + n][None]))
            torch.testing.assert_close(samples[b, n], one[0])
    assert samples.var(1).amax() > 0 and not torch.equal(samples[0], samples[1])


def test_dropout_leaves_normalisation_alone_and_eval_is_deterministic():
    network, image = build("dropout").eval(), torch.rand(2, 1, 8, 8)
    before = copy.deepcopy(network.state_dict())
    drawn(network, image, 3)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    torch.testing.assert_close(network(image), network(image))
    network.train()
    assert not torch.equal(network(image), network(image))


def test_dropout_of_zero_is_deterministic():
    network = MonteCarloDropoutNetwork(DropoutUNetBackbone(2, 1, (4, 6, 8), 1, "batch", dropout=0.0), head()).eval()
    image = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(drawn(network, image, 3), network(image).detach().unsqueeze(1).expand(-1, 3, -1, -1, -1))


def test_a_backbone_without_masks_is_refused():
    with pytest.raises(InputError, match="UNetBackbone"):
        MonteCarloDropoutNetwork(UNetBackbone(2, 1, (4, 8)))
    with pytest.raises(InputError, match=r"dropout is 1\.0"):
        DropoutUNetBackbone(dropout=1.0)


# ---- test-time augmentation


class Positions(nn.Module):
    """Adds to the image where each pixel lies: no view of it is like another."""

    def forward(self, image):
        height, width = image.shape[-2:]
        return image + torch.arange(height)[:, None] * 100.0 + torch.arange(width) * 10.0


def test_an_equivariant_network_sees_no_difference():
    network = AugmentedInferenceNetwork(nn.Conv3d(1, 2, 1), flip_axes=(0, 1, 2), noise_std=0.0)
    image = torch.rand(2, 1, 4, 4, 5)
    samples = drawn(network, image, 6)
    torch.testing.assert_close(samples, network(image).detach().unsqueeze(1).expand_as(samples))


@pytest.mark.parametrize(("size", "views"), [((4, 4), 8), ((4, 6), 4)])
def test_every_symmetry_is_drawn_alike_and_undone(size, views):
    network, image = AugmentedInferenceNetwork(Positions(), noise_std=0.0), torch.rand(1, 1, *size)
    samples = drawn(network, image, 4000)[0, :, 0]
    expected = []
    for flips in ((), (0,), (1,), (0, 1)):
        for swap in (False, True)[: views // 4]:

            def turn(x, flips=flips, swap=swap):
                x = x.flip(flips)
                return x.transpose(0, 1) if swap else x

            def back(x, flips=flips, swap=swap):
                return (x.transpose(0, 1) if swap else x).flip(flips)

            expected.append(back(Positions()(turn(image[0, 0]))))
    matches = torch.stack([(samples - answer).abs().flatten(1).amax(1) < 1e-3 for answer in expected])
    assert (matches.sum(0) == 1).all()
    share = matches.float().mean(1)
    assert (share - 1 / views).abs().max() < 0.03


def test_each_image_has_views_of_its_own():
    network = AugmentedInferenceNetwork(Positions(), noise_std=0.0)
    samples = drawn(network, torch.zeros(2, 1, 4, 4), 20)
    assert not torch.equal(samples[0], samples[1])


def test_noise_is_added_to_the_image():
    network = AugmentedInferenceNetwork(nn.Identity(), noise_std=0.2)
    deviation = drawn(network, torch.full((2, 1, 16, 16), 5.0), 50) - 5.0
    assert abs(deviation.std() - 0.2) < 0.01 and abs(deviation.mean()) < 0.01
    with pytest.raises(InputError, match="noise_std -1"):
        AugmentedInferenceNetwork(nn.Identity(), noise_std=-1.0)


def test_a_trained_deterministic_network_lends_its_weights():
    trained, image = build("deterministic").eval(), torch.rand(1, 1, 8, 8)
    network = build("augmented").eval()
    network.load_state_dict(trained.state_dict())
    torch.testing.assert_close(network(image), trained(image))


def test_dropout_stands_before_the_same_blocks_where_the_decoder_has_its_own_widths():
    options = {"spatial_dims": 2, "filters": (4, 6, 8), "num_convs": 1, "decoder_filters": (6, 8)}
    thinned = DropoutUNetBackbone(**options, dropout=0.5, dropout_blocks=2)
    plain = UNetBackbone(**options)
    plain.load_state_dict(thinned.state_dict())
    image = torch.rand(3, 1, 16, 16)
    torch.testing.assert_close(thinned.eval()(image), plain.eval()(image))
    assert thinned.out_channels == 6 == plain(image).shape[1]
    blocks = [*thinned.encoder.blocks[1:], *thinned.decoder[:2]]
    assert thinned.mask_channels == sum(block[0].conv.in_channels for block in blocks)
