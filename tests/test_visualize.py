"""Pictures show what they are given: a column per thing, an outline per mask, words where there is none."""

import warnings

import numpy as np
import pytest
from matplotlib.contour import ContourSet

from aleatoric.errors import InputError
from aleatoric.visualize import sample_panel, save_figure, training_curves


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
