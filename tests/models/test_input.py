"""What a model says of its input."""

import json

import timm
import torch
import torch.nn.utils.prune
from timm.data import resolve_model_data_config

import spikeformers
from spikeformers.models import save_model

TINY = dict(embed_dim=16, depth=1, num_heads=2, num_classes=10)


def tiny(**given):
    torch.manual_seed(0)
    return spikeformers.create_model("spikingformer_cifar_2_256", **{**TINY, **given})


DIGITS = {
    "name": "digits",
    "img_size": 16,
    "channels": 1,
    "mean": [0.3],
    "std": [0.4],
    "crop_pct": 0.9,
    "interpolation": "bilinear",
}
EVENTS = {"name": "nmnist", "time_steps": 4, "split_by": "number", "img_size": None, "sensor": [40, 30]}


def saved(path, model, data, classes=None):
    save_model(model, path, {"spikeformers": json.dumps({"data": data, "classes": classes})})
    return spikeformers.create_model(checkpoint=path)


def test_a_run_of_images_is_what_timm_resolves(tmp_path):
    names = [f"digit {i}" for i in range(10)]
    model = saved(tmp_path / "digits.safetensors", tiny(in_chans=1), DIGITS, names)
    want = {
        "input_size": (1, 16, 16),
        "mean": (0.3,),
        "std": (0.4,),
        "crop_pct": 0.9,
        "interpolation": "bilinear",
        "crop_mode": "center",
    }
    assert resolve_model_data_config(model) == want and model.pretrained_cfg["label_names"] == tuple(names)
    save_model(model, tmp_path / "again.safetensors")
    again = spikeformers.create_model(checkpoint=tmp_path / "again.safetensors")
    assert resolve_model_data_config(again) == want and again.pretrained_cfg["label_names"] == tuple(names)
    detector = spikeformers.create_model("semantic_fpn", backbone=again, num_classes=3)
    assert resolve_model_data_config(detector)["mean"] == (0.3,)


def test_a_run_of_events_is_what_timm_resolves(tmp_path):
    found = resolve_model_data_config(saved(tmp_path / "events.safetensors", tiny(in_chans=2), EVENTS))
    assert (found["input_size"], found["mean"], found["std"], found["crop_pct"]) == ((2, 30, 40), (0, 0), (1, 1), 1.0)


def test_dense_runs_are_what_timm_resolves(tmp_path):
    small = {
        "backbone": "spikingformer_cifar_2_256",
        "backbone_kwargs": {**TINY, "num_classes": 0},
        "num_classes": 3,
        "width": 8,
    }
    data = {"name": "masks", "img_size": 96, "size": [128, 96], "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.5, 0.5]}
    segmenter = saved(
        tmp_path / "s.safetensors", spikeformers.create_model("semantic_fpn", **small), data, ["a", "b", "c"]
    )
    found = resolve_model_data_config(segmenter)
    assert (found["input_size"], found["mean"]) == ((3, 96, 96), (0.1, 0.2, 0.3))
    assert segmenter.pretrained_cfg["label_names"] == ("a", "b", "c")
    detector = spikeformers.create_model("faster_rcnn", **small, min_size=64, max_size=96)
    detector = saved(tmp_path / "d.safetensors", detector, {"name": "coco", "masks": True}, ["a", "b"])
    found = resolve_model_data_config(detector)  # it normalises and resizes by itself
    assert (found["input_size"], found["mean"], found["std"]) == ((3, 64, 96), (0, 0, 0), (1, 1, 1))
    assert detector.pretrained_cfg["label_names"] == ("a", "b")


def test_a_model_of_other_channels_says_so():
    assert (
        resolve_model_data_config(tiny(in_chans=1))["input_size"] == (1, 32, 32)
        and len(tiny(in_chans=1).pretrained_cfg["mean"]) == 1
    )
    model = timm.create_model("spiking_vgg9", width=0.125, img_size=(32, 64), in_chans=3)
    assert resolve_model_data_config(model)["input_size"] == (3, 32, 64)
    assert resolve_model_data_config(tiny())["input_size"] == (3, 32, 32)
