"""Runs a recipe in a folder of its own, or continues it there."""

import io
import json
import logging
import os
import signal
import statistics
import time
import warnings
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import lightning as L
import torch
import torch.distributed as dist
import yaml
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from .. import plots
from .._files import LOCK, owned, read_text, without_nan, write_atomically, write_json
from .._options import fitting, shown
from .._signals import listening
from ..data import TestSet, TrainingSet, train_loader
from ..evaluation import evaluate_any
from ..evaluation.checkpoint import load_trained, read_checkpoint, save_trained
from ..evaluation.classification import precision_of
from ..evaluation.results import firing_text
from ..models import create_model
from .initial import load_initial
from .learner import Learner, seed_everything
from .parallel import synchronise_norms
from .recipe import Recipe, differences
from .report import Report
from .task import find_learning
from .tracking import must_be_installed


def train(recipe: Recipe, folder: str | Path | None = None, *, runs: str | Path = "runs", resume: bool = False) -> dict:
    """Trains a model and leaves config.yaml, metrics.csv, tensorboard/, last.ckpt, best.ckpt, best.safetensors with .json,
    curves.png and summary.json in the run folder.

    An interrupted run loses at most the minutes since it last saved (trainer.save_minutes); continued, it ends with the same
    weights and metrics as one that was never interrupted. The best epoch is chosen by the score of the test samples (accuracy,
    average precision, mean IoU), so its score flatters a little; the last epoch's is not chosen by anything. With data.holdout it is
    chosen by training samples that were held out, and the test samples say what it is worth.

    Args:
        recipe: what to train, on what, how.
        folder: the run folder; by default runs/1, runs/2, ..., or with `resume` the newest that is not finished.
        runs: where numbered run folders are made.
        resume: continue instead of starting anew. With training.extend the newest run is made longer, finished or not.
    Returns:
        The content of summary.json, see `summarize`; {} in all processes but the first. With data.folds and data.fold 0 the
        folder holds a run per fold, and summary.json their last_accuracies with mean and standard deviation.
    Raises:
        ValueError: something in the recipe or the folder does not fit; nothing was written.
        KeyboardInterrupt: stopped by Ctrl-C, a termination signal (SIGTERM), a scheduler's warning (SIGUSR1) or the end of the
            terminal (SIGHUP), which is its `signal`; its text says what is kept. A second signal ends the process at once.
    """
    folder, runs = Path(folder) if folder else None, Path(runs)
    first = rank_zero_only.rank == 0
    if resume:
        folder = folder or (_newest(runs) if recipe.training.extend else _newest_unfinished(runs))
        _must_be_a_run(folder)
    with listening() as signals, ExitStack() as until_the_end:
        if first and folder:  # before anything in it is looked at
            _must_be_a_folder(folder)
            until_the_end.enter_context(owned(folder))
        if resume:
            recipe = _continued(folder, recipe)
        elif first and folder and any(path.name != LOCK for path in folder.iterdir()):
            raise ValueError(f"{folder} is not empty; continue its run with --resume or choose another --run_dir")
        until_the_end.enter_context(_settings(recipe.trainer))
        if recipe.data.folds > 1 and recipe.data.fold == 0:
            return _cross_validate(recipe, folder, runs, resume, signals, until_the_end)
        return _train(recipe, folder, runs, resume, first, signals, until_the_end)


def _train(recipe, folder, runs, resume, first, signals, until_the_end):
    must_be_installed(recipe.trainer.loggers)
    report = Report(recipe.trainer.save_minutes, signals)
    with _quiet():
        trainer = _trainer(recipe, report, runs)
    last = folder / "last.ckpt" if resume and (folder / "last.ckpt").exists() else None
    if first and resume and not last and (folder / "summary.json").exists():
        raise ValueError(
            f"{folder} has no last.ckpt, from which its run could be extended; start a new run without --resume"
        )
    module = _module(recipe, trainer.num_devices * trainer.num_nodes, started=last is not None)
    if last:
        _must_be_a_state(last, module)
    if first and not resume:
        folder = folder or _make(runs, until_the_end)
        _write_config(folder, recipe)
    elif first:
        _note_extension(folder, recipe.training.extend)
    report.folder = folder if first else None
    if first and (slow := slow_precision(recipe.training.precision, trainer.strategy.root_device)):
        warnings.warn(slow, stacklevel=2)
    try:
        with _quiet():
            trainer.fit(module, ckpt_path=last, weights_only=True)
        if dist.is_initialized():  # the rest is the first process's affair
            dist.destroy_process_group()
        if not first:
            return {}
        left_out = {name: samples.left_out for name, samples in module.sample_sets.items()}
        test_set = TestSet(recipe.data) if recipe.data.holdout else module.test_set
        summary = summarize(folder, report, test_set, trainer.strategy.root_device, left_out)
    except (KeyboardInterrupt, SystemExit):  # Lightning makes the former the latter, and shuts its ears to Ctrl-C
        raise _stopped(report, recipe, folder, first) from None
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        with suppress(KeyboardInterrupt):  # a signal for all processes may reach the workers first
            time.sleep(0 if signals.received else 1)
        if signals.received:
            raise _stopped(report, recipe, folder, first) from None
        raise ValueError(
            f"a process that prepares data has died ({' '.join(str(error).split())[:200]}), most often for want of memory; "
            f"{report.kept} of {recipe.training.all_epochs} epochs are kept in {folder}: continue with --resume and fewer data.workers"
        ) from error
    return summary


def _stopped(report, recipe, folder, first):
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return KeyboardInterrupt(
        f"{report.kept} of {recipe.training.all_epochs} epochs are kept in {folder}" if first else ""
    )


def _cross_validate(recipe, folder, runs, resume, signals, until_the_end):
    """One run per fold, in FOLDER/fold_1, fold_2, ...; those that are finished are not run again."""
    with _quiet():
        trainer = _trainer(recipe, Report(), runs)
    if trainer.num_devices * trainer.num_nodes > 1:
        raise ValueError(
            "several processes cannot run one fold after the other; give data.fold 1, 2, ... and a --run_dir each"
        )
    folds = [replace(recipe, data=replace(recipe.data, fold=k)) for k in range(1, recipe.data.folds + 1)]
    if not resume:
        _module(folds[0], processes=1)  # what does not fit is said before anything is written
        folder = folder or _make(runs, until_the_end)
        _write_config(folder, recipe)
    summaries = []
    for k, fold in enumerate(folds, start=1):
        place = folder / f"fold_{k}"
        if (place / "summary.json").exists():
            summaries.append(_summary(place / "summary.json"))
            continue
        print(f"fold {k} of {len(folds)}", flush=True)
        try:
            with owned(place):
                started = (place / "config.yaml").exists()
                summaries.append(_train(fold, place, runs, started, True, signals, until_the_end))
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(f"{k - 1} of {len(folds)} folds are finished, and of fold {k} {error}") from None
    last = [summary["last_accuracy"] for summary in summaries]
    summary = {
        "run_dir": str(folder),
        "folds": len(folds),
        "last_accuracy": statistics.mean(last),
        "last_accuracy_std": statistics.stdev(last),
        "last_accuracies": last,
        "accuracies": [summary["accuracy"] for summary in summaries],
        "firing_rate": statistics.mean(summary["firing_rate"] for summary in summaries),
        "parameters": summaries[0]["parameters"],
        "epochs": summaries[0]["epochs"],
        "seconds": sum(summary["seconds"] for summary in summaries),
    }
    write_json(folder / "summary.json", summary)
    return summary


def _summary(path):
    """That of a fold that is finished."""
    numbers = ("last_accuracy", "accuracy", "firing_rate", "parameters", "epochs", "seconds")
    try:
        summary = json.loads(read_text(path))
        if all(isinstance(summary[key], (int, float)) for key in numbers):
            return summary
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise ValueError(f"{path} is damaged; delete it, and --resume tests that fold again")


def summarize(folder: Path, report: Report, test_set: TestSet, device: torch.device, left_out: dict[str, str]) -> dict:
    """Tests best.ckpt, exports it to best.safetensors and writes summary.json: the task; of that best epoch accuracy, loss and
    accuracy_per_step (of the logits averaged over the first 1, 2, ..., T steps), or the scores of a detector or segmenter;
    best_epoch; last_accuracy or last_scores of the last one, computed as those of the best, and with data.holdout also best_accuracy,
    all three by the held_out training samples and the rest by the test samples; the precision of all; test_samples, parameters, seconds of all epochs, firing_rates by
    module name and firing_rate over all neurons, and what was left_out of the training and test samples. None is
    what cannot be said, such as the precision for sizes that no object has.

    Args:
        folder: of the run.
        report: what was written of its epochs.
        test_set: what is tested on.
        device: where.
        left_out: samples that could not be read, in words, of training and test.
    """
    trained = load_trained(folder / "best.ckpt")
    learning = find_learning(test_set.data.task)
    tested = learning.summary(evaluate_any(trained.model, test_set, device), report.history[-1])
    save_trained(trained, folder / "best.safetensors")
    summary = {
        "run_dir": str(folder),
        "task": learning.name,
        "best_epoch": report.best["epoch"],
        "epochs": len(report.history),
        "parameters": sum(p.numel() for p in trained.model.parameters()),
        "seconds": sum(row["seconds"] for row in report.history),
        **tested,
        "precision": precision_of(trained.model),
        "left_out": left_out,
    }
    if test_set.data.holdout:
        summary |= {"held_out": test_set.data.holdout, "best_accuracy": report.best["val_accuracy"]}
    summary = without_nan(summary)
    plots.save(plots.learning_curves(report.history, plots.blank_figure()), folder / "curves.png")
    write_json(folder / "summary.json", summary)  # the last file, by which a run is known to be finished
    return summary


def as_text(summary: dict) -> str:
    """summary.json for the terminal."""
    if "folds" in summary:
        last = ", ".join(f"{accuracy:.2%}" for accuracy in summary["last_accuracies"])
        mean, std = summary["last_accuracy"], summary["last_accuracy_std"]
        return "\n".join(
            [
                "",
                f"accuracy     {mean:.2%} (standard deviation {std:.2%}) after the last epoch, mean of {summary['folds']} folds",
                f"folds        {last}",
                f"firing rate  {summary['firing_rate']:.4f} on average",
                f"parameters   {summary['parameters']:,}",
                f"seconds      {summary['seconds']:.1f} for {summary['folds']} x {summary['epochs']} epochs",
                f"kept in      {summary['run_dir']}: summary.json, and a run per fold",
            ]
        )
    rates, samples = summary["firing_rates"], f"{summary['test_samples']:,} test samples"
    silent = sum(rate == 0 for rate in rates.values())
    width = max(map(len, rates), default=0)
    return "\n".join(
        [
            "",
            f"firing rates over the {samples} (spikes per neuron and time step)",
            *(f"  {name:{width}}  {rate:.4f}" for name, rate in rates.items()),
            "",
            *find_learning(summary["task"]).summary_lines(summary),
            firing_text(summary["firing_rate"], len(rates)),
            *[
                f"silent       {silent} layers never fire: batch statistics settle over some hundred steps, until then tests "
                "stay near chance"
            ]
            * (silent > 0),
            f"computed     in {summary['precision']}, the last as the best epoch's, and as `spikeformers eval` does",
            f"parameters   {summary['parameters']:,}",
            f"seconds      {summary['seconds']:.1f} for {summary['epochs']} epochs",
            *(f"left out     {split} samples: {text}" for split, text in summary["left_out"].items() if text),
            f"kept in      {summary['run_dir']}: best.ckpt, best.safetensors, last.ckpt, metrics.csv, curves.png, summary.json",
        ]
    )


def _module(recipe, processes, started=False):
    """The `Learner` with its data, tried on one sample so that what does not fit is said before anything is written. The
    weights that a run starts from are not needed where it has `started`."""
    data, training, learning = recipe.data, recipe.training, find_learning(recipe.data.task)
    train_set, test_set = TrainingSet(data, recipe.seed), TestSet(data, held_out=data.holdout > 0)
    train_loader(train_set, world=processes, accumulate=training.accumulate)
    seed_everything(recipe.seed)
    with fitting(f"model.kwargs {shown(recipe.model.kwargs)} do not fit {recipe.model.name}"):
        model = create_model(recipe.model.name, **learning.model_options(recipe, train_set))
    if recipe.model.weights and not started:
        load_initial(model, recipe.model.weights)
    learning.prepare(model, recipe, train_set, processes * training.accumulate)
    if recipe.trainer.strategy == "fsdp" and training.ema:
        raise ValueError(
            "trainer.strategy fsdp divides the weights, of which training.ema needs a whole copy; leave one out"
        )
    with fitting(
        f"{recipe.model.name} does not take the samples of {data.name}, or not with model.kwargs {shown(recipe.model.kwargs)}"
    ):
        learning.try_out(model, test_set)
    if recipe.trainer.sync_batchnorm and not _by_lightning(recipe):
        synchronise_norms(model)
    model.to(memory_format=torch.channels_last)  # faster convolutions, most of all backwards on CPUs
    module = Learner(model.train(), recipe, train_set, test_set)
    module.configure_optimizers()
    return module


def _trainer(recipe, report, runs):
    machine, (devices, nodes) = recipe.trainer, _processes(recipe.trainer)
    try:
        return L.Trainer(
            accelerator=machine.accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy=_strategy(machine, devices, nodes),
            sync_batchnorm=machine.sync_batchnorm and _by_lightning(recipe),
            deterministic=machine.deterministic,
            precision=recipe.training.precision,
            max_epochs=recipe.training.all_epochs,
            accumulate_grad_batches=recipe.training.accumulate,
            gradient_clip_val=recipe.training.clip_grad or None,
            use_distributed_sampler=False,
            plugins=[
                *([SLURMEnvironment(auto_requeue=False)] if SLURMEnvironment.detect() else []),  # --resume does it
                InPlace(),
            ],
            default_root_dir=runs,  # where Lightning looks for checkpoints of SLURM, and not in the working directory
            num_sanity_val_steps=0,
            callbacks=[report],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    except (MisconfigurationException, TypeError) as error:
        raise ValueError(f"{error} (trainer.accelerator {machine.accelerator}, trainer.devices {devices})") from None


class InPlace(TorchCheckpointIO):
    """Writes a checkpoint where it is asked to. Lightning would write it into the system's folder for temporary files first, where
    a full disk leaves it."""

    def save_checkpoint(self, checkpoint, path, storage_options=None):
        content = io.BytesIO()  # torch's own writing into files says only that it failed
        torch.save(checkpoint, content)
        Path(path).write_bytes(content.getbuffer())


def _processes(machine):
    """Processes per computer and computers: what torchrun or SLURM has started, otherwise the recipe's."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        per_node = int(os.environ["LOCAL_WORLD_SIZE"])
        return per_node, int(os.environ["WORLD_SIZE"]) // per_node
    if SLURMEnvironment.detect():
        nodes = int(os.environ["SLURM_NNODES"])
        return int(os.environ["SLURM_NTASKS"]) // nodes, nodes
    return machine.devices, machine.num_nodes


def _strategy(machine, devices, nodes):
    if machine.strategy != "fsdp" or devices == 1 == nodes:
        return "auto" if machine.strategy == "fsdp" else machine.strategy
    # "auto" for the data-parallel size would be the number of nodes
    processes = (torch.cuda.device_count() if devices == "auto" else int(devices)) * nodes
    return ModelParallelStrategy(processes, 1, save_distributed_checkpoint=False)


def _by_lightning(recipe):
    """Whether Lightning synchronises batch normalisation: it does so under DDP, with torch's layer, which needs a GPU."""
    on_gpu = recipe.trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
    return on_gpu and recipe.trainer.strategy != "fsdp"


def _write_config(folder, recipe):
    write_atomically(folder / "config.yaml", yaml.safe_dump(recipe.as_dict(), sort_keys=False).encode())


def _numbered(runs):
    """Run folders made by `_make`, newest first."""
    folders = [path for path in runs.glob("*") if path.name.isdigit() and path.is_dir()]
    return sorted(folders, key=lambda path: int(path.name), reverse=True)


def _make(runs, until_the_end):
    """The next numbered folder, which is this process's."""
    number = max([int(path.name) for path in _numbered(runs)], default=0) + 1
    while True:
        try:
            (runs / str(number)).mkdir(parents=True)
            until_the_end.enter_context(owned(runs / str(number)))
            return runs / str(number)
        except FileExistsError:  # another run has just taken it
            number += 1


def _newest(runs):
    for folder in _numbered(runs):
        if (folder / "config.yaml").exists():
            return folder
    raise ValueError(f"no run in {runs} to extend; start one without --resume, or name its folder with --run_dir")


def _newest_unfinished(runs):
    for folder in _numbered(runs):
        if (folder / "config.yaml").exists() and not (folder / "summary.json").exists():
            return folder
    raise ValueError(f"no unfinished run in {runs}; start one without --resume, or name its folder with --run_dir")


def _must_be_a_folder(folder):
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--run_dir {folder} is a file; give a folder")


def _must_be_a_run(folder):
    if not (folder / "config.yaml").exists():
        raise ValueError(f"{folder} holds no run (no config.yaml in it); start one there without --resume")


STATE = (
    "state_dict",
    "optimizer_states",
    "lr_schedulers",
    "loops",
    "callbacks",
    "epoch",
    "global_step",
    "first_epoch",
    "batches_done",
)


def _must_be_a_state(path, module):
    """
    Raises:
        ValueError: last.ckpt cannot be read, or is not what a run of this module saves.
    """
    try:
        content = read_checkpoint(path)
        missing = [key for key in (*STATE, "sums", "unreadable") if key not in content]
        own = {name: value.shape for name, value in module.state_dict().items()}
        fits = own == {name: value.shape for name, value in content["state_dict"].items()}
    except Exception as error:  # torch.load raises many kinds
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
    else:
        if not missing and fits:
            return
        reason = f"it lacks {', '.join(missing)}" if missing else "its weights are those of another model"
    raise ValueError(
        f"{path} is damaged, or no state that a run saved ({reason}); put a copy of it there, or delete it, with which --resume starts the "
        "run anew"
    )


def _continued(folder, recipe):
    """The recipe with which the run in a folder goes on: its own epochs and those that extend them, also if they are not given again.

    Raises:
        ValueError: the run is finished, or is another one.
    """
    old = _recipe_of(folder)
    before, wanted = old.training.extend, recipe.training.extend or old.training.extend
    finished = (folder / "summary.json").exists()
    if finished and wanted == before:
        extended = f" and was extended by {before} epochs before" if before else ""
        longer = f"train it for longer with --training.extend {before + 1} or more, or " * (
            old.training.schedule == "step"
        )
        raise ValueError(
            f"the run in {folder} is finished, see its summary.json{extended}; {longer}start a new one without --resume"
        )
    if wanted < before:
        raise ValueError(f"{folder} was extended by {before} epochs before; give --training.extend {before} or more")
    differ = differences(old, recipe)
    differ.pop("training.extend", None)
    if differ:
        was = ", ".join(f"{key} {before} (now {now})" for key, (before, now) in differ.items())
        options = " ".join(f"--{key} {json.dumps(before)}" for key, (before, now) in differ.items())
        raise ValueError(
            f"{folder} was started with {was}; continue it with {options}, name another --run_dir, "
            f"or start a new run without --resume{_how_to_extend(differ, old.training)}"
        )
    if finished and (epochs := _epochs_of(folder)) < old.training.all_epochs:
        raise ValueError(
            f"training.patience ended the run in {folder} after {epochs} epochs, and would again; start a new run from its weights: "
            f"--model.weights {folder / 'best.ckpt'}"
        )
    if wanted > before and old.data.folds > 1 and old.data.fold == 0:
        raise ValueError(f"{folder} holds a run per fold; extend each of them, such as --run_dir {folder / 'fold_1'}")
    return _extended(recipe, wanted)


def _epochs_of(folder):
    """How many epochs a finished run has had."""
    try:
        return int(json.loads(read_text(folder / "summary.json"))["epochs"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"{folder / 'summary.json'} is damaged; delete it, and --resume makes it again") from None


def _how_to_extend(differ, training):
    """What to give in place of more epochs, if these were given."""
    before, now = differ.get("training.epochs", (0, 0))
    if now <= before:
        return ""
    if training.schedule == "step":
        return f"; to train it for longer, leave training.epochs and give --training.extend {now - before}"
    return (
        f"; with training.schedule {training.schedule}, which ends at training.min_lr, it cannot be extended: start a new run from "
        "its weights, --model.weights RUN/best.ckpt"
    )


def _extended(recipe, epochs):
    return replace(recipe, training=replace(recipe.training, extend=epochs))


def _recipe_of(folder):
    """What config.yaml holds.

    Raises:
        ValueError: it is damaged.
    """
    path = folder / "config.yaml"
    try:
        return Recipe.from_dict(yaml.safe_load(read_text(path)))
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:
        raise ValueError(
            f"{path} is damaged ({' '.join(str(error).split())[:300]}); put the run's recipe back there, or start a new run without --resume"
        ) from None


def _note_extension(folder, epochs):
    """Writes into config.yaml by how many epochs the run is extended, which is then no longer finished."""
    old = _recipe_of(folder)
    if epochs > old.training.extend:
        (folder / "summary.json").unlink(missing_ok=True)
        _write_config(folder, _extended(old, epochs))


@contextmanager
def _settings(machine):
    """torch's number of CPU threads, and whether it insists on deterministic algorithms, inside the block."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(machine.threads or threads)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)


def slow_precision(precision: str, device: torch.device) -> str:
    """What is said before a run of half precision on a CPU that has no arithmetic for it; "" where there is nothing to say.

    Args:
        precision: Lightning's word.
        device: where the run computes.
    """
    if device.type != "cpu" or not precision.startswith(("bf16", "16")):
        return ""
    kind, supported = ("bfloat16", "bf16") if precision.startswith("bf16") else ("float16", "fp16")
    if getattr(torch.ops.mkldnn, f"_is_mkldnn_{supported}_supported")():
        return ""
    return f"this CPU has no arithmetic for {kind}, so that convolutions take some ten times as long; give --training.precision 32-true"


@contextmanager
def _quiet():
    """Keeps Lightning's tips, and its advice on what this package has decided, off the terminal."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in (
                "The '.*dataloader' does not have many workers",
                "You're resuming from a checkpoint that ended before the epoch ended",  # the sampler knows where it was
                "You passed .*AMP with fp16 is not supported on CPU",  # recipes are meant for GPUs first
                "Found .* module.* in eval mode at the start of training",  # the averaged weights are meant to be
            ):
                warnings.filterwarnings("ignore", message)
            for category in (DeprecationWarning, FutureWarning):  # between Lightning and torch, not the user's affair
                warnings.simplefilter("ignore", category)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
