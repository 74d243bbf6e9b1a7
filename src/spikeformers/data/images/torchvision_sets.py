"""Data sets of torchvision that fit into memory: CIFAR and MNIST."""

from pathlib import Path

import numpy as np
from torchvision import datasets


class TorchvisionImages:
    """CIFAR-10, CIFAR-100 and MNIST as torchvision reads them.

    Args:
        name: cifar10, cifar100 or mnist.
        root: folder that holds it.
        training: whether its training images are meant, or those for testing.

    Raises:
        ValueError: no such data set, or it is not in root.
    """

    SETS = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100, "mnist": datasets.MNIST}

    def __init__(self, name: str, root: Path, training: bool):
        if name not in self.SETS:
            raise ValueError(
                f"unknown data set {name!r}; give digits, folder, mosaics, webdataset, {', '.join(self.SETS)}"
            )
        cls = self.SETS[name]
        try:
            self.images = cls(root, train=training)
        except RuntimeError:
            fetch = f"from torchvision.datasets import {cls.__name__}; {cls.__name__}({str(root)!r}, download=True)"
            raise ValueError(f'{name} is not in {root}; set data.root or fetch it: python -c "{fetch}"') from None
        self.name, self.classes, self.labels = name, self.images.classes, np.asarray(self.images.targets).tolist()

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index]

    def where(self, index):
        """What messages call a sample."""
        return f"image {index} of {self.name}"
