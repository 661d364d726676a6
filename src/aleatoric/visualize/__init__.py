"""Pictures: what the raters drew, alone or beside what the model samples, and how the training went.

Each function returns a ``matplotlib.figure.Figure`` that no window owns (matplotlib's global state and backend stay as
they are); :func:`save_figure` writes it. Colours are Okabe and Ito's, which the colour-blind tell apart, and
perceptually uniform maps. matplotlib is imported when something is drawn.
"""

from __future__ import annotations

from .calibration import Areas, area_scatter, calibration_diagram, coverage_curves
from .comparing import MOST_MODELS, figure_svg, model_style
from .curves import training_curves
from .drawing import RATER_COLORS, picture_format, save_figure
from .evaluation import course_curves, energy_terms, latent_boxes, letter_value_plot, letter_values
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
    "MOST_MODELS",
    "RATER_COLORS",
    "Areas",
    "ScatterPanel",
    "area_scatter",
    "calibration_diagram",
    "correlation_panels",
    "course_curves",
    "coverage_curves",
    "energy_terms",
    "figure_svg",
    "freezing_curves",
    "interpolation_grid",
    "latent_axes",
    "latent_boxes",
    "letter_value_plot",
    "letter_values",
    "model_style",
    "moments_panel",
    "patch_sheet",
    "picture_format",
    "sample_panel",
    "save_figure",
    "training_curves",
]
