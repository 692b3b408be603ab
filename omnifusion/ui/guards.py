"""Bounds and checks on all that reaches the server; refusals and failures are answered with one sentence."""

import base64
import logging
import os
import re
from collections import Counter
from contextlib import aclosing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

import gradio as gr
import httpx
import safehttpx
from gradio.route_utils import FnIndexInferError
from gradio.utils import get_upload_folder
from PIL import Image
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse

from omnifusion.progress import InputError
from omnifusion.ui.parts import ASSETS, ENDPOINT_OPTIONS, PAGE_OPTIONS, in_words, text

log = logging.getLogger(__name__)

BODY_MIB = 4  # largest body of a request that is not an upload
STREAM = re.compile(r"/gradio_api/(?:queue/data|call/(?:v2/)?[^/]+/([^/]+))")  # the paths of streams of answers
LOCAL = ["localhost", "127.0.0.1", "[::1]"]

listening: Counter[str] = Counter()
"""How many streams of answers are open, by the session (or the event of a program) that they belong to."""


class Page(gr.Blocks):
    """A page that bounds its inputs, and answers every mistake with one sentence."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], state: Any, *args: Any, **kw: Any) -> list[Any]:
        """See ``gr.Blocks``; missing last values are the defaults, values of another kind are mistakes, and those of
        sliders are clipped to their present range."""
        inputs = [*inputs, *(component.value for component in block_fn.inputs[len(inputs) :])]
        for k, (component, value) in enumerate(zip(block_fn.inputs, inputs, strict=False)):
            if (advice := _wrong_kind(component, value)) is not None:
                raise InputError(f"{component.label} is {value!r:.40}; {advice}.")
            if isinstance(component, gr.Slider) and value is not None:
                now = state[component._id] if state is not None and component._id in state else component
                inputs[k] = min(max(value, now.minimum), now.maximum)
        try:
            return await super().preprocess_data(block_fn, inputs, state, *args, **kw)
        except Exception as error:
            log.info("refused before it was read: %s", error)
            if isinstance(error.__cause__, Image.DecompressionBombError):
                most = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
                raise InputError(f"The picture has more than {most:.0f} million pixels; make it smaller.") from error
            raise InputError(
                "What was given cannot be read: a file has to be uploaded here, whole and of a common kind, an address "
                "public and what it leads to no larger than an upload may be."
            ) from error

    async def process_api(self, block_fn: Any, *args: Any, **kw: Any) -> dict[str, Any]:
        """See ``gr.Blocks``."""
        try:
            return await super().process_api(block_fn, *args, **kw)
        except Exception as error:
            function = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
            options = ENDPOINT_OPTIONS if function.api_visibility == "public" else PAGE_OPTIONS
            raise gr.Error(in_words(error, options), duration=12, print_exception=False) from None


def _wrong_kind(component: Any, value: Any) -> str | None:
    """What to give instead of a value that no component of this kind would send; None if it is valid."""
    if value is None:
        return None
    if isinstance(component, gr.Number | gr.Slider):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return None if number and abs(value) < 1e300 else "give a number"
    if isinstance(component, gr.Textbox):
        return None if isinstance(value, str) else "give a text"
    if isinstance(component, gr.Video | gr.Image):
        path = value.get("path") if isinstance(value, dict) else None
        if isinstance(path, str) and "\0" not in path:
            uploaded = Path(path).resolve().is_relative_to(Path(get_upload_folder()).resolve())
            if uploaded or path.startswith(("http://", "https://")):
                return None
        return "give a file that was uploaded here"
    return None


class Guard:
    """ASGI middleware: limits request bodies (uploads to ``megabytes``), lets proxies forward the names in ``hosts``
    alone (on a Hugging Face Space any), sets security headers, counts the listeners of each session, and shows an
    animation until the page has loaded."""

    def __init__(self, app: Any, megabytes: int, hosts: list[str]) -> None:
        self.app, self.megabytes, space = app, megabytes, "SPACE_ID" in os.environ
        self.forwarded = None if space else {host for host in hosts if host != "*"}
        self.headers = {
            "Content-Security-Policy": "frame-ancestors 'self'" + " https://huggingface.co" * space,
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "same-origin",
        }
        poster = base64.b64encode((ASSETS / "first.webp").read_bytes()).decode()
        self.splash = text("splash.html").replace("POSTER", poster).encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Check a request and pass it on."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        forwarded = MutableHeaders(scope=scope).get("x-forwarded-host", "").partition(":")[0]
        if self.forwarded is not None and forwarded not in self.forwarded:
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name != b"x-forwarded-host"]
        path, get, counted = scope["path"], scope["method"] == "GET", 0
        query = parse_qs(scope["query_string"].decode("latin-1"))
        (as_name,) = query.get("as", [""])[:1]
        most = BODY_MIB + (self.megabytes if path == "/gradio_api/upload" else 0)

        async def bounded() -> Any:
            nonlocal counted
            received = await receive()
            counted += len(received.get("body", b""))
            if counted > most << 20:
                raise HTTPException(413, f"The request has more than {most} MiB.")
            return received

        async def marked(sent: Any) -> None:
            if sent["type"] == "http.response.start":
                headers = MutableHeaders(scope=sent)
                headers.update(self.headers)
                if as_name and path.startswith("/gradio_api/file="):
                    headers["content-disposition"] = f"attachment; filename*=UTF-8''{quote(as_name)}"
                if path == "/" and get:
                    del headers["content-length"]
            elif path == "/" and get:
                sent["body"] = sent["body"].replace(b"</body>", self.splash + b"</body>")
            await send(sent)

        stream = STREAM.fullmatch(path) if get else None
        session = stream[1] or query.get("session_hash", [""])[0] if stream else ""
        listening[session] += 1
        try:
            await self.app(scope, bounded, marked)
        finally:
            listening[session] -= 1
            if not listening[session]:
                del listening[session]


def app_kwargs(megabytes: int, share: bool) -> dict[str, Any]:
    """Options of the server. If only this machine reaches it, and OMNIFUSION_HOSTS names no others, local names alone
    are accepted: any other is a foreign page's attempt to read data here."""
    named = os.environ.get("OMNIFUSION_HOSTS", "").replace(",", " ").split()
    local = os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1") in (*LOCAL, "::1") and not share
    hosts = [*LOCAL, *named] if named or local else ["*"]
    trusted = Middleware(TrustedHostMiddleware, allowed_hosts=hosts, www_redirect=False)
    return {
        "middleware": [trusted, Middleware(Guard, megabytes=megabytes, hosts=hosts)],
        "exception_handlers": {FnIndexInferError: _refusal, Exception: _refusal},
    }


async def _refusal(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, FnIndexInferError):
        return JSONResponse({"error": "There is no endpoint of this name."}, 404)
    return JSONResponse({"error": in_words(error)}, 500)


class BoundedDownloads(httpx.AsyncBaseTransport):
    """Downloads of URLs given by visitors: public addresses only, of limited size, no compressed responses."""

    def __init__(self, megabytes: int) -> None:
        self.most = megabytes << 20

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See ``httpx``; the host is resolved once, to a public address, which is then used."""
        request.headers["Accept-Encoding"] = "identity"
        address = await safehttpx.async_validate_url(request.url.host)
        response = await safehttpx.AsyncSecureTransport(address).handle_async_request(request)
        content = bytearray()
        async with aclosing(response):
            if "content-encoding" in response.headers:
                raise httpx.DecodingError("packed answers are not taken", request=request)
            async for part in response.aiter_raw():
                content += part
                if len(content) > self.most:
                    raise httpx.ReadError(f"more than {self.most >> 20} MiB")
        return httpx.Response(response.status_code, headers=response.headers, content=bytes(content))
