import pytest
import torch
from torch import nn

from spikeformers import audit, create_model, event_driven, list_models, merge, profile, save_model
from spikeformers.evaluation import load_trained
from spikeformers.layers import ConvBN
from spikeformers.models import forget_network, register_network
from spikeformers.neurons import LIF
from spikeformers.training import Machine, Model, Recipe, Training, train


class Tiny(nn.Module):
    """Two convolutions, one of them of spikes, and a classifier of their rates."""

    def __init__(self, in_chans=1, num_classes=10, width=8, norm=True):
        super().__init__()
        self.stem = ConvBN(in_chans, width) if norm else nn.Conv2d(in_chans, width, 3, padding=1)
        self.first, self.conv, self.second = LIF(), ConvBN(width, width, 3, padding=1), LIF()
        self.head = nn.Linear(width, num_classes)

    def forward(self, x):
        steps, batch = x.shape[:2]
        x = self.stem(x)
        x = self.second(self.conv(self.first(x)))
        return self.head(x.mean((3, 4)))


@pytest.fixture
def tiny():
    register_network(Tiny)
    yield Tiny
    forget_network("Tiny")


def test_a_name_makes_it(tiny):
    assert "Tiny" in list_models()
    torch.manual_seed(0)
    model = create_model("Tiny", width=4, time_steps=2, num_classes=3, in_chans=2).eval()
    x = torch.rand(2, 2, 8, 8)
    steps = model(x, per_step=True)
    assert steps.shape == (2, 2, 3) and torch.equal(model(x), steps.mean(0))
    assert torch.equal(model(x.expand(2, *x.shape)), model(x))
    assert model.config == {
        "architecture": "Tiny",
        "in_chans": 2,
        "num_classes": 3,
        "time_steps": 2,
        "img_size": 32,
        "width": 4,
        "norm": True,
    }
    with pytest.raises(ValueError, match="no option 'depth'.*width"):
        create_model("Tiny", depth=3)
    with pytest.raises(ValueError, match="no schedule"):
        model.set_schedule([2, 1])


def test_it_is_saved_and_read_back(tiny, tmp_path):
    model = create_model("Tiny", width=4)
    save_model(model, tmp_path / "tiny.safetensors")
    again = create_model(checkpoint=tmp_path / "tiny.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    forget_network("Tiny")
    try:
        with pytest.raises(ValueError, match="unknown model 'Tiny'|Tiny"):
            create_model(checkpoint=tmp_path / "tiny.safetensors")
    finally:
        register_network(tiny)


def test_transforms_and_measurements_take_it(tiny):
    torch.manual_seed(0)
    model = create_model("Tiny", width=8, time_steps=2).eval()
    x = torch.rand(2, 1, 12, 12)
    merged = merge(model)
    torch.testing.assert_close(merged(x), model(x), atol=1e-4, rtol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in merged.modules())
    result = profile(model, x)
    assert {"net.first", "net.second"} <= set(result.tally.firing_rates)
    assert audit(model, x).operations
    assert event_driven(model, x)(x).shape == (2, 10)


def test_it_is_trained_by_its_name(tiny, tmp_path):
    recipe = Recipe(
        Model("Tiny", {"width": 8, "time_steps": 2}),
        training=Training(epochs=1),
        trainer=Machine(accelerator="cpu", threads=1),
    )
    summary = train(recipe, tmp_path / "run")
    assert summary["epochs"] == 1 and set(summary["firing_rates"]) == {"net.first", "net.second"}
    trained = load_trained(tmp_path / "run" / "best.safetensors")
    assert trained.model.config["width"] == 8 and trained.classes


def test_mistakes_are_named(tiny):
    with pytest.raises(ValueError, match="already"):
        register_network(tiny)

    @register_network
    def Wrong(num_classes=10):
        return nn.Sequential(nn.Flatten(2), nn.LazyLinear(num_classes + 1))

    try:
        with pytest.raises(ValueError, match=r"must answer \[T, B, classes\] = \(4, 1, 10\)"):
            create_model("Wrong")(torch.rand(1, 3, 8, 8))
    finally:
        forget_network("Wrong")
    with pytest.raises(ValueError, match="without default: depth"):
        register_network(type("Deep", (nn.Module,), {"__init__": lambda self, depth: None}))
    with pytest.raises(ValueError, match="no network 'Nobody'"):
        forget_network("Nobody")
