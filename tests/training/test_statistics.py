from copy import deepcopy

import torch
from torch import nn

from aa_plugins.training import transfer_statistics


def network(first=None):
    torch.manual_seed(0)
    layers = [first or nn.Identity()]
    for _ in range(2):
        layers += [nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU()]
    made = nn.Sequential(*layers)
    for norm in (made[2], made[5]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    return made.eval()


class Scaled(nn.Module):
    def forward(self, x):
        return 0.3 * x + 0.2


BATCHES = [torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))]


def test_a_student_equal_to_its_teacher_stays_as_it_is():
    teacher = network()
    student = deepcopy(teacher)
    names = transfer_statistics(student, teacher, BATCHES * 2)
    assert names == ["2", "5"]
    for key, value in teacher.state_dict().items():
        assert torch.allclose(student.state_dict()[key], value, atol=1e-5), key


def test_what_changes_scale_and_offset_alone_is_undone():
    """An affine change in front of a convolution is one behind it, which the norm takes out."""
    teacher, student = network(), network(Scaled())
    before = (student(BATCHES[0]) - teacher(BATCHES[0])).abs().max()
    transfer_statistics(student, teacher, BATCHES)
    after = (student(BATCHES[0]) - teacher(BATCHES[0])).abs().max()
    assert before > 0.1 and after < 1e-3


def test_a_norm_that_the_teacher_lacks_takes_the_images_statistics():
    teacher, student = network(), network(nn.BatchNorm2d(3))
    transfer_statistics(student, teacher, BATCHES)
    flat = BATCHES[0].transpose(0, 1).flatten(1)
    assert torch.allclose(student[0].running_mean, flat.mean(1), atol=1e-6)
    assert torch.allclose(student[0].running_var, flat.var(1, unbiased=False), atol=1e-5)
