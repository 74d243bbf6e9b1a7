"""Models from disk: weights as safetensors, and beside them the JSON that makes the model again and says how it wants its input."""

from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from ._input import checked_input, describe, known_input
from ._reading import header, read_json
from ._state_dict import bad_values


def from_checkpoint(create, name: str | None, path: Path, given: dict) -> nn.Module:
    """What `create_model` makes of a checkpoint.

    Args:
        create: makes a model from an architecture's name and its options.
        name: of the architecture that is expected, or None.
        path: the .safetensors file.
        given: options that overrule the file's.

    Raises:
        ValueError: no such file, another architecture than expected, options that do not exist, or weights that do
            not fit.
    """
    if path.suffix != ".safetensors":
        raise ValueError(
            f"{path} is not a .safetensors file; a checkpoint of `spikeformers train` is read by spikeformers.evaluation.load_trained, "
            f"and published weights are converted with: spikeformers import {path} OUT.safetensors"
        )
    for file in (path, configuration_of(path)):
        if not file.is_file():
            raise ValueError(
                f"there is no file {file}; a checkpoint is a .safetensors file with a .json file of the same name"
            )
    architecture, options, known = read_configuration(path)
    if name not in (None, architecture):
        raise ValueError(f"{path} holds a {architecture}, not a {name}")
    shapes, metadata = header(path)
    known |= known_input(metadata, path)
    options |= given
    wrong = f"{path} does not fit {architecture} with the options given"
    own = planned(create, architecture, options, configuration_of(path), shapes, wrong, given).state_dict()
    state = read_values(path, own)
    model = create(architecture, **options)
    model.load_state_dict(state)
    describe(model, known, path)
    return model


def configuration_of(path: Path) -> Path:
    """The JSON file beside the weights."""
    return path.with_suffix(".json")


def read_configuration(path: Path) -> tuple[str, dict, dict]:
    """Architecture, its options, and what the model says of its input, from the file beside the weights.

    Nothing in that file can name other files or reach for anything: those are options of `create_model`, not of a model.

    Raises:
        ValueError: the file is damaged or describes something else.
    """
    file = configuration_of(path)
    config = read_json(file)
    architecture, known = config.pop("architecture", None), config.pop("pretrained_cfg", {})
    if not isinstance(architecture, str):
        raise ValueError(f"{file} names no architecture, so it is not a configuration of spikeformers")
    check_options(config, file)
    return architecture, config, checked_input(known, file)


def check_options(options: Mapping, where: object) -> None:
    """Refuses options from a file that would make `create_model` read other files.

    Raises:
        ValueError: there are some; the message names the file.
    """
    for each in (options, options.get("backbone_kwargs")):
        if isinstance(each, Mapping) and (strange := {"pretrained", "checkpoint", "pretrained_cfg"} & each.keys()):
            raise ValueError(f"{where} has the entries {', '.join(sorted(strange))}, which are no options of a model")


def check_blocks(options: Mapping, tensors: int, words: str) -> None:
    """Refuses more blocks than there are tensors, since making them takes time even without memory.

    Args:
        options: of a model, and under `backbone_kwargs` of its backbone.
        tensors: in the file of its weights.
        words: begin the message.

    Raises:
        ValueError: there are more.
    """
    for each in (options, options.get("backbone_kwargs")):
        for key in ("depth", "depths", "layers", "num_layers", "num_hidden_layers"):
            depths = each.get(key) if isinstance(each, Mapping) else None
            blocks = sum(n for n in (depths if isinstance(depths, (list, tuple)) else [depths]) if isinstance(n, int))
            if blocks > tensors:
                raise ValueError(f"{words}: it says {blocks:,} blocks, and there are {tensors:,} tensors")


def planned(
    create,
    architecture: str,
    options: dict,
    where: object,
    shapes: Mapping[str, list[int]],
    wrong: str,
    given: Mapping = {},
    prepare=None,
) -> nn.Module:
    """The model that a file describes, on the meta device, once its weights are known to fit it.

    Args:
        create: makes a model from an architecture's name and its options.
        architecture: its name.
        options: of it.
        where: the file that says so.
        shapes: of the weights by name.
        wrong: begins the message where they do not fit.
        given: options that are not the file's.
        prepare: what else is done to the model.

    Raises:
        ValueError: no model can be made of these options, or the weights do not fit it.
    """
    model = on_paper(create, architecture, options, where, given, len(shapes))
    if prepare is not None:
        with torch.device("meta"):
            prepare(model)
    must_fit(differences(shapes, model), wrong)
    return model


def on_paper(create, architecture: str, options: dict, where: object, given: Mapping, tensors: int) -> nn.Module:
    """The model on the meta device, where it takes no memory whatever its sizes are.

    Args:
        create: makes a model from an architecture's name and its options.
        architecture: its name.
        options: of it.
        where: the file that says so.
        given: options that are not the file's.
        tensors: in the file of its weights.

    Raises:
        ValueError: no model can be made of these options.
    """
    words = f"no model can be made of {where}" + (f" with {', '.join(given)}" if given else "")
    check_blocks(options, tensors, words)
    try:
        with torch.device("meta"):
            return create(architecture, **options)
    except ValueError as error:
        raise ValueError(f"{words}: {error}") from None
    except Exception as error:  # sizes that torch cannot count in, options of torchvision that fit no other
        raise ValueError(f"{words} ({type(error).__name__}: {str(error)[:200]})") from None


def differences(
    shapes: Mapping[str, list[int]], model: nn.Module, has: str = "in the file", wants: str = "in the model"
) -> list[str]:
    """One line for each tensor that only one side has, or that has another shape there.

    Args:
        shapes: by name.
        model: the other side.
        has, wants: where either is, for the lines.
    """
    own = {name: list(value.shape) for name, value in model.state_dict().items()}
    return [
        f"{name}: {shapes.get(name, 'missing')} {has}, {own.get(name, 'missing')} {wants}"
        for name in sorted(shapes.keys() | own.keys())
        if list(shapes.get(name, ["missing"])) != own.get(name)
    ]


def must_fit(wrong: list[str], words: str, hint: str = "") -> None:
    """Refuses what does not fit.

    Args:
        wrong: one line for each difference, or none.
        words: begin the message.
        hint: ends it.

    Raises:
        ValueError: there are differences.
    """
    if wrong:
        shown = "\n  ".join(wrong[:10] + [f"and {len(wrong) - 10} more"] * (len(wrong) > 10) + [hint] * bool(hint))
        raise ValueError(f"{words}:\n  {shown}")


def read_values(path: Path, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors [...] of a .safetensors file, by name, as weights of a model with the state `own`.

    Raises:
        ValueError: the file is damaged, or holds values that are no weights.
    """
    try:
        state = safetensors.torch.load_file(path)
    except Exception as error:
        raise ValueError(f"{path} is damaged ({error}); write it again with save_model") from None
    check_values(state, own, path)
    return state


def check_values(state: Mapping[str, Tensor], own: Mapping[str, Tensor], path: Path) -> None:
    """Refuses what no weights of a model with the state `own` are, such as values that are not finite.

    Args:
        state: tensors [...] by name, from the file.
        own: those of the model.
        path: the file, for the message.

    Raises:
        ValueError: there are some; the message names them.
    """
    must_fit(bad_values(state, own), f"{path} holds values that are no weights")
