"""Route that predicts one crop per request."""

import asyncio
import base64
import io
from functools import partial
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request

from glomerulab.apps.serve.auth import CROPS_PATH
from glomerulab.apps.serve.errors import BusyError
from glomerulab.apps.serve.schemas import (
    IMAGE_BODY,
    CropResponse,
    LabelResponse,
    Mpp,
    Overlay,
    Reason,
    Stain,
    error_responses,
)
from glomerulab.apps.serve.service import KNOWN_PARAMETERS, CurrentService, ServedModel, Service
from glomerulab.cases.calls import REASONS
from glomerulab.errors import ImageFileError
from glomerulab.i18n.catalogue import Language, translate
from glomerulab.images import decode_image
from glomerulab.inference.decide import Decision
from glomerulab.inference.image_predictions import ImagePrediction
from glomerulab.inference.model import PreparedCrop, decide_crops, prepare_crop
from glomerulab.slides.scale import image_scale_warning

router = APIRouter(dependencies=[KNOWN_PARAMETERS])

HOW_TO_SEND = (
    "send the bytes of the image file as the body, such as with `curl --data-binary @crop.png`"
)
SAME_MPP = 0.1
"""Relative tolerance, as in `glomerulab predict`."""
SCALE_UNKNOWN = (
    "The crop's micrometres per pixel are not known, so its scale may differ from the model's."
)
NO_OVERLAY = (
    "No overlay: this server runs an export, which has no gradients. Serve the run itself for one."
)


@router.post(
    CROPS_PATH,
    responses=error_responses(401, 403, 408, 413, 422, 429, 503),
    openapi_extra=IMAGE_BODY,
)
async def predict_crop(
    request: Request,
    service: CurrentService,
    *,
    stain: Annotated[Stain | None, Query(description="Stain, as in manifests.")] = None,
    mpp: Annotated[Mpp | None, Query(description="Micrometres per pixel of the crop.")] = None,
    saliency: Annotated[bool, Query(description="Also return a saliency overlay.")] = False,
    language: Annotated[Language, Query(description="Of reasons and notes.")] = "en",
) -> CropResponse:
    """Predict one crop of a glomerulus; the body is a PNG, JPEG, TIFF or BMP file."""
    content = await request.body()
    if not content:
        raise ImageFileError(f"the request's body is empty; {HOW_TO_SEND}")
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        raise ImageFileError(f"the request's body is a form with a file in it; {HOW_TO_SEND}")
    service.metrics.in_flight.inc()
    try:
        async with asyncio.timeout(service.limits.answer_s):
            response = await _response(
                service, content, stain=stain, mpp=mpp, saliency=saliency, language=language
            )
    except TimeoutError as error:
        raise BusyError(
            f"the crop was not processed within {service.limits.answer_s:g} s; try again",
            status=503,
            wait_s=10,
        ) from error
    finally:
        service.metrics.in_flight.dec()
    service.metrics.crops.labels("yes" if response.referred else "no").inc()
    return response


async def _response(
    service: Service,
    content: bytes,
    *,
    stain: str | None,
    mpp: float | None,
    saliency: bool,
    language: Language,
) -> CropResponse:
    model = service.model
    draws = saliency and model.overlays is not None
    crop, doubts = await to_thread.run_sync(
        partial(_prepared, service, content, stain=stain, mpp=mpp, saliency=draws),
        limiter=service.preparing,
    )
    prediction = await asyncio.wrap_future(model.predictor.submit(crop))
    (decision,) = decide_crops([crop], [prediction], model.card, model.calibration)
    overlay, notes = None, (*model.notes, *doubts, *_mpp_notes(mpp, model.card.mpp, language))
    draws = draws and decision.is_assessed
    if saliency and model.overlays is None:
        notes = (*notes, translate(NO_OVERLAY, language))
    elif draws:
        overlay = await to_thread.run_sync(
            partial(_overlay, model, crop, decision), limiter=service.preparing
        )
    is_scale_known = mpp is not None and model.card.mpp is not None
    return _crop_response(
        model,
        crop,
        prediction,
        decision,
        is_scale_known=is_scale_known,
        overlay=overlay,
        notes=notes,
        language=language,
    )


def _prepared(
    service: Service, content: bytes, *, stain: str | None, mpp: float | None, saliency: bool
) -> tuple[PreparedCrop, tuple[str, ...]]:
    """Return a decoded crop, and a note if its file states another scale than the request."""
    try:
        image = decode_image(content, max_pixels=service.limits.crop_pixels)
    except ImageFileError as error:
        raise ImageFileError(f"{error.message}; {HOW_TO_SEND}") from error
    model = service.model
    crop = prepare_crop(
        image, model.card, model.calibration, stain=stain, mpp=mpp, with_picture=saliency
    )
    doubt = None if mpp is None else image_scale_warning(io.BytesIO(content), mpp)
    return crop, () if doubt is None else (str(doubt),)


def _overlay(model: ServedModel, crop: PreparedCrop, decision: Decision) -> Overlay:
    assert model.overlays is not None
    assert crop.picture is not None
    chances = decision.probabilities
    likeliest = max(chances, key=lambda label_id: chances[label_id])
    png = model.overlays.draw(crop.model_input.pixels, crop.picture, likeliest)
    return Overlay(
        label=likeliest, method=model.overlays.method, png_base64=base64.b64encode(png).decode()
    )


def _mpp_notes(mpp: float | None, wanted: float | None, language: Language) -> tuple[str, ...]:
    """Return a note where the scale is unknown or differs from the model's."""
    if mpp is None or wanted is None:
        return (translate(SCALE_UNKNOWN, language),)
    if abs(mpp / wanted - 1) <= SAME_MPP:
        return ()
    text = translate(
        "The crop is at {mpp} µm per pixel, the model was trained on crops at {wanted}; it is "
        "resized to the network's input all the same.",
        language,
        mpp=f"{mpp:g}",
        wanted=f"{wanted:g}",
    )
    return (text,)


def _crop_response(
    model: ServedModel,
    crop: PreparedCrop,
    prediction: ImagePrediction,
    decision: Decision,
    *,
    is_scale_known: bool,
    overlay: Overlay | None,
    notes: tuple[str, ...],
    language: Language,
) -> CropResponse:
    facts = model.calibration.facts
    labels = tuple(
        LabelResponse(
            id=label.id,
            name=label.name,
            name_zh=label.name_zh,
            probability=decision.probabilities[label.id],
            called=label.id in decision.called,
            state=decision.states[label.id],
        )
        for label in model.card.labels
    )
    return CropResponse(
        weights_sha256=facts.weights_sha256,
        labels=labels,
        assessed=decision.is_assessed,
        called=tuple(label.id for label in labels if label.called),
        conformal_set=tuple(label.id for label in labels if label.state != "absent"),
        coverage=facts.coverage,
        referred=bool(decision.reasons),
        reasons=tuple(
            Reason(word=key, meaning=translate(REASONS[key], language)) for key in decision.reasons
        ),
        scale_known=is_scale_known,
        stain=crop.stain,
        stain_status=crop.stain_status,
        distance=prediction.distance,
        distance_threshold=facts.distance_threshold,
        sharpness=prediction.sharpness,
        sharpness_threshold=facts.sharpness_threshold,
        overlay=overlay,
        notes=notes,
    )
