"""Replies on the wire: encodings, entity tags, and lists that are sent while they are made.

An entity tag is `"VERSION-HASH"`: the version of the stored object, empty for what has none, and
a hash of the representation. If-None-Match compares both, so that runtime state counts; If-Match
compares versions, so that runtime state (a port that has become active) is no conflict.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import AsyncIterator
from hashlib import blake2b
from typing import Any

import structlog
from litestar import Request, Response
from litestar.response import Stream

from midonet.api.negotiation import accepts_gzip
from midonet.errors import MidoNetError

AnyRequest = Request[Any, Any, Any]

_GZIP_FROM_BYTES = 1024
_GZIP_LEVEL = 1
_GZIP_SUFFIX = "-gzip"
_TAG = re.compile(r'(?:W/)?"([\x21\x23-\x7e]*)"')
_log = structlog.get_logger("api")


def expected_versions(if_match: str | None) -> frozenset[int] | None:
    """Return the versions that If-Match names; None when any will do (absent, or `*`)."""
    if if_match is None or if_match.strip() == "*":
        return None
    numbers = (tag.partition("-")[0] for tag in _TAG.findall(if_match))
    return frozenset(int(one) for one in numbers if one.isdecimal() and len(one) < 20)


def respond(
    request: AnyRequest, body: bytes, media_type: str, *, version: int | None = None
) -> Response[bytes]:
    """Return a good reply to a GET, or 304 when the caller has it already."""
    tag = f"{'' if version is None else version}-{blake2b(body, digest_size=8).hexdigest()}"
    headers = {}
    suffix = ""
    if len(body) >= _GZIP_FROM_BYTES:
        headers["vary"] = "accept-encoding"
        if accepts_gzip(request.headers.get("accept-encoding")):
            suffix = _GZIP_SUFFIX
            headers["content-encoding"] = "gzip"
    headers["etag"] = f'"{tag}{suffix}"'
    if _is_known(request.headers.get("if-none-match"), tag):
        headers.pop("content-encoding", None)
        return Response(b"", status_code=304, headers=headers)
    if suffix:
        body = gzip.compress(body, compresslevel=_GZIP_LEVEL)
    return Response(body, status_code=200, media_type=media_type, headers=headers)


def _is_known(if_none_match: str | None, tag: str) -> bool:
    if if_none_match is None:
        return False
    known = {one.removesuffix(_GZIP_SUFFIX) for one in _TAG.findall(if_none_match)}
    return if_none_match.strip() == "*" or tag in known


async def respond_list(
    request: AnyRequest, chunks: AsyncIterator[bytes], media_type: str
) -> Response[Any]:
    """Return a list whose items come in chunks, each of them items joined by commas.

    A list of one chunk is sent whole. A longer one is sent while it is made, so that neither
    its length nor a slow client costs memory. Raises what making the first two chunks raises.
    """
    first = await anext(chunks, b"")
    second = await anext(chunks, b"")
    if not second:
        return respond(request, b"[" + first + b"]", media_type)
    headers = {"vary": "accept-encoding"}
    content = _array([first, second], chunks, request.scope["path"])
    if accepts_gzip(request.headers.get("accept-encoding")):
        headers["content-encoding"] = "gzip"
        content = _gzipped(content)
    if request.scope["state"].get("is_head"):
        return Response(b"", status_code=200, media_type=media_type, headers=headers)
    return Stream(content, status_code=200, media_type=media_type, headers=headers)


async def _array(
    begun: list[bytes], chunks: AsyncIterator[bytes], path: str
) -> AsyncIterator[bytes]:
    yield b"[" + b",".join(begun)
    try:
        async for chunk in chunks:
            if chunk:
                yield b"," + chunk
    except MidoNetError as error:
        # The status is sent; what is left is to end the reply so that the caller notices.
        _log.warning("list_cut_short", path=path, reason=str(error))
        raise
    yield b"]"


async def _gzipped(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    compressor = zlib.compressobj(_GZIP_LEVEL, wbits=zlib.MAX_WBITS | 16)
    async for chunk in content:
        if compressed := compressor.compress(chunk):
            yield compressed
    yield compressor.flush()
