"""Data sets: what a model is trained and tested on. Nothing here knows a model."""

from typing import get_args, get_type_hints

from .events import EventData
from .images import ImageData
from .loading import TestSet, TrainingSet, test_loader, train_loader

__all__ = ["EventData", "ImageData", "TestSet", "TrainingSet", "data_names", "data_type", "test_loader", "train_loader"]


def data_names() -> tuple[str, ...]:
    """All data sets, of images and of events."""
    return tuple(name for kind in (ImageData, EventData) for name in get_args(get_type_hints(kind)["name"]))


def data_type(name: str | None) -> type[ImageData] | type[EventData]:
    """The configuration class of the data set `name`: events or, for all other names and None, images."""
    return EventData if name in get_args(get_type_hints(EventData)["name"]) else ImageData
