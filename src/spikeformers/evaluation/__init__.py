"""Tests of whatever runs, predictions, pictures, conversions with their any-time tests, and the checkpoints that hold what was trained."""

from .any_time import AnyTime, any_time
from .checkpoint import Trained, load_trained, save_trained
from .classification import Evaluation, evaluate, precision_of, predict
from .dense import evaluate_any
from .preprocessing import prepared_text, preprocessing
from .results import best_device

__all__ = [
    "AnyTime",
    "Evaluation",
    "Trained",
    "any_time",
    "best_device",
    "evaluate",
    "evaluate_any",
    "load_trained",
    "precision_of",
    "predict",
    "prepared_text",
    "preprocessing",
    "save_trained",
]
