"""Pictures: what the raters drew, alone or beside what the model samples, and how the training went.

Each function returns a ``matplotlib.figure.Figure`` that no window owns (matplotlib's global state and backend stay as
they are); :func:`save_figure` writes it. Colours are Okabe and Ito's, which the colour-blind tell apart, and
perceptually uniform maps. matplotlib is imported when something is drawn.
"""

from __future__ import annotations

from .curves import training_curves
from .drawing import RATER_COLORS, picture_format, save_figure
from .latents import (
    ScatterPanel,
    correlation_panels,
    freezing_curves,
    interpolation_grid,
    latent_axes,
)
from .panels import moments_panel, sample_panel
from .sheets import patch_sheet

__all__ = [
    "RATER_COLORS",
    "ScatterPanel",
    "correlation_panels",
    "freezing_curves",
    "interpolation_grid",
    "latent_axes",
    "moments_panel",
    "patch_sheet",
    "picture_format",
    "sample_panel",
    "save_figure",
    "training_curves",
]
