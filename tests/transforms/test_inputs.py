"""What an image must be before the network sees it, and the box around a point of the patient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from aleatoric.errors import InputError
from aleatoric.transforms import CheckImaged, CropAroundPointd

# index -> RAS: axes permuted, flipped and of different size
AFFINE = torch.tensor(
    [[0.0, 0.0, -2.0, 30.0], [0.5, 0.0, 0.0, -20.0], [0.0, -1.0, 0.0, 50.0], [0.0, 0.0, 0.0, 1.0]], dtype=torch.float64
)
SHAPE = (20, 30, 10)


def image(shape=SHAPE, affine=AFFINE, channels=2):
    values = torch.arange(channels * int(np.prod(shape)), dtype=torch.float32).reshape(channels, *shape)
    return MetaTensor(values, affine=affine)


def ras(index):
    return (AFFINE @ torch.tensor([*index, 1.0], dtype=torch.float64))[:3].tolist()


@pytest.mark.parametrize("index", [(10, 15, 5), (0, 0, 0), (19, 29, 9), (3, 28, 1)])
@pytest.mark.parametrize("space", ["LPS", "RAS"])
def test_the_box_holds_the_point(index, space):
    x, y, z = ras(index)
    center = (x, y, z) if space == "RAS" else (-x, -y, z)
    data = image()
    crop = CropAroundPointd("image", center, (6, 7, 4), space=space)
    box = crop({"image": data})["image"]
    assert box.shape == (2, 6, 7, 4)
    # the affine of the box says where it lies: the point is in it, and its voxel is the image's
    local = (
        (torch.linalg.inv(box.affine) @ torch.tensor([x, y, z, 1.0], dtype=torch.float64))[:3].round().int().tolist()
    )
    assert all(0 <= i < n for i, n in zip(local, box.shape[1:]))
    assert torch.equal(box.as_tensor()[(slice(None), *local)], data.as_tensor()[(slice(None), *index)])
    if index == (10, 15, 5):  # away from the border the point is the middle
        assert local == [3, 3, 2]


def test_the_inverse_pads_back():
    data = image() + 1
    crop = CropAroundPointd("image", ras((3, 28, 1)), (6, 7, 4), space="RAS")
    box = crop({"image": data})
    back = crop.inverse(box)["image"]
    assert back.shape == data.shape
    torch.testing.assert_close(back.affine, data.affine)
    inside = back.as_tensor() != 0
    assert inside.sum() == 2 * 6 * 7 * 4
    assert torch.equal(back.as_tensor()[inside], data.as_tensor()[inside])


def test_a_box_larger_than_the_image_is_the_image():
    crop = CropAroundPointd("image", ras((10, 15, 5)), (6, 700, 400), space="RAS")
    assert crop({"image": image()})["image"].shape == (2, 6, 30, 10)


def test_an_image_of_two_dimensions():
    affine = torch.diag(torch.tensor([0.5, 0.5, 1.0, 1.0], dtype=torch.float64))
    for center, size in (((-5.0, -4.0), (4, 4)), ((-5.0, -4.0, 0.0), (4, 4, 16))):  # LPS
        box = CropAroundPointd("image", center, size)({"image": image((20, 30), affine)})["image"]
        assert box.shape == (2, 4, 4)
        assert torch.equal(box.as_tensor(), image((20, 30), affine).as_tensor()[:, 8:12, 6:10])


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("outside", [-0.6, 0.6])
def test_a_point_outside_is_refused(axis, outside):
    index = [10.0, 15.0, 5.0]
    index[axis] = outside if outside < 0 else SHAPE[axis] - 1 + outside
    with pytest.raises(InputError, match=r"\(RAS, mm\) is voxel .* of an image of \(20, 30, 10\) voxels"):
        CropAroundPointd("image", ras(index), (4, 4, 4), space="RAS")({"image": image()})
    index[axis] += 0.2 if outside < 0 else -0.2  # half a voxel about its centre belongs to it
    CropAroundPointd("image", ras(index), (4, 4, 4), space="RAS")({"image": image()})


def test_bad_arguments_of_the_box():
    with pytest.raises(InputError, match="give 'LPS'"):
        CropAroundPointd("image", (0, 0, 0), (4, 4, 4), space="lps")
    with pytest.raises(InputError, match="no affine"):
        CropAroundPointd("image", (0, 0, 0), (4, 4, 4))({"image": torch.zeros(1, 5, 5, 5)})
    with pytest.raises(InputError, match="center has 2 coordinates .* 3 of each are expected"):
        CropAroundPointd("image", (0, 0), (4, 4, 4))({"image": image()})
    with pytest.raises(InputError, match="roi_size 2 numbers"):
        CropAroundPointd("image", (0, 0, 0), (4, 4))({"image": image()})


def test_check_passes_what_is_well():
    data = {"image": image(channels=1), "other": "left alone"}
    result = CheckImaged("image", channels=1)(data)
    assert result["image"] is data["image"] and result["other"] == "left alone"
    assert CheckImaged("absent", allow_missing_keys=True)(data) == data


def test_check_refuses_channels_and_values():
    with pytest.raises(InputError, match="image has 2 channels, the network expects 1"):
        CheckImaged("image", channels=1)({"image": torch.zeros(2, 4, 4)})
    for bad in (float("nan"), float("inf")):
        data = image(channels=1).clone()
        data.meta["filename_or_obj"] = "scan.nii"
        data[0, 1, 2, 3] = bad
        with pytest.raises(InputError, match="scan.nii has 1 values that are NaN or infinite"):
            CheckImaged("image")({"image": data})
    CheckImaged("image")({"image": np.zeros((1, 4, 4), np.int16)})
