"""Energy from firing rates that are given: nothing is run."""

import copy
import difflib
import re
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from .._options import LARGEST_SIZE, fitting, shown
from ..measure import Constants, Recorder, record
from ..models._published_names import module_name
from .energy import account
from .result import Profile, counts_of


def estimate(
    model: nn.Module,
    input_shape: Sequence[int],
    rates: Mapping[str, float] | float,
    preset: str = "exact",
    *,
    constants: Constants | None = None,
    title: str | None = None,
    **switches,
) -> Profile:
    """What `profile` would say if the firing rates were these: nothing is run.

    Args:
        model: the model; its weights do not matter.
        input_shape: of a sample: [C, H, W], or [T, C, H, W] for sequences.
        rates: one for everything, or the mean of the input of operations, and of the output of neurons, in [0, 1] by module name. A rate holds for all that is
            inside a module unless a longer name says otherwise; "" is the whole model. Names of published logs, such as
            block[0].attn.q_conv, are understood. Layers that read no spikes need none.
        preset, constants, title, switches: as for `profile`.

    Raises:
        ValueError: a rate is missing or out of range, or belongs to nothing; or as for `profile`.
    """
    if isinstance(rates, (int, float)):
        rates = {"": rates}
    if len(input_shape) not in (3, 4) or not all(
        isinstance(size, int) and 1 <= size <= LARGEST_SIZE for size in input_shape
    ):
        raise ValueError(
            f"input_shape must be [C, H, W] or [T, C, H, W] with whole numbers from 1 to {LARGEST_SIZE:,}, not {shown(list(input_shape))}"
        )
    skeleton = copy.deepcopy(model).to("meta")
    channels = input_shape[-3:]
    x = torch.empty((1, *channels) if len(input_shape) == 3 else (input_shape[0], 1, *channels), device="meta")
    with fitting(f"the model does not take samples of {list(input_shape)}"):
        recorder = record(skeleton, [x])
    known = _named(model, recorder, rates)

    def rate_of(name: str) -> float | None:
        parts = name.split(".")
        wanted = (".".join(parts[:length]) for length in range(len(parts), -1, -1))
        return next((known[prefix] for prefix in wanted if prefix in known), None)

    def assumed(operation, operand) -> float:
        names = (
            [operation.module, operand.neuron] if operation.category in ("convolution", "linear") else [operand.neuron]
        )
        found = next((rate for name in names if name and (rate := rate_of(name)) is not None), rate_of(""))
        if found is None:
            missing = (
                " or ".join(filter(None, names)) or f"what {operation.module or 'the model'} reads ({operation.name})"
            )
            raise ValueError(f"the firing rate of {missing} is missing; give it, or one for a module around it")
        return found

    counts = counts_of(model, recorder, {name: rate_of(name) for name in recorder.neurons}, assumed)
    for operation in counts.weighted[:1]:  # an input of spikes, if its rate is given by name
        if any(operation.module == name or operation.module.startswith(f"{name}.") for name in known if name):
            operation.data[0].kind = "binary"
    name = title or getattr(model, "config", {}).get("architecture", type(model).__name__)
    chosen = account(counts, preset, constants, **switches)
    return Profile(name, counts, chosen, 0, tuple(input_shape), constants=constants, outputs=recorder.outputs)


def _named(model: nn.Module, recorder: Recorder, rates: Mapping[str, float]) -> dict[str, float]:
    """Rates by our names, checked."""
    modules = dict(model.named_modules())
    known = {}
    for name, rate in rates.items():
        if not isinstance(rate, (int, float)) or not 0 <= rate <= 1:
            raise ValueError(
                f"the rate of {name!r} is {rate}; rates are shares in [0, 1], so divide percentages by 100"
            )
        ours = name if name in modules else module_name(model, re.sub(r"\[(\d+)\]", r".\1", name))
        if ours not in modules:
            close = difflib.get_close_matches(name, modules, n=3)
            raise ValueError(
                f"a rate is given for {name!r}, which is no module of the model"
                + f"; did you mean {', '.join(close)}?" * bool(close)
            )
        known[ours] = float(rate)
    return known
