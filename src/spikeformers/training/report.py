"""What a training run shows in the terminal and keeps in its folder while it runs."""

import csv
import io
import os
import shutil
import signal
import time
from pathlib import Path

import lightning as L
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..models._registry import write_atomically

COLUMNS = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds")


class Report(L.Callback):
    """Prints a progress bar and a line per epoch; writes metrics.csv, TensorBoard's events, last.ckpt and best.ckpt.

    An epoch is kept as a whole or not at all: files are written under a temporary name and renamed, and last.ckpt, which a
    continued run starts from, comes last and holds the rows of all epochs before it. `history` is those rows, one dict of
    COLUMNS per epoch; accuracies are shares in [0, 1].
    """

    def __init__(self):
        self.folder: Path | None = None  # stays None in all processes but the first, which alone prints and writes
        self.history = []
        self.kept = 0  # epochs that last.ckpt holds

    @property
    def best(self) -> dict:
        """The row with the highest test accuracy; of equal ones that with the lowest test loss."""
        return max(self.history, key=lambda row: (row["val_accuracy"], -row["val_loss"]))

    def state_dict(self):
        return {"history": self.history}

    def load_state_dict(self, state):
        self.history = state["history"]
        self.kept = len(self.history)

    def on_train_start(self, trainer, module):
        signal.signal(signal.SIGTERM, _interrupt)  # Lightning's own handler waits for the other processes
        if self.folder:
            self.writer = SummaryWriter(self.folder / "tensorboard", purge_step=len(self.history) + 1)
            self.introduce(trainer, module)

    def introduce(self, trainer, module):
        data, model = module.recipe.data, module.model
        parameters = sum(p.numel() for p in model.parameters())
        where = f"{trainer.world_size} x " if trainer.world_size > 1 else ""
        print(
            f"{module.recipe.model.name}: {parameters:,} parameters, {model.time_steps} time steps, "
            f"on {where}{module.device.type}\n"
            f"{data.name}: {len(module.train_images):,} training and {len(module.test_images):,} test images "
            f"{data.channels}x{data.img_size}x{data.img_size}, {len(module.classes)} classes\n"
            f"{self.folder}: results of this run; stop it with Ctrl-C, continue it with --resume"
            + (f" (epoch {self.kept + 1} is next)" if self.kept else ""),
            flush=True,
        )

    def on_train_epoch_start(self, trainer, module):
        self.started = time.perf_counter()
        batch = module.recipe.data.batch_size
        self.bar = tqdm(
            total=len(module.train_images) // batch * batch,
            desc=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
            unit=" images",
            leave=False,
            dynamic_ncols=True,
            disable=None if self.folder else True,  # None: shown in a terminal only
        )

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.training_seconds = time.perf_counter() - self.started
        if self.bar.update(module.recipe.data.batch_size):
            loss, correct, images = module.sums.tolist()
            self.bar.set_postfix_str(f"loss {loss / images:.3f}, accuracy {correct / images:.1%}", refresh=False)

    def on_train_epoch_end(self, trainer, module):
        loss, correct, images = trainer.strategy.reduce(module.sums, reduce_op="sum").tolist()
        test_loss, test_correct, test_images = trainer.strategy.reduce(module.test_sums, reduce_op="sum").tolist()
        row = {
            "epoch": trainer.current_epoch + 1,
            "train_loss": loss / images,
            "train_accuracy": correct / images,
            "val_loss": test_loss / test_images,
            "val_accuracy": test_correct / test_images,
            "lr": trainer.optimizers[0].param_groups[0]["lr"],
            "seconds": time.perf_counter() - self.started,
        }
        self.history.append(row)
        self.save(trainer)
        if self.folder:
            self.show(trainer, row, images / self.training_seconds)

    def save(self, trainer):
        """Writes best.ckpt if this epoch is the best, metrics.csv, then last.ckpt. All processes must call this."""
        temporary = (self.folder or Path()) / "last.ckpt.tmp"
        trainer.save_checkpoint(temporary)
        if self.folder:
            if self.best is self.history[-1]:
                copy = self.folder / "best.ckpt.tmp"
                shutil.copyfile(temporary, copy)
                os.replace(copy, self.folder / "best.ckpt")
            self.write_table()
            os.replace(temporary, self.folder / "last.ckpt")
        self.kept = len(self.history)

    def write_table(self):
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        write_atomically(self.folder / "metrics.csv", table.getvalue().encode())

    def show(self, trainer, row, rate):
        for key in COLUMNS[1:]:
            self.writer.add_scalar(key, row[key], row["epoch"])
        self.writer.flush()
        self.bar.close()
        width = len(str(trainer.max_epochs))
        print(
            f"epoch {row['epoch']:{width}}/{trainer.max_epochs}"
            f"  train loss {row['train_loss']:.3f}, accuracy {row['train_accuracy']:6.2%}"
            f"  test loss {row['val_loss']:.3f}, accuracy {row['val_accuracy']:6.2%}"
            f"  {rate:.0f} images/s, {row['seconds']:.1f} s",
            flush=True,
        )

    def teardown(self, trainer, module, stage):
        if hasattr(self, "writer"):
            self.writer.close()
        if hasattr(self, "bar"):
            self.bar.close()


def _interrupt(signum, frame):
    raise KeyboardInterrupt
