"""A made-up fourth task, from one record in its two halves, runs through the same doors as the other three: it says how bright an image is."""

import csv
import json
from dataclasses import dataclass, fields
from typing import ClassVar, Literal

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.transforms.functional import to_tensor

from spikeformers import data as data_sets
from spikeformers.cli import main
from spikeformers.data import ImageData, register_data, test_loader
from spikeformers.data.loading import Measured
from spikeformers.data.reading import read_image
from spikeformers.data.samples import PADDING_LABEL
from spikeformers.evaluation import Answer, Task, evaluate_any, load_trained, register_task, task as tasks
from spikeformers.evaluation.results import FiringRates
from spikeformers.measure import Tally, emissions
from spikeformers.training import task as learning
from spikeformers.training.learner import Learner
from spikeformers.training.recipe import Model, Recipe, Training
from spikeformers.training.run import as_text, train
from spikeformers.training.task import LEARNING, Learning, Objective, register_learning

from .conftest import MODEL


@dataclass
class ShadeData(Measured):
    """Grey images.

    Args:
        root: unused.
        batch_size: images per step.
        workers: processes that prepare them.
        strict: stop at an image that cannot be read.
    """

    task: ClassVar[str] = "shade"
    folds: ClassVar[int] = 1
    fold: ClassVar[int] = 0
    holdout: ClassVar[int] = 0
    repeats: ClassVar[int] = 1

    name: Literal["shades"] = "shades"
    root: str = "data"
    batch_size: int = 4
    workers: int = 0
    strict: bool = False

    shape = (1, 16, 16)

    def source(self, training):
        return Shades(20 if training else 7)

    def transform(self, training):
        return lambda sample: sample

    def collate(self, samples):
        images = torch.stack([image for (image, _), _ in samples])
        return images, torch.tensor([torch.nan if label == PADDING_LABEL else shade for (_, shade), label in samples])

    def read(self, path):
        return to_tensor(read_image(path).convert("L"))


class Shades:
    classes = ("shade",)

    def __init__(self, count):
        self.labels = [0] * count

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        shade = (index % 7 + 0.5) / 7
        noise = np.random.default_rng(index).normal(0, 0.05, (1, 16, 16))
        return (torch.tensor(shade + noise, dtype=torch.float32), shade), 0

    def where(self, index):
        return f"shade {index}"


@dataclass
class ShadeEvaluation(FiringRates):
    error: float
    samples: int
    tally: Tally

    def as_text(self, data):
        return f"error        {self.error:.4f} of {self.samples} test images ({data})\n{self.firing_text()}"


@torch.no_grad()
def evaluate_shade(model, samples, device):
    model.to(device).eval()
    error, count = 0.0, 0
    with emissions(model) as tally:
        for x, shades in test_loader(samples):
            error += (model(x.to(device))[:, 0].cpu() - shades).abs().sum().item()
            count += len(x)
    return ShadeEvaluation(error / count, count, tally(count))


def predict_shade(trained, paths, shown):
    for path in paths:
        shade = trained.model.eval()(trained.data.read(path)[None]).item()
        yield Answer(str(path), f"{path}: {shade:.3f}", {"file": str(path), "shade": shade})


def images_of(samples, data):
    return DataLoader(samples, data.batch_size, collate_fn=lambda batch: data.collate(batch)[0])


class ShadeObjective(Objective):
    columns = ("train_loss", "val_error")
    counters = 2

    def loss(self, model, batch, epoch):
        x, shades = batch
        loss = F.mse_loss(model(x)[:, 0], shades)
        return loss, len(x) * torch.stack([loss.detach(), torch.ones_like(loss)])

    def train_metrics(self, sums):
        return {"train_loss": sums[0] / sums[1]}

    def start_test(self, device):
        self.tested = torch.zeros(2, device=device)

    def test(self, model, batch):
        x, shades = batch
        errors = (model(x)[:, 0] - shades).abs()
        self.tested += torch.stack([errors.nansum(), (~errors.isnan()).sum()])

    def test_metrics(self, total):
        error, count = total(self.tested).tolist()
        return {"val_error": error / count}


def summary_of(result, last):
    rates = {"firing_rate": result.firing_rate, "firing_rates": result.firing_rates}
    return {"error": result.error, "last_error": last["val_error"], "test_samples": result.samples, **rates}


@pytest.fixture
def shade(monkeypatch):
    """The whole of what somebody adds."""
    for table in (data_sets.KINDS, tasks.TASKS, learning.LEARNING):  # as they were, after the test
        for name in ("shade", "shades"):
            monkeypatch.setitem(table, name, None)
            table.pop(name)
    register_data(ShadeData)
    register_task(Task("shade", evaluate_shade, predict_shade, images_of))
    register_learning(
        Learning(
            "shade",
            options=("label_smoothing",),
            model_options=lambda recipe, train_set: {"num_classes": 1, "in_chans": 1, **recipe.model.kwargs},
            prepare=lambda model, recipe, train_set, parts: None,
            try_out=lambda model, test_set: model.eval()(test_set[0][0][0][None]),
            objective=ShadeObjective,
            score=lambda row: (-row["val_error"],),
            epoch_text=lambda row: f"error {row['val_error']:.3f}",
            summary=summary_of,
            summary_lines=lambda summary: [f"error        {summary['error']:.4f}"],
        )
    )


@pytest.fixture
def shades(shade):
    return {
        "model": {"name": "spikingformer_cifar_2_256", "kwargs": MODEL},
        "data": {"name": "shades"},
        "training": {"epochs": 2, "lr": 0.01, "ema": 0.5},
        "trainer": {"accelerator": "cpu", "save_minutes": 1e-9},
    }


def rows(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def test_a_fourth_task_is_trained_tested_and_asked(shades, tmp_path, capsys):
    run, summary = tmp_path / "run", train(Recipe.from_dict(shades), tmp_path / "run")
    assert "error 0." in capsys.readouterr().out
    assert list(rows(run)[0]) == ["epoch", "train_loss", "val_error", "lr"]
    assert summary["task"] == "shade" and summary == json.loads((run / "summary.json").read_text())
    assert summary["error"] == pytest.approx(min(float(row["val_error"]) for row in rows(run)))
    assert f"error        {summary['error']:.4f}" in as_text(summary)
    trained = load_trained(run)
    assert isinstance(trained.data, ShadeData) and trained.classes == ["shade"]
    samples = data_sets.TestSet(trained.data)
    assert evaluate_any(trained.model, samples).error == pytest.approx(summary["error"])

    Image.new("L", (16, 16), 200).save(tmp_path / "grey.png")
    assert main(["eval", str(run)]) == 0
    assert f"error        {summary['error']:.4f} of 7 test images (shades)" in capsys.readouterr().out
    assert main(["predict", str(run), str(tmp_path / "grey.png")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'grey.png'}: ")
    assert main(["profile", str(run)]) == 0
    assert "7 samples" in capsys.readouterr().out
    assert main(["eval", str(run), "--event_driven", "float32"]) == 2
    assert "--event_driven takes classifiers, and the data shades are for shade" in capsys.readouterr().err
    assert main(["eval", str(run), "--data.name", "digits"]) == 2
    assert "the checkpoint is for shade and data.name digits for classification" in capsys.readouterr().err


def test_an_interrupted_run_of_a_fourth_task_ends_like_an_uninterrupted_one(shades, tmp_path, monkeypatch):
    recipe, step = Recipe.from_dict(shades), Learner.training_step
    train(recipe, tmp_path / "whole")

    def interrupted(self, batch, index):
        if self.current_epoch == 1 and index == 2:
            raise KeyboardInterrupt
        return step(self, batch, index)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Learner, "training_step", interrupted)
        train(recipe, tmp_path / "run")
    train(recipe, tmp_path / "run", resume=True)
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")
    weights = [torch.load(tmp_path / name / "last.ckpt", weights_only=True)["state_dict"] for name in ("run", "whole")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_fourth_task_has_the_options_that_it_names(shades):
    shades["training"]["label_smoothing"] = 0.1
    assert Recipe.from_dict(shades).training.label_smoothing == 0.1
    for key, value in (("mixup", 0.2), ("head_lr", 2.0)):
        with pytest.raises(
            ValueError, match=f"training.{key} is {value}, which says nothing about shade; leave it out"
        ):
            Recipe.from_dict({**shades, "training": {key: value}})


def test_options_that_tasks_name_are_options():
    known = {field.name for field in fields(Training)}
    assert {option for each in LEARNING.values() for option in each.options} < known


def test_both_halves_of_a_task_have_one_name():
    assert set(tasks.TASKS) == set(LEARNING)
    assert {kind.task for kind in data_sets.KINDS.values()} == set(LEARNING)


def test_data_for_a_task_that_nobody_learns_is_an_error():
    class Unknown(ImageData):
        task = "counting"

    with pytest.raises(ValueError, match="nothing says how 'counting' is learned; give data for classification"):
        Recipe(Model("any"), Unknown())
