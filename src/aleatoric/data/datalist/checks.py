"""What looks wrong with one image and its raters' masks, found from the pixels alone.

Raters disagree; that is why this package exists. So nothing here calls a mask suspicious for its border, for its size
or for being empty beside others that are not: only for what honest disagreement hardly ever looks like. Measured on
LIDC's raters: of 394 nodules 4 are reported, each for two masks equal in every pixel; of 1,172 slices 1, for its place.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Finding", "case_findings", "distances", "foreground_iou"]

FEWEST_PIXELS = 30  #: masks below this are too small to judge where they belong
APART = 0.3  #: IoU with every other rater at most this, or ...
OUTLYING = 0.3  #: ... less by this than the others' among themselves: "overlaps badly"
DISJOINT = 0.05  #: IoU with every other rater at most this: "elsewhere"
SHIFTED = 0.65  #: IoU at least this after a translation, with the other rater whose mask is nearest in size
FARTHEST_ALIKE = 3.0  #: pixels: a translation up to this is a matter of the border
MIRRORED = 0.6  #: IoU at least this after a flip or a swap of axes
GAIN = 0.3  #: and more by this than before
OTHERS_AGREE = 0.5  #: mean IoU among the others at least this, where there are two or more
COPIED_PIXELS = 100  #: two raters' masks of at least this many pixels that are equal in every one of them
OUTSIDE = 0.5  #: share of a mask where the image and its neighbours in the plane have its commonest value
_FFT_PIXELS = 1 << 22
_BLOCK = 1 << 22


class Finding(NamedTuple):
    """Something that a person should look at.

    Attributes:
        kind: what it is, the same words for all of its kind.
        case: whose.
        raters: names of those concerned; empty: the image itself, or all.
        sentence: what was found, with the numbers.
        short: the same for a picture.
        numbers: the evidence.
    """

    kind: str
    case: str
    raters: tuple[str, ...]
    sentence: str
    short: str
    numbers: dict[str, Any]


def case_findings(
    image: np.ndarray, labels: np.ndarray, valid: np.ndarray, case: str, raters: Sequence[str]
) -> list[Finding]:
    """Everything suspicious in one case.

    Args:
        image: (C, *S).
        labels: (R, *S) class maps; 0 is background.
        valid: (R,) bool.
        case: its name.
        raters: R names.
    """
    findings = list(_image_findings(image, case))
    masks = labels > 0
    there = np.flatnonzero(valid).tolist()
    areas = np.count_nonzero(masks.reshape(len(masks), -1), axis=1)
    if not areas[there].any():
        words = f"none of {len(there)} raters drew anything"
        return [*findings, Finding("empty masks", case, (), f"{case}: {words}.", words, {"raters": len(there)})]
    copies = list(_copies(labels, [r for r in there if areas[r] >= COPIED_PIXELS], areas, case, raters))
    outside = list(_outside(image, masks, [r for r in there if areas[r]], areas, case, raters))
    # where a mask lies on empty ground there is nothing more to say about its place
    misplaced = (
        [] if outside else list(_misplaced(masks, [r for r in there if areas[r] >= FEWEST_PIXELS], areas, case, raters))
    )
    return findings + outside + misplaced + copies


def foreground_iou(a: np.ndarray, b: np.ndarray) -> float:
    """|a & b| / |a | b| of two bool masks, 1 where both are empty."""
    either = int(np.count_nonzero(a | b))
    return int(np.count_nonzero(a & b)) / either if either else 1.0


def distances(labels: np.ndarray, valid: np.ndarray, classes: int) -> np.ndarray:
    """1 - IoU between every two raters, the mean over the foreground classes; two empty masks agree.

    The same as ``metrics.functional.iou_distance`` with ``num_classes``; in numpy, because preparing imports no torch.

    Args:
        labels: (R, *S) class maps.
        valid: (R,) bool.
        classes: with the background.

    Returns:
        (R, R) float64, NaN where a rater is missing.
    """
    found = np.full((len(labels), len(labels)), np.nan)
    boxed = [label[_box(_union(labels))].reshape(-1) for label in labels]
    for a, b in itertools.combinations_with_replacement(np.flatnonzero(valid), 2):
        pairs = np.zeros((classes, classes), np.int64)
        for start in range(0, boxed[a].size, _BLOCK):  # bincount takes eight bytes a pixel
            block = slice(start, start + _BLOCK)
            both_labels = boxed[a][block].astype(np.intp) * classes + boxed[b][block]
            pairs += np.bincount(both_labels, minlength=classes * classes).reshape(classes, classes)
        both = np.diag(pairs)[1:]
        either = pairs.sum(axis=0)[1:] + pairs.sum(axis=1)[1:] - both
        found[a, b] = found[b, a] = np.where(either > 0, 1 - both / np.maximum(either, 1), 0.0).mean()
    return found


def _image_findings(image: np.ndarray, case: str) -> Iterator[Finding]:
    flat = [c for c, channel in enumerate(image) if channel.min() == channel.max()]
    if flat:
        which = "the image" if len(image) == 1 else f"channel {flat[0] + 1}"
        words = f"{which} is {image[flat[0]].flat[0]:g} everywhere"
        yield Finding("constant image", case, (), f"{case}: {words}.", words, {"channels": flat})


def _copies(
    labels: np.ndarray, large: Sequence[int], areas: np.ndarray, case: str, raters: Sequence[str]
) -> Iterator[Finding]:
    for a, b in itertools.combinations(large, 2):
        if areas[a] == areas[b] and np.array_equal(labels[a], labels[b]):
            words = f"{raters[a]} and {raters[b]} are equal in all {areas[a]} pixels"
            sentence = f"{case}: the masks of {words}; perhaps one file is a copy of the other."
            yield Finding("copied mask", case, (raters[a], raters[b]), sentence, words, {"pixels": int(areas[a])})


def _outside(
    image: np.ndarray, masks: np.ndarray, drawn: Sequence[int], areas: np.ndarray, case: str, raters: Sequence[str]
) -> Iterator[Finding]:
    """Masks on ground that is constant: padding, the black around an ultrasound fan, air that was cut off."""
    from scipy.ndimage import binary_erosion

    box = _box(_union(masks), margin=1)
    ground = np.ones(image[0][box].shape, bool)
    for channel in image:
        sample = channel.reshape(-1)[:: max(1, channel.size >> 20)]
        values, counts = np.unique(sample, return_counts=True)
        ground &= channel[box] == values[counts.argmax()]
    if not ground.any():
        return
    plane = np.ones((3, 3, *[1] * (ground.ndim - 2)), bool)
    ground = binary_erosion(ground, plane, border_value=1)
    found = {r: float(np.count_nonzero(ground & masks[r][box]) / areas[r]) for r in drawn}
    wrong = [r for r in drawn if found[r] >= OUTSIDE]
    # an image that is empty nearly everywhere has no outside
    if not wrong or all(channel.min() == channel.max() for channel in image):
        return
    names = tuple(raters[r] for r in wrong)
    share = min(found[r] for r in wrong)
    words = f"{_and(names)}: {share:.0%} on constant ground"
    sentence = (
        f"{case}: {share:.0%} of the mask of {_and(names)} lies where the image is constant, outside its content."
    )
    yield Finding("mask outside the content", case, names, sentence, words, {"share": round(share, 3)})


def _misplaced(
    masks: np.ndarray, drawn: Sequence[int], areas: np.ndarray, case: str, raters: Sequence[str]
) -> Iterator[Finding]:
    pairs = {(a, b): foreground_iou(masks[a], masks[b]) for a, b in itertools.combinations(drawn, 2)}
    pairs |= {(b, a): value for (a, b), value in pairs.items()}
    for rater in drawn if len(drawn) > 2 else drawn[1:]:  # of two, neither is the wrong one: said once
        others = [r for r in drawn if r != rater]
        among = [pairs[pair] for pair in itertools.combinations(others, 2)]
        if among and np.mean(among) < OTHERS_AGREE:
            continue
        before = max(pairs[rater, other] for other in others)
        if before > APART and not (among and before <= np.mean(among) - OUTLYING):
            continue
        target = masks[min(others, key=lambda other: abs(areas[other] - areas[rater]))]
        names = (raters[rater],) if among else (raters[others[0]], raters[rater])
        who = f"{names[0]}'s mask overlaps the others'" if among else f"the masks of {_and(names)} overlap"
        found = f"{case}: {who} with an IoU of {before:.2f}{' at most' if among else ''}"
        numbers: dict[str, Any] = {
            "iou": round(before, 3),
            "among_others": round(float(np.mean(among)), 3) if among else None,
        }
        mirrored, way = _mirrored(masks[rater], target)
        if mirrored >= max(MIRRORED, before + GAIN):
            yield Finding(
                "flipped or swapped mask",
                case,
                names,
                f"{found}, and {mirrored:.2f} once it is {way}.",
                f"{_and(names)}: IoU {before:.2f}, {mirrored:.2f} {way}",
                {**numbers, "iou_after": round(mirrored, 3), "transform": way},
            )
            continue
        moved, shift = _moved(masks[rater], target)
        far = float(np.linalg.norm(shift))
        if moved >= max(SHIFTED, before + GAIN) and far > FARTHEST_ALIKE:
            by = " x ".join(f"{s:+d}" for s in shift)
            yield Finding(
                "shifted mask",
                case,
                names,
                f"{found}, and {moved:.2f} once it is moved by {by} pixels (rows x columns"
                f"{' x slices' * (len(shift) > 2)}): shifted, or drawn on another image.",
                f"{_and(names)}: IoU {before:.2f}, {moved:.2f} if moved {by}",
                {**numbers, "iou_after": round(moved, 3), "shift": list(shift)},
            )
        elif among and before <= DISJOINT:
            yield Finding(
                "mask of another image",
                case,
                names,
                f"{found} while the others agree by {np.mean(among):.2f}: another lesion, or another image's mask.",
                f"{_and(names)}: IoU {before:.2f}, the others {np.mean(among):.2f}",
                numbers,
            )


def _mirrored(mask: np.ndarray, target: np.ndarray) -> tuple[float, str]:
    """Best IoU after a flip or swap of axes that keeps the shape, and its name."""
    axes = ("rows", "columns", "slices")[: mask.ndim]
    best = (0.0, "")
    for order in itertools.permutations(range(mask.ndim)):
        turned = mask.transpose(order)
        if turned.shape != mask.shape:
            continue
        for flips in itertools.chain.from_iterable(
            itertools.combinations(range(mask.ndim), k) for k in range(mask.ndim + 1)
        ):
            if order == tuple(range(mask.ndim)) and not flips:
                continue
            value = foreground_iou(np.flip(turned, flips), target)
            if value > best[0] + 1e-9:
                swapped = [axes[a] for a in range(mask.ndim) if order[a] != a]
                words = [f"swapped in {_and(swapped)}"] if swapped else []
                words += [f"flipped along {_and([axes[a] for a in flips])}"] if flips else []
                best = (value, " and ".join(words))
    return best


def _moved(mask: np.ndarray, target: np.ndarray) -> tuple[float, tuple[int, ...]]:
    """Best IoU over all translations of ``mask`` by whole pixels, and that translation."""
    from scipy import fft

    boxes = _box(mask), _box(target)
    a, b = mask[boxes[0]], target[boxes[1]]
    coarse = 1
    while np.prod([-(-n // coarse) - (-m // coarse) for n, m in zip(a.shape, b.shape)]) > _FFT_PIXELS:
        coarse += 1
    step = (slice(None, None, coarse),) * mask.ndim
    a, b = a[step].astype(np.float32), b[step].astype(np.float32)
    # cross-correlation: pixels in common at every translation, the highest where it fits best
    padded = [fft.next_fast_len(n + m - 1, real=True) for n, m in zip(a.shape, b.shape)]
    overlap = fft.irfftn(fft.rfftn(b, padded) * fft.rfftn(np.flip(a), padded), padded)
    peak = np.unravel_index(int(overlap.argmax()), overlap.shape)
    both = float(np.rint(overlap[peak]))
    either = float(a.sum() + b.sum()) - both
    shift = tuple(
        int((p - (n - 1)) * coarse + there.start - here.start)
        for p, n, here, there in zip(peak, a.shape, boxes[0], boxes[1])
    )
    return both / either if either else 0.0, shift


def _box(mask: np.ndarray, margin: int = 0) -> tuple[slice, ...]:
    """The smallest box around a mask; all of an empty one."""
    box = []
    for axis, length in enumerate(mask.shape):
        found = np.flatnonzero(mask.any(axis=tuple(a for a in range(mask.ndim) if a != axis)))
        low, high = (found[0], found[-1] + 1) if len(found) else (0, length)
        box.append(slice(int(max(low - margin, 0)), int(min(high + margin, length))))
    return tuple(box)


def _union(masks: np.ndarray) -> np.ndarray:
    """Where any of (R, *S) is not 0."""
    return np.asarray(masks.any(axis=0))


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
