"""The summarizing inferer: the summary of all samples at once, from one run of the network, in bounded memory."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from monai.data import MetaTensor
from monai.engines import PrepareBatchExtraInput, SupervisedEvaluator
from monai.inferers import SliceInferer, SlidingWindowInferer
from torch import nn

from aleatoric.errors import InputError
from aleatoric.inferers import SamplingInferer, SummarizingInferer
from aleatoric.metrics.summary import summarize_samples
from aleatoric.networks.blocks import LogitMapDensity, UNetBackbone
from aleatoric.networks.nets import DeepMedic, StochasticSegmentationNetwork
from models import hierarchical_unet, phiseg, probabilistic_unet

WINDOWS = SlidingWindowInferer((15, 15), sw_batch_size=2, overlap=0.25)
SLICES = SliceInferer(roi_size=(16, 16), sw_batch_size=1, overlap=0.25, mode="gaussian", spatial_dim=2)


def ssn(classes=2):
    backbone = UNetBackbone(2, 1, (4, 8), 1, "batch")
    return StochasticSegmentationNetwork(backbone, LogitMapDensity(2, 4, classes, 3, 1))


def ssn_of_deepmedic():
    backbone = DeepMedic(2, 1, None, filters=(2, 3), hidden_channels=(4,))
    return StochasticSegmentationNetwork(backbone, LogitMapDensity(2, 4, 2, 2))


CASES = {
    "latent vector": (probabilistic_unet, (16, 12), None),
    "latent vector, classes": (lambda: probabilistic_unet(classes=3), (16, 12), None),
    "latent vector, slices": (probabilistic_unet, (20, 16, 3), SLICES),
    "law of maps": (ssn, (16, 12), None),
    "law of maps, binary": (lambda: ssn(1), (16, 12), None),
    "law of maps, windows": (ssn_of_deepmedic, (33, 20), WINDOWS),
    "latent maps, hierarchical": (hierarchical_unet, (16, 12), None),
    "latent maps, PHiSeg": (lambda: phiseg(classes=3), (16, 12), None),
}


def case(name):
    make, size, volume_inferer = CASES[name]
    torch.manual_seed(0)
    network, image = make(), torch.rand(2, 1, *size)
    label = torch.randint(0, 2, (2, 4, *size), dtype=torch.uint8)
    rater_valid = torch.tensor([[True, True, False, True], [True, True, True, True]])
    return network, image, volume_inferer, label, rater_valid


def check_equal(found, expected):
    assert torch.equal(found.masks, expected.masks) and torch.equal(found.mean_mask, expected.mean_mask)
    for name in ("mean", "mean_log", "cross_entropy"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), equal_nan=True)


@pytest.mark.parametrize("name", CASES)
def test_the_summary_is_that_of_all_samples_at_once(name):
    network, image, volume_inferer, label, rater_valid = case(name)
    options = {"seed": 3, "temperature": 0.8, "volume_inferer": volume_inferer}
    logits = SamplingInferer(5, **options)(image, network)
    mean = None
    if hasattr(network, "mean_logits"):  # as an evaluation asked for it before: a second run
        mean = SamplingInferer(1, 0, 0.0, volume_inferer)(image, network)[:, 0]
    expected = summarize_samples([logits], label, rater_valid, mean)
    for piece_size in (2, None):
        found = SummarizingInferer(5, **options, piece_size=piece_size)(image, network, label, rater_valid)
        check_equal(found, expected)
        assert found.cross_entropy.isnan().sum() == 5
    assert SummarizingInferer(5, **options)(image, network).cross_entropy is None


@pytest.mark.parametrize("name", CASES)
def test_the_network_runs_once_for_samples_and_mean(name):
    network, image, volume_inferer, label, _ = case(name)
    first = network.backbone if hasattr(network, "backbone") else network.prior
    if hasattr(first, "contract"):
        first = getattr(first, "encoder", None) or first.contracting[0]
    seen: list[int] = []
    first.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    SamplingInferer(5, 3, volume_inferer=volume_inferer)(image, network)
    once = sum(seen)
    seen.clear()
    SummarizingInferer(5, 3, volume_inferer=volume_inferer, piece_size=2)(image, network, label)
    assert once and sum(seen) == once


def test_the_mean_prediction_is_the_networks_own():
    network, image, *_ = case("law of maps, binary")
    with torch.no_grad():
        # a mean above 0 where most draws are below: skewed by a diagonal that no sample's mean would follow
        network.density.maps.weight[0] = 0.0
        network.density.maps.bias[0] = 0.2
        network.density.maps.bias[1] = 3.0
    mask = network.eval().mean_logits(image)[:, 0] > 0
    state = torch.get_rng_state()
    summary = SummarizingInferer(3, seed=1)(image, network)
    assert torch.equal(summary.mean_mask.bool(), mask) and not torch.equal(summary.mean[:, 0] > 0.5, mask)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(1)  # nor does asking for the mean draw from torch's own state
    assert torch.equal(SummarizingInferer(3)(image, network).masks, summary.masks)


def test_a_mean_that_no_law_gives_is_asked_for():
    """Of a network with a mean of its own, but without maps: by its method, or window by window without spread."""

    class OwnMean(nn.Module):
        def sample(self, image, num_samples, temperature=1.0, chunk_size=0):
            return image.unsqueeze(1) + temperature * (1 + torch.rand(1, num_samples, 1, 1, 1))

        def mean_logits(self, image):
            return image.clone()

    image = torch.randn(1, 1, 16, 16)
    for volume_inferer in (None, SlidingWindowInferer((8, 8))):
        summary = SummarizingInferer(4, 0, volume_inferer=volume_inferer)(image, OwnMean())
        assert torch.equal(summary.mean_mask, (image[:, 0] > 0).byte())
        assert not torch.equal(summary.mean_mask, (summary.mean[:, 0] > 0.5).byte())


def test_a_missing_rater_is_missing_however_it_is_said():
    network, image, _, label, rater_valid = case("latent vector")
    inferer = SummarizingInferer(3, 0)
    expected = inferer(image, network, label, rater_valid).cross_entropy
    assert expected[0, :, 2].isnan().all() and expected.isnan().sum() == 3
    marked = label.clone()
    marked[0, 2] = 255
    for words in ((marked,), (marked, rater_valid), (marked, torch.ones_like(rater_valid))):
        torch.testing.assert_close(inferer(image, network, *words).cross_entropy, expected, equal_nan=True)


def test_metadata_does_no_harm():
    network, image, _, label, rater_valid = case("law of maps")
    inferer = SummarizingInferer(3, 0)
    found = inferer(MetaTensor(image), network, MetaTensor(label), MetaTensor(rater_valid))
    check_equal(found, inferer(image, network, label, rater_valid))
    assert all(type(part) is torch.Tensor for part in found)


@pytest.mark.parametrize("size", [(16, 13), (16,), (16, 12, 1)])
def test_labels_of_another_size_are_refused(size):
    network, image, *_ = case("latent vector")
    with pytest.raises(InputError, match="labels have shape"):
        SummarizingInferer(3)(image, network, torch.zeros(2, 4, *size, dtype=torch.uint8))


def test_a_piece_of_nothing_is_refused():
    with pytest.raises(InputError, match="piece_size is 0"):
        SummarizingInferer(5, piece_size=0)


def test_in_monais_evaluator():
    network, image, _, label, rater_valid = case("law of maps")
    batches = [{"image": image, "label": label, "rater_valid": rater_valid}]
    evaluator = SupervisedEvaluator(
        torch.device("cpu"),
        batches,
        network,
        inferer=SummarizingInferer(4, seed=2, piece_size=3),
        prepare_batch=PrepareBatchExtraInput({"label": "label", "rater_valid": "rater_valid"}),
        decollate=False,
    )
    evaluator.run()
    network.eval()
    check_equal(evaluator.state.output["pred"], SummarizingInferer(4, seed=2)(image, network, label, rater_valid))


_PEAK = """
import resource, sys
import torch
from aleatoric.inferers import SummarizingInferer
from aleatoric.networks.blocks import (
    ConditionalDensity, DiagonalNormal, Encoder, FeatureCombiner, LogitMapDensity, UNetBackbone)
from aleatoric.networks.nets import ProbabilisticUNet, StochasticSegmentationNetwork

torch.set_num_threads(2)
name, num_samples, filters = sys.argv[1], int(sys.argv[2]), tuple(map(int, sys.argv[3:]))
if name == "punet":
    def density(channels):
        return ConditionalDensity(Encoder(2, channels, filters), DiagonalNormal(filters[-1], 6))
    head = FeatureCombiner(2, filters[0], 6)
    network = ProbabilisticUNet(UNetBackbone(2, 1, filters), density(1), density(2), head)
else:
    backbone = UNetBackbone(2, 1, filters, 3, "batch", decoder_filters=filters[1:])
    density = LogitMapDensity(2, filters[1], 1, 10, 3, filters[0], norm="batch")
    network = StochasticSegmentationNetwork(backbone, density)
image, label = torch.rand(1, 1, 512, 512), torch.randint(0, 2, (1, 4, 512, 512), dtype=torch.uint8)
summary = SummarizingInferer(num_samples, seed=0)(image, network, label)
assert summary.masks.shape == (1, num_samples, 512, 512) and summary.cross_entropy.isfinite().all()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak(name, num_samples, *filters):
    """MiB of a process that summarizes samples of an image of 512 x 512 pixels."""
    words = [sys.executable, "-c", _PEAK, name, str(num_samples), *map(str, filters)]
    printed = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return int(printed.splitlines()[-1]) / 1024


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "filters"), [("punet", (32, 64, 128, 256)), ("ssn", (32, 64, 128, 192, 192, 192, 192))]
)
def test_100_samples_of_a_large_image_fit_in_2_gibibytes(name, filters):
    assert peak(name, 100, *filters) < 2048


@pytest.mark.slow
@pytest.mark.parametrize("name", ["punet", "ssn"])
def test_memory_grows_with_the_samples_by_their_masks_alone(name):
    """A small network, because one that takes a gigabyte to run hides what is kept afterwards."""
    # 200 masks more of 1/4 MiB, twice while they are put together; their logits would be 200 MiB besides
    assert peak(name, 300, 4, 8) - peak(name, 100, 4, 8) < 2 * 50 + 15
