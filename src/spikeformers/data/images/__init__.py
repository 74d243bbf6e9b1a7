"""Labelled images: scikit-learn's digits, image folders, mosaics, WebDataset shards, CIFAR and MNIST."""

from .folders import SUFFIXES, ImageFolders
from .options import ImageData

__all__ = ["SUFFIXES", "ImageData", "ImageFolders"]
