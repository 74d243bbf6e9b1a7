"""What early answers are worth: accuracy against average time steps and energy, by the confidence that is asked for."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..models._backbone import SpikingBackbone
from ..transforms import early_exit, stage_timesteps
from .energy import Constants
from .operations import batches_of
from .profiler import profile, stage_of


@dataclass(frozen=True)
class EarlyExit:
    """One point of the curve.

    Attributes:
        confidence: what was asked for.
        accuracy: share of right answers, in [0, 1].
        time_steps: average time step of the samples, in the unit of `average_timestep`; early classifiers are not counted.
        energy: mJ per sample, early classifiers included.
        exits: share of the samples that each stage answered.
    """

    confidence: float
    accuracy: float
    time_steps: float
    energy: float
    exits: tuple[float, ...]


class _AllAnswers(nn.Module):
    """The network with every early classifier at work."""

    def __init__(self, model: SpikingBackbone):
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        model = self.model
        x = model.embed(x)
        for index in range(len(model.stages)):
            x = model.enter_stage(index, x)
            if str(index) in model.early:
                model.early[str(index)](x)
        return model.forward_head(x)


def early_exit_curve(
    model: SpikingBackbone,
    data: Iterable[tuple[Tensor, Tensor]],
    confidences: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.01),
    preset: str = "exact",
    constants: Constants | None = None,
    **switches,
) -> list[EarlyExit]:
    """Accuracy, average time steps and energy of a model with early classifiers, for each confidence; the last of the defaults
    lets no sample leave early.

    The energy of an exit is that of everything up to it, at the mean rates of all samples.

    Args:
        model: a backbone with early classifiers, trained.
        data: batches (x, labels), which are gone through once for each confidence, and once for the energy.
        preset, constants, switches: how energy is counted; see `profile`.

    Raises:
        ValueError: the model has no early classifiers, or as for `profile`.
    """
    batches = list(batches_of(data))
    measured = profile(
        _AllAnswers(model), batches, preset, constants=constants, maps=0, merged=False, **switches
    ).chosen
    places = {info["module"]: index for index, info in enumerate(model.feature_info)}
    costs = [0.0] * len(places)
    for layer in measured.layers:
        name = layer.name.removeprefix("model.")
        stage = stage_of(model, name)
        if name.startswith("early."):
            place = int(name.split(".")[1])
        else:
            place = places.get(stage, len(places) - 1 if stage.startswith(("head", "model")) or not name else 0)
        costs[place] += measured.energy(layer)
    cost, spent = torch.tensor(costs).cumsum(0), torch.tensor(stage_timesteps(model))
    points = []
    for confidence in confidences:
        right, exits = 0, torch.zeros(len(costs))
        for x, labels in batches:
            logits, left = early_exit(model, x, confidence)
            known = labels >= 0
            right += int((logits.argmax(1).cpu() == labels)[known].sum())
            exits += torch.bincount(left.cpu()[known], minlength=len(costs))
        shares = exits / exits.sum()
        points.append(
            EarlyExit(
                confidence,
                right / int(exits.sum()),
                float(shares @ spent),
                float(shares @ cost),
                tuple(shares.tolist()),
            )
        )
    return points
