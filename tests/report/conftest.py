"""Evaluations to report on; others are written by ``from evaluation_folders import write_evaluation``."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation_folders import write_evaluation


@pytest.fixture(scope="session")
def three_models(tmp_path_factory) -> list[Path]:
    """A model near the raters, one far from them, one without latent vector: an evaluation each. Read only."""
    root = tmp_path_factory.mktemp("three")
    return [
        write_evaluation(root / "near", bundle="punet_segmentation", noise=1.0),
        write_evaluation(root / "far", bundle="generalized_punet_segmentation", variant="mixture_full", noise=4.0),
        write_evaluation(root / "plain", bundle="ssn_segmentation", noise=1.2, latent_dim=0),
    ]


@pytest.fixture(scope="session")
def cross_validation(tmp_path_factory) -> Path:
    """What ``tools/cross_validate.py`` leaves, of two models on two folds with two seeds. Read only."""
    root = tmp_path_factory.mktemp("cross_validation")
    for number, name in enumerate(("punet", "spunet")):
        for fold in (0, 1):
            for seed in (0, 1):
                folder = root / name / f"fold{fold}_seed{seed}" / "eval"
                write_evaluation(folder, bundle=f"{name}_segmentation", fold=fold, seed=seed, noise=1.0 + 2 * number)
    return root
