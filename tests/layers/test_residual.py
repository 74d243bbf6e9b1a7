"""Shortcuts and stochastic depth."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from spikeformers.layers import DropPath, Residual
from spikeformers.neurons import LIF


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class Times(nn.Module):
    """A branch that multiplies, so that everything can be computed by hand."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return self.factor * x


def potentials(*values):
    return torch.tensor(values)[:, None, None, None, None]


def test_membrane_shortcut_by_hand():
    """U + 3 LIF(U): h = 0.75 is silent, h = 1.375 fires."""
    layer = Residual(Times(3.0), LIF(), "ms")
    assert layer(potentials(1.5, 2.0)).flatten().tolist() == [1.5, 5.0]


def test_vanilla_shortcut_by_hand():
    """LIF(s + 0.5 s): a spike makes 1.5, so h = 0.75 and then 0.75 + (1.5 - 0.75) / 2 = 1.125."""
    layer = Residual(Times(0.5), LIF(), "vs")
    assert layer(potentials(1.0, 1.0, 1.0)).flatten().tolist() == [0.0, 1.0, 0.0]


def test_sew_shortcut_by_hand():
    """s + LIF(2 s): every spike makes another, and integers go in and out."""
    layer = Residual(Times(2.0), LIF(), "sew")
    assert layer(potentials(1.0, 0.0, 1.0)).flatten().tolist() == [2.0, 0.0, 2.0]
    assert layer(layer(potentials(1.0, 0.0, 1.0))).flatten().tolist() == [3.0, 0.0, 3.0]


def test_unknown_shortcuts():
    with pytest.raises(ValueError, match="shortcut must be one of ms, vs, sew, not 'resnet'"):
        Residual(Times(1.0), LIF(), "resnet")


def test_dropped_paths_are_whole_samples_at_all_steps():
    y = DropPath(0.25)(torch.ones(3, 1000, 2, 4, 4))
    per_sample = y.transpose(0, 1).flatten(1)
    assert (per_sample == per_sample[:, :1]).all(), "a sample was dropped in part"
    assert per_sample[:, 0].unique().tolist() == pytest.approx([0, 4 / 3])
    dropped = (per_sample[:, 0] == 0).float().mean().item()
    assert 0.2 < dropped < 0.3  # 3.6 standard deviations
    assert y.mean().item() == pytest.approx(1, abs=0.07)


def test_dropped_paths_change_from_call_to_call():
    layer, x = DropPath(0.5), torch.ones(2, 64, 1)
    assert (layer(x) != layer(x)).any()


def test_dropped_paths_have_no_gradient():
    x = torch.ones(2, 64, 3, requires_grad=True)
    y = DropPath(0.5)(x)
    y.sum().backward()
    assert_close(x.grad, y.detach(), rtol=0, atol=0)
    assert (x.grad == 0).any() and (x.grad == 2).any()


def test_nothing_is_dropped_in_eval_mode_or_at_rate_zero():
    x = torch.randn(2, 8, 3)
    assert_close(DropPath(0.9).eval()(x), x, rtol=0, atol=0)
    assert_close(DropPath(0.0)(x), x, rtol=0, atol=0)


def test_dtype_is_kept():
    assert DropPath(0.5)(torch.ones(2, 4, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2.0])
def test_bad_rates(rate):
    with pytest.raises(ValueError, match=rf"rate must be .*, not {rate}"):
        DropPath(rate)


@pytest.mark.parametrize("shortcut", ["ms", "sew"])
def test_a_dropped_branch_leaves_the_shortcut(shortcut):
    layer = Residual(Times(4.0), LIF(), shortcut, drop_path=0.5)
    x = torch.ones(2, 64, 1, 1, 1) * (2.0 if shortcut == "ms" else 1.0)
    added = (layer(x) - x).transpose(0, 1).flatten(1)
    kept = 2 * (4.0 if shortcut == "ms" else 1.0)
    assert {tuple(row) for row in added.tolist()} == {(0.0, 0.0), (kept, kept)}
    assert_close(layer.eval()(x), x + kept / 2, rtol=0, atol=0)
