"""What learning to detect and to segment share."""

from ..evaluation.detection import DetectionEvaluation
from ..evaluation.segmentation import SegmentationEvaluation

OPTIONS = ("head_lr", "neck_lr")
"""Of `Training`."""


def dense_options(given: dict, num_classes: int) -> dict:
    """A detector's or segmenter's options for images in colour: what the recipe gives, and the number of classes unless it does."""
    backbone = {"in_chans": 3, **given.get("backbone_kwargs", {})}
    if not isinstance(given.get("backbone"), str):  # the model will say what is missing
        return given
    return {"num_classes": num_classes, **given, "backbone_kwargs": backbone}


def dense_summary(result: DetectionEvaluation | SegmentationEvaluation, last_scores: dict) -> dict:
    """What summary.json says of a detector's or segmenter's test and of the last epoch."""
    return {
        "scores": result.scores,
        "last_scores": last_scores,
        "test_samples": result.samples,
        "not_finite": result.not_finite,
        "absent": result.absent,
        "firing_rate": result.firing_rate,
        "firing_rates": result.firing_rates,
    }
