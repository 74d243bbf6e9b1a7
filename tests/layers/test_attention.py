"""Attention between spikes: counts, operators, heads."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from spikeformers.layers import ConvBN, SpikingSelfAttention, spike_attention
from spikeformers.neurons import LIF


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def spikes(*shape, rate=0.4, dtype=torch.float64):
    return (torch.rand(shape) < rate).to(dtype)


def neuron(v_threshold=1.0):
    return LIF(2.0, v_threshold)


def layer(dim=8, num_heads=2, operator=3):
    """The identity as projection, so that q, k and v are LIF(x); loud inputs make them fire."""
    return SpikingSelfAttention(dim, num_heads, lambda channels: nn.Identity(), neuron, operator=operator)


def naive(q, k, v, num_heads):
    """Q (K^T V), one sample, step and head at a time; also as (Q K^T) V."""
    first, second = torch.zeros_like(q), torch.zeros_like(q)
    width = q.shape[2] // num_heads
    for t in range(q.shape[0]):
        for b in range(q.shape[1]):
            for head in range(num_heads):
                channels = slice(head * width, (head + 1) * width)
                queries, keys, values = (z[t, b, channels].flatten(1).T for z in (q, k, v))  # [N, d]
                shape = first[t, b, channels].shape
                first[t, b, channels] = (queries @ (keys.T @ values)).T.reshape(shape)
                second[t, b, channels] = ((queries @ keys.T) @ values).T.reshape(shape)
    return first, second


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 8, 4, 5), (1, 1, 12, 1, 1), (3, 2, 36, 2, 3)], ids=str)
@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_counts_are_those_of_every_head_alone(shape, num_heads, dtype):
    """More tokens than channels per head and fewer: both orders of the products, on the same exact integers."""
    q, k, v = (spikes(*shape, dtype=dtype) for _ in range(3))
    first, second = naive(q, k, v, num_heads)
    got = spike_attention(q, k, v, num_heads)
    assert_close(got, first, rtol=0, atol=0)
    assert_close(got, second, rtol=0, atol=0)


def test_counts_have_the_gradient_of_the_product():
    inputs = [spikes(1, 2, 4, 3, 2).requires_grad_() for _ in range(3)]
    assert torch.autograd.gradcheck(lambda q, k, v: spike_attention(q, k, v, 2), inputs)
    wide = [spikes(1, 1, 6, 1, 2).requires_grad_() for _ in range(3)]
    assert torch.autograd.gradcheck(lambda q, k, v: spike_attention(q, k, v, 1), wide)


def test_memory_formats_do_not_matter():
    q, k, v = (spikes(2, 2, 8, 3, 3) for _ in range(3))
    channels_last = [z.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3) for z in (q, k, v)]
    assert_close(spike_attention(*channels_last, 2), spike_attention(q, k, v, 2), rtol=0, atol=0)


@torch.no_grad()
def test_sdsa_operators_by_their_formulas():
    x = 3 * spikes(4, 2, 8, 3, 3, rate=0.5)
    s = LIF()(x)  # q, k and v alike
    sn = LIF(2.0, 0.5)
    counts, _ = naive(s, s, s, 2)
    assert_close(layer(operator=1)(x), s * sn((s * s).sum((3, 4), keepdim=True)), rtol=0, atol=0)
    assert_close(layer(operator=2)(x), s * sn(s.sum((3, 4), keepdim=True)), rtol=0, atol=0)
    assert_close(layer(operator=3)(x), sn(0.125 * counts), rtol=0, atol=0)


@torch.no_grad()
def test_sdsa_1_masks_keys_with_values():
    """Where no value fires, no key counts; SDSA-2 has no values and lets them count."""
    attention = layer(operator=1)
    attention.v = ConvBN(8, 8).eval()  # zero of zero weights: values are silent
    nn.init.zeros_(attention.v.conv.weight)
    x = torch.full((2, 1, 8, 2, 2), 3.0)
    assert not attention(x).any()
    assert layer(operator=2)(x).any()


@torch.no_grad()
def test_sdsa_3_fires_from_four_counts():
    """The scale 0.125 and the threshold 0.5 fold into a threshold of 4 counts: LIF(a x, th) = LIF(x, th / a)."""
    counts = torch.arange(0, 60, dtype=torch.float32).expand(3, 60)
    assert_close(LIF(2.0, 0.5)(0.125 * counts), LIF(2.0, 4.0)(counts), rtol=0, atol=0)
    one_step = layer(dim=1, num_heads=1)
    fires = [bool(one_step(torch.full((1, 1, 1, 1, n), 2.0)).all()) for n in range(1, 12)]
    assert fires == [n >= 8 for n in range(1, 12)]  # n tokens that all fire give n counts, and tau 2 halves them


@torch.no_grad()
def test_sdsa_4_starts_as_sdsa_3():
    x = 3 * spikes(4, 2, 8, 4, 4, rate=0.5)
    three, four = layer(operator=3), layer(operator=4)
    assert_close(four(x), three(x), rtol=0, atol=0)
    assert three(x).any() and not three(x).all()
    assert_close(four.float()(x.float()), three(x.float()), rtol=0, atol=0)


@torch.no_grad()
def test_sdsa_4_has_a_threshold_per_head():
    x = 3 * spikes(4, 2, 8, 4, 4, rate=0.5)
    counts, _ = naive(*[LIF()(x)] * 3, 2)
    attention = layer(operator=4)
    attention.log2_threshold.copy_(torch.tensor([0.0, 4.0]))
    y = attention(x)
    assert_close(y[:, :, :4], LIF(2.0, 1.0)(counts[:, :, :4]), rtol=0, atol=0)
    assert_close(y[:, :, 4:], LIF(2.0, 16.0)(counts[:, :, 4:]), rtol=0, atol=0)
    assert y[:, :, :4].mean() > y[:, :, 4:].mean()


def test_sdsa_4_learns_its_threshold():
    attention = layer(operator=4)
    attention(3 * spikes(4, 2, 8, 4, 4, rate=0.5)).sum().backward()
    assert (attention.log2_threshold.grad < 0).all()  # higher thresholds, fewer spikes


def test_projections_and_thresholds():
    attention = SpikingSelfAttention(
        8, 2, lambda c: ConvBN(c, c), neuron, out_projection=lambda c: ConvBN(c, c, bias=True)
    )
    assert attention.attn_lif.v_threshold == 0.5
    assert {attention.q_lif.v_threshold, attention.k_lif.v_threshold, attention.v_lif.v_threshold} == {1.0}
    assert attention.q.conv.bias is None and attention.proj.conv.bias is not None
    assert len({id(module) for module in (attention.q, attention.k, attention.v, attention.proj)}) == 4


@pytest.mark.parametrize("num_heads", [0, -2, 3, 16])
def test_heads_must_divide_the_channels(num_heads):
    with pytest.raises(
        ValueError, match=rf"num_heads={num_heads} does not divide the 8 channels.*one of \[1, 2, 4, 8\]"
    ):
        layer(num_heads=num_heads)


def test_unknown_operators():
    with pytest.raises(ValueError, match="sdsa must be one of 1, 2, 3, 4, not 5"):
        layer(operator=5)
