"""Where a run can be watched: TensorBoard, Weights & Biases, MLflow."""

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from lightning.fabric.loggers import TensorBoardLogger
from lightning.pytorch import loggers

from .recipe import Recipe

PROJECT = "spikeformers"
"""What W&B calls the project and MLflow the experiment."""


def must_be_installed(names: Iterable[str]) -> None:
    """
    Raises:
        ValueError: the package of one of these loggers is missing.
    """
    for name in names:
        if find_spec(name) is None:
            raise ValueError(
                f"trainer.loggers {name} needs the package {name}, which is not installed: pip install {name}"
            )


class Tracking:
    """The loggers of a run, which the first process has. `ids` are what those call the run that number runs themselves.

    Args:
        recipe: of the run; trainer.loggers says which.
        folder: of the run.
        ids: of a run that is continued.
        epochs, steps: that are done; what TensorBoard has of later ones is not shown any more.
    """

    def __init__(self, recipe: Recipe, folder: Path, ids: Mapping[str, str], epochs: int = 0, steps: int = 0):
        self.of_epochs, self.of_steps, self.ids = [], [], {}
        name = f"{folder.absolute().parent.name}/{folder.name}"
        for kind in dict.fromkeys(recipe.trainer.loggers):
            if kind == "tensorboard":  # steps beside epochs, because they are numbered in another way
                self.of_epochs.append(_tensorboard(folder, epochs, None))
                self.of_steps += [_tensorboard(folder, steps, "steps")] * (recipe.trainer.log_steps > 0)
                continue
            if kind == "wandb":
                logger = loggers.WandbLogger(name, save_dir=folder, project=PROJECT, id=ids.get(kind), resume="allow")
            else:
                logger = loggers.MLFlowLogger(PROJECT, name, save_dir=str(folder / "mlruns"), run_id=ids.get(kind))
            if kind not in ids:
                logger.log_hyperparams(recipe.as_dict())
            _ = logger.experiment  # from here on it has an id
            self.ids[kind] = logger.version
            self.of_epochs.append(logger)
            self.of_steps.append(logger)

    def epoch(self, epoch: int, row: Mapping[str, float]) -> None:
        """A row of metrics.csv.

        Args:
            epoch: counted from 1.
            row: its numbers.
        """
        for logger in self.of_epochs:
            logger.log_metrics(dict(row), epoch)
            logger.save()

    def step(self, step: int, metrics: Mapping[str, float]) -> None:
        """What is known after an optimiser step, under the names step/loss and the like.

        Args:
            step: since training began.
            metrics: its numbers.
        """
        for logger in self.of_steps:
            logger.log_metrics({f"step/{key}": value for key, value in metrics.items()}, step)

    def close(self) -> None:
        """Writes what is not written yet."""
        for logger in {id(each): each for each in (*self.of_epochs, *self.of_steps)}.values():
            logger.finalize("success")
            if isinstance(logger, loggers.WandbLogger):
                logger.experiment.finish()  # otherwise the next run in this process would go on in it


def _tensorboard(folder, done, part):
    return TensorBoardLogger(folder, "tensorboard", "", sub_dir=part, purge_step=done + 1)
