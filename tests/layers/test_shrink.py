"""Timestep shrinkage: what it conserves, its gradients, and computing once what follows."""

import copy
from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from spikeformers.layers import ConvBN, PerStep, TimestepShrink


def trained(time_steps, shrunk, seed=0):
    """A layer whose scores are not uniform."""
    torch.manual_seed(seed)
    layer = TimestepShrink(time_steps, shrunk).double()
    nn.init.normal_(layer.scores.weight, std=3.0)
    nn.init.normal_(layer.scores.bias)
    return layer


def frames(time_steps=8, batch=3):
    return torch.rand(time_steps, batch, 4, 7, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shrunk", [1, 2, 5, 8])
@pytest.mark.parametrize("temporal", ["softmax", "sum"])
def test_sums_over_time_are_conserved(temporal, shrunk):
    x = frames()
    layer = trained(8, shrunk) if temporal == "softmax" else TimestepShrink(8, shrunk, "sum")
    out = layer(x)
    assert out.shape == (shrunk, *x.shape[1:])
    assert_close(out.sum(0), x.sum(0))
    assert (out >= 0).all()


def test_equation_by_hand():
    """Two frames of means 1 and 3 and scores softmax(W a): the sum, 4, in those shares."""
    layer = TimestepShrink(2, 2)
    with torch.no_grad():
        layer.scores.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    x = torch.tensor([[[1.0, 1.0]], [[2.0, 4.0]]])
    share = torch.tensor([1.0, 3.0]).softmax(0)
    assert_close(layer(x)[:, 0], share[:, None] * torch.tensor([3.0, 5.0]))


def test_a_new_layer_is_the_mean():
    x = frames(4)
    assert_close(TimestepShrink(4, 4).double()(x), x.mean(0).expand(4, -1, -1, -1, -1))


def test_groups_of_frames_keep_their_order():
    x = torch.arange(8.0)[:, None]
    assert TimestepShrink(8, 3, "sum")(x).flatten().tolist() == [0 + 1 + 2, 3 + 4 + 5, 6 + 7]
    assert not list(TimestepShrink(8, 3, "sum").parameters())


def test_gradients_reach_the_scores():
    layer, x = TimestepShrink(6, 3), frames(6).float().requires_grad_()  # also where they start from
    out = layer(x)
    out.backward(torch.randn(out.shape, generator=torch.Generator().manual_seed(0)))
    for gradient in (layer.scores.weight.grad, layer.scores.bias.grad, x.grad):
        assert gradient.abs().sum() > 0


def test_gradients_are_those_of_the_equation():
    layer, x = trained(3, 2), frames(3, 2)[..., :2, :2].requires_grad_()
    assert torch.autograd.gradcheck(layer, x)


def test_samples_are_independent():
    layer, x = trained(8, 3), frames()
    assert_close(layer(x)[:, 1:2], layer(x[:, 1:2]))


CONVOLUTIONS = {
    "plain": lambda: ConvBN(4, 6, 3),
    "strided": lambda: ConvBN(4, 6, 3, 2),
    "bias": lambda: ConvBN(4, 6, 3, bias=True),
    "grouped": lambda: ConvBN(4, 6, 3, groups=2),
    "merged": lambda: PerStep(OrderedDict(conv=nn.Conv2d(4, 6, 3, padding=1))),
}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_computing_once_equals_computing_every_frame(name, training):
    torch.manual_seed(0)
    once = CONVOLUTIONS[name]().double()
    if name != "merged":
        nn.init.normal_(once.bn.weight)
        nn.init.normal_(once.bn.bias)
        once.bn.running_mean.normal_()
        once.bn.running_var.uniform_(0.5, 2)
    once.train(training)
    plain, layer, x = copy.deepcopy(once), trained(8, 5), frames().requires_grad_()
    got, want = once(layer(x, made=False)), plain(layer(x))
    assert_close(got, want)
    grads = torch.randn(want.shape, dtype=want.dtype)
    inputs = [x, *layer.parameters()]
    assert_close(
        torch.autograd.grad(got, [*inputs, *once.parameters()], grads),
        torch.autograd.grad(want, [*inputs, *plain.parameters()], grads),
    )
    for key, value in once.state_dict().items():
        assert_close(value, plain.state_dict()[key])


def test_variances_beside_large_means():
    """As exact as computing every frame, where the difference of two squares would leave nothing."""
    torch.manual_seed(0)
    layer, conv = TimestepShrink(4, 3), ConvBN(2, 2)
    nn.init.eye_(conv.conv.weight[:, :, 0, 0])
    x = 1000 + torch.randn(4, 8, 2, 9, 9) / 4
    exact = copy.deepcopy(conv).double()(layer(x).double())
    assert_close(conv(layer(x, made=False)).double(), exact, rtol=0, atol=0.02)


def test_low_precision_rounds_no_more_than_computing_every_frame():
    torch.manual_seed(0)
    layer, conv = TimestepShrink(8, 4), ConvBN(16, 16, 3)
    x = torch.rand(8, 4, 16, 9, 9).round()
    exact = copy.deepcopy(conv).double()(layer.double()(x.double()))
    layer.float()
    with torch.autocast("cpu", torch.bfloat16):
        once, plain = conv(layer(x, made=False)), conv(layer(x))
    assert once.dtype == plain.dtype == torch.bfloat16
    errors = [(out.double() - exact).mean((0, 1, 3, 4)).abs().max() for out in (once, plain)]
    assert errors[0] < 2 * errors[1] + 1e-3


def test_one_value_per_channel_has_no_statistics():
    with pytest.raises(ValueError, match="more than one value per channel"):
        ConvBN(2, 2)(TimestepShrink(2, 1)(torch.rand(2, 1, 2, 1, 1), made=False))


def test_the_convolution_runs_once():
    seen = []
    conv = ConvBN(4, 6, 3).double().eval()
    listener = lambda module, args: seen.append(len(args[0]))  # noqa: E731
    listener.listens = True
    conv.conv.register_forward_pre_hook(listener)
    conv(trained(8, 5)(frames(), made=False))
    assert seen == [3]  # the batch, not 5 times the batch


def test_mistakes():
    with pytest.raises(ValueError, match=r"from 4 to 1 \.\. 4, not to 5"):
        TimestepShrink(4, 5)
    with pytest.raises(ValueError, match="softmax, sum"):
        TimestepShrink(4, 2, "mean")
    with pytest.raises(ValueError, match="shrinks 8 time steps here, but got 5"):
        TimestepShrink(8, 2)(torch.zeros(5, 1, 2))
