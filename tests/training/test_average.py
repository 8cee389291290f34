import pytest
import torch

from aa_plugins.evaluation import Protocol, SemanticConsistency, extract
from aa_plugins.evaluation.semantic import SEMANTIC
from aa_plugins.training import PhaseAverage, divergence, moved_views, phase_average
from tests.training.shared import CLASSES, Classifier, Equivariant, Subsampling, images, seeded


def test_loss_of_an_equivariant_network_is_zero():
    network, window = seeded(Equivariant), torch.stack(images(2))
    moved = moved_views((24, 24), [(0, 0), (3, 1), (1, 3)], margin=3)
    average = phase_average(network, window, moved)
    for number, view in enumerate(moved.inputs(window)):
        assert divergence(average, moved.aligned(network(view), number)).abs() < 1e-6


def test_loss_of_a_subsampling_network_is_not():
    network, window = seeded(Subsampling), torch.stack(images(2))
    moved = moved_views((24, 24), [(0, 0), (3, 1), (1, 3)], margin=3)
    average = phase_average(network, window, moved)
    for number, view in enumerate(moved.inputs(window)):
        assert divergence(average, moved.aligned(network(view), number)) > 1e-3


def test_divergence_by_hand():
    average = torch.tensor([[0.5, 0.5, 0.0]])
    logits = torch.tensor([[0.25, 0.5, 0.25]]).log() + 7
    assert divergence(average, logits).item() == pytest.approx(0.5 * torch.log(torch.tensor(2.0)))


def test_average_is_the_mean_of_aligned_probabilities():
    network, window = seeded(Subsampling), torch.stack(images(2))
    moved = moved_views((24, 28), [(0, 0), (3, 2)])
    a = network(window[..., :24, :28]).softmax(1)[..., 3:, 2:]
    b = network(window[..., 3:27, 2:30]).softmax(1)[..., :21, :26]
    assert torch.allclose(phase_average(network, window, moved), (a + b) / 2, atol=1e-6)


@pytest.mark.parametrize("shift", [(1, 0), (0, 2), (3, 3)])
def test_all_phases_lose_nothing_to_aliasing(shift):
    """Averaged over all phases, a moved image gives the moved prediction, in the interior."""
    network, image = seeded(Subsampling), torch.stack(images(2, 40, 40))
    (dy, dx), inner = shift, slice(10, -10)

    def moved_back(module):
        whole = module(image[..., :36, :36]).softmax(1)[..., dy:, dx:]
        moved = module(image[..., dy : 36 + dy, dx : 36 + dx]).softmax(1)[..., : 36 - dy, : 36 - dx]
        return (whole - moved)[..., inner, inner].abs().max()

    assert moved_back(network) > 1e-2
    assert moved_back(PhaseAverage(network, 4, 2)) > 1e-3
    assert moved_back(PhaseAverage(network, 4, 16)) < 1e-6


def test_all_phases_have_no_aliasing_loss_as_evaluation_measures_it():
    """Far enough from borders that only the phase can differ."""
    network = seeded(Subsampling)
    protocol = Protocol(stride=4, shifts=((1, 0), (0, 1), (2, 2)), margin=8)
    scorer = SemanticConsistency(protocol, CLASSES)
    loss = {}
    for phases in (1, 16):
        module, records = PhaseAverage(network, 4, phases), []
        for number, image in enumerate(images(6, 64, 64)):
            plan = protocol.plan(64, 64, number)
            views = [module(extract(image, view)[None])[0].softmax(0) for view in plan.views]
            records.append(scorer.score(plan, views))
        loss[phases] = SEMANTIC.summarise(records)["aliasing_loss"]
    assert loss[1]["low"] > 5
    assert loss[16]["low"] <= 0.5 and abs(loss[16]["value"]) < 0.5


def test_average_of_a_classifier_keeps_the_class_dimension():
    network, image = seeded(Classifier), torch.stack(images(2, 32, 32))
    averaged = PhaseAverage(network, 4, 4)(image)
    assert averaged.shape == (2, CLASSES)
    assert torch.allclose(averaged.exp().sum(1), torch.ones(2))


def test_one_phase_of_a_padded_image_is_the_network_itself():
    network, image = seeded(Equivariant), torch.stack(images(1, 32, 32))
    inner = (..., slice(4, -4), slice(4, -4))
    one = PhaseAverage(network, 4, 1)(image).exp()
    assert torch.allclose(one[inner], network(image).softmax(1)[inner], atol=1e-6)
