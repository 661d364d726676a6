"""Patient-level intervals, paired tests, Holm's correction and the spread of runs, against scipy and counting."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtr

from aleatoric import statistics
from aleatoric.errors import InputError
from aleatoric.statistics import (
    across_runs,
    bootstrap_cases,
    bootstrap_sums,
    compare_models,
    difference_over_trainings,
    few_patients,
    holm,
    inside_noise,
    paired_bootstrap,
    paired_wilcoxon,
    patient_bootstrap,
    same_folds,
)


@pytest.fixture
def random():
    return np.random.default_rng(0)


def cohort(random, patients=15, figures=None):
    """Values of 1 to 9 cases a patient, which share what is the patient's own; and the patients' names."""
    names = np.repeat([f"p{number}" for number in range(patients)], random.integers(1, 10, patients))
    shape = (len(names),) if figures is None else (len(names), figures)
    own = random.normal(size=(patients, *shape[1:]))
    order = random.permutation(len(names))
    values = own[np.char.lstrip(names, "p").astype(int)] + 0.3 * random.normal(size=shape)
    return values[order], names[order]


def expanded(level, patients):
    """The level whose plain percentile interval is the expanded one."""
    return 1 - 2 * ndtr(-np.sqrt(patients / (patients - 1)) * stats.t.isf((1 - level) / 2, patients - 1))


class TestPatientBootstrap:
    def test_agrees_with_scipy(self, random):
        """A sum and a count per patient are what scipy can resample in pairs; plain percentiles, of another level."""
        values, patients = cohort(random)
        groups = [values[patients == name] for name in np.unique(patients)]
        sums, counts = np.array([group.sum() for group in groups]), np.array([len(group) for group in groups])
        level = expanded(0.9, counts.sum() ** 2 / (counts**2).sum())  # patients of unlike size count as fewer
        twin = stats.bootstrap(
            (sums, counts),
            lambda s, c, axis=-1: s.sum(axis) / c.sum(axis),
            paired=True,
            n_resamples=100_000,
            confidence_level=level,
            method="percentile",
            rng=random,
        ).confidence_interval
        ours = patient_bootstrap(values, patients, 100_000, 0.9)
        np.testing.assert_allclose(ours, twin, atol=0.015 * (twin.high - twin.low))

    def test_one_case_a_patient_and_many_of_them_is_students_interval(self, random):
        values = random.normal(size=400)
        half = stats.t.isf(0.025, 399) * values.std(ddof=1) / 20
        low, high = patient_bootstrap(values, np.arange(400), 40_000)
        np.testing.assert_allclose((low, high), (values.mean() - half, values.mean() + half), atol=0.03 * half)

    def test_of_few_patients_is_as_wide_as_students(self, random):
        """The plain percentile interval of six values is a third too narrow."""
        values = np.array([-5.0, -3.0, -1.0, 1.0, 3.0, 5.0])
        half = stats.t.isf(0.05, 5) * values.std(ddof=1) / np.sqrt(6)
        low, high = patient_bootstrap(values, range(6), 40_000, level=0.9)
        assert high - low == pytest.approx(2 * half, rel=0.06)

    def test_figures_at_once_are_figures_one_by_one(self, random):
        values, patients = cohort(random, figures=5)
        values[random.random(values.shape) < 0.2] = np.nan
        values[:, 4] = np.nan
        low, high = patient_bootstrap(values, patients, 500)
        assert low.shape == high.shape == (5,) and np.isnan([low[4], high[4]]).all()
        for number in range(4):
            single = patient_bootstrap(values[:, number], patients, 500)
            np.testing.assert_allclose(single, (low[number], high[number]))
            there = ~np.isnan(values[:, number])
            assert low[number] < values[there, number].mean() < high[number]

    def test_a_case_without_a_value_is_as_if_it_were_not_there(self, random):
        values, patients = cohort(random)
        kept = np.unique(patients, return_index=True)[1]  # a case of each, so that nobody is gone
        gaps = (random.random(len(values)) < 0.3) & ~np.isin(np.arange(len(values)), kept)
        assert gaps.any()
        np.testing.assert_allclose(
            patient_bootstrap(np.where(gaps, np.nan, values), patients, 500),
            patient_bootstrap(values[~gaps], patients[~gaps], 500),
        )

    def test_resamples_without_a_value_are_left_out(self, random):
        """Of five patients in five hundred who have one, a resample in 150 has none."""
        values = np.full(500, np.nan)
        values[:5] = 1, 1, 1, 2, 2
        low, high = patient_bootstrap(values, range(500), 3000)
        assert low == 1 and 1.4 < high <= 2

    def test_order_and_names_do_not_matter(self, random):
        values, patients = cohort(random)
        order = random.permutation(len(values))
        once = patient_bootstrap(values, patients, 500)
        np.testing.assert_allclose(patient_bootstrap(values[order], patients[order], 500), once)
        np.testing.assert_allclose(patient_bootstrap(values, [f"x{name}" for name in patients], 500), once)
        np.testing.assert_allclose(patient_bootstrap(2 * values + 1, patients, 500), 2 * np.array(once) + 1)
        assert patient_bootstrap(values, patients, 500, seed=1) != once

    def test_doubling_every_case_makes_nothing_surer(self, random):
        """Two slices that say the same are no second patient."""
        values, patients = cohort(random)
        np.testing.assert_allclose(
            patient_bootstrap(np.repeat(values, 2), np.repeat(patients, 2), 500),
            patient_bootstrap(values, patients, 500),
        )

    def test_blocks_do_not_show(self, random, monkeypatch):
        values, patients = cohort(random, figures=3)
        whole = patient_bootstrap(values, patients, 1000)
        monkeypatch.setattr(statistics.bootstrap, "_BLOCK", 700)
        np.testing.assert_allclose(patient_bootstrap(values, patients, 1000), whole)

    def test_of_fewer_than_five_patients_there_is_no_interval(self):
        assert np.isnan(patient_bootstrap([1.0, 2.0], ["a", "a"], 100)).all()
        values = np.arange(10.0).reshape(5, 2)
        values[0, 1] = np.nan
        low, high = patient_bootstrap(values, range(5), 100)
        assert low[0] < high[0] and np.isnan([low[1], high[1]]).all()
        assert np.isnan(bootstrap_cases(lambda w: w.sum(1), range(4), 100)).all()

    @pytest.mark.slow
    @pytest.mark.parametrize("sizes", ["geometric", "pareto"])
    def test_covers_the_truth_where_patients_have_unlike_numbers_of_cases(self, random, sizes):
        """Without Kish's number it is .92 of geometric and .87 of Pareto sizes."""
        hits = 0
        for _ in range(600):
            of = random.geometric(0.2, 10) if sizes == "geometric" else np.ceil(3 * random.pareto(1.2, 10) + 1)
            names = np.repeat(np.arange(10), np.minimum(of, 200).astype(int))
            low, high = patient_bootstrap(
                random.normal(size=10)[names] + 0.5 * random.normal(size=len(names)), names, 500
            )
            hits += low <= 0 <= high
        assert hits / 600 > 0.935

    @pytest.mark.slow
    def test_covers_what_it_says_where_cases_would_not(self, random):
        """400 data sets of 20 patients with up to 30 slices that share their patient's own deviation."""
        hits = np.zeros(2)
        for _ in range(400):
            names = np.repeat(np.arange(20), random.integers(1, 31, 20))
            values = random.normal(size=20)[names] + random.normal(size=len(names))
            for way, unit in enumerate((names, np.arange(len(names)))):
                low, high = patient_bootstrap(values, unit, 1000)
                hits[way] += low <= 0 <= high
        by_patients, by_cases = hits / 400
        assert 0.90 < by_patients < 0.98 and by_cases < 0.6


class TestFiguresOfAllCases:
    def test_a_mean_is_the_same_in_three_ways(self, random):
        values, patients = cohort(random)
        once = patient_bootstrap(values, patients, 500)
        tables = np.stack([values, np.ones_like(values)], axis=1)
        np.testing.assert_allclose(bootstrap_sums(tables, patients, lambda s: s[:, 0] / s[:, 1], 500), once)
        np.testing.assert_allclose(bootstrap_cases(lambda w: w @ values / w.sum(1), patients, 500), once)

    def test_sums_of_tables_of_any_shape(self, random):
        """The calibration error of summed bins, resample by resample."""
        patients = random.integers(0, 8, 40)
        bins = random.random((40, 2, 5, 3))

        def error(sums):
            return (np.abs(sums[..., 1] - sums[..., 2]) / sums[..., 0].sum(-1, keepdims=True)).sum(-1)

        low, high = bootstrap_sums(bins, patients, error, 300)
        assert low.shape == (2,) and (low < error(bins.sum(0)[None])[0]).all() and (low < high).all()
        weighted = bootstrap_cases(lambda w: error(np.einsum("bn,nctk->bctk", w, bins)), patients, 300)
        np.testing.assert_allclose(weighted, (low, high))

    def test_a_distance_is_reflected_at_its_estimate(self, random):
        patients = np.arange(30)
        tables = np.stack([random.normal(size=30), np.ones(30)], axis=1)

        def size(sums):
            return np.abs(sums[:, 0] / sums[:, 1])

        low, high = bootstrap_sums(tables, patients, size, 500)
        estimate = size(tables.sum(0, keepdims=True))[0]
        found = bootstrap_sums(tables, patients, size, 500, distance=True)
        np.testing.assert_allclose(found, (max(0, 2 * estimate - high), 2 * estimate - low))

    def test_a_distance_of_nothing_but_noise_is_covered_more_often(self, random):
        """The mean of absolute means of nine columns that are 0: no resample is that small."""
        hits = np.zeros(2)
        for _ in range(100):
            tables = np.stack([random.normal(size=(40, 9)), np.ones((40, 9))], axis=1)
            for way in (False, True):
                low, _ = bootstrap_sums(
                    tables, range(40), lambda s: np.abs(s[:, 0] / s[:, 1]).mean(-1), 200, distance=way
                )
                hits[int(way)] += low <= 0
        assert hits[0] == 0 and hits[1] > 40

    def test_patients_are_drawn_whole(self, random):
        patients = random.integers(0, 6, 30)
        seen = []
        bootstrap_cases(lambda w: seen.append(w) or w.sum(1), patients, 200)
        (weights,) = seen
        for name in range(6):
            assert (weights[:, patients == name] == weights[:, patients == name][:, :1]).all()
        each = np.stack([weights[:, np.flatnonzero(patients == name)[0]] for name in range(6)])
        assert (each.sum(0) == 6).all() and each.mean() == pytest.approx(1)


class TestWilcoxon:
    def test_agrees_with_scipy_on_patient_means(self, random):
        for number in (1, 7, 30, 80):  # exact up to fifty
            one, patients = cohort(random, number)
            two = one + 0.2 * random.normal(size=len(one)) + 0.05
            means = [[v[patients == name].mean() for name in np.unique(patients)] for v in (one, two)]
            assert paired_wilcoxon(one, two, patients) == pytest.approx(stats.wilcoxon(*means).pvalue)

    def test_ties_by_counting_all_signs(self, random):
        """Every way of giving the signs to the ranks is as likely."""
        for number in (1, 2, 5, 9, 17, 18):  # scipy itself permutes up to 13
            differences = random.integers(-3, 5, number).astype(float)
            kept = differences[differences != 0]
            ranks = stats.rankdata(np.abs(kept))
            law = (np.arange(2 ** len(kept))[:, None] >> np.arange(len(kept)) & 1) @ ranks
            observed = ranks[kept > 0].sum()
            twin = min(1.0, 2 * min((law <= observed).mean(), (law >= observed).mean()))
            assert paired_wilcoxon(differences, np.zeros(number), range(number)) == pytest.approx(twin)

    def test_laws(self, random):
        one, patients = cohort(random, figures=3)
        two = one + 0.3 * random.normal(size=one.shape) + 0.1
        p = paired_wilcoxon(one, two, patients)
        assert p.shape == (3,) and ((p > 0) & (p <= 1)).all()
        np.testing.assert_allclose(paired_wilcoxon(two, one, patients), p)
        assert (paired_wilcoxon(one, one, patients) == 1).all()
        two[:, 1] = np.nan
        assert np.isnan(paired_wilcoxon(one, two, patients)[1])

    def test_patients_without_a_difference_are_left_out(self, random):
        one, two = random.normal(size=(2, 12))
        padded = paired_wilcoxon(np.append(one, [1, 2, 3]), np.append(two, [1, 2, 3]), range(15))
        assert padded == paired_wilcoxon(one, two, range(12))

    @pytest.mark.parametrize("kept", [np.float32, lambda v: float(f"{v:.6g}")], ids=["float32", "six digits"])
    def test_figures_are_rounded_as_they_are_written(self, random, kept):
        one, gaps = random.random(12), np.array([1, 1, 1, 1, 1, 1, 1, 2, 2, -1, -1, -2]) / 10
        exact = paired_wilcoxon(gaps, np.zeros(12), range(12))
        written = [[float(kept(v)) for v in values] for values in (one + 1, one + 1 - gaps)]
        assert paired_wilcoxon(*written, range(12)) == pytest.approx(exact)

    def test_what_only_rounding_tells_apart_is_equal(self, random):
        same = np.array([0.1 + 0.2] * 10 + [0.3] * 10)
        assert paired_wilcoxon(same, np.full(20, 0.3), range(20)) == 1
        one = random.random(12)
        signs = np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1])
        tied = paired_wilcoxon(one, one - 0.1 * signs, range(12))
        assert tied == pytest.approx(paired_wilcoxon(signs.astype(float), np.zeros(12), range(12)))

    def test_a_patient_has_one_vote(self, random):
        one, two = random.normal(size=(2, 12))
        often = np.repeat(np.arange(12), 20)
        assert paired_wilcoxon(one[often], two[often], often) == pytest.approx(paired_wilcoxon(one, two, range(12)))


class TestHolm:
    def test_by_hand(self):
        np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])

    def test_steps_down_as_defined(self, random):
        """A test is rejected at a level if it and all smaller p-values pass their own bound."""
        for _ in range(50):
            p = random.random(7) ** 3
            adjusted = holm(p)
            for level in random.random(10):
                rejected = set()
                for k, place in enumerate(np.argsort(p)):
                    if p[place] > level / (7 - k):
                        break
                    rejected.add(place)
                assert rejected == set(np.flatnonzero(adjusted <= level))

    def test_families_and_what_is_no_test(self, random):
        p = random.random((6, 3))
        for column, adjusted in zip(p.T, holm(p).T):
            np.testing.assert_array_equal(adjusted, holm(column))
        gaps = np.array([0.01, np.nan, 0.04])
        np.testing.assert_allclose(holm(gaps), [0.02, np.nan, 0.04])
        assert holm([0.3]) == [0.3] and (holm([0.9, 0.9]) == 1).all()


class TestCompareModels:
    def test_matrices(self, random):
        one, patients = cohort(random, 30, figures=2)
        far = one + [1.0, 0.0] + 0.1 * random.normal(size=one.shape)
        near = one + 0.1 * random.normal(size=one.shape)
        result = compare_models({"one": one, "far": far, "near": near}, patients, resamples=500)
        assert result.difference.shape == result.inside.shape == (3, 3, 2) and result.patients == 30
        np.testing.assert_allclose(result.difference, -result.difference.swapaxes(0, 1))
        np.testing.assert_allclose(result.low, -result.high.swapaxes(0, 1))
        np.testing.assert_allclose(result.difference[0, 1], one.mean(0) - far.mean(0))
        np.testing.assert_allclose(
            (result.low[0, 1], result.high[0, 1]), paired_bootstrap(one, far, patients, resamples=500)
        )
        for number in range(2):
            pairs = [
                paired_wilcoxon(a[:, number], b[:, number], patients) for a, b in ((one, far), (one, near), (far, near))
            ]
            np.testing.assert_allclose(result.p[[0, 0, 1], [1, 2, 2], number], pairs)
            np.testing.assert_allclose(result.adjusted[[1, 2, 2], [0, 0, 1], number], holm(pairs))
        np.testing.assert_allclose(result.adjusted_figures[0, 2], holm(result.p[0, 2]))
        assert result.inside[..., 0].tolist() == [[True, False, True], [False, True, False], [True, False, True]]
        assert result.verdict("one", "near", 0).inside and not result.verdict("one", "far", 0).inside
        assert (result.difference[[0, 1], [0, 1]] == 0).all() and (result.adjusted[[0, 1], [0, 1]] == 1).all()

    def test_every_reason_of_a_verdict_is_in_the_matrix(self, random):
        one, patients = cohort(random, 30)
        values = {"one": one, "two": one + 0.5 + 0.1 * random.normal(size=one.shape)}
        for spread, inside in ((0.01, False), (0.6, True)):
            runs = {"one": {(0, 0): 1 - spread, (0, 1): 1 + spread}, "two": {(0, 0): 1.5, (0, 1): 1.5}}
            result = compare_models(values, patients, trainings=runs, resamples=200)
            assert result.inside[0, 1] == result.verdict("one", "two").inside == inside
            half = float(difference_over_trainings(runs["one"], runs["two"]))
            assert result.trainings[0, 1] == result.trainings[1, 0] == half
            assert f"over trainings ± {half:.3g}" in result.verdict("one", "two").sentence
        assert np.isnan(compare_models(values, patients, resamples=200).trainings).all()

    def test_patients_with_many_cases_may_say_the_opposite_of_most(self, random):
        """Fifty patients with a case in which one is a little better, ten with fifty in which it is much worse."""
        patients = np.concatenate([np.arange(50), np.repeat(np.arange(50, 60), 50)])
        gap = np.where(patients < 50, -0.01, 0.05) + 0.003 * random.normal(size=len(patients))
        result = compare_models({"one": gap, "two": np.zeros(len(gap))}, patients, resamples=500)
        assert result.difference[0, 1] > 0.03 and result.low[0, 1] > 0 and result.adjusted[0, 1] < 0.05
        assert result.way[0, 1] == -1 and result.way[1, 0] == 1 and result.inside.all()
        assert "points the other way" in result.verdict("one", "two").sentence

    def test_patients_without_a_value_do_not_count(self, random):
        one = np.where(np.arange(20) < 5, np.arange(20.0), np.nan)
        result = compare_models({"one": one, "two": one + 1 + 0.1 * random.random(20)}, range(20), resamples=100)
        assert result.patients == 20 and result.counted[0, 1] == result.counted[1, 0] == 5
        one[1:] = np.nan
        result = compare_models({"one": one, "two": one + 1}, range(20), resamples=100)
        assert "there is no interval over 1 patient;" in result.verdict("one", "two").sentence

    def test_a_case_counts_where_both_have_a_value(self, random):
        one, patients = cohort(random)
        two = one + random.normal(size=one.shape)
        with_gaps, other = one.copy(), two.copy()
        with_gaps[:3], other[2:6] = np.nan, np.nan
        gaps = compare_models({"a": with_gaps, "b": other}, patients, resamples=200)
        assert gaps.difference[0, 1] == pytest.approx((one - two)[6:].mean())

    def test_other_cases_are_refused(self, random):
        one, patients = cohort(random)
        names = [f"case {number}" for number in range(len(one))]
        with pytest.raises(InputError, match=r"one and two were not scored on the same cases.*case 0.*evaluate both"):
            compare_models({"one": one, "two": one}, patients, {"one": names, "two": names[::-1]})
        with pytest.raises(InputError, match="not scored on the same cases"):
            compare_models({"one": one, "two": one}, patients, {"one": names, "two": names[:-1]})
        with pytest.raises(InputError, match="shapes"):
            compare_models({"one": one, "two": one[1:]}, patients)
        with pytest.raises(InputError, match="no model"):
            compare_models({}, patients)

    def test_few_patients_warn(self, random):
        one, patients = cohort(random, 5)
        (warning,) = compare_models({"a": one, "b": one + 1, "c": one}, patients, resamples=200).warnings
        assert warning.startswith("only 5 patients") and "below 0.188 after Holm's correction for 3 tests" in warning
        one, patients = cohort(random, 40)
        assert compare_models({"a": one, "b": one + 1}, patients, resamples=200).warnings == ()


class TestInsideNoise:
    def test_says_which(self):
        outside = inside_noise(0.3, 0.2, 0.4, 0.01, 0.1)
        assert not outside.inside and "leaves out 0" in outside.sentence and "differ less" in outside.sentence
        assert "correction" not in inside_noise(0.3, 0.2, 0.4, 0.01, tests=1).sentence
        assert "not known" in inside_noise(0.3, 0.2, 0.4, 0.01).sentence
        for arguments, words in {
            (0.3, -0.1, 0.7, 0.01, 0.1): "95 % interval over patients [-0.1, 0.7] contains 0",
            (-0.3, -0.4, -0.2, 0.06, 0.1): "p is 0.06 after Holm's correction",
            (
                -0.3,
                -0.4,
                -0.2,
                0.01,
                0.3,
            ): "trainings differ as much (95 % interval of the difference over trainings ± 0.3)",
            (0.3, np.nan, np.nan, np.nan, 0.1): "there is no interval over too few patients",
        }.items():
            verdict = inside_noise(*arguments)
            assert verdict.inside and words in verdict.sentence
            assert ("no interval" in words) == (";" in verdict.sentence)  # otherwise the only reason
        assert inside_noise(0.1, -0.1, 0.3, 0.5, 0.2).sentence.count(";") == 2
        assert inside_noise(np.nan, np.nan, np.nan, np.nan).inside
        other_way = inside_noise(0.3, 0.2, 0.4, 0.01, 0.1, way=-1)
        assert other_way.inside and "points the other way" in other_way.sentence
        assert not inside_noise(-0.3, -0.4, -0.2, 0.01, 0.1, way=-1).inside


class TestAcrossRuns:
    def test_by_hand(self):
        spread = across_runs({(0, 0): 1.0, (0, 1): 3.0, (1, 0): 4.0, (1, 1): 8.0})
        assert spread.mean == 4 and (spread.runs, spread.folds, spread.seeds) == (4, 2, 2)
        assert spread.deviation == pytest.approx(np.std([1, 3, 4, 8], ddof=1))
        assert spread.between_folds == pytest.approx(np.std([2, 6], ddof=1))
        assert spread.between_seeds == pytest.approx(np.sqrt((2 + 8) / 2))  # two variances with a degree each

    def test_finds_the_deviations_that_were_put_in(self, random):
        folds = 3 * random.normal(size=400)
        spread = across_runs({(f, s): folds[f] + 0.5 * random.normal(size=2) for f in range(400) for s in range(3)})
        np.testing.assert_allclose(spread.between_seeds, 0.5, rtol=0.1)
        np.testing.assert_allclose(spread.between_folds, np.sqrt(9 + 0.25 / 3), rtol=0.1)

    def test_what_cannot_be_told_is_nan(self):
        one = across_runs({(0, 0): [1.0, 2.0]})
        assert one.mean.tolist() == [1, 2] and np.isnan([one.deviation, one.between_folds, one.between_seeds]).all()
        folds = across_runs({(0, 0): 1.0, (1, 0): 3.0})
        assert np.isnan(folds.between_seeds) and folds.between_folds == folds.deviation == pytest.approx(np.sqrt(2))
        seeds = across_runs({(0, 0): 1.0, (0, 1): 3.0})
        assert np.isnan(seeds.between_folds) and seeds.between_seeds == seeds.deviation == pytest.approx(np.sqrt(2))
        assert np.isnan(across_runs({(0, 0): 1.0, (1, 0): np.nan}).mean)
        with pytest.raises(InputError, match="no run"):
            across_runs({})


class TestDifferenceOverTrainings:
    def test_seeds_are_students_interval_of_two_means(self, random):
        one, two = random.normal(size=(2, 4))
        twin = stats.ttest_ind(one, two).confidence_interval(0.9)
        half = difference_over_trainings(
            {(0, s): one[s] for s in range(4)}, {(0, s): two[s] for s in range(4)}, level=0.9
        )
        assert half == pytest.approx((twin.high - twin.low) / 2)

    def test_folds_are_the_paired_interval(self, random):
        one, two = random.normal(size=(2, 3, 2))
        half = difference_over_trainings({(f, 0): one[f] for f in range(3)}, {(f, 5): two[f] for f in range(3)})
        for column in range(2):
            twin = stats.ttest_rel(one[:, column], two[:, column]).confidence_interval()
            assert half[column] == pytest.approx((twin.high - twin.low) / 2)

    def test_folds_of_their_own_add_nothing_to_the_seeds(self, random):
        """What a fold gives is in all its seeds."""
        runs = {(f, s): random.normal() for f in range(3) for s in range(2)}
        moved = {(f, s): value + 10 * f for (f, s), value in runs.items()}
        assert difference_over_trainings(runs, runs) == pytest.approx(difference_over_trainings(moved, runs))

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            ([(0, 0), (0, 1)], [(1, 0), (1, 1)]),
            ([(0, 0), (0, 1), (0, 2), (1, 0)], [(0, 0), (1, 0), (1, 1), (1, 2)]),
            ([(0, 0), (0, 1), (1, 0)], [(0, 0), (0, 1)]),
            ([(0, 0), (1, 0)], [(0, 0), (1, 0), (2, 0)]),
        ],
    )
    def test_of_other_folds_nothing_is_known(self, first, second, random):
        runs = [{run: random.normal() for run in side} for side in (first, second)]
        assert not same_folds(first, second) and np.isnan(difference_over_trainings(*runs))
        assert same_folds(first, first) and not np.isnan(difference_over_trainings(runs[0], runs[0]))

    def test_more_seeds_of_every_fold_are_the_same_folds(self):
        assert same_folds([(0, 0), (1, 0)], [(0, 0), (0, 1), (1, 0), (1, 1)]) and not same_folds([], [])

    def test_what_cannot_be_told_is_nan(self):
        assert np.isnan(difference_over_trainings({(0, 0): 1.0}, {(0, 0): 2.0}))
        assert np.isnan(difference_over_trainings({(0, 0): 1.0, (1, 0): 1.0}, {(2, 0): 2.0, (3, 0): 2.0}))
        assert np.isnan(difference_over_trainings({}, {(0, 0): 1.0, (0, 1): 2.0}))

    @pytest.mark.slow
    @pytest.mark.parametrize(("folds", "seeds"), [(3, 1), (1, 3), (3, 2)])
    def test_two_names_of_one_method_are_seldom_told_apart(self, random, folds, seeds):
        """100 patients, and trainings that differ by half of what one patient's answers do; without it 20 to 60 %."""
        apart, patients = 0, np.arange(100)
        for number in range(200):
            base = random.beta(2, 3, 100)
            values, runs = {}, {}
            for name in "AB":
                drawn = {
                    (f, s): base + 0.02 * random.normal() + 0.05 * random.normal(size=100)
                    for f in range(folds)
                    for s in range(seeds)
                }
                runs[name] = {key: value.mean() for key, value in drawn.items()}
                values[name] = np.mean(list(drawn.values()), axis=0)
            result = compare_models(values, patients, trainings=runs, resamples=300, seed=number)
            apart += not result.inside[0, 1]
        assert apart / 200 < 0.08


def test_a_warning_where_patients_are_few():
    assert "one patient" in few_patients(["a", "a"])
    assert few_patients(np.repeat(np.arange(30), 2)) is None
    assert "only 12 patients" in few_patients(range(12)) and "cannot" not in few_patients(range(12))
    # 2 ** -29 times so many tests is above .05
    assert few_patients(range(30), tests=10**8).endswith("after Holm's correction for 100000000 tests.")
    # the smallest p-value is reached
    assert "below 0.0625." in few_patients(range(5)) and paired_wilcoxon(range(1, 6), [0] * 5, range(5)) == 0.0625


BAD = {
    "lengths": (lambda: patient_bootstrap([1.0, 2.0], ["a"]), "values have shape"),
    "axes": (lambda: patient_bootstrap(np.zeros((2, 2, 2)), ["a", "b"]), "values have shape"),
    "nothing": (lambda: patient_bootstrap([], []), "one at least"),
    "resamples": (lambda: patient_bootstrap([1.0, 2.0], ["a", "b"], resamples=10), "resamples is 10"),
    "level": (lambda: patient_bootstrap([1.0, 2.0], ["a", "b"], level=95), "level is 95"),
    "pairs": (lambda: paired_bootstrap([1.0, 2.0], [[1.0], [2.0]], ["a", "b"]), "shapes"),
    "tables": (lambda: bootstrap_sums(np.zeros((3, 2)), ["a", "b"], lambda s: s), "3 cases and 2 patients"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence(case):
    call, words = BAD[case]
    with pytest.raises(InputError, match=words):
        call()
