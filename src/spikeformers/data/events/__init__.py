"""Recordings of event cameras: files, frames, data sets. Formats that need another package ask for it when they are read."""

from ._events import Events
from .datasets import EventData
from .frames import integrate
from .readers import read_events, write_events

__all__ = ["EventData", "Events", "integrate", "read_events", "write_events"]
