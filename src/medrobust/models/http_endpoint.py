"""A classifier behind a local HTTP end-point: images go out in one POST, scores or labels come back as JSON.

Request: the body is a .npy file, float32 (n, c, h, w) in [0, 1], of type application/x-npy; or, ``send="png"``,
``{"images": [BASE64, ...]}`` of 8-bit PNG files, of type application/json. Answer: ``{"scores": [[...], ...]}`` or
``{"labels": [...]}``, one row or label an image; labels are class indices or names.
"""

from __future__ import annotations

import base64
import http.client
import io
import ipaddress
import json
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from medrobust import json_files, limits
from medrobust.errors import InputError, one_line

RETRIES = 5
"""Times that a request is repeated where the end-point does not answer, or says that it is busy."""
LONGEST_WAIT = 30.0
"""Seconds between two tries."""
BUSY = (408, 425, 429, 500, 502, 503, 504)


def is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


@dataclass(frozen=True)
class HttpEndpoint:
    """Answers arrays by asking ``url``; see the module for request and answer.

    send: "npy", or "png", which rounds pixels to 8 bits. timeout: seconds for one request, its answer included. rate:
    most queries a second.
    allow_remote: let images leave this machine. InputError, in one line, where the address or an answer is of no use.
    """

    url: str
    send: str = "npy"
    timeout: float = 30.0
    rate: float | None = None
    allow_remote: bool = False

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if not parts.hostname or parts.username or parts.password:
            raise InputError(f"{self.url} must read http://HOST:PORT/PATH, without a name or a password")
        if self.send not in ("npy", "png"):
            raise InputError(f"send must be npy or png, got {self.send!r}")
        if not self.timeout > 0 or (self.rate is not None and not self.rate > 0):
            raise InputError("timeout and rate must be positive")
        if not self.allow_remote and not _is_loopback(parts.hostname):
            raise InputError(
                f"{self.url} is not on this machine: images would leave it; if they may, give --allow-remote"
            )

    def sent(self, images: np.ndarray) -> np.ndarray:
        """The pixels (n, c, h, w) as the end-point gets them."""
        return images if self.send == "npy" else (images * 255).round().astype(np.uint8)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        body, kind = self._body(images)
        request = urllib.request.Request(self.url, body, {"Content-Type": kind, "Accept": "application/json"})
        answer = json_files.parse_object(self._answered(request), f"the answer of {self.url}")
        found = [key for key in ("scores", "labels") if key in answer]
        if len(found) != 1 or not isinstance(answer[found[0]], list):
            raise InputError(f'{self.url} must answer {{"scores": [[...], ...]}} or {{"labels": [...]}}')
        if self.rate is not None:
            time.sleep(len(images) / self.rate)
        try:
            return np.asarray(answer[found[0]], dtype=np.float32 if found == ["scores"] else None)
        except (ValueError, TypeError) as error:
            raise InputError(f"{self.url} gave scores that are no table of numbers: {one_line(error)}") from error

    def _body(self, images: np.ndarray) -> tuple[bytes, str]:
        if self.send == "npy":
            buffer = io.BytesIO()
            np.save(buffer, images, allow_pickle=False)
            return buffer.getvalue(), "application/x-npy"
        files = [base64.b64encode(_png(pixels)).decode() for pixels in self.sent(images)]
        return json.dumps({"images": files}).encode(), "application/json"

    def _answered(self, request: urllib.request.Request) -> bytes:
        """The body of the answer; tried again, after longer and longer waits, where there is none."""
        proxies = [urllib.request.ProxyHandler({})] if _is_loopback(urlsplit(self.url).hostname or "") else []
        opener, most = urllib.request.build_opener(_NoRedirect, *proxies), limits.value(limits.JSON_BYTES)
        for attempt in range(RETRIES + 1):
            wait = min(LONGEST_WAIT, 0.5 * 2**attempt)
            try:
                with opener.open(request, timeout=self.timeout) as response:
                    content = self._read(response, most)
                limits.check(limits.JSON_BYTES, len(content), f"the answer of {self.url}")
                return content
            except urllib.error.HTTPError as error:
                said = error.read(500).decode(errors="replace")
                if error.code not in BUSY:
                    raise InputError(
                        f"{self.url} refused the request ({error.code}): {one_line(Said(said))}"
                    ) from error
                reason, wait = f"status {error.code}", min(LONGEST_WAIT, _seconds(error) or wait)
            except (OSError, http.client.HTTPException) as error:  # refused, reset, timed out, cut off
                reason = one_line(error)
            if attempt < RETRIES:
                time.sleep(wait)
        raise InputError(
            f"{self.url} did not answer {RETRIES + 1} times ({reason}); the same command goes on from here"
        )

    def _read(self, response: http.client.HTTPResponse, most: int) -> bytes:
        """At most a byte more than ``most``; TimeoutError where it comes too slowly (a socket counts each part)."""
        content, until = bytearray(), time.monotonic() + self.timeout
        while len(content) <= most and (part := response.read1(65536)):
            content += part
            if time.monotonic() > until:
                raise TimeoutError("the answer is not over in time")
        if response.length and len(content) <= most:
            raise http.client.IncompleteRead(bytes(content), response.length)
        return bytes(content)


class Said(Exception):  # noqa: N818 (the text of a server's refusal, for ``one_line``)
    pass


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Images go to the address that was given, and to no other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _seconds(error: urllib.error.HTTPError) -> float | None:
    """What Retry-After says, where it is a number."""
    try:
        return max(0.0, float(error.headers.get("Retry-After", "")))
    except ValueError:
        return None


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()
