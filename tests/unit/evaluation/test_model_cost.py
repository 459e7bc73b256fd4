import json
from dataclasses import asdict

from glomerulab.evaluation.model_cost import ModelCost


def test_a_cost_comes_back_from_json_as_it_was() -> None:
    cost = ModelCost(224, 18_420_000, 2_900_000_000, 11.5, 40.25, 73_700_000, "a processor")
    assert ModelCost(**json.loads(json.dumps(asdict(cost)))) == cost
