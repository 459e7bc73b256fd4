"""The OpenAPI description of what every route answers, for programs that use or test the server."""

from typing import Any

from fastapi import FastAPI

MEANINGS = {
    303: "The page to go to, such as the log-in.",
    401: "Not logged in.",
    403: "Not allowed, or not the page's write token.",
    404: "It does not exist, or is in another queue.",
    408: "The body did not arrive in time.",
    409: "It was changed since it was read.",
    413: "The body is too large.",
    421: "The Host header is not this server's.",
    422: "The request is invalid.",
    429: "Too many failed log-ins; see Retry-After.",
    503: "The database is busy; see Retry-After.",
    507: "The disk or the database cannot take it.",
}
PAGE_ONLY, API_ONLY, LOGIN_ONLY = {303}, {401}, {429}
JSON, PAGE, IMAGE = "application/json", "text/html", "image/*"
BY_END = {
    ".jpg": (IMAGE,),
    "/image": (IMAGE,),
    "/thumbnail": (IMAGE,),
    "/picture": (IMAGE,),
    ".geojson": ("application/geo+json",),
    "/export/{name}": (JSON, "text/csv", "application/jsonl"),
}


def describe_answers(app: FastAPI) -> None:
    """Add the statuses and content types of every route to an application with all its routes."""
    document = app.openapi()  # cached by the application
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _describe(operation["responses"], path, method)


def _describe(responses: dict[str, Any], path: str, method: str) -> None:
    is_api, is_login = path.startswith("/api/"), path in {"/login", "/api/session", "/account"}
    if not is_api:
        taken = next((kinds for end, kinds in BY_END.items() if path.endswith(end)), (PAGE,))
        responses["200"]["content"] = {kind: {} for kind in taken}
        if method == "post":
            responses["204"] = {"description": "Done; HX-Redirect has the page to go to."}
    for status, meaning in MEANINGS.items():
        left_out = PAGE_ONLY if is_api else API_ONLY
        if status in left_out or (status in LOGIN_ONLY and not is_login):
            continue
        # The checks before a route answer with JSON, the routes of pages with a page.
        kinds = () if status == 303 else (JSON,) if is_api else (JSON, PAGE)
        content: dict[str, Any] = {kind: {} for kind in kinds}
        responses[str(status)] = {"description": meaning, "content": content}
