import pytest

from glomerulab.evaluation.result import evaluate_run
from glomerulab.evaluation.run_tables import read_run
from glomerulab.reports.run.checklists import (
    CHECKLISTS,
    checklist_tables,
    known_facts,
    load_checklist,
)
from tests.support.run_folders import RunRecipe, write_run


@pytest.fixture(scope="module")
def judgement(tmp_path_factory):
    folder = write_run(tmp_path_factory.mktemp("run") / "run", RunRecipe(n_patients=10))
    return evaluate_run(read_run(folder))


@pytest.mark.parametrize(("name", "n_main"), [("tripod_ai", 27), ("claim", 44)])
def test_a_checklist_has_every_item_once(name, n_main):
    numbers = [item.number for item in load_checklist(name).items]
    assert len(set(numbers)) == len(numbers)
    main = {int(number.rstrip("abcdefg")) for number in numbers}
    assert main == set(range(1, n_main + 1))


@pytest.mark.parametrize("name", CHECKLISTS)
def test_items_ask_only_for_facts_there_are(judgement, name):
    known = known_facts(judgement)
    asked = {fact for item in load_checklist(name).items for fact in item.facts}
    assert asked <= set(known)


def test_what_the_run_cannot_know_is_for_the_author(judgement):
    tripod, claim = checklist_tables(judgement)
    rows = dict(tripod.rows)
    assert rows["17. Ethical approval and consent"] == "for the author"
    assert "Split by patient" in dict(claim.rows)["20. Level at which partitions are disjoint"]
    assert tripod.is_collapsed
