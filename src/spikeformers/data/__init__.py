"""Data sets: what a model is trained and tested on. Nothing here knows a model."""

from .images import ImageData, TestImages, TrainingImages, read_image, test_loader, train_loader

__all__ = ["ImageData", "TestImages", "TrainingImages", "read_image", "test_loader", "train_loader"]
