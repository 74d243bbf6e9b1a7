"""A profile: what was measured or estimated, for people, as files and as a page."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from .._files import as_csv, write_atomically, write_json
from .._notebook import Table, Tabular, named_lines
from ..measure import COLUMNS, Accuracy, Constants, Recorder, Tally
from ..neurons import Neuron
from ..transforms import average_timestep
from .account import Account, Counts, Layer
from .audit import Audit
from .energy import PRESETS, SWITCHES, account
from .event_driven import EventDrivenRun
from .honest import BreakEven
from .neurobench import Footprint
from .page import page
from .saved import FORMAT
from .stages import stage_of

if TYPE_CHECKING:
    from .early_exit import EarlyExit


@dataclass(frozen=True)
class Merged:
    """What merge(model, "neuromorphic") costs, counted on the first batch.

    Attributes:
        account: by the preset asked for, of the merged network.
        samples: how many it saw.
        before: mJ per sample of the network as it is on the same samples.
    """

    account: Account
    samples: int
    before: float

    @property
    def energy(self) -> float:
        """mJ per sample."""
        return self.account.energy()

    def __str__(self) -> str:
        what = "first sample" if self.samples == 1 else f"first {self.samples:,} samples"
        return f"{self.energy:.4g} mJ per sample on the {what} ({self.before:.4g} as it is)"

    def to_dict(self) -> dict:
        """For JSON."""
        return {"samples": self.samples, "before_mj": self.before, **_totals(self.account)}


@dataclass(repr=False)
class Profile(Tabular):
    """What `profile` measured, or `estimate` computed; one measurement, accounted for by any preset.

    Attributes:
        title: what to call it: a file or a model.
        counts: operations and firing rates, which `account` turns into energy.
        chosen: the account of the preset asked for.
        samples: how many were measured; 0 in an estimate.
        input_shape: of a sample, [C, H, W] or [T, C, H, W].
        answers: what the answers after 1 to T steps are worth; None without labels.
        constants: those that were asked for; None for those of the preset.
        neurobench: None in an estimate.
        audit, audit_merged: of the model, and of what merge(model, "neuromorphic") makes of it on one batch.
        merged: what the latter costs.
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
    answers: Accuracy | None = None
    constants: Constants | None = None
    neurobench: Footprint | None = None
    audit: Audit | None = None
    audit_merged: Audit | None = None
    merged: Merged | None = None
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
        return account(self.counts, preset, constants or self.constants, **switches)

    @property
    def accuracy(self) -> float | None:
        """Share of right answers, None without labels."""
        return self.answers and self.answers.accuracy

    @property
    def accuracy_per_step(self) -> list[float] | None:
        """Accuracy of the logits averaged over the first 1, 2, ..., T steps, or of the last alone if the model gives no others."""
        return self.answers and self.answers.per_step

    @property
    def tally(self) -> Tally | None:
        """What was emitted, added and multiplied; None in an estimate."""
        return self.counts.tally

    @property
    def rates_per_step(self) -> dict[str, list[float]]:
        """Per neuron its firing rate at every time step."""
        return self.tally.firing_rates_per_step if self.tally else {}

    @property
    def firing_rate(self) -> float | None:
        """Share of all neurons x time steps that emitted something."""
        if self.tally:
            return self.tally.firing_rate
        rates, places = (
            self.counts.neuron_rates,
            {o.module: o.dense for o in self.counts.operations if o.category == "neuron"},
        )
        if not rates or None in rates.values():
            return None
        return float(sum(rates[name] * places[name] for name in rates) / sum(places.values()))

    @property
    def honest(self) -> BreakEven | None:
        """Energy with memory traffic beside that of the quantised dense twin; None in an estimate without the rates for it."""
        try:
            chosen = self.chosen if self.chosen.preset == "honest" else account(self.counts, "honest")
        except ValueError:
            return None
        return BreakEven.of(chosen)

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
            + f"); {'its quantised dense twin' if chosen.preset == 'honest' else 'an ANN of the same layers'} takes {ann:.4g} mJ"
            + (f", {ann / self.energy:.2f} times as much" if self.energy else ""),
            f"operations   {chosen.ac / 1e9:.4g} G AC, {chosen.mac / 1e9:.4g} G MAC of {chosen.dense / 1e9:.4g} G dense; "
            f"{self.time_steps} time step{'s' * (self.time_steps != '1')}, "
            + (
                f"{self.samples:,} samples"
                if self.samples
                else f"estimated from rates that were given, input {'x'.join(map(str, self.input_shape))}"
            ),
        ]
        if self.accuracy is not None:
            lines.append(f"accuracy     {self.accuracy:.2%}")
        if self.firing_rate is not None:
            lines.append(f"firing rate  {self.firing_rate:.4f} over all neurons and time steps" + self._bursts())
        if self.honest is not None:
            lines.append(f"honest       {self.honest.as_text(self._bits)}")
        for name, found in (("audit", self.audit), ("merged", self.audit_merged)):
            if found is not None:
                cost = f"{self.merged}; " if name == "merged" and self.merged else ""
                lines.append(f"{name:13}{cost}{found.verdict}")
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

    def tables(self) -> list[Table]:
        """For a notebook: what `print` says, and the layers."""
        title, *lines = str(self).split("\n")
        rows = [
            (
                layer.name or "(the model itself)",
                layer.type,
                "x".join(map(str, layer.shape)),
                "" if layer.rate is None else f"{layer.rate:.4f}",
                f"{layer.ac:,.0f}",
                f"{layer.mac:,.0f}",
                f"{self.chosen.energy(layer):.4g}",
            )
            for layer in self.layers
        ]
        header = ("layer", "type", "output", "rate of its input", "additions", "multiplications", "energy (mJ)")
        return [Table(named_lines(lines), title=title), Table(rows, header, f"{len(rows)} layers", folded=True)]

    @property
    def _bits(self) -> int:
        return self.chosen.switches.get("bits", SWITCHES["honest"]["bits"][0])

    def _bursts(self) -> str:
        several = self.tally and self.counts.integers == "levels"
        return f", which emit {self.tally.thresholds_per_step:.4f} thresholds a step" if several else ""

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
            "thresholds_per_step": self.tally and self.tally.thresholds_per_step,
            "answers": self.answers and self.answers.to_dict(),
            "tally": self.tally and {name: self.tally.per_step(name) for name in COLUMNS},
            "honest": self.honest and {"bits": self._bits, **asdict(self.honest)},
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
                    **self._updating(name),
                }
                for name, rate in self.counts.neuron_rates.items()
            ],
            "audit": self.audit and self.audit.to_dict(),
            "audit_merged": self.audit_merged and self.audit_merged.to_dict(),
            "merged": self.merged and self.merged.to_dict(),
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

    def _updating(self, name: str) -> dict[str, float]:
        """What a layer of neurons is charged for a sample, if its name is that of a module."""
        found = [o for o in self.counts.operations if o.category == "neuron" and o.module == name]
        costs = [[o.dense / o.samples * times for times in o.arithmetic] for o in found]
        return dict(zip(("additions", "multiplications"), map(sum, zip(*costs, strict=True)), strict=False))

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
        """The layers as CSV: one row each, numbers per sample, energy in mJ.

        Raises:
            ValueError: there are no operations.
        """
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


def _totals(made: Account) -> dict[str, float]:
    return {"dense": made.dense, "ac": made.ac, "mac": made.mac, "synops": made.synops, "energy_mj": made.energy()}


def _own_parameters(module: nn.Module | None, whole: bool) -> int:
    return 0 if module is None else sum(p.numel() for p in module.parameters(recurse=whole))


def _described(module: nn.Module | None) -> str:
    return f"{type(module).__name__}({module.extra_repr()})" if isinstance(module, Neuron) else ""


def counts_of(model: nn.Module, recorder: Recorder, rates: dict | None = None, assumed=None) -> Counts:
    """The counts of a recorder, for the presets.

    Args:
        model: the network.
        recorder: that has followed it.
        rates: firing rates of neurons by name, if not those that were followed.
        assumed: the function that gives the rate of an operation's operand instead of the measured one.
    """
    operations = list(recorder.operations.values())
    steps = max((operation.steps for operation in operations if operation.category == "neuron"), default=1)
    tally = recorder.tally() if assumed is None else None
    rates = tally.firing_rates if rates is None else rates
    return Counts(model, operations, rates, recorder.neuron_shapes, steps, assumed, recorder.integers, tally)
