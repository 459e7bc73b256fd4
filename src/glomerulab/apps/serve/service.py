"""State that all requests of a server share."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from anyio import CapacityLimiter
from fastapi import Depends, Request

from glomerulab.apps.serve.files import SlideFolder
from glomerulab.apps.serve.inbox import Inbox
from glomerulab.apps.serve.jobs import Jobs
from glomerulab.apps.serve.metrics import Metrics
from glomerulab.apps.serve.predictor import Predictor
from glomerulab.apps.serve.settings import Limits
from glomerulab.cases.case_folder import DetectorFacts, ModelFacts
from glomerulab.errors import ConfigError, TaxonomyError
from glomerulab.inference.calibration import (
    ModelCalibration,
    model_facts,
)
from glomerulab.inference.engines.base import Engine
from glomerulab.inference.model import load_model
from glomerulab.models.card import ModelCard
from glomerulab.runtime.messages import did_you_mean
from glomerulab.runtime.sealing import is_crossval, open_model_folder
from glomerulab.taxonomy import Taxonomy

if TYPE_CHECKING:
    from glomerulab.apps.serve.overlays import Overlays

MAX_NAME_LENGTH = 40
"""Of an unknown parameter in a message."""


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A loaded run or export."""

    run: Path
    card: ModelCard
    calibration: ModelCalibration
    facts: ModelFacts
    predictor: Predictor
    engine_name: str
    overlays: "Overlays | None"
    """None for an export, which has no gradients, and a cross-validation, which has many models."""
    notes: tuple[str, ...] = ()
    """Notes of every response, such as the loss of an 8-bit engine."""
    fingerprint: str = ""
    """Identifies what was loaded; jobs refuse another model."""


def load_served_model(
    run: Path, metrics: Metrics, *, taxonomy: Taxonomy | None = None
) -> ServedModel:
    """Load a run or an export, and run it once."""
    files = open_model_folder(run)
    model = load_model(files, fit_missing=False)
    engine, calibration = model.engine, model.calibration
    if taxonomy is not None and taxonomy.label_ids != engine.card.taxonomy.label_ids:
        raise TaxonomyError(
            f"the model has the labels {', '.join(engine.card.taxonomy.label_ids)}, but --taxonomy "
            f"{taxonomy.name} has {', '.join(taxonomy.label_ids)}; serve another model or taxonomy",
            where=str(run),
        )
    overlays = None
    is_export = (run / "model.onnx").is_file()
    if not is_export and not is_crossval(run):
        from glomerulab.apps.serve.overlays import Overlays

        overlays = Overlays(files)
    predictor = Predictor(engine, calibration, on_batch=metrics.batches.observe)
    return ServedModel(
        run,
        engine.card,
        calibration,
        model_facts(engine, calibration, run),
        predictor,
        "onnxruntime" if is_export else "torch",
        overlays,
        (*_engine_notes(engine), *((model.seal_warning,) if model.seal_warning else ())),
        model.fingerprint,
    )


def _engine_notes(engine: Engine) -> tuple[str, ...]:
    loss = getattr(engine.card, "loss", None)
    if loss is None:
        return ()
    return (f"The model runs in 8-bit integers; when it was exported, {loss.text}.",)


@dataclass(frozen=True, eq=False)
class Service:
    """Dependencies of the routes."""

    model: ServedModel
    metrics: Metrics
    limits: Limits = field(default_factory=Limits)
    needs_key: bool = False
    slides: SlideFolder | None = None
    jobs: Jobs | None = None
    """None, like `slides`, if only crops are served."""
    detector: DetectorFacts | None = None
    """Of the segmenter that outlines glomeruli; None if the server has none."""
    references: Mapping[str, str] = field(default_factory=dict)
    """Pictures that explain the labels, as data by label id."""
    inbox: Inbox | None = None
    # Limits the memory of concurrent decoding.
    preparing: CapacityLimiter = field(
        default_factory=lambda: CapacityLimiter(max(2, os.cpu_count() or 2))
    )

    def close(self) -> None:
        """Stop the inbox, the jobs and the predictor."""
        if self.inbox is not None:
            self.inbox.close()
        if self.jobs is not None:
            self.jobs.close()
        self.model.predictor.close()


async def _service(request: Request) -> Service:
    # Async, since a plain dependency would run in a thread.
    service: Service = request.app.state.service
    return service


async def _client(request: Request) -> str:
    name: str = request.state.client
    return name


CurrentService = Annotated[Service, Depends(_service)]
Client = Annotated[str, Depends(_client)]
"""The client's name, set by `AuthMiddleware`."""


async def _known_parameters(request: Request) -> None:
    """Refuse a misspelt query parameter, or one that is given twice, of which one would count."""
    known = [one.alias for one in request.scope["route"].dependant.query_params]
    names = [name for name, _ in request.query_params.multi_items()]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(
                f"the query parameter {name[:MAX_NAME_LENGTH]!r} is given twice; give it once"
            )
        if name not in known:
            listed = ", ".join(known) or "none"
            raise ConfigError(
                f"unknown query parameter {name[:MAX_NAME_LENGTH]!r}{did_you_mean(name, known)} "
                f"(known: {listed})"
            )


KNOWN_PARAMETERS = Depends(_known_parameters)
"""For routes and routers whose query is checked."""
