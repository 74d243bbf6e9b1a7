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

from .._files import write_atomically
from .classifier import peak_lr

COLUMNS = ("epoch", "train_loss", "train_accuracy", "val_loss", "val_accuracy", "lr", "seconds")


class Report(L.Callback):
    """Prints a progress bar and a line per epoch; writes metrics.csv, TensorBoard's events, last.ckpt and best.ckpt.

    Files are written under a temporary name and renamed, and last.ckpt, which a continued run starts from, comes last and holds
    the rows of all epochs before it. Within an epoch only last.ckpt is written, every `save_minutes`. `history` is the rows,
    one dict of COLUMNS per epoch; accuracies are shares in [0, 1].
    """

    def __init__(self, save_minutes: float = 0.0):
        self.folder: Path | None = None  # stays None in all processes but the first, which alone prints and writes
        self.history = []
        self.kept = 0  # epochs that last.ckpt holds
        self.spent = 0.0  # seconds of the epoch under way before the run was continued
        self.save_minutes = save_minutes
        self.ask_every = 20  # steps between two questions whether to save, for which processes wait for each other

    @property
    def best(self) -> dict:
        """The row with the highest test accuracy; of equal ones that with the lowest test loss."""
        return max(self.history, key=lambda row: (row["val_accuracy"], -row["val_loss"]))

    def state_dict(self):
        return {"history": self.history, "spent": self.spent}

    def load_state_dict(self, state):
        self.history, self.spent = state["history"], state["spent"]
        self.kept = len(self.history)

    def on_train_start(self, trainer, module):
        self.saved = time.monotonic()
        signal.signal(signal.SIGTERM, _interrupt)  # Lightning's own handler waits for the other processes
        if self.folder:
            self.writer = SummaryWriter(self.folder / "tensorboard", purge_step=len(self.history) + 1)
            self.introduce(trainer, module)

    def introduce(self, trainer, module):
        data, model, training = module.recipe.data, module.model, module.recipe.training
        learning = sum(p.numel() for p in model.early.parameters())
        parameters = f"{sum(p.numel() for p in model.parameters()) - learning:,} parameters"
        parameters += f" and {learning:,} of early classifiers" * bool(learning)
        shrinking = f" ({', '.join(map(str, model.schedule))} by stage)" if model.schedule else ""
        where = f"{trainer.world_size} x " if trainer.world_size > 1 else ""
        batch, rate = data.batch_size, f", learning rate {peak_lr(training, data.batch_size):.3g}"
        tests = "held-out" if data.folds > 1 else "test"
        next_ = f"epoch {self.kept + 1}" + (f", batch {module.batches_done + 1}," if module.batches_done else "")
        print(
            f"{module.recipe.model.name}: {parameters}, {time_steps(module)} time steps{shrinking}, "
            f"on {where}{module.device.type}\n"
            f"{data.name}: {len(module.train_set):,} training and {len(module.test_set):,} {tests} samples "
            f"{'x'.join(map(str, module.train_set.shape))}, {len(module.classes)} classes; batches of {batch}{rate}\n"
            f"{self.folder}: results of this run; stop it with Ctrl-C, continue it with --resume"
            + (f" ({next_} is next)" if trainer.global_step else ""),
            flush=True,
        )

    def start_epoch(self, trainer, module):
        self.started, self.spent_before = time.perf_counter(), self.spent
        batch = module.recipe.data.batch_size
        done = module.batches_done // module.recipe.training.accumulate * batch if trainer.current_epoch == module.first_epoch else 0
        self.samples = len(module.train_set) // batch * batch - done
        self.bar = tqdm(
            total=done + self.samples,
            initial=done,
            desc=f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
            unit=" samples",
            leave=False,
            dynamic_ncols=True,
            mininterval=0.5,  # each refresh waits for the device
            disable=None if self.folder else True,  # None: shown in a terminal only
        )

    def on_train_epoch_start(self, trainer, module):
        self.start_epoch(trainer, module)

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if not hasattr(self, "started"):  # continued within an epoch, whose start Lightning does not announce again
            self.start_epoch(trainer, module)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.training_seconds = time.perf_counter() - self.started
        self.spent = self.spent_before + self.training_seconds
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if self.bar.update(module.recipe.data.batch_size):
            loss, correct, samples = module.sums.tolist()
            self.bar.set_postfix_str(f"loss {loss / samples:.3f}, accuracy {correct / samples:.1%}", refresh=False)
        if batch_idx + 1 < trainer.num_training_batches and self.due(trainer, batch_idx):
            self.save(trainer)

    def due(self, trainer, batch_idx) -> bool:
        """Whether it is time to save within the epoch; all processes hear the same."""
        if not self.save_minutes:
            return False
        late = time.monotonic() - self.saved > 60 * self.save_minutes
        if trainer.world_size == 1:
            return late
        asked = (batch_idx + 1) // trainer.accumulate_grad_batches % self.ask_every == 0
        return asked and trainer.strategy.broadcast(late)

    def on_train_epoch_end(self, trainer, module):
        loss, correct, samples = trainer.strategy.reduce(module.sums, reduce_op="sum").tolist()
        test_loss, test_correct, test_samples = trainer.strategy.reduce(module.test_sums, reduce_op="sum").tolist()
        row = {
            "epoch": trainer.current_epoch + 1,
            "train_loss": loss / samples,
            "train_accuracy": correct / samples,
            "val_loss": test_loss / test_samples,
            "val_accuracy": test_correct / test_samples,
            "lr": trainer.optimizers[0].param_groups[-1]["lr"],
            "seconds": self.spent_before + time.perf_counter() - self.started,
        }
        self.history.append(row)
        self.spent = 0.0
        self.save(trainer, epoch_ended=True)
        if self.folder:
            self.show(trainer, row, self.samples / self.training_seconds)

    def save(self, trainer, epoch_ended: bool = False):
        """Writes last.ckpt; after an epoch before it best.ckpt, if this epoch is the best, and metrics.csv. All processes
        must call this."""
        trainer.lightning_module.share_buffers()
        temporary = (self.folder or Path()) / "last.ckpt.tmp"
        trainer.save_checkpoint(temporary)
        if self.folder:
            if epoch_ended:
                if self.best is self.history[-1]:
                    copy = self.folder / "best.ckpt.tmp"
                    shutil.copyfile(temporary, copy)
                    os.replace(copy, self.folder / "best.ckpt")
                self.write_table()
            os.replace(temporary, self.folder / "last.ckpt")
        self.kept, self.saved = len(self.history), time.monotonic()

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
            f"  {rate:.0f} samples/s, {row['seconds']:.1f} s",
            flush=True,
        )

    def teardown(self, trainer, module, stage):
        if hasattr(self, "writer"):
            self.writer.close()
        if hasattr(self, "bar"):
            self.bar.close()


def time_steps(module: L.LightningModule) -> int:
    """T of the sequences, or how often the model shows itself an image."""
    return module.train_set.shape[0] if len(module.train_set.shape) == 4 else module.model.time_steps


def _interrupt(signum, frame):
    raise KeyboardInterrupt
