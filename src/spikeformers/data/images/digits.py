"""scikit-learn's handwritten digits, which come with the package."""

import numpy as np
from PIL import Image

from ..._install import command_for


class Digits:
    """scikit-learn's 1,797 handwritten digits, grey, 8x8 pixels: 1,437 to train, 360 to test, whatever the seed.

    Raises:
        ValueError: scikit-learn is not installed.
    """

    def __init__(self, training: bool):
        try:
            from sklearn.datasets import load_digits
            from sklearn.model_selection import train_test_split
        except ImportError:
            raise ValueError(f"the digits come with scikit-learn: {command_for('train')}") from None
        digits = load_digits()
        split = train_test_split(np.arange(len(digits.target)), test_size=360, stratify=digits.target, random_state=0)
        chosen = split[0 if training else 1]
        self.images = (digits.images[chosen] * (255 / 16)).round().astype(np.uint8)  # values 0..16 become 0..255
        self.labels = digits.target[chosen].tolist()
        self.classes = [str(name) for name in digits.target_names]

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return Image.fromarray(self.images[index]), self.labels[index]

    def where(self, index):
        """What messages call a sample."""
        return f"digit {index}"
