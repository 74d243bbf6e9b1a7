"""N-Caltech101: the images of Caltech101 that an event camera sees while it makes three saccades before a screen.

Source: Orchard et al., "Converting Static Image Datasets to Spiking Neuromorphic Datasets Using Saccades", Frontiers in Neuroscience, 2015;
www.garrickorchard.com/datasets/n-caltech101. Licence: as stated there.
"""

from functools import cached_property

from ._base import EventDataset, register_dataset
from ._layout import by_class, class_names, first_ninety_percent


@register_dataset("ncaltech101")
class NCaltech101(EventDataset):
    """8,709 recordings of up to 240 x 180 pixels in Caltech101/CLASS/*.bin, or in CLASS/*.bin at the root: all 101 classes
    (BACKGROUND_Google is one of them). There is no official split, so the first 90 % of each class in the order of file names train."""

    sensor = (240, 180)
    layout = (
        "N-Caltech101 lies in {root}/Caltech101/CLASS/*.bin: fetch Caltech101.zip (md5 "
        "66201824eabb0239c7ab992480b50ba3) by hand, as www.garrickorchard.com/datasets/n-caltech101 says, and unpack it there"
    )

    @cached_property
    def classes(self):
        return class_names(self.within("Caltech101"))

    def recordings(self, training):
        return first_ninety_percent(by_class(self.within("Caltech101"), self.classes, (".bin",)), training)
