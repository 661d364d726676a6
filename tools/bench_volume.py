"""Samples of a volume: one law, stitched from windows and sampled once, against sampling every window.

    python tools/bench_volume.py [--side 60] [--samples 20] [--filters 1.0] [--device cpu] [--threads 2] [--repeats 2]

The network is DeepMedic with a Normal over its logits (rank 10, four classes), as published, over windows of 30 voxels.
The correlation is that of neighbouring voxels' logits over 200 samples, across the seams and in the middle of windows,
where the network's own grid of 15 voxels has an edge as well: a law of the volume knows no seam.
"""

from __future__ import annotations

import argparse

import torch
from monai.inferers import SlidingWindowInferer
from torch import Tensor

from aleatoric.inferers import SamplingInferer
from aleatoric.networks.blocks import LogitMapDensity
from aleatoric.networks.nets import DeepMedic, StochasticSegmentationNetwork
from timing import best_seconds, print_ratios

ROI = 30


class PerWindow(torch.nn.Module):
    """The network without its two halves: every window draws for itself, as published latent-variable code does."""

    def __init__(self, network: StochasticSegmentationNetwork) -> None:
        super().__init__()
        self.network, self.margin = network, network.margin

    def sample(self, image: Tensor, num_samples: int, temperature: float = 1.0, chunk_size: int = 0) -> Tensor:
        # noise of its own for each window, whatever seed the inferer has set
        torch.random.seed()
        return self.network.sample(image, num_samples, temperature, chunk_size)


def correlations(logits: Tensor) -> tuple[float, float]:
    """Mean correlation over samples of neighbours along the last axis, in the middle of windows and across seams."""
    deviation = logits - logits.mean(1, keepdim=True)
    deviation /= deviation.square().mean(1, keepdim=True).sqrt()
    pairs = (deviation[..., 1:] * deviation[..., :-1]).mean((0, 1, 2, 3, 4))
    return float(pairs[ROI // 2 - 1 :: ROI].mean()), float(pairs[ROI - 1 :: ROI].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=60, help="voxels, more than 30")
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--filters", type=float, default=1.0, help="share of the published widths")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    filters = [max(1, round(options.filters * f)) for f in (30, 30, 40, 40, 40, 40, 50, 50)]
    hidden = max(1, round(options.filters * 250))
    backbone = DeepMedic(3, 4, None, filters, hidden_channels=(hidden, hidden))
    density = LogitMapDensity(3, hidden, 4, rank=10, num_layers=1, hidden_channels=max(1, hidden // 5))
    network = StochasticSegmentationNetwork(backbone, density).eval().to(options.device)
    volume = torch.rand(1, 4, ROI, ROI, options.side, device=options.device)
    windows = SlidingWindowInferer([ROI] * 3, overlap=0.0)

    def sampled(num_samples: int, sampler: torch.nn.Module) -> Tensor:
        return SamplingInferer(num_samples, seed=0, volume_inferer=windows)(volume, sampler)

    alternatives = {"one law": network, "per window": PerWindow(network)}
    names = [f"{name}, {options.samples} samples" for name in alternatives]
    print(f"{ROI} x {ROI} x {options.side} voxels, {sum(p.numel() for p in network.parameters()):,} parameters")
    print_ratios(
        best_seconds(
            {
                label: lambda sampler=sampler: sampled(options.samples, sampler)  # type: ignore[misc]
                for label, sampler in zip(names, alternatives.values())
            },
            options.repeats,
            options.device,
        ),
        names[1],
    )
    for name, sampler in alternatives.items():
        middle, across = correlations(sampled(200, sampler))
        print(f"{name}: correlation of neighbours {middle:.3f} in the middle of windows, {across:.3f} across seams")


if __name__ == "__main__":
    main()
