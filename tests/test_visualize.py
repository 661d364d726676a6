"""Pictures show what they are given: a column per thing, an outline per mask, words where there is none."""

import warnings

import numpy as np
import pytest
from matplotlib.contour import ContourSet

from aleatoric.errors import InputError
from aleatoric.visualize import RATER_COLORS, patch_sheet, sample_panel, save_figure, training_curves


def cases(count=2, raters=4, samples=10, size=48):
    rows, columns = np.indices((size, size))
    distance = np.hypot(rows - size // 2, columns - size // 2)
    labels = np.stack([[distance < 6 + r for r in range(raters)] for _ in range(count)]).astype(np.uint8)
    drawn = np.stack([[distance < 5 + n / 2 for n in range(samples)] for _ in range(count)]).astype(np.uint8)
    return (
        np.random.default_rng(0).normal(size=(count, 1, size, size)),
        labels.reshape(count, raters, size, size),
        drawn,
    )


def panels(figure):
    return [axis for axis in figure.axes if axis.get_subplotspec() is not None]


def outlines(axis):
    return [child for child in axis.get_children() if isinstance(child, ContourSet)]


def words(axis):
    return [text.get_text() for text in axis.texts]


def test_a_column_per_thing_and_an_outline_per_rater():
    images, labels, samples = cases()
    labels[0, 2] = 0
    valid = np.ones((2, 4), bool)
    valid[1, 1] = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = sample_panel(images, labels, samples, valid, names=["a", "b"], simulated=True)
        figure.canvas.draw()
    axes = np.array(panels(figure)).reshape(2, -1)
    titles = [axis.get_title() for axis in axes[0]]
    assert titles == ["image", "raters", *(f"sample {n}" for n in range(1, 9)), "mean", "standard dev."]
    assert [len(outlines(axis)) for axis in axes[:, 1]] == [3, 3]
    assert words(axes[0, 1]) == ["rater 3: none"] and words(axes[1, 1]) == ["rater 2: missing"]
    assert all(len(outlines(axis)) == 1 for axis in axes[:, 2:10].flat)
    assert any("simulated" in text.get_text() for text in figure.texts)


def test_mean_and_deviation_are_of_all_samples():
    images, labels, samples = cases(samples=20)
    axes = np.array(panels(sample_panel(images, labels, samples))).reshape(2, -1)
    np.testing.assert_allclose(axes[0, -2].images[0].get_array(), samples[0].mean(0), atol=1e-6)
    np.testing.assert_allclose(axes[1, -1].images[0].get_array(), samples[1].std(0), atol=1e-6)


def test_an_empty_sample_is_said_in_words_and_without_raters_their_column_is_left_out():
    images, labels, samples = cases()
    samples[1, 0] = 0
    axes = np.array(panels(sample_panel(images, labels[:, :0], samples))).reshape(2, -1)
    assert [axis.get_title() for axis in axes[0, :2]] == ["image", "sample 1"]
    assert words(axes[1, 1]) == ["empty"] and not outlines(axes[1, 1])


def test_all_panels_of_a_row_stand_at_one_height():
    figure = sample_panel(*cases(3))
    figure.canvas.draw()
    for row in np.array(panels(figure)).reshape(3, -1):
        heights = {(round(axis.get_position().y0, 3), round(axis.get_position().y1, 3)) for axis in row}
        assert len(heights) == 1


def test_arrays_that_do_not_belong_together_are_refused():
    images, labels, samples = cases()
    for arguments, sentence in (
        ((images[:1], labels, samples), "same number of cases"),
        ((images, labels[0], samples), "expected 4 axes"),
        ((images, labels, samples[:, :0]), "at least one"),
    ):
        with pytest.raises(InputError, match=sentence):
            sample_panel(*arguments)


def sheet(*arguments, **words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = patch_sheet(*arguments, **words)
        figure.canvas.draw()
    return figure, [tuple(panels(figure)[start : start + 2]) for start in range(0, len(panels(figure)), 2)]


def legend(figure):
    return [text.get_text() for box in figure.legends for text in box.get_texts()]


def test_a_sheet_shows_every_patch_without_and_with_its_contours():
    images, labels, _ = cases(5)
    labels[0, 2] = 0
    valid = np.ones((5, 4), bool)
    valid[1, 1] = False
    notes = ["", None, "too bright", "", ""]
    figure, pairs = sheet(images, labels, valid, names=list("abcde"), notes=notes, columns=3)
    assert len(pairs) == 5 and {axis.get_gridspec().nrows for axis in panels(figure)} == {2}
    for image, (plain, drawn), name, note in zip(images, pairs, "abcde", notes):
        for axis in (plain, drawn):
            np.testing.assert_array_equal(axis.images[0].get_array(), image[0].astype(np.float32))
        assert not outlines(plain) and not words(plain)
        assert plain.get_title(loc="left") == name and plain.get_xlabel() == (note or "")
    assert [len(outlines(drawn)) for _, drawn in pairs] == [3, 3, 4, 4, 4]
    assert words(pairs[0][1]) == ["rater 3: none"] and words(pairs[1][1]) == ["rater 2: missing"]
    assert pairs[2][0].xaxis.label.get_color() not in ("black", pairs[2][0].title.get_color())
    assert legend(figure) == [f"rater {r}" for r in range(1, 5)]


def test_contours_lie_where_the_mask_ends_in_the_raters_colour():
    image = np.zeros((1, 20, 30))
    label = np.zeros((2, 20, 30), int)
    label[1, 5:9, 0:12] = 1  # touches the border
    _, [(_, drawn)] = sheet([image], [label])
    (contour,) = outlines(drawn)
    corners = contour.get_paths()[0].vertices
    assert [*corners.min(0), *corners.max(0)] == [-0.5, 4.5, 11.5, 8.5]
    from matplotlib.colors import to_hex

    assert to_hex(contour.get_edgecolor()[0]).upper() == RATER_COLORS[1]


def test_patches_of_a_sheet_may_differ_in_size_and_raters():
    shapes = [((1, 20, 60), 2), ((1, 64, 64), 9), ((1, 50, 10), 1), ((1, 7, 7), 0)]
    images = [np.random.default_rng(0).normal(size=shape) for shape, _ in shapes]
    labels = [np.ones((raters, *shape[1:]), np.uint8) for shape, raters in shapes]
    figure, pairs = sheet(images, labels, columns=2, zoom=True)
    assert [plain.images[0].get_array().shape for plain, _ in pairs] == [shape[1:] for shape, _ in shapes]
    assert [len(outlines(drawn)) for _, drawn in pairs] == [2, 9, 1, 0]
    # nine raters, seven colours: said
    assert legend(figure)[:2] == ["raters 1, 8", "raters 2, 9"] and len(legend(figure)) == 7
    assert any("9 raters: colours come again after 7" in text.get_text() for text in figure.texts)


def test_a_sheet_of_volumes_shows_the_slice_with_most_foreground_and_names_it():
    images = np.random.default_rng(0).normal(size=(3, 2, 16, 18, 9))
    labels = np.zeros((3, 2, 16, 18, 9), np.uint8)
    labels[0, 0, 4:6, 4:6, 2] = 1
    labels[0, 1, 4:9, 4:9, 7] = 1
    labels[1, 0, :, :, 5] = 1
    labels[1, 1, 2:5, 2:5, 3] = 1
    valid = np.array([[True, True], [False, True], [True, True]])  # a missing rater has no say
    _, pairs = sheet(images, labels, valid, names=list("abc"), channel=1)
    for image, (plain, _), position, name in zip(images, pairs, (7, 3, 4), "abc"):
        np.testing.assert_array_equal(plain.images[0].get_array(), image[1, ..., position].astype(np.float32))
        assert plain.get_title(loc="left") == f"{name}, slice {position + 1} of 9"
    _, [(plain, _)] = sheet(images[:1], labels[:1])
    assert plain.get_title(loc="left") == "slice 8 of 9"


def test_a_sheet_tells_classes_by_dashes_and_says_when_they_come_again():
    images = np.zeros((1, 1, 40, 40))
    labels = np.repeat(np.arange(40) // 8, 40).reshape(1, 1, 40, 40)  # classes 0 to 4
    figure, [(_, drawn)] = sheet(images, labels, classes=["background", "core", "edema"])
    assert len(outlines(drawn)) == 4 and len({contour.linestyles for contour in outlines(drawn)}) == 4
    assert legend(figure) == ["rater 1", "core", "edema", "class 3", "class 4"]
    figure, _ = sheet(images, labels, classes=["background", *["$a$", "$b_", "c", "d", "e", "f"]])
    assert legend(figure)[1:] == ["$a$, e", "$b_, f", "c", "d"]
    assert any("6 classes: dashes come again after 4" in text.get_text() for text in figure.texts)
    figure, _ = sheet(images, labels > 0, classes=["background", "nodule"])
    assert legend(figure) == ["rater 1"]


def test_a_sheet_zooms_both_panels_to_all_contours():
    images, labels = np.zeros((2, 1, 30, 200)), np.zeros((2, 1, 30, 200), int)
    labels[0, 0, 10:12, 20:150] = 1  # broader than the image is high
    _, pairs = sheet(images, labels, zoom=True)
    for axis in pairs[0]:
        assert axis.get_xlim()[0] < 20 and axis.get_xlim()[1] > 149 and axis.get_xlim()[1] - axis.get_xlim()[0] < 150
        assert axis.get_ylim() == (29.5, -0.5)
    assert pairs[1][1].get_xlim() == (-0.5, 199.5)  # nothing drawn: all of it
    _, whole = sheet(images, labels)
    assert whole[0][1].get_xlim() == (-0.5, 199.5)


def test_black_and_white_can_be_given():
    images, labels, _ = cases(2)
    _, pairs = sheet(images * [[[[1]]], [[[9]]]], labels, intensity_window=(-3.0, 5.0))
    assert {axis.images[0].get_clim() for pair in pairs for axis in pair} == {(-3.0, 5.0)}


@pytest.mark.parametrize(
    ("count", "raters", "columns", "size"), [(1, 7, 4, 32), (9, 12, 4, 64), (3, 4, 1, 48), (4, 30, 4, 16)]
)
def test_words_of_a_sheet_do_not_lie_on_each_other_nor_outside(count, raters, columns, size):
    images, labels, _ = cases(count, raters, size=size)
    labels[0] = 0
    valid = np.ones((count, raters), bool)
    valid[0, ::2] = False
    names = [f"LIDC-IDRI-{number:04d}-0013_n00_z-{number}.25 of a long-named study in July" for number in range(count)]
    figure, pairs = sheet(
        images,
        labels,
        valid,
        names=names,
        notes=["the mask of rater 2 lies on air, and its area is 12 times the area of rater 1: is it the same one?"]
        * count,
        columns=columns,
        classes=["background", "enhancing tumour", "oedema", "necrosis"],
        title="a title",
        caption="A caption that goes on for a while, because sources want to be told at length, and more than that. "
        * 2,
    )
    inside = figure.bbox
    boxes = [*figure.texts, *figure.legends]
    boxes += [text for plain, _ in pairs for text in (plain._left_title, plain.xaxis.label)]
    extents = [box.get_window_extent() for box in boxes] + [axis.get_window_extent() for axis in panels(figure)]
    assert any(text.get_text().startswith("A caption") or "A caption" in text.get_text() for text in figure.texts)
    for number, one in enumerate(extents):
        assert (
            one.x0 >= inside.x0 - 1 and one.x1 <= inside.x1 + 1 and one.y0 >= inside.y0 - 1 and one.y1 <= inside.y1 + 1
        )
        for other in extents[:number]:
            width = min(one.x1, other.x1) - max(one.x0, other.x0)
            height = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert width <= 1 or height <= 1, (one, other)
    lines = pairs[0][1].texts  # of raters who drew nothing, or are missing
    assert lines[-1].get_window_extent().y0 >= pairs[0][1].get_window_extent().y0
    told = " ".join(words(pairs[0][1]))
    assert all(word in told for word in ("none", "missing"))


def test_patches_that_do_not_belong_together_are_refused():
    images, labels, _ = cases()
    for arguments, options, sentence in (
        ((images[:0], labels[:0]), {}, "at least one|one of each"),
        ((images, labels[:1]), {}, "2 images and 1 labels"),
        ((images, labels), {"names": ["a"]}, "2 images and 1 names"),
        ((images, labels[..., 1:]), {"names": ["a", "b"]}, "an image of a of shape"),
        ((images[:, 0], labels[:, 0]), {}, "expected .C, H, W."),
        ((images, labels, np.ones((2, 3), bool)), {}, "a flag per rater"),
        ((images, labels), {"channel": 1}, "expected 0 to 0"),
        ((images, labels), {"channel": -1}, "expected 0 to 0"),
        ((images, labels), {"columns": 0}, "0 columns"),
    ):
        with pytest.raises(InputError, match=sentence):
            patch_sheet(*arguments, **options)


def test_curves_have_a_panel_per_quantity_and_a_line_per_part():
    figure = training_curves(
        {"loss/training": [3.0, 2.0, float("nan")], "loss/validation": ([2, 4], [2.5, 2.1]), "rank": [1.0, 2.0]}
    )
    loss, rank = panels(figure)
    assert [len(loss.lines), len(rank.lines)] == [2, 1]
    assert loss.get_title() == "loss (1 not finite)"
    np.testing.assert_array_equal(loss.lines[1].get_xdata(), [2, 4])
    with pytest.raises(InputError, match="no series"):
        training_curves({})


def test_a_line_of_the_training_looks_the_same_in_every_panel():
    figure = training_curves({"loss/training": [1, 2], "loss/validation": [1, 2], "ged/validation": [1, 2]})
    loss, ged = panels(figure)
    for look in ("get_color", "get_linestyle"):
        training, validation, same = (getattr(line, look)() for line in (*loss.lines, *ged.lines))
        assert training != validation == same


def test_tick_labels_of_the_training_have_one_size_and_count_whole_epochs():
    for values in ([4000.0, 900, 180], [5.0, 0.2, 0.3], [1.0, 2.0, 3.0], [7.0]):
        (axis,) = panels(training_curves({"loss/training": values}))
        axis.figure.canvas.draw()
        ticks = [*axis.yaxis.get_major_ticks(), *axis.yaxis.get_minor_ticks(), *axis.xaxis.get_major_ticks()]
        shown = [tick.label1 for tick in ticks if tick.label1.get_text()]
        assert {label.get_fontsize() for label in shown} == {7}
        assert not any("$" in label.get_text() for label in shown)
        low, high = axis.get_xlim()
        epochs = [tick.label1.get_text() for tick in axis.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
        assert epochs and all(epoch.isdecimal() for epoch in epochs)
        assert axis.get_title() == ("loss (logarithmic)" if axis.get_yscale() == "log" else "loss")


@pytest.mark.parametrize("lines", [1, 2, 6, 16])
def test_the_names_of_lines_cover_nothing(lines):
    series = {"rank": [1.0, 2.0], **{f"deviation/axis {n + 1}": [1.0 + n, 2.0] for n in range(lines)}, "x/a": [1.0]}
    figure = training_curves({**series, "below/b": [1.0, 2.0]})
    figure.canvas.draw()
    boxes = [axis.get_window_extent() for axis in panels(figure)]
    words = [text.get_window_extent() for axis in panels(figure) for text in (axis.xaxis.label, axis.title)]
    for axis in panels(figure):
        if (legend := axis.get_legend()) is not None:
            place = legend.get_window_extent()
            assert not any(place.overlaps(other) for other in (*boxes, *words))
            assert figure.bbox.x0 <= place.x0 and place.x1 <= figure.bbox.x1 and place.y0 >= figure.bbox.y0
    assert min(box.height for box in boxes) > 1.2 * figure.dpi  # the panels keep their room


def test_a_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    figure = training_curves({"loss": [1.0, 2.0]})
    path = save_figure(figure, tmp_path / "deep" / "curves.png")
    before = path.read_bytes()
    assert before.startswith(b"\x89PNG")

    def fail(part, **_):
        part.write_bytes(b"half")
        raise OSError("no space")

    monkeypatch.setattr(figure, "savefig", fail)
    with pytest.raises(OSError, match="no space"):
        save_figure(figure, path)
    assert path.read_bytes() == before and [p.name for p in path.parent.iterdir()] == ["curves.png"]
    with pytest.raises(InputError, match="name it .png"):
        save_figure(figure, tmp_path / "curves.docx")
