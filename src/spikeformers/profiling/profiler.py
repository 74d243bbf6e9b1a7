"""Firing rates, operations and energy of a model: measured on data, or estimated from rates that are given."""

import copy
import difflib
import os
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from .._files import as_csv, write_atomically, write_json
from ..models._backbone import SpikingBackbone
from ..models.published import module_name
from ..neurons import Neuron
from ..transforms import average_timestep, merge
from ..transforms.event_driven import EventDriven, EventDrivenConverted
from ..transforms.sta import Converted
from .audit import Audit, judge
from .energy import PRESETS, Account, Constants, Counts, Layer, account
from .event_driven import EventDrivenRun, time_event_driven
from .operations import Recorder, batches_of, record
from .page import page

if TYPE_CHECKING:
    from .early_exit import EarlyExit

FORMAT = 1


@dataclass
class Footprint:
    """What NeuroBench (Yik et al., 2023) measures of a network, with its definitions.

    Attributes:
        footprint: bytes of parameters and buffers.
        connection_sparsity: share of zeros among the weights of convolutions and linear layers.
        activation_sparsity: share of zeros among the outputs of neurons, over all samples and time steps.
        dense, effective_macs, effective_acs: synaptic operations per sample in convolutions and linear layers, biases and zero padding
            aside: all of them; those of two non-zero sides where the input holds other values than spikes; and where it holds spikes.
    """

    footprint: int
    connection_sparsity: float
    activation_sparsity: float
    dense: float
    effective_macs: float
    effective_acs: float


@dataclass
class Profile:
    """What `profile` measured, or `estimate` computed; one measurement, accounted for by any preset.

    Attributes:
        title: what to call it: a file or a model.
        counts: operations and firing rates, which `account` turns into energy.
        chosen: the account of the preset asked for.
        samples: how many were measured; 0 in an estimate.
        input_shape: of a sample, [C, H, W] or [T, C, H, W].
        accuracy: share of right answers, None without labels.
        accuracy_per_step: of the logits averaged over the first 1, 2, ..., T steps; None if the model does not give them away.
        rates_per_step: per neuron, its firing rate at every time step.
        neurobench: None in an estimate.
        audit, audit_merged: of the model, and of what merge(model, "neuromorphic") makes of it on one batch.
        outputs: shape of every module's output, without time and batch.
        maps: for some samples, where each stage fires: dicts of label, prediction, input [H, W, 3] in [0, 1] and stages.
        early_exit: what `early_exit_curve` found with the same network's early classifiers, which are no part of the rest.
        event_driven: of an event-driven network, its time on the first batch, and which layers ran how.
    """

    title: str
    counts: Counts
    chosen: Account
    samples: int
    input_shape: tuple[int, ...]
    accuracy: float | None = None
    accuracy_per_step: list[float] | None = None
    rates_per_step: dict[str, list[float]] = field(default_factory=dict)
    neurobench: Footprint | None = None
    audit: Audit | None = None
    audit_merged: Audit | None = None
    outputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    maps: list[dict] = field(default_factory=list)
    checkpoint: str | None = None
    data: str | None = None
    early_exit: Sequence["EarlyExit"] = ()
    event_driven: EventDrivenRun | None = None

    @property
    def energy(self) -> float:
        """mJ per sample by the preset asked for."""
        return self.chosen.energy()

    @property
    def layers(self) -> list[Layer]:
        return self.chosen.layers

    def account(self, preset: str, constants: Constants | None = None, **switches) -> Account:
        """The same counts by another preset, or with other switches or constants; as for `energy.account`."""
        return account(self.counts, preset, constants or self.chosen.constants, **switches)

    @property
    def firing_rate(self) -> float | None:
        """The mean over all neurons of the network."""
        sizes = {name: np.prod(self.counts.neuron_shapes[name]) for name in self.counts.neuron_rates}
        rates = self.counts.neuron_rates
        if not rates or None in rates.values():
            return None
        return float(sum(rates[name] * sizes[name] for name in rates) / sum(sizes.values()))

    @property
    def schedule(self) -> list[int] | None:
        """Time steps of every stage, where they shrink."""
        return getattr(self.counts.model, "schedule", None)

    @property
    def time_steps(self) -> str:
        """For people."""
        if not self.schedule:
            return str(self.counts.time_steps)
        return f"{', '.join(map(str, self.schedule))} ({average_timestep(self.counts.model):g} on average)"

    def __str__(self) -> str:
        chosen = self.chosen
        ann = chosen.ann_energy()
        lines = [
            f"{self.title}: {self.energy:.4g} mJ per sample ({chosen.preset}"
            + "".join(f", {name}={value}" for name, value in chosen.switches.items())
            + f"); an ANN of the same layers takes {ann:.4g} mJ"
            + (f", {ann / self.energy:.2f} times as much" if self.energy else ""),
            f"operations   {chosen.ac / 1e9:.4g} G AC, {chosen.mac / 1e9:.4g} G MAC of {chosen.dense / 1e9:.4g} G dense; "
            f"{self.time_steps} time step{'s' * (self.time_steps != '1')}, "
            + (f"{self.samples:,} samples" if self.samples else f"estimated from rates that were given, input {'x'.join(map(str, self.input_shape))}"),
        ]
        if self.accuracy is not None:
            lines.append(f"accuracy     {self.accuracy:.2%}")
        if self.firing_rate is not None:
            lines.append(f"firing rate  {self.firing_rate:.4f} over all neurons")
        for name, found in (("audit", self.audit), ("merged", self.audit_merged)):
            if found is not None:
                lines.append(f"{name:13}{found.verdict}")
        lines += [f"note         {note}" for note in chosen.notes[:2]]
        if self.early_exit:
            lines += [
                "early exit   at each confidence; time steps of the network alone, energy with the early classifiers, and the share of the "
                "samples that each stage answers"
            ]
            lines += self._early_exit_table()
        if self.event_driven:
            lines += self.event_driven.lines()
        return "\n".join(lines)

    def _early_exit_table(self) -> list[str]:
        """Lines for the terminal."""
        whole = self.early_exit[-1].time_steps
        stages = [info["module"] for info in self.counts.model.feature_info]
        rows = [["confidence", "accuracy", "time steps", "energy", *stages]]
        for point in self.early_exit:
            rows.append(
                [
                    "none leaves early" if point.confidence is None else f"{point.confidence:g}",
                    f"{point.accuracy:.2%}",
                    f"{point.time_steps:.2f} of {whole:.2f}",
                    f"{point.energy:.4g} mJ",
                    *(f"{share:.1%}" for share in point.exits),
                ]
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]

    def to_dict(self) -> dict:
        """For JSON; format, see docs/energy.md."""
        chosen, model = self.chosen, self.counts.model
        modules = dict(model.named_modules())
        return {
            "format": FORMAT,
            "title": self.title,
            "model": getattr(model, "config", {}).get("architecture", type(model).__name__),
            "parameters": sum(p.numel() for p in model.parameters()),
            "checkpoint": self.checkpoint,
            "data": self.data,
            "samples": self.samples,
            "input_shape": list(self.input_shape),
            "time_steps": self.counts.time_steps,
            "schedule": self.time_steps if self.schedule else None,
            "estimated": not self.samples,
            "accuracy": self.accuracy,
            "accuracy_per_step": self.accuracy_per_step,
            "preset": chosen.preset,
            "switches": chosen.switches,
            "constants": asdict(chosen.constants),
            "formula": chosen.formula,
            "notes": list(chosen.notes),
            "totals": _totals(chosen),
            "ann": {
                "dense": sum(
                    (layer.dense if layer.trained is None else layer.trained) / layer.steps for layer in chosen.layers
                ),
                "energy_mj": chosen.ann_energy(),
            },
            "presets": [
                {"preset": made.preset, "switches": made.switches, **_totals(made)} for made in self._all_accounts()
            ],
            "mean_rate": self.firing_rate,
            "mac_layers": [layer.name for layer in chosen.layers if layer.charged == "MAC"],
            "layers": [
                {
                    "name": layer.name,
                    "type": layer.type,
                    "stage": stage_of(model, layer.name),
                    "parameters": _own_parameters(modules.get(layer.name), whole=layer.type.endswith("merged")),
                    "dense": layer.dense,
                    "kind": layer.kind,
                    "rate": layer.rate,
                    "rate_per_step": layer.rate_per_step,
                    "class": layer.charged,
                    "ac": layer.ac,
                    "mac": layer.mac,
                    "energy_mj": chosen.energy(layer),
                    "ann_energy_mj": chosen.ann_energy(layer),
                    "output_shape": list(layer.shape),
                }
                for layer in chosen.layers
            ],
            "neurons": [
                {
                    "name": name,
                    "stage": stage_of(model, name),
                    "rate": rate,
                    "rate_per_step": self.rates_per_step.get(name, []),
                    "shape": list(self.counts.neuron_shapes[name]),
                    "description": _described(modules.get(name)),
                }
                for name, rate in self.counts.neuron_rates.items()
            ],
            "audit": self.audit and self.audit.to_dict(),
            "audit_merged": self.audit_merged and self.audit_merged.to_dict(),
            "neurobench": self.neurobench and asdict(self.neurobench),
            "architecture": [
                {
                    "name": name,
                    "type": type(modules[name]).__name__,
                    "output_shape": list(shape),
                    "parameters": sum(p.numel() for p in modules[name].parameters()),
                    "depth": name.count(".") + bool(name),
                }
                for name, shape in self._tree()
            ],
            "early_exit": [
                {
                    "confidence": point.confidence,
                    "accuracy": point.accuracy,
                    "time_steps": point.time_steps,
                    "energy_mj": point.energy,
                    "exits": {
                        info["module"]: share for info, share in zip(model.feature_info, point.exits, strict=True)
                    },
                }
                for point in self.early_exit
            ],
            "event_driven": self.event_driven and self.event_driven.to_dict(),
        }

    def _tree(self) -> list[tuple[str, tuple[int, ...]]]:
        """Modules that ran, and those around them, in the model's order, with the shapes of their outputs."""
        around = {name.rsplit(".", depth)[0] for name in self.outputs for depth in range(name.count(".") + 1)}
        return [(name, self.outputs.get(name, ())) for name, _ in self.counts.model.named_modules() if name in around]

    def _all_accounts(self) -> list[Account]:
        made = []
        for preset in PRESETS:
            try:
                made.append(self.chosen if preset == self.chosen.preset else self.account(preset))
            except ValueError:  # an estimate without the rates that this preset needs
                continue
        return made

    def table(self) -> str:
        """The layers as CSV: one row each, numbers per sample, energy in mJ."""
        rows = self.to_dict()["layers"]
        if not rows:
            raise ValueError(f"{self.title} has no operations to count")
        return as_csv(
            {
                **row,
                "output_shape": "x".join(map(str, row["output_shape"])),
                "rate_per_step": " ".join(f"{rate:.6g}" for rate in row["rate_per_step"]),
            }
            for row in rows
        )

    def write(self, folder: str | os.PathLike) -> None:
        """Writes profile.json, layers.csv, early_exit.csv if there is one, and report.html, a page that needs nothing else."""
        folder, report = Path(folder), self.to_dict()
        write_json(folder / "profile.json", report)
        write_atomically(folder / "layers.csv", self.table().encode())
        if points := report["early_exit"]:
            rows = [
                {**{key: value for key, value in point.items() if key != "exits"}, **point["exits"]} for point in points
            ]
            write_atomically(folder / "early_exit.csv", as_csv(rows).encode())
        write_atomically(folder / "report.html", page([report], [self.maps]).encode())


def profile(
    model: nn.Module,
    data: Tensor | Iterable,
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
        model: any model that takes [B, C, H, W] or [T, B, C, H, W]; it is left as it is. Of an event-driven network the merged one is
            measured that it stands for, and its own time and layers besides.
        data: a batch x, a pair (x, labels), or batches of either kind (a DataLoader, say).
        preset: "exact", "spikingformer" or "meta_spikeformer"; formulas in `energy.PRESETS` and docs/energy.md.
        constants: energy per operation; 45 nm by default.
        title: what the report calls it.
        classes: names for the labels.
        maps: for how many samples of the first batch the firing rates are kept per pixel.
        merged: whether to audit merge(model, "neuromorphic") too, on the first batch.
        switches: of the preset.

    Raises:
        ValueError: no data or none that can be followed, or a preset, switch or value that does not exist.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"expected a model, not {type(model).__name__}; for a checkpoint use create_model(checkpoint=...) first"
        )
    driven = model if isinstance(model, (EventDriven, EventDrivenConverted)) else None
    model = driven.merged if driven else model
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    first, answers = [], {"right": 0, "labelled": 0, "shape": ()}

    def inputs():
        for x, labels in batches_of(data, model):
            x = x.to(device)
            if not first:
                first.extend((x, labels))
            answers["shape"] = tuple(x.shape[1:] if x.ndim == 4 else (x.shape[0], *x.shape[2:]))
            answers["labels"] = labels
            yield x

    def judged(outputs):
        outputs = [x.get("logits") if isinstance(x, Mapping) else x for x in outputs]  # those of Hugging Face
        logits, labels = outputs[-1], answers["labels"]
        classified = isinstance(logits, Tensor) and logits.ndim == 2
        if len(first) == 2:
            first.append(logits.argmax(-1).cpu() if classified else None)
        if classified and labels is not None and labels.ndim == 1:
            labels = labels.cpu()
            known = labels >= 0
            if len(labels) != len(logits) or int(labels.max()) >= logits.shape[1]:
                raise ValueError(
                    f"{len(labels)} labels up to {int(labels.max())} do not fit {len(logits)} answers of {logits.shape[1]} classes"
                )
            answers["right"] += int((logits.argmax(-1).cpu()[known] == labels[known]).sum())
            answers["labelled"] += int(known.sum())
            so_far = model.forward_head(last.pop(), per_step=True).detach().cumsum(0) if last else None
            if isinstance(model, Converted):
                so_far = torch.stack(outputs)
            if so_far is not None:
                answers["per_step"] = answers.get("per_step", 0) + (so_far.argmax(-1).cpu() == labels)[:, known].sum(1)

    last: list[Tensor] = []  # the last stage's map, from which the logits of every step follow
    listener = None
    if isinstance(model, SpikingBackbone):

        def listen(module, args, output):
            last.append(output)

        listen.listens = True  # see layers.hooks
        listener = model.stages[-1].register_forward_hook(listen)
    try:
        with torch.no_grad():
            recorder = record(model, inputs(), maps, judged)
    finally:
        if listener is not None:
            listener.remove()
    counts = _counts(model, recorder, {name: operand.rate for name, operand in recorder.neurons.items()})
    x, labels, answer = first
    labels = labels if labels is not None and labels.ndim == 1 else None
    result = Profile(
        title or getattr(model, "config", {}).get("architecture", type(model).__name__),
        counts,
        account(counts, preset, constants, **switches),
        recorder.samples,
        answers["shape"],
        answers["right"] / answers["labelled"] if answers["labelled"] else None,
        (answers["per_step"] / answers["labelled"]).tolist() if "per_step" in answers else None,
        {name: operand.rate_per_step for name, operand in recorder.neurons.items()},
        _footprint(counts, recorder),
        judge(recorder),
        outputs=recorder.outputs,
        maps=_maps(model, recorder, x, labels, answer, classes),
    )
    if merged and not isinstance(model, Converted):
        try:
            result.audit_merged = judge(record(merge(model, "neuromorphic"), [x]))
        except ValueError as error:
            warnings.warn(f"the merged model is not audited: {error}", stacklevel=2)
    if driven:
        result.event_driven = time_event_driven(driven, x)
    return result


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
    if len(input_shape) not in (3, 4):
        raise ValueError(f"input_shape must be [C, H, W] or [T, C, H, W], not {list(input_shape)}")
    skeleton = copy.deepcopy(model).to("meta")
    channels = input_shape[-3:]
    x = torch.empty((1, *channels) if len(input_shape) == 3 else (input_shape[0], 1, *channels), device="meta")
    recorder = record(skeleton, [x])
    known = _named(model, recorder, rates)

    def rate_of(name: str) -> float | None:
        parts = name.split(".")
        wanted = (".".join(parts[:length]) for length in range(len(parts), -1, -1))
        return next((known[prefix] for prefix in wanted if prefix in known), None)

    def given(operation, operand) -> float:
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

    counts = _counts(model, recorder, {name: rate_of(name) for name in recorder.neurons}, given)
    for operation in counts.weighted[:1]:  # an input of spikes, if its rate is given by name
        if any(operation.module == name or operation.module.startswith(f"{name}.") for name in known if name):
            operation.data[0].kind = "binary"
    name = title or getattr(model, "config", {}).get("architecture", type(model).__name__)
    chosen = account(counts, preset, constants, **switches)
    return Profile(name, counts, chosen, 0, tuple(input_shape), outputs=recorder.outputs)


def compare(reports: Sequence[dict], folder: str | os.PathLike, maps: Sequence[Sequence[dict]] = ()) -> None:
    """Writes report.html, with several profiles side by side, comparison.csv, one row for each, and profiles.json.

    Args:
        reports: contents of profile.json, as `Profile.to_dict` gives them.
        folder: where the files go.
        maps: of each profile, as in `Profile.maps`.

    Raises:
        ValueError: they were accounted for by different presets, switches or constants.
    """
    ways = {str([report[key] for key in ("preset", "switches", "constants")]): report for report in reports}
    if len(ways) > 1:
        first, second = list(ways.values())[:2]
        raise ValueError(
            f"{first['title']} was accounted for by {first['preset']} {first['switches']} and {second['title']} by {second['preset']} "
            f"{second['switches']}; profile both by the same preset, switches and constants"
        )
    rows = [
        {
            **{
                key: report[key]
                for key in ("title", "model", "parameters", "data", "samples", "time_steps", "accuracy", "mean_rate")
            },
            **{key: report["totals"][key] for key in ("dense", "ac", "mac", "energy_mj")},
            "ann_energy_mj": report["ann"]["energy_mj"],
            "additions_only_merged": (report["audit_merged"] or {}).get("additions_only"),
        }
        for report in reports
    ]
    folder = Path(folder)
    write_json(folder / "profiles.json", {"format": FORMAT, "profiles": list(reports)})
    write_atomically(folder / "comparison.csv", as_csv(rows).encode())
    write_atomically(folder / "report.html", page(reports, maps).encode())


def stage_of(model: nn.Module, name: str) -> str:
    """The stage that a module belongs to, by the model's feature_info; for the others the first part of their name."""
    stages = [info["module"] for info in getattr(model, "feature_info", [])]
    return next((stage for stage in stages if f"{name}.".startswith(f"{stage}.")), name.partition(".")[0])


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


def _counts(model: nn.Module, recorder: Recorder, rates: dict, given=None) -> Counts:
    operations = list(recorder.operations.values())
    steps = max((operation.steps for operation in operations if operation.category == "neuron"), default=1)
    return Counts(model, operations, rates, recorder.neuron_shapes, steps, given)


def _footprint(counts: Counts, recorder: Recorder) -> Footprint:
    model = counts.model
    weights = [m.weight for m in model.modules() if isinstance(m, (nn.Linear, nn.modules.conv._ConvNd))]
    stored = [*model.parameters(), *model.buffers()]
    neurons = recorder.neurons.values()
    acs, macs = 0.0, 0.0
    for operation in counts.weighted:
        effective = operation.effective / operation.samples
        acs, macs = (acs + effective, macs) if operation.spike_fed else (acs, macs + effective)
    active, size = sum(sum(operand.active) for operand in neurons), sum(operand.size for operand in neurons)
    return Footprint(
        sum(tensor.numel() * tensor.element_size() for tensor in stored),
        sum(int((weight == 0).sum()) for weight in weights) / max(1, sum(weight.numel() for weight in weights)),
        1 - active / max(1, size),
        sum(operation.unpadded / operation.samples for operation in counts.weighted),
        macs,
        acs,
    )


def _maps(model, recorder: Recorder, x: Tensor, labels, answer, classes) -> list[dict]:
    """For the samples whose rates were kept per pixel: the input as a picture, and per stage the mean rate of its neurons."""
    stages: dict[str, list[Tensor]] = {}
    for name, rates in recorder.maps.items():
        if rates.shape[1:].numel() > 1:
            stages.setdefault(stage_of(model, name), []).append(rates)
    if not stages or x.ndim not in (4, 5):
        return []
    pictures = _pictures(x)

    def named(index):
        if index is None or int(index) < 0:
            return None
        return classes[int(index)] if classes and int(index) < len(classes) else str(int(index))

    result = []
    for sample in range(min(len(pictures), recorder.maps_of)):
        rows = []
        for stage, found in stages.items():
            smallest = min(rates.shape[1:] for rates in found)  # the stage's own resolution, behind its downsampling
            mean = torch.stack([rates[sample] for rates in found if rates.shape[1:] == smallest]).mean(0)
            rows.append({"name": stage, "rate": float(mean.mean()), "map": mean.numpy()})
        label = named(None if labels is None else labels[sample])
        prediction = named(None if answer is None else answer[sample])
        result.append({"label": label or "", "prediction": prediction, "input": pictures[sample], "stages": rows})
    return result


def _pictures(x: Tensor) -> list[np.ndarray]:
    """Inputs as [H, W, 3] in [0, 1]: images stretched to their range; of events OFF in blue and ON in red on white."""
    frames = x.mean(0) if x.ndim == 5 else x
    pictures = []
    for frame in frames.float().cpu():
        if len(frame) == 2:
            off, on = frame / frame.max().clamp_min(1e-9)
            picture = torch.stack([1 - off, 1 - torch.maximum(off, on), 1 - on])
        else:
            picture = (frame if len(frame) == 3 else frame[:1].expand(3, -1, -1)) - frame.min()
            picture = picture / picture.max().clamp_min(1e-9)
        pictures.append(picture.clamp(0, 1).permute(1, 2, 0).numpy())
    return pictures


def _totals(made: Account) -> dict[str, float]:
    return {"dense": made.dense, "ac": made.ac, "mac": made.mac, "synops": made.ac, "energy_mj": made.energy()}


def _own_parameters(module: nn.Module | None, whole: bool) -> int:
    return 0 if module is None else sum(p.numel() for p in module.parameters(recurse=whole))


def _described(module: nn.Module | None) -> str:
    return f"{type(module).__name__}({module.extra_repr()})" if isinstance(module, Neuron) else ""
