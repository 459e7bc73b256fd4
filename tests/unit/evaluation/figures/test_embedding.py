import numpy as np
import pandas as pd

from glomerulab.evaluation.figures.embedding import (
    MAX_NAMED,
    draw_embedding,
    draw_intensity_spread,
    draw_stain_map,
)
from glomerulab.evaluation.stain_check import StainEmbedding


def test_the_legend_counts_each_class_and_the_wrong_ones():
    points = np.random.default_rng(0).normal(size=(6, 2))
    groups = np.array([0, 0, 0, 1, 1, 3])
    wrong = np.array([False, True, False, False, False, True])
    figure = draw_embedding(points, groups, ["Normal", "Crescent", "Other", "several"], wrong)
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["Normal (3)", "Crescent (2)", "several (1)", "misclassified (2)"]


def test_without_errors_none_is_in_the_legend():
    figure = draw_embedding(np.eye(2), np.array([0, 0]), ["Normal"], np.zeros(2, dtype=bool))
    assert len(figure.legends[0].get_texts()) == 1


def test_the_frequent_sources_are_named_and_the_rest_are_others() -> None:
    rng = np.random.default_rng(0)
    sources = np.array([f"s{k}" for k in range(10) for _ in range(12 - k)], dtype=object)
    points = rng.normal(size=(len(sources), 2))
    figure = draw_stain_map(
        StainEmbedding(points, 0.91), sources, title="Before", column="slide_id"
    )
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["others", *(f"s{k}" for k in range(MAX_NAMED))]
    assert figure.axes[0].get_title(loc="left") == "Before (trustworthiness 0.91)"
    assert sum(len(c.get_offsets()) for c in figure.axes[0].collections) == len(sources)


def test_spread_is_drawn_by_stain_before_and_after() -> None:
    table = pd.DataFrame(
        {
            "stain": ["HE", "HE", "PAS", None],
            "nmi_before": [0.7, 0.8, 0.6, np.nan],
            "nmi_after": [0.75, 0.76, 0.7, 0.7],
        }
    )
    axes = draw_intensity_spread(table).axes[0]
    labels = [line.get_label() for line in axes.get_lines()]
    assert labels[:2] == ["HE before", "HE after"]
    assert "no stain given after" in labels
