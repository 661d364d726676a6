"""The objectives of networks with fixed answers, against loops over members and raters."""

import pytest
import torch
from torch.nn import functional as F

from aleatoric.errors import InputError
from aleatoric.losses import BestMemberCrossEntropy, MemberCrossEntropy, VariationalLoss, member_cross_entropy
from aleatoric.outputs import MemberOutput


def batch(classes=1, members=3, raters=4, images=2, size=(5, 6), valid=None):
    logits = 3 * torch.randn(images, members, classes, *size)
    label = torch.randint(0, max(classes, 2), (images, raters, *size), dtype=torch.uint8)
    valid = torch.ones(images, raters, dtype=torch.bool) if valid is None else torch.tensor(valid)
    return MemberOutput(logits.requires_grad_(), valid), label


def twin(logits, label) -> torch.Tensor:
    """Cross-entropy of one member (K, *S) with one rater (*S), pixel by pixel."""
    if logits.shape[0] == 1:
        return F.binary_cross_entropy_with_logits(logits[0], label.float(), reduction="sum")
    return F.cross_entropy(logits[None], label[None].long(), reduction="sum")


@pytest.mark.parametrize(("classes", "size"), [(1, (5, 6)), (4, (5, 6)), (1, (3, 4, 5)), (3, (3, 4, 5))])
def test_costs_equal_a_loop_over_members_and_raters(classes, size):
    output, label = batch(classes, size=size)
    costs = member_cross_entropy(output.logits, label)
    for b in range(2):
        for m in range(3):
            for r in range(4):
                torch.testing.assert_close(costs[b, m, r], twin(output.logits[b, m], label[b, r]))


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.5])
def test_objectives_equal_a_loop(classes, epsilon):
    valid = [[True, False, True, True], [False, False, True, False]]
    output, label = batch(classes, valid=valid)
    for b in range(2):
        every, best = [], []
        for r in range(4):
            if valid[b][r]:
                costs = torch.stack([twin(output.logits[b, m], label[b, r]) for m in range(3)])
                every.append(costs.sum())
                others = (costs.sum() - costs.min()) / 2
                best.append((1 - epsilon) * costs.min() + epsilon * others)
        torch.testing.assert_close(MemberCrossEntropy()(output, label)[b], torch.stack(every).mean())
        torch.testing.assert_close(BestMemberCrossEntropy(epsilon)(output, label)[b], torch.stack(best).mean())


@pytest.mark.parametrize("likelihood", [MemberCrossEntropy(), BestMemberCrossEntropy()])
def test_an_image_counts_the_same_in_every_batch(likelihood):
    output, label = batch(images=3, valid=[[True] * 4, [True, False, False, True], [False] * 4])
    together = likelihood(output, label)
    for b in range(3):
        alone = likelihood(MemberOutput(output.logits[b : b + 1], output.rater_valid[b : b + 1]), label[b : b + 1])
        torch.testing.assert_close(alone[0], together[b])
    assert together[2] == 0 and (together[:2] > 0).all()
    loss = VariationalLoss(likelihood, {})
    torch.testing.assert_close(loss(output, label), together.mean())
    torch.testing.assert_close(loss.terms(output, label), {"likelihood": together.mean()})


@pytest.mark.parametrize("likelihood", [MemberCrossEntropy(), BestMemberCrossEntropy()])
def test_the_order_of_members_and_raters_does_not_matter(likelihood):
    output, label = batch(valid=[[True, False, True, True], [True] * 4])
    members, raters = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
    permuted = MemberOutput(output.logits[:, members], output.rater_valid[:, raters])
    torch.testing.assert_close(likelihood(permuted, label[:, raters]), likelihood(output, label))


@pytest.mark.parametrize("likelihood", [MemberCrossEntropy(), BestMemberCrossEntropy(), BestMemberCrossEntropy(0.0)])
def test_a_missing_raters_label_is_never_seen(likelihood):
    output, label = batch(valid=[[True, False, True, True], [True] * 4])
    before = likelihood(output, label)
    label[0, 1] = 255
    assert torch.equal(likelihood(output, label), before)


def test_the_best_member_is_never_worse_than_any():
    output, label = batch(members=5)
    best = BestMemberCrossEntropy(0.0)(output, label)
    for m in range(5):
        assert (
            best <= MemberCrossEntropy()(MemberOutput(output.logits[:, m : m + 1], output.rater_valid), label)
        ).all()


def test_without_a_share_the_gradient_reaches_the_winners_only():
    output, label = batch(raters=2)
    winners = member_cross_entropy(output.logits, label).argmin(1)  # (B, R)
    for epsilon in (0.0, 0.05):
        (gradient,) = torch.autograd.grad(BestMemberCrossEntropy(epsilon)(output, label).sum(), output.logits)
        for b in range(2):
            reached = set(gradient[b].flatten(1).abs().amax(1).nonzero().flatten().tolist())
            assert reached == (set(winners[b].tolist()) if epsilon == 0 else {0, 1, 2})
    alone, label = batch(members=1)
    torch.testing.assert_close(BestMemberCrossEntropy(0.3)(alone, label), MemberCrossEntropy()(alone, label))


def test_a_members_gradient_does_not_know_of_the_others():
    output, label = batch()
    loss = VariationalLoss(MemberCrossEntropy(), {})
    (together,) = torch.autograd.grad(loss(output, label), output.logits)
    for m in range(3):
        single = MemberOutput(output.logits[:, m : m + 1], output.rater_valid)
        (alone,) = torch.autograd.grad(loss(single, label), output.logits)
        torch.testing.assert_close(together[:, m], alone[:, m])


def test_a_sure_networks_cost_is_exact():
    """Pixels that are right cost next to nothing each, a million of them together no more than that."""
    label = torch.ones(1, 1, 1000, 1000, dtype=torch.uint8)
    label[..., 0, 0] = 0
    costs = member_cross_entropy(torch.full((1, 1, 1, 1000, 1000), 40.0), label)
    torch.testing.assert_close(costs, torch.full((1, 1, 1), 40.0))


def test_a_larger_label_is_cropped_to_its_centre():
    output, label = batch(3, size=(4, 4))
    larger = torch.randint(0, 3, (2, 4, 10, 8))
    larger[:, :, 3:7, 2:6] = label
    torch.testing.assert_close(member_cross_entropy(output.logits, larger), member_cross_entropy(output.logits, label))


def test_heads_take_a_rater_each_where_one_answer_is_the_mean():
    """Two raters who contradict each other: members trained alone say one half, heads that compete say both."""
    label = torch.tensor([[[[0, 0, 1]], [[0, 1, 0]]]])
    answers = {}
    for likelihood in (MemberCrossEntropy(), BestMemberCrossEntropy(0.05)):
        torch.manual_seed(0)
        logits = torch.randn(1, 2, 1, 1, 3).requires_grad_()
        optimizer = torch.optim.Adam([logits], 0.1)
        for _ in range(500):
            optimizer.zero_grad()
            likelihood(MemberOutput(logits, torch.ones(1, 2, dtype=torch.bool)), label).sum().backward()
            optimizer.step()
        answers[type(likelihood)] = logits.detach().sigmoid()[0, :, 0, 0]
    torch.testing.assert_close(answers[MemberCrossEntropy], torch.tensor([[0.0, 0.5, 0.5]] * 2), atol=0.02, rtol=0.0)
    competing = answers[BestMemberCrossEntropy]
    # a share of 0.05 leaves a member at 0.05 of the other rater's answer
    expected = torch.tensor([[0.0, 0.05, 0.95], [0.0, 0.95, 0.05]])
    torch.testing.assert_close(competing[competing[:, 1].argsort()], expected, atol=0.02, rtol=0.0)


def test_a_wrong_share_is_refused():
    with pytest.raises(InputError, match="epsilon is 1"):
        BestMemberCrossEntropy(1.0)


def test_a_mean_over_the_pixels_is_the_sum_divided_by_their_number():
    output = MemberOutput(torch.randn(2, 3, 1, 4, 5), torch.tensor([[True, False], [True, True]]))
    label = torch.randint(0, 2, (2, 2, 4, 5))
    torch.testing.assert_close(
        MemberCrossEntropy(pixel_mean=True)(output, label) * 20, MemberCrossEntropy()(output, label)
    )
