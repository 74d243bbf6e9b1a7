"""A small Mask R-CNN from annotated squares to the summary: losses, images without objects, interruption, processes.

So little training finds nothing, and scores of 0 would agree by being zero. So what the network answers in eval mode is replaced:
it finds the squares, but as far beside them as BOXES_ASIDE and MASKS_ASIDE say.
"""

import csv
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.testing import assert_close

from spikeformers.data import TrainingSet
from spikeformers.evaluation import load_trained
from spikeformers.neurons import Neuron
from spikeformers.tasks.detection import SpikingFasterRCNN, SpikingMaskRCNN
from spikeformers.training.learner import Learner
from spikeformers.training.recipe import Recipe
from spikeformers.training.run import _module, as_text, train

SIDE = 18  # pixels of a square
# pixels after each epoch, of the bright square; one more of the dark one
BOXES_ASIDE, MASKS_ASIDE = (1, 3, 4), (4, 1, 3)
BODY = {"dims": [8, 16, 24, 32], "depths": [1, 0, 1, 1, 0], "num_heads": 2}


@pytest.fixture(scope="session")
def squares(tmp_path_factory):
    """COCO's format: 6 training and 3 test images of 40 x 48 pixels with a bright square of a class for its brightness. Two
    training images and a test image show nothing."""
    root, random = tmp_path_factory.mktemp("squares"), np.random.default_rng(0)
    (root / "annotations").mkdir()
    for split, count, empty in (("train2017", 6, (1, 3)), ("val2017", 3, (2,))):
        (root / split).mkdir()
        images, annotations = [], []
        for i in range(count):
            pixels = random.integers(0, 60, (40, 48, 3), np.uint8)
            if i not in empty:
                x, y, side = random.integers(2, 20, 2).tolist() + [SIDE]
                pixels[y : y + side, x : x + side] += 80 + 100 * (i % 2 == 0)
                outline = [[x, y, x + side, y, x + side, y + side, x, y + side]]
                box = {"bbox": [x, y, side, side], "area": side**2, "segmentation": outline, "iscrowd": 0}
                annotations.append({"id": len(annotations) + 1, "image_id": i, "category_id": 1 + i % 2, **box})
            Image.fromarray(pixels).save(root / split / f"{i}.png")
            images.append({"id": i, "file_name": f"{i}.png", "height": 40, "width": 48})
        categories = [{"id": 1, "name": "bright"}, {"id": 2, "name": "dark"}]
        content = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return root


def see_squares(patch):
    """Replaces the answers, and makes neurons fire, which untrained networks' hardly do: `patch` as pytest's monkeypatch."""
    reset = nn.BatchNorm2d.reset_parameters

    def replaced(answer):
        def forward(self, images, targets=None):
            answers = answer(self, images, targets)
            if self.training:
                return answers
            steps = next(module.num_batches_tracked for module in self.modules() if isinstance(module, nn.BatchNorm2d))
            epoch = int(steps) // 3
            return [seen(image, epoch, "masks" in found) for image, found in zip(images, answers, strict=True)]

        return forward

    def amplify(self):
        reset(self)
        nn.init.constant_(self.weight, 10.0)

    for kind in (SpikingMaskRCNN, SpikingFasterRCNN):
        patch.setattr(kind, "forward", replaced(kind.forward))
    patch.setattr(nn.BatchNorm2d, "reset_parameters", amplify)


def seen(image, epoch, masks):
    """The square in an image, beside its place; the weights' number of training steps says which epoch's they are."""
    square = image.mean(0) > 65 / 255
    dark = image.mean(0).max() < 160 / 255
    rows, columns = square.nonzero().unbind(1)
    count = int(square.any())
    aside = [shifts[max(1, epoch) - 1] + int(dark) for shifts in (BOXES_ASIDE, MASKS_ASIDE)]
    edges = torch.tensor([0, 0, 1, 1])
    if count:
        edges = torch.stack([columns.min() + aside[0], rows.min(), columns.max() + 1 + aside[0], rows.max() + 1])
    found = {
        "boxes": edges.float().expand(count, 4),
        "labels": torch.full((count,), 1 + int(dark)),
        "scores": torch.full((count,), 0.9),
    }
    return {**found, "masks": square.roll(aside[1], 1).float().expand(count, 1, -1, -1)} if masks else found


def precision_of(aside):
    """Average precision of a bright and a dark square, each found alone."""
    overlaps = [(SIDE - shift) / (SIDE + shift) for shift in (aside, aside + 1)]
    return np.mean([np.mean(overlap >= np.linspace(0.5, 0.95, 10)) for overlap in overlaps])


@pytest.fixture(autouse=True)
def seeing(monkeypatch):
    see_squares(monkeypatch)


@pytest.fixture
def config(squares):
    kwargs = {"backbone": "meta_spikeformer_cifar", "backbone_kwargs": BODY, "width": 16, "time_steps": 2}
    sizes = {"min_size": 40, "max_size": 48, "rpn_post_nms_top_n_train": 50, "rpn_post_nms_top_n_test": 20}
    return {
        "model": {"name": "mask_rcnn", "kwargs": kwargs | sizes | {"box_score_thresh": 0.0}},
        "data": {"name": "coco", "root": str(squares), "batch_size": 2},
        "training": {"epochs": 3, "lr": 1e-3, "warmup_steps": 2, "head_lr": 2.0, "clip_grad": 1.0},
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


def test_what_a_run_leaves(uninterrupted, config):
    table, summary = rows(uninterrupted), json.loads((uninterrupted / "summary.json").read_text())
    parts = [name for name in table[0] if name.startswith("loss_")]
    assert parts == ["loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"]
    for row in table:
        assert float(row["train_loss"]) == pytest.approx(sum(float(row[name]) for name in parts), rel=1e-5)
        assert all(float(row[name]) > 0 for name in parts)
    for name, asides in (("box_ap", BOXES_ASIDE), ("mask_ap", MASKS_ASIDE)):
        assert [float(row[name]) for row in table] == pytest.approx([precision_of(aside) for aside in asides])
    assert summary["best_epoch"] == 2 and summary["test_samples"] == 3  # that of the masks
    assert summary["scores"]["mask_ap"] == pytest.approx(precision_of(MASKS_ASIDE[1]))
    assert summary["scores"]["box_ap"] == pytest.approx(precision_of(BOXES_ASIDE[1]))
    assert summary["scores"]["box_ap_large"] is None and json.dumps(summary, allow_nan=False)
    assert summary["last_scores"]["mask_ap"] == pytest.approx(precision_of(MASKS_ASIDE[2]))
    assert summary["last_scores"]["box_ap50"] == pytest.approx(float(table[-1]["box_ap50"])) == 1
    trained = load_trained(uninterrupted / "best.safetensors")
    assert trained.classes == ["bright", "dark"] and trained.data == Recipe.from_dict(config).data
    neurons = {name for name, module in trained.model.named_modules() if isinstance(module, Neuron)}
    assert set(summary["firing_rates"]) == neurons - {"backbone.body.head_lif"}
    for part in ("rpn.head", "roi_heads.box_head", "roi_heads.mask_head", "roi_heads.mask_predictor", "backbone.neck"):
        assert max(rate for name, rate in summary["firing_rates"].items() if name.startswith(part)) > 0.001, part
    text = as_text(summary)
    assert "mask AP" in text and "box AP" in text and "backbone.neck" in text and "of 3 test samples" in text


def interrupt(monkeypatch, epoch, batch):
    step = Learner.training_step

    def interrupted(self, batch_, index):
        if self.current_epoch == epoch and index == batch:
            signal.raise_signal(signal.SIGINT)
        return step(self, batch_, index)

    monkeypatch.setattr(Learner, "training_step", interrupted)


def test_an_interrupted_run_ends_like_an_uninterrupted_one(uninterrupted, config, tmp_path, monkeypatch):
    config["trainer"]["save_minutes"] = 1e-9  # after every step
    recipe = Recipe.from_dict(config)
    with monkeypatch.context() as patch:
        interrupt(patch, epoch=1, batch=1)
        with pytest.raises(KeyboardInterrupt, match="1 of 3 epochs"):
            train(recipe, tmp_path)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["batches_done"] == 1
    train(recipe, tmp_path, resume=True)
    assert rows(tmp_path) == rows(uninterrupted)
    assert weights(tmp_path) == weights(uninterrupted)


def module_of(config, **options):
    config["training"] |= options
    return _module(Recipe.from_dict(config), processes=1)


@pytest.mark.parametrize("precision", [None, torch.bfloat16], ids=str)
def test_images_without_objects_are_learned_from(config, precision):
    """All parameters have a gradient, as several processes need it."""
    module = module_of(config, clip_grad=0.0)
    samples = TrainingSet(module.recipe.data, 0)
    empty = [samples[index, 0] for index in range(6) if not len(samples[index, 0][0][1]["boxes"])]
    assert len(empty) == 2
    with torch.autocast("cpu", torch.bfloat16, enabled=precision is not None):
        loss = module.training_step(module.recipe.data.collate(empty), 0)
    assert loss.dtype == torch.float32 and loss > 0
    loss.backward()
    assert [name for name, p in module.model.named_parameters() if p.grad is None] == []


def test_the_model_must_fit_the_data(config, squares):
    def complaint(section, **options):
        changed = json.loads(json.dumps(config))
        changed[section] = {**changed[section], **options}
        with pytest.raises(ValueError) as error:
            module_of(changed)
        return str(error.value)

    assert "meta_spikeformer_cifar is no detector" in complaint("model", name="meta_spikeformer_cifar", kwargs={})
    assert "knows 5 classes with the background, and the data have 2" in complaint(
        "model", kwargs={**config["model"]["kwargs"], "num_classes": 5}
    )
    assert "fsdp does not work with detectors" in complaint("trainer", strategy="fsdp")
    assert "learns masks; set data.masks" in complaint("data", masks=False)
    assert "needs a backbone" in complaint("model", kwargs={})


def test_a_classifier_does_not_take_objects(config):
    config["data"] = {"name": "digits", "img_size": 16}
    config["training"] = {}
    with pytest.raises(ValueError, match="mask_rcnn does not classify"):
        module_of(config)


def test_a_loss_that_is_no_number_ends_the_run(config, tmp_path):
    config["training"] |= {"lr": 1e30, "warmup_steps": 0, "clip_grad": 0.0, "optimizer": "sgd", "epochs": 3}
    with pytest.raises(
        ValueError,
        match=r"not a finite number since step \d \(epoch \d, batch \d\); start again with a training.lr below 1e",
    ):
        train(Recipe.from_dict(config), tmp_path)


def test_boxes_alone(config, tmp_path):
    config["model"]["name"], config["data"]["masks"], config["training"]["epochs"] = "faster_rcnn", False, 1
    summary = train(Recipe.from_dict(config), tmp_path)
    assert not any("mask" in name for name in rows(tmp_path)[0]) and "mask_ap" not in summary["scores"]
    assert "mask AP" not in as_text(summary) and f"box AP       {precision_of(BOXES_ASIDE[0]):.2%}" in as_text(summary)


def test_scores_without_objects_are_no_numbers(config, tmp_path, squares):
    """summary.json stays valid JSON, and the terminal has a dash."""
    shutil.copytree(squares, tmp_path / "data")
    file = tmp_path / "data" / "annotations" / "instances_val2017.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
    config["data"]["root"], config["training"]["epochs"] = str(tmp_path / "data"), 1
    summary = train(Recipe.from_dict(config), tmp_path / "run")
    assert summary == json.loads((tmp_path / "run" / "summary.json").read_text())
    assert set(summary["scores"].values()) == {None} and json.dumps(summary, allow_nan=False)
    text = as_text(summary)
    assert "mask AP      - (AP50 -) of 3 test samples after the last epoch, - (AP50 -) after the best" in text


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_two_processes(config, tmp_path):
    """One of them gets an image without objects, and they see images of their own sizes; both end with the same weights."""
    config["trainer"] |= {"sync_batchnorm": True, "strategy": "ddp", "devices": 2}
    config["training"]["epochs"] = 1
    arguments = [str(free_port()), json.dumps(config), str(tmp_path)]
    workers = [
        subprocess.Popen([sys.executable, __file__, str(rank), *arguments], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for process in workers:
        _, errors = process.communicate(timeout=200)
        assert process.returncode == 0, errors
    (row,) = rows(tmp_path)
    scores = json.loads((tmp_path / "summary.json").read_text())["scores"]  # of one process
    assert math.isfinite(float(row["train_loss"]))
    for name, asides in (("box_ap", BOXES_ASIDE), ("mask_ap", MASKS_ASIDE)):
        assert float(row[name]) == pytest.approx(precision_of(asides[0])) == pytest.approx(scores[name])
    one, two = (torch.load(tmp_path / f"weights_{rank}.pt", weights_only=True) for rank in range(2))
    assert_close(one, two, rtol=0, atol=0)


def worker(rank, port, config, folder):
    """One of two processes as torchrun starts them."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", GROUP_RANK="0")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="test")
    from lightning.pytorch.utilities import rank_zero_only

    rank_zero_only.rank = rank  # torchrun sets the environment before Lightning is imported
    end = Learner.on_train_epoch_end

    def keep(self):
        parameters = {name: p.detach() for name, p in self.model.named_parameters()}
        torch.save(parameters, Path(folder) / f"weights_{rank}.pt")
        end(self)

    Learner.on_train_epoch_end = keep
    see_squares(pytest.MonkeyPatch())
    train(Recipe.from_dict(config), folder)


if __name__ == "__main__":
    worker(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4])
