"""HAR-DVS: 300 human activities before a DAVIS346.

Source: Wang et al., "HARDVS: Revisiting Human Activity Recognition with Dynamic Vision Sensors", AAAI 2024; github.com/Event-AHU/HARDVS.
Licence: as stated there.
"""
# Shapes: T time steps, H W pixels.

from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ...reading import upright_image
from .._events import Events
from ..readers import SUFFIXES
from ..recordings import Recording, Recordings
from ._base import EventDataset, register_dataset
from ._layout import files_of, list_of_names


@register_dataset("har_dvs")
class HARDVS(EventDataset):
    """The publisher's lists train_label.txt and test_label.txt, which are the split: lines that begin with CLASS/RECORDING, an event file
    with or without its suffix or a folder of images (see `pictures`); classes are the folders' names, action_001 to action_300,
    in order, whatever number the line ends in."""

    sensor = (346, 260)
    layout = (
        "HAR-DVS lies in {root}/action_001/* and so on, train_label.txt and test_label.txt beside: fetch it by hand, as "
        "github.com/Event-AHU/HARDVS says"
    )

    @cached_property
    def listed(self) -> dict[str, list[Path]]:
        """What the two lists name.

        Raises:
            ValueError: a list is missing, or names no classes.
        """
        listed = {}
        for split in ("train", "test"):
            file = self.there(f"{split}_label.txt")
            listed[split] = [self.root / line.split()[0] for line in list_of_names(file).splitlines() if line.strip()]
        if any(path.parent == self.root for paths in listed.values() for path in paths):
            raise ValueError(f"{self.root}/train_label.txt and test_label.txt must list CLASS/RECORDING in each line")
        return listed

    @cached_property
    def classes(self):
        return sorted({path.parent.name for paths in self.listed.values() for path in paths})

    def recordings(self, training):
        label = {name: index for index, name in enumerate(self.classes)}
        known = {
            folder / name: file
            for folder in {path.parent for paths in self.listed.values() for path in paths}
            for file in files_of(folder, SUFFIXES)
            for name in (file.name, file.stem)
        }
        wanted = self.listed["train" if training else "test"]
        return [
            Recording(known.get(path, path), label[path.parent.name]) for path in wanted
        ]  # a missing one is an error when it is read

    def source(self, training):
        recordings = self.recordings(training)
        return PicturedRecordings(recordings, self.classes, self.options.framing, self.options.frame_cache())


class PicturedRecordings(Recordings):
    """Recordings of which some are folders of images, each frame one of these."""

    def decoded(self, index):
        wanted = self.recordings[index]
        if not wanted.path.is_dir():
            return super().decoded(index)
        frames = []
        for events in pictures(wanted.path, self.framing.time_steps):
            sensor = events.width, events.height
            one = replace(self.framing, time_steps=1, split_by="number", duration=None, sensor=sensor)
            frames.append(one.count(self.placed(one, events, wanted.path), wanted.path))
        counts = np.concatenate(frames)
        self.keep(wanted, counts)
        return counts


def pictures(folder: Path, count: int) -> list[Events]:
    """`count` images of a folder, evenly spaced in the order of their names (repeated where there are fewer), as events.

    HAR-DVS is also published as images. A pixel whose grey is below 0.12 of white becomes an OFF event, one above 0.3 up to
    0.78 an ON event: the rule of Spike-driven Transformer V3.

    Raises:
        ValueError: the folder holds no images.
    """
    files = sorted(files_of(folder, (".png", ".jpg", ".jpeg", ".bmp")), key=lambda file: (len(file.name), file.name))
    if not files:
        raise ValueError(f"no images in {folder}")
    result = []
    for index in range(count):
        grey = np.asarray(upright_image(files[index * len(files) // count]).convert("L")) / 255
        off, on = grey < 0.12, (grey > 0.3) & (grey <= 0.78)
        y, x = np.nonzero(off | on)
        result.append(Events(np.zeros(len(y), np.int64), x, y, on[y, x].astype(np.uint8), *grey.shape[::-1]))
    return result
