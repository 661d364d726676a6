"""``tools/bench_known_answer.py``: the law is what it says, the figures are 0 for it and for nothing else."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
from scipy.stats import chisquare

import bench_known_answer
from aleatoric.errors import InputError
from aleatoric.metrics.functional import generalized_energy_distance, iou_distance
from known_answer import law, scoring, training
from known_answer.law import Scenes
from known_answer.report import Run, as_json, table


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def scenes() -> Scenes:
    return law.random_scenes(200, generator())


def drawn(scenes: Scenes, number: int, seed: int = 1) -> torch.Tensor:
    return law.draw(*law.support(scenes), number, generator(seed))


class TestLaw:
    def test_scenes_lie_where_the_law_says(self, scenes):
        for name, values in scenes._asdict().items():
            low, high = law.LAW[name]
            assert low <= values.min() < low + 0.05 * (high - low) and high - 0.05 * (high - low) < values.max() <= high

    def test_probabilities_sum_to_one_and_a_mode_has_its_share(self, scenes):
        chances, by_mode = law.support(scenes)[1], law.probabilities(scenes)
        torch.testing.assert_close(chances.sum(1), torch.ones(200))
        torch.testing.assert_close(chances[:, 1:].view(200, 3, 5).sum(2), by_mode[:, 1:])
        torch.testing.assert_close(1 - chances[:, 0], scenes.presence)
        balance = scenes.balance[:, None]
        expected = torch.cat([0.7 - 0.4 * balance, torch.full_like(balance, 0.2), 0.1 + 0.4 * balance], dim=1)
        torch.testing.assert_close(by_mode[:, 1:] / scenes.presence[:, None], expected)

    def test_masks_are_discs_where_the_docstring_puts_them(self, scenes):
        """Pixel by pixel, in plain Python."""
        masks = law.support(scenes)[0]
        c, r, radius, spread = (float(values[7]) for values in scenes[:4])
        number = 1
        assert not masks[7, 0].any()
        for centre, scale in ((c, 0.55), (c, 1.2), (c + 1.4 * radius, 0.8)):
            for g in (-1, -0.5, 0, 0.5, 1):
                limit = scale * radius * (1 + spread * g)
                expected = [[(x - centre) ** 2 + (y - r) ** 2 <= limit**2 for x in range(32)] for y in range(32)]
                assert torch.equal(masks[7, number], torch.tensor(expected)), (centre, scale, g)
                number += 1
        assert number == masks.shape[1] == 16

    def test_no_mask_leaves_the_image_or_covers_the_marker(self):
        corners = torch.cartesian_prod(*(torch.tensor(law.LAW[name]) for name in ("column", "row", "radius")))
        many = len(corners)
        extreme = Scenes(
            *corners.T, torch.full((many,), law.LAW["spread"][1]), torch.ones(many), torch.full((many,), 0.5)
        )
        masks, pictures = law.support(extreme)[0], law.image(extreme)
        assert not (masks[..., 0].any() or masks[..., -1].any() or masks[..., 0, :].any() or masks[..., -1, :].any())
        assert not masks[..., :4, :4].any()
        assert (pictures[:, 0, :4, :4] == 0.5).all() and not (pictures[:, 0, 4:, :2] > 0).any()

    def test_the_image_shows_every_parameter(self, scenes):
        """Read back from the pixels: the brightest, the corner, the centroid, the volume, and its grey part."""
        pictures = law.image(scenes)[:, 0].clone()
        torch.testing.assert_close(pictures[:, 0, 0], scenes.balance)
        pictures[:, :4, :4] = 0
        torch.testing.assert_close(pictures.amax((1, 2)), scenes.presence)
        share = pictures / scenes.presence[:, None, None]
        place = torch.arange(32.0)
        torch.testing.assert_close((share * place).sum((1, 2)) / share.sum((1, 2)), scenes.column, atol=0.05, rtol=0)
        torch.testing.assert_close(
            (share * place[:, None]).sum((1, 2)) / share.sum((1, 2)), scenes.row, atol=0.05, rtol=0
        )
        # the volume of a frustum, and how much of it the rim is
        area = torch.pi * scenes.radius**2 * (1 + scenes.spread**2 / 3)
        torch.testing.assert_close(share.sum((1, 2)), area, atol=0, rtol=0.03)
        soft = (share * (1 - share)).sum((1, 2)) / (4 * torch.pi * scenes.spread * scenes.radius**2)
        torch.testing.assert_close(soft, torch.full((200,), 1 / 6), atol=0.05, rtol=0)

    def test_draws_have_the_probabilities(self):
        few = law.random_scenes(6, generator(3))
        masks, chances = law.support(few)
        labelled = torch.arange(16).expand(6, 16)  # the mask's number in the place of the mask
        numbers = law.draw(labelled, chances, 20_000, generator(4))
        for image in range(6):
            found = torch.bincount(numbers[image], minlength=16)
            assert (
                chisquare(found.numpy(), (chances[image].double() / chances[image].double().sum() * 20_000)).pvalue
                > 0.001
            )
        assert torch.equal(law.draw(masks, chances, 5, generator(5)), law.draw(masks, chances, 5, generator(5)))


class TestScores:
    def test_the_law_has_distance_zero_to_itself(self, scenes):
        values = scoring.per_image(drawn(scenes, 64), scenes)
        found, error = scoring.figures(values, 64), scoring.standard_errors(values, 64)
        assert abs(found["ged"]) < 3 * error["ged"] < 0.003
        assert abs(found["presence_brier"]) < 3 * error["presence_brier"] < 0.002
        assert found["presence_error"] < 0.02 and found["none"] == 0
        torch.testing.assert_close(
            values["frequencies"].mean(0), values["truth"].mean(0), atol=0.02, rtol=0
        )  # 12,800 draws

    @pytest.mark.parametrize("wrong", ["swapped weights", "presence ignored", "one mode", "radius ignored"])
    def test_a_wrong_law_has_a_positive_distance(self, scenes, wrong):
        masks, chances = law.support(scenes)
        modes = chances[:, 1:].view(-1, 3, 5)
        if wrong == "swapped weights":
            modes = modes.flip(1)
        elif wrong == "presence ignored":
            modes = modes / scenes.presence[:, None, None]
        elif wrong == "one mode":
            modes = torch.stack([modes.sum(1), 0 * modes[:, 0], 0 * modes[:, 0]], dim=1)
        else:
            modes = torch.zeros_like(modes).index_fill(2, torch.tensor(2), 1) * modes.sum(2, keepdim=True)
        wrong_chances = torch.cat([1 - modes.flatten(1).sum(1, keepdim=True), modes.flatten(1)], dim=1)
        values = scoring.per_image(law.draw(masks, wrong_chances, 64, generator(2)), scenes)
        found, error = scoring.figures(values, 64), scoring.standard_errors(values, 64)
        assert found["ged"] > 5 * error["ged"] > 0
        presence = found["presence_brier"] > 5 * error["presence_brier"]
        assert presence == (wrong == "presence ignored") == bool(found["presence_error"] > 0.1)

    def test_the_exact_distance_agrees_with_brute_force(self):
        """The library's own estimate with thousands of raters drawn from the law."""
        few = law.random_scenes(2, generator(8))
        samples = law.draw(*law.support(law.random_scenes(2, generator(9))), 12, generator(10))  # of other scenes
        labels = drawn(few, 1500, seed=11)
        brute = generalized_energy_distance(samples, labels, unbiased=True)
        torch.testing.assert_close(scoring.per_image(samples, few)["ged"], brute, atol=0.03, rtol=0)

    def test_the_distance_is_unbiased_for_every_number_of_samples(self):
        few = law.random_scenes(3000, generator(12))
        values = scoring.per_image(drawn(few, 2), few)
        assert abs(values["ged"].mean()) < 3 * values["ged"].std() / 3000**0.5 < 0.05

    def test_a_sample_belongs_to_the_mode_of_the_nearest_mask(self, scenes):
        masks = law.support(scenes)[0]
        frequencies = scoring.mode_frequencies(masks, iou_distance(masks, masks))
        torch.testing.assert_close(frequencies, torch.tensor([1, 5, 5, 5, 0]).expand(200, 5) / 16)
        both = masks[:, 3:4] | masks[:, 13:14]  # a small and a shifted disc
        everything = torch.ones_like(both)
        strange = torch.cat([everything, ~masks[:, 3:4], both], dim=1)
        distance = iou_distance(strange, masks)
        found = scoring.mode_frequencies(strange[:, :2], distance[:, :2])
        torch.testing.assert_close(found, torch.tensor([0, 0, 0, 0, 1.0]).expand(200, 5))
        near = distance[:, 2, 1:].amin(-1) <= scoring.TOLERANCE
        found = scoring.mode_frequencies(strange[:, 2:], distance[:, 2:])
        assert torch.equal(found[:, 4] == 0, near) and torch.equal(found[:, 3] == 1, near)

    def test_limits_of_the_total_variation(self, scenes):
        truth = torch.nn.functional.pad(law.probabilities(scenes), (0, 1))
        values = {"ged": torch.zeros(200), "frequencies": truth, "truth": truth}
        assert scoring.figures(values, 64)["total_variation"] == 0
        values["frequencies"] = torch.tensor([0, 0, 0, 0, 1.0]).expand(200, 5)
        assert scoring.figures(values, 64)["total_variation"] == pytest.approx(1)
        values["frequencies"] = torch.tensor([1.0, 0, 0, 0, 0]).expand(200, 5)
        assert scoring.figures(values, 64)["total_variation"] == pytest.approx(float(scenes.presence.mean()))

    def test_presence_of_a_constant_forecast(self, scenes):
        """Brier and calibration by hand: a model that draws something in half of its samples, whatever the image."""
        truth = torch.nn.functional.pad(law.probabilities(scenes), (0, 1))
        values = {
            "ged": torch.zeros(200),
            "frequencies": torch.tensor([0.5, 0.5, 0, 0, 0]).repeat(200, 1),
            "truth": truth,
        }
        found = scoring.figures(values, 65)
        expected = ((0.5 - scenes.presence) ** 2).mean() - 0.25 / 64
        torch.testing.assert_close(found["presence_brier"], expected)
        weight, mean_found, mean_true = scoring.reliability(values)
        bins = [
            scenes.presence[(scenes.presence >= low) & (scenes.presence < low + 0.1)]
            for low in torch.arange(9) / 10 + 0.1
        ]
        torch.testing.assert_close(weight, torch.tensor([len(inside) / 200 for inside in bins]))
        torch.testing.assert_close(mean_true, torch.stack([inside.mean() for inside in bins]))
        assert (mean_found == 0.5).all()
        assert 0.2 < found["presence_error"] < 0.25

    def test_sets_of_images_are_scored_apart(self, scenes):
        values = scoring.per_image(drawn(scenes, 4), scenes)
        halves = {name: torch.stack([value[:100], value[100:]]) for name, value in values.items()}
        both = scoring.figures(halves, 4)
        for part, rows in enumerate((slice(100), slice(100, 200))):
            alone = scoring.figures({name: value[rows] for name, value in values.items()}, 4)
            for name, value in alone.items():
                torch.testing.assert_close(both[name][part], value)


class TestReport:
    def test_errors_are_over_seeds_where_there_are_several(self, scenes):
        few = Scenes(*(values[:20] for values in scenes))
        runs = [Run("one", seed, scoring.per_image(drawn(few, 8, seed), few), {"kl": seed}, []) for seed in (1, 2)]
        runs.append(Run("other", 1, runs[0].values, {"effective_rank": 1.5, "latent_dim": 2}, []))
        lines = [line.split() for line in table(runs, 8).splitlines() if line.startswith(("one", "other"))]
        found = [float(scoring.figures(run.values, 8)["ged"]) for run in runs]
        over_images = float(scoring.standard_errors(runs[2].values, 8)["ged"])
        assert lines[0][1:3] == [f"{(found[0] + found[1]) / 2:.4f}", f"±{abs(found[0] - found[1]) / 2:.4f}"]
        assert lines[1][1:3] == [f"{found[0]:.4f}", f"±{over_images:.4f}"]
        assert (
            lines[0][-1] == "1.50" and lines[0][-3:-1] == ["-", "-"] and lines[1][-5:] == ["1.50", "of", "2", "-", "-"]
        )
        plain = as_json(runs, 8, {})["runs"]
        assert [run["seed"] for run in plain] == [1, 2, 1] and plain[0]["figures"]["ged"] == pytest.approx(found[0])
        assert sum(plain[0]["reliability"]["share"]) == pytest.approx(1)


class TestTraining:
    def test_networks_and_objectives_are_the_bundles(self):
        names = training.available()
        assert {"punet", "spunet"} <= set(names) and not any(name.endswith(("resnet", "convnext")) for name in names)
        small = {"filters": [4, 8], "num_convs": 1, "learning_rate": 0.5, "no_such_id": 1}
        punet, spunet = (training.build(name, small, torch.device("cpu")) for name in ("punet", "spunet"))
        assert (punet.max_gradient_norm, spunet.max_gradient_norm) == (None, 1.0)
        assert spunet.network.all_raters and spunet.loss.weights == {"kl": 10.0, "sinkhorn": 100.0}
        assert spunet.optimizer.defaults["lr"] == 0.5 and spunet.optimizer.defaults["weight_decay"] == 1e-5
        assert {"network_def", "loss", "kl_weight", "filters"} <= set(spunet.config)
        assert not {"dataset_dir", "train", "max_epochs", "seed"} & set(spunet.config)

    def test_an_id_behind_the_name_wins(self):
        model = training.build(
            "spunet:kl_weight=1:latent_dim=2", {"filters": [4], "latent_dim": 3}, torch.device("cpu")
        )
        assert model.loss.weights["kl"] == 1 and model.network.prior.latent_dim == 2

    def test_the_hierarchy_begins_with_one_pixel(self):
        network = training.build("hpunet", {"filters": [4, 8], "num_convs": 1}, torch.device("cpu")).network
        scenes = law.random_scenes(2, generator())
        output = network(law.image(scenes), label=drawn(scenes, 2).to(torch.uint8))
        assert [tuple(draws.shape[-2:]) for draws in output.posterior_draws] == [(1, 1), (2, 2), (4, 4), (8, 8)]

    @pytest.mark.parametrize("name", ["nothing", "punet:nothing", "punet:nothing=1"])
    def test_what_is_not_there_is_a_sentence(self, name):
        with pytest.raises(InputError, match="nothing"):
            training.build(name, {}, torch.device("cpu"))


SMALL = shlex.split("--images 8 --samples 4 --batch 2 --filters 4 8 --num_convs 1 --threads 1 --device cpu")


class TestTool:
    def test_two_models_end_to_end(self, tmp_path, capsys):
        words = ["punet", "spunet", "punet", "--steps", "3", *SMALL, "--out", str(tmp_path)]
        assert bench_known_answer.main(words) == 0
        out, error = capsys.readouterr()
        assert "punet is punet and left out" in error
        assert out.startswith("$ python tools/bench_known_answer.py punet") and "torch" in out
        results = json.loads((tmp_path / "results.json").read_text())
        assert [run["model"] for run in results["runs"]][-2:] == ["punet", "spunet"]
        last = results["runs"][-1]
        assert last["kl"] >= 0 and 1 <= last["effective_rank"] <= 6 and last["history"][-1]["step"] == 3
        assert {"ged", "total_variation", "presence_error", "presence_brier"} <= set(last["figures"])
        assert (tmp_path / "known_answer.png").stat().st_size > 10_000
        text = (tmp_path / "table.txt").read_text()
        assert text.count("spunet") >= 3

        # again: nothing is trained, nothing changes; with another setting it is trained again
        assert bench_known_answer.main(words) == 0
        assert capsys.readouterr().err.count("trained before") == 2
        assert (tmp_path / "table.txt").read_text() == text
        assert bench_known_answer.main(["punet", "--steps", "2", *SMALL, "--out", str(tmp_path)]) == 0
        assert "trained before" not in capsys.readouterr().err

    def test_a_model_alone_gives_what_it_gives_among_others(self, capsys):
        words = ["--steps", "2", *SMALL]
        tables = []
        for names in (["punet"], ["spunet", "punet"]):
            assert bench_known_answer.main([*names, *words]) == 0
            lines = capsys.readouterr().out.splitlines()
            tables.append(next(line for line in lines if line.startswith("punet ")).split())
        assert tables[0] == tables[1]

    def test_a_training_that_diverges_is_left_out_and_said(self, capsys):
        assert bench_known_answer.main(["punet", "spunet", "--steps", "3", *SMALL, "--lr", "1e30"]) == 1
        out = capsys.readouterr().out
        assert "left out, seed 0: punet: " in out and "lower --lr" in out

    @pytest.mark.parametrize("words", [["nothing"], ["punet:nothing"]])
    def test_bad_input_is_a_sentence(self, capsys, words):
        assert bench_known_answer.main([*words, "--steps", "1", *SMALL]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and "nothing" in error and error.count("\n") == 1

    @pytest.mark.parametrize("option", ["steps", "seeds", "images", "samples"])
    def test_numbers_that_measure_nothing_are_refused(self, capsys, option):
        with pytest.raises(SystemExit):
            bench_known_answer.main(["punet", f"--{option}", "0"])
        assert f"--{option} is 0" in capsys.readouterr().err
