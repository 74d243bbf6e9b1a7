"""`spikeformers import`."""

import ast
import shlex
from pathlib import Path
from typing import Any

from .._options import fitting, misfit, shown
from ._parser import Call
from ._verb import FILE, Argument, Verb
from .train import models


def import_(call: Call):
    """Convert a published checkpoint to safetensors with a JSON config beside it."""
    checkpoint, out, model = (call.args[key] for key in ("checkpoint", "out", "model"))
    keys, values = call.rest[::2], call.rest[1::2]
    if len(keys) != len(values) or not all(key.startswith("--") for key in keys):
        raise ValueError(f"cannot read {shlex.join(call.rest)}; options of the model look like --time_steps 4")
    options = {key[2:]: _literal(value) for key, value in zip(keys, values, strict=True)}
    if taken := [key for key in options if key in ("checkpoint", "out", "model")]:
        raise ValueError(
            f"--{taken[0]} is no option of a model; the files come first: spikeformers import CHECKPOINT OUT [--model NAME]"
        )
    if not Path(checkpoint).exists():
        raise ValueError(f"there is no checkpoint {checkpoint}")

    from ..models import import_checkpoint

    with fitting(f"the model does not take {shown(options)}"):
        report = import_checkpoint(checkpoint, out, model, **options)
    print(report)
    print(f"wrote {out} and {Path(out).with_suffix('.json')}")


def _literal(text):
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text
    return text if misfit(value, Any) else value


IMPORT = Verb(
    "import",
    import_,
    arguments=(
        Argument("checkpoint", "the published file", values=FILE),
        Argument("out", "the .safetensors file to write; its config goes beside it as .json", values=FILE),
        Argument(
            "--model", "the model's name (default: the only one that the weights fit)", metavar="NAME", values=models
        ),
    ),
    free="Further --KEY VALUE options go to the model's constructor, such as --time_steps 4.",
)
