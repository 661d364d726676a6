"""Pictures of a latent space show what they are given."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from aleatoric.errors import InputError
from aleatoric.visualize import (
    ScatterPanel,
    correlation_panels,
    freezing_curves,
    interpolation_grid,
    latent_axes,
    moments_panel,
)

RANDOM = np.random.default_rng(0)


def drawn(figure):
    """The figure, rendered without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure.canvas.draw()
    return figure


def words(figure):
    return " ".join(text.get_text() for text in figure.texts)


def test_each_image_has_its_prior_and_all_have_their_boxes():
    mean, std = RANDOM.normal(size=(5, 3)), RANDOM.uniform(0.1, 1, (5, 3))
    figure = drawn(latent_axes(np.zeros((5, 1, 8, 8)), mean, std, names=list("abcde"), caption="words $ with dollars"))
    bars = [axis for axis in figure.axes if axis.containers]
    assert len(bars) == 5
    for axis, expected, spread in zip(bars, mean, std):
        points, _, (segments,) = axis.containers[0]
        np.testing.assert_allclose(points.get_ydata(), expected)
        np.testing.assert_allclose([np.ptp(line[:, 1]) / 2 for line in segments.get_segments()], spread)
    left = {round(axis.get_position().x0, 6) for axis in bars}
    assert len(left) == 4  # the fifth stands below the first, in its column
    below = figure.axes[-2:]
    assert [axis.get_ylabel() for axis in below] == ["prior mean, 5 images", "prior variance, 5 images"]
    assert below[1].get_yscale() == "log" and "dollars" in words(figure)
    with pytest.raises(InputError, match="of at least one image"):
        latent_axes(np.zeros((5, 1, 8, 8)), mean[:4], std)


def test_a_row_per_axis_and_a_column_per_position():
    maps = RANDOM.uniform(size=(2, 3, 16, 16))
    labels = np.zeros((2, 16, 16), np.uint8)
    labels[0, 4:8, 4:8] = 1
    figure = drawn(interpolation_grid(np.zeros((1, 16, 16)), maps, [-1, 0, 1], [0.5, 2.0], labels=labels))
    panels = np.array([axis for axis in figure.axes if axis.get_label() != "<colorbar>"]).reshape(2, 4)
    for row in range(2):
        for column in range(3):
            np.testing.assert_allclose(panels[row, column + 1].images[0].get_array(), maps[row, column])
    assert [axis.get_title() for axis in panels[0]] == ["image", "-1 σ", "mean", "+1 σ"]
    assert panels[1, 1].get_ylabel() == "axis 2\nσ = 2"
    assert [text.get_text() for text in panels[0, 0].texts] == ["rater 2: none"]
    with pytest.raises(InputError, match="expected \\(A, V, H, W\\)"):
        interpolation_grid(np.zeros((1, 16, 16)), maps, [0], [0.5, 2.0])


def test_both_orders_of_freezing_are_means_over_the_images_with_raters():
    first, second = RANDOM.uniform(size=(6, 4)), RANDOM.uniform(size=(6, 4))
    first[5] = second[5] = np.nan
    axis = drawn(freezing_curves(first, second)).axes[0]
    for line, values in zip(axis.lines, (first, second)):
        np.testing.assert_allclose(line.get_ydata(), values[:5].mean(0))
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["smallest first", "largest first (control)"]
    assert len(axis.collections) == 2 and len(freezing_curves(first[:1], second[:1]).axes[0].collections) == 0
    with pytest.raises(InputError, match="an image that has a rater"):
        freezing_curves(first[5:], second[5:])


def test_a_correlation_is_said_and_its_absence_too():
    x, y = RANDOM.normal(size=9), RANDOM.normal(size=9)
    y[3] = np.nan
    figure = drawn(correlation_panels([ScatterPanel("a", "b", x, y, 0.25), ScatterPanel("a", "c", x, x * 0, np.nan)]))
    assert [axis.get_title() for axis in figure.axes] == [
        "Pearson's r = 0.25",
        "no correlation: a quantity is constant",
    ]
    kept = np.isfinite(y)
    slope = np.diff(figure.axes[0].lines[0].get_ydata())[0] / np.ptp(x[kept])
    assert slope == pytest.approx(np.polyfit(x[kept], y[kept], 1)[0])
    with pytest.raises(InputError, match="no pair"):
        correlation_panels([])


def test_mean_and_deviation_of_raters_leave_out_who_is_missing():
    labels = np.zeros((2, 3, 16, 16), np.uint8)
    labels[:, 0, 4:9, 4:9] = 1
    valid = np.ones((2, 3), bool)
    valid[1, 2] = False
    mean, std = RANDOM.uniform(size=(2, 16, 16)), RANDOM.uniform(0, 0.5, (2, 16, 16))
    images = np.zeros((2, 1, 16, 16))
    figure = drawn(moments_panel(images, labels, mean, std, rater_valid=valid, caption="x"))
    panels = np.array([axis for axis in figure.axes if axis.get_subplotspec() is not None]).reshape(2, 6)
    for row, raters in enumerate((3, 2)):
        share = panels[row, 2].images[0].get_array()[5, 5]
        assert share == pytest.approx(1 / raters)
        assert panels[row, 4].images[0].get_array()[5, 5] == pytest.approx(np.sqrt(share * (1 - share)))
        np.testing.assert_allclose(panels[row, 3].images[0].get_array(), mean[row])
        np.testing.assert_allclose(panels[row, 5].images[0].get_array(), std[row])
    with pytest.raises(InputError, match="the same height and width"):
        moments_panel(images, labels, mean[:, :8], std)


def test_the_whole_image_shows_what_the_other_columns_zoom_on():
    labels = np.zeros((1, 1, 128, 128), np.uint8)
    labels[0, 0, 30:60, 40:60] = 1
    maps = np.zeros((1, 128, 128))
    whole, zoomed = drawn(moments_panel(np.zeros((1, 1, 128, 128)), labels, maps, maps)).axes[:2]
    (frame,) = whole.patches
    (left, bottom), width, height = frame.get_xy(), frame.get_width(), frame.get_height()
    assert sorted(zoomed.get_xlim()) == pytest.approx([left, left + width])
    assert sorted(zoomed.get_ylim()) == pytest.approx([bottom, bottom + height])
    assert (
        width < 100
        and not drawn(moments_panel(np.zeros((1, 1, 128, 128)), labels, maps, maps, zoom=False)).axes[0].patches
    )
