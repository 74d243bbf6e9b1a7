"""`spikeformers list`."""

import fnmatch

from ._parser import Call
from ._recipes import headline, shipped_recipes
from ._verb import Argument, Verb


def list_(call: Call):
    """List the models' names, and those of networks around them; all or those that match a pattern such as 'meta*'."""
    pattern = call.args["pattern"]
    if call.args["pretrained"]:
        print(_shipped_table(pattern))
        return

    if call.args["recipes"]:
        print(_recipe_table(pattern))
        return

    from .. import list_models, list_tasks

    names = list_models(pattern) + fnmatch.filter(list_tasks(), pattern)
    if not names:
        raise ValueError(f"no model matches {pattern!r}; spikeformers list shows all")
    print("\n".join(names))


def _shipped_table(pattern):
    """What ships, a line each."""
    from ..models.shipped import shipped

    chosen = {
        key: entry
        for key, entry in shipped().items()
        if fnmatch.fnmatch(key, pattern) or fnmatch.fnmatch(key.partition(".")[0], pattern)
    }
    if not shipped():
        raise ValueError(
            "no weights ship with this installation; train a model, or load a file with create_model(checkpoint=...)"
        )
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
    return "\n".join(
        [
            *lines,
            "accuracy of the official test samples; milliseconds: one image, one thread, see index.json beside the weights",
        ]
    )


def _recipe_table(pattern):
    """The recipes that are installed, a line each, and where they lie."""
    chosen = {name: path for name, path in shipped_recipes().items() if fnmatch.fnmatch(name, pattern)}
    if not chosen:
        raise ValueError(f"no recipe matches {pattern!r}; spikeformers list --recipes shows all")
    width = max(map(len, chosen))
    lines = [f"{name:{width}}  {headline(path)}" for name, path in chosen.items()]
    return "\n".join(
        [*lines, f"train one with: spikeformers train --config NAME; files: {next(iter(chosen.values())).parent}"]
    )


LIST = Verb(
    "list",
    list_,
    arguments=(
        Argument("pattern", "shell pattern (default: *)", nargs="?", default="*"),
        Argument(
            "--pretrained", "those whose trained weights ship with this library, and what they are", action="store_true"
        ),
        Argument(
            "--recipes", "the recipes that are installed with this library, for train --config", action="store_true"
        ),
    ),
)
