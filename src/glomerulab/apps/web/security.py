"""Security headers of every response, and checks of every request.

ASGI middleware, so that it covers files, pages and errors alike.
"""

from collections.abc import Callable
from urllib.parse import SplitResult, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from glomerulab.apps.web.connections import CLIENT_WAIT_S, in_time

__all__ = ["NOTICE", "SAFE_METHODS", "SecurityMiddleware", "content_policy"]

NOTICE = "Research use only: not a medical device, not for diagnosis. A pathologist must check it."
NOTICE_HEADER = "X-Research-Use-Only"


SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

EMPTY_STYLE = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
"""Hash of an empty style element, whose presence keeps OpenSeadragon from adding its own."""

ANOTHER_SITE = "a page of another site may not send this request; open the page of this server"

WITH_NUL = "the address holds the character NUL (%00); remove it"

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "X-Robots-Tag": "noindex, nofollow",
    NOTICE_HEADER: NOTICE,
}


def content_policy(*, with_boxes: bool = False, with_blobs: bool = False) -> str:
    """Return the Content-Security-Policy: nothing from other sites, nothing inline.

    Parameters
    ----------
    with_boxes : bool, default False
        For the one page that draws boxes: Annotorious' renderer compiles its shader calls and sets
        style attributes, which that page alone allows.
    with_blobs : bool, default False
        For a page that shows images which it holds itself and which have no address.
    """
    script = "script-src 'self' 'unsafe-eval'" if with_boxes else "script-src 'self'"
    parts = [
        "default-src 'none'",
        script,
        f"style-src 'self' {EMPTY_STYLE}",
        "img-src 'self' blob: data:" if with_blobs else "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    ]
    if with_boxes:
        parts.append("style-src-attr 'unsafe-inline'")
    return "; ".join(parts)


class SecurityMiddleware:
    """Add security headers and the notice; check size, host and origin of every request.

    Parameters
    ----------
    hosts : frozenset of str
        Allowed Host names; empty means any (a server for the network).
    limit_of : callable
        Returns the largest body of a request, bytes.
    host_hint : str
        Way out in the refusal of another Host header.
    body_s : float
        Time for a request's body to arrive.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        hosts: frozenset[str],
        limit_of: Callable[[Scope], int],
        host_hint: str = "use the address that the program printed at its start",
        body_s: float = CLIENT_WAIT_S,
    ) -> None:
        self.app = app
        self.hosts = hosts
        self.limit_of = limit_of
        self.host_hint = host_hint
        self.body_s = body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        with_headers = _with_headers(send)
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers) or _nul_refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, with_headers)
            return
        limit = self.limit_of(scope)
        if _stated_size(headers) > limit:
            await _too_large(limit)(scope, receive, with_headers)
            return
        received = in_time(_bounded(receive, limit), self.body_s)
        await self.app(scope, received, with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> JSONResponse | None:
        """Return the refusal of a request, or None."""
        host = headers.get("host", "")
        if self.hosts and _name(host) not in self.hosts:
            return _refused(f"Host header {host[:80]!r} is not allowed; {self.host_hint}", 421)
        if scope["method"] in SAFE_METHODS:
            return None
        if headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
            return _refused(ANOTHER_SITE, 403)
        origin = headers.get("origin")
        if origin is not None and _parts(origin).netloc != host:
            return _refused(ANOTHER_SITE, 403)
        return None


def _nul_refusal(scope: Scope) -> JSONResponse | None:
    """Return the refusal of an address that neither a file nor every database can hold."""
    if "\0" in scope["path"]:
        return _refused(WITH_NUL, 404)
    return _refused(WITH_NUL, 422) if b"%00" in scope["query_string"] else None


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Content-Security-Policy", content_policy())
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return wrapped


def _bounded(receive: Receive, limit: int) -> Receive:
    """Count received bytes: a stated size can be wrong, and a chunked body has none."""
    n_bytes = 0

    async def counted() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > limit:
            raise HTTPException(413, _too_large_text(limit))
        return message

    return counted


def _too_large(limit: int) -> JSONResponse:
    return _refused(_too_large_text(limit), 413)


def _refused(why: str, status: int) -> JSONResponse:
    return JSONResponse({"detail": why, "research_use_only": NOTICE}, status)


def _too_large_text(limit: int) -> str:
    return f"the request is too large; the limit is {limit // 1024} KiB"


def _stated_size(headers: Headers) -> int:
    stated = headers.get("content-length", "0")
    return int(stated) if stated.isdecimal() else 0


def _name(host: str) -> str:
    """Return a Host header without its port."""
    return _parts(f"//{host}").hostname or ""


def _parts(address: str) -> SplitResult:
    """Split an address from a request; an invalid one has no parts."""
    try:
        return urlsplit(address)
    except ValueError:  # such as "["
        return urlsplit("")
