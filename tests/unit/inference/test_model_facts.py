from pathlib import Path

from glomerulab.inference.engines.base import open_engine
from glomerulab.inference.fit_calibration import fit_gates
from glomerulab.inference.model_facts import model_facts


def test_a_reader_is_told_which_weights_judged_and_no_path(trained: Path) -> None:
    engine, gates = open_engine(trained), fit_gates(trained)
    facts = model_facts(engine, gates, trained)
    assert facts.weights_sha256 == engine.weights_sha256
    assert facts.run == trained.name
    assert facts.labels == engine.card.labels
    assert str(trained.parent) not in facts.model_dump_json()
