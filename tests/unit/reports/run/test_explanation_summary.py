import numpy as np
import pandas as pd
import pytest

from glomerulab.reports.run.explanation_summary import (
    explanation_summary,
    sanity_summary,
    summary_lines,
)


@pytest.fixture
def table():
    """Two methods on 12 images of 6 patients; one always points right, one in a third."""
    rows = []
    for place in range(12):
        for method, hit in (("grad-cam", 1), ("random", int(place % 3 == 0))):
            rows.append(
                {"image_id": f"i{place}", "patient_id": f"p{place // 2}", "label": "fsg"}
                | {"method": method, "points_inside": hit, "mask_share": 0.1 + 0.01 * place}
                | {"energy_inside": 0.5, "deletion": 0.3, "insertion": np.nan}
            )
    return pd.DataFrame(rows)


def _row(summary, method, measure):
    of_all = summary["label"].isna()
    return summary[of_all & (summary["method"] == method) & (summary["measure"] == measure)].iloc[0]


def test_shares_chance_and_counts_are_those_of_the_rows(table):
    summary = explanation_summary(table)
    row = _row(summary, "random", "points_inside")
    assert row["value"] == pytest.approx(4 / 12)
    assert row["chance"] == pytest.approx(np.mean(0.1 + 0.01 * np.arange(12)))
    assert (row["n_maps"], row["n_patients"]) == (12, 6)
    assert row["low"] < row["value"] < row["high"]
    assert np.isnan(_row(summary, "grad-cam", "deletion")["chance"])
    assert "insertion" not in set(summary["measure"])  # none is known
    assert set(summary["label"].dropna()) == {"fsg"}


def test_the_interval_is_over_patients_and_none_is_given_for_one(table):
    alone = explanation_summary(table[table["patient_id"] == "p0"])
    assert np.isnan(_row(alone, "random", "points_inside")["low"])
    # Each image its own patient: the interval of a mean of 12 values, by scipy.
    from scipy.stats import bootstrap

    own = explanation_summary(table.assign(patient_id=None), n_resamples=4000)
    values = (np.arange(12) % 3 == 0).astype(float)
    expected = bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    row = _row(own, "random", "points_inside")
    assert (row["low"], row["high"]) == pytest.approx((expected.low, expected.high), abs=0.09)


def test_each_method_has_a_line_with_its_chance_level(table):
    lines = summary_lines(explanation_summary(table))
    assert lines[0].startswith("grad-cam: points at the lesion in 100 % of 12 maps (95 % interval")
    assert lines[0].endswith("chance 16 %")


def test_without_masks_or_rows_there_is_no_line(table):
    unmasked = table.drop(columns=["points_inside", "energy_inside", "mask_share"])
    assert summary_lines(explanation_summary(unmasked)) == []
    assert summary_lines(explanation_summary(table.iloc[:0])) == []


def test_correlations_are_averaged_and_empty_maps_counted():
    table = pd.DataFrame(
        {
            "method": ["grad-cam"] * 3,
            "random_share": [0.0, 0.0, 1.0],
            "rank_correlation": [0.8, 0.6, np.nan],
        }
    )
    found = sanity_summary(table)
    assert found["rank_correlation"].tolist()[0] == pytest.approx(0.7)
    assert found["n_empty"].tolist() == [0, 1]
