import pytest
import torch
from PIL import Image

from spikeformers import plots
from spikeformers.measure import Accuracy

Figure = pytest.importorskip("matplotlib.figure").Figure


@pytest.fixture
def ax():
    return Figure().subplots()


def dots(ax):
    return [point for drawn in ax.collections for point in drawn.get_offsets().tolist()]


def test_a_raster_has_a_dot_for_each_spike(ax):
    spikes = torch.zeros(4, 2, 3)
    spikes[0, 1, 2] = spikes[3, 1, 0] = spikes[2, 0, 1] = 1
    plots.raster(spikes, ax, sample=1)
    assert sorted(dots(ax)) == [[1, 2], [4, 0]]
    assert ax.get_xlabel() == "time step" and ax.get_xlim() == (0.5, 4.5)


def test_layers_stand_above_each_other(ax):
    layers = {"first": torch.ones(2, 1, 2, 2), "second": torch.ones(1, 1, 3)}
    plots.raster(layers, ax)
    assert len(dots(ax)) == 8 + 3 and max(y for _, y in dots(ax)) == 6
    assert [label.get_text() for label in ax.get_yticklabels()] == ["first", "second"]


def test_many_neurons_are_thinned_out(ax):
    plots.raster(torch.ones(1, 1, 1000), ax, most=10)
    assert len(dots(ax)) == 10


def test_membranes(ax):
    potentials = torch.tensor([0.2, 0.6, 0.0])[:, None, None] * torch.tensor([1.0, 2.0])
    spikes = torch.tensor([0.0, 0.0, 1.0])[:, None, None].expand(3, 1, 2)
    plots.membrane(potentials, ax, spikes=spikes, v_threshold=1.0, neurons=[1])
    assert ax.lines[0].get_ydata() == pytest.approx([0.4, 1.2, 0.0]) and dots(ax) == [[3, 1.0]]
    with pytest.raises(ValueError, match="0 to 1"):
        plots.membrane(potentials, ax, neurons=[2])
    with pytest.raises(ValueError, match="sample"):
        plots.membrane(potentials, ax, sample=1)


def test_confusions_are_shares_of_the_class(ax):
    answers = Accuracy()
    answers.update(torch.eye(3)[[0, 0, 1, 1, 2, 0]], torch.tensor([0, 0, 1, 1, 1, 2]))
    plots.confusion_matrix(answers, ["cat", "dog", "eel"], ax)
    assert ax.images[0].get_array().tolist() == [[1, 0, 0], [0, pytest.approx(2 / 3), pytest.approx(1 / 3)], [1, 0, 0]]
    assert [text.get_text() for text in ax.texts] == ["100%", "67%", "33%", "100%"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["cat", "dog", "eel"]
    with pytest.raises(ValueError, match="2 names do not fit 3 classes"):
        plots.confusion_matrix(answers, ["cat", "dog"], ax)
    with pytest.raises(ValueError, match="no labelled answers"):
        plots.confusion_matrix(Accuracy(), None, ax)


def test_learning_curves_pair_training_and_test(tmp_path):
    table = tmp_path / "metrics.csv"
    table.write_text(
        "epoch,train_loss,train_accuracy,val_loss,val_accuracy,lr,seconds\n1,2.0,0.3,2.1,0.2,0.1,5\n2,1.0,0.6,1.2,,0.1,5\n"
    )
    figure = plots.learning_curves(table, Figure())
    drawn = {ax.get_title(): ax for ax in figure.axes if ax.lines}
    assert list(drawn) == ["loss", "accuracy", "lr", "seconds"]
    assert [line.get_label() for line in drawn["loss"].lines] == ["train_loss", "val_loss"]
    assert list(drawn["loss"].lines[1].get_ydata()) == [2.1, 1.2]
    plots.save(figure, tmp_path / "curves.png")
    assert min(Image.open(tmp_path / "curves.png").size) > 300
    with pytest.raises(ValueError, match="no epochs"):
        plots.learning_curves([])


def test_new_axes_are_pyplots():
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    ax = plots.raster(torch.ones(2, 1, 3))
    assert ax.figure.number in pyplot.get_fignums()
    pyplot.close(ax.figure)
