"""Tests of whatever runs, predictions, pictures, conversions with their any-time tests, and the checkpoints that hold what was trained."""

from . import classification, detection, segmentation  # noqa: F401 - each registers its task
from .any_time import AnyTime, any_time
from .checkpoint import Trained, load_trained, save_trained
from .classification import Evaluation, evaluate, precision_of, predict
from .preprocessing import prepared_text, preprocessing
from .results import best_device
from .task import (
    Answer,
    Shown,
    Task,
    evaluate_any,
    find_task,
    predict_any,
    register_task,
    samples_to_measure,
    test_samples,
)

__all__ = [
    "Answer",
    "AnyTime",
    "Evaluation",
    "Shown",
    "Task",
    "Trained",
    "any_time",
    "best_device",
    "evaluate",
    "evaluate_any",
    "find_task",
    "load_trained",
    "precision_of",
    "predict",
    "predict_any",
    "prepared_text",
    "preprocessing",
    "register_task",
    "samples_to_measure",
    "save_trained",
    "test_samples",
]
