"""What a report tells its pictures: which model is which, and one scale for all of them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from aleatoric.report import drawings
from aleatoric.report.models import Model
from aleatoric.visualize import model_style

LINE = np.linspace(0, 1, 5)


def model(name, tmp_path, *, latents=None, curves=True):
    """One with a training of three epochs, and with what is asked for."""
    one = LINE.tolist()
    record = {
        "dataset": {},
        "curves": {
            "presence": {"forecasts": [30, 40, 60, 50, 35], "samples": one, "raters": one},
            "reliability": {"tumor": {"pixels": [9, 8, 7, 6, 5], "probability": one, "frequency": one}},
            "area_coverage": {"level": one, "coverage": one},
            "risk_coverage": {"coverage": one, "risk": one, "oracle": one},
        },
    }
    npz = None
    if latents is not None:
        npz = tmp_path / f"{name}.npz"
        np.savez(npz, latent_mean=latents, latent_scales=latents)
    run = SimpleNamespace(
        record=record if curves else {"dataset": {}},
        npz=npz,
        training=[{"epoch": 1.0, "val_ged": 0.5}, {"epoch": 2.0, "val_ged": 0.4}] if curves else None,
    )
    areas = ("area_samples", "area_samples_low", "area_samples_high", "area_raters")
    figures = dict.fromkeys(("share_better_than_mean", *areas), np.zeros(9)) if curves else {}
    return Model(name, (run,), [(str(case),) for case in range(9)], np.arange(9), figures)


@pytest.fixture
def drawn(monkeypatch):
    """name of a picture -> its figure."""
    figures = {}

    def keep(figure, name):
        figures[name.removeprefix("picture-")] = figure
        return "<svg/>"

    monkeypatch.setattr(drawings, "figure_svg", keep)
    return figures


def test_a_model_has_its_look_where_the_first_one_is_missing(drawn, tmp_path):
    """Validation's GED of the second of two models was drawn in the first one's colour."""
    models = [model("without", tmp_path, curves=False), model("with", tmp_path)]
    drawings.letter_value_picture(models, "share_better_than_mean")
    drawings.reliability_pictures(models)
    drawings.presence_picture(models)
    drawings.area_pictures(models)
    drawings.selection_pictures(models)
    drawings.course_picture(models, "training", "val_ged", "GED", "Words.")
    names = ["letters-share-better-than-mean", "reliability-0", "presence", "coverage", "areas", "risk-coverage"]
    assert list(drawn) == [*names, "training-val-ged"]
    for name, figure in drawn.items():
        colors = {line.get_color() for line in figure.axes[0].lines}
        assert model_style(1).color in colors and model_style(0).color not in colors, name
    assert drawn["letters-share-better-than-mean"].axes[0].get_xlim() == (0, 1)
    assert drawn["risk-coverage"].axes[0].get_xlim() == (0, 1)


@pytest.mark.parametrize(("least", "scale"), [(0.1, "log"), (0.0, "linear")])
def test_deviations_of_all_models_have_one_scale(drawn, tmp_path, least, scale):
    narrow, wide = np.full((9, 3), 0.1), np.full((9, 3), 0.1) * [1, 10, 1000]
    wide[0, 0] = least
    models = [model("a", tmp_path, latents=narrow), model("b", tmp_path), model("c", tmp_path, latents=wide)]
    drawings.latent_pictures(models)
    assert list(drawn) == ["latent-0", "latent-2"]
    for place, figure in zip((0, 2), drawn.values()):
        assert figure.axes[1].get_yscale() == scale
        assert model_style(place).color in {line.get_color() for line in figure.axes[1].lines}
