"""Event recordings from the file to the summary: training, folds, testing and predicting."""

import json
import os
import re
import shutil
import signal

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from spikeformers.cli import main
from spikeformers.data import TestSet
from spikeformers.data.events import Events, write_events
from spikeformers.evaluation import evaluate, load_trained, predict
from spikeformers.models import create_model, save_model
from spikeformers.training.learner import Learner
from spikeformers.training.recipe import Recipe
from spikeformers.training.run import as_text, train


def recording(label, seed):
    """200 events in 100 ms, most of them at the left or at the right."""
    draw = np.random.default_rng(seed)
    x = np.where(draw.random(200) < 0.9, draw.integers(0, 8, 200) + 8 * label, draw.integers(0, 16, 200))
    t = np.sort(draw.integers(0, 100_000, 200))
    return Events(
        t, x.astype(np.int32), draw.integers(0, 16, 200, np.int32), draw.integers(0, 2, 200, np.uint8), 16, 16
    )


@pytest.fixture(scope="session")
def recordings(tmp_path_factory):
    """2 x 6 training and 2 x 3 test recordings."""
    root = tmp_path_factory.mktemp("recordings")
    for split, count in (("train", 6), ("val", 3)):
        for label, name in enumerate(("left", "right")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                write_events(
                    root / split / name / f"{i}.npz", recording(label, 100 * label + i + (50 if split == "val" else 0))
                )
    return root


@pytest.fixture
def config(recordings):
    kwargs = {"embed_dim": 16, "depth": 1, "num_heads": 2, "pools": [True, True, False, False]}
    return {
        "model": {"name": "spikingformer_dvs_2_256", "kwargs": kwargs},
        "data": {
            "name": "events",
            "root": str(recordings),
            "time_steps": 4,
            "roll": 1,
            "batch_size": 4,
            "cache": "none",
        },
        "training": {"epochs": 2, "lr": 0.01, "mixup": 0.5, "loss": "tet"},
        "trainer": {"accelerator": "cpu"},
        "seed": 1,
    }


def test_recordings_are_learned_tested_and_predicted(config, recordings, tmp_path, capsys):
    config["training"] = {"epochs": 30, "lr": 0.01}
    summary = train(Recipe.from_dict(config), tmp_path)
    assert "12 training and 6 test samples 4x2x16x16, 2 classes" in capsys.readouterr().out
    assert summary["last_accuracy"] == 1.0 and summary["test_samples"] == 6
    assert len(summary["accuracy_per_step"]) == 4 and summary["accuracy_per_step"][-1] == summary["accuracy"]
    assert "after 1 to 4 time steps" in as_text(summary)
    trained = load_trained(tmp_path / "best.safetensors")
    assert trained.model.time_steps == 4 and trained.model.in_chans == 2
    result = evaluate(trained.model, TestSet(trained.data))
    assert result.accuracy_per_step == summary["accuracy_per_step"]
    best = predict(trained, recordings / "val" / "right" / "0.npz")
    assert best[0][0] == "right" and sum(share for _, share in best) == pytest.approx(1)


def test_accuracy_per_step_is_that_of_the_first_steps(config):
    """A model whose logits are given: right at the first step, wrong on average over two, right over three."""

    class Scripted(nn.Module):
        def forward(self, x, per_step):
            sign = torch.where(x[..., 8:].sum((0, 2, 3, 4)) > x[..., :8].sum((0, 2, 3, 4)), 1.0, -1.0)
            steps = torch.stack([sign, -3 * sign, 3 * sign, 0 * sign])
            return torch.stack([-steps, steps], -1)

    samples = TestSet(Recipe.from_dict(config).data)
    assert evaluate(Scripted(), samples).accuracy_per_step == [1.0, 0.0, 1.0, 1.0]


def test_folds_are_run_one_after_the_other_and_resumed(config, tmp_path, monkeypatch):
    config["data"]["folds"] = 3
    recipe = Recipe.from_dict(config)
    whole = train(recipe, tmp_path / "whole")
    assert len(whole["last_accuracies"]) == 3 and whole["folds"] == 3
    assert whole["last_accuracy"] == pytest.approx(sum(whole["last_accuracies"]) / 3)
    assert "mean of 3 folds" in as_text(whole)

    step = Learner.training_step

    def interrupted(self, batch, index):
        if self.recipe.data.fold == 2 and self.current_epoch == 1:
            signal.raise_signal(signal.SIGINT)
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "training_step", interrupted)
        with pytest.raises(
            KeyboardInterrupt, match="1 of 3 folds are finished, and of fold 2 1 of 2 epochs are kept in .*fold_2"
        ):
            train(recipe, tmp_path / "parts")
    started = []
    monkeypatch.setattr(
        Learner, "on_train_start", lambda self: started.append((self.recipe.data.fold, self.current_epoch))
    )
    again = train(recipe, tmp_path / "parts", resume=True)
    assert started == [(2, 1), (3, 0)]
    assert again["last_accuracies"] == whole["last_accuracies"]
    for k in (1, 2, 3):
        mine, theirs = (
            json.loads((tmp_path / n / f"fold_{k}" / "summary.json").read_text()) for n in ("parts", "whole")
        )
        assert (mine["loss"], mine["test_samples"]) == (theirs["loss"], 4)


def test_one_fold_alone_is_that_of_the_whole(config, tmp_path):
    config["data"]["folds"] = 3
    whole = train(Recipe.from_dict(config), tmp_path / "whole")
    config["data"]["fold"] = 2
    one = train(Recipe.from_dict(config), tmp_path / "one")
    assert one["last_accuracy"] == whole["last_accuracies"][1]


def test_the_command_line_knows_the_options_of_events(config, recordings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", "--config", "mine.yaml", "--data.split_by", "time", "--training.epochs", "1"]) == 0
    kept = yaml.safe_load((tmp_path / "runs" / "mine" / "1" / "config.yaml").read_text())
    assert kept["data"]["split_by"] == "time" and kept["data"]["time_steps"] == 4
    checkpoint = str(tmp_path / "runs" / "mine" / "1" / "best.ckpt")
    assert main(["eval", checkpoint, "--data.split_by", "number"]) == 0
    assert "6 test samples (events)" in capsys.readouterr().out
    assert main(["predict", checkpoint, str(recordings / "val" / "left" / "0.npz")]) == 0
    assert "left " in capsys.readouterr().out
    assert main(["train", "--config", "mine.yaml", "--data.img_sizes", "8"]) == 2
    assert "did you mean --data.img_size" in capsys.readouterr().err
    assert main(["train", "--config", "mine.yaml", "--data.hflop", "1"]) == 2


@pytest.mark.parametrize("workers", [0, 2])
def test_strict_stops_a_run_at_a_broken_recording(workers, config, recordings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(recordings, tmp_path / "data")
    (tmp_path / "data" / "train" / "left" / "3.npz").write_bytes(b"broken")
    config["data"] |= {"root": "data", "workers": workers}
    config["training"]["epochs"] = 1
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", "--config", "mine.yaml"]) == 0
    out = capsys.readouterr()
    assert (
        workers or "spikeformers: warning: cannot read data/train/left/3.npz" in out.err
    )  # workers print theirs themselves
    assert (
        "left out     training samples: 1 of 12 could not be read and were left out: data/train/left/3.npz" in out.out
    )
    assert main(["train", "--config", "mine.yaml", "--strict"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("spikeformers: cannot read data/train/left/3.npz") and "mend it" in error


def test_what_does_not_fit_is_said_before_the_first_fold(config, tmp_path):
    config["data"]["folds"], config["model"]["name"] = 3, "spikingformer_dvs_2_265"
    with pytest.raises(ValueError, match="unknown model .*did you mean .*spikingformer_dvs_2_256"):
        train(Recipe.from_dict(config), runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_what_was_left_out_is_still_known_after_a_resumption(config, recordings, tmp_path, monkeypatch):
    shutil.copytree(recordings, tmp_path / "data")
    for split in ("train", "val"):
        (tmp_path / "data" / split / "left" / "2.npz").write_bytes(b"broken")
    config["data"]["root"] = str(tmp_path / "data")
    recipe = Recipe.from_dict(config)

    def killed(*args):
        raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="cannot read"), monkeypatch.context() as patch:
        patch.setattr("spikeformers.training.run.summarize", killed)
        with pytest.raises(KeyboardInterrupt, match="2 of 2 epochs"):
            train(recipe, tmp_path / "run")
    summary = train(recipe, tmp_path / "run", resume=True)
    assert summary["left_out"]["training"].startswith("1 of 12") and summary["left_out"]["test"].startswith("1 of 6")
    assert summary["test_samples"] == 5


def test_a_run_continues_without_its_recipe(config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))

    def killed(*args):
        raise KeyboardInterrupt("2 of 2 epochs are kept")

    with monkeypatch.context() as patch:
        patch.setattr("spikeformers.training.run.summarize", killed)
        assert main(["train", "--config", "mine.yaml", "--run_dir", "here"]) == 130
    assert main(["train", "--resume", "--run_dir", "here"]) == 0
    assert (tmp_path / "here" / "summary.json").exists()
    assert main(["eval", "here"]) == 0
    capsys.readouterr()
    assert main(["train", "--resume"]) == 2
    assert "give --resume --run_dir FOLDER" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.name", "event"], "unknown data set 'event' as data.name; did you mean events"),
        (["--model.kwargs.depth", "two"], "depth must be a whole number, not 'two'"),
        (["--training.optimizer", "adamx"], "training.optimizer is 'adamx' .*did you mean .*adam"),
        (["--data.batch_size", "40"], "data.batch_size is 40 but there are only 12 training samples; give fewer"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_mistakes_are_named(config, tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", "--config", "mine.yaml", *options]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error) and error.count("\n") == 1


def test_a_checkpoint_decides_neither_on_the_network_nor_on_folders(recordings, tmp_path, capsys, monkeypatch):
    """Whoever runs a stranger's file says what is fetched and where is written; the file says what the input is."""
    model = create_model("spikingformer_dvs_2_256", embed_dim=16, num_heads=2, depth=1, num_classes=2)

    def described(**data):
        known = {"data": {"name": "events", "time_steps": 3, "root": str(tmp_path / "made"), **data}, "classes": None}
        save_model(model, tmp_path / "m.safetensors", {"spikeformers": json.dumps(known)})
        return str(tmp_path / "m.safetensors")

    monkeypatch.setattr("spikeformers.data.events.datasets._base.fetch", None)
    path = described(name="nmnist", download=True, cache=str(tmp_path / "cache"), workers=100_000)
    trained = load_trained(path)
    assert trained.data.time_steps == 3 and not trained.data.download and trained.data.workers <= os.cpu_count()
    assert main(["eval", path]) == 2 and "--data.download true fetches it" in capsys.readouterr().err
    assert main(["profile", path]) == 2
    there = recordings / "frames_cache"
    for path in (described(root=str(recordings)), described(root=str(recordings), cache=str(tmp_path / "cache"))):
        assert main(["eval", path]) == 0
        assert main(["predict", path, str(recordings / "val" / "left" / "0.npz")]) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["m.json", "m.safetensors"] and not there.exists()
    assert main(["eval", path, "--data.cache", str(tmp_path / "asked")]) == 0 and (tmp_path / "asked").is_dir()
    assert main(["eval", path, "--data.root", str(recordings)]) == 0 and there.is_dir()
    shutil.rmtree(there)
