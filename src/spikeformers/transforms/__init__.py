"""A model in, a new model out; the old one is left alone."""

from .event_driven import event_driven
from .merge import merge
from .shrink import average_timestep, early_exit, shrink, stage_timesteps
from .sta import convert

__all__ = ["average_timestep", "convert", "early_exit", "event_driven", "merge", "shrink", "stage_timesteps"]
