"""Effective rank and Gini index: limits, and their definitions by other ways of writing them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from aleatoric.errors import InputError
from aleatoric.metrics.functional import effective_rank, gini_index

SCALES = torch.rand(4, 3, 6, generator=torch.Generator().manual_seed(0)) ** 3


def test_effective_rank_is_the_exponential_of_scipys_entropy():
    expected = np.exp(entropy(SCALES.double().numpy(), axis=-1))
    np.testing.assert_allclose(effective_rank(SCALES.double()).numpy(), expected)


def test_gini_is_half_the_relative_mean_absolute_difference():
    difference = (SCALES.unsqueeze(-1) - SCALES.unsqueeze(-2)).abs().mean((-1, -2))
    torch.testing.assert_close(gini_index(SCALES), difference / SCALES.mean(-1) / 2)


@pytest.mark.parametrize("d", [1, 2, 6])
def test_limits(d):
    equal, single = torch.full((d,), 0.3), torch.eye(d)[0] * 7
    assert effective_rank(equal).item() == pytest.approx(d, rel=1e-6)
    assert gini_index(equal).item() == pytest.approx(0, abs=1e-6)
    assert effective_rank(single).item() == pytest.approx(1)
    assert gini_index(single).item() == pytest.approx(1 - 1 / d, abs=1e-6)


def test_order_and_size_of_the_scale_do_not_matter():
    for figure in (effective_rank, gini_index):
        torch.testing.assert_close(figure(SCALES.flip(-1) * 1e3), figure(SCALES))
        assert figure(SCALES).shape == (4, 3)


def test_a_vector_of_zeros_has_rank_zero_and_no_inequality():
    mixed = torch.stack([torch.zeros(4), torch.ones(4)])
    torch.testing.assert_close(effective_rank(mixed), torch.tensor([0.0, 4.0]))
    torch.testing.assert_close(gini_index(mixed), torch.tensor([0.0, 0.0]))


@pytest.mark.parametrize("figure", [effective_rank, gini_index])
@pytest.mark.parametrize("bad", [torch.tensor([1.0, -1.0]), torch.tensor(1.0), torch.zeros(3, 0)])
def test_refuses(figure, bad):
    with pytest.raises(InputError, match="scale h"):
        figure(bad)
