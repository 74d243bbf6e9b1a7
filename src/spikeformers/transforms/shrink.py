"""Heterogeneous time steps for any staged backbone: SSNN (AAAI 2024, arXiv 2401.01912)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..layers.hooks import copied
from ..layers.shrink import check_steps
from ..models._backbone import SpikingBackbone


def shrink(
    model: SpikingBackbone,
    time_steps: Sequence[int],
    *,
    temporal: str = "softmax",
    early_classifiers: bool | str = False,
) -> SpikingBackbone:
    """A copy of the model whose stages run for fewer and fewer time steps.

    The model declares its stages in `feature_info`. Between two stages of different length sits a
    `layers.TimestepShrink`, which is new and has to be trained; the weights of the model are kept, but not those of earlier shrinking.

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
    _must_have_stages(model)
    if early_classifiers not in (False, True, "shared"):
        raise ValueError(f"early_classifiers must be True, False or 'shared', not {early_classifiers!r}")
    if isinstance(time_steps, Sequence) and all(isinstance(steps, int) for steps in time_steps):
        check_steps(*time_steps)
    shrunk = copied(model)
    shrunk.set_schedule(time_steps, temporal)
    if early_classifiers:
        shrunk.add_early_classifiers(shared=early_classifiers == "shared")
    for layer in (*shrunk.shrinks.modules(), *shrunk.early.modules()):
        layer.training = model.training
    return shrunk


def _must_have_stages(model):
    if not isinstance(model, SpikingBackbone):
        raise ValueError(f"a {type(model).__name__} declares no stages; give a backbone of spikeformers.list_models()")


def average_timestep(model: SpikingBackbone) -> float:
    """T_avg = sum of n_i T_i / sum of n_i over the stages, n_i being their layers of convolution and neurons (SSNN, section 3).

    The classifier is left out. A model that was not shrunk has its T.
    """
    _must_have_stages(model)
    schedule = model.schedule or [model.time_steps] * len(model.stages)
    units = model.units()
    return sum(n * steps for n, steps in zip(units, schedule, strict=True)) / sum(units)


def stage_timesteps(model: SpikingBackbone) -> list[float]:
    """For every stage, the average time step of the network up to and with it: what a sample costs that leaves there.

    In the same unit as `average_timestep`, which is the last of them: sum of n_i T_i so far over the sum of all n_i.
    """
    schedule = model.schedule or [model.time_steps] * len(model.stages)
    units = model.units()
    spent = [n * steps for n, steps in zip(units, schedule, strict=True)]
    return [sum(spent[: i + 1]) / sum(units) for i in range(len(spent))]


@torch.no_grad()
def early_exit(model: SpikingBackbone, x: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
    """Answers in eval mode as soon as an early classifier is sure; samples that are done are not computed any further.

    The neurons of a stage start from rest, so what is left of a batch goes on as it would have anyway.

    Args:
        model: a backbone with early classifiers; its mode is kept.
        x: [B, C, H, W] or [T, B, C, H, W].
        confidence: a sample leaves where the likeliest class has at least this probability; above 1 none leaves early.

    Returns:
        Logits [B, classes] and the index of the stage that answered [B].

    Raises:
        ValueError: the model has no early classifiers.
    """
    if not model.early:
        raise ValueError(
            "this model has no early classifiers; make it with shrink(model, time_steps, early_classifiers=True) and train it"
        )
    training = model.training
    model.eval()
    try:
        x = model.embed(x)
        logits = x.new_empty(x.shape[1], model.num_classes)
        exits = torch.full((x.shape[1],), len(model.stages) - 1, device=x.device)
        waiting = torch.arange(x.shape[1], device=x.device)
        for index in range(len(model.stages)):
            x = model.enter_stage(index, x)
            if str(index) not in model.early:
                continue
            answer = model.early[str(index)](x).mean(0)
            sure = answer.softmax(1).amax(1) >= confidence
            logits[waiting[sure]], exits[waiting[sure]] = answer[sure], index
            waiting, x = waiting[~sure], x[:, ~sure]
            if not len(waiting):
                return logits, exits
        logits[waiting] = model.forward_head(x)
        return logits, exits
    finally:
        model.train(training)
