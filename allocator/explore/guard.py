"""Access control: only the server's own page may send requests, because only it knows the token in the address."""

import hmac

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Plotly styles its drawings so
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}
MOST_BODY = 1 << 22
"""Maximum size of a request's body in bytes, sufficient for locks of a hundred thousand images."""


class Guard:
    """ASGI middleware that accepts only requests with this server's host, origin and token.

    Args:
        app: the application, with its routes below ``/TOKEN``.
        token: the first part of each path.
        port: the server's port.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app, self._token = app, token
        self._hosts = {f"127.0.0.1:{port}", f"localhost:{port}"}
        self._origins = {f"http://{host}" for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if sentence := self._fault(scope):
            await PlainTextResponse(sentence, 403, headers=_HEADERS)(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await self._app(scope, receive, send_guarded)

    def _fault(self, scope: Scope) -> str:
        headers = Headers(scope=scope)
        token = scope["path"].removeprefix("/").partition("/")[0]  # the path may be "*"
        if headers.get("host") not in self._hosts:
            return "This server accepts requests to 127.0.0.1 only."
        if not hmac.compare_digest(token.encode(), self._token.encode()):
            return "Open the whole address that `allocator explore` printed: this one lacks its token."
        if headers.get("origin", next(iter(self._origins))) not in self._origins:
            return "Pages of other sites may not send requests to this server."
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            return "Pages of other sites may not send requests to this server."
        return ""
