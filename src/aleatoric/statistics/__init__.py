"""How sure a number is: intervals, tests between models and the spread of trainings, with patients as the unit.

Slices of one patient resemble each other, so an interval that takes cases for independent is too narrow. Everything
here resamples, or ranks, patients with all their cases. NaN is a case for which a figure is undefined; it is left out.
"""

from __future__ import annotations

from .bootstrap import (
    METHOD,
    bootstrap_cases,
    bootstrap_sums,
    few_patients,
    paired_bootstrap,
    paired_difference,
    patient_bootstrap,
    patient_means,
)
from .comparison import Comparison, Verdict, compare_models, inside_noise
from .ranks import holm, paired_wilcoxon
from .runs import Spread, across_runs, difference_over_trainings, same_folds

__all__ = [
    "METHOD",
    "Comparison",
    "Spread",
    "Verdict",
    "across_runs",
    "bootstrap_cases",
    "bootstrap_sums",
    "compare_models",
    "difference_over_trainings",
    "few_patients",
    "holm",
    "inside_noise",
    "paired_bootstrap",
    "paired_difference",
    "paired_wilcoxon",
    "patient_bootstrap",
    "patient_means",
    "same_folds",
]
