import dataclasses

import pandas as pd
import pytest

from glomerulab.evaluation.result import evaluate_run
from glomerulab.evaluation.run_tables import read_run
from glomerulab.reports.run.subgroup_tables import MAX_ROWS, subgroup_tables
from tests.support.run_folders import RunRecipe, write_run


@pytest.fixture(scope="module")
def judgement(tmp_path_factory):
    return evaluate_run(read_run(write_run(tmp_path_factory.mktemp("run") / "run", RunRecipe())))


def test_stains_come_with_intervals_and_patients_without(judgement):
    stains, _, patients = subgroup_tables(judgement)
    assert {row[0] for row in stains.rows} == {"HE", "PAS"}
    assert all(" to " in row[-1] for row in stains.rows)
    assert not any(" to " in row[-1] for row in patients.rows)


def test_of_many_groups_the_lowest_are_shown(judgement):
    _, slides, _ = subgroup_tables(judgement)
    assert len(slides.rows) == MAX_ROWS
    assert f"The {MAX_ROWS} lowest of 16" in slides.note
    shares = [float(row[3].split("\N{NO-BREAK SPACE}")[0]) for row in slides.rows]
    assert shares == sorted(shares)


def test_no_groups_no_tables(judgement):
    assert subgroup_tables(dataclasses.replace(judgement, subgroups=pd.DataFrame())) == ()
