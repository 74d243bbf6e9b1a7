"""Heterogeneous time steps for any staged backbone: SSNN (AAAI 2024, arXiv 2401.01912)."""

import copy
from collections.abc import Sequence

from ..models._backbone import SpikingBackbone


def shrink(
    model: SpikingBackbone, time_steps: Sequence[int], *, temporal: str = "softmax", early_classifiers: bool | str = False
) -> SpikingBackbone:
    """A copy of the model whose stages run for fewer and fewer time steps.

    Where the stages are is what the model declares in `feature_info`. Between two stages of different length sits a
    `layers.TimestepShrink`, which is new and has to be trained; the weights of the model are kept.

    Args:
        model: any backbone of the registry; it is left as it is.
        time_steps: T of each stage, such as (8, 6, 4, 2): as many as there are stages, never growing. An input needs the first
            number of frames; a static image is shown as often.
        temporal: "softmax", the paper's temporal transformer, or "sum", which sums groups of frames and has no parameters.
        early_classifiers: True for a classifier behind every stage but the last, "shared" for one that all stages share. They answer
            in train mode only (`forward` then returns logits and a list of theirs), and are in no saved or merged model.

    Returns:
        The new model, in the mode of the old one.

    Raises:
        ValueError: the schedule does not fit the stages, which the message shows.
    """
    if not isinstance(model, SpikingBackbone):
        raise ValueError(f"a {type(model).__name__} declares no stages; give a backbone of spikeformers.list_models()")
    if early_classifiers not in (False, True, "shared"):
        raise ValueError(f"early_classifiers must be True, False or 'shared', not {early_classifiers!r}")
    shrunk = copy.deepcopy(model)
    shrunk.set_schedule(time_steps, temporal)
    if early_classifiers:
        shrunk.add_early_classifiers(shared=early_classifiers == "shared")
    return shrunk.train(model.training)


def average_timestep(model: SpikingBackbone) -> float:
    """T_avg = sum of n_i T_i / sum of n_i over the stages, n_i being their layers of convolution and neurons (SSNN, section 3).

    The classifier is left out. A model that was not shrunk has its T.
    """
    schedule = model.schedule or [model.time_steps] * len(model.stages)
    units = model.units()
    return sum(n * steps for n, steps in zip(units, schedule, strict=True)) / sum(units)
