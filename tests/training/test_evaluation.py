"""Firing rates by hand."""

import torch
from timm.data import resolve_model_data_config
from torch import nn

import spikeformers
from spikeformers.neurons import IF, LIF
from spikeformers.training.evaluation import firing_rates, load_trained, save_trained


def test_firing_rates_are_spikes_per_neuron_and_step():
    model = nn.Sequential(IF(1.0), nn.Identity(), LIF(2.0, 1.0))
    with firing_rates(model) as rates:
        model(torch.tensor([[1.0, 0.0], [1.0, 0.5]]))  # IF: 1 0, 1 0; LIF: 0 0, 0 0 (h is 0.5, then 0.75)
        assert rates() == {"0": 0.5, "2": 0.0}
        model(torch.tensor([[1.0, 0.6], [1.0, 0.6]]))  # IF: 1 0, 1 1
        assert rates() == {"0": 0.625, "2": 0.0}
    model(torch.ones(2, 2))
    assert rates() == {"0": 0.625, "2": 0.0}


def test_a_checkpoints_model_says_how_its_input_was_prepared(tmp_path):
    options = {"embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 3}
    digits = {"name": "digits", "img_size": 16, "channels": 1, "mean": [0.3], "std": [0.4]}
    for data, channels, size, mean in ((digits, 1, (1, 16, 16), (0.3,)), ({"name": "nmnist", "time_steps": 2}, 2, (2, 34, 34), (0, 0))):
        model = spikeformers.create_model("spikingformer_cifar_2_256", **options, in_chans=channels)
        content = {"model_config": model.config, "known": {"data": data, "classes": ["a", "b", "c"]}}
        torch.save({**content, "state_dict": {f"model.{name}": value for name, value in model.state_dict().items()}}, tmp_path / "best.ckpt")
        trained = load_trained(tmp_path / "best.ckpt")
        save_trained(trained, tmp_path / "best.safetensors")
        for found in (trained.model, spikeformers.create_model(checkpoint=tmp_path / "best.safetensors")):
            config = resolve_model_data_config(found)
            assert (config["input_size"], config["mean"]) == (size, mean)
            assert found.pretrained_cfg["label_names"] == ("a", "b", "c")
