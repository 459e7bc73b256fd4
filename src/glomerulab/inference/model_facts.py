"""What a reader of a case must know of the model that judged it."""

from pathlib import Path

from glomerulab.cases.case_folder import ModelFacts
from glomerulab.inference.calibration import Gates
from glomerulab.inference.engines.base import Engine

__all__ = ["model_facts"]


def model_facts(engine: Engine, gates: Gates, run: Path) -> ModelFacts:
    """Say what a reader must know of a model.

    Parameters
    ----------
    engine : Engine
    gates : Gates
    run : Path
        Only its name is told.

    Returns
    -------
    ModelFacts
    """
    card, facts = engine.card, gates.facts
    return ModelFacts(
        model=card.model,
        head=card.head,
        taxonomy_name=card.taxonomy_name,
        labels=card.labels,
        run=run.resolve().name,
        normalized_to=tuple(gates.references),
        **facts.model_dump(exclude={"format"}),
    )
