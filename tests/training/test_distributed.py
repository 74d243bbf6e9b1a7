"""Two processes with gloo do what one does on the joint batch."""

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from spikeformers.training.learner import Learner
from spikeformers.training.recipe import Recipe
from spikeformers.training.report import Report
from spikeformers.training.run import train


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def train_with_large_norms(config, folder, resume=False):
    """Batch norms amplify, as an untrained network hardly spikes otherwise and its gradients would agree by being zero.

    float64, because in float32 the sums of 10 and of 5 images round differently, and a spike that flips is no rounding error
    any more; as torch's default, because FSDP has no such precision.
    """
    torch.set_default_dtype(torch.float64)
    reset = nn.BatchNorm2d.reset_parameters

    def amplify(self):
        reset(self)
        nn.init.constant_(self.weight, 10.0)

    nn.BatchNorm2d.reset_parameters = amplify
    return train(Recipe.from_dict(config), folder, resume=resume)


def interrupt():
    """Training stops at the second step of the second epoch, behind the saving of its first."""
    step, prepare = Learner.training_step, Report.__init__

    def impatient(self, *args):
        prepare(self, *args)
        self.ask_every = 1

    Report.__init__ = impatient

    def interrupted(self, batch, index):
        if self.current_epoch == index == 1:
            raise KeyboardInterrupt
        return step(self, batch, index)

    Learner.training_step = interrupted


def worker(rank, port, config, folder, part):
    """One of two processes as torchrun starts them; `part` is the whole run, its start, which is interrupted, or its end."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", GROUP_RANK="0")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), TORCHELASTIC_RUN_ID="test")
    from lightning.pytorch.utilities import rank_zero_only

    rank_zero_only.rank = rank  # torchrun sets the environment before Lightning is imported
    if part == "start":
        interrupt()
        with pytest.raises(KeyboardInterrupt):
            train_with_large_norms(config, folder)
        if rank == 0:
            assert torch.load(Path(folder) / "last.ckpt", weights_only=True)["batches_done"] == 1
        os._exit(0)  # the other process may be waiting for this one
    assert bool(train_with_large_norms(config, folder, resume=part == "end")) == (rank == 0)


def run_two_processes(config, folder, part="whole"):
    """`worker` in two fresh interpreters, which run this file: nothing has to be importable by name."""
    arguments = [str(free_port()), json.dumps(config), str(folder), part]
    workers = [
        subprocess.Popen([sys.executable, __file__, str(rank), *arguments], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    for process in workers:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors


@pytest.fixture
def curve(config):
    """Four optimiser steps in two epochs, with gradient clipping. Plain gradient descent, because Adam divides tiny gradients
    by themselves and so shows their rounding."""
    config["trainer"] |= {"sync_batchnorm": True, "save_minutes": 1e-9}
    config["training"] = {"epochs": 2, "optimizer": "sgd", "lr": 0.1, "clip_grad": 1.0}
    config["data"]["batch_size"] = 10
    config["model"]["kwargs"] |= {"drop_path_rate": 0.0, "time_steps": 4}
    return config


@pytest.mark.parametrize(("strategy", "parts"), [("ddp", ["whole"]), ("fsdp", ["start", "end"])])
def test_two_processes_follow_the_curve_of_one(curve, tmp_path, monkeypatch, strategy, parts):
    """Interrupted or not."""
    for part in parts:
        run_two_processes(curve | {"trainer": curve["trainer"] | {"strategy": strategy}}, tmp_path / "two", part)
    monkeypatch.setattr(nn.BatchNorm2d, "reset_parameters", nn.BatchNorm2d.reset_parameters)  # restored after the test
    try:
        summary = train_with_large_norms(curve, tmp_path / "one")
    finally:
        torch.set_default_dtype(torch.float32)
    assert min(summary["firing_rates"].values()) > 0.01
    one, two = (torch.load(tmp_path / name / "last.ckpt", weights_only=True) for name in ("one", "two"))
    assert one["global_step"] == two["global_step"] == 4
    assert_close(two["state_dict"], one["state_dict"], rtol=0, atol=1e-6)

    # the 7 test images, which two processes cannot share evenly, count once each
    tables = []
    for name in ("one", "two"):
        with open(tmp_path / name / "metrics.csv", newline="") as file:
            tables.append(
                [{key: float(value) for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
            )
    assert len(tables[0]) == len(tables[1]) == 2
    for mine, theirs in zip(*tables, strict=True):
        assert theirs == pytest.approx(mine, abs=1e-6)


if __name__ == "__main__":
    worker(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), *sys.argv[4:])
