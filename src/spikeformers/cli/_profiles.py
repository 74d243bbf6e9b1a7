"""Profiles of checkpoints, measured or estimated as the options of `profile` and `compare` say."""

import contextlib
import random
from pathlib import Path

from .._files import read_text
from .._options import misfit, shown
from ._data import data_and_options, event_driven_model, must_be_there, shipped_names
from ._parser import Call
from ._values import values_of


def profiles(call: Call, name: str):
    """Yields the profile of a checkpoint, one for each of the --time_steps.

    Args:
        call: the words.
        name: of the checkpoint.

    Raises:
        ValueError: options contradict each other, or there is no such checkpoint.
    """
    from .. import evaluation
    from ..profiling import Constants, early_exit_curve, estimate, profile

    if "rates" in call:
        options = values_of(call)
        if options["rates"] is None:
            raise ValueError("--rates has no value; give a number, JSON {module: rate} or a profile.json")
    else:
        trained = evaluation.load_trained(name)
        data, options = data_and_options(call, name, trained)
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
            model = event_driven_model(model, data, options["event_driven"], batches)
        result = profile(model, batches, classes=trained.classes or samples.classes, title=title, **how)
        result.data, result.checkpoint, result.early_exit = data.name, name, points
        if samples.left_out:
            print(f"left out     {samples.left_out}")
        yield result


def must_be_a_checkpoint(name: str) -> None:
    """
    Raises:
        ValueError: it is no file that is there, and nothing by that name ships; whether it is a model's name is said.
    """
    if Path(name).suffix:
        must_be_there(name)
    if Path(name).exists() or name in shipped_names():
        return

    from .. import list_models, list_tasks

    if name in [*list_models(), *list_tasks()]:
        raise ValueError(
            f"{name} is a model without trained weights; give a checkpoint of it, or --rates 0.2 for an estimate"
        )
    raise ValueError(f"there is no checkpoint {name}, and no model of that name (spikeformers list shows all)")


def _batches(trained, data, limit):
    """The test samples, and batches of up to `limit` of them, evenly spread since they lie class by class."""
    from torch.utils.data import Subset

    from ..evaluation import find_task, samples_to_measure

    samples = samples_to_measure(trained, data)
    step = max(1, len(samples) // limit) if limit else 1
    places = list(range(0, len(samples), step)[: limit or None])
    random.Random(0).shuffle(places)  # so that the first batch, of which pictures are shown, holds several classes
    return samples, find_task(data.task).batches(Subset(samples, places), data)


def _model_to_estimate(name, time_steps, backbone=None):
    """A checkpoint's model or a new one, and the shape of its samples: what it was trained on, or as its configuration says."""
    from ..evaluation import load_trained
    from ..models import create_model

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
        from ..profiling import read_profile

        rates = read_profile(Path(text))
        rows = [
            row
            for row in rates["layers"]
            if row["kind"] == "binary" and not row["type"].startswith(("SDSA", "matmul", "product"))
        ]
        return {row["name"]: row["rate"] for row in [*rates["neurons"], *rows] if row["rate"] is not None}
    if found := misfit(rates, dict[str, float]):
        raise ValueError(f"{text} does not hold firing rates: rates{found}")
    return rates


def _switches(text):
    import yaml

    from ..profiling.energy import SWITCHES

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
            raise ValueError(
                f"--switches gives {key.strip()} the value {shown(value)}; write them as repconv=trained,strict=True"
            ) from None
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
