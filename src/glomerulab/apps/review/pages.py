"""The list of cases and the message page."""

from collections.abc import Mapping
from functools import partial

from glomerulab.cases.case import Case
from glomerulab.i18n.catalogue import Language, translate
from glomerulab.reports.case.view import case_view
from glomerulab.reports.html import page_environment

PLAIN_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Content policy of pages without scripts and images."""


def cases_page(cases: Mapping[str, Case], language: Language) -> str:
    """Return the page that lists the cases, given by the last part of their address."""
    rows = [
        (
            name,
            case.patient,
            case_view(case, language).headline,
            case.summary.n_referred,
            len(case.latest_corrections),
        )
        for name, case in cases.items()
    ]
    is_synthetic = any(case.facts.is_synthetic for case in cases.values())
    return _page("cases.html.j2", language, rows=rows, is_synthetic=is_synthetic)


def message_page(text: str, language: Language) -> str:
    """Return a page with a message."""
    return _page("message.html.j2", language, text=text)


def _page(template: str, language: Language, **values: object) -> str:
    return (
        page_environment("glomerulab.apps.review")
        .get_template(template)
        .render(_=partial(translate, language=language), language=language, **values)
    )
