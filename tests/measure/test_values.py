"""What tensors hold: the kind of their values."""

import pytest
import torch

from spikeformers.measure.values import kind_of


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0.0, 1.0, 1.0], "binary"),
        ([0.0, 0.0], "binary"),
        ([-1.0, 0.0, 1.0], "ternary"),
        ([0.0, 2.0], "integer"),
        ([-3.0, 1.0], "integer"),
        ([0.0, 0.5], "real"),  # two values, but no spikes
        ([0.0, 1e-30, 1.0], "real"),
        ([0.0, float("nan")], "real"),
        ([0.0, float("inf")], "real"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_kind_of_values(values, kind, dtype):
    assert kind_of(torch.tensor(values, dtype=dtype)) == kind


def test_kind_is_decided_by_every_value():
    spikes = torch.ones(3, 100, 100)
    assert kind_of(spikes) == "binary"
    spikes[-1, -1, -1] = 0.5
    assert kind_of(spikes) == "real"
    assert kind_of(spikes.bool()) == "binary" and kind_of(torch.tensor([0, 3])) == "integer"
