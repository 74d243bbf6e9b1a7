"""DVS128 Gesture: the publisher's lists and tables."""

import numpy as np
import pytest

from spikeformers.data.events import EventData, integrate, recordings


def gesture(root, made):
    folder = root / "DvsGesture"
    folder.mkdir()
    for name, shift in (("user01_led", 0), ("user24_led", 5)):
        recording = made.events(300, seed=shift, width=128, height=128, start=2_000_000)
        made.aedat3_file(folder / f"{name}.aedat", recording)
        rows = [(1 + shift, 2_000_100, 2_000_400), (2 + shift, 2_000_400, 2_000_600), (11, 2_000_500, 2_000_900)]
        lines = ["class,startTime_usec,endTime_usec", *(",".join(map(str, row)) for row in rows)]
        (folder / f"{name}_labels.csv").write_text("\n".join(lines) + "\n")
    (folder / "trials_to_train.txt").write_text("user01_led.aedat\n")
    (folder / "trials_to_test.txt").write_text("user24_led.aedat\n\n")
    return EventData("dvs128_gesture", str(root), time_steps=5)


def test_gestures_are_the_rows_of_the_tables(tmp_path, monkeypatch, made):
    data = gesture(tmp_path, made)
    train, test = data.source(training=True), data.source(training=False)
    assert train.labels == [0, 1, 10] and test.labels == [5, 6, 10] and len(train.classes) == 11
    recording = made.events(300, seed=5, width=128, height=128, start=2_000_000)
    for i, span in enumerate([(2_000_100, 2_000_400), (2_000_400, 2_000_600), (2_000_500, 2_000_900)]):
        np.testing.assert_array_equal(test[i][0], integrate(recording.between(*span), 5, size=(128, 128)))
    assert train[1][1] == 1
    monkeypatch.setattr(recordings, "read_events", None)  # from here on there is only the cache
    assert [train[i][1] for i in range(3)] == [0, 1, 10], "a file was not cached with all of its rows"


def test_a_gesture_that_the_file_no_longer_holds_is_told(tmp_path, made):
    data = gesture(tmp_path, made)
    table = tmp_path / "DvsGesture" / "user01_led_labels.csv"
    table.write_text(table.read_text() + "3,2005000,2006000\n")
    train = data.source(training=True)
    assert train[0][0].any()
    with pytest.raises(ValueError, match="no events from 2005000 to 2006000"):
        train[3]
    for damage in ("12,1,2", "0,1,2", "1,3,2", "1,2", "one,1,2"):
        table.write_text(f"class,startTime_usec,endTime_usec\n{damage}\n")
        with pytest.raises(ValueError, match="user01_led_labels.csv must hold rows of class"):
            data.source(training=True)
    table.unlink()
    with pytest.raises(ValueError, match="user01_led_labels.csv, though trials_to_train.txt lists"):
        data.source(training=True)
