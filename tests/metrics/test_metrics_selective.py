"""Risk-coverage and second-read curves against walking through all orders; their laws; the cumulative classes."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from aleatoric.errors import InputError
from aleatoric.metrics import AreaUnderRiskCoverage, SecondReadRisk
from aleatoric.metrics.functional import aurc, risk_coverage_curve, second_read_curve
from aleatoric.statistics import bootstrap_cases


@pytest.fixture
def random():
    return torch.Generator().manual_seed(0)


def orders(uncertainty):
    """Every order of the cases from the least to the most doubtful."""
    for order in permutations(range(len(uncertainty))):
        values = [uncertainty[place] for place in order]
        if values == sorted(values):
            yield list(order)


def twin_coverage(uncertainty, risk):
    """Mean over the orders of the mean risk of the first i."""
    curves = [
        [sum(risk[place] for place in order[:i]) / i for i in range(1, len(risk) + 1)] for order in orders(uncertainty)
    ]
    return np.mean(curves, axis=0)


def twin_second(uncertainty, first, second):
    """Mean over the orders of the mean risk with the last i read again."""
    curves = []
    for order in orders(uncertainty):
        for read in range(len(first) + 1):
            again = set(order[len(order) - read :])
            curves.append(np.mean([second[place] if place in again else first[place] for place in range(len(first))]))
    return np.reshape(curves, (-1, len(first) + 1)).mean(0)


TIED = [0.3, 0.1, 0.3, 0.3, 0.9, 0.1, 0.5]
RISK = [0.2, 0.4, 0.9, 0.1, 0.8, 0.0, 0.3]
SECOND = [0.1, 0.5, 0.2, 0.1, 0.3, 0.0, 0.3]


class TestAgainstAllOrders:
    def test_risk_coverage(self):
        curve = risk_coverage_curve(torch.tensor(TIED), torch.tensor(RISK))
        np.testing.assert_allclose(curve.coverage, np.arange(1, 8) / 7, rtol=1e-6)
        np.testing.assert_allclose(curve.risk, twin_coverage(TIED, RISK), rtol=1e-5)
        np.testing.assert_allclose(curve.oracle, twin_coverage(RISK, RISK), rtol=1e-5, atol=1e-7)
        assert aurc(torch.tensor(TIED), torch.tensor(RISK)) == pytest.approx(twin_coverage(TIED, RISK).mean())
        excess = twin_coverage(TIED, RISK).mean() - twin_coverage(RISK, RISK).mean()
        assert aurc(torch.tensor(TIED), torch.tensor(RISK), excess=True) == pytest.approx(excess)

    @pytest.mark.parametrize("second", [None, SECOND], ids=["expert is right", "expert has a risk"])
    def test_second_read(self, second):
        given = [0.0] * 7 if second is None else second
        curve = second_read_curve(
            torch.tensor(TIED), torch.tensor(RISK), None if second is None else torch.tensor(second)
        )
        np.testing.assert_allclose(curve.share, np.arange(8) / 7, rtol=1e-6)
        np.testing.assert_allclose(curve.risk, twin_second(TIED, RISK, given), atol=1e-6)
        gain = [one - two for one, two in zip(RISK, given)]
        np.testing.assert_allclose(curve.oracle, twin_second(gain, RISK, given), atol=1e-6)
        np.testing.assert_allclose(curve.random, np.linspace(np.mean(RISK), np.mean(given), 8), atol=1e-6)

    def test_one_tie_of_all_is_the_random_order(self):
        curve = second_read_curve(torch.ones(7), torch.tensor(RISK))
        torch.testing.assert_close(curve.risk, curve.random)
        assert aurc(torch.ones(7), torch.tensor(RISK)) == pytest.approx(np.mean(RISK))


def test_the_order_of_the_cases_does_not_matter(random):
    uncertainty, risk = torch.randint(0, 4, (50,), generator=random).float(), torch.rand(50, generator=random)
    shuffled = torch.randperm(50, generator=random)
    for function in (risk_coverage_curve, second_read_curve):
        for one, two in zip(function(uncertainty, risk), function(uncertainty[shuffled], risk[shuffled])):
            torch.testing.assert_close(one, two)
    torch.testing.assert_close(aurc(uncertainty, risk), aurc(uncertainty[shuffled], risk[shuffled]))


def test_only_the_order_of_the_uncertainties_matters(random):
    uncertainty, risk = torch.rand(2, 50, generator=random)
    torch.testing.assert_close(aurc(uncertainty, risk), aurc(uncertainty.exp() * 7 - 100, risk))
    torch.testing.assert_close(aurc(uncertainty, 2 * risk + 1), 2 * aurc(uncertainty, risk) + 1)


def test_the_oracle_is_best_and_the_reverse_worst(random):
    risk = torch.rand(40, generator=random)
    areas = [aurc(torch.rand(40, generator=random), risk) for _ in range(200)]
    assert aurc(risk, risk) < min(areas) and aurc(-risk, risk) > max(areas)
    assert aurc(risk**3, risk, excess=True) == pytest.approx(0, abs=1e-7)
    assert all(aurc(torch.rand(40, generator=random), risk, excess=True) > 0 for _ in range(20))
    curve = second_read_curve(torch.rand(40, generator=random), risk)
    assert (curve.oracle <= curve.risk + 1e-6).all() and (curve.oracle <= curve.random + 1e-6).all()
    assert curve.risk[0] == pytest.approx(risk.mean()) and curve.risk[-1] == pytest.approx(0, abs=1e-6)


def test_cases_without_a_value_are_left_out(random):
    uncertainty, risk, second = torch.rand(3, 20, generator=random)
    uncertainty[3], risk[7], second[11] = torch.nan, torch.nan, torch.nan
    two = torch.tensor([number not in (3, 7) for number in range(20)])
    three = two & ~second.isnan()
    torch.testing.assert_close(aurc(uncertainty, risk), aurc(uncertainty[two], risk[two]))
    for one, other in zip(risk_coverage_curve(uncertainty, risk), risk_coverage_curve(uncertainty[two], risk[two])):
        torch.testing.assert_close(one, other)
    for one, other in zip(
        second_read_curve(uncertainty, risk, second), second_read_curve(uncertainty[three], risk[three], second[three])
    ):
        torch.testing.assert_close(one, other)
    weights = torch.randint(0, 3, (20,), generator=random)
    torch.testing.assert_close(
        aurc(uncertainty, risk, weights=weights), aurc(uncertainty[two], risk[two], weights=weights[two])
    )
    nothing = torch.full((4,), torch.nan)
    assert aurc(nothing, nothing).isnan() and aurc(nothing, nothing, excess=True).isnan()


def test_weights_are_cases_that_occur_so_often(random):
    uncertainty, risk = torch.randint(0, 6, (12,), generator=random).float(), torch.rand(12, generator=random)
    weights = torch.randint(0, 4, (5, 12), generator=random)
    for excess in (False, True):
        twin = [aurc(uncertainty.repeat_interleave(w), risk.repeat_interleave(w), excess=excess) for w in weights]
        torch.testing.assert_close(aurc(uncertainty, risk, excess=excess, weights=weights), torch.stack(twin))
    assert aurc(uncertainty, risk, weights=torch.zeros(12)).isnan()


def test_has_an_interval_over_patients(random):
    """Where nobody is like anybody, the interval holds the figure; where all are alike, it is a point."""
    risk = torch.rand(60, generator=random)
    uncertainty = risk + 0.3 * torch.rand(60, generator=random)
    low, high = bootstrap_cases(lambda w: aurc(uncertainty, risk, weights=torch.from_numpy(w)), range(60))
    assert low < aurc(uncertainty, risk).item() < high and high - low < 0.3
    low, high = bootstrap_cases(lambda w: aurc(uncertainty, 0 * risk + 0.4, weights=torch.from_numpy(w)), range(60))
    assert low == pytest.approx(0.4) and high == pytest.approx(0.4)


def test_fewer_points_lie_on_the_same_curve(random):
    uncertainty, risk = torch.rand(2, 37, generator=random)
    for function, ends in ((risk_coverage_curve, (1 / 37, 1.0)), (second_read_curve, (0.0, 1.0))):
        whole, few = function(uncertainty, risk), function(uncertainty, risk, num_points=10)
        assert len(few[0]) == 10 and (few[0][0].item(), few[0][-1].item()) == pytest.approx(ends)
        places = torch.isclose(whole[0][:, None], few[0]).nonzero()[:, 0]
        for one, two in zip(whole, few):
            torch.testing.assert_close(one[places], two)
        assert len(function(uncertainty, risk, num_points=100)[0]) == len(whole[0])


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int64, torch.float64])
def test_risks_of_whole_numbers_have_means_with_fractions(kind):
    uncertainty, risk = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 1, 0, 1])
    assert aurc(uncertainty, risk.to(kind)).item() == pytest.approx((0 + 1 / 2 + 1 / 3 + 2 / 4) / 4)
    for function in (risk_coverage_curve, second_read_curve):
        expected = function(uncertainty.float(), risk.float())
        for one, two in zip(
            function(uncertainty.to(kind if kind != torch.bool else torch.uint8), risk.to(kind)), expected
        ):
            torch.testing.assert_close(one, two.to(torch.float64 if kind == torch.float64 else torch.float32))
    said = risk_coverage_curve(uncertainty > 1, risk.to(kind)).risk
    torch.testing.assert_close(said.float(), torch.full((4,), 0.5))


class TestClasses:
    def test_in_batches_and_decollated(self, random):
        uncertainty, risk, second = torch.rand(3, 10, generator=random)
        area, excess, read = AreaUnderRiskCoverage(), AreaUnderRiskCoverage(excess=True), SecondReadRisk(0.3)
        for metric in (area, excess, read):
            metric(uncertainty[:4], risk[:4])
            metric(uncertainty[4:8, None], risk[4:8, None])
            metric(list(uncertainty[8:]), list(risk[8:]))
        torch.testing.assert_close(area.aggregate(), aurc(uncertainty, risk))
        torch.testing.assert_close(excess.aggregate(), aurc(uncertainty, risk, excess=True))
        torch.testing.assert_close(read.aggregate(), second_read_curve(uncertainty, risk).risk[3])
        torch.testing.assert_close(area.curve(5).risk, risk_coverage_curve(uncertainty, risk, 5).risk)
        torch.testing.assert_close(area.per_case(), torch.stack([uncertainty, risk], 1))
        read.reset()
        read(uncertainty, risk, second_risk=second)
        torch.testing.assert_close(read.aggregate(), second_read_curve(uncertainty, risk, second).risk[3])

    @pytest.mark.parametrize("as_list", [False, True])
    def test_the_second_readers_risk_of_a_list(self, random, as_list):
        uncertainty, risk, second = torch.rand(3, 6, generator=random)
        metric, form = SecondReadRisk(0.5), list if as_list else torch.as_tensor
        for some in (slice(0, 4), slice(4, 6)):
            metric(form(uncertainty[some]), form(risk[some]), second_risk=form(second[some]))
        torch.testing.assert_close(metric.per_case(), torch.stack([uncertainty, risk, second], 1))
        if as_list:
            metric.reset()
            metric(list(uncertainty), list(risk), second_risk=second)
        torch.testing.assert_close(metric.aggregate(), second_read_curve(uncertainty, risk, second).risk[3])

    def test_all_batches_have_a_second_reader_or_none(self, random):
        uncertainty, risk, second = torch.rand(3, 6, generator=random)
        metric = SecondReadRisk()
        metric(uncertainty, risk)
        with pytest.raises(InputError, match="came with second_risk, unlike those before"):
            metric(uncertainty, risk, second_risk=second)
        metric.reset()
        metric(uncertainty, risk, second_risk=second)
        with pytest.raises(InputError, match="came without second_risk, unlike those before"):
            metric(list(uncertainty), list(risk))
        area = AreaUnderRiskCoverage()
        area(uncertainty, risk, second_risk=second)  # which has no use for it
        torch.testing.assert_close(area.aggregate(), aurc(uncertainty, risk))

    def test_a_share_between_two_numbers_of_cases(self):
        for share, expected in ((0.0, 0.5), (0.25, 0.375), (0.5, 0.25), (1.0, 0.0)):
            metric = SecondReadRisk(share)
            metric(torch.tensor([0.1, 0.2]), torch.tensor([0.5, 0.5]))
            assert metric.aggregate() == pytest.approx(expected)


BAD = {
    "lengths": (lambda: aurc(torch.rand(3), torch.rand(4)), r"uncertainty has shape \(3,\) and risk \(4,\)"),
    "axes": (lambda: risk_coverage_curve(torch.rand(3, 1), torch.rand(3, 1)), "one number per case"),
    "second": (lambda: second_read_curve(torch.rand(3), torch.rand(3), torch.rand(2)), r"second_risk \(2,\)"),
    "weights": (lambda: aurc(torch.rand(3), torch.rand(3), weights=torch.rand(5)), "weights have shape"),
    "points": (lambda: risk_coverage_curve(torch.rand(3), torch.rand(3), 1), "num_points is 1"),
    "share": (lambda: SecondReadRisk(1.5), "share is 1.5"),
    "no risk": (lambda: AreaUnderRiskCoverage()(torch.rand(3)), "got no risk"),
    "columns": (lambda: AreaUnderRiskCoverage()(torch.rand(3, 2), torch.rand(3)), "one number per case"),
    "no case": (lambda: AreaUnderRiskCoverage().aggregate(), "seen no case"),
    "empty batch": (lambda: AreaUnderRiskCoverage()(torch.rand(0), torch.rand(0)), "a batch of no case"),
    "empty list": (lambda: SecondReadRisk()([], []), "a batch of no case"),
    "list": (lambda: aurc([0.1, 0.2], torch.rand(2)), "uncertainty is a list"),
    "list of risks": (lambda: risk_coverage_curve(torch.rand(2), [0.1, 0.2]), "risk is a list"),
    "list of second risks": (lambda: second_read_curve(torch.rand(2), torch.rand(2), [0.1, 0.2]), "second_risk is a"),
    "list of weights": (lambda: aurc(torch.rand(2), torch.rand(2), weights=[1, 2]), "weights is a list"),
    "array": (lambda: second_read_curve(torch.rand(2), np.ones(2)), "risk is a ndarray"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case):
    call, words = BAD[case]
    with pytest.raises(InputError, match=words):
        call()
