"""The model, its thresholds and the slides of a case, as rows of names and texts."""

from glomerulab.cases.case_folder import CaseFacts, ModelFacts, SlideFacts
from glomerulab.i18n.catalogue import Language, localized, translate, translate_count

__all__ = ["card_rows", "model_rows", "slide_text"]


def slide_text(slide: SlideFacts) -> str:
    """Return stain, size and scale of a slide."""
    mpp = f", {slide.mpp:.3g} µm/px" if slide.mpp else ""
    return f"{slide.stain or '?'}, {slide.width} × {slide.height} px{mpp}"


def model_rows(facts: CaseFacts, language: Language) -> tuple[tuple[str, str], ...]:
    """Return the model's card and when it predicted a case, as names and texts."""
    predicted = translate(
        "{created}, glomerulab {version}",
        language,
        created=facts.created,
        version=facts.glomerulab,
    )
    *card, limits = card_rows(facts.model, language)
    return (*card, (translate("Predicted", language), predicted), limits)


def card_rows(m: ModelFacts, language: Language) -> tuple[tuple[str, str], ...]:
    """Return the model's card as names and texts: training, calibration, thresholds, limits."""
    comma = translate("sign|, ", language)
    trained_on = translate(
        "{images} of {patients}; stains: {stains}",
        language,
        images=translate_count(m.n_training_images, "{n} image", "{n} images", language),
        patients=translate_count(m.n_training_patients, "{n} patient", "{n} patients", language),
        stains=", ".join(f"{stain} {n}" for stain, n in m.stains_seen.items()) or "?",
    )
    if m.trained_on_synthetic:
        trained_on += translate("; SYNTHETIC", language)
    rows = {
        translate("report|Model", language): translate(
            "{model}, {head}; run {run}; weights {weights}",
            language,
            model=m.model,
            head=m.head,
            run=m.run,
            weights=m.weights_sha256[:12],
        ),
        translate("Trained on", language): trained_on,
        translate("On its held-out part", language): localized(m, "test_summary", language)
        or translate("not stated", language),
        translate("report|Labels", language): comma.join(
            localized(one, "name", language) for one in m.labels
        ),
        translate("Temperature", language): translate(
            "{temperature}, fitted on {n} validation images",
            language,
            temperature=f"{m.temperature:.2f}",
            n=m.n_validation,
        ),
        translate("Conformal sets", language): translate(
            "contain the true label in {coverage} of cases; a label needs a probability of "
            "{threshold}",
            language,
            coverage=f"{m.coverage:.0%}",
            threshold=f"{m.conformal_threshold:.2f}",
        ),
        translate("Unlike the training images", language): translate(
            "distance above {threshold} (95 % of validation images are below)",
            language,
            threshold=f"{m.distance_threshold:.2f}",
        ),
        translate("Out of focus", language): translate(
            "sharpness below {threshold}", language, threshold=f"{m.sharpness_threshold:.2f}"
        ),
        translate("Colours normalised to a reference", language): comma.join(m.normalized_to)
        or translate("stains|no", language),
        translate("Not for", language): translate(
            "Diagnosis or treatment; any decision about a patient.", language
        ),
    }
    return tuple(rows.items())
