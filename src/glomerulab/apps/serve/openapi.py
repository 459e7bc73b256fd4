"""What the description of this interface says beyond what the code does."""

from typing import Any

from fastapi import FastAPI

from glomerulab.apps.serve.auth import OPEN_PATHS
from glomerulab.apps.serve.schemas import Fault

__all__ = ["DESCRIPTION", "IMAGE_BODY", "describe_keys", "faults"]

DESCRIPTION = (
    "A trained model of glomeruli over HTTP. Research use only: not a medical device, not for "
    "diagnosis. Crops are answered at once; slides of the server's slides folder become jobs."
)

MEANINGS = {
    401: "No API key, or one that is not known.",
    403: "Not allowed, such as a path that leads out of the slides folder.",
    404: "There is no such thing, or it is another client's.",
    408: "The body did not arrive in time.",
    409: "The job is not in a state in which this can be done.",
    413: "The body is too large.",
    422: "The request or the image cannot be understood.",
    429: "This client asks for too much at once; see Retry-After.",
    503: "The server is busy or not ready; see Retry-After.",
    507: "The server's disk is full or read-only.",
}

IMAGE_TYPES = ("image/png", "image/jpeg", "image/tiff", "image/bmp", "application/octet-stream")
IMAGE_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": "The file itself. What it is, is told by content, not by its stated type.",
        "content": {
            kind: {"schema": {"type": "string", "format": "binary"}} for kind in IMAGE_TYPES
        },
    }
}


def faults(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe the refusals of a route.

    Returns
    -------
    dict
        For FastAPI's ``responses``.
    """
    return {status: {"model": Fault, "description": MEANINGS[status]} for status in statuses}


def describe_keys(app: FastAPI) -> None:
    """Say in an application's description that it needs an API key.

    Parameters
    ----------
    app : FastAPI
        With all its routes.
    """
    document = app.openapi()  # kept by the application, and given out as it is changed here
    document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"key": []}]
    for path in OPEN_PATHS & document["paths"].keys():
        for operation in document["paths"][path].values():
            operation["security"] = []
