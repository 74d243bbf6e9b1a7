"""Data sets: what a model is trained and tested on. Nothing here knows a model."""

from typing import get_args, get_type_hints

from .coco import CocoData
from .events import EventData
from .images import ImageData
from .loading import test_loader, train_loader
from .masks import MaskData
from .samples import TestSet, TrainingSet

__all__ = [
    "CocoData",
    "EventData",
    "ImageData",
    "MaskData",
    "TestSet",
    "TrainingSet",
    "data_names",
    "data_type",
    "test_loader",
    "train_loader",
]

KINDS = {
    name: kind for kind in (ImageData, EventData, CocoData, MaskData) for name in get_args(get_type_hints(kind)["name"])
}


def data_names() -> tuple[str, ...]:
    """All data sets: of images, of events, of images with objects and of images with class masks."""
    return tuple(KINDS)


def data_type(name: str | None) -> type[ImageData] | type[EventData] | type[CocoData] | type[MaskData]:
    """The configuration class of the data set `name`; that of images for unknown names and None."""
    return KINDS.get(name, ImageData)
