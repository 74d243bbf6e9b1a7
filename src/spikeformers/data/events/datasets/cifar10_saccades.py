"""Events made from CIFAR-10, or from other images, which move before a simulated event camera (see `Saccades`).

Source: the images are those of `ImageData`, with their licences; the camera and its path are ours, after N-MNIST and CIFAR10-DVS. It is not CIFAR10-DVS.
"""

from dataclasses import asdict

from ...images import ImageData
from ...reading import UNREADABLE, upright_image
from ..cache import FrameCache, ImageFrameCache
from ..framing import Framing
from ..readers import SUFFIXES
from ..saccades import Saccades
from ._base import EventDataset, register_dataset


@register_dataset("cifar10_saccades")
class CIFAR10Saccades(EventDataset):
    """The images of data.images below the root, with their classes and their split, before a sensor of 48 x 48 pixels unless data.sensor is
    another."""

    sensor = (48, 48)
    layout = "the images lie in {root}, of a kind that data.images names (cifar10: fetch it with torchvision)"

    @property
    def camera(self) -> Saccades:
        """It watches the images."""
        return Saccades(self.options.sensor or self.sensor)

    def source(self, training):
        images = ImageData(self.options.images, self.options.root).source(training)
        cache = self.options.frame_cache(ImageFrameCache, camera=asdict(self.camera))
        return SaccadeImages(images, self.camera, self.options.framing, cache)

    def read(self, path):
        """An image file as a recording of it, or an event file.

        Raises:
            ValueError: it is missing or cannot be read.
        """
        if str(path).lower().endswith(SUFFIXES):
            return super().read(path)
        try:
            return self.camera(upright_image(path))
        except UNREADABLE as error:
            raise ValueError(f"cannot read the image {path} ({error}); give an image file, or a recording") from None


class SaccadeImages:
    """Labelled images as a source of frames: each is recorded by the camera, once if there is a cache.

    Args:
        images: a source of images.
        camera: what watches them.
        framing: how recordings become frames; it knows the camera's sensor.
        cache: where frames are kept; None records an image whenever it is asked for.
    Raises:
        ValueError: the frames are larger than any memory.
    """

    def __init__(self, images, camera: Saccades, framing: Framing, cache: FrameCache | None):
        self.images, self.camera, self.framing, self.cache = images, camera, framing, cache
        self.classes, self.labels = images.classes, images.labels
        self.shards = getattr(images, "shards", None)
        framing.must_be_countable(framing.grid)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        image, label = self.images[index]
        image = image.convert("L")  # all that the camera sees, so all that decides the frames
        shape = self.framing.time_steps, 2, *self.framing.grid
        frames = self.cache.load(image, shape=shape) if self.cache else None
        if frames is None:
            where = self.where(index)
            frames = self.framing.count(self.framing.place(self.camera(image), where), where)
            if self.cache:
                self.cache.store(image, None, frames)
        return frames, label

    def where(self, index):
        """What messages call a sample."""
        return self.images.where(index)
