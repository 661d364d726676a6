"""``run`` of inference: NIfTI and DICOM in, mean, deviation, entropy and samples out, in the input's grid."""

from __future__ import annotations

import nibabel
import numpy as np
import torch
from bundle_runs import SMALL_NETWORK, execute, workflow

from data.raw_dicom import write_slice

OUTPUTS = ("mean", "std", "entropy", "samples")
SIZE = (40, 36, 6)
# columns run to the left and down, slices to the front, tilted by a few degrees: nothing is where a default would be
ODD = np.array([[0.0, -0.7, 0.1, 40.0], [-0.06, 0.0, 2.5, -60.0], [0.8, 0.05, 0.2, 100.0], [0.0, 0.0, 0.0, 1.0]])


def volume(shape=SIZE, seed=0) -> np.ndarray:
    """HU with a bright ball off the centre, unlike any flip or permutation of itself."""
    random = np.random.default_rng(seed)
    index = np.indices(shape).reshape(len(shape), -1).T
    center = np.array([n * f for n, f in zip(shape, (0.3, 0.6, 0.4))])
    ball = (np.linalg.norm((index - center) / np.array(shape), axis=1) < 0.2).reshape(shape)
    return np.where(ball, 50, -750).astype(np.int16) + random.integers(-60, 60, shape).astype(np.int16)


def infer(bundle, images, output_dir, **override):
    settings = {"num_samples": 3, **SMALL_NETWORK, "dataset_dir": str(images), **override}
    execute(bundle, "inference", kind="infer", output_dir=str(output_dir), **settings)
    return {path.name: nibabel.load(path) for path in sorted(output_dir.glob("*.nii.gz"))}


def arrays(images):
    return {name: np.asarray(image.dataobj) for name, image in images.items()}


def check(results, name, shape, affine, samples=3):
    assert set(results) == {f"{name}_{kind}.nii.gz" for kind in OUTPUTS}
    mean, std, entropy, masks = (results[f"{name}_{kind}.nii.gz"] for kind in OUTPUTS)
    for image in (mean, std, entropy):
        assert image.shape == shape and image.get_data_dtype() == np.float32
    assert masks.shape == (*shape, *[1] * (3 - len(shape)), samples) and masks.get_data_dtype() == np.uint8
    for image in (mean, std, entropy, masks):
        np.testing.assert_allclose(image.affine, affine, atol=1e-4)
    mean, std, entropy, masks = (np.asarray(image.dataobj) for image in (mean, std, entropy, masks))
    assert mean.min() >= 0 and mean.max() <= 1 and np.isin(masks, (0, 1)).all()
    masks = masks.reshape(*shape, samples)
    p = np.clip(mean.astype(float), 1e-12, 1 - 1e-12)
    np.testing.assert_allclose(entropy, -p * np.log(p) - (1 - p) * np.log1p(-p), atol=1e-4)
    assert (std <= np.sqrt(mean * (1 - mean)) + 1e-4).all()  # no figures in [0, 1] spread more
    # a pixel that is foreground in n of N samples has a mean of at least n / 2N and at most (n + N) / 2N
    share = masks.mean(-1)
    assert (mean >= share / 2 - 1e-5).all() and (mean <= (1 + share) / 2 + 1e-5).all()
    return masks


def test_a_2d_image(flat_trained, tmp_path, shape=(33, 47)):
    affine = np.diag([0.7, 0.6, 1.0, 1.0])
    affine[:3, 3] = 5, -7, 0
    nibabel.save(nibabel.Nifti1Image(volume((*shape, 1))[..., 0], affine), tmp_path / "slice.nii.gz")
    check(infer(flat_trained, tmp_path / "slice.nii.gz", tmp_path / "out"), "slice", shape, affine)


def test_a_volume_with_an_odd_affine(flat_trained, tmp_path):
    data = volume()
    folder = tmp_path / "in"
    folder.mkdir()
    nibabel.save(nibabel.Nifti1Image(data, ODD), folder / "a.b.nii")
    nibabel.save(nibabel.Nifti1Image(data[::-1].copy(), np.eye(4)), folder / "other.nii.gz")
    results = infer(flat_trained, folder, tmp_path / "out")
    assert len(results) == 8
    check({k: v for k, v in results.items() if k.startswith("a_b")}, "a_b", SIZE, ODD)
    check({k: v for k, v in results.items() if k.startswith("other")}, "other", SIZE, np.eye(4))


def test_the_answer_is_the_networks(one_trained, tmp_path):
    """A slice of the size of a window, stored as the network saw its patches: rows to the back, columns to the left."""
    affine = np.array([[0, -0.7, 0, 9], [-0.7, 0, 0, 8], [0, 0, 1.5, 7], [0, 0, 0, 1.0]])
    data = volume((128, 128, 2))
    nibabel.save(nibabel.Nifti1Image(data, affine), tmp_path / "x.nii.gz")
    results = arrays(infer(one_trained, tmp_path / "x.nii.gz", tmp_path / "out", seed=4))
    run = workflow(one_trained, "inference", kind="infer", **SMALL_NETWORK)
    run.initialize()
    network = run.parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load("models/model.pt", weights_only=True))
    slices = ((torch.from_numpy(data).float() + 1000) / 1400).clamp(0, 1).permute(2, 0, 1).unsqueeze(1)
    with torch.no_grad():
        # one z for the whole volume, given the features of the whole of it
        features = network.prior.features(slices).mean(0).expand(1, 3, -1)
        torch.manual_seed(4)
        z = network.prior.density.draw(features)
        for k in range(2):
            logits = network.decode(network.backbone(slices[k : k + 1]), z)[0, :, 0]  # (N, 128, 128)
            deviation = logits.sigmoid().std(0, correction=0)
            np.testing.assert_allclose(results["x_mean.nii.gz"][..., k], logits.sigmoid().mean(0), atol=1e-4)
            np.testing.assert_allclose(results["x_std.nii.gz"][..., k], deviation, atol=1e-4)
            np.testing.assert_array_equal(results["x_samples.nii.gz"][..., k, :], (logits > 0).permute(1, 2, 0))


def test_orientation_of_the_file_does_not_matter(one_trained, tmp_path):
    """One patient stored in two ways: the same answer at each place of the patient."""
    data = volume()
    nibabel.save(nibabel.Nifti1Image(data, ODD), tmp_path / "one.nii.gz")
    turned = nibabel.load(tmp_path / "one.nii.gz").as_reoriented([[2, -1], [0, 1], [1, -1]])
    nibabel.save(turned, tmp_path / "other.nii.gz")
    results = infer(one_trained, tmp_path, tmp_path / "out")
    for kind in OUTPUTS:
        one, other = results[f"one_{kind}.nii.gz"], results[f"other_{kind}.nii.gz"]
        back = nibabel.as_closest_canonical(other).get_fdata()
        np.testing.assert_allclose(back, nibabel.as_closest_canonical(one).get_fdata(), atol=1e-5)


def write_series(folder, hu, series_uid="1.2.3.4"):
    """(rows, columns, slices) as one series, slices along a tilted normal; returns the affine index -> RAS."""
    right, down = np.array([0.0, 1.0, 0.0]), np.array([0.1, 0.0, -np.sqrt(0.99)])
    normal, first, spacing = np.cross(right, down), np.array([-10.0, 20.0, 300.0]), (0.8, 0.6)
    for k in range(hu.shape[2]):
        position = first + 2.0 * k * normal
        write_slice(
            folder / f"{(k * 5) % 7}.dcm",
            hu[..., k],
            series_uid=series_uid,
            patient_id="LIDC-7",
            position=position,
            spacing=spacing,
            orientation=(*right, *down),
        )
    affine = np.eye(4)
    affine[:3] = np.stack([down * spacing[0], right * spacing[1], normal * 2.0, first], axis=1)
    return np.diag([-1, -1, 1, 1]) @ affine


def test_a_dicom_series(one_trained, tmp_path):
    affine = write_series(tmp_path / "series", volume())
    check(infer(one_trained, tmp_path / "series", tmp_path / "out"), "LIDC-7_2_3_4", SIZE, affine)


def test_two_series_of_one_patient_do_not_replace_each_other(one_trained, tmp_path):
    for number in (1, 2):
        write_series(tmp_path / "in" / str(number), volume((16, 16, 2), seed=number), series_uid=f"1.2.3456{number}")
    results = infer(one_trained, tmp_path / "in", tmp_path / "out", num_samples=1)
    assert {name.removesuffix("_mean.nii.gz") for name in results if "mean" in name} == {"LIDC-7_34561", "LIDC-7_34562"}


def test_dicom_and_nifti_of_one_patient_agree(one_trained, tmp_path):
    affine = write_series(tmp_path / "series", volume())
    nibabel.save(nibabel.Nifti1Image(volume(), affine), tmp_path / "file.nii.gz")
    dicom = arrays(infer(one_trained, tmp_path / "series", tmp_path / "a"))
    nifti = arrays(infer(one_trained, tmp_path / "file.nii.gz", tmp_path / "b"))
    for kind in OUTPUTS:
        np.testing.assert_allclose(dicom[f"LIDC-7_2_3_4_{kind}.nii.gz"], nifti[f"file_{kind}.nii.gz"], atol=1e-5)


def test_samples_of_one_seed_are_equal(one_trained, tmp_path):
    nibabel.save(nibabel.Nifti1Image(volume(), ODD), tmp_path / "x.nii.gz")
    runs = [
        arrays(infer(one_trained, tmp_path / "x.nii.gz", tmp_path / str(number), seed=seed))
        for number, seed in enumerate((0, 0, 1))
    ]
    for name in runs[0]:
        np.testing.assert_array_equal(runs[0][name], runs[1][name])
    assert any((runs[0][name] != runs[2][name]).any() for name in runs[0])


def test_center_crops_around_a_point_of_the_patient(one_trained, tmp_path):
    index = np.array([12, 22, 2])
    nibabel.save(nibabel.Nifti1Image(volume(), ODD), tmp_path / "x.nii.gz")
    ras = (ODD @ [*index, 1])[:3]
    lps = [float(v) for v in ras * [-1, -1, 1]]
    results = infer(one_trained, tmp_path / "x.nii.gz", tmp_path / "out", center=lps, roi_size=[16, 16, 3])
    mean = np.asarray(results["x_mean.nii.gz"].dataobj)
    assert mean.shape == SIZE
    np.testing.assert_allclose(results["x_mean.nii.gz"].affine, ODD, atol=1e-4)
    inside = np.argwhere(mean > 0)  # a probability is never 0 where the network looked
    low, high = inside.min(0), inside.max(0)
    # 3 slices of 16 x 16 of the patient's axial plane; the file's last axis has no 16 voxels
    assert (high - low + 1).tolist() == [3, 16, 6] and len(inside) == 3 * 16 * 6
    assert (np.abs((low + high) / 2 - index)[:2] <= 1).all()
