"""Samples drawn piece after piece: those of one call, from one run of the network, whatever happens between pieces."""

from __future__ import annotations

import io
import weakref

import pytest
import torch
from monai.inferers import SliceInferer, SlidingWindowInferer
from torch import nn

from aleatoric.errors import InputError
from aleatoric.inferers import SamplingInferer, sampling
from aleatoric.networks.blocks import DropoutUNetBackbone, LogitMapDensity, UNetBackbone
from aleatoric.networks.nets import (
    AugmentedInferenceNetwork,
    DeepMedic,
    DeterministicSegmentationNetwork,
    EnsembleNetwork,
    MonteCarloDropoutNetwork,
    MultiHeadNetwork,
    StochasticSegmentationNetwork,
    fresh_copies,
)
from models import hierarchical_unet, phiseg, probabilistic_unet

SHAPE = (2, 1, (4, 8), 1, "batch")
SLICES = SliceInferer(roi_size=(16, 16), sw_batch_size=1, overlap=0.25, mode="gaussian", spatial_dim=2)
WINDOWS = SlidingWindowInferer((8, 8, 8), sw_batch_size=3, overlap=0.25, mode="gaussian")
PLANES = SlidingWindowInferer((15, 15), sw_batch_size=2, overlap=0.25)


def head(classes=1):
    return nn.Conv2d(4, classes, 1)


def ssn(classes=2):
    return StochasticSegmentationNetwork(UNetBackbone(*SHAPE), LogitMapDensity(2, 4, classes, 3, 1))


def ssn_of_deepmedic(spatial_dims):
    backbone = DeepMedic(spatial_dims, 1, None, filters=(2, 3), hidden_channels=(4,))
    return StochasticSegmentationNetwork(backbone, LogitMapDensity(spatial_dims, 4, 2, 2))


def deterministic():
    return DeterministicSegmentationNetwork(UNetBackbone(*SHAPE), head())


def exported(network):
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(network.eval()), file)
    file.seek(0)
    return torch.jit.load(file)


# name: a network, the image's size, how to walk through it
CASES = {
    "latent vector": (probabilistic_unet, (16, 12), None),
    "latent vector, classes": (lambda: probabilistic_unet(classes=3), (16, 12), None),
    "latent vector, bfloat16": (lambda: probabilistic_unet(bf16=True), (16, 16), None),
    "latent vector, windows": (lambda: probabilistic_unet(spatial_dims=3), (16, 8, 12), WINDOWS),
    "latent vector, slices": (probabilistic_unet, (20, 16, 3), SLICES),
    "latent vector, exported": (lambda: exported(probabilistic_unet()), (16, 12), None),
    "law of maps": (ssn, (16, 12), None),
    "law of maps, of few pixels": (ssn, (2, 2), None),
    "law of maps, margin": (lambda: ssn_of_deepmedic(2), (35, 50), None),
    "law of maps, windows": (lambda: ssn_of_deepmedic(2), (33, 20), PLANES),
    "law of maps, volume": (lambda: ssn_of_deepmedic(3), (15, 20, 31), SlidingWindowInferer(15, 2)),
    "law of maps, exported": (lambda: exported(ssn()), (16, 12), None),
    "latent maps, hierarchical": (hierarchical_unet, (16, 12), None),
    "latent maps, PHiSeg": (lambda: phiseg(classes=3), (16, 12), None),
    "latent maps, slices": (hierarchical_unet, (16, 12, 3), SLICES),
    "latent maps, bfloat16": (lambda: phiseg(bf16=True), (16, 16), None),
    "latent maps, exported": (lambda: exported(hierarchical_unet()), (16, 12), None),
    "one answer": (deterministic, (16, 12), None),
    "one answer, slices": (deterministic, (20, 16, 3), SLICES),
    "ensemble": (lambda: EnsembleNetwork(fresh_copies(deterministic(), 3)), (16, 12), None),
    "heads": (lambda: MultiHeadNetwork(UNetBackbone(*SHAPE), head(6), 3), (16, 12), None),
    "heads, slices": (lambda: MultiHeadNetwork(UNetBackbone(*SHAPE), head(6), 3), (20, 16, 2), SLICES),
    "dropout": (lambda: MonteCarloDropoutNetwork(DropoutUNetBackbone(*SHAPE), head()), (16, 12), None),
    "dropout, slices": (lambda: MonteCarloDropoutNetwork(DropoutUNetBackbone(*SHAPE), head()), (20, 16, 2), SLICES),
    "augmented": (lambda: AugmentedInferenceNetwork(UNetBackbone(*SHAPE), head()), (16, 16), None),
    "augmented, slices": (lambda: AugmentedInferenceNetwork(UNetBackbone(*SHAPE), head()), (20, 16, 2), SLICES),
}
RUNS_ONCE = [name for name in CASES if "augmented" not in name and "exported" not in name]  # views differ
IN_PIECES = [name for name in CASES if name != "latent maps, exported"]


def case(name, batch=2):
    make, size, volume_inferer = CASES[name]
    torch.manual_seed(0)
    return make(), torch.rand(batch, 1, *size), volume_inferer


def disturbed(pieces):
    """Pieces, whose consumer draws noise of its own and seeds it."""
    for piece in pieces:
        torch.manual_seed(7)
        torch.rand(11)
        yield piece
        torch.randn(13)


def check_pieces(name, temperature, piece_sizes):
    network, image, volume_inferer = case(name)
    inferer = SamplingInferer(5, 3, temperature, volume_inferer)
    expected = inferer(image, network)
    tolerance = {"atol": 0.05, "rtol": 0.05} if "bfloat16" in name else {"atol": 1e-5, "rtol": 1e-4}
    for piece_size in piece_sizes:
        pieces = list(disturbed(inferer.pieces(image, network, piece_size)))
        n = 5 if piece_size is None or name not in IN_PIECES else min(piece_size, 5)
        assert [piece.shape[1] for piece in pieces] == [n] * (5 // n) + [5 % n] * (5 % n > 0)
        torch.testing.assert_close(torch.cat(pieces, 1), expected, **tolerance)
    if temperature and not name.startswith("one answer"):  # what is compared is not all alike
        assert not torch.allclose(expected[:, 0], expected[:, 4])


@pytest.mark.parametrize("name", CASES)
def test_pieces_are_the_samples_of_one_call(name):
    check_pieces(name, 1.0, (1, 3, 9, None))


@pytest.mark.parametrize("temperature", [0.5, 0.0])
@pytest.mark.parametrize("name", [name for name in IN_PIECES if "exported" not in name])
def test_pieces_at_a_temperature(name, temperature):
    check_pieces(name, temperature, (2,))


@pytest.mark.parametrize("name", ["latent vector", "law of maps", "latent maps, PHiSeg", "dropout", "augmented"])
def test_without_a_seed_the_noise_is_torchs_own(name):
    network, image, _ = case(name)
    torch.manual_seed(4)
    expected = SamplingInferer(5)(image, network)
    torch.manual_seed(4)
    torch.testing.assert_close(torch.cat(list(SamplingInferer(5).pieces(image, network, 2)), 1), expected)
    torch.testing.assert_close(SamplingInferer(5, 4)(image, network), expected)


@pytest.mark.parametrize("name", RUNS_ONCE)
def test_what_samples_share_runs_once(name):
    network, image, volume_inferer = case(name)
    shared = [network.backbone] if hasattr(network, "backbone") else list(getattr(network, "networks", []))
    prior = getattr(network, "prior", None)
    if prior is not None:
        shared.append(prior.contracting[0] if hasattr(prior, "contracting") else prior.encoder)
    seen: list[int] = []
    for part in shared:
        method = "shared" if hasattr(part, "shared") else "forward"
        own = getattr(part, method)
        setattr(part, method, lambda x, own=own: seen.append(len(x)) or own(x))
    inferer = SamplingInferer(5, 3, volume_inferer=volume_inferer)
    inferer(image, network)
    once = sum(seen)
    seen.clear()
    for _ in inferer.pieces(image, network, 2):
        pass
    assert once and sum(seen) == once


@pytest.mark.parametrize(
    ("name", "temperature"), [*((name, 1.0) for name in IN_PIECES if "exported" not in name), ("dropout", 0.5)]
)
def test_no_piece_is_held_while_the_next_is_made(name, temperature):
    network, image, volume_inferer = case(name)
    made: list[weakref.ref] = []
    held: list[int] = []

    def watch(*_):
        held.append(sum(piece() is not None for piece in made))

    for method in ("sample_maps", "decode", "_expand_all", "_answers"):
        own = getattr(network, method, None)
        if own is not None:
            setattr(network, method, lambda *words, own=own: watch() or own(*words))
    inferer = SamplingInferer(5, 3, temperature, volume_inferer)
    for piece in inferer.pieces(image, network, 1):
        made.append(weakref.ref(piece))
        watch()
        del piece
    assert max(held) == 1  # that of the consumer
    assert len(made) == 5


@pytest.mark.parametrize("name", ["latent vector, bfloat16", "law of maps", "latent maps, bfloat16", "dropout"])
def test_modes_hold_while_a_piece_is_made_and_only_then(name):
    network, image, _ = case(name)
    network.train()
    frozen = next(network.children()).eval()  # within a network that is not
    modes = [part.training for part in network.modules()]
    seen = set()
    for part in network.modules():
        if not list(part.children()):
            part.register_forward_hook(
                lambda part, *_: seen.add((part.training, torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")))
            )
    iterator = SamplingInferer(4, 3).pieces(image, network, 2)
    for piece in iterator:
        assert [part.training for part in network.modules()] == modes and not frozen.training
        assert torch.is_grad_enabled() and not torch.is_autocast_enabled("cpu") and not piece.requires_grad
    assert {(training, grad) for training, grad, _ in seen} == {(False, False)}
    assert ("bfloat16" in name) == any(autocast for *_, autocast in seen)


def test_an_iterator_may_be_left():
    network, image, _ = case("dropout")
    state = torch.get_rng_state()
    iterator = SamplingInferer(5, 3).pieces(image, network, 2)
    next(iterator)
    assert torch.equal(torch.get_rng_state(), state) and network.training and torch.is_grad_enabled()
    del iterator
    assert torch.equal(torch.get_rng_state(), state) and network.training and torch.is_grad_enabled()


def test_two_iterators_at_a_time_do_not_disturb_each_other():
    network, image, _ = case("augmented")
    inferer = SamplingInferer(4, 3)
    expected = inferer(image, network)
    both = zip(inferer.pieces(image, network, 1), inferer.pieces(image, network, 1))
    for n, (one, other) in enumerate(both):
        torch.testing.assert_close(one, expected[:, n : n + 1])
        torch.testing.assert_close(other, expected[:, n : n + 1])


@pytest.mark.parametrize(
    ("name", "channels"), [("latent vector, classes", 3), ("law of maps", 2), ("heads", 6), ("latent maps, PHiSeg", 3)]
)
def test_a_piece_fits_its_budget(monkeypatch, name, channels):
    network, image, _ = case(name)
    sample = 2 * 16 * 12 * channels
    for budget, expected in ((1, [1] * 5), (3 * sample, [2, 2, 1]), (4 * sample, [4, 1]), (9 * sample, [5])):
        monkeypatch.setitem(sampling._PIECE_ELEMENTS, "cpu", budget)
        assert [piece.shape[1] for piece in SamplingInferer(5).pieces(image, network)] == expected


def test_a_piece_of_a_large_image_takes_64_megabytes():
    network = deterministic()
    (piece, *_) = SamplingInferer(200).pieces(torch.rand(1, 1, 512, 512), network)
    assert piece.numel() * 4 == 1 << 26


def test_a_piece_of_nothing_is_refused():
    network, image, _ = case("latent vector")
    with pytest.raises(InputError, match="piece_size is 0"):
        SamplingInferer(5).pieces(image, network, 0)
