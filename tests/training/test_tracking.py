"""Loggers, with stand-ins for those that are packages of their own."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from spikeformers.training import tracking
from spikeformers.training.recipe import Recipe
from spikeformers.training.run import train


def scalars(folder):
    """{name: [(step, value), ...]} of TensorBoard's events in a folder."""
    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(each.step, each.value) for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_has_epochs_and_steps(config, tmp_path):
    config["training"] |= {"epochs": 2, "schedule": "step"}
    config["trainer"]["log_steps"] = 2
    train(Recipe.from_dict(config), tmp_path)
    config["training"]["extend"] = 1
    train(Recipe.from_dict(config), tmp_path, resume=True)
    epochs, steps = scalars(tmp_path / "tensorboard"), scalars(tmp_path / "tensorboard" / "steps")
    assert set(epochs) == {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds"}
    assert [step for step, _ in epochs["val_loss"]] == [1, 2, 3]
    assert set(steps) == {"step/loss", "step/lr"}
    assert [step for step, _ in steps["step/loss"]] == [2, 4, 6, 8, 10, 12, 14]  # 5 of an epoch
    first, second = (value for _, value in steps["step/loss"][:2])
    assert first > 0 and second > 0 and epochs["lr"][0][1] == pytest.approx(0.01)


class Stub:
    """Keeps what it is told, as Lightning's loggers take it."""

    made = []

    def __init__(self, *args, **kwargs):
        self.args, self.kwargs, self.told, self.ended = args, kwargs, [], []
        self.experiment, self.version = self, f"id of {type(self).__name__}"
        self.made.append(self)

    def log_hyperparams(self, params):
        self.told.append(params["seed"])

    def log_metrics(self, metrics, step):
        self.told.append((step, *metrics))

    def save(self):
        pass

    def finalize(self, status):
        self.ended.append(status)

    def finish(self):
        self.ended.append("finished")


def test_other_loggers_have_the_same_and_go_on_with_their_run(config, tmp_path, monkeypatch):
    made = []
    weights, flow = (type(name, (Stub,), {"made": made}) for name in ("WandbLogger", "MLFlowLogger"))
    monkeypatch.setattr(tracking.loggers, "WandbLogger", weights)
    monkeypatch.setattr(tracking.loggers, "MLFlowLogger", flow)
    monkeypatch.setattr(tracking, "find_spec", lambda name: name)
    config["training"] |= {"epochs": 1, "schedule": "step"}
    config["trainer"] |= {"loggers": ["wandb", "mlflow"], "log_steps": 5}
    train(Recipe.from_dict(config), tmp_path / "run")
    assert not (tmp_path / "run" / "tensorboard").exists()
    columns = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds")
    assert [each.told for each in made] == [[1, (5, "step/loss", "step/lr"), (1, *columns)]] * 2
    assert [each.ended for each in made] == [["success", "finished"], ["success"]]
    assert (made[0].kwargs["id"], made[1].kwargs["run_id"]) == (None, None)

    config["training"]["extend"] = 1
    train(Recipe.from_dict(config), tmp_path / "run", resume=True)
    assert made[2].kwargs["id"] == "id of WandbLogger" and made[3].kwargs["run_id"] == "id of MLFlowLogger"
    assert made[2].told == [(10, "step/loss", "step/lr"), (2, *columns)]


def test_a_missing_package_is_said_before_anything_is_written(config, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None if name == "mlflow" else name)
    config["trainer"]["loggers"] = ["tensorboard", "mlflow"]
    with pytest.raises(ValueError, match="trainer.loggers mlflow needs the package mlflow.*pip install mlflow"):
        train(Recipe.from_dict(config), runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()
