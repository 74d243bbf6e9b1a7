"""`spikeformers train`."""

import shlex
import signal
from pathlib import Path

from ._data import data_class
from ._parser import Call
from ._recipes import must_be_recipes, shipped_recipes
from ._values import values_of
from ._verb import FILE, FOLDER, Argument, FilesOr, Section, Verb, data_section


def train(call: Call):
    """Train a model from a recipe, or continue an interrupted run with --resume."""
    from ..training.recipe import Recipe

    call = _with_recipe_of_the_run(call)
    must_be_recipes(call.recipes)
    options = values_of(call, data_class(call))
    options["data"]["strict"] |= options["strict"]
    recipe = Recipe.from_dict(
        {section: options[section] for section in ("model", "data", "training", "trainer", "seed")}
    )
    name = Path(str(options["config"][-1])).stem if options["config"] else recipe.model.name

    from ..training.run import as_text, train as run

    try:
        summary = run(recipe, options["run_dir"], runs=Path("runs") / name, resume=options["resume"])
    except KeyboardInterrupt as error:
        if not str(error):  # another process than the first
            raise
        raise stopped(call, error, f"{error}") from None
    if summary:
        print(as_text(summary))


def stopped(call: Call, error: KeyboardInterrupt, what: str) -> KeyboardInterrupt:
    """What ended a run, with the command that continues it.

    Args:
        call: the words that began it.
        error: the interruption.
        what: was kept.
    """
    again = shlex.join(["spikeformers", call.verb.name, *call.argv, *([] if "resume" in call else ["--resume"])])
    told = KeyboardInterrupt(f"{what}; continue with: {again}")
    told.signal = getattr(error, "signal", signal.SIGINT)
    return told


def _with_recipe_of_the_run(call):
    """`train --resume --run_dir FOLDER` needs no recipe: that of the run lies in its folder."""
    if not {"resume", "run_dir"} <= call.args.keys() or {"config", "model.name"} & call.args.keys():
        return call
    recipe = Path(call.values("run_dir")[-1]) / "config.yaml"
    return call.preceded_by("--config", str(recipe)) if recipe.is_file() else call


def models() -> list[str]:
    """All names that can be trained."""
    from .. import list_models, list_tasks

    return [*list_models(), *list_tasks()]


def recipes() -> FilesOr:
    """What completion offers for a recipe."""
    return FilesOr(tuple(shipped_recipes()))


TRAIN = Verb(
    "train",
    train,
    arguments=(
        Argument(
            "--config",
            "the recipe: a YAML file, or the name of one that ships, such as digits",
            action="config",
            values=recipes,
        ),
        Argument(
            "--run_dir", "the run's folder (default: the next of runs/RECIPE/1, 2, ...)", type=str | None, values=FOLDER
        ),
        Argument("--resume", "continue the newest unfinished run, or that in --run_dir", action="store_true"),
        Argument("--strict", "stop at a sample that cannot be read; short for --data.strict true", action="store_true"),
        Argument("--seed", "decides everything random; the same seed gives the same result", type=int, default=0),
    ),
    sections=(
        Section("model", ("training.recipe:Model",), values={"name": models, "weights": FILE}),
        data_section(),
        Section("training", ("training.recipe:Training",), values={"teacher_weights": FILE}),
        Section("trainer", ("training.recipe:Machine",)),
    ),
    needs=("train", "lightning", "jsonargparse", "tensorboard"),
)
