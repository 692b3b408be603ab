"""What reaches the server from outside is bounded before anything is made of it: bodies of requests, downloads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import gradio.processing_utils
import httpx
import safehttpx
from starlette.exceptions import HTTPException

BODY_MIB = 4
"""Largest body of a request that is no upload."""


class BoundedBodies:
    """ASGI middleware: answers 413 where a body that is no upload (those Gradio bounds by itself) is too large."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on, counting its body."""
        counted = 0

        async def bounded() -> Any:
            nonlocal counted
            message = await receive()
            counted += len(message.get("body", b""))
            if counted > BODY_MIB << 20:
                raise HTTPException(413, f"The request has more than {BODY_MIB} MiB; upload files instead.")
            return message

        uploads = scope["type"] != "http" or scope["path"].endswith("/upload")
        await self.app(scope, receive if uploads else bounded, send)


class BoundedDownloads(httpx.AsyncBaseTransport):
    """Fetches what visitors name by its public address, up to a size, and nothing that is packed."""

    def __init__(self, megabytes: int) -> None:
        self.most = megabytes << 20

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See ``httpx``; the address is looked up once, has to be public, and is the one that is asked."""
        request.headers["Accept-Encoding"] = "identity"
        address = await safehttpx.async_validate_url(request.url.host)
        response = await self.fetch(address, request)
        if "content-encoding" in response.headers:
            raise httpx.DecodingError("packed answers are not taken", request=request)
        return httpx.Response(
            response.status_code, headers=response.headers, stream=_Counted(response.stream, self.most)
        )

    async def fetch(self, address: str, request: httpx.Request) -> httpx.Response:
        """Ask the host at ``address``, whatever its name means by now."""
        return await safehttpx.AsyncSecureTransport(address).handle_async_request(request)


class _Counted(httpx.AsyncByteStream):
    def __init__(self, stream: Any, most: int) -> None:
        self.stream, self.most = stream, most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        count = 0
        async for part in self.stream:
            count += len(part)
            if count > self.most:
                raise httpx.ReadError(f"more than {self.most >> 20} MiB")
            yield part

    async def aclose(self) -> None:
        await self.stream.aclose()


def bound_downloads(megabytes: int) -> None:
    """Let Gradio fetch no more than so much for a value that is an address."""
    gradio.processing_utils.async_transport = BoundedDownloads(megabytes)
