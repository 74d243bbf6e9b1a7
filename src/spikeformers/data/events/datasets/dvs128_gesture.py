"""DVS128 Gesture: 11 gestures of 29 people under three kinds of light, before a DVS128.

Source: Amir et al., "A Low Power, Fully Event-Based Gesture Recognition System", CVPR 2017; research.ibm.com/dvsgesture. Licence: CC BY 4.0. The
publisher asks for a form to be filled in, so it is not fetched here.
"""

import numpy as np

from .._arrays import recorded_file
from ..recordings import Recording
from ._base import EventDataset, register_dataset
from ._layout import list_of_names


@register_dataset("dvs128_gesture")
class DVS128Gesture(EventDataset):
    """The publisher's folder DvsGesture, or the root itself: trials_to_train.txt (users 1 to 23) and trials_to_test.txt (24 to 29), which are
    the split, list AEDAT 3.1 files; each row of FILE_labels.csv is a sample, class 1 to 11 and its first and last microsecond."""

    sensor = (128, 128)
    classes = (
        "hand_clapping",
        "right_hand_wave",
        "left_hand_wave",
        "right_arm_clockwise",
        "right_arm_counter_clockwise",
        "left_arm_clockwise",
        "left_arm_counter_clockwise",
        "arm_roll",
        "air_drums",
        "air_guitar",
        "other_gestures",
    )
    layout = (
        "DVS128 Gesture is behind a form of IBM Research: fetch DvsGesture.tar.gz by hand and unpack it into {root}"
    )

    def recordings(self, training):
        folder = "DvsGesture" if (self.root / "DvsGesture").is_dir() else "."
        trials = self.there(folder, f"trials_to_{'train' if training else 'test'}.txt")
        found = []
        for name in list_of_names(trials).split():
            path = trials.with_name(name)
            for label, start, end in self._table(path.with_name(f"{path.stem}_labels.csv"), trials):
                found.append(Recording(path, label - 1, (start, end)))
        return found

    def _table(self, file, trials):
        try:
            with recorded_file(file) as opened:
                rows = np.loadtxt(opened, np.int64, delimiter=",", skiprows=1, ndmin=2).reshape(-1, 3)
            if not ((rows[:, 0] >= 1) & (rows[:, 0] <= len(self.classes)) & (rows[:, 1] < rows[:, 2])).all():
                raise ValueError("a class is not 1 to 11, or ends before it starts")
        except FileNotFoundError:
            raise ValueError(
                f"no {file}, though {trials.name} lists its recording; DVS128 Gesture is not complete"
            ) from None
        except (ValueError, OverflowError) as error:
            raise ValueError(
                f"{file} must hold rows of class,startTime_usec,endTime_usec below a header: {error}"
            ) from None
        return rows.tolist()
