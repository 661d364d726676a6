"""A report on what an evaluation really writes."""

from __future__ import annotations

import numpy as np
import pytest

from aleatoric.evaluation.record import FORMAT_VERSION
from aleatoric.report import collect, read_evaluations, report_sections

# An evaluation of a small network on a small data set, as that module's tests make it.
from test_evaluation import dataset, evaluate  # noqa: F401


@pytest.fixture(scope="module")
def written(dataset, tmp_path_factory):  # noqa: F811
    folder = tmp_path_factory.mktemp("written")
    evaluate(dataset, folder, pictures=0, resamples=200)
    return folder


def test_it_is_of_the_format_that_is_read():
    assert collect.FORMAT_VERSION == FORMAT_VERSION


def test_it_is_read_as_it_was_written(written):
    (one,) = read_evaluations([written])
    assert one.label == "unnamed" and one.npz is not None
    assert set(one.rows[0]) == {"case", "patient", "slice", "raters", "note", "fold"}
    for name, values in one.figures.items():
        assert np.nanmean(values) == pytest.approx(one.metrics[name], rel=1e-4, abs=1e-6), name
    assert set(one.metrics) - set(one.figures) >= {"aurc", "ece_pooled"}


def test_all_of_it_is_shown(written):
    sections = {section.anchor: section for section in report_sections(read_evaluations([written]))}
    assert list(sections) == ["summary", "energy", "calibration", "selection", "latent", "figures", "provenance"]
    assert [len(sections[name].pictures) for name in ("energy", "calibration", "selection", "latent")] == [3, 4, 2, 1]
    for section in sections.values():
        for picture in section.pictures:
            assert "nan" not in picture.alt
    captions = [table.caption for table in sections["figures"].tables]
    assert "Other figures" not in captions and len(captions) == 6
