"""Augmentation of 32 images with four masks each: our batched transform against MONAI's RandAffined, image by image.

Run it with ``python tools/bench_augment.py`` on two cores; it prints both times (the best of several) and their ratio.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from monai.transforms import RandAffined

from aleatoric.transforms import BatchRandAffined
from timing import best_seconds, print_ratios

# The papers' protocol: +-180 degrees, shear +-30 degrees (tangent), +-0.1 of the side, scale 0.8 to 1.2.
RANGES: dict[str, Any] = {
    "rotate_range": 3.1416,
    "shear_range": (0.5774, 0.5774),
    "translate_range": (12.8, 12.8),
    "scale_range": (0.2, 0.2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--raters", type=int, default=4)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    size = (arguments.size, arguments.size)
    image = torch.rand(arguments.batch, 1, *size)
    label = torch.randint(0, 2, (arguments.batch, arguments.raters, *size), dtype=torch.uint8)
    common: dict[str, Any] = {
        "keys": ("image", "label"),
        "prob": 1.0,
        "mode": ("bilinear", "nearest"),
        "padding_mode": "reflection",
    }
    batched = BatchRandAffined(**common, **RANGES)
    single = RandAffined(**common, **RANGES)
    batched.set_random_state(0)
    single.set_random_state(0)

    times = best_seconds(
        {
            "MONAI RandAffined, image by image": lambda: [
                single({"image": i, "label": m}) for i, m in zip(image, label)
            ],
            "BatchRandAffined": lambda: batched({"image": image, "label": label}),
        },
        arguments.repeats,
    )
    print(f"{arguments.batch} images + {arguments.raters} masks, {size[0]}x{size[1]}, {arguments.threads} threads")
    print_ratios(times, "MONAI RandAffined, image by image")


if __name__ == "__main__":
    main()
