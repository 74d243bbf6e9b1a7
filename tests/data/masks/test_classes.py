"""Where the classes' names come from."""

import numpy as np
import pytest

VALUES = np.array([[0, 1, 2, 3], [3, 2, 255, 0]])


def test_where_the_classes_names_come_from(tmp_path, write, masks):
    write(tmp_path, "1", VALUES % 3)
    with pytest.raises(ValueError, match="nothing states the classes .*data.classes, or the file .*classes.txt"):
        masks(tmp_path, classes=()).source(training=True)
    rows = [
        "Idx\tRatio\tTrain\tVal\tName",
        "1\t0.1\t11\t1\twall",
        "2\t0.1\t8\t1\tbuilding, edifice",
        "3\t0.1\t8\t1\tsky",
    ]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(rows) + "\n")
    assert masks(tmp_path, classes=()).source(training=True).classes == ["wall", "building, edifice", "sky"]
    (tmp_path / "classes.txt").write_text("road\ncar\n\ntree\n")
    assert masks(tmp_path, classes=()).source(training=True).classes == ["road", "car", "tree"]
    assert masks(tmp_path, classes=3).source(training=True).classes == ["0", "1", "2"]
    with pytest.raises(ValueError, match="several classes called car"):
        masks(tmp_path, classes=("car", "tree", "car")).source(training=True)
    with pytest.raises(ValueError, match="256 classes; give 1 to 255"):
        masks(tmp_path, classes=256).source(training=True)
