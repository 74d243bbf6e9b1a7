"""The heads of detectors by themselves."""

import pytest
import torch
from torch.testing import assert_close

from spikeformers.measure import emissions
from spikeformers.neurons import LIF
from spikeformers.tasks.detection_heads import (
    SpikingBoxHead,
    SpikingBoxPredictor,
    SpikingMaskHead,
    SpikingMaskPredictor,
    SpikingRPNHead,
)


def fired(module, *inputs):
    with torch.no_grad(), emissions(module) as tally:
        module(*inputs)
    return tally().firing_rates


def test_heads_average_over_time_what_each_step_answers():
    torch.manual_seed(0)
    maps = 2 * torch.randn(3, 2, 8, 6, 5)
    head = SpikingRPNHead(8, 3, LIF)
    (logits,), (deltas,) = head([maps])
    assert logits.shape == (2, 3, 6, 5) and deltas.shape == (2, 12, 6, 5)
    lif, conv = LIF(), head.conv.layer
    hidden = lif(torch.stack([conv(x) for x in lif(maps)]))
    assert hidden.any()
    assert_close(logits, torch.stack([head.cls_logits(x) for x in hidden]).mean(0))
    assert_close(deltas, torch.stack([head.bbox_pred(x) for x in hidden]).mean(0))

    regions = 2 * torch.randn(3, 5, 8, 14, 14)
    mask_head, predictor = SpikingMaskHead(8, LIF), SpikingMaskPredictor(8, 4, LIF)
    x = regions
    for layer in mask_head.convs:
        x = x + torch.stack([layer.layer(s) for s in lif(x)])
    assert_close(mask_head(regions), x)
    x = lif(torch.stack([predictor.upsample.layer(s) for s in lif(x)]))
    assert_close(predictor(mask_head(regions)), torch.stack([predictor.mask_logits(s) for s in x]).mean(0))


def test_last_layers_of_the_box_head_read_potentials_as_published():
    torch.manual_seed(0)
    head, predictor = SpikingBoxHead(8, LIF, width=16), SpikingBoxPredictor(16, 4)
    x = 2 * torch.randn(2, 5, 8, 7, 7)
    lif = LIF()
    hidden = head.fc7.layer(lif(head.fc6.layer(lif(x.flatten(2)))))
    logits, deltas = predictor(head(x))
    assert_close(logits, predictor.cls_score(hidden).mean(0))
    assert_close(deltas, predictor.bbox_pred(hidden).mean(0))


@pytest.mark.parametrize("tau", [1.0, 2.0])
def test_fresh_heads_keep_firing_through_all_their_layers(tau):
    torch.manual_seed(0)

    def neuron():
        return LIF(tau)

    x = tau * torch.randn(1, 6, 64, 14, 14)
    mask = torch.nn.Sequential(SpikingMaskHead(64, neuron), SpikingMaskPredictor(64, 3, neuron))
    rates = [*fired(mask, x).values(), *fired(SpikingBoxHead(64, neuron, 14, 256), x).values()]
    rates += fired(SpikingRPNHead(64, 3, neuron), [x]).values()
    assert len(rates) == 6 + 2 + 2
    assert all(0.05 < rate < 0.5 for rate in rates), rates
