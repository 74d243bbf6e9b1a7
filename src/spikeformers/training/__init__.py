"""Training: recipes, and runs that can be continued."""

from typing import TYPE_CHECKING, Any

from . import classification, detection, segmentation  # noqa: F401 - each registers how its task is learned
from .recipe import Machine, Model, Recipe, Training

if TYPE_CHECKING:
    from .run import train

__all__ = ["Machine", "Model", "Recipe", "Training", "train"]


def __getattr__(name: str) -> Any:
    if name == "train":  # it needs Lightning, and recipes do not
        from .run import train

        return train
    raise AttributeError(f"module {__name__} has no attribute {name!r}")
