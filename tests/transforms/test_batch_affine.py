"""Batched affine augmentation: equal to MONAI's Affine for the same parameters, and true to its own laws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.transforms import Affine, Compose, RandAffine

from aleatoric.errors import InputError
from aleatoric.transforms import AffineParameters, BatchAffined, BatchRandAffined, affine_matrices, batch_affine

PROTOCOL = {
    "rotate_range": math.pi,
    "shear_range": (math.tan(math.radians(30)),) * 2,
    "translate_range": (3.2, 3.2),
    "scale_range": (0.2, 0.2),
}


def parameters(count, dims=2, seed=0):
    random = np.random.default_rng(seed)

    def draw(low, high, width):
        return torch.from_numpy(random.uniform(low, high, (count, width)).astype(np.float32))

    three = dims == 3
    return AffineParameters(
        draw(-math.pi, math.pi, 3 if three else 1),
        draw(-0.577, 0.577, 6 if three else 2),
        draw(-4, 4, dims),
        draw(0.8, 1.2, dims),
    )


def identity(count, dims=2):
    three = dims == 3
    zeros = [torch.zeros(count, n) for n in (3 if three else 1, 6 if three else 2, dims)]
    return AffineParameters(*zeros, torch.ones(count, dims))


def monai_affine(image, params, mode, padding_mode):
    """The independent twin: MONAI's transform, image by image."""
    out = []
    for number in range(len(image)):
        rotate, shear, translate, scale = (p[number].tolist() for p in params)
        affine = Affine(rotate, shear, translate, scale, mode=mode, padding_mode=padding_mode, image_only=True)
        out.append(affine(image[number].float()).as_tensor())
    return torch.stack(out)


def blobs(count, channels, size, seed=0):
    """Smooth random images in [0, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, channels, *[max(2, s // 8) for s in size]), generator=generator)
    mode = "bilinear" if len(size) == 2 else "trilinear"
    return torch.nn.functional.interpolate(coarse, size=size, mode=mode, align_corners=True)


@pytest.mark.parametrize("size", [(32, 32), (31, 40), (12, 16, 10)])
@pytest.mark.parametrize("padding_mode", ["zeros", "border", "reflection"])
def test_equal_to_monai(size, padding_mode):
    params = parameters(24, len(size))
    image = torch.rand((24, 2, *size), generator=torch.Generator().manual_seed(0))
    image[..., 0, 0] = 5.0  # corners that a wrong pixel-centre convention would move
    expected = monai_affine(image, params, "bilinear", padding_mode)
    torch.testing.assert_close(batch_affine(image, params, "bilinear", padding_mode), expected, atol=2e-4, rtol=0)
    label = torch.randint(0, 5, (24, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = batch_affine(label, params, "nearest", padding_mode)
    assert found.dtype == torch.uint8
    # A coordinate within rounding of the middle between two pixels may go either way.
    assert (found != monai_affine(label, params, "nearest", padding_mode)).float().mean() < 2e-4


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("dims", [2, 3])
def test_equal_to_monai_one_parameter_at_a_time(which, dims):
    size = (10, 12, 14)[:dims]
    fields = list(identity(6, dims))
    fields[which] = parameters(6, dims)[which]
    params = AffineParameters(*fields)
    image = torch.rand((6, 1, *size), generator=torch.Generator().manual_seed(0))
    expected = monai_affine(image, params, "bilinear", "zeros")
    torch.testing.assert_close(batch_affine(image, params, "bilinear", "zeros"), expected, atol=2e-5, rtol=0)


def test_random_transform_covers_monai_ranges():
    """Same ranges, same distribution of parameters: compare extremes and means of both over many draws."""
    ranges = {
        "rotate_range": ((0.1, 0.5),),
        "shear_range": (0.3, (0.0, 0.2)),
        "translate_range": 4.0,
        "scale_range": ((-0.2, 0.1), 0.3),
    }
    ours = BatchRandAffined(**ranges).set_random_state(0)
    values = ours.randomize(4000, 2)[1]
    theirs = RandAffine(prob=1.0, **ranges).set_random_state(0)
    drawn = []
    for _ in range(2000):
        theirs.randomize()
        grid = theirs.rand_affine_grid
        drawn.append([*grid.rotate_params, *grid.shear_params, *grid.translate_params, 0.0, *grid.scale_params])
    drawn = np.array(drawn)
    span = np.ptp(drawn, axis=0)
    for statistic in (np.min, np.max, np.mean):
        assert (abs(statistic(values, axis=0) - statistic(drawn, axis=0)) <= 0.03 * span + 1e-7).all()
    assert np.allclose(np.corrcoef(np.delete(values, 4, axis=1).T), np.eye(6), atol=0.06)  # drawn independently


def test_identity_is_identity():
    image = torch.rand(3, 2, 17, 24)
    label = torch.randint(0, 200, (3, 4, 17, 24), dtype=torch.uint8)
    torch.testing.assert_close(batch_affine(image, identity(3)), image, atol=1e-5, rtol=0)
    assert torch.equal(batch_affine(label, identity(3), "nearest"), label)
    batch = {"image": image, "label": label, "rater_valid": torch.ones(3, 4, dtype=torch.bool)}
    out = BatchRandAffined(prob=0.0, **PROTOCOL).set_random_state(0)(batch)
    assert all(torch.equal(out[key], batch[key]) for key in batch)


def test_quarter_turn_is_rot90_and_four_close():
    image = torch.rand(1, 1, 16, 16)
    quarter = identity(1)._replace(rotate=torch.tensor([[math.pi / 2]]))
    once = batch_affine(image, quarter)
    torch.testing.assert_close(once, torch.rot90(image, -1, (2, 3)), atol=1e-4, rtol=0)
    label = (image > 0.5).to(torch.uint8)
    turned = label
    for _ in range(4):
        turned = batch_affine(turned, quarter, "nearest")
    assert torch.equal(turned, label)
    full = identity(1)._replace(rotate=torch.tensor([[2 * math.pi]]))
    torch.testing.assert_close(batch_affine(image, full), image, atol=1e-4, rtol=0)
    assert torch.equal(batch_affine(label, full, "nearest"), label)


def test_whole_pixels_shift_and_there_and_back():
    image = torch.rand(1, 1, 12, 12)
    shift = identity(1)._replace(translate=torch.tensor([[2.0, -3.0]]))
    out = batch_affine(image, shift, padding_mode="zeros")
    torch.testing.assert_close(out[..., :-2, 3:], image[..., 2:, :-3], atol=1e-5, rtol=0)
    assert out[..., -2:, :].abs().max() < 1e-5 and out[..., :3].abs().max() < 1e-5
    params = parameters(5)
    inverse = torch.linalg.inv(affine_matrices(params))
    product = affine_matrices(params) @ inverse
    torch.testing.assert_close(product, torch.eye(3).expand(5, 3, 3), atol=1e-4, rtol=0)


def test_labels_follow_the_image():
    """Thresholding the moved image gives the moved label, but for a rim one pixel wide."""
    image = blobs(8, 1, (64, 64))
    label = (image > 0.5).to(torch.uint8).expand(-1, 4, -1, -1).contiguous()
    out = BatchRandAffined(**PROTOCOL).set_random_state(3)({"image": image, "label": label})

    def disagreement(mask):
        return ((out["image"] > 0.5) != mask.bool()).float().mean()

    assert disagreement(out["label"]) < 0.04 < 0.2 < disagreement(label)


def test_labels_keep_their_values_and_types():
    values = torch.tensor([0, 3, 17, 255], dtype=torch.uint8)
    label = values[torch.randint(0, 4, (6, 3, 20, 20))]
    for dtype in (torch.uint8, torch.int64, torch.float32):
        out = BatchRandAffined(**PROTOCOL).set_random_state(0)(
            {"image": blobs(6, 1, (20, 20)), "label": label.to(dtype)}
        )
        assert out["label"].dtype == dtype and set(out["label"].unique().tolist()) <= {0, 3, 17, 255}
    valid = BatchAffined("mask", mode="nearest")({"mask": label > 0}, parameters(6))["mask"]
    assert valid.dtype == torch.bool


def test_raters_and_images_are_moved_each_on_its_own():
    image, label = blobs(5, 1, (24, 24)), torch.randint(0, 2, (5, 4, 24, 24), dtype=torch.uint8)
    params = parameters(5)
    raters, order = torch.tensor([2, 0, 3, 1]), torch.tensor([4, 2, 0, 1, 3])
    twin = BatchAffined()
    out = twin({"image": image, "label": label}, params)
    permuted = twin({"image": image, "label": label[:, raters]}, params)
    assert torch.equal(permuted["label"], out["label"][:, raters])
    shuffled = AffineParameters(*(p[order] for p in params))
    permuted = twin({"image": image[order], "label": label[order]}, shuffled)
    torch.testing.assert_close(permuted["image"], out["image"][order])
    assert torch.equal(permuted["label"], out["label"][order])


def test_some_images_are_left_alone_bit_for_bit():
    image = torch.rand(64, 1, 8, 8)
    label = torch.randint(0, 2, (64, 2, 8, 8), dtype=torch.uint8)
    transform = BatchRandAffined(prob=0.5, **{**PROTOCOL, "translate_range": 0.5}).set_random_state(0)
    out = transform({"image": image, "label": label})
    untouched = torch.tensor([torch.equal(a, b) for a, b in zip(out["image"], image)])
    assert 16 < untouched.sum() < 48
    assert torch.equal(out["label"][untouched], label[untouched])
    always = BatchRandAffined(prob=1.0, **{**PROTOCOL, "translate_range": 0.5}).set_random_state(0)
    moved = always({"image": image, "label": label})
    torch.testing.assert_close(out["image"][~untouched], moved["image"][~untouched])  # the same draws


def test_seeds():
    batch = {"image": torch.rand(4, 1, 16, 16), "label": torch.zeros(4, 2, 16, 16, dtype=torch.uint8)}
    before = batch["image"].clone()

    def run(seed):
        transform = Compose([BatchRandAffined(**PROTOCOL)]).set_random_state(seed)
        return [transform(batch)["image"] for _ in range(2)]

    one, other, third = run(1), run(1), run(2)
    assert all(torch.equal(a, b) for a, b in zip(one, other))
    assert not torch.equal(one[0], one[1]) and not torch.equal(one[0], third[0])
    assert torch.equal(batch["image"], before)  # the input is left as it was


def test_half_precision_images_keep_their_type():
    image = blobs(2, 1, (16, 16))
    out = batch_affine(image.bfloat16(), parameters(2))
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), batch_affine(image, parameters(2)), atol=0.02, rtol=0)


def test_bad_arguments():
    batch = {"image": torch.rand(2, 1, 8, 8), "label": torch.zeros(2, 4, 8, 9, dtype=torch.uint8)}
    with pytest.raises(InputError, match=r"label with batch and size \(2, 8, 9\) found, \(2, 8, 8\)"):
        BatchRandAffined(rotate_range=1.0)(batch)
    with pytest.raises(InputError, match="2 entries found in rotate_range, at most 1"):
        BatchRandAffined("image", rotate_range=(1.0, 1.0), mode="bilinear")(batch)
    with pytest.raises(InputError, match="scale_range=.* a number or"):
        BatchRandAffined("image", scale_range=((0.1, 0.2, 0.3),), mode="bilinear")
    with pytest.raises(InputError, match="1 spatial dimensions found"):
        BatchRandAffined("image", mode="bilinear")({"image": torch.rand(2, 1, 8)})
    with pytest.raises(InputError, match="3D parameters found for 2D images"):
        batch_affine(batch["image"], identity(2, 3))
    with pytest.raises(KeyError):
        BatchRandAffined(("image", "mask"))({"image": batch["image"]})
    BatchRandAffined(("image", "mask"), allow_missing_keys=True)({"image": batch["image"]})
