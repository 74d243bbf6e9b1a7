"""The data that a command is about: named by its options, by their recipe or by a checkpoint."""

import json
import warnings
from pathlib import Path

from ._fields import PACKAGE
from ._parser import Call
from ._values import values_of
from ._verb import FilesOr

EVENT_DRIVEN = "on the CPU, adding weights only where spikes are: float32, bfloat16 or int8, how weights are kept"
CHECKPOINT = "best.ckpt, last.ckpt, a .safetensors file with its .json, or a name of `spikeformers list --pretrained`"


def shipped_names() -> list[str]:
    """The names of `spikeformers list --pretrained`, found without torch, with and without what comes after the dot."""
    index = PACKAGE / "weights" / "index.json"
    names = json.loads(index.read_text(encoding="utf-8")) if index.is_file() else {}
    return list(dict.fromkeys([*names, *(name.partition(".")[0] for name in names)]))


def checkpoints() -> FilesOr:
    """What completion offers for a checkpoint."""
    return FilesOr(tuple(shipped_names()))


def must_be_there(checkpoint: str) -> None:
    """Says that a file is missing before anything heavy is imported.

    Raises:
        ValueError: there is no such file, and nothing by that name ships.
    """
    if not Path(checkpoint).exists() and checkpoint not in shipped_names():
        raise ValueError(
            f"no checkpoint {Path(checkpoint)}; training leaves best.ckpt and last.ckpt in its run folder, conversion converted.safetensors"
        )


def data_class(call: Call, known: str | None = None) -> type:
    """The configuration class of the data set that the options or their recipe name, or else of the one that is known."""
    from ..data import data_type

    recipes = (content.get("data", {}).get("name") for content in call.recipes.values() if content)
    named = call.values("data.name") or [name for name in recipes if name is not None]
    return data_type(named[-1] if named else known)


def data_and_options(call: Call, checkpoint: str, trained):
    """The data's configuration and all options, the checkpoint's being the defaults.

    Args:
        call: the words.
        checkpoint: the name of the file.
        trained: what it holds, from `load_trained`.

    Raises:
        ValueError: neither names the data, or an option has no such value.
    """
    from .. import evaluation
    from ..data import ImageData

    kind, given, defaults = data_class(call, trained.data and trained.data.name), call.given("data"), {}
    if isinstance(trained.data, kind):
        defaults = dict(vars(trained.data))
        if "cache" in defaults and "root" in given:
            defaults["cache"] = None  # beside the data that were asked for
    elif not given:
        raise ValueError(f"{checkpoint} does not name its images; give --data.name, --data.root and so on")
    guessed = None
    if trained.data is None and kind is ImageData:
        guessed, said = evaluation.preprocessing(trained.model)
        defaults = guessed
    options = values_of(call, kind, {f"data.{key}": value for key, value in defaults.items()})
    data = kind(**options["data"])
    if guessed:
        say_how_images_are_prepared(given, data, guessed, said, weights=checkpoint)
    return data, options


def say_how_images_are_prepared(given, data, settings, said, weights=None):
    """Prints it with where it comes from, since a network that sees images in another way than in training answers badly, and nothing
    else shows it. A warning where weights come without a description.

    Args:
        given: names of the options of data that were given.
        data: the configuration.
        settings: options that the network's library or a file says.
        said: who says them.
        weights: their file.
    """
    from ..evaluation import prepared_text

    by_option = [key for key in settings if key in given]
    rest = [key for key in settings if key not in by_option]
    origin = [f"{', '.join(by_option)} as given"] * bool(by_option) + [f"{', '.join(rest)} {said}"] * bool(rest)
    text = f"images are prepared as {prepared_text(data)} ({'; '.join(origin)})"
    if weights is not None and {"mean", "std", "crop_pct", "img_size"} & set(rest) and "config.json" not in said:
        warnings.warn(
            f"{text}: a guess, since {weights} does not say; give {', '.join(f'--data.{key}' for key in rest)}",
            stacklevel=2,
        )
    else:
        print(text, flush=True)


def event_driven_model(model, data, precision, batches):
    """The model for event-driven inference, calibrated on the first of the batches.

    Args:
        model: a classifier.
        data: the configuration of what it classifies.
        precision: how weights are kept.
        batches: of samples.

    Raises:
        ValueError: it is no classifier.
    """
    from ..evaluation import find_task
    from ..transforms import event_driven

    if not find_task(data.task).event_driven:
        raise ValueError(f"--event_driven takes classifiers, and the data {data.name} are for {data.task}")
    return event_driven(model.cpu(), next(iter(batches))[0], precision=precision)
