"""Cases of several evaluations in one table, and what is drawn of them: geometry and colours against slow twins."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from evaluation_folders import write_evaluation
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import colormaps
from matplotlib.path import Path as Polygon
from PIL import Image

from aleatoric.errors import InputError
from aleatoric.report import read_evaluations, tiles
from aleatoric.report.cards import card_strips
from aleatoric.report.cases import browse, case_table, choose


def decoded(source: str) -> Image.Image:
    assert source.startswith("data:image/png;base64,")
    return Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))


def rewritten(folder, **changes):
    """cases.npz with some arrays replaced."""
    with np.load(folder / "cases.npz") as file:
        arrays = {name: file[name] for name in file}
    np.savez(folder / "cases.npz", **{**arrays, **changes})


# --- tiles ------------------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1))
def test_an_outline_encloses_the_pixels_of_its_class(seed):
    random = np.random.default_rng(seed)
    mask = (random.random((9, 7)) < 0.5) * random.integers(1, 3, (9, 7))
    corner = (11, 23)
    y, x = np.mgrid[:9, :7]
    centres = np.stack([x.ravel() + corner[0] + 0.5, y.ravel() + corner[1] + 0.5], axis=1)
    lines = tiles.outlines(mask, corner, "#123456", 1.0)
    values = [value for value in (1, 2) if (mask == value).any()]
    assert len(lines) == len(values)
    for value, line in zip(values, lines):
        inside = np.zeros(63, int)
        for part in line.path.split("M")[1:]:
            points = [tuple(map(float, point.split(","))) for point in part.removesuffix("Z").split(" ")]
            inside += Polygon([*points, points[0]], closed=True).contains_points(centres)
        np.testing.assert_array_equal((inside % 2).reshape(9, 7), mask == value)  # even-odd: holes are not filled


def test_an_outline_has_no_point_on_a_straight_line():
    mask = np.zeros((40, 40), np.uint8)
    mask[5:30, 8:35] = 1
    (line,) = tiles.outlines(mask, (0, 0), "#000", 1.0)
    assert line.path.count(",") == 8  # a rectangle whose corners are cut


def test_maps_have_the_colours_of_their_values():
    masks = np.random.default_rng(0).integers(0, 3, (10, 6, 5))
    share = (masks > 0).mean(0)
    for name, values, top in (("mean", share, 1.0), ("deviation", share * 0 + (masks > 0).std(0), 0.5)):
        shown = np.asarray(decoded(tiles.map_tile(masks, name, "samples").map).convert("RGB"))
        expected = colormaps[{"mean": "viridis", "deviation": "magma"}[name]](values / top)[..., :3] * 255
        assert np.abs(shown - expected).max() < 3  # 256 steps
    assert len(tiles.gradient("mean")) == 9 and tiles.gradient("mean")[0] == "#440154"


def test_who_drew_nothing_and_who_is_missing_stands_in_words():
    labels = np.zeros((3, 8, 8), np.uint8)
    labels[0, 2:5, 2:5] = 1
    tile = tiles.raters_tile(labels, np.array([True, True, False]), tiles.Window(0, 0, 8, 8), 1)
    assert tile.words == ("nothing: 2", "missing: 3") and len(tile.outlines) == 1
    assert tiles.mask_tile(labels[1], tiles.Window(0, 0, 8, 8), "sample 1", "#fff").words == ("nothing",)
    assert tiles.samples_tile(labels, tiles.Window(0, 0, 8, 8)).words == ("2 of 3 empty",)


def test_raters_differ_in_dash_where_there_is_one_class():
    labels = np.zeros((4, 9, 9), np.uint8)
    labels[:, 2:6, 2:6] = 1
    valid = np.ones(4, bool)
    one = tiles.raters_tile(labels, valid, tiles.Window(0, 0, 9, 9), 1)
    assert len({line.dash for line in one.outlines}) == len({line.color for line in one.outlines}) == 4
    labels[:, 3, 3] = 2  # the dash then tells the class
    several = tiles.raters_tile(labels, valid, tiles.Window(0, 0, 9, 9), 2)
    assert len({line.dash for line in several.outlines}) == 2 and len(several.outlines) == 8


# --- which cases ------------------------------------------------------------------------------------------------------


def test_best_median_and_worst_come_first():
    values = np.random.default_rng(0).permutation(100).astype(float)
    values[values == 99] = np.nan
    chosen = choose(values, np.ones(100, int), 20)
    assert len(chosen) == 20
    ranked = {group: values[row] for row, group in chosen.items() if group}
    assert ranked == {
        **{f"best {i + 1}": i for i in range(3)},
        **{f"median {i + 1}": 48 + i for i in range(3)},  # 0 to 98: the middle is 49
        **{f"worst {i + 1}": 98 - i for i in range(3)},
    }
    assert list(chosen.values())[:9] == list(ranked)
    rest = [values[row] for row, group in chosen.items() if not group]
    assert (np.diff(rest[:-1]) > 0).all() and np.isnan(rest[-1])  # by rank, what has none last


@given(st.integers(0, 60), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_chooses_as_many_as_there_are(cases, count, seed):
    random = np.random.default_rng(seed)
    values = np.where(random.random(cases) < 0.2, np.nan, random.random(cases))
    shown_by = random.integers(0, 3, cases)
    chosen = choose(values, shown_by, count)
    assert all(shown_by[row] for row in chosen)
    assert len(chosen) == min(count, (shown_by > 0).sum()) or (shown_by[list(chosen)] == 2).all()
    groups = [group for group in chosen.values() if group]
    assert len(set(groups)) == len(groups) and all(np.isfinite(values[row]) for row, g in chosen.items() if g)
    if groups:
        best = next(row for row, group in chosen.items() if group == "best 1")
        assert values[best] == np.nanmin(values[list(chosen)])


def test_cases_that_every_model_shows_are_preferred():
    values, shown_by = np.arange(40.0), np.ones(40, int)
    shown_by[10:30] = 2
    chosen = choose(values, shown_by, 12)
    assert set(chosen) <= set(range(10, 30)) and chosen[10] == "best 1"
    shown_by[12:] = 1  # two are too few
    assert choose(values, shown_by, 12)[0] == "best 1"


def test_a_mask_of_specks_is_an_image_and_not_a_line():
    """A page of noise stays small, and the image shows what the mask is."""
    random = np.random.default_rng(0)
    masks = (random.random((16, 128, 128)) < 0.3).astype(np.uint8)
    window = tiles.Window(0, 0, 128, 128)
    one, every = tiles.mask_tile(masks[0], window, "sample 1", "#E69F00"), tiles.samples_tile(masks, window)
    assert not one.outlines and not every.outlines and len(one.overlay) + len(every.overlay) < 40_000
    for overlay, share in ((one.overlay, masks[0].astype(float)), (every.overlay, masks.mean(0))):
        shown = np.array(Image.open(io.BytesIO(base64.b64decode(overlay.partition(",")[2]))).convert("RGBA"))
        np.testing.assert_allclose(shown[..., 3] / 255, 0.6 * share, atol=0.003)
        assert (shown[share > 0, :3] == (0xE6, 0x9F, 0)).all()
    disc = (np.hypot(*np.mgrid[-64:64, -64:64]) < 40).astype(np.uint8)
    assert tiles.mask_tile(disc, window, "sample 1", "#E69F00").outlines
    assert tiles.samples_tile(np.stack([disc] * 16), window).overlay == ""


# --- the table --------------------------------------------------------------------------------------------------------


def test_one_case_is_one_row_whatever_the_order(three_models, tmp_path):
    evaluations = read_evaluations(three_models[:2])
    lines = (three_models[1] / "per_case.csv").read_text(encoding="utf-8").splitlines()
    turned = tmp_path / "turned"
    turned.mkdir()
    (turned / "metrics.json").write_bytes((three_models[1] / "metrics.json").read_bytes())
    (turned / "per_case.csv").write_text("\n".join([lines[0], *lines[:0:-1]]) + "\n", encoding="utf-8")
    other = read_evaluations([three_models[0], turned])
    for name in ("ged", "dice"):
        first, second = case_table(evaluations).figures[name], case_table(other).figures[name]
        np.testing.assert_array_equal(first, second)
        np.testing.assert_array_equal(first[0], evaluations[0].figures[name])
        np.testing.assert_array_equal(first[1], evaluations[1].figures[name])
    assert list(case_table(evaluations).columns) == ["case", "patient", "slice"]


def test_runs_of_a_model_are_one_column_and_other_data_other_rows(cross_validation, tmp_path):
    runs = read_evaluations([cross_validation])
    table = case_table(runs)
    assert [model.name for model in table.models] == ["punet", "spunet"]
    np.testing.assert_allclose(
        table.figures["ged"][0], np.mean([run.figures["ged"] for run in runs if run.model == "punet"], axis=0)
    )
    folder = write_evaluation(
        tmp_path, bundle="ssn_segmentation", latent_dim=0, change=lambda record: record["dataset"].update(name="rings")
    )
    mixed = case_table([*runs, *read_evaluations([folder])])
    assert set(mixed.columns["data set"]) == {"discs", "rings"} and len(mixed.columns["case"]) == 48
    assert np.isnan(mixed.figures["ged"][2, :24]).all() and np.isnan(mixed.figures["effective_rank"][2]).all()


# --- cards ------------------------------------------------------------------------------------------------------------


def test_models_stand_side_by_side_on_one_image(three_models):
    evaluations = read_evaluations(three_models)
    browser = browse(evaluations, 24)
    kept = {}
    for one in evaluations:
        with np.load(one.npz) as file:
            kept[one.label] = file["position"].tolist()
    assert {card.row for card in browser.cards} == {row for rows in kept.values() for row in rows}
    for card in browser.cards:
        assert card.strips[0].title == "Raters" and card.strips[0].defines
        with_pictures = [strip.title for strip in card.strips[1:] if strip.tiles]
        assert with_pictures == [label for label, rows in kept.items() if card.row in rows]
        assert {strip.title for strip in card.strips[1:]} == set(kept)  # the others say that there is none
        for strip in card.strips[1:]:
            ged = next(one for one in evaluations if one.label == strip.title).figures["ged"][card.row]
            assert strip.figures[0] == ("GED", f"{ged:.3f}")
            assert bool(strip.words) != bool(strip.tiles)
    assert "GED rank" in browser.cards[0].about and browser.warnings == []


def test_the_window_is_cut_out_of_the_image(tmp_path):
    (one,) = read_evaluations([write_evaluation(tmp_path, size=96, kept=3)])
    browser = browse([one], 3)
    with np.load(one.npz) as file:
        images = dict(zip(file["position"].tolist(), file["image"]))
        masks = dict(zip(file["position"].tolist(), np.concatenate([file["labels"], file["samples"]], axis=1)))
    for card in browser.cards:
        window = card.view.window
        cut = np.s_[window.top : window.top + window.height, window.left : window.left + window.width]
        np.testing.assert_array_equal(np.asarray(decoded(card.view.crop)), images[card.row][cut])
        outside = masks[card.row].any(0)
        outside[cut] = False
        assert not outside.any() and window.width < 96 and card.view.whole


def test_slices_that_differ_have_their_own_raters():
    random = np.random.default_rng(0)
    image, other = random.integers(0, 255, (2, 20, 20), np.uint8)
    labels, samples = random.integers(0, 2, (2, 20, 20)), random.integers(0, 2, (3, 20, 20))
    valid = np.ones(2, bool)
    parts = {0: (image, labels, valid, samples), 1: (other, labels, valid, samples), 2: (image, labels, valid, samples)}
    strips = card_strips(7, parts, ["a", "b", "c"])
    assert [strip.title for strip in strips] == ["Raters", "a", "c", "Raters on the slice that b shows", "b"]
    assert [strip.view.name for strip in strips] == ["image-7-0"] * 3 + ["image-7-1"] * 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"position": np.array([0, 1, 2, 3, 4, 99])}, "names cases"),
        ({"samples": np.zeros((6, 8, 5, 5), np.uint8)}, "samples (6, 8, 5, 5)"),
        ({"image": np.zeros((6, 1, 32, 32), np.uint8)}, "image (6, 1, 32, 32)"),
    ],
)
def test_pictures_of_another_evaluation_are_refused(tmp_path, changes, said):
    write_evaluation(tmp_path)
    rewritten(tmp_path, **changes)
    with pytest.raises(InputError, match="evaluate again") as error:
        browse(read_evaluations([tmp_path]), 6)
    assert said in str(error.value)


def test_a_damaged_file_is_named_and_a_missing_one_is_said(tmp_path):
    write_evaluation(tmp_path)
    whole = (tmp_path / "cases.npz").read_bytes()
    (tmp_path / "cases.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cases\.npz cannot be read"):
        browse(read_evaluations([tmp_path]), 6)
    (tmp_path / "cases.npz").unlink()
    browser = browse(read_evaluations([tmp_path]), 6)
    assert browser.cards == [] and "no pictures" in browser.warnings[0]
    assert browse(read_evaluations([tmp_path]), 0).warnings == []
