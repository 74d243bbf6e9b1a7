"""A small Semantic FPN from images and masks to the summary."""

import csv
import json
import math
import signal

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.testing import assert_close

from spikeformers.evaluation import load_trained
from spikeformers.evaluation.segmentation import SegmentationScore
from spikeformers.neurons import Neuron
from spikeformers.training.learner import Learner
from spikeformers.training.recipe import Recipe
from spikeformers.training.run import _module, as_text, train
from spikeformers.training.segmentation import pixel_loss

BODY = {"dims": [8, 16, 24, 32], "depths": [1, 0, 1, 1, 0], "num_heads": 2}


@pytest.fixture(scope="session")
def halves(tmp_path_factory):
    """8 training and 3 test images, the latter of two sizes, dark on one side (class 0) and bright on the other; a stripe is ignored."""
    root, random = tmp_path_factory.mktemp("halves"), np.random.default_rng(0)
    for split, count in (("training", 8), ("validation", 3)):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for i in range(count):
            height, width = (32, 40) if split == "training" or i == 0 else (48, 36)
            mask = np.zeros((height, width), np.uint8)
            mask[:, random.integers(10, 20) :] = 1
            pixels = random.integers(0, 60, (height, width, 3), np.uint8) + 150 * mask[..., None]
            mask[:3] = 255
            Image.fromarray(pixels).save(root / "images" / split / f"{i}.png")
            Image.fromarray(mask).save(root / "annotations" / split / f"{i}.png")
    return root


@pytest.fixture
def config(halves):
    data = {
        "classes": ["dark", "bright"],
        "size": [64, 32],
        "ratio": [0.8, 1.2],
        "img_size": 32,
        "photometric": 0.0,
        "cat_max_ratio": 1.0,
    }
    kwargs = {
        "backbone": "meta_spikeformer_cifar",
        "backbone_kwargs": BODY,
        "width": 16,
        "head_width": 16,
        "time_steps": 2,
    }
    return {
        "model": {"name": "semantic_fpn", "kwargs": kwargs},
        "data": {"name": "masks", "root": str(halves), "batch_size": 2, **data},
        "training": {"epochs": 2, "lr": 3e-3, "warmup_steps": 2, "schedule": "poly", "head_lr": 2.0, "ema": 0.5},
        "trainer": {"accelerator": "cpu"},
        "seed": 1,
    }


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def weights(folder):
    state = torch.load(folder / "last.ckpt", weights_only=True)["state_dict"]
    return {name: value.numpy().tobytes() for name, value in state.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return tmp_path_factory.mktemp("whole")


@pytest.fixture
def uninterrupted(whole, config):
    if not (whole / "summary.json").exists():
        train(Recipe.from_dict(config), whole)
    return whole


def test_what_a_run_leaves(uninterrupted):
    table, summary = rows(uninterrupted), json.loads((uninterrupted / "summary.json").read_text())
    assert list(table[0]) == ["epoch", "train_loss", "val_loss", "pixel_accuracy", "miou", "lr"]
    best = max(table, key=lambda row: (float(row["miou"]), -float(row["val_loss"])))
    assert summary["best_epoch"] == int(best["epoch"]) and summary["test_samples"] == 3
    assert summary["scores"]["miou"] == pytest.approx(float(best["miou"]))
    assert summary["scores"]["accuracy"] == pytest.approx(float(best["pixel_accuracy"]))
    assert len(summary["scores"]["ious"]) == 2
    trained = load_trained(uninterrupted / "best.ckpt")
    neurons = {name for name, module in trained.model.named_modules() if isinstance(module, Neuron)}
    assert set(summary["firing_rates"]) == neurons - {"backbone.body.head_lif"}
    text = as_text(summary)
    assert json.dumps(summary, allow_nan=False)
    assert "mIoU" in text and "backbone.neck" in text and "head.lif" in text and "of 3 test samples" in text


def test_an_interrupted_run_ends_like_an_uninterrupted_one(uninterrupted, config, tmp_path, monkeypatch):
    config["trainer"]["save_minutes"] = 1e-9  # after every step
    recipe, step = Recipe.from_dict(config), Learner.training_step

    def interrupted(self, batch, index):
        if self.current_epoch == 1 and index == 2:
            signal.raise_signal(signal.SIGINT)
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt, match="1 of 2 epochs"):
            train(recipe, tmp_path)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["batches_done"] == 2
    train(recipe, tmp_path, resume=True)
    assert rows(tmp_path) == rows(uninterrupted)
    assert weights(tmp_path) == weights(uninterrupted)


def test_a_class_that_is_nowhere_has_no_score(config, tmp_path, monkeypatch):
    """summary.json stays valid JSON, and the terminal has a dash."""
    monkeypatch.setattr(SegmentationScore, "update", lambda self, logits, targets: None)
    config["training"]["epochs"] = 1
    summary = train(Recipe.from_dict(config), tmp_path)
    assert summary == json.loads((tmp_path / "summary.json").read_text()) and json.dumps(summary, allow_nan=False)
    assert summary["scores"]["miou"] is None and summary["scores"]["ious"] == [None, None]
    assert "mIoU         - of 3 test samples after the last epoch, - after the best" in as_text(summary)


def test_a_run_learns(config, tmp_path):
    config["training"] = {"epochs": 6, "lr": 1e-2}
    config["data"]["batch_size"] = 1
    train(Recipe.from_dict(config), tmp_path)
    losses = [float(row["train_loss"]) for row in rows(tmp_path)]
    assert losses[-1] < 0.9 * losses[0]  # tests lag behind: batch statistics settle over hundreds of steps


def test_the_model_must_fit_the_data(config):
    for name, kwargs, message in (
        ("meta_spikeformer_cifar", {}, "meta_spikeformer_cifar does not segment"),
        ("mask_rcnn", {"backbone": "meta_spikeformer_cifar", "width": 16}, "mask_rcnn does not segment"),
        ("semantic_fpn", config["model"]["kwargs"] | {"num_classes": 7}, "knows 7 classes, and the data have 2"),
    ):
        with pytest.raises(ValueError, match=message):
            _module(Recipe.from_dict({**config, "model": {"name": name, "kwargs": kwargs}}), processes=1)


def test_the_loss_is_the_mean_over_labelled_pixels():
    logits = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 3).bfloat16()
    targets = torch.tensor([[[0, 1, 255]]])
    right, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    loss = pixel_loss(logits, targets)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx((right + wrong) / 2)
    assert_close(
        pixel_loss(logits, targets, 0.1),
        F.cross_entropy(logits.float()[..., :2], targets[..., :2], label_smoothing=0.1),
    )
    twice = targets.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert pixel_loss(logits, twice).item() == pytest.approx(loss.item())


def test_images_without_labels_cost_nothing():
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    loss = pixel_loss(logits, torch.full((2, 4, 4), 255))
    loss.backward()
    assert loss.item() == 0 and (logits.grad == 0).all()
