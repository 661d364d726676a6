"""BraTS case folders and 4D files at inference: the network gets what the loaders gave it, bit for bit."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import DataLoader, Dataset, decollate_batch
from monai.transforms import Compose, EnsureChannelFirstd, Invertd, Orientationd, SaveImaged

from aleatoric.data import DeviceLoader, intensity_rule, intensity_transform, load_dataset
from aleatoric.data.brats.command import prepare_brats
from aleatoric.data.brats.transforms import NormalizeBratsd
from aleatoric.data.brats.tree import SEQUENCES, find_brats_cases
from aleatoric.data.images import LoadScand, output_name
from aleatoric.errors import InputError, input_error_in
from aleatoric.transforms import CheckImaged
from simulated import brats as simulated

SIZE = (20, 24, 16)


def chain(*behind):
    return Compose(
        [
            LoadScand("image"),
            EnsureChannelFirstd("image"),
            CheckImaged("image", channels=4),
            Orientationd("image", axcodes="PLS", labels=None),
            NormalizeBratsd("image"),
            *behind,
        ]
    )


@pytest.mark.parametrize("axes", ["LPS", "RAS", "ASL"])
@pytest.mark.parametrize("release", ["2017", "2023"])
def test_the_network_gets_what_the_loader_gives(tmp_path, axes, release):
    root = simulated.write(tmp_path / "tree", 3, size=SIZE, axes=axes, release=release)
    dataset = load_dataset(
        prepare_brats(root, tmp_path / "set", workers=1, test_fraction=0, enhancing=3 if release == "2023" else 4)
    )
    expected = torch.cat([batch["image"] for batch in DeviceLoader(dataset, "training", 1, fold=6)])
    found = find_brats_cases(root)
    assert [len(paths) for paths in found] == [4] * 3
    for paths, image, row in zip(found, expected, dataset.cases):
        read = chain()({"image": paths})["image"]
        assert torch.equal(read.as_tensor(), image)
        assert ((read == 0).all(dim=0) | (read > 0).all(dim=0)).all()
        assert output_name(read.meta, None)["subject"] == row["case"].replace(".", "_")


def test_one_file_of_four_channels(tmp_path):
    root = simulated.write(tmp_path / "tree", 1, size=SIZE)
    (paths,) = find_brats_cases(root)
    images = [nib.load(path) for path in paths]
    stack = np.stack([np.asarray(image.dataobj) for image in images], axis=-1)
    (tmp_path / "whole").mkdir()
    nib.save(nib.Nifti1Image(stack, images[0].affine), tmp_path / "whole" / "mine.nii.gz")
    for place in (tmp_path / "whole", tmp_path / "whole" / "mine.nii.gz"):
        ((whole,),) = (found := find_brats_cases(place))
        assert whole.endswith("mine.nii.gz")
        read = chain()({"image": found[0]})["image"]
        assert torch.equal(read.as_tensor(), chain()({"image": paths})["image"].as_tensor())
        assert output_name(read.meta, None)["subject"] == "mine"


def test_results_are_saved_on_the_files_grid_under_the_cases_name(tmp_path):
    root = simulated.write(tmp_path / "tree", 2, size=SIZE, axes="RAS")
    before = chain()
    data = Dataset([{"image": paths} for paths in find_brats_cases(root)], before)
    after = Compose(
        [
            Invertd("pred", before, orig_keys="image", nearest_interp=True, to_tensor=True),
            SaveImaged("pred", output_dir=tmp_path, output_postfix="mean", output_name_formatter=output_name,
                       separate_folder=False, resample=False, print_log=False),
        ]
    )  # fmt: skip
    for batch in DataLoader(data, batch_size=1):
        batch["pred"] = (batch["image"][:, :1] > 0).float()
        for item in decollate_batch(batch):
            after(item)
    for path in (tmp_path / "Brats17_2013_102_1_mean.nii.gz", tmp_path / "Brats17_TCIA_101_1_mean.nii.gz"):
        name = path.name.removesuffix("_mean.nii.gz")
        (raw,) = root.glob(f"*/{name}/{name}_t2.nii.gz")
        saved, source = nib.load(path), nib.load(raw)
        np.testing.assert_allclose(saved.affine, source.affine)
        np.testing.assert_array_equal(np.asarray(saved.dataobj) > 0, np.asarray(source.dataobj) > 0)


def test_a_damaged_channel_is_named(tmp_path):
    root = simulated.write(tmp_path / "tree", 1, size=SIZE, truncated=["1/t1ce"])
    with pytest.raises(RuntimeError) as caught:
        chain()({"image": find_brats_cases(root)[0]})
    sentence = str(input_error_in(caught.value))
    assert "_t1ce.nii.gz cannot be read" in sentence and "_t2" not in sentence and "\n" not in sentence


@pytest.mark.parametrize(
    ("irregular", "sentence"),
    [({"absent": ["1/t2"]}, "has no Brats17_TCIA_101_1_t2.nii.gz, flair, t1, t1ce, t2 expected")],
)
def test_an_incomplete_case(tmp_path, irregular, sentence):
    root = simulated.write(tmp_path / "tree", 1, size=(8, 8, 8), **irregular)
    with pytest.raises(InputError, match=sentence):
        find_brats_cases(root)


def test_a_case_needs_no_segmentation(tmp_path):
    root = simulated.write(tmp_path / "tree", 1, size=(8, 8, 8), absent=["1/seg"])
    assert [Path(path).name.split("_")[-1] for path in find_brats_cases(root)[0]] == [f"{k}.nii.gz" for k in SEQUENCES]


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="there is no NIfTI file or folder"):
        find_brats_cases(tmp_path / "absent")
    with pytest.raises(InputError, match="holds no case"):
        find_brats_cases(tmp_path)


def test_other_channels_are_refused():
    with pytest.raises(InputError, match="image has 3 channels, 4 expected"):
        NormalizeBratsd("image")({"image": torch.rand(3, 4, 4, 4)})
    with pytest.raises(InputError, match="channel flair of image has NaN"):
        NormalizeBratsd("image")({"image": torch.full((4, 4, 4, 4), float("nan"))})


def test_the_model_keeps_the_rule(tmp_path):
    root = simulated.write(tmp_path / "tree", 2, size=(8, 8, 8))
    dataset = load_dataset(prepare_brats(root, tmp_path / "set", workers=1))
    rule = intensity_rule(dataset.info)
    assert rule == intensity_rule(NormalizeBratsd("image")) == {"brats": [-10000.0, 10000.0]}
    assert isinstance(intensity_transform(tmp_path / "set", "image"), NormalizeBratsd)
