"""Convolutions over [T, B, C, H, W]."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from spikeformers.layers import ChannelMixer, ConvBN, PerStep, RepConv, per_step
from spikeformers.neurons import LIF


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomise(module):
    """Batch normalisations with any parameters and statistics, as training might leave them."""
    for bn in module.modules():
        if isinstance(bn, nn.BatchNorm2d):
            nn.init.normal_(bn.weight)
            nn.init.normal_(bn.bias)
            nn.init.normal_(bn.running_mean)
            nn.init.uniform_(bn.running_var, 0.1, 3)
    return module


def scale_and_shift(bn):
    scale = bn.weight / torch.sqrt(bn.running_var + bn.eps)
    return scale, bn.bias - bn.running_mean * scale


def dense(rep_conv):
    """Kernel and bias of the one 3x3 convolution that RepConv is in eval mode (Yao et al., ICLR 2024).

    K[o,i,u,v] = s3[o] s2[o] sum_c P[o,c] D[c,u,v] s1[c] A[c,i]
    b[o] = s3[o] (s2[o] sum_c P[o,c] (sum_uv D[c,u,v]) t1[c] + t2[o]) + t3[o]
    """
    (s1, t1), (s2, t2), (s3, t3) = map(scale_and_shift, (rep_conv.expand_bn, rep_conv.project_bn, rep_conv.bn))
    a, d, p = rep_conv.expand.weight[..., 0, 0], rep_conv.depthwise.weight[:, 0], rep_conv.project.weight[..., 0, 0]
    kernel = torch.einsum("o,o,oc,cuv,c,ci->oiuv", s3, s2, p, d, s1, a)
    return kernel, s3 * (s2 * torch.einsum("oc,cuv,c->o", p, d, t1) + t2) + t3


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (5, 7)], ids=str)
def test_rep_conv_is_one_dense_convolution_in_eval_mode(size):
    layer = randomise(RepConv(6)).double().eval()
    x = torch.randn(2, 3, 6, *size, dtype=torch.float64)
    want = F.conv2d(x.flatten(0, 1), *dense(layer), padding=1).unflatten(0, (2, 3))
    assert_close(layer(x), want, rtol=0, atol=1e-12)


@torch.no_grad()
def test_rep_conv_pads_with_running_statistics_in_train_mode():
    """The border is what the statistics after this batch's update make of zero; the middle is normalised by the batch's own."""
    layer = randomise(RepConv(4)).double().train()
    x = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    y = layer(x)

    def by_batch(z, bn):
        return F.batch_norm(z, None, None, bn.weight, bn.bias, training=True)

    def chain(border):
        padded = border[None, :, None, None].repeat(6, 1, 7, 8)
        padded[:, :, 1:-1, 1:-1] = by_batch(F.conv2d(x.flatten(0, 1), layer.expand.weight), layer.expand_bn)
        z = F.conv2d(F.conv2d(padded, layer.depthwise.weight, groups=4), layer.project.weight)
        return by_batch(by_batch(z, layer.project_bn), layer.bn).unflatten(0, (2, 3))

    _, border = scale_and_shift(layer.expand_bn)
    assert_close(y, chain(border), rtol=0, atol=1e-12)
    assert (y - chain(torch.zeros(4, dtype=torch.float64))).abs().max() > 1e-3


def test_no_gradient_flows_through_the_padding():
    """What the first BN's parameters get is what they get when the border is a constant."""
    layer = randomise(RepConv(4)).double().eval()
    x = torch.randn(1, 2, 4, 3, 3, dtype=torch.float64)
    weights = torch.randn(1, 2, 4, 3, 3, dtype=torch.float64)
    inputs = [layer.expand_bn.weight, layer.expand_bn.bias, layer.expand.weight]
    got = torch.autograd.grad((layer(x) * weights).sum(), inputs)

    _, border = scale_and_shift(layer.expand_bn)
    padded = border.detach()[None, :, None, None].expand(2, 4, 5, 5).clone()
    padded[:, :, 1:-1, 1:-1] = layer.expand_bn(layer.expand(x[0]))
    want = layer.bn(layer.project_bn(layer.project(layer.depthwise(padded))))
    assert_close(got, torch.autograd.grad((want * weights[0]).sum(), inputs), rtol=1e-10, atol=1e-12)

    kernel, bias = dense(layer)  # a border that does carry gradient, to see that the two differ
    (attached,) = torch.autograd.grad((F.conv2d(x[0], kernel, bias, padding=1) * weights[0]).sum(), inputs[1])
    assert (attached - got[1]).abs().max() > 1e-3


def test_rep_conv_survives_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        y = RepConv(4)(torch.randn(2, 2, 4, 5, 5))
    y.float().sum().backward()
    assert y.isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel_size": 3},
        {"kernel_size": 7, "stride": 2, "bias": True},
        {"kernel_size": 3, "padding": 0},
        {"kernel_size": 3, "groups": 2},
    ],
    ids=str,
)
def test_conv_bn_is_convolution_then_normalisation_at_every_step(options):
    layer = randomise(ConvBN(4, 6, **options)).double().eval()
    x = torch.randn(3, 2, 4, 9, 8, dtype=torch.float64)
    scale, shift = scale_and_shift(layer.bn)
    padding = options.get("padding", options.get("kernel_size", 1) // 2)
    conv = dict(stride=options.get("stride", 1), padding=padding, groups=options.get("groups", 1))
    want = torch.stack([F.conv2d(step, layer.conv.weight, layer.conv.bias, **conv) for step in x])
    assert_close(layer(x), want * scale[:, None, None] + shift[:, None, None], rtol=0, atol=1e-12)
    assert (layer.conv.bias is not None) == options.get("bias", False)


def test_batch_statistics_run_over_all_steps():
    layer = ConvBN(4, 6).double().train()
    x = torch.randn(3, 2, 4, 5, 5, dtype=torch.float64) + torch.arange(3)[:, None, None, None, None]
    y = layer(x)
    assert_close(y.mean((0, 1, 3, 4)), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-12)
    assert y[0].mean((0, 2, 3)).abs().max() > 0.1, "each step was normalised alone"
    assert layer.bn.num_batches_tracked == 1


@torch.no_grad()
@pytest.mark.parametrize("kernel_size", [1, 3])
def test_channel_mixer_fires_in_the_middle(kernel_size):
    layer = randomise(ChannelMixer(4, LIF, ratio=2.5, kernel_size=kernel_size, bias=True)).double().eval()
    x = (torch.rand(3, 2, 4, 5, 5, dtype=torch.float64) > 0.5).double()
    spikes = []
    layer.lif.register_forward_hook(lambda module, args, output: spikes.append(output))
    y = layer(x)
    assert spikes[0].shape == (3, 2, 10, 5, 5) and set(spikes[0].unique().tolist()) == {0.0, 1.0}
    assert y.shape == x.shape
    assert_close(y, layer.fc2(LIF()(layer.fc1(x))), rtol=0, atol=0)


def test_per_step_treats_steps_as_samples():
    x = torch.randn(3, 2, 4)
    assert_close(per_step(lambda z: z.cumsum(1), x), x.cumsum(2))
    assert per_step(lambda z: z[:, :1], x).shape == (3, 2, 1)


def test_per_step_layers_follow_one_another():
    layers = PerStep(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 2, 1, bias=False))
    x = torch.randn(3, 2, 4, 5, 7)
    assert_close(layers(x), torch.stack([layers[1](layers[0](step)) for step in x]))
