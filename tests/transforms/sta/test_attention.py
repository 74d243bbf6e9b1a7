"""TCSA: the collapsed form against the paper's increments, masks, and its limit."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from spikeformers.transforms.sta.attention import tcsa, tcsa_reference
from spikeformers.transforms.sta.neurons import fire

T, SHAPE = 9, (2, 3, 5, 4)  # B, h, N, d


def encoder():
    """What transmits attention weights by spikes of 1/8: the reference wants each step's, the collapsed form their mean so far."""
    state = {"sent": 0, "t": 0}

    def spikes(weights):
        state["t"] += 1
        k = fire(weights * state["t"], state["sent"], torch.tensor(0.125), 4)
        state["sent"] = state["sent"] + k
        return k / 8

    def mean(weights):
        spikes(weights)
        return state["sent"] / 8 / state["t"]

    return spikes, mean


@pytest.mark.parametrize("masked", [None, "bool", "added"])
def test_the_collapsed_form_is_the_reference(masked):
    torch.manual_seed(0)
    q, k, v = (torch.randint(-2, 3, (T, *SHAPE)).double() / 4 for _ in range(3))
    mask = None
    if masked:
        mask = torch.rand(2, 1, 5, 5) > 0.3
        mask[0, :, 2] = False  # a query that sees nothing
        mask = mask if masked == "bool" else torch.zeros(mask.shape).masked_fill(~mask, -torch.inf).double()
    wanted = tcsa_reference(q, k, v, encoder()[0], mask)
    encode = encoder()[1]
    for t in range(1, T + 1):
        means = [x[:t].mean(0) for x in (q, k, v)]
        assert_close(tcsa(*means, encode, mask), wanted[:t].mean(0))


def test_without_rounding_it_is_attention():
    torch.manual_seed(0)
    q, k, v = (torch.randn(SHAPE, dtype=torch.float64) for _ in range(3))
    mask = torch.rand(5, 5) > 0.4
    mask[:, 0] = True
    same = lambda x: x  # noqa: E731
    assert_close(tcsa(q, k, v, same), F.scaled_dot_product_attention(q, k, v))
    assert_close(tcsa(q, k, v, same, mask, scale=0.3), F.scaled_dot_product_attention(q, k, v, mask, scale=0.3))
    assert_close(tcsa(q, k, v, same, causal=True), F.scaled_dot_product_attention(q, k, v, is_causal=True))


def test_large_and_masked_rows():
    q, v = torch.tensor([[1e4], [-1e4]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = tcsa(q, torch.tensor([[1.0], [0.9999]]), v, lambda x: x, torch.tensor([[True, True], [False, False]]))
    assert_close(found, torch.tensor([[1 / (1 + torch.e**-1), 1 / (1 + torch.e)], [0.0, 0.0]]), atol=1e-3, rtol=0)


def test_many_equal_weights_are_exact():
    """1 / 300 is less than any spike; all of them are sent alike."""
    q, k, v = torch.zeros(7, 4), torch.randn(300, 4), torch.randn(300, 4)
    encode = encoder()[1]
    for _ in range(3):
        assert_close(tcsa(q, k, v, encode), v.mean(0).expand(7, 4))
