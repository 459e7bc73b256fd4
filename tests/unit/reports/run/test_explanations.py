import numpy as np
import pandas as pd
import pytest

from glomerulab.images import write_image
from glomerulab.reports.run.explanation_summary import explanation_summary, sanity_summary
from glomerulab.reports.run.explanations import (
    map_tests,
    read_map_test,
    write_explanations_html,
)
from tests.support.cases import PAPER
from tests.support.result_pages import CONTROLS, explanation_table


def _sanity(correlation: float) -> pd.DataFrame:
    rows = [
        {"method": "occlusion", "random_share": share, "rank_correlation": value}
        for share, value in ((0.0, 0.9), (1.0, correlation))
    ]
    return sanity_summary(pd.DataFrame(rows))


@pytest.mark.parametrize(
    ("own", "correlation", "verdict", "failed"),
    [
        ({"deletion": 0.3, "energy_inside": 0.4}, 0.1, "passed", ()),
        ({"deletion": 0.45, "energy_inside": 0.4}, 0.1, "failed", ("deletion",)),
        ({"deletion": 0.3, "energy_inside": 0.12}, 0.1, "failed", ("energy_inside",)),
        ({"deletion": 0.3, "energy_inside": 0.4}, 0.8, "failed", ("sanity",)),
    ],
)
def test_maps_pass_only_where_they_beat_both_controls_and_change_with_the_weights(
    own, correlation, verdict, failed
):
    summary = explanation_summary(explanation_table(occlusion=own, **CONTROLS))
    (test,) = map_tests(summary, _sanity(correlation))
    assert (test.verdict, test.failed) == (verdict, failed)


def test_maps_without_any_test_are_called_untested():
    table = explanation_table(occlusion={}).drop(columns="mask_share")
    table["deletion"] = np.nan
    summary = explanation_summary(table.assign(insertion=0.5))
    (test,) = map_tests(summary, None)
    assert test.verdict == "untested"


@pytest.mark.parametrize(("language", "title"), [("en", "failed"), ("zh", "失败")])
def test_the_page_begins_with_the_tests_and_shows_every_map(tmp_path, language, title):
    own = {"deletion": 0.45, "energy_inside": 0.4}
    table = explanation_table(occlusion=own, **CONTROLS)
    for name in table["overlay"]:
        if name:
            write_image(np.full((20, 40, 3), 90, np.uint8), tmp_path / name)
    summary = explanation_summary(table)
    tests = map_tests(summary, None)
    path = write_explanations_html(
        table, summary, tests, tmp_path, taxonomy=PAPER, title="<run>", language=language
    )
    page = path.read_text("utf-8")
    assert page.index(title) < page.index("0.450") < page.index("data:image/jpeg")
    assert page.count("data:image/jpeg") == 4
    assert "&lt;run&gt;" in page
    assert "default-src 'none'" in page


def test_predict_reads_the_test_of_the_method_that_it_draws(tmp_path):
    assert read_map_test(tmp_path) == "untested"
    folder = tmp_path / "explanations"
    folder.mkdir()
    for method, verdict, expected in (
        ("grad-cam", "failed", "failed"),
        ("grad-cam", "passed", "passed"),
        ("occlusion", "failed", "failed"),
        ("grad-cam", "nonsense", "untested"),
    ):
        rows = f"method,verdict,failed\n{method},{verdict},\n"
        (folder / "verdicts.csv").write_text(rows)
        assert read_map_test(tmp_path) == expected
