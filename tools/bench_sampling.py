"""16 samples of 32 images by the Probabilistic U-Net: the shared-feature identity against tiling z, end to end.

    python tools/bench_sampling.py [--device cpu] [--threads 2] [--images 32] [--samples 16]

"plain" is what published code does: backbone and prior once, then for each sample z is tiled over the image,
concatenated with the features and sent through all 1x1 layers, in float32 with channels first. Both must give the same
logits to 1e-5 in float32.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor

from aleatoric.networks.blocks import ConditionalDensity, DiagonalNormal, Encoder, FeatureCombiner, UNetBackbone
from aleatoric.networks.nets import ProbabilisticUNet
from aleatoric.precision import bf16_is_native
from timing import best_seconds, print_ratios


def published_network(bf16: bool = False, all_raters: bool = False) -> ProbabilisticUNet:
    """The network of the papers, 6,844,761 parameters."""
    filters, latent_dim = (32, 64, 128, 256), 6

    def density(channels: int) -> ConditionalDensity:
        return ConditionalDensity(Encoder(2, channels, filters), DiagonalNormal(filters[-1], latent_dim))

    head = FeatureCombiner(2, filters[0], latent_dim)
    return ProbabilisticUNet(UNetBackbone(2, 1, filters), density(1), density(2), head, all_raters, bf16)


def plain(network: ProbabilisticUNet, image: Tensor, num_samples: int) -> Tensor:
    """Sample as the published code does: (B, C, H, W) -> (B, N, 1, H, W)."""
    z = network.prior.density.draw(network.prior.features(image).unsqueeze(1).expand(-1, num_samples, -1))
    features = network.backbone(image)
    return torch.stack([network.head.plain(features, z[:, n]) for n in range(num_samples)], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    reference = published_network().eval().to(options.device)
    image = torch.rand(options.images, 1, 128, 128, device=options.device)

    def like_reference(bf16: bool) -> ProbabilisticUNet:
        network = published_network(bf16).eval()
        network.load_state_dict(reference.state_dict())
        return network.to(options.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    ours, half = like_reference(False), like_reference(True)
    with torch.inference_mode():
        torch.manual_seed(1)
        expected = plain(reference, image[:2], options.samples)
        torch.manual_seed(1)
        error = (ours.sample(image[:2], options.samples) - expected).abs().max().item()
        print(f"largest difference from the plain path, float32: {error:.1e}")
        functions = {
            "plain, float32": lambda: plain(reference, image, options.samples),
            "shared, float32, channels last": lambda: ours.sample(image, options.samples),
        }
        if bf16_is_native(options.device):
            functions["shared, bfloat16, channels last"] = lambda: half.sample(image, options.samples)
        else:
            print(f"bfloat16 is left out: {options.device} only emulates it here")
        times = best_seconds(functions, options.repeats, options.device)
    print_ratios(times, "plain, float32")
    if error > 1e-5:
        raise SystemExit("the two paths differ by more than 1e-5")


if __name__ == "__main__":
    main()
