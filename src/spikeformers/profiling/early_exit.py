"""What early answers are worth: accuracy against average time steps and energy, by the confidence that is asked for."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..measure import Accuracy, Constants, Inputs, batches_of, device_of, following
from ..models._backbone import SpikingBackbone
from ..transforms import stage_timesteps
from .energy import account
from .result import counts_of
from .stages import stage_of


@dataclass(frozen=True)
class EarlyExit:
    """One point of the curve.

    Attributes:
        confidence: what was asked for; None is the network without early classifiers.
        accuracy: share of right answers, in [0, 1].
        time_steps: average time step of the samples, in the unit of `average_timestep`; early classifiers are not counted.
        energy: mJ per sample, early classifiers included.
        exits: share of the samples that each stage answered.
    """

    confidence: float | None
    accuracy: float
    time_steps: float
    energy: float
    exits: tuple[float, ...]


class _AllAnswers(nn.Module):
    """The network with every early classifier at work; `answers` holds the last batch's, each [T, B, classes]."""

    def __init__(self, model: SpikingBackbone):
        super().__init__()
        self.model = model
        # One by one: what a shared classifier costs behind each stage would otherwise be counted as one.
        self.early = nn.ModuleDict({index: copy.deepcopy(classifier) for index, classifier in model.early.items()})

    def forward(self, x: Tensor) -> Tensor:
        x, self.answers = self.model.embed(x), []
        for index in range(len(self.model.stages)):
            x = self.model.enter_stage(index, x)
            if str(index) in self.early:
                self.answers.append(self.early[str(index)](x))
        logits = self.model.forward_head(x)
        self.answers.append(logits[None])
        return logits


def early_exit_curve(
    model: SpikingBackbone,
    data: Inputs,
    confidences: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99),
    preset: str = "exact",
    constants: Constants | None = None,
    **switches,
) -> list[EarlyExit]:
    """Accuracy, average time steps and energy of a model with early classifiers, for each confidence, and last those of
    the network without early classifiers.

    The answers are those of `transforms.early_exit`. The energy of an exit is that of everything up to it, at the mean
    rates of all samples.

    Args:
        model: a backbone with early classifiers, trained.
        data: in any form of `measure.batches_of` that has labels.
        confidences: in [0, 1]: a sample leaves where the likeliest class has at least this probability.
        preset, constants, switches: how energy is counted; see `profile`.

    Raises:
        ValueError: the model has no early classifiers, a confidence is no probability, there are no labels, or as for
            `profile`.
    """
    if not model.early:
        raise ValueError(
            "this model has no early classifiers; make it with shrink(model, time_steps, early_classifiers=True) and "
            "train it"
        )
    if not confidences or not all(0 <= confidence <= 1 for confidence in confidences):
        raise ValueError(
            f"the confidences are {list(confidences)}; give at least one probability in [0, 1], such as 0.9, and not a "
            "percentage"
        )
    answering, stages = _AllAnswers(model), len(model.stages)
    points = [_Leaving(confidence, stages) for confidence in (*confidences, None)]
    with torch.no_grad(), following(answering) as recorder:
        for batch in batches_of(data, model):
            batch = batch.to(device_of(model))
            labels = batch.labels
            if labels is None:
                raise ValueError("early exit is judged by accuracy, which needs labels; give batches (x, labels)")
            recorder.run(*batch.args, **batch.kwargs)
            answers = torch.stack([answer.mean(0) for answer in answering.answers]).cpu()
            for point in points:
                point.update(answers, labels.cpu())
    if not points[0].accuracy.labelled:
        raise ValueError("early exit is judged by accuracy, and no sample has a label; give batches (x, labels)")
    measured = account(counts_of(answering, recorder), preset, constants, **switches)
    network, classifiers = torch.zeros(2, stages, dtype=torch.float64)
    for layer in measured.layers:
        (classifiers if layer.name.startswith("early.") else network)[_payer(model, layer.name)] += measured.energy(
            layer
        )
    return [point.found(model, network, classifiers) for point in points]


class _Leaving:
    """Counts where samples leave that ask for a confidence (None: at the end), and whether they are right."""

    def __init__(self, confidence: float | None, stages: int):
        self.confidence, self.accuracy, self.left = confidence, Accuracy(), torch.zeros(stages, dtype=torch.float64)

    def update(self, answers: Tensor, labels: Tensor) -> None:
        """Adds samples: the answers of every stage [stages, B, K], and labels [B]."""
        sure = answers.softmax(2).amax(2) >= (2 if self.confidence is None else self.confidence)
        sure[-1] = True
        first = sure.int().argmax(0)  # the first stage that is sure
        self.accuracy.update(answers[first, torch.arange(len(first))], labels)
        self.left += torch.bincount(first[labels >= 0], minlength=len(answers))

    def found(self, model: SpikingBackbone, network: Tensor, classifiers: Tensor) -> EarlyExit:
        """A point of the curve, given what each stage costs with and without its early classifier."""
        shares = self.left / self.left.sum()
        cost = (network if self.confidence is None else network + classifiers).cumsum(0)
        return EarlyExit(
            self.confidence,
            self.accuracy.accuracy,
            float(shares @ torch.tensor(stage_timesteps(model), dtype=torch.float64)),
            float(shares @ cost),
            tuple(shares.tolist()),
        )


def _payer(model: SpikingBackbone, name: str) -> int:
    """The first stage whose answer needs a layer of `_AllAnswers`; what lies before the stages belongs to the first, what
    lies behind them to the last."""
    name = name.removeprefix("model.")
    first, _, rest = name.partition(".")
    if first in ("early", "shrinks"):
        return int(rest.partition(".")[0])
    places = {info["module"]: index for index, info in enumerate(model.feature_info)}
    behind = not name or first.startswith("head")
    return places.get(stage_of(model, name), len(places) - 1 if behind else 0)
