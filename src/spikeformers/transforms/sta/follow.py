"""Whether a network can be followed: everything that it computes must be seen by `Rate`."""

from collections import Counter
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from .converted import Converted
from .rates import plain


def follow(converted: Converted, answer: Any, args: tuple, kwargs: dict) -> None:
    """Refuses a network that computes with what varies where `Rate` does not see it: scripted or vectorised functions, NumPy, tensors
    made of tensors, writes into memory that others read.

    Two different inputs pass in both forms, without rounding. A module that computes past `Rate` is not told whether its input is a sum
    over time or a mean, so the two forms of its answer differ.

    Args:
        converted: the network, without thresholds.
        answer: to these inputs, without rounding; it must be the network's own.
        args, kwargs: the inputs.

    Raises:
        ValueError: something is not seen; the message names the module.
    """
    with torch.no_grad():
        exact = _first_tensor(converted.model(*args, **kwargs))
    answer = _first_tensor(answer)
    if exact is not None and not (answer is not None and answer.shape == exact.shape and _close(exact, answer)):
        raise ValueError(
            "the network answers otherwise when its tensors are replaced by rates: something in it writes into memory that others read, "
            "or asks for the type of its input; write it without changes in place"
        )
    means, mean_answer = _outputs(converted, "means", args, kwargs)
    spikes, spikes_answer = _outputs(converted, "spikes", args, kwargs)
    pairs = [(name, mean, spikes.get((name, call))) for (name, call), mean in means.items()]
    for name, mean, spike in [*pairs, ("", mean_answer, spikes_answer)]:
        if spike is not None and mean.shape == spike.shape and not _close(mean, spike):
            raise ValueError(
                f"{name or 'the model itself'}: what it computes cannot be followed: scripted, compiled or vectorised (vmap) functions, "
                "tensors made of tensors, NumPy and writes into shared memory are not seen; write it in torch functions, or give its class "
                "an adapter (spikeformers.transforms.sta.adapts)"
            )


def _outputs(converted, form, args, kwargs):
    """The mean outputs of all modules, by name and number of the call, and the answer, after a step with these inputs and one with
    others."""
    state, outputs, calls = converted.start(form), {}, Counter()

    def seen(module, _, output):
        tensors = [x for x in tree_leaves(output) if isinstance(x, Tensor) and plain(x).is_floating_point()]
        if tensors:
            name = state.path[-1] if state.path else ""
            calls[state.t, name] += 1
            key = name, calls[state.t, name]
            outputs[key] = plain(tensors[0]) + (outputs.get(key, 0) if form == "spikes" and state.t > 1 else 0)

    hooks = [module.register_forward_hook(seen, prepend=True) for module in converted.model.modules()]
    try:
        for change in (lambda x: x, _another):
            *inputs, named = tree_map(change, (*args, {key: x for key, x in kwargs.items() if "mask" not in key}))
            answer = converted.step(state, *inputs, **kwargs | named)
    finally:
        for hook in hooks:
            hook.remove()
    if form == "spikes":
        outputs = {key: total / 2 for key, total in outputs.items()}
    return outputs, _first_tensor(answer)


def _first_tensor(output):
    return next((x for x in tree_leaves(output) if isinstance(x, Tensor) and x.is_floating_point()), None)


def _another(x):
    """An input that differs from x and is as valid."""
    if not isinstance(x, Tensor):
        return x
    if x.is_floating_point():
        return 0.5 * x
    return x.roll(1, 0) if len(x) > 1 else x.roll(1, -1)


def _close(a, b):
    exact = torch.finfo(a.dtype).bits > 16
    return float((a - b).norm()) <= (2e-3 if exact else 0.2) * float(a.norm()) + torch.finfo(a.dtype).tiny
