import pytest
import torch
from torch.distributions import Independent, Normal

from aleatoric.errors import InputError
from aleatoric.losses import (
    LadderKLDivergence,
    LevelKLDivergence,
    NegativeLogLikelihood,
    ResidualLikelihood,
    VariationalLoss,
    level_divergences,
)
from aleatoric.outputs import LadderOutput
from models import phiseg, variational_output


def ladder_output(batch=3, raters=4, classes=1, levels=3, valid=None, seed=0) -> LadderOutput:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    def density(i):
        return Independent(Normal(normal(batch, 1, 2, 2**i, 2**i), normal(batch, 1, 2, 2**i, 2**i).exp()), 3)

    logits = [normal(batch, classes, 8, 8) for _ in range(levels)]
    priors, posteriors = [density(i) for i in range(levels)], [density(i) for i in range(levels)]
    rater = torch.randint(0, raters, (batch,), generator=generator)
    draws = [posterior.mean for posterior in posteriors]
    valid = torch.ones(batch, 1, dtype=torch.bool) if valid is None else valid
    return LadderOutput(logits[-1], rater, rater * 0, priors, posteriors, draws, valid, logits)


def objective(levels=3):
    return VariationalLoss(ResidualLikelihood(), level_divergences([4 ** (levels - 1 - i) for i in range(levels)]))


@pytest.mark.parametrize("classes", [1, 3])
def test_residual_likelihood_against_a_loop(classes):
    output = ladder_output(classes=classes)
    label = torch.randint(0, max(2, classes), (3, 4, 8, 8))
    expected = torch.zeros(3)
    for b in range(3):
        for logits in output.level_logits:
            for i in range(8):
                for j in range(8):
                    y = int(label[b, output.rater[b], i, j])
                    if classes == 1:
                        p = torch.sigmoid(logits[b, 0, i, j])
                        expected[b] -= torch.log(p if y else 1 - p)
                    else:
                        expected[b] -= logits[b, :, i, j].log_softmax(0)[y]
    torch.testing.assert_close(ResidualLikelihood()(output, label), expected)


def test_a_level_counts_as_much_as_the_last():
    output, label = ladder_output(), torch.randint(0, 2, (3, 4, 8, 8))
    single = NegativeLogLikelihood()
    levels = [single(output._replace(logits=logits), label) for logits in output.level_logits]
    torch.testing.assert_close(ResidualLikelihood()(output, label), levels[0] + levels[1] + levels[2])
    same = output._replace(level_logits=[output.logits] * 3)
    torch.testing.assert_close(ResidualLikelihood()(same, label), 3 * single(output, label))


def test_other_outputs_are_refused_in_words():
    for output in (ladder_output()._replace(level_logits=()), variational_output()):
        with pytest.raises(InputError, match="no level_logits"):
            ResidualLikelihood()(output, torch.zeros(3, 4, 8, 8))


def test_divergences_of_the_levels_have_their_names_and_weights():
    divergences = level_divergences([16, 4, 1])
    assert {name: term.weight for name, term in divergences.items()} == {"kl_0": 16, "kl_1": 4, "kl_2": 1}
    output, label = ladder_output(), torch.randint(0, 2, (3, 4, 8, 8))
    loss = objective()
    terms = loss.terms(output, label)
    assert list(terms) == ["likelihood", "kl_0", "kl_1", "kl_2"]
    for i in range(3):  # 0 is the coarsest, which has the fewest numbers
        torch.testing.assert_close(terms[f"kl_{i}"], LevelKLDivergence(i)(output, label).mean())
    assert output.priors[0].event_shape.numel() < output.priors[2].event_shape.numel()
    total = terms["likelihood"] + 16 * terms["kl_0"] + 4 * terms["kl_1"] + terms["kl_2"]
    torch.testing.assert_close(loss(output, label), total)


def test_an_image_s_loss_does_not_depend_on_its_batch():
    network, loss = phiseg((4, 8, 8), (1, 2)).eval(), objective(2)
    image, label = torch.rand(6, 1, 8, 8), torch.randint(0, 2, (6, 1, 8, 8))
    output = network(image, label)

    def only(*rows):  # the same draws, another batch
        index = torch.tensor(rows)
        first = network.prior.contract(image[index])
        z = [draw[index, 0] for draw in output.posterior_draws]
        pair = torch.cat([image[index], label[index, 0, None] - 0.5], dim=1)
        priors = network.prior.distributions(*network.prior.expand(first, [], z)[1:])
        posteriors = network.posterior.distributions(
            *network.posterior.expand(network.posterior.contract(pair), [], z)[1:]
        )
        levels = list(network.residuals(z, [8, 8]).cumsum(1).unbind(1))
        chosen = output.rater[index]
        draws = [draw[index] for draw in output.posterior_draws]
        valid = output.posterior_valid[index]
        return loss(
            LadderOutput(levels[-1], chosen, chosen * 0, priors, posteriors, draws, valid, levels), label[index]
        )

    each = torch.stack([only(b) for b in range(6)])
    torch.testing.assert_close(loss(output, label), each.mean())
    torch.testing.assert_close(only(1, 4), each[[1, 4]].mean())
    torch.testing.assert_close(only(2, 2, 2), each[2])


def test_an_image_without_raters_costs_nothing():
    label, valid = torch.ones(2, 4, 16, 16), torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    output = phiseg()(torch.rand(2, 1, 16, 16), label, valid)
    for term in (ResidualLikelihood(), LevelKLDivergence(0), LevelKLDivergence(1)):
        values = term(output, label)
        assert values[0] == 0 and values[1] > 0


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_each_level_s_kl_against_monte_carlo(spatial_dims):
    # one image many times; the closed form and the log-ratio come from different draws
    torch.manual_seed(0)
    network = phiseg((4, 8, 8), (1, 2), spatial_dims=spatial_dims).eval()
    for density in network.posterior.densities:
        torch.nn.init.normal_(density.loc.bias, std=0.7)
    for density in network.prior.densities:
        torch.nn.init.constant_(density.scale.bias, 1.0)
    count, size = 20_000 if spatial_dims == 2 else 8_000, [4] * spatial_dims
    image = torch.rand(1, 1, *size).expand(count, 1, *size)
    label = torch.ones(1, 1, *size).expand(count, 1, *size)
    with torch.no_grad():
        closed, drawn = network(image, label), network(image, label)
    total = torch.zeros(count)
    for i, (q, p, z) in enumerate(zip(drawn.posteriors, drawn.priors, drawn.posterior_draws)):
        ratio = (q.log_prob(z) - p.log_prob(z))[:, 0]
        values = LevelKLDivergence(i)(closed, label)
        assert values.shape == (count,) and values.mean() > 0.1
        error = (ratio.var() + values.var()).sqrt() / count**0.5
        assert error < 0.03 * values.mean()  # the estimate is worth something
        assert abs(values.mean() - ratio.mean()) < 4 * error
        total += values
    torch.testing.assert_close(LadderKLDivergence()(closed, label), total)


def test_kl_is_zero_where_the_posterior_is_the_prior():
    network = phiseg((4, 8, 8), (1, 2))
    weights = network.prior.state_dict()
    for name, value in network.posterior.state_dict().items():
        value[tuple(slice(n) for n in weights[name].shape)] = weights[name]
        if value.shape != weights[name].shape:
            value[:, 1:] = 0  # it does not look at the label
    label = torch.randint(0, 2, (3, 4, 16, 16))
    output = network(torch.rand(3, 1, 16, 16), label)
    for i in range(2):
        torch.testing.assert_close(LevelKLDivergence(i)(output, label), torch.zeros(3))
