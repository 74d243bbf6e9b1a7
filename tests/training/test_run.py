"""Training runs from the first epoch to the summary: what they leave, repeat, and survive."""

import csv
import errno
import json
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
import yaml
from torch.testing import assert_close

from spikeformers.data import TestSet
from spikeformers.evaluation import evaluate, load_trained
from spikeformers.models import create_model
from spikeformers.neurons import Neuron
from spikeformers.training.classification import ClassificationObjective
from spikeformers.training.learner import Learner
from spikeformers.training.recipe import Machine, Recipe
from spikeformers.training.report import table_columns
from spikeformers.training.run import InPlace, _processes, as_text, slow_precision, train


def rows(folder):
    """metrics.csv without the clock."""
    with open(folder / "metrics.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def without_clock(value):
    """A checkpoint's content with tensors as bytes and without the seconds, for comparison bit by bit."""
    if isinstance(value, dict):
        return {key: without_clock(item) for key, item in value.items() if key != "seconds"}
    if isinstance(value, (list, tuple)):
        return [without_clock(item) for item in value]
    return value.numpy().tobytes() if isinstance(value, torch.Tensor) else value


def last(folder):
    return without_clock(torch.load(folder / "last.ckpt", weights_only=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, request):
    """An uninterrupted run, once for all tests that compare with it."""
    return tmp_path_factory.mktemp("whole")


@pytest.fixture
def uninterrupted(whole, recipe):
    if not (whole / "summary.json").exists():
        train(recipe, whole)
    return whole


def interrupt(monkeypatch, how, epoch, batch=1):
    """Makes training call how() in a batch, by default the second, of an epoch (both counted from 0)."""
    step = Learner.training_step

    def interrupted(self, batch_, index):
        if self.current_epoch == epoch and index == batch:
            how()
        return step(self, batch_, index)

    monkeypatch.setattr(Learner, "training_step", interrupted)


def test_what_a_run_leaves(uninterrupted, recipe):
    files = {path.name for path in uninterrupted.iterdir()}
    assert files == {
        *("config.yaml", "curves.png", "metrics.csv", "summary.json", "tensorboard"),
        *("last.ckpt", "best.ckpt", "best.safetensors", "best.json"),
    }
    assert Recipe.from_dict(yaml.safe_load((uninterrupted / "config.yaml").read_text())) == recipe
    with open(uninterrupted / "metrics.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["epoch"] for row in table] == ["1", "2", "3"] and tuple(table[0]) == table_columns(
        ClassificationObjective
    )
    assert all(0 < float(row["seconds"]) < 60 for row in table)
    assert list(uninterrupted.glob("tensorboard/events*"))


def test_summary_is_that_of_the_best_epoch(uninterrupted, recipe):
    summary = json.loads((uninterrupted / "summary.json").read_text())
    table = rows(uninterrupted)
    best = max(table, key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    assert summary["best_epoch"] == int(best["epoch"])
    assert summary["accuracy"] == pytest.approx(float(best["val_accuracy"]))
    assert summary["loss"] == pytest.approx(float(best["val_loss"]), rel=1e-5)
    assert summary["last_accuracy"] == pytest.approx(float(table[-1]["val_accuracy"]))
    assert summary["test_samples"] == 7 and summary["accuracy"] * 7 == pytest.approx(round(summary["accuracy"] * 7))

    model = load_trained(uninterrupted / "best.ckpt").model
    assert summary["parameters"] == sum(p.numel() for p in model.parameters())
    assert list(summary["firing_rates"]) and set(summary["firing_rates"]) == {
        name for name, module in model.named_modules() if isinstance(module, Neuron)
    }
    spikes = []
    model.tokenizer[1].lif.register_forward_hook(lambda module, inputs, output: spikes.append(output))
    model(torch.stack([image for image, _ in TestSet(recipe.data)]))
    assert summary["firing_rates"]["tokenizer.1.lif"] == pytest.approx(spikes[0].mean().item(), abs=1e-6)
    assert "tokenizer.1.lif" in as_text(summary) and "of 7 test samples" in as_text(summary)


def test_exported_weights_are_those_of_the_checkpoint(uninterrupted, recipe):
    checkpoint, exported = (load_trained(uninterrupted / name) for name in ("best.ckpt", "best.safetensors"))
    assert checkpoint.data == exported.data == recipe.data
    assert checkpoint.classes == exported.classes == ["left", "right"]
    images = torch.stack([image for image, _ in TestSet(recipe.data)])
    assert torch.equal(checkpoint.model(images), exported.model(images))
    created = create_model(checkpoint=uninterrupted / "best.safetensors").to(memory_format=torch.channels_last).eval()
    assert torch.equal(created(images), exported.model(images))


def test_a_run_learns(config, tmp_path):
    config["training"] = {"epochs": 12, "lr": 0.01}
    config["model"]["kwargs"]["drop_path_rate"] = 0.0
    assert train(Recipe.from_dict(config), tmp_path)["last_accuracy"] == 1.0


def test_the_same_seed_gives_the_same_result(uninterrupted, config, tmp_path):
    train(Recipe.from_dict(config), tmp_path / "same")
    assert last(tmp_path / "same") == last(uninterrupted)
    config["seed"] = 2
    train(Recipe.from_dict(config), tmp_path / "other")
    assert last(tmp_path / "other")["state_dict"] != last(uninterrupted)["state_dict"]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", ["Ctrl-C", "kill"])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(uninterrupted, config, tmp_path, monkeypatch, stop, workers):
    config["data"]["workers"] = workers
    recipe = Recipe.from_dict(config)
    how = {"Ctrl-C": lambda: signal.raise_signal(signal.SIGINT), "kill": lambda: signal.raise_signal(signal.SIGTERM)}
    before = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        interrupt(patch, how[stop], epoch=1)
        with pytest.raises(KeyboardInterrupt, match=f"1 of 3 epochs are kept in {tmp_path}"):
            train(recipe, tmp_path)
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert len(rows(tmp_path)) == 1 and not (tmp_path / "summary.json").exists()

    train(recipe, tmp_path, resume=True)
    assert rows(tmp_path) == rows(uninterrupted)
    if workers == 0:  # the recipe is part of the checkpoint
        assert last(tmp_path) == last(uninterrupted)
    assert last(tmp_path)["state_dict"] == last(uninterrupted)["state_dict"]


@pytest.mark.parametrize(
    ("options", "workers", "batch", "kept"),
    [({}, 0, 3, 3), ({"accumulate": 2, "ema": 0.5}, 2, 3, 2), ({"loss": "tet", "accumulate": 4}, 0, 2, 0)],
    ids=["plain", "accumulated, averaged, workers", "in the first step"],
)
def test_a_run_continues_within_an_epoch(config, tmp_path, monkeypatch, capsys, options, workers, batch, kept):
    """`kept` batches of the second epoch were saved; what came after is done again, to the same end."""
    config["training"] |= options
    config["data"] |= {"workers": workers, "batch_size": 8 if "accumulate" in options else 4}
    config["trainer"]["save_minutes"] = 1e-9  # after every step
    recipe = Recipe.from_dict(config)
    train(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt(patch, lambda: signal.raise_signal(signal.SIGINT), epoch=1, batch=batch)
        with pytest.raises(KeyboardInterrupt, match="1 of 3 epochs"):
            train(recipe, tmp_path / "parts")
    batches = []
    step = Learner.training_step
    monkeypatch.setattr(Learner, "training_step", lambda *args: batches.append(args[2]) or step(*args))
    capsys.readouterr()
    train(recipe, tmp_path / "parts", resume=True)
    assert batches[0] == kept
    assert (f"epoch 2, batch {kept + 1}, is next" if kept else "epoch 2 is next") in capsys.readouterr().out
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    assert last(tmp_path / "parts")["state_dict"] == last(tmp_path / "whole")["state_dict"]


def test_a_run_that_never_finished_an_epoch_starts_again(uninterrupted, recipe, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        interrupt(patch, lambda: signal.raise_signal(signal.SIGINT), epoch=0)
        with pytest.raises(KeyboardInterrupt, match="0 of 3 epochs"):
            train(recipe, tmp_path)
    train(recipe, tmp_path, resume=True)
    assert last(tmp_path) == last(uninterrupted)


def test_a_run_killed_between_epochs_only_lacks_its_summary(uninterrupted, recipe, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("spikeformers.training.run.summarize", lambda *args: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt, match="3 of 3 epochs"):
            train(recipe, tmp_path)
    train(recipe, tmp_path, resume=True)
    assert last(tmp_path) == last(uninterrupted)
    ours, theirs = (json.loads((folder / "summary.json").read_text()) for folder in (tmp_path, uninterrupted))
    assert {key: ours[key] for key in ("accuracy", "loss", "firing_rates")} == {
        key: theirs[key] for key in ("accuracy", "loss", "firing_rates")
    }


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_run_survives_sigkill(config, tmp_path, kills):
    """Killed at random moments, within epochs and between them, and resumed each time. All runs are commands, as a user's are:
    an epoch in this process, with another number of threads, rounds differently."""
    config["training"]["epochs"] = 12 * kills
    config["trainer"] |= {"threads": 1, "save_minutes": 1e-9}  # saved after every step
    (tmp_path / "two.yaml").write_text(yaml.safe_dump(config))
    program = "import sys; from spikeformers.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "train", "--config", "two.yaml", "--run_dir"]
    folder, moments = tmp_path / "killed", np.random.default_rng(kills).uniform(0, 0.8, kills)
    killed = 0
    for moment in moments:
        options = ["--resume"] if killed else []
        process = subprocess.Popen([*command, "killed", *options], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
        for line in process.stdout:
            if "results of this run" in line:
                break
        time.sleep(moment)
        killed += process.poll() is None
        process.kill()
        process.communicate()
    assert killed == kills and not (folder / "summary.json").exists(), "the run ended before it was killed"
    for name, options in (("killed", ["--resume"]), ("whole", [])):
        subprocess.run([*command, name, *options], cwd=tmp_path, stdout=subprocess.DEVNULL, check=True, timeout=300)
    assert rows(folder) == rows(tmp_path / "whole") and len(rows(folder)) == 12 * kills
    assert last(folder)["state_dict"] == last(tmp_path / "whole")["state_dict"]


@pytest.mark.parametrize(
    ("environment", "processes"),
    [
        ({}, (3, 2)),
        ({"TORCHELASTIC_RUN_ID": "x", "LOCAL_WORLD_SIZE": "4", "WORLD_SIZE": "8"}, (4, 2)),
        ({"SLURM_NTASKS": "8", "SLURM_NNODES": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_JOB_NAME": "train"}, (2, 4)),
        ({"SLURM_NTASKS": "1", "SLURM_NNODES": "1", "SLURM_JOB_NAME": "bash"}, (3, 2)),
    ],
    ids=["recipe", "torchrun", "SLURM", "a shell under SLURM"],
)
def test_who_says_how_many_processes_there_are(monkeypatch, environment, processes):
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert _processes(Machine(devices=3, num_nodes=2)) == processes


def test_deterministic_mode_lasts_as_long_as_the_run(config, tmp_path, monkeypatch):
    modes = []
    step = Learner.training_step
    monkeypatch.setattr(
        Learner,
        "training_step",
        lambda *args: (
            modes.append((torch.are_deterministic_algorithms_enabled(), torch.get_num_threads())) or step(*args)
        ),
    )
    before = torch.get_num_threads()
    config["trainer"] |= {"deterministic": True, "threads": before + 1}
    config["training"]["epochs"] = 1
    train(Recipe.from_dict(config), tmp_path)
    assert set(modes) == {(True, before + 1)}
    assert (torch.are_deterministic_algorithms_enabled(), torch.get_num_threads()) == (False, before)


def test_folders_are_numbered_and_never_overwritten(config, tmp_path, monkeypatch):
    config["training"]["epochs"] = 1
    recipe = Recipe.from_dict(config)
    assert train(recipe, runs=tmp_path / "runs")["run_dir"] == str(tmp_path / "runs" / "1")
    assert train(recipe, runs=tmp_path / "runs")["run_dir"] == str(tmp_path / "runs" / "2")
    for folder, options, message in (
        (tmp_path / "runs" / "1", {}, "is not empty; continue its run with --resume or choose another --run_dir"),
        (tmp_path / "runs" / "1", {"resume": True}, "is finished, see its summary.json"),
        (tmp_path / "none", {"resume": True}, "holds no run"),
        (None, {"resume": True}, "no unfinished run in .*runs; start one without --resume"),
    ):
        with pytest.raises(ValueError, match=message):
            train(recipe, folder, runs=tmp_path / "runs", **options)
    (tmp_path / "runs" / "2" / "summary.json").unlink()
    config["training"]["lr"] = 0.5
    with pytest.raises(
        ValueError, match=r"2 was started with training.lr 0.01 \(now 0.5\); continue it with --training.lr 0.01"
    ):
        train(Recipe.from_dict(config), runs=tmp_path / "runs", resume=True)


@pytest.mark.parametrize(
    ("section", "option", "message"),
    [
        ("model", {"name": "spikingformer_cifar_2_265"}, "did you mean .*spikingformer_cifar_2_256"),
        ("model", {"name": "spikingformer_cifar_2_256", "kwargs": {"depths": 2}}, "has no option 'depths'"),
        ("model", {"name": "spikingformer_cifar_2_256", "kwargs": {"num_classes": 5}}, "5 outputs for 2 classes"),
        (
            "model",
            {"name": "spikingformer_cifar_2_256", "kwargs": {"in_chans": 3}},
            "1 channels and this model takes 3",
        ),
        ("data", {"batch_size": 50}, "batch_size is 50 but there are only 20"),
        ("data", {"img_size": 2}, "resize it to at least"),
        ("data", {"batch_size": 5}, "data.batch_size 5 must be a multiple of 2"),
        ("training", {"optimizer": "adamv"}, "adamv"),
        ("training", {"precision": "8"}, "training.precision is '8'; give 32-true, bf16-mixed"),
        ("trainer", {"accelerator": "gpus"}, "gpus"),
        ("trainer", {"accelerator": "cpu", "devices": "all"}, "trainer.devices all"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_does_not_fit_is_said_before_anything_is_written(config, tmp_path, section, option, message):
    config[section] = option if section == "model" else {**config[section], **option}
    with pytest.raises(ValueError, match=message):
        train(Recipe.from_dict(config), runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_files_that_are_no_checkpoints(tmp_path):
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"model": {}}, tmp_path / "other.ckpt")
    torch.save({"model_config": {}, "known": {}, "state_dict": {}, "code": train}, tmp_path / "code.ckpt")
    for name, message in (
        ("none.ckpt", "no checkpoint .*none.ckpt; training leaves best.ckpt"),
        ("text.ckpt", "text.ckpt is no checkpoint of `spikeformers train`"),
        ("other.ckpt", r"KeyError\); published weights are read by `spikeformers import`"),
        ("code.ckpt", "UnpicklingError"),
    ):
        with pytest.raises(ValueError, match=message):
            load_trained(tmp_path / name)


def test_evaluation_does_not_depend_on_the_batch_size(uninterrupted, recipe, config):
    config["data"]["batch_size"] = 3
    model = load_trained(uninterrupted / "best.ckpt").model
    one, other = evaluate(model, TestSet(recipe.data)), evaluate(model, TestSet(Recipe.from_dict(config).data))
    assert (one.accuracy, one.samples) == (other.accuracy, 7)
    assert_close(one.firing_rates, other.firing_rates)


def test_held_out_samples_choose_the_best_epoch(config, tmp_path):
    config["data"]["holdout"] = 4
    config["training"]["mixup"] = 0.0
    summary = train(Recipe.from_dict(config), tmp_path / "run")
    assert summary["held_out"] == 4 and summary["test_samples"] == 7
    best = max(rows(tmp_path / "run"), key=lambda row: (float(row["val_accuracy"]), -float(row["val_loss"])))
    assert summary["best_accuracy"] == pytest.approx(float(best["val_accuracy"])) and summary["best_accuracy"] in (
        0,
        0.25,
        0.5,
        0.75,
        1,
    )
    again = evaluate(load_trained(tmp_path / "run").model, TestSet(load_trained(tmp_path / "run").data))
    assert summary["accuracy"] == again.accuracy and again.samples == 7
    assert "of 4 training samples, which chose it" in as_text(summary)


def test_tests_do_not_depend_on_the_precision_of_training(config, tmp_path):
    """metrics.csv, both epochs of the summary and `eval` say the same, of a network whose potentials bfloat16 rounds over the threshold."""
    config["training"] |= {"precision": "bf16-mixed", "epochs": 2, "mixup": 0.0}
    recipe = Recipe.from_dict(config)
    reset = torch.nn.BatchNorm2d.reset_parameters

    def just_below(self):
        reset(self)
        torch.nn.init.zeros_(self.weight)
        torch.nn.init.constant_(
            self.bias, 2 * 0.999
        )  # half of it, 0.999, is the potential after one step: 1 in bfloat16

    torch.nn.BatchNorm2d.reset_parameters = just_below
    try:
        config["training"]["lr"] = 1e-9
        recipe = Recipe.from_dict(config)
        summary = train(recipe, tmp_path)
    finally:
        torch.nn.BatchNorm2d.reset_parameters = reset
    table = rows(tmp_path)
    evaluated = evaluate(load_trained(tmp_path / "last.ckpt").model, TestSet(recipe.data))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = evaluate(load_trained(tmp_path / "last.ckpt").model, TestSet(recipe.data))
    assert rounded.firing_rate > evaluated.firing_rate + 0.1
    assert float(table[-1]["val_loss"]) == pytest.approx(evaluated.loss, rel=1e-6)
    assert summary["last_accuracy"] == evaluated.accuracy and summary["precision"] == "float32"
    assert "computed     in float32" in as_text(summary)


@pytest.mark.parametrize("damage", ["empty", "cut", "other bytes", "one byte", "other content", "other weights"])
def test_a_damaged_state_is_named(uninterrupted, recipe, tmp_path, damage):
    for name in ("config.yaml", "last.ckpt"):
        (tmp_path / name).write_bytes((uninterrupted / name).read_bytes())
    whole, path = (tmp_path / "last.ckpt").read_bytes(), tmp_path / "last.ckpt"
    content = torch.load(path, weights_only=True)
    if damage == "other content":
        torch.save({"state_dict": {}}, path)
    elif damage == "other weights":
        torch.save(content | {"state_dict": {"model.x": torch.zeros(1)}}, path)
    else:
        flipped = bytearray(whole)
        flipped[whole.index(content["state_dict"]["model.stem.conv.weight"].numpy().tobytes()) + 5] ^= 1
        path.write_bytes(
            {"empty": b"", "cut": whole[:5000], "other bytes": bytes(range(256)) * 10, "one byte": bytes(flipped)}[
                damage
            ]
        )
    with pytest.raises(
        ValueError, match="last.ckpt is damaged, or no state that a run saved .*; put a copy of it there, or delete it"
    ):
        train(recipe, tmp_path, resume=True)
    assert {each.name for each in tmp_path.iterdir()} == {"config.yaml", "last.ckpt"}


@pytest.mark.parametrize(
    "text", ["", "[1]", "model: {name: [", "model: {name: 5}", "\xff", "[" * 5000], ids=lambda text: text[:9]
)
def test_a_damaged_recipe_of_a_run_is_named(recipe, tmp_path, text):
    (tmp_path / "config.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match="config.yaml is damaged .*; put the run's recipe back there"):
        train(recipe, tmp_path, resume=True)


def test_a_full_disk_costs_no_file(config, tmp_path, monkeypatch):
    config["training"]["epochs"] = 2
    recipe, saved = Recipe.from_dict(config), []
    write = InPlace.save_checkpoint

    def full(self, checkpoint, path, storage_options=None):
        if saved:
            path.write_bytes(b"half of the")
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(path)
        write(self, checkpoint, path)

    monkeypatch.setattr(InPlace, "save_checkpoint", full)
    with pytest.raises(
        OSError,
        match="cannot write into .*: No space left on device; 1 of 2 epochs are kept there as they were: make room",
    ):
        train(recipe, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.yaml",
        "metrics.csv",
        "tensorboard",
        "last.ckpt",
        "best.ckpt",
    }
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["first_epoch"] == 1
    monkeypatch.undo()
    assert train(recipe, tmp_path, resume=True)["epochs"] == 2


@pytest.mark.parametrize("supported", [True, False])
def test_half_precision_that_a_cpu_only_imitates_is_warned_of(monkeypatch, supported):
    class Packet:
        _is_mkldnn_bf16_supported = staticmethod(lambda: supported)
        _is_mkldnn_fp16_supported = staticmethod(lambda: supported)

    monkeypatch.setattr(torch.ops, "mkldnn", Packet)
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [bool(slow_precision(each, cpu)) for each in ("bf16-mixed", "16-mixed", "32-true", "64-true")] == [
        not supported
    ] * 2 + [False] * 2
    assert not slow_precision("bf16-mixed", gpu)
    assert supported or "--training.precision 32-true" in slow_precision("bf16-mixed", cpu)


def test_an_extended_run_is_one_that_was_longer_from_the_start(config, tmp_path):
    """Finished after 2 epochs, extended by 1, interrupted and by 2: in all four."""
    config["training"] |= {"schedule": "step", "decay_epochs": 3, "epochs": 4, "warmup_steps": 3}
    train(Recipe.from_dict(config), tmp_path / "whole")
    config["training"]["epochs"] = 2
    train(Recipe.from_dict(config), tmp_path / "parts")
    with pytest.raises(ValueError, match="is finished, see .*; train it for longer with --training.extend 1 or more"):
        train(Recipe.from_dict(config), tmp_path / "parts", resume=True)
    for epochs in (1, 2):
        config["training"]["extend"] = epochs
        summary = train(Recipe.from_dict(config), tmp_path / "parts", resume=True)
        assert summary["epochs"] == 2 + epochs
        assert yaml.safe_load((tmp_path / "parts" / "config.yaml").read_text())["training"]["extend"] == epochs
    assert rows(tmp_path / "parts") == rows(tmp_path / "whole")
    ours, theirs = last(tmp_path / "parts"), last(tmp_path / "whole")
    assert all(ours[key] == theirs[key] for key in ("state_dict", "optimizer_states", "lr_schedulers"))
    for epochs, message in (
        (2, "was extended by 2 epochs before; .*--training.extend 3"),
        (1, "give --training.extend 2"),
    ):
        config["training"]["extend"] = epochs
        with pytest.raises(ValueError, match=message):
            train(Recipe.from_dict(config), tmp_path / "parts", resume=True)
    (tmp_path / "parts" / "last.ckpt").unlink()
    config["training"]["extend"] = 3
    with pytest.raises(ValueError, match="has no last.ckpt"):
        train(Recipe.from_dict(config), tmp_path / "parts", resume=True)
    assert (tmp_path / "parts" / "summary.json").exists()


def test_an_interrupted_extension_goes_on_without_being_asked_again(config, tmp_path, monkeypatch):
    config["training"] |= {"schedule": "step", "epochs": 1}
    train(Recipe.from_dict(config), runs=tmp_path)
    short = Recipe.from_dict(config)
    config["training"]["extend"] = 1
    with monkeypatch.context() as patch:
        interrupt(patch, lambda: signal.raise_signal(signal.SIGINT), epoch=1)
        with pytest.raises(KeyboardInterrupt, match="1 of 2 epochs"):
            train(Recipe.from_dict(config), runs=tmp_path, resume=True)
    assert train(short, runs=tmp_path, resume=True)["epochs"] == 2


def test_what_cannot_be_extended_says_what_to_do(uninterrupted, config):
    config["training"]["epochs"] = 5
    (uninterrupted / "summary.json").rename(uninterrupted / "kept.json")
    try:
        with pytest.raises(
            ValueError, match=r"training.epochs 3 \(now 5\).*schedule cosine.*--model.weights RUN/best.ckpt"
        ):
            train(Recipe.from_dict(config), uninterrupted, resume=True)
    finally:
        (uninterrupted / "kept.json").rename(uninterrupted / "summary.json")
    for schedule in ("cosine", "poly"):
        config["training"] |= {"schedule": schedule, "extend": 2}
        with pytest.raises(ValueError, match=f"training.extend is 2, and training.schedule {schedule} ends at"):
            Recipe.from_dict(config)


def test_a_run_ends_early_and_stays_so(config, tmp_path, monkeypatch, capsys):
    """The weights stay what they are, so that no epoch is better than the first."""
    config["training"] |= {"epochs": 9, "patience": 2, "lr": 1e-30, "weight_decay": 0.0, "schedule": "step"}
    monkeypatch.setattr(ClassificationObjective, "test_metrics", lambda *args: {"val_loss": 1.0, "val_accuracy": 0.5})
    assert train(Recipe.from_dict(config), tmp_path)["epochs"] == 3
    assert "no better epoch than 1 for 2 epochs (training.patience): the run ends" in capsys.readouterr().out
    (tmp_path / "summary.json").rename(tmp_path.parent / "summary.json")
    assert train(Recipe.from_dict(config), tmp_path, resume=True)["epochs"] == 3  # killed before its summary
    config["training"]["extend"] = 1
    with pytest.raises(ValueError, match="training.patience ended the run in .* after 3 epochs"):
        train(Recipe.from_dict(config), tmp_path, resume=True)
