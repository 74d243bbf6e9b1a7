"""What a training run shows in the terminal and keeps in its folder while it runs."""

import csv
import io
import shutil
import time
from pathlib import Path

import lightning as L

from .._files import replacing, write_atomically
from .._progress import bold, progress_bar
from .._signals import Signals
from .learner import peak_lr
from .task import Objective
from .tracking import Tracking


def table_columns(objective: Objective | type[Objective]) -> tuple[str, ...]:
    """Of metrics.csv."""
    return ("epoch", *objective.columns, "lr", "seconds")


class Report(L.Callback):
    """Prints a progress bar and a line per epoch; writes metrics.csv, what trainer.loggers keep, last.ckpt and best.ckpt.

    Files are written under a temporary name and renamed, and last.ckpt, which a continued run starts from, comes last and holds
    the rows of all epochs before it. Within an epoch only last.ckpt is written, every `save_minutes`. `history` is the rows,
    one dict of the objective's `table_columns` per epoch; accuracies and the like are shares in [0, 1].
    """

    def __init__(self, save_minutes: float = 0.0, signals: Signals | None = None):
        self.folder: Path | None = None  # stays None in all processes but the first, which alone prints and writes
        self.history = []
        self.kept = 0  # epochs that last.ckpt holds
        self.ids = {}  # of the run, by loggers that number runs themselves
        self.spent = 0.0  # seconds of the epoch under way before the run was continued
        self.save_minutes, self.signals = save_minutes, signals or Signals()
        self.ask_every = 20  # steps between two questions whether to save, for which processes wait for each other

    @property
    def best(self) -> dict:
        """The row with the highest score."""
        return max(self.history, key=self.learner.learning.score)

    def state_dict(self):
        return {"history": self.history, "spent": self.spent, **({"ids": self.ids} if self.ids else {})}

    def load_state_dict(self, state):
        self.history, self.spent = state["history"], state["spent"]
        self.ids = state.get("ids", {})
        self.kept = len(self.history)

    def setup(self, trainer, module, stage):
        self.learner = module

    def on_train_start(self, trainer, module):
        self.saved = time.monotonic()
        self.signals.listen()  # Lightning's own handler waits for the other processes
        if self.folder:
            self.tracking = Tracking(module.recipe, self.folder, self.ids, len(self.history), trainer.global_step)
            self.ids = self.tracking.ids
            self.introduce(trainer, module)
        self.stop_early(trainer, module)  # where it was interrupted when it was about to

    def introduce(self, trainer, module):
        data, training = module.recipe.data, module.recipe.training
        where = f"{trainer.world_size} x " if trainer.world_size > 1 else ""
        batch, rate = data.batch_size, f", learning rate {peak_lr(training, data.batch_size):.3g}"
        tests = "held-out" if data.folds > 1 or data.holdout else "test"
        next_ = f"epoch {self.kept + 1}" + (f", batch {module.batches_done + 1}," if module.batches_done else "")
        print(
            f"{module.recipe.model.name}: {module.describe()}, on {where}{module.device.type}\n"
            f"{data.name}: {len(module.train_set):,} training and {len(module.test_set):,} {tests} {module.objective.samples_text()}, "
            f"{len(module.classes)} classes; batches of {batch}{rate}\n"
            f"{self.folder}: results of this run; stop it with Ctrl-C, continue it with --resume"
            + (f" ({next_} is next)" if trainer.global_step else ""),
            flush=True,
        )

    def start_epoch(self, trainer, module):
        self.started, self.spent_before = time.perf_counter(), self.spent
        batch = module.recipe.data.batch_size
        done = (
            module.batches_done // module.recipe.training.accumulate * batch
            if trainer.current_epoch == module.first_epoch
            else 0
        )
        self.samples = len(module.train_set) // batch * batch - done
        self.unlogged = None  # what was counted in the epoch before the steps that are not in the loggers yet
        self.bar = progress_bar(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}",
            done + self.samples,
            " samples",
            shown=self.folder is not None,
            initial=done,
            mininterval=0.5,  # each refresh waits for the device
        )

    def on_train_epoch_start(self, trainer, module):
        self.start_epoch(trainer, module)

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if not hasattr(self, "started"):  # continued within an epoch, whose start Lightning does not announce again
            self.start_epoch(trainer, module)
        if self.unlogged is None:
            self.unlogged = module.sums.clone()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.training_seconds = time.perf_counter() - self.started
        self.spent = self.spent_before + self.training_seconds
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        if self.bar.update(module.recipe.data.batch_size):
            self.bar.set_postfix_str(module.learning.progress(module.train_metrics(module.sums)), refresh=False)
            module.must_be_finite()
        every = module.recipe.trainer.log_steps
        if self.folder and every and trainer.global_step % every == 0:
            loss = module.train_metrics(module.sums - self.unlogged)["train_loss"]
            self.tracking.step(trainer.global_step, {"loss": loss, "lr": trainer.optimizers[0].param_groups[-1]["lr"]})
            self.unlogged = module.sums.clone()
        if batch_idx + 1 < trainer.num_training_batches and self.due(trainer, batch_idx):
            module.must_be_finite()
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
        module.must_be_finite()
        row = {
            "epoch": trainer.current_epoch + 1,
            **module.train_metrics(module.total(module.sums)),
            **module.test_metrics(),
            "lr": trainer.optimizers[0].param_groups[-1]["lr"],
            "seconds": self.spent_before + time.perf_counter() - self.started,
        }
        self.history.append(row)
        self.spent = 0.0
        self.save(trainer, epoch_ended=True)
        if self.folder:
            self.show(trainer, row, self.samples / self.training_seconds)
        self.stop_early(trainer, module)

    def stop_early(self, trainer, module):
        """Ends the run where training.patience is at its end; all processes have the same history."""
        patience = module.recipe.training.patience
        if not patience or not self.history or len(self.history) - self.best["epoch"] < patience:
            return
        trainer.should_stop = True
        if self.folder and len(self.history) < trainer.max_epochs:
            print(
                f"no better epoch than {self.best['epoch']} for {patience} epochs (training.patience): the run ends",
                flush=True,
            )

    def save(self, trainer, epoch_ended: bool = False):
        """Writes last.ckpt; after an epoch before it best.ckpt, if this epoch is the best, and metrics.csv. All processes
        must call this."""
        trainer.lightning_module.share_buffers()
        if self.folder is None:  # the first process writes
            trainer.save_checkpoint("last.ckpt")
        else:
            try:
                with replacing(self.folder / "last.ckpt") as temporary:
                    trainer.save_checkpoint(temporary)
                    if epoch_ended:
                        if self.best is self.history[-1]:
                            with replacing(self.folder / "best.ckpt") as copy:
                                shutil.copyfile(temporary, copy)
                        self.write_table()
            except OSError as error:
                raise OSError(
                    f"cannot write into {self.folder}: {error.strerror or error}; {self.kept} of {trainer.max_epochs} epochs are kept there "
                    "as they were: make room, or set right what keeps it from writing, and continue with --resume"
                ) from error
        self.kept, self.saved = len(self.history), time.monotonic()

    def write_table(self):
        table = io.StringIO()
        writer = csv.DictWriter(table, table_columns(self.learner.objective), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.history)
        write_atomically(self.folder / "metrics.csv", table.getvalue().encode())

    def show(self, trainer, row, rate):
        self.tracking.epoch(row["epoch"], {key: row[key] for key in table_columns(self.learner.objective)[1:]})
        self.bar.close()
        width = len(str(trainer.max_epochs))
        line = (
            f"epoch {row['epoch']:{width}}/{trainer.max_epochs}"
            f"  {self.learner.learning.epoch_text(row)}  {rate:.{0 if rate >= 10 else 2}f} samples/s, {row['seconds']:.1f} s"
        )
        print(bold(line) if self.best is row else line, flush=True)

    def teardown(self, trainer, module, stage):
        if hasattr(self, "tracking"):
            self.tracking.close()
        if hasattr(self, "bar"):
            self.bar.close()
