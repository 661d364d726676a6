"""How the phantom compares with real CT: the same figures of two prepared data sets, side by side.

    python tools/compare_phantom.py REAL PHANTOM

Lung is what lies between -950 and -780 HU on average over 9x9 pixels and at least four pixels from every rater's mask.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy import ndimage

from aleatoric.data import load_dataset

THRESHOLDS = range(-850, 50, 30)  # HU


def rim(gradient: np.ndarray, region: np.ndarray) -> float:
    """Mean gradient on a region's outermost pixels."""
    return float(gradient[region & ~ndimage.binary_erosion(region)].mean())


def figures(images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Figures of patches (n, H, W) in HU with masks (n, R, H, W)."""
    level, spread, neighbours, on, inside, outside, best = ([] for _ in range(7))
    for image, masks in zip(images.astype(np.float64), labels.astype(bool)):
        union = masks.any(0)
        mean = ndimage.uniform_filter(image, 9)
        lung = (mean > -950) & (mean < -780) & ~ndimage.binary_dilation(union, iterations=3)
        if lung.sum() > 200:
            local = np.sqrt(ndimage.uniform_filter(image**2, 5) - ndimage.uniform_filter(image, 5) ** 2)
            fine = np.clip(image - ndimage.gaussian_filter(image, 2), -60, 60)
            pairs = lung[:, 1:] & lung[:, :-1]
            level.append(np.median(image[lung]))
            spread.append(np.median(local[lung]))
            neighbours.append(np.corrcoef(fine[:, 1:][pairs], fine[:, :-1][pairs])[0, 1])
        gradient = np.hypot(ndimage.sobel(image, 0), ndimage.sobel(image, 1)) / 8
        smooth = ndimage.gaussian_filter(image, 1.0)
        near = ndimage.binary_dilation(union, iterations=4)
        for mask in masks:
            if mask.sum() < 30:
                continue
            on.append(rim(gradient, mask))
            inside.append(rim(gradient, ndimage.binary_erosion(mask)))
            outside.append(rim(gradient, ndimage.binary_dilation(mask)))
            found = [(smooth > threshold) & near for threshold in THRESHOLDS]
            best.append(max((f & mask).sum() / (f | mask).sum() for f in found))
    return {
        "HU of the lung, median": float(np.median(level)),
        "local standard deviation in the lung (5x5), HU, median": float(np.median(spread)),
        "correlation of neighbouring pixels' noise, median": float(np.median(neighbours)),
        "gradient on a rater's outline / a pixel beside it": float(
            2 * np.mean(on) / (np.mean(inside) + np.mean(outside))
        ),
        "best threshold's IoU with a rater's mask, mean": float(np.mean(best)),
        "best threshold's IoU with a rater's mask, largest": float(np.max(best)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", help="prepared data set of real CT")
    parser.add_argument("phantom", help="prepared data set of the phantom")
    options = parser.parse_args()
    sets = [load_dataset(path) for path in (options.real, options.phantom)]
    real, phantom = (figures(np.asarray(s.images[:, 0]), np.asarray(s.labels)) for s in sets)
    print(f"| | {sets[0].info['name']} ({len(sets[0])} patches) | {sets[1].info['name']} ({len(sets[1])} patches) |")
    print("|---|---|---|")
    for name in real:
        print(f"| {name} | {real[name]:.2f} | {phantom[name]:.2f} |")


if __name__ == "__main__":
    main()
