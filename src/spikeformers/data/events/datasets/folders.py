"""Recordings of one's own, in folders of classes."""

from functools import cached_property

from ..readers import SUFFIXES
from ._base import EventDataset, register_dataset
from ._layout import by_class, class_names


@register_dataset("events")
class EventFolders(EventDataset):
    """train/CLASS/* and val/CLASS/* in any format that is read; train/CLASS/* alone where data.folds divides them. The sensor's size is
    that of data.sensor, or else the one that the files state."""

    layout = "event folders look like {root}/train/CLASS/1.aedat4 and {root}/val/CLASS/1.aedat4"

    @property
    def splits(self):
        """The folders of the training and of the test recordings; one and the same where parts of it are tested on."""
        return [self.there(split) for split in (("train", "val") if self.options.folds == 1 else ("train",))]

    @cached_property
    def classes(self):
        """The folders in train.

        Raises:
            ValueError: val has others.
        """
        train, test = self.splits[0], self.splits[-1]
        classes = class_names(train)
        if differ := set(classes) ^ set(class_names(test)):
            raise ValueError(
                f"{train} and {test} must hold the same class folders; these differ: {', '.join(sorted(differ))}"
            )
        return classes

    def recordings(self, training):
        classes = self.classes
        return by_class(self.splits[0 if training else -1], classes, SUFFIXES)
