"""The command `spikeformers`: each verb is a door to one function of the library."""

import argparse
import ast
import contextlib
import difflib
import fnmatch
import importlib.metadata
import importlib.util
import inspect
import itertools
import os
import random
import re
import shlex
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import lazy_loader

from ._files import read_text
from ._options import fitting, misfit, shown

yaml = lazy_loader.load("yaml")


def main(argv: list[str] | None = None) -> int:
    """Runs a command line (sys.argv by default) and returns its exit code: 0, 2 for what the user can put right, which is
    said in one line on stderr, 130 after Ctrl-C, or 128 + N after another signal N that ends a run and keeps its state."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        print("usage: spikeformers VERB ... (spikeformers VERB --help explains)\n")
        for verb, function in VERBS.items():
            print(f"  {verb:8} {function.__doc__}")
        return 0 if argv else 2
    if argv[0] == "--version":
        print(importlib.metadata.version("spikeformers"))
        return 0
    try:
        if argv[0] not in VERBS:
            raise ValueError(f"unknown verb {argv[0]!r}; {_meant(argv[0], VERBS)}")
        with _plain_warnings():
            VERBS[argv[0]](argv[1:])
        return 0
    except SystemExit as error:  # argparse has shown its help
        return error.code
    except BrokenPipeError:  # the reader of `spikeformers list | head` has seen enough
        sys.stdout = None
        return 0
    except KeyboardInterrupt as error:
        if str(error):
            print(f"\nspikeformers: stopped; {error}", file=sys.stderr)
        return 128 + getattr(error, "signal", signal.SIGINT)
    except (ValueError, OSError) as error:
        message = str(error)
        if message.startswith("Caught "):  # in a worker of a DataLoader, whose traceback ends in what happened
            message = message.rstrip().rpartition("\n")[2].partition(": ")[2]
        print(f"spikeformers: {' '.join(message.split())}", file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        reason = " ".join(str(error).split())[:200]
        print(f"spikeformers: out of memory{': ' * bool(reason)}{reason}; give fewer or smaller samples at once", file=sys.stderr)
        return 2


def _out_of_memory(error):
    """Whether Python, or torch on some device, could not get the memory it asked for; torch says so in words only."""
    words = str(error)
    return isinstance(error, MemoryError) or "can't allocate memory" in words or "out of memory" in words


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in the same way as everything else does."""

    def __init__(self, **options):
        super().__init__(**options, allow_abbrev=False)

    def error(self, message):
        raise ValueError(f"{message} ({self.prog} --help explains)")


def train(argv):
    """Train a model from a recipe, or continue an interrupted run with --resume."""
    _need("train", "lightning", "jsonargparse", "tensorboard")
    from jsonargparse import ArgumentParser

    from .training.recipe import Machine, Model, Recipe, Training

    argv = _with_recipe_of_the_run(argv)
    for path in _configs(argv):
        _read_recipe(path)
    parser = ArgumentParser(
        prog="spikeformers train", description=train.__doc__, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument("--config", action="config", help="the recipe, a YAML file such as recipes/digits.yaml")
    parser.add_argument(
        "--run_dir", type=str | None, help="the run's folder (default: the next of runs/RECIPE/1, 2, ...)"
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue the newest unfinished run, or that in --run_dir"
    )
    parser.add_argument("--strict", action="store_true", help="stop at a sample that cannot be read; short for --data.strict true")
    parser.add_class_arguments(Model, "model")
    parser.add_class_arguments(_data_of(argv), "data")
    parser.add_class_arguments(Training, "training")
    parser.add_class_arguments(Machine, "trainer")
    parser.add_argument("--seed", type=int, default=0, help="decides everything random; the same seed gives the same result")
    config = _parsed(parser, argv)
    config["data"]["strict"] |= config["strict"]
    recipe = Recipe.from_dict({section: config[section] for section in ("model", "data", "training", "trainer", "seed")})
    name = Path(str(config["config"][-1])).stem if config["config"] else recipe.model.name

    from .training.run import as_text, train as run

    try:
        summary = run(recipe, config["run_dir"], runs=Path("runs") / name, resume=config["resume"])
    except KeyboardInterrupt as error:
        if not str(error):  # another process than the first
            raise
        again = shlex.join(["spikeformers", "train", *argv, *([] if config["resume"] else ["--resume"])])
        stopped = KeyboardInterrupt(f"{error}; continue with: {again}")
        stopped.signal = getattr(error, "signal", signal.SIGINT)
        raise stopped from None
    if summary:
        print(as_text(summary))


def evaluate(argv):
    """Print a checkpoint's accuracy, AP or mIoU on its test images, or on others given as --data.* options."""
    _need("train", "jsonargparse")
    from jsonargparse import ArgumentParser

    from . import evaluation

    parser = ArgumentParser(
        prog="spikeformers eval", description=evaluate.__doc__, exit_on_error=False, allow_abbrev=False
    )
    parser.add_argument("checkpoint", type=str, help="best.ckpt, last.ckpt, a .safetensors file with its .json, or a name of `spikeformers list --pretrained`")
    parser.add_argument("--event_driven", type=str | None, help=EVENT_DRIVEN)
    if argv[:1] in (["-h"], ["--help"]):
        parser.add_class_arguments(_data_of(argv), "data")
        parser.parse_args(argv)
    if not argv or argv[0].startswith("-"):
        raise ValueError("give the checkpoint first: spikeformers eval CKPT, then options such as --data.root FOLDER")
    trained = evaluation.load_trained(argv[0])
    data, options = _data_and_options(parser, argv, trained)
    images = evaluation.test_samples(trained, data)
    model, device = trained.model, evaluation.best_device()
    if options["event_driven"]:
        from .data import test_loader

        model, device = _event_driven(model, data, options["event_driven"], test_loader(images)), "cpu"
    result = evaluation.evaluate_any(model, images, device)
    print(result.as_text(data.name))
    how = f"event-driven, with {options['event_driven']} weights" if options["event_driven"] else f"in {evaluation.precision_of(model)}"
    print(f"computed     {how}")
    if images.left_out:
        print(f"left out     {images.left_out}")


EVENT_DRIVEN = "on the CPU, adding weights only where spikes are: float32, bfloat16 or int8, how weights are kept"


def _event_driven(model, data, precision, batches):
    """The model for event-driven inference, calibrated on the first of the batches."""
    from .evaluation import find_task
    from .transforms import event_driven

    if not find_task(data.task).event_driven:
        raise ValueError(f"--event_driven takes classifiers, and the data {data.name} are for {data.task}")
    return event_driven(model.cpu(), next(iter(batches))[0], precision=precision)


def profile(argv):
    """Count a checkpoint's operations and energy on test samples, audit it, and write a report page."""
    names, options = _names_and_options("profile", argv)
    if len(names) > 1:
        raise ValueError(f"profile takes one checkpoint, not {len(names)}; spikeformers compare takes several")
    folder = _report_folder(options)
    result, *others = _profiles("profile", profile.__doc__, names[0], options)
    if others:
        raise ValueError("profile takes one --time_steps; spikeformers compare takes several")
    print(result)
    if folder:
        result.write(folder)
        beside = "profile.json, layers.csv and early_exit.csv" if result.early_exit else "profile.json and layers.csv"
        print(f"wrote {Path(folder) / 'report.html'}, and {beside} beside it")


def compare(argv):
    """Profile several checkpoints, or one at several --time_steps, and write a page with them side by side."""
    names, options = _names_and_options("compare", argv)
    if any(option.partition("=")[0] == "--early_exit" for option in options):
        raise ValueError("compare has no --early_exit; give it to spikeformers profile, once for each checkpoint")

    from .profiling import compare as write, read_profile

    for name in names:
        if not Path(name).exists() and "--rates" not in " ".join(options):
            _must_be_a_checkpoint(name)
    folder = _report_folder(options)
    reports, maps = [], []
    for name in names:
        saved = Path(name) / "profile.json" if Path(name).is_dir() else Path(name)
        if saved.suffix == ".json" and saved.is_file():
            reports.append(read_profile(saved))
            maps.append([])
            print(f"{name}: {reports[-1]['totals']['energy_mj']:.4g} mJ per sample, as it was saved")
            continue
        for result in _profiles("compare", compare.__doc__, name, options):
            print(result, flush=True)
            reports.append(result.to_dict())
            maps.append(result.maps)
    if len(reports) < 2:
        raise ValueError("there is only one profile; give several checkpoints, or several --time_steps such as [1,2,4]")
    if folder:
        write(reports, folder, maps)
        print(f"wrote {Path(folder) / 'report.html'}, and comparison.csv and profiles.json beside it")
    else:
        print("add --report FOLDER for a page with all of them side by side")


def convert(argv):
    """Make a pretrained network spike, without training, and test it at every time step."""
    _need("train", "jsonargparse")
    from jsonargparse import ArgumentParser
    from torch import nn

    from . import evaluation
    from .data import ImageData
    from .evaluation import conversion, fetching
    from .measure import Constants
    from .transforms.sta import load_source

    parser = ArgumentParser(prog="spikeformers convert", description=convert.__doc__, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("model", type=str, help="timm:NAME, torchvision:NAME, transformers:FOLDER[:CLASS], or a name of timm")
    parser.add_class_arguments(conversion.Conversion, skip={"model"})
    parser.add_class_arguments(ImageData, "data")
    parser.add_argument("--run_dir", type=str | None, help="where to write; runs/convert/MODEL by default")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted test")
    if {"-h", "--help"} & set(argv):
        parser.parse_args(["--help"])
    if not argv or argv[0].startswith("-"):
        raise ValueError("give the model first: spikeformers convert MODEL --calib FOLDER --eval FOLDER")
    given = _parsed(parser, argv)
    named, resume = bool(_given(argv, "--data.name")), given.pop("resume")
    of_data, run_dir = given.pop("data"), given.pop("run_dir")
    lengths = [len(of_data[key]) for key in ("mean", "std") if _given(argv, f"--data.{key}")]
    channels = of_data["channels"] if _given(argv, "--data.channels") else next(iter(lengths), 3)  # the network will say
    unknown = {key: [0.5] * channels for key in ("mean", "std") if not _given(argv, f"--data.{key}")}
    ImageData(**of_data | unknown | {"channels": channels})
    conversion.must_be_possible(conversion.Conversion(**given), named, run_dir, resume)
    fetching.must_be_had(given["model"], given["weights"])
    model = load_source(given["model"], given["kwargs"], given["weights"])
    if not isinstance(model, nn.Module):
        raise ValueError(f"{given['model']} is {type(model).__name__}, not a network (torch.nn.Module)")
    settings, said = evaluation.preprocessing(model, given["weights"])
    parser.set_defaults({f"data.{key}": value for key, value in settings.items()})
    options = _parsed(parser, argv)
    data = ImageData(**options.pop("data"))
    del options["run_dir"], options["resume"]
    _say_how_images_are_prepared(argv, data, settings, said, given["weights"])
    try:
        result, path = conversion.run(conversion.Conversion(**options), model, data, named, run_dir, resume)
    except KeyboardInterrupt as error:
        again = shlex.join(["spikeformers", "convert", *argv, *([] if resume else ["--resume"])])
        stopped = KeyboardInterrupt(f"whole batches are kept; continue with: {again}")
        stopped.signal = getattr(error, "signal", signal.SIGINT)
        raise stopped from None
    if result:
        print(result.as_text(Constants(options["mac"], options["ac"])))
        print(f"wrote {path.with_name('any_time.csv')}")
    print(f"wrote {path}, which eval, profile and predict read")


def _say_how_images_are_prepared(argv, data, settings, said, weights=None):
    """Prints it with where it comes from, since a network that sees images in another way than in training answers badly, and nothing
    else shows it. A warning where weights come without a description."""
    from .evaluation import prepared_text

    by_option = [key for key in settings if _given(argv, f"--data.{key}")]
    rest = [key for key in settings if key not in by_option]
    origin = [f"{', '.join(by_option)} as given"] * bool(by_option) + [f"{', '.join(rest)} {said}"] * bool(rest)
    text = f"images are prepared as {prepared_text(data)} ({'; '.join(origin)})"
    if weights is not None and {"mean", "std", "crop_pct", "img_size"} & set(rest) and "config.json" not in said:
        warnings.warn(f"{text}: a guess, since {weights} does not say; give {', '.join(f'--data.{key}' for key in rest)}", stacklevel=2)
    else:
        print(text, flush=True)


def predict(argv):
    """Print the likeliest classes of image or event files; draw what detectors and segmenters find into PNG files."""
    parser = _Parser(prog="spikeformers predict", description=predict.__doc__)
    parser.add_argument("checkpoint", help="best.ckpt, last.ckpt or best.safetensors of a run, or a name of `spikeformers list --pretrained`")
    parser.add_argument(
        "images", nargs="+", metavar="image", help="an image file (or a folder of them for pictures), or a recording for models of events"
    )
    parser.add_argument("--top", type=int, default=3, help="how many classes to print (default: 3)")
    parser.add_argument("--out", default="predictions", help="folder for pictures and the numbers behind them (default: predictions)")
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score of objects that are drawn (default: 0.5)")
    args = parser.parse_args(argv)
    if args.top < 1:
        raise ValueError(f"--top is {args.top}; give at least 1")
    if not 0 <= args.threshold <= 1:
        raise ValueError(f"--threshold is {args.threshold:g}; scores are probabilities, give 0 to 1")

    from . import evaluation

    trained = evaluation.load_trained(args.checkpoint)
    shown = evaluation.Shown(args.top, args.out, args.threshold, evaluation.best_device())
    for line in evaluation.predict_any(trained, args.images, shown):
        print(line, flush=True)


def list_(argv):
    """List the models' names, and those of networks around them; all or those that match a pattern such as 'meta*'."""
    parser = _Parser(prog="spikeformers list", description=list_.__doc__)
    parser.add_argument("pattern", nargs="?", default="*", help="shell pattern (default: *)")
    parser.add_argument("--pretrained", action="store_true", help="those whose trained weights ship with this library, and what they are")
    args = parser.parse_args(argv)
    pattern = args.pattern
    if args.pretrained:
        print(_shipped_table(pattern))
        return

    from . import list_models, list_tasks

    names = list_models(pattern) + fnmatch.filter(list_tasks(), pattern)
    if not names:
        raise ValueError(f"no model matches {pattern!r}; spikeformers list shows all")
    print("\n".join(names))


def _shipped_table(pattern):
    """What ships, a line each."""
    from .models.shipped import shipped

    chosen = {key: entry for key, entry in shipped().items() if fnmatch.fnmatch(key, pattern) or fnmatch.fnmatch(key.partition(".")[0], pattern)}
    if not shipped():
        raise ValueError("no weights ship with this installation; train a model, or load a file with create_model(checkpoint=...)")
    if not chosen:
        raise ValueError(f"no weights that ship match {pattern!r}; spikeformers list --pretrained shows all")
    width = max(map(len, chosen))
    lines = [f"{'name':{width}}  {'data':>9}  accuracy  T  parameters  firing rate  ms per image"]
    for key, entry in chosen.items():
        milliseconds = entry.get("milliseconds")
        lines.append(
            f"{key:{width}}  {entry['data']:>9}  {entry['accuracy']:8.2%}  {entry['time_steps']}  {entry['parameters']:10,}  "
            f"{entry['firing_rate']:11.4f}  {f'{milliseconds:.2f}' if milliseconds else '-':>12}"
        )
    return "\n".join([*lines, "accuracy of the official test samples; milliseconds: one image, one thread, see index.json beside the weights"])


def doctor(argv):
    """Show versions, devices, which kernels are live and which extras are missing."""
    _Parser(prog="spikeformers doctor", description=doctor.__doc__).parse_args(argv)

    import platform

    import torch
    from packaging.requirements import Requirement

    from .kernels import lif, spike_attention, spike_conv

    version = importlib.metadata.version
    print(f"spikeformers {version('spikeformers')}, Python {platform.python_version()}, ", end="")
    print(", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "timm")))
    print(f"devices: cpu with {torch.get_num_threads()} threads", end="")
    for index in range(torch.cuda.device_count()):
        print(f", cuda:{index} {torch.cuda.get_device_name(index)}", end="")
    print(", mps" if torch.backends.mps.is_available() else "")
    kernels = {"LIF": lif, "event-driven convolution": spike_conv, "event-driven attention": spike_attention}
    for title, kernel in kernels.items():
        print(f"{title} kernels:")
        for name, live, explanation in kernel.status():
            print(f"  {name:10} {'live  ' if live else 'absent'}  {explanation}")
    print("extras:")
    requirements = [Requirement(text) for text in importlib.metadata.requires("spikeformers") or []]
    for extra in importlib.metadata.metadata("spikeformers").get_all("Provides-Extra") or []:
        needs = [r.name for r in requirements if r.marker and r.marker.evaluate({"extra": extra})]
        missing = [name for name in needs if not _installed(name)]
        print(f"  {extra:10} " + (f"absent  pip install 'spikeformers[{extra}]'" if missing else "present"))


def import_(argv):
    """Convert a published checkpoint to safetensors with a JSON config beside it."""
    parser = _Parser(prog="spikeformers import", description=import_.__doc__)
    parser.add_argument("checkpoint", help="the published file")
    parser.add_argument("out", help="the .safetensors file to write; its config goes beside it as .json")
    parser.add_argument("--model", metavar="NAME", help="the model's name (default: the only one that the weights fit)")
    parser.epilog = "Further --KEY VALUE options go to the model's constructor, such as --time_steps 4."
    args, rest = parser.parse_known_args(argv)
    keys, values = rest[::2], rest[1::2]
    if len(keys) != len(values) or not all(key.startswith("--") for key in keys):
        raise ValueError(f"cannot read {shlex.join(rest)}; options of the model look like --time_steps 4")

    from .models import import_checkpoint

    options = {key[2:]: _literal(value) for key, value in zip(keys, values, strict=True)}
    parameters = inspect.signature(import_checkpoint).parameters
    if taken := [key for key in options if key in parameters]:
        raise ValueError(f"--{taken[0]} is no option of a model; the files come first: spikeformers import CHECKPOINT OUT [--model NAME]")
    with fitting(f"the model does not take {shown(options)}"):
        report = import_checkpoint(args.checkpoint, args.out, args.model, **options)
    print(report)
    print(f"wrote {args.out} and {Path(args.out).with_suffix('.json')}")


def shard(argv):
    """Pack image folders into WebDataset shards, for data sets of ImageNet's size."""
    parser = _Parser(prog="spikeformers shard", description=shard.__doc__)
    parser.add_argument("folder", help="images in FOLDER/train/CLASS/* and FOLDER/val/CLASS/*")
    parser.add_argument("out", help="where the shards go; train on them with --data.name webdataset --data.root OUT")
    parser.add_argument("--images", type=int, default=1000, help="images per shard (default: 1000)")
    args = parser.parse_args(argv)

    from .data.images import ImageFolders
    from .data.shards import write_shards

    for split in ("train", "val"):
        source = ImageFolders(Path(args.folder), split)
        paths = [Path(source.where(index)) for index in range(len(source))]
        shards = write_shards(source, Path(args.out), split, images_per_shard=args.images, paths=paths)
        print(f"{len(source):,} images in {len(shards)} shards: {shards[0]} ...")


VERBS = {
    "train": train,
    "eval": evaluate,
    "profile": profile,
    "compare": compare,
    "convert": convert,
    "predict": predict,
    "list": list_,
    "import": import_,
    "shard": shard,
    "doctor": doctor,
}


@contextlib.contextmanager
def _plain_warnings():
    """Warnings as one line for people, without the line of code that they come from."""

    def show(message, *_, **__):
        print(f"spikeformers: warning: {' '.join(str(message).split())}", file=sys.stderr)

    before, warnings.showwarning = warnings.showwarning, show  # Lightning replaces the formatter
    try:
        yield
    finally:
        warnings.showwarning = before


def _with_recipe_of_the_run(argv):
    """The options of `train --resume --run_dir FOLDER`, which need no recipe: that of the run lies in its folder."""
    options = [option.partition("=")[0] for option in argv]
    if "--resume" not in options or "--run_dir" not in options or {"--config", "--model.name"} & set(options):
        return argv
    place = options.index("--run_dir")
    folder = argv[place].partition("=")[2] or "".join(argv[place + 1 : place + 2])
    recipe = Path(folder) / "config.yaml"
    return ["--config", str(recipe), *argv] if recipe.is_file() else argv


def _given(argv, option):
    """The values of an option, in order."""
    pairs = [(name.partition("="), value) for name, value in itertools.pairwise([*argv, ""])]
    return [given if equals else value for (name, equals, given), value in pairs if name == option]


def _configs(argv):
    """The recipes that --config names and that are there; of the others the parser will say that they are not."""
    return [Path(value) for value in _given(argv, "--config") if Path(value).exists()]


def _read_recipe(path):
    """The content of a recipe's file: dicts of options."""
    from .training.recipe import must_be_a_recipe

    content = _yaml(path)
    try:
        must_be_a_recipe({} if content is None else content)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return content or {}


LARGEST_RECIPE = 2**20  # bytes


def _yaml(path):
    """What a YAML file holds."""
    if not path.is_file():
        raise ValueError(f"{path} is no file; give a YAML file such as recipes/digits.yaml")
    if path.stat().st_size > LARGEST_RECIPE:
        raise ValueError(f"{path} is larger than any recipe; give a YAML file such as recipes/digits.yaml")
    try:
        content = yaml.safe_load(read_text(path))
        if _values(content) > 100_000:
            raise ValueError("it repeats itself, by aliases, more than 100,000 times")
    except (yaml.YAMLError, ValueError, RecursionError, TypeError) as error:  # TypeError: lists as keys
        raise ValueError(f"Problems parsing config {path}: {' '.join(str(error).split())[:300]}") from None
    return content


def _values(content, most=100_001):
    """How many values there are inside, up to `most`: a few lines of aliases stand for millions."""
    count, waiting = 0, [content]
    while waiting and count < most:
        value = waiting.pop()
        count += 1
        waiting += value.values() if isinstance(value, dict) else value if isinstance(value, (list, set)) else ()
    return count


def _data_of(argv, known=None):
    """The configuration class of the data set that the options or their recipe name."""
    from .data import data_names, data_type

    named = _given(argv, "--data.name")
    if not named:
        named = [recipe.get("data", {}).get("name") for recipe in map(_read_recipe, _configs(argv))]
    name = next((name for name in reversed(named) if name is not None), known)
    if name is not None and name not in data_names():
        raise ValueError(f"unknown data set {name!r} as data.name; {_meant(name, data_names())}")
    return data_type(name)


def _data_and_options(parser, argv, trained):
    """Parses argv with the options of the data that they or the checkpoint name, the checkpoint's being the defaults: the data's
    configuration and all options."""
    from . import evaluation
    from .data import ImageData

    data_class = _data_of(argv, trained.data and trained.data.name)
    parser.add_class_arguments(data_class, "data")
    if isinstance(trained.data, data_class):
        known = vars(trained.data)
        if "cache" in known and any(option.partition("=")[0] == "--data.root" for option in argv):
            known = {**known, "cache": None}  # beside the data that were asked for
        parser.set_defaults({f"data.{key}": value for key, value in known.items()})
    elif not any(option.startswith("--data.") for option in argv):
        raise ValueError(f"{argv[0]} does not name its images; give --data.name, --data.root and so on")
    guessed = None
    if trained.data is None and data_class is ImageData:
        guessed, said = evaluation.preprocessing(trained.model)
        parser.set_defaults({f"data.{key}": value for key, value in guessed.items()})
    options = _parsed(parser, argv)
    data = data_class(**options["data"])
    if guessed:
        _say_how_images_are_prepared(argv, data, guessed, said, weights=argv[0])
    return data, options


def _profiling_parser(verb, help_):
    """The options of profile and compare, those of the data aside."""
    from jsonargparse import ArgumentParser

    from .measure import Constants

    parser = ArgumentParser(prog=f"spikeformers {verb}", description=help_, exit_on_error=False, allow_abbrev=False)
    many = {"nargs": "+"} if verb == "compare" else {}
    where = ", or folders that `profile --report` wrote" if many else "; with --rates a model's name"
    parser.add_argument("checkpoint", type=str, help=f"best.ckpt, last.ckpt or a .safetensors file{where}", **many)
    parser.add_argument("--preset", type=str, default="exact", help="exact, spikingformer, meta_spikeformer or honest: how energy is counted")
    parser.add_argument("--switches", type=str, default="", help="of the preset, such as repconv=trained,strict=True (docs/energy.md)")
    parser.add_argument("--samples", type=int, default=1000, help="how many test samples, evenly spread; 0 for all")
    parser.add_argument("--time_steps", type=int | list[int] | None, help="T, if not that of the checkpoint; compare takes several")
    parser.add_argument("--rates", type=str | None, help="estimate from these rates: a number, JSON {module: rate} or a profile.json")
    parser.add_argument("--backbone", type=str | None, help="of an estimate for mask_rcnn, faster_rcnn or semantic_fpn by name")
    parser.add_argument("--input_shape", type=list[int] | None, help="of an estimate, if not the model's own, such as [3,224,224]")
    if verb == "profile":
        parser.add_argument(
            "--early_exit",
            type=bool | list[float],
            default=False,
            help="what answers of early classifiers save: true, or confidences at which samples leave, such as [0.5,0.9]",
        )
        parser.add_argument("--event_driven", type=str | None, help=f"also measure the time {EVENT_DRIVEN}")
    parser.add_argument("--mac", type=float | None, help=f"pJ of a multiplication with addition, {Constants.mac} unless the preset says otherwise")
    parser.add_argument("--ac", type=float | None, help=f"pJ of an addition, {Constants.ac} unless the preset says otherwise")
    parser.add_argument("--neuron", type=float | None, help="pJ of one neuron's update at one time step, 0 by default")
    parser.add_argument("--report", type=str | None, help="folder for report.html and the numbers behind it")
    return parser


def _names_and_options(verb, argv):
    """The words in front of the first option, and the rest. Shows the help if that is asked for."""
    _need("train", "jsonargparse")
    count = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
    if {"-h", "--help"} & set(argv):
        parser = _profiling_parser(verb, VERBS[verb].__doc__)
        parser.add_class_arguments(_data_of(argv), "data")
        parser.parse_args(["--help"])
    if not count:
        raise ValueError(f"give the checkpoint first: spikeformers {verb} CKPT, then options such as --report FOLDER")
    return argv[:count], argv[count:]


def _report_folder(options):
    """What --report says, wherever it stands."""
    for option, value in itertools.pairwise([*options, ""]):
        option, equals, given = option.partition("=")
        if option == "--report":
            folder = Path(given if equals else value)
            existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
            if not existing.is_dir() or not os.access(existing, os.W_OK):
                raise ValueError(f"--report {folder} cannot be written: {existing} is no folder that takes files")
            return folder
    return None


def _profiles(verb, help_, name, argv):
    """Yields the profile of a checkpoint, one for each of the --time_steps."""
    from . import evaluation
    from .profiling import Constants, early_exit_curve, estimate, profile

    parser, argv = _profiling_parser(verb, help_), [name, *argv]
    if any(word.partition("=")[0] == "--rates" for word in argv):
        options = _parsed(parser, argv)
        if options["rates"] is None:
            raise ValueError("--rates has no value; give a number, JSON {module: rate} or a profile.json")
    else:
        if not Path(name).exists() and not Path(name).suffix:
            _must_be_a_checkpoint(name)
        trained = evaluation.load_trained(name)
        data, options = _data_and_options(parser, argv, trained)
    steps = options["time_steps"] if isinstance(options["time_steps"], list) else [options["time_steps"]]
    if options["samples"] < 0 or any(T is not None and T < 1 for T in steps):
        raise ValueError("--samples must be at least 0, and --time_steps at least 1")
    if options["input_shape"] is not None and options["rates"] is None:
        raise ValueError("--input_shape is that of an estimate with --rates; measured samples have their own")
    wanted = options.get("early_exit", False)  # an empty list is a mistake, which `early_exit_curve` explains
    if wanted is not False and options["rates"] is not None:
        raise ValueError("--early_exit measures answers, and --rates estimates without data; leave one of them out")
    if options.get("event_driven") and options["rates"] is not None:
        raise ValueError("--event_driven measures time, and --rates estimates without data; leave one of them out")
    answering = None if wanted is False else evaluation.load_trained(name, early_classifiers=True).model
    given = {name: options[name] for name in ("mac", "ac", "neuron") if options[name] is not None}
    constants = Constants(**given) if given else None
    how = {"preset": options["preset"], "constants": constants, **_switches(options["switches"])}
    for T in steps:
        title = name if T is None else f"{name}, T = {T}"
        if options["rates"] is not None:
            model, shape = _model_to_estimate(name, T, options["backbone"])
            shape = options["input_shape"] or shape
            yield estimate(model, shape, _rates(options["rates"]), title=title, **how)
            continue
        if T is not None and hasattr(data, "time_steps"):
            data.time_steps = T
        elif T is not None:
            for model in filter(None, (trained.model, answering)):
                model.time_steps = T
        samples, batches = _batches(trained, data, options["samples"])
        device = evaluation.best_device()
        points = []
        if answering is not None:
            confidences = {} if wanted is True else {"confidences": wanted}
            points = early_exit_curve(answering.to(device), batches, **confidences, **how)
        model = trained.model.to(device)
        if options.get("event_driven"):
            model = _event_driven(model, data, options["event_driven"], batches)
        result = profile(model, batches, classes=samples.classes, title=title, **how)
        result.data, result.checkpoint, result.early_exit = data.name, name, points
        if samples.left_out:
            print(f"left out     {samples.left_out}")
        yield result


def _must_be_a_checkpoint(name):
    from . import list_models, list_tasks
    from .models.shipped import find_shipped

    if find_shipped(name):
        return
    if name in [*list_models(), *list_tasks()]:
        raise ValueError(f"{name} is a model without trained weights; give a checkpoint of it, or --rates 0.2 for an estimate")
    raise ValueError(f"there is no checkpoint {name}, and no model of that name (spikeformers list shows all)")


def _batches(trained, data, limit):
    """The test samples, and batches of up to `limit` of them, evenly spread since they lie class by class."""
    from torch.utils.data import Subset

    from .evaluation import find_task, test_samples

    samples = test_samples(trained, data)
    step = max(1, len(samples) // limit) if limit else 1
    places = list(range(0, len(samples), step)[: limit or None])
    random.Random(0).shuffle(places)  # so that the first batch, of which pictures are shown, holds several classes
    return samples, find_task(data.task).batches(Subset(samples, places), data)


def _model_to_estimate(name, time_steps, backbone=None):
    """A checkpoint's model or a new one, and the shape of its samples: what it was trained on, or as its configuration says."""
    from .evaluation import load_trained
    from .models import create_model

    if Path(name).exists() or name.endswith((".ckpt", ".safetensors")):
        trained = load_trained(name)
        model, shape = trained.model, trained.data and list(trained.data.shape)
        model.time_steps = time_steps or model.time_steps
        if shape:
            return model, [time_steps or shape[0], *shape[1:]] if len(shape) == 4 else shape
    else:
        options = {"time_steps": time_steps, "backbone": backbone}
        model = create_model(name, **{key: value for key, value in options.items() if value})
    shape = list(model.pretrained_cfg["input_size"])
    return model, [model.time_steps, *shape] if shape[0] == 2 else shape  # event cameras give sequences


def _rates(text):
    """Firing rates by module name from the command line."""
    with contextlib.suppress(ValueError):
        return {"": float(text)}
    rates = _json(Path(text), "firing rates {module: rate} or a profile.json")
    if "layers" in rates:
        from .profiling import read_profile

        rates = read_profile(Path(text))
        rows = [row for row in rates["layers"] if row["kind"] == "binary" and not row["type"].startswith(("SDSA", "matmul", "product"))]
        return {row["name"]: row["rate"] for row in [*rates["neurons"], *rows] if row["rate"] is not None}
    if found := misfit(rates, dict[str, float]):
        raise ValueError(f"{text} does not hold firing rates: rates{found}")
    return rates


def _switches(text):
    from .profiling.energy import SWITCHES

    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if any(not equals for _, equals, _ in pairs):
        raise ValueError(f"--switches is {shown(text)}; write them as repconv=trained,strict=True")
    known = sorted({name for switches in SWITCHES.values() for name in switches})
    switches = {}
    for key, _, value in pairs:
        if key.strip() not in known:
            raise ValueError(f"--switches names {shown(key.strip())}; there are {', '.join(known)}")
        try:
            switches[key.strip()] = yaml.safe_load(value)
        except (yaml.YAMLError, ValueError, RecursionError):
            raise ValueError(f"--switches gives {key.strip()} the value {shown(value)}; write them as repconv=trained,strict=True") from None
    return switches


def _json(path, what):
    """A JSON object from a file."""
    import json

    try:
        content = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot read {path} as {what} ({error})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} does not hold {what}")
    return content


def _need(extra, *modules):
    missing = [name for name in modules if not importlib.util.find_spec(name)]
    if missing:
        raise ValueError(f"this needs {', '.join(missing)}, not installed: pip install 'spikeformers[{extra}]'")


def _installed(distribution):
    try:
        return bool(importlib.metadata.version(distribution))
    except importlib.metadata.PackageNotFoundError:
        return False


def _literal(text):
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    return text if misfit(value, Any) else value


def _parsed(parser, argv):
    """The parsed options as nested dicts; jsonargparse's complaints become one ValueError that says what to do."""
    try:
        return parser.parse_args(argv).as_dict()
    except argparse.ArgumentError as error:
        message = str(error)
    except Exception as error:  # it only reads what was written, so whatever it raises is about that
        reason = " ".join(str(error).split())[:300]
        raise ValueError(f"the options cannot be read: {type(error).__name__}: {reason} ({parser.prog} --help explains)") from error
    known = [option for action in parser._actions for option in action.option_strings]
    help_ = f"({parser.prog} --help explains)"
    if found := re.match(r"unrecognized arguments: (\S+)", message):
        raise ValueError(f"unknown option {found[1]}; {_meant(found[1], known)} {help_}")
    if found := re.search(r"Group '(.+)' does not accept option '(.+)'", message):
        key = f"--{found[1]}.{found[2]}"
        raise ValueError(f"unknown key {key[2:]}; {_meant(key, known)} {help_}")
    if found := re.match(r"Option '(.+)' is not accepted", message):
        raise ValueError(f"unknown key {found[1]}; {_meant('--' + found[1], known)} {help_}")
    if "required: model.name" in message:
        raise ValueError(
            "which model? give a recipe, such as --config recipes/digits.yaml, or --model.name NAME; to continue a run "
            "without naming its recipe, give --resume --run_dir FOLDER"
        )
    message = re.sub(r"<class '(\w+)'>", r"\1", message.replace("typing.", ""))
    raise ValueError(re.sub(r'Parser key "(.*)":', r"option \1:", message) + f" {help_}")


def _meant(given, known):
    """The names most like what was given; --epochs is like --training.epochs."""
    tails = [name for name in known if name.rpartition(".")[2] == given.lstrip("-")]
    close = tails or difflib.get_close_matches(given, known, 3)
    return f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(known)}"
