"""Data sets: what a model is trained and tested on. Nothing here knows a model."""

from typing import get_args, get_type_hints

from .coco import CocoData
from .events import EventData
from .images import ImageData
from .loading import test_loader, train_loader
from .masks import MaskData
from .protocols import Data
from .samples import TestSet, TrainingSet

__all__ = [
    "CocoData",
    "Data",
    "EventData",
    "ImageData",
    "MaskData",
    "TestSet",
    "TrainingSet",
    "data_names",
    "data_type",
    "register_data",
    "test_loader",
    "train_loader",
]

KINDS: dict[str, type[Data]] = {}


def register_data(kind: type[Data]) -> None:
    """Makes a configuration class known by the names of its data sets, which its field `name` lists."""
    KINDS.update(dict.fromkeys(get_args(get_type_hints(kind)["name"]), kind))


for _kind in (ImageData, EventData, CocoData, MaskData):
    register_data(_kind)


def data_names() -> tuple[str, ...]:
    """All data sets: of images, of events, of images with objects and of images with class masks."""
    return tuple(KINDS)


def data_type(name: str | None) -> type[Data]:
    """The configuration class of the data set `name`; that of images for unknown names and None."""
    return KINDS.get(name, ImageData)
