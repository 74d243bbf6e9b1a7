import pytest
import torch

from spikeformers.layers import delta_code, latency_code, phase_code, rate_code


def test_rates_are_the_values():
    x = torch.tensor([[0.0, 0.25], [0.8, 1.0]])
    spikes = rate_code(x, 4000, generator=torch.Generator().manual_seed(0))
    assert spikes.shape == (4000, 2, 2) and set(spikes.unique().tolist()) == {0.0, 1.0}
    torch.testing.assert_close(spikes.mean(0), x, atol=0.03, rtol=0)
    assert spikes[:, 0, 0].sum() == 0 and spikes[:, 1, 1].sum() == 4000
    again = rate_code(x, 4000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(spikes, again)


@pytest.mark.parametrize("logarithmic", [False, True])
def test_larger_values_fire_earlier(logarithmic):
    x = torch.tensor([1.0, 0.9, 0.5, 0.3, 0.2, 0.1])
    spikes = latency_code(x, 5, threshold=0.2, logarithmic=logarithmic)
    assert spikes.sum(0).tolist() == [1, 1, 1, 1, 0, 0]  # what does not exceed the threshold is silent
    times = spikes.argmax(0)[:4]
    assert times[0] == 0 and torch.equal(times, times.sort().values) and times[3] > times[1]


def test_latencies_lie_on_a_line():
    times = latency_code(torch.tensor([1.0, 0.75, 0.5, 0.25, 0.001]), 5).argmax(0)
    assert times.tolist() == [0, 1, 2, 3, 4]
    assert latency_code(torch.zeros(3), 5).sum() == 0


def test_logarithmic_latencies():
    times = latency_code(torch.tensor([1.0, 1 / 4, 1 / 16, 1 / 256]), 9, logarithmic=True).argmax(0)
    assert times.tolist() == [0, 2, 4, 8]


def test_phases_are_binary_digits():
    x = torch.rand(50, generator=torch.Generator().manual_seed(1))
    for steps in (1, 4, 24):
        digits = phase_code(x, steps)
        worth = 0.5 ** torch.arange(1, steps + 1, dtype=torch.float64)[:, None]
        rebuilt = (digits.double() * worth).sum(0)
        assert torch.equal(rebuilt, (x.double() * 2**steps).floor() / 2**steps)
    assert phase_code(torch.tensor([0.625, 1.0]), 3).T.tolist() == [[1, 0, 1], [1, 1, 1]]


def test_changes_fire():
    x = torch.tensor([0.0, 0.5, 0.55, 0.2, 0.3])
    assert delta_code(x, 0.1).tolist() == [0, 1, 0, -1, 1]
    assert delta_code(x, 0.1, off_spikes=False).tolist() == [0, 1, 0, 0, 1]
    assert delta_code(x + 1, 0.1)[0] == 1  # the first step shows what is there


@pytest.mark.parametrize("code", [rate_code, latency_code, phase_code])
@pytest.mark.parametrize(
    "x", [torch.tensor([-0.1]), torch.tensor([1.1]), torch.tensor([float("nan")]), torch.tensor([3])]
)
def test_values_outside_are_refused(code, x):
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        code(x, 4)


def test_dtype_is_kept_and_a_model_takes_the_sequence():
    from spikeformers import create_model

    x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    spikes = rate_code(x, 2)
    assert spikes.dtype == torch.float64
    model = create_model("spiking_resnet_edge", time_steps=2).eval()
    assert model(spikes.float()).shape == (2, 10)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="time_steps"):
        rate_code(torch.rand(3), 0)
    with pytest.raises(ValueError, match="24"):
        phase_code(torch.rand(3), 25)
    with pytest.raises(ValueError, match="threshold"):
        delta_code(torch.rand(3), 0.0)
    with pytest.raises(ValueError, match="sequence"):
        delta_code(torch.tensor(1.0))
