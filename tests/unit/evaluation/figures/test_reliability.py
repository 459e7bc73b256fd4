import numpy as np

from glomerulab.evaluation.calibration import reliability_bins
from glomerulab.evaluation.figures.reliability import draw_reliability


def test_every_curve_is_drawn_above_its_counts():
    bins = reliability_bins(np.array([0.22, 0.28, 0.9]), np.array([0.0, 1.0, 1.0]))
    figure = draw_reliability({"as trained": bins, "scaled": bins})
    upper, lower = figure.axes
    names = [text.get_text() for text in upper.get_legend().get_texts()]
    assert names == ["perfect", "as trained", "scaled"]
    assert list(upper.lines[1].get_ydata()) == [0.5, 1.0]
    assert len(lower.collections) == 2
