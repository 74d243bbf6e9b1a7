"""Where in a network a module lies."""

from torch import nn


def stage_of(model: nn.Module, name: str) -> str:
    """The stage that a module belongs to, by the model's feature_info; for the others the first part of their name."""
    stages = [info["module"] for info in getattr(model, "feature_info", [])]
    return next((stage for stage in stages if f"{name}.".startswith(f"{stage}.")), name.partition(".")[0])
