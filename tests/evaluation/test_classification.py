"""Samples that are not finite, and what checkpoints say of their input."""

import math
import time
from types import SimpleNamespace

import pytest
import torch
from timm.data import resolve_model_data_config
from torch import nn

import spikeformers
from spikeformers.data.samples import PADDING_LABEL
from spikeformers.evaluation import evaluate, load_trained, save_trained


class ByHeart(nn.Module):
    """Logits [T, B, 2] for class 1 by the mean of the images' finite pixels, as spiking neurons never fire at NaN; infinite above 5."""

    def forward(self, x, per_step=False):
        mean = x.nan_to_num(0.0).flatten(-3).mean(-1)
        logits = torch.stack([-mean, mean], -1)
        logits = torch.where(logits.abs() > 5, math.inf, logits)
        return logits[None] if x.ndim == 4 else logits


@pytest.mark.parametrize("steps", [None, 3])
def test_samples_that_are_not_finite_are_named_and_count_as_wrong(monkeypatch, steps):
    images = torch.ones(6, 1, 2, 2) * torch.tensor([-1.0, 1, -1, 1, 1, 9]).view(6, 1, 1, 1)
    images[1, 0, 0, 0] = math.nan
    labels = torch.tensor([0, 1, 0, PADDING_LABEL, 0, 1])
    images = images if steps is None else images.expand(steps, 6, 1, 2, 2)
    batches = [(images[..., :4, :, :, :], labels[:4]), (images[..., 4:, :, :, :], labels[4:])]
    monkeypatch.setattr("spikeformers.evaluation.classification.test_loader", lambda samples: batches)
    samples = SimpleNamespace(where="sample {}".format)
    with pytest.warns(UserWarning, match="2 samples hold or lead to .* wrong: sample 1, sample 5"):
        result = evaluate(ByHeart(), samples)
    assert result.samples == 5 and result.accuracy == 2 / 5
    assert math.isfinite(result.loss) and "not finite   2 samples" in result.as_text("x")
    monkeypatch.setattr("spikeformers.evaluation.classification.test_loader", lambda samples: batches[:0] + [(images[..., :1, :, :, :], labels[:1])])
    assert evaluate(ByHeart(), samples).not_finite == ""


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


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content["model_config"].update(embed_dim=2**15), "its weights are not those of its model"),
        (lambda content: content["model_config"].update(depth=100_000), "it says 100,000 blocks, and there are"),
        (lambda content: content["model_config"].update(checkpoint="/etc/x.safetensors"), "has the entries checkpoint, which are no options"),
        (lambda content: content["model_config"].update(pretrained=True), "has the entries pretrained, which are no options"),
        (lambda content: content["state_dict"]["model.head.weight"].fill_(math.nan), "head.weight has 48 values of 48 that are NaN"),
        (lambda content: content["state_dict"].update({"model.head.weight": torch.zeros(1).expand(2**20, 2**10)}), "claims 1,073,741,824 values"),
        (lambda content: content["state_dict"].update({"model.head.weight": 3}), "is no checkpoint of `spikeformers train`"),
    ],
)
def test_hostile_checkpoints_of_runs_are_named_before_they_take_memory(change, words, tmp_path):
    model = spikeformers.create_model("spikingformer_cifar_2_256", embed_dim=16, depth=1, num_heads=2, num_classes=3)
    state = {f"model.{name}": value.clone() for name, value in model.state_dict().items()}
    content = {"model_config": dict(model.config), "known": {"data": None, "classes": None}, "state_dict": state}
    change(content)
    torch.save(content, tmp_path / "best.ckpt")
    start = time.process_time()
    with pytest.raises(ValueError, match=words):
        load_trained(tmp_path / "best.ckpt")
    assert time.process_time() - start < 5


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"<!DOCTYPE html><p>", "a web page"), (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS"), (b"", "empty: a download")],
)
def test_runs_that_are_other_files_are_named(content, words, tmp_path):
    (tmp_path / "best.ckpt").write_bytes(content)
    with pytest.raises(ValueError, match=f"is no checkpoint of `spikeformers train`: it is .*{words}"):
        load_trained(tmp_path)
