"""What the recorder sees: rates, values' sources, and where products happen."""

import copy

import pytest
import torch
from torch import nn

from spikeformers.measure import following, record
from spikeformers.neurons import LIF


def operation(recorder, module):
    (found,) = [o for o in recorder.operations.values() if o.module == module and o.category != "addition"]
    return found


def test_rates_weigh_batches_by_their_samples(spikingformer, images):
    model = spikingformer()
    whole, parts = record(model, [images]), record(model, [images[:1], images[1:]])
    assert parts.samples == 4
    for name, operand in whole.neurons.items():
        assert operand.rate == pytest.approx(parts.neurons[name].rate, rel=1e-12)
        assert operand.rate_per_step == pytest.approx(parts.neurons[name].rate_per_step)
        assert 0 < operand.rate < 1, name
    for a, b in zip(whole.operations.values(), parts.operations.values(), strict=True):
        assert (a.module, a.dense, a.effective) == (b.module, b.dense, b.effective)


def test_rates_are_those_of_inputs_behind_the_pooling(spikingformer, images):
    """Max pooling raises the rate: what counts is what the convolution reads."""
    model = spikingformer()
    seen = {}
    model.tokenizer[2].conv_bn.register_forward_pre_hook(lambda module, args: seen.update(x=args[0]))
    recorder = record(model, [images])
    convolution = operation(recorder, "tokenizer.2.conv_bn.conv")
    assert convolution.data[0].rate == pytest.approx(seen["x"].mean().item())
    assert convolution.data[0].rate > recorder.neurons["tokenizer.2.lif"].rate
    assert convolution.data[0].rate_per_step == pytest.approx(seen["x"].mean((1, 2, 3, 4)).tolist())


def test_static_images_pass_the_stem_once(meta, images):
    recorder = record(meta(time_steps=3), [images])
    steps = {o.module: o.steps for o in recorder.operations.values() if o.category in ("convolution", "linear")}
    assert steps.pop("stem.conv") == 1
    assert set(steps.values()) == {3}


def test_a_model_is_left_as_it_was(meta, images):
    model = meta().train()
    before = copy.deepcopy(model.state_dict())
    hooks = [len(module._forward_hooks) for module in model.modules()]
    record(model, [images])
    assert model.training and [len(module._forward_hooks) for module in model.modules()] == hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(vars(tensor) for tensor in [*model.parameters(), images])


def test_results_are_those_of_the_model(meta, images):
    model = meta()
    with following(model) as recorder:
        (output,) = recorder.run(images)
    with torch.no_grad():
        assert torch.equal(output, model(images))


def test_time_is_found_however_frames_are_made(images):
    """The stem runs once, what follows for T steps, whatever the batch and the layout."""

    class Tokens(nn.Module):
        def __init__(self, spread):
            super().__init__()
            self.stem, self.lif, self.mix, self.spread = nn.Conv2d(3, 4, 4, 4), LIF(tau=1.0), nn.Linear(4, 6), spread

        def forward(self, x):
            tokens = self.stem(x).flatten(2).transpose(1, 2)  # [B, N, C]
            return self.mix(self.lif(self.spread(tokens))).mean((0, 2))

    for spread in (
        lambda x: x.expand(5, *x.shape),
        lambda x: x.unsqueeze(0).repeat(5, 1, 1, 1),
        lambda x: torch.stack([x] * 5),
        lambda x: torch.cat([x[None]] * 5),
    ):
        for batches in ([images], [images[:3], images[3:]], [images[:1], images[1:]]):
            recorder = record(Tokens(spread), batches)
            steps = {o.module: o.steps for o in recorder.operations.values() if o.module}
            assert steps == {"stem": 1, "lif": 5, "mix": 5}
            assert operation(recorder, "mix").dense == 5 * 4 * 12 * 4 * 6 and recorder.neuron_shapes["lif"] == (12, 4)
            assert len(operation(recorder, "mix").data[0].rate_per_step) == 5


@pytest.mark.parametrize("wrap", ["inference", "half"])
def test_unusual_modes(spikingformer, images, wrap):
    model = spikingformer()
    if wrap == "half":
        found = record(model.bfloat16(), [images.bfloat16()])
    else:
        model.forward = torch.inference_mode()(model.forward)
        found = record(model, [images])
    plain = record(spikingformer(), [images])
    names = [(o.module, o.category, o.dense) for o in plain.operations.values() if o.dense]
    assert [(o.module, o.category, o.dense) for o in found.operations.values() if o.dense] == names


def test_lengths_are_not_mixed(meta):
    with pytest.raises(ValueError, match="of 2 and of 4 time steps"):
        record(meta(), [torch.rand(2, 1, 3, 16, 12), torch.rand(4, 1, 3, 16, 12)])


def test_nothing_to_follow():
    with pytest.raises(ValueError, match="no inputs"):
        record(nn.Linear(2, 2), [])
