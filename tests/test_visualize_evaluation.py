"""Pictures of evaluated models: what is drawn is what was given, and the file stands for itself."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import matplotlib
import numpy as np
import pytest
from matplotlib.text import Text

from aleatoric.errors import InputError
from aleatoric.visualize import (
    MOST_MODELS,
    Areas,
    area_scatter,
    calibration_diagram,
    course_curves,
    coverage_curves,
    energy_terms,
    figure_svg,
    latent_boxes,
    letter_value_plot,
    letter_values,
    model_style,
)
from aleatoric.visualize.drawing import log_labels, log_ticks

NAMES = [f"model {number}" for number in range(MOST_MODELS)]
LINE = np.linspace(0, 1, 15)


def by_halving(values, pairs):
    """Letter values by their other definition: the median of the outer half, again and again."""
    lower = upper = np.sort(values)
    found = []
    for _ in range(pairs):
        count = (len(lower) + 1) // 2  # the median is in both halves
        lower, upper = lower[:count], upper[-count:]
        found.append((np.median(lower), np.median(upper)))
    return np.array(found)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 16, 31, 32, 33, 100, 257, 1000])
def test_letter_values_are_medians_of_halves(count):
    values = np.random.default_rng(count).normal(size=count)
    letters = letter_values(np.concatenate([values, [np.nan, np.inf]]))
    expected = by_halving(values, len(letters.lower))
    np.testing.assert_allclose(np.stack([letters.lower, letters.upper], 1), expected)
    assert letters.median == np.median(values)
    assert letters.outside.tolist() == sorted(v for v in values if v < letters.lower[-1] or v > letters.upper[-1])


def test_as_many_letters_as_the_sample_tells():
    # floor(log2 n - log2(2 * 1.96^2)) + 1 with the median, so of 1,000 values 8, which are 7 pairs
    assert [len(letter_values(np.arange(n)).lower) for n in (1, 15, 61, 62, 1000, 3000)] == [1, 1, 2, 3, 7, 8]


def test_letter_values_turn_with_the_sign():
    values = np.random.default_rng(0).gamma(2, size=77)
    one, two = letter_values(values), letter_values(-values)
    np.testing.assert_allclose(one.lower, -two.upper)
    np.testing.assert_allclose(one.upper, -two.lower)


def test_the_boxes_reach_from_letter_to_letter():
    values = np.random.default_rng(0).normal(size=500)
    (axis,) = letter_value_plot({"a": values}, "GED").axes
    letters = letter_values(values)
    boxes = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for bar in axis.patches)
    np.testing.assert_allclose(boxes, sorted(zip(letters.lower, letters.upper)))
    heights = [bar.get_height() for bar in sorted(axis.patches, key=lambda bar: bar.get_width())]
    assert heights == sorted(heights, reverse=True)  # the middle half is the highest
    assert len(axis.lines[0].get_xdata()) == len(letters.outside)


def test_the_parts_of_a_bar_add_up():
    terms = {"near": (0.4, 0.3, 0.35), "far": (0.7, 0.5, 0.35)}
    (axis,) = energy_terms(terms).axes
    for row, (cross, samples, raters) in enumerate(terms.values()):
        bars = [bar for bar in axis.patches if round(bar.get_y() + bar.get_height() / 2) == row and bar.get_width()]
        edges = [(bar.get_x(), bar.get_x() + bar.get_width()) for bar in sorted(bars, key=lambda bar: bar.get_x())]
        np.testing.assert_allclose(
            edges, [(0, raters), (raters, raters + samples), (raters + samples, 2 * cross)], err_msg=f"row {row}"
        )
        assert len({(bar.get_hatch(), bar.get_facecolor()) for bar in bars}) == 3
    said = {text.get_text() for text in axis.texts}
    assert {"near", "far", "0.150", "0.350", "0.300", "0.500", "0.550"} <= said


def test_curves_are_drawn_as_they_are():
    x = np.arange(1000.0)
    y = np.where(x == 5, np.nan, x)
    figure = course_curves({"one": [(x, y)], "two": [(x[:3], x[:3]), (x[:2], x[:2])]}, "loss", log=False)
    first, second, third = figure.axes[0].lines
    assert len(first.get_xdata()) == 200 and first.get_xdata()[[0, -1]].tolist() == [0, 999]
    np.testing.assert_array_equal(first.get_xdata(), first.get_ydata())
    assert second.get_color() == third.get_color() != first.get_color()  # trainings of one model look alike
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two"]
    assert figure.axes[0].get_yscale() == "linear"


@pytest.mark.parametrize(("values", "scale"), [([1, 30.0], "log"), ([1, 19.0], "linear"), ([0, 30.0], "linear")])
def test_an_axis_is_logarithmic_where_values_span_much(values, scale):
    (axis,) = course_curves({"a": [([1, 2], values)]}, "loss").axes
    assert axis.get_yscale() == scale
    assert axis.get_ylabel() == ("loss (logarithmic)" if scale == "log" else "loss")


def test_references_have_the_colours_of_their_models():
    lines = {"a": [(LINE, LINE)], "b": [(LINE, LINE / 2)]}
    figure = course_curves(
        lines, "risk", references={"at random": [(LINE, LINE), (LINE, LINE)], "bound": [(LINE, LINE)]}
    )
    colors = [line.get_color() for line in figure.axes[0].lines]
    assert colors[:2] == colors[2:4] and colors[4] == "0.35"
    assert len({line.get_linestyle() for line in figure.axes[0].lines[2:4]}) == 1
    legend = figure.legends[0]
    shown = dict(zip([text.get_text() for text in legend.get_texts()], legend.get_lines()))
    assert list(shown) == ["a", "b", "at random", "bound"]
    assert shown["at random"].get_color() == shown["bound"].get_color() == "0.35"  # no model's
    dashes = [line._unscaled_dash_pattern for line in (*figure.axes[0].lines[3:], shown["at random"], shown["bound"])]
    assert dashes[:2] == dashes[2:] and dashes[0] != dashes[1]


def test_bins_are_points_and_steps():
    count = np.array([100, 0, 5.0])
    predicted, observed = np.array([0.1, np.nan, 0.9]), np.array([0.2, np.nan, 0.7])
    top, bottom = calibration_diagram({"a": (count, predicted, observed)}).axes
    diagonal, line = top.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [1, 1]]
    assert line.get_xydata().tolist() == [[0.1, 0.2], [0.9, 0.7]]
    (steps,) = bottom.patches
    assert steps.get_data().values.tolist() == [100, 0, 5]
    assert steps.get_data().edges.tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])


def labels_of(axis):
    """The tick labels that one sees of an axis, with their places on the picture."""
    return [
        (tick.label1.get_text(), tick.label1.get_window_extent())
        for tick in [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        if tick.label1.get_text() and axis.get_view_interval()[0] <= tick.get_loc() <= axis.get_view_interval()[1]
    ]


@pytest.mark.parametrize(
    "counts",
    [
        *([60, 40, 30, 33, 52], [1, 1, 1, 0, 0], [272, 0, 0, 0, 0], [11, 12, 13, 14, 55], [3, 150, 20, 7, 30]),
        *([1e7, 2e6, 1e6, 5e6, 0], [1, 1e7, 1e3, 0, 5], [999_999, 1, 30, 500, 0], [4, 3, 2, 1, 5]),
    ],
)
def test_labels_of_counts_are_few_and_plain_and_lie_apart(counts):
    line = np.linspace(0, 1, 5)
    figure = calibration_diagram({"a": (np.array(counts, float), line, line)}, counted="forecasts")
    figure.canvas.draw()
    axis = figure.axes[1].yaxis
    labels = labels_of(axis)
    assert 1 <= len(labels) <= 4
    bottoms_and_tops = sorted((box.y0, box.y1) for _, box in labels)
    assert all(top < bottom for (_, top), (bottom, _) in pairwise(bottoms_and_tops)), labels
    assert all(re.fullmatch(r"[\d,]{1,7}|(\d·)?10[⁰¹²³⁴⁵⁶⁷⁸⁹]+", text) for text, _ in labels), labels


def test_ticks_of_a_logarithmic_axis_are_inside_and_as_many_as_it_holds():
    random = np.random.default_rng(0)
    for low, ratio, most in zip(
        10 ** random.uniform(-6, 6, 500), 10 ** random.uniform(0.05, 12, 500), random.integers(3, 7, 500)
    ):
        ticks = log_ticks(low, low * ratio, int(most))
        assert 1 <= len(ticks) <= most and len(set(log_labels(ticks))) == len(ticks), (low, ratio, ticks)
        assert ticks == sorted(ticks) and low * 0.999 <= ticks[0] and ticks[-1] <= low * ratio * 1.001
        assert len(ticks) >= 2 or ratio < 2.6, (low, ratio, ticks)
    assert log_ticks(0.7, 1.5, 4, whole=True) == [1]
    assert log_labels([0.02, 0.5, 1, 20_000]) == ["0.02", "0.5", "1", "20,000"]
    assert log_labels([1e-5, 1, 2e6]) == ["10⁻⁵", "10⁰", "2·10⁶"]


PLACES = {name: number for number, name in enumerate([*NAMES, "model 6", "model 7"])}


@pytest.mark.parametrize(
    "draw",
    [
        lambda values, **options: course_curves({name: [value] for name, value in values.items()}, "GED", **options),
        lambda values, **options: coverage_curves(values, **options),
        lambda values, **options: calibration_diagram({n: (1 + y, x, y) for n, (x, y) in values.items()}, **options),
    ],
)
def test_a_model_looks_the_same_whoever_is_beside_it(draw):
    def looks(figure):
        lines = {line.get_label(): line for line in figure.axes[0].lines}
        return {
            name: (lines[name].get_color(), lines[name].get_linestyle(), lines[name].get_marker())
            for name in PLACES
            if name in lines
        }

    all_six = looks(draw(dict.fromkeys(NAMES, (LINE, LINE))))
    assert looks(draw(dict.fromkeys(NAMES, (LINE, LINE)), places=PLACES)) == all_six
    for some in (NAMES[4:], NAMES[1:3], NAMES[2:0:-1]):
        assert looks(draw(dict.fromkeys(some, (LINE, LINE)), places=PLACES)) == {name: all_six[name] for name in some}
    assert len(set(looks(draw(dict.fromkeys(list(PLACES)[2:], (LINE, LINE)), places=PLACES)).values())) == MOST_MODELS


def test_colours_alone_are_the_models_too():
    areas = Areas(100 * LINE, 90 * LINE, 110 * LINE, 95 * LINE)
    color = model_style(3).color
    assert area_scatter({"model 3": areas}, places=PLACES).axes[0].lines[1].get_color() == color
    boxes = letter_value_plot({"model 3": [1, 2, 3, 4, 5, 60]}, "GED", places=PLACES).axes[0]
    assert boxes.lines[0].get_color() == color
    for axis in latent_boxes(np.ones((9, 6)), np.ones((9, 6)), place=3).axes:
        assert {line.get_color() for line in axis.lines if line.get_linewidth() == 2} == {color}
    with pytest.raises(InputError, match="found no place for b, expected one for each model"):
        coverage_curves({"a": (LINE, LINE), "b": (LINE, LINE)}, places={"a": 0})


def test_a_model_is_told_from_all_others_of_a_large_report():
    assert len({model_style(number)[1:] for number in range(36)}) == 36  # by line and marker


@pytest.mark.parametrize("epochs", [[5], [1, 2], [5, 6], [1, 2, 3, 4, 5, 6], [5, 10, 15, 20, 25], range(1, 701)])
def test_epochs_are_whole_numbers(epochs):
    figure = course_curves({"a": [(epochs, np.ones(len(epochs)))]}, "GED")
    figure.canvas.draw()
    labels = [text for text, _ in labels_of(figure.axes[0].xaxis)]
    assert labels and all(label.isdecimal() for label in labels)


def test_an_axis_of_shares_ends_at_0_and_1():
    for values in (np.zeros(50), np.ones(50), np.r_[np.zeros(9), 0.3]):
        axis = letter_value_plot({"a": values}, "share", limits=(0, 1)).axes[0]
        assert axis.get_xlim() == (0, 1)
        assert not any(line.get_clip_on() for line in axis.lines)
    for figure in (coverage_curves({"a": (LINE, LINE)}), calibration_diagram({"a": (1 + LINE, LINE, LINE)})):
        assert figure.axes[0].get_xlim() == figure.axes[0].get_ylim() == (0, 1)
    assert course_curves({"a": [(LINE, LINE)]}, "risk", xlabel="share", xlim=(0, 1)).axes[0].get_xlim() == (0, 1)


def test_coverage_is_a_line_beside_the_diagonal():
    (axis,) = coverage_curves({"a": (LINE, LINE**2)}).axes
    np.testing.assert_allclose(axis.lines[1].get_ydata(), LINE**2)


def test_areas_are_points_with_bars():
    random = np.random.default_rng(0)
    raters = random.gamma(2, 100, 500)
    areas = Areas(raters + 1, raters * 0.5, raters * 1.5, raters)
    axis, other = area_scatter({"a": areas, "b": areas}).axes
    bars, points = axis.lines[:2]
    assert len(points.get_xdata()) == 120
    assert points.get_xdata()[[0, -1]].tolist() == [raters.min(), raters.max()]
    np.testing.assert_allclose(points.get_ydata(), points.get_xdata() + 1)
    ends = bars.get_xydata().reshape(120, 3, 2)
    np.testing.assert_allclose(ends[:, 0, 1], points.get_xdata() * 0.5)
    np.testing.assert_allclose(ends[:, 1, 1], points.get_xdata() * 1.5)
    assert np.isnan(ends[:, 2, 1]).all()  # no line from bar to bar
    assert axis.get_xlim() == axis.get_ylim() == other.get_ylim()
    assert axis.get_ylim()[1] > raters.max() * 1.5


def test_boxes_of_a_prior():
    random = np.random.default_rng(0)
    mean, scales = random.normal(size=(50, 3)), np.exp(random.normal(size=(50, 3)) * 2)
    top, bottom = latent_boxes(mean, scales).axes
    for axis, values in ((top, mean), (bottom, scales)):
        medians = [line.get_ydata()[0] for line in axis.lines if line.get_linewidth() == 2]
        np.testing.assert_allclose(medians, np.median(values, axis=0))
    assert (top.get_yscale(), bottom.get_yscale()) == ("linear", "log")
    assert (top.get_xlabel(), bottom.get_xlabel()) == ("latent dimension", "principal axis")


def test_boxes_say_their_scale_which_hangs_on_no_span():
    narrow, wide = np.full((9, 2), 0.1) * [1, 2], np.full((9, 2), 0.1) * [1, 500]
    for scales in (narrow, wide):
        axis = latent_boxes(scales, scales).axes[1]
        assert axis.get_yscale() == "log" and axis.get_ylabel() == "prior standard deviation\n(logarithmic)"
    for figure in (latent_boxes(wide, wide * [0, 1]), latent_boxes(wide, wide, log=False)):
        assert figure.axes[1].get_yscale() == "linear" and "(linear)" in figure.axes[1].get_ylabel()


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (lambda: energy_terms({}), "found 0 models to draw"),
        (lambda: letter_value_plot(dict.fromkeys("abcdefg", LINE), "x"), "found 7 models to draw, expected 1 to 6"),
        (lambda: letter_values([np.nan]), "no finite value"),
        (lambda: course_curves({"a": [([1], [1, 2])]}, "x"), r"\(1,\) positions and \(2,\) values for a"),
        (lambda: area_scatter({"a": Areas([1.0], [1.0], [1.0], [1.0, 2])}), "expected as many"),
        (lambda: latent_boxes(np.zeros((2, 3)), np.zeros((2, 2))), r"expected \(n, d\) both"),
    ],
)
def test_what_cannot_be_drawn_is_said(draw, words):
    with pytest.raises(InputError, match=words):
        draw()


@pytest.fixture(scope="module")
def figures():
    """One of each, as full as they get."""
    curves = dict.fromkeys(NAMES, (LINE, LINE**2))
    areas = Areas(100 * LINE, 90 * LINE, 110 * LINE, 95 * LINE)
    return {
        "energy": energy_terms(dict.fromkeys(NAMES, (0.4, 0.3, 0.2))),
        "letters": letter_value_plot({name: np.arange(100.0) for name in NAMES}, "GED ↓ of a case"),
        "course": course_curves({name: [curves[name]] for name in NAMES}, "loss"),
        "calibration": calibration_diagram(dict.fromkeys(NAMES, (1 + LINE, LINE, LINE))),
        "coverage": coverage_curves(curves),
        "areas": area_scatter(dict.fromkeys(NAMES[:2], areas)),
        "latent": latent_boxes(np.ones((9, 6)), np.ones((9, 6))),
    }


def test_a_phone_can_show_them(figures):
    for name, figure in figures.items():
        assert figure.get_size_inches()[0] <= 5, name
        small = [
            t.get_text() for t in figure.findobj(Text) if t.get_text() and t.get_visible() and t.get_fontsize() < 9
        ]
        assert small == [], name


def test_models_differ_by_more_than_their_colour(figures):
    styles = [model_style(number) for number in range(MOST_MODELS)]
    for part in zip(*styles):
        assert len(set(map(str, part))) == MOST_MODELS
    for name in ("course", "coverage", "calibration"):
        lines = figures[name].axes[0].lines[-MOST_MODELS:]
        assert len({line.get_marker() for line in lines}) == MOST_MODELS, name


def test_the_svg_stands_for_itself(figures):
    seen: set[str] = set()
    for name, figure in figures.items():
        svg = figure_svg(figure, f"picture-{name}")
        root = ElementTree.fromstring(svg)
        assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.get("viewBox")
        ids = [element.get("id") for element in root.iter() if element.get("id")]
        assert len(set(ids)) == len(ids) and all(i.startswith(f"picture-{name}-") for i in ids)
        assert not seen & set(ids)
        seen |= set(ids)
        targets = re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', svg)
        assert targets and {one or two for one, two in targets} <= set(ids)
        assert re.findall(r"https?://\S+", svg) == ['http://www.w3.org/2000/svg"']
        assert not any(word in svg for word in ("<style", "<metadata", "<script", "<!", "<?", "DejaVu", "@import"))
        assert re.search(r"\d\.\d{3}", re.sub(r">[^<]*<", "><", svg)) is None  # numbers that nobody sees
        assert len(svg) < 60_000, name


def test_text_stays_text():
    name = "a_$b$ <&> ü"
    for figure in (
        energy_terms({name: (0.4, 0.3, 0.2)}),
        letter_value_plot({name: [1.0, 2]}, "GED"),
        course_curves({name: [(LINE, LINE)]}, "loss"),
        area_scatter({name: Areas([1.0], [1.0], [1.0], [1.0])}),
    ):
        root = ElementTree.fromstring(figure_svg(figure, "x"))
        assert name in {"".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")}


def test_the_same_figure_gives_the_same_file_and_no_setting_stays():
    before = dict(matplotlib.rcParams)
    files = [figure_svg(coverage_curves({"a": (LINE, LINE)}), "x") for _ in range(2)]
    assert files[0] == files[1]
    assert dict(matplotlib.rcParams) == before
