"""From sampled logits to masks and maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SaveImaged
from scipy.special import expit, softmax
from scipy.stats import entropy

from aleatoric.errors import InputError
from aleatoric.transforms import LogitsToMasksd, SummarizeSamplesd


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("size", [(5, 6), (4, 5, 6)])
def test_against_scipy(classes, size):
    logits = torch.randn(7, classes, *size, generator=torch.Generator().manual_seed(0)) * 3
    out = SummarizeSamplesd("pred", spatial_dims=len(size))({"pred": logits})
    array = logits.double().numpy()
    probability = expit(array) if classes == 1 else softmax(array, axis=1)
    mean = probability.mean(0)
    np.testing.assert_allclose(out["pred_mean"], mean, atol=1e-6)
    np.testing.assert_allclose(out["pred_std"], probability.std(0), atol=1e-6)
    full = np.concatenate([mean, 1 - mean]) if classes == 1 else mean
    np.testing.assert_allclose(out["pred_entropy"], entropy(full, axis=0)[None], atol=1e-5)
    expected = (array[:, 0] > 0) if classes == 1 else array.argmax(1)
    np.testing.assert_array_equal(out["pred_samples"], expected)
    assert out["pred_samples"].dtype == torch.uint8 and out["pred"] is logits
    masks = LogitsToMasksd("pred", spatial_dims=len(size))({"pred": logits})["pred"]
    assert torch.equal(masks, out["pred_samples"]) and masks.shape == (7, *size)


def test_limits():
    sure = torch.full((4, 1, 3, 3), 1000.0)
    out = SummarizeSamplesd()({"pred": sure})
    assert out["pred_mean"].eq(1).all() and out["pred_entropy"].eq(0).all() and out["pred_std"].eq(0).all()
    split = torch.cat([sure, -sure])
    out = SummarizeSamplesd()({"pred": split})
    torch.testing.assert_close(out["pred_entropy"], torch.full((1, 3, 3), math.log(2)))
    torch.testing.assert_close(out["pred_std"], torch.full((1, 3, 3), 0.5))
    single = SummarizeSamplesd()({"pred": torch.randn(1, 2, 3, 3)})
    assert single["pred_std"].eq(0).all()  # one sample: no spread, not NaN
    assert torch.equal(SummarizeSamplesd()({"pred": split.bfloat16()})["pred_mean"], out["pred_mean"])


def test_samples_permute_and_a_batch_is_its_cases():
    logits = torch.randn(3, 8, 2, 6, 6)
    both = SummarizeSamplesd()({"pred": logits})
    masks = LogitsToMasksd()({"pred": logits})["pred"]
    assert masks.shape == (3, 8, 6, 6)
    for number in range(3):
        alone = SummarizeSamplesd()({"pred": logits[number]})
        for key in ("pred_mean", "pred_std", "pred_entropy", "pred_samples"):
            torch.testing.assert_close(both[key][number], alone[key])
        assert torch.equal(masks[number], alone["pred_samples"])
    order = torch.randperm(8)
    permuted = SummarizeSamplesd()({"pred": logits[:, order]})
    torch.testing.assert_close(permuted["pred_mean"], both["pred_mean"])
    torch.testing.assert_close(permuted["pred_std"], both["pred_std"])
    assert torch.equal(permuted["pred_samples"], both["pred_samples"][:, order])


def test_meta_data_stay_through_to_nifti(tmp_path):
    affine = torch.tensor([[0.7, 0, 0, 11.0], [0, 0.8, 0, -5.0], [0, 0, 2.5, 3.0], [0, 0, 0, 1]], dtype=torch.float64)
    meta = {"filename_or_obj": "scan7.nii.gz", "original_channel_dim": 0, "history": []}
    pred = MetaTensor(torch.randn(4, 1, 6, 7, 8), affine=affine, meta=meta)
    out = SummarizeSamplesd("pred", spatial_dims=3)({"pred": pred})
    for key, channels in (("pred_mean", 1), ("pred_std", 1), ("pred_entropy", 1), ("pred_samples", 4)):
        value = out[key]
        assert isinstance(value, MetaTensor) and value.shape == (channels, 6, 7, 8)
        torch.testing.assert_close(value.affine, affine)
        assert value.meta["filename_or_obj"] == "scan7.nii.gz"
    out["pred_mean"].affine = torch.eye(4, dtype=torch.float64)
    out["pred_mean"].meta["history"].append("changed")
    torch.testing.assert_close(pred.affine, affine)
    assert pred.meta["history"] == out["pred_std"].meta["history"] == []  # nobody shares the meta data
    save = SaveImaged("pred_std", output_dir=tmp_path, output_postfix="std", separate_folder=False, print_log=False)
    save(out)
    nibabel = pytest.importorskip("nibabel")
    saved = nibabel.load(tmp_path / "scan7_std.nii.gz")
    np.testing.assert_allclose(saved.affine @ np.diag([1, 1, 1, 1]), affine.numpy(), atol=1e-6)
    assert saved.shape[:3] == (6, 7, 8)
    masks = LogitsToMasksd("pred", spatial_dims=3)({"pred": pred})["pred"]
    assert isinstance(masks, MetaTensor) and torch.equal(masks.affine, affine)


def test_one_case_of_any_dimension():
    for size in ((5, 6), (4, 5, 6)):
        pred = {"pred": torch.randn(3, 2, *size)}
        told, untold = (SummarizeSamplesd(spatial_dims=dims)(pred) for dims in (len(size), None))
        assert all(torch.equal(told[key], untold[key]) for key in told)
        assert LogitsToMasksd(spatial_dims=None)(pred)["pred"].shape == (3, *size)


def test_wrong_number_of_axes():
    with pytest.raises(InputError, match=r"samples of shape \(3, 4, 5\) found"):
        SummarizeSamplesd()({"pred": torch.zeros(3, 4, 5)})
    with pytest.raises(InputError, match="3 spatial dimensions expected"):
        LogitsToMasksd(spatial_dims=3)({"pred": torch.zeros(3, 1, 4, 5)})
