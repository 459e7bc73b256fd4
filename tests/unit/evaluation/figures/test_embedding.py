import numpy as np

from glomerulab.evaluation.figures.embedding import draw_embedding


def test_the_legend_counts_each_class_and_the_wrong_ones():
    places = np.random.default_rng(0).normal(size=(6, 2))
    groups = np.array([0, 0, 0, 1, 1, 3])
    wrong = np.array([False, True, False, False, False, True])
    figure = draw_embedding(places, groups, ["Normal", "Crescent", "Other", "several"], wrong)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["Normal (3)", "Crescent (2)", "several (1)", "called wrong (2)"]


def test_without_errors_none_is_in_the_legend():
    figure = draw_embedding(np.eye(2), np.array([0, 0]), ["Normal"], np.zeros(2, dtype=bool))
    assert len(figure.legends[0].get_texts()) == 1
