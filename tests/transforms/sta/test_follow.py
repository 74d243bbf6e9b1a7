"""What cannot be followed is refused by name, and inputs may change from step to step."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from spikeformers.transforms.sta import convert

scripted = torch.jit.trace(torch.sigmoid, torch.randn(2, 3))


class Inner(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def network(function):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), Inner(function), nn.Linear(6, 3)).eval()


def aliased(x):
    y = x * 2
    z = y.view(-1, 2, 3)
    y.add_(5)
    return z.flatten(1)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: scripted(x), "1: what it computes cannot be followed"),
        (torch.vmap(torch.sigmoid), "1: .*cannot be"),
        (lambda x: torch.sigmoid(torch.tensor(x)), "1: .*cannot be"),
        (lambda x: torch.mul(x, 2, out=torch.empty_like(x)), "1: mul cannot be converted"),
        (lambda x: x.to(torch.int64).float(), "1: to cannot be converted: it makes whole numbers"),
        (lambda x: F.dropout(x, 0.5), "1: dropout cannot be converted: it is not switched off"),
        (
            lambda x: F.batch_norm(x, None, None, training=True),
            "1: batch_norm cannot be converted: it uses the statistics",
        ),
        (lambda x: torch.einsum("bi,bi->bi", x, x), "1: einsum cannot be converted"),
        (lambda x: torch.empty_like(x).copy_(x), "1: copy_ cannot be converted"),
        (aliased, "writes into memory that others read"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_cannot_be_followed_is_refused(function, words):
    with pytest.raises(ValueError, match=words):
        convert(network(function), torch.randn(8, 4), 8)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.div(x, 0.5, rounding_mode="floor"),
        lambda x: torch.lerp(x, -x, weight=x),
        lambda x: torch.addcmul(x, tensor1=x, tensor2=x),
        lambda x: torch.addcmul(torch.ones(6), torch.ones(6), x),
        lambda x: torch.relu(x.softmax(-1)),
    ],
)
def test_both_forms_agree(function):
    model, x = network(function).double(), torch.randn(8, 4, dtype=torch.float64)
    converted = convert(model, x, 8)
    for means, spikes in zip(converted.steps(x), converted.steps(x, form="spikes"), strict=True):
        assert_close(means, spikes)


@pytest.mark.parametrize("form", ["means", "spikes"])
def test_inputs_may_change(form):
    """The answer is that to the mean of all inputs so far."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 3)).eval()
    inputs = torch.randn(2, 8, 4)
    converted = convert(model, [*inputs, inputs.mean(0)], 64)
    state = converted.start(form)
    for t in range(64):
        answer = converted.step(state, inputs[t % 2])
    with torch.no_grad():
        wanted, last = model(inputs.mean(0)), model(inputs[1])
    assert (answer - wanted).norm() < 0.05 * wanted.norm() < 0.1 * (answer - last).norm()


@pytest.mark.parametrize("form", ["means", "spikes"])
def test_tokens_may_change(form):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 3)).eval()
    tokens = torch.randint(9, (2, 4, 5))
    converted = convert(model, [*tokens], 64)
    state = converted.start(form)
    for t in range(64):
        answer = converted.step(state, tokens[t % 2])
    with torch.no_grad():
        wanted = (model(tokens[0]) + model(tokens[1])) / 2
    assert_close(answer, wanted, atol=0.03, rtol=0)


def test_nan_and_too_many_steps_are_refused():
    model, x = network(torch.relu), torch.randn(8, 4)
    with pytest.raises(ValueError, match="NaN"):
        convert(model, x * torch.nan)
    converted = convert(model, x, 8, levels=4000)
    with pytest.raises(ValueError, match="NaN"):
        converted(x * torch.nan)
    with pytest.raises(ValueError, match="counts up to 8 time steps"):
        converted(x, time_steps=9)


@pytest.mark.parametrize(
    "options",
    [{"levels": 1.5}, {"levels": 0}, {"time_steps": 2.5}, {"time_steps": []}, {"potential": 1}, {"spiking": "half"}],
)
def test_options_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        convert(network(torch.relu), torch.randn(8, 4), **options)


@pytest.mark.parametrize("calibration", [None, torch.empty(0, 4), []])
def test_nothing_to_calibrate_by(calibration):
    with pytest.raises(ValueError, match="inputs"):
        convert(network(torch.relu), calibration)


def test_empty_batches_are_passed_over():
    x = torch.randn(8, 4)
    assert_close(convert(network(torch.relu), [x, x[:0]], 8)(x), convert(network(torch.relu), x, 8)(x))
