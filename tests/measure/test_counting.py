"""How many products there are."""

import pytest
import torch
from torch.nn import functional as F

from spikeformers.measure.counting import fan_out


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("transposed", [False, True])
def test_fan_out_is_the_gradient_of_a_sum(kernel, stride, padding, dilation, transposed):
    x = torch.ones(1, 1, 11, requires_grad=True)
    if dilation * (kernel - 1) + 1 > 11 + 2 * padding:
        return
    convolve = F.conv_transpose1d if transposed else F.conv1d
    y = convolve(x, torch.ones(1, 1, kernel), stride=stride, padding=padding, dilation=dilation)
    (want,) = torch.autograd.grad(y.sum(), x)
    assert fan_out(11, y.shape[2], kernel, stride, padding, dilation, transposed).tolist() == want[0, 0].tolist()
