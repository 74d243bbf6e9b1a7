"""Firing rates, operations and energy of a model, measured on data."""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from .._progress import watched
from ..layers.hooks import listening
from ..measure import Accuracy, Constants, Inputs, Stepped, answers_so_far, batches_of, device_of, following, record
from ..models._backbone import SpikingBackbone
from ..transforms import merge
from ..transforms.event_driven import EventDriven, EventDrivenConverted
from .audit import judge
from .energy import account
from .event_driven import network_behind, time_event_driven
from .maps import Chosen, maps_of
from .neurobench import footprint
from .result import Merged, Profile, counts_of


def profile(
    model: nn.Module,
    data: Inputs,
    preset: str = "exact",
    *,
    constants: Constants | None = None,
    title: str | None = None,
    classes: Sequence[str] | None = None,
    maps: int = 4,
    merged: bool = True,
    **switches,
) -> Profile:
    """Measures what a model does on data, in eval mode: firing rates, operations, energy, audit.

    Rates are those of the input of each operation, over all samples, however they were batched. One measurement serves every
    preset: see `Profile.account`.

    Args:
        model: any model whose samples lie along the first axis, or the second of [T, B, C, H, W]; it is left as it is. Of an event-driven
            network the merged one is measured that it stands for, and its own time and layers besides.
        data: in any form of `measure.batches_of`; accuracy is that of the labels in it.
        preset: "exact", "spikingformer", "meta_spikeformer" or "honest"; formulas in `energy.PRESETS` and docs/energy.md.
        constants: energy per operation; 45 nm by default.
        title: what the report calls it.
        classes: names for the labels.
        maps: for how many samples the firing rates are kept per pixel: of different classes as far as there are labels.
        merged: whether to audit merge(model, "neuromorphic") and count its energy too, on the first batch.
        switches: of the preset.

    Raises:
        ValueError: no data or none that can be followed, or a preset, switch or value that does not exist.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"expected a model, not {type(model).__name__}; for a checkpoint use create_model(checkpoint=...) first"
        )
    driven = model if isinstance(model, (EventDriven, EventDrivenConverted)) else None
    model = network_behind(model)
    device = device_of(model)
    accuracy, first, before, shape, chosen = Accuracy(), None, 0.0, (), Chosen(maps)
    with torch.no_grad(), following(model) as recorder, _last_stage(model) as last:
        known = isinstance(data, DataLoader) and not isinstance(data.dataset, IterableDataset)
        for batch in watched(batches_of(data, model), "profiling", total=len(data) if known else None):
            batch = batch.to(device)
            x, labels = batch.x, batch.labels
            answers = _answers(model, recorder.run(*batch.args, **batch.kwargs), last)
            if answers is not None and labels is not None:
                accuracy.update(answers, labels)
            chosen.look_at(batch, None if answers is None else answers[-1].argmax(-1).cpu())
            if first is None:
                first = batch
                before = account(counts_of(model, recorder), preset, constants, **switches).energy()
            shape = (len(x), *x.shape[2:]) if x.ndim == 5 else tuple(x.shape[1:])
    counts = counts_of(model, recorder)
    result = Profile(
        title or getattr(model, "config", {}).get("architecture", type(model).__name__),
        counts,
        account(counts, preset, constants, **switches),
        recorder.samples,
        shape,
        accuracy if accuracy.classes else None,
        constants=constants,
        neurobench=footprint(counts, recorder),
        audit=judge(recorder),
        outputs=recorder.outputs,
        maps=maps_of(model, chosen, classes),
    )
    if merged and not isinstance(model, Stepped):
        try:
            twin = merge(model, "neuromorphic")
            seen = record(twin, [first])
            result.audit_merged = judge(seen)
            result.merged = Merged(account(counts_of(twin, seen), preset, constants, **switches), seen.samples, before)
        except ValueError as error:
            warnings.warn(f"the merged model is not audited: {error}", stacklevel=2)
    if driven:
        result.event_driven = time_event_driven(driven, first)
    return result


@contextmanager
def _last_stage(model: nn.Module) -> Iterator[list[Tensor]]:
    """A list that holds the map of a backbone's last stage after a pass: the logits of every step follow from it."""
    last: list[Tensor] = []
    if not isinstance(model, SpikingBackbone):
        yield last
        return
    listener = model.stages[-1].register_forward_hook(listening(lambda module, args, output: last.append(output)))
    try:
        yield last
    finally:
        listener.remove()


def _answers(model: nn.Module, outputs: list, last: list[Tensor]) -> Tensor | None:
    """The logits after 1, 2, ..., T steps [T, B, K], or after the last alone if the model gives no others; None if it is no classifier."""
    outputs = [x.get("logits") if isinstance(x, Mapping) else x for x in outputs]  # those of Hugging Face
    if not isinstance(outputs[-1], Tensor) or outputs[-1].ndim != 2:
        return None
    answers = torch.stack(outputs)
    if last:
        answers = answers_so_far(model.forward_head(last.pop(), per_step=True))
        answers[-1] = outputs[-1]
    return answers
