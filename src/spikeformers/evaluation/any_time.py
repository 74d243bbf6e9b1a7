"""What a converted network answers at every time step, and has cost by then."""

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .._files import as_csv
from ..measure import Accuracy, Constants, Inputs, Tally, batches_of, device_of, following
from ..measure.operation import CHARGES
from ..transforms.sta import Converted, logits_of


@dataclass
class AnyTime:
    """What a converted network answers at the steps 1 to T and has done by then.

    Attributes:
        answers: of each step, against the labels.
        agreement: the same against the classes that the network itself gives.
        network: the network's own answers.
        tally: what was emitted, added and multiplied in each step.
        dense: multiplications of the network itself, per sample.
        batches: how many were done, for resuming.
        islands: functions that it evaluates in real numbers, with how often they occur.
        fitted: functions that it approximates by rectified units, with how often they occur.
    """

    answers: Accuracy = field(default_factory=Accuracy)
    agreement: Accuracy = field(default_factory=Accuracy)
    network: Accuracy = field(default_factory=Accuracy)
    tally: Tally = field(default_factory=Tally)
    dense: float = 0.0
    batches: int = 0
    islands: dict[str, int] = field(default_factory=dict)
    fitted: dict[str, int] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """How many were tested."""
        return self.tally.samples

    def rows(self, constants: Constants | None = None) -> list[dict]:
        """For each time step what a sample's answer is worth, and what it has cost until then. The words are those of docs/glossary.md.

        Returns:
            Dicts of time_steps; accuracy and agreement in [0, 1] (accuracy None without labels); firing_rate and thresholds, those that
            a neuron emitted per step; synops, macs, additions and functions so far; energy_mj of those, as the preset `exact` counts it.
        """
        constants = constants or Constants()
        accuracy, agreement = self.answers.per_step, self.agreement.per_step
        rates, thresholds = self.tally.so_far("emitted", "places"), self.tally.so_far("thresholds", "places")
        sums = {name: list(itertools.accumulate(self.tally.per_step(name))) for name in CHARGES}
        rows = []
        for t in range(self.tally.time_steps):
            done = {name: numbers[t] for name, numbers in sums.items()}
            rows.append(
                {
                    "time_steps": t + 1,
                    "accuracy": accuracy and accuracy[t],
                    "agreement": agreement[t],
                    "firing_rate": rates[t],
                    "thresholds": thresholds[t],
                    **done,
                    "energy_mj": constants.energy(done["macs"] + done["functions"], done["synops"] + done["additions"]),
                }
            )
        return rows

    def of_network(self, constants: Constants | None = None) -> dict:
        """The network that was converted: accuracy, multiplications and energy in mJ of a sample."""
        constants = constants or Constants()
        return {"accuracy": self.network.accuracy, "macs": self.dense, "energy_mj": constants.energy(self.dense, 0)}

    def csv(self, constants: Constants | None = None) -> str:
        """`rows` as a table of comma-separated values."""
        return as_csv(self.rows(constants))

    def as_text(self, constants: Constants | None = None) -> str:
        """For the terminal: the steps 1, 2, 4, ... and the last."""
        rows, network = self.rows(constants), self.of_network(constants)
        shown = sorted({2**i for i in range(len(rows).bit_length())} - {2 ** len(rows).bit_length()} | {len(rows)})
        names = ("accuracy", "agreement", "firing rate", "thresholds", "SynOps", "MACs", "energy")
        lines = [
            f"{'T':>7}"
            + "".join(f"{name:>{width}}" for name, width in zip(names, (11, 11, 13, 12, 12, 12, 14), strict=True))
        ]
        for row in (rows[t - 1] for t in shown if t <= len(rows)):
            accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.2%}"
            lines.append(
                f"{row['time_steps']:>7}{accuracy:>11}{row['agreement']:>11.2%}{row['firing_rate']:>13.4f}{row['thresholds']:>12.3f}"
                f"{row['synops'] / 1e6:>10,.1f} M{(row['macs'] + row['functions']) / 1e6:>10,.1f} M{row['energy_mj']:>11.4g} mJ"
            )
        accuracy = "" if network["accuracy"] is None else f"{network['accuracy']:.2%}"
        lines.append(
            f"{'network':>7}{accuracy:>11}{'':>48}{network['macs'] / 1e6:>10,.1f} M{network['energy_mj']:>11.4g} mJ"
        )
        lines.append(
            "per sample until T; firing rate: share of neurons x steps that emit something; thresholds: how many they emit on average; "
            "SynOps: additions that these cause; MACs: multiplications, functions among them; energy: also of other additions (preset exact)"
        )
        for functions, words in (
            (self.islands, "in real numbers: "),
            (self.fitted, "by rectified units, which read means and multiply: "),
        ):
            if functions:
                lines.append(words + ", ".join(f"{name} ({count})" for name, count in functions.items()))
        return "\n".join(lines)

    def to_dict(self) -> dict:
        """For JSON; `from_dict` makes it again."""
        return {name: value.to_dict() if hasattr(value, "to_dict") else value for name, value in vars(self).items()}

    @classmethod
    def from_dict(cls, content: dict) -> "AnyTime":
        """What `to_dict` has written.

        Raises:
            ValueError: it was written by a version that counted otherwise.
        """
        if not isinstance(content.get("tally"), dict):
            raise ValueError("an earlier version has begun this test, and counted otherwise; choose another --run_dir")
        made = {"answers": Accuracy, "agreement": Accuracy, "network": Accuracy, "tally": Tally}
        return cls(**{name: made[name].from_dict(value) if name in made else value for name, value in content.items()})


@torch.no_grad()
def any_time(
    converted: Converted,
    network: nn.Module,
    data: Inputs,
    time_steps: int | None = None,
    so_far: AnyTime | None = None,
    done: Callable[[AnyTime], None] | None = None,
) -> AnyTime:
    """Accuracy, agreement with the network itself, firing rates and operations at every time step, from one run in the form "spikes".

    Args:
        converted: made from `network`.
        network: in eval mode, answering with logits [B, classes].
        data: in any form of `measure.batches_of`; without labels, or with negative ones, there is agreement but no accuracy.
        time_steps: T, if not that of the conversion.
        so_far: an earlier result: as many batches are skipped as it has seen.
        done: called with the result after each batch.

    Raises:
        ValueError: there are no samples, or the earlier result is one of other time steps.
    """
    T = time_steps or converted.time_steps
    result = so_far or AnyTime()
    if result.batches and result.answers.time_steps != T:
        raise ValueError(f"the earlier result has {result.answers.time_steps} time steps and this run {T}; begin anew")
    for number, batch in enumerate(batches_of(data, network)):
        if number < result.batches:
            continue
        batch = batch.to(device_of(network))
        labels = batch.labels
        if labels is None:
            labels = torch.full((batch.samples,), -1)
        if not result.dense:
            with FlopCounterMode(display=False) as counter:
                one = batch.first(1)
                network(*one.args, **one.kwargs)
            result.dense = counter.get_total_flops() / 2
        wanted = logits_of(network(*batch.args, **batch.kwargs))
        with following(converted) as recorder, recorder.recording(*batch.args, **batch.kwargs):
            state = converted.start("spikes", T)
            steps = converted.steps(*batch.args, **batch.kwargs, time_steps=T, state=state)
            answers = torch.stack([logits_of(logits) for logits in steps])
        result.answers.update(answers, labels)
        result.agreement.update(answers, wanted.argmax(1))
        result.network.update(wanted, labels)
        result.tally += recorder.tally(recorder.integers)
        result.islands, result.fitted = (
            dict(sorted(Counter(places.values()).items())) for places in (state.islands, state.fitted)
        )
        result.batches += 1
        if done:
            done(result)
    return result
