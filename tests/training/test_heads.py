"""The average of a detector's heads, of a toy detector whose answers are known."""

import torch

from aa_plugins.training import Heads, moved_views
from aa_plugins.training.heads import Answers

MOVED = moved_views((20, 24), [(0, 0), (3, 1), (2, 3)])


class Toy(torch.nn.Module):
    """Its maps are its images; a box is answered by the pixel at its top left corner."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def features(self, images):
        return images * self.scale

    def proposals(self, features):
        height, width = features.shape[-2:]
        boxes = torch.tensor([[4.0, 5, 9, 11], [0, 0, 6, 6], [12, 6, 20, 15]])
        return [boxes for _ in features]

    def objectness(self, features):
        return features[:, 0].flatten(1)

    def answers(self, features, boxes):
        rows = torch.cat(
            [image[:, one[:, 1].long(), one[:, 0].long()].T for image, one in zip(features, boxes)]
        )
        return Answers(rows, rows[:, :2, None].expand(-1, -1, 4), rows[:, :1, None, None])


def equivariant(rows=23, columns=27):
    """An image on which every view's answer for one place is the same."""
    torch.manual_seed(0)
    return torch.randn(2, 3, rows, columns)


def test_what_moves_along_leaves_nothing_to_learn():
    teacher, window = Toy(), equivariant()
    with torch.no_grad():
        target = Heads().target(teacher, window, MOVED)
    assert all(len(one) for one in target[0])
    for number, view in enumerate(MOVED.inputs(window)):
        loss = Heads().loss(teacher, view, target, MOVED, number)
        assert abs(float(loss.detach())) < 1e-5


def test_boxes_lie_in_all_views():
    with torch.no_grad():
        boxes, _, _ = Heads().target(Toy(), equivariant(), MOVED)
    left, top, right, bottom = (MOVED.overlap[i] for i in (1, 0, 3, 2))
    for one in boxes:
        assert (one[:, 0] >= left).all() and (one[:, 1] >= top).all()
        assert (one[:, 2] <= right).all() and (one[:, 3] <= bottom).all()
        # Of three views' three proposals those at the corner lie outside of the overlap but once.
        assert len(one) > 3


def test_the_loss_is_what_its_parts_are_by_hand():
    teacher, student, window = Toy(), Toy(1.5), equivariant()
    with torch.no_grad():
        target = Heads().target(teacher, window, MOVED)
    boxes, average, objectness = target
    view = list(MOVED.inputs(window))[1]
    found = Heads().loss(student, view, target, MOVED, 1)

    def bernoulli(p, q):
        return q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()

    logits = 1.5 * view
    expected = bernoulli(logits[:, 0].flatten(1).sigmoid(), objectness[1]).mean()
    said = student.answers(logits, [one - one.new_tensor([1, 3, 1, 3]) for one in boxes])
    wanted = average.scores
    expected += (wanted * (wanted.log() - said.scores.log_softmax(1))).sum(1).mean()
    weights = wanted[:, :2]
    apart = (said.corrections - average.corrections).abs()
    apart = torch.where(apart < 1, apart**2 / 2, apart - 0.5).mean(-1)
    expected += (apart * weights).sum() / weights.sum()
    apart = bernoulli(said.masks.sigmoid(), average.masks).mean((-2, -1))
    weights = weights.sum(1, keepdim=True)
    expected += (apart * weights).sum() / weights.sum()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    found.backward()
    assert student.scale.grad.abs() > 0 and teacher.scale.grad is None


def test_a_window_without_boxes_teaches_objectness_alone():
    class Blind(Toy):
        def proposals(self, features):
            return [torch.zeros(0, 4) for _ in features]

    with torch.no_grad():
        target = Heads().target(Blind(), equivariant(), MOVED)
    view = next(MOVED.inputs(equivariant()))
    assert abs(float(Heads().loss(Blind(), view, target, MOVED, 0).detach())) < 1e-6
    assert Heads().loss(Blind(2.0), view, target, MOVED, 0) > 0
