"""Recordings of event cameras: files, frames, data sets, and events made from images. Formats that need another package ask for it when they are read."""

from ._events import Events
from .frames import integrate
from .options import EventData
from .readers import read_events, write_events
from .saccades import Saccades

__all__ = ["EventData", "Events", "Saccades", "integrate", "read_events", "write_events"]
