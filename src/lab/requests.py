"""Requests of the page: JSON that is safe to take, and older requests that newer ones replace."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from src.errors import InputError
from src.io import parse_json, printable

MAX_BODY_BYTES = 1 << 20
MAX_CLIENTS = 64  # tabs whose newest requests are remembered
MAX_NAME_CHARACTERS = 64
MAX_SEQUENCE = 1 << 53  # the largest whole number of JavaScript
FOLLOWERS = ("interval", "errors", "coco")  # of a score: a newer one makes them old
CHANNELS = ("score", "errors", "interval", "image", "grid", "coco")


class DroppedError(Exception):
    """Raised in a request that a newer one of its channel has replaced."""


def parse_body(body: bytes) -> dict[str, Any]:
    """Parse the JSON object of a request.

    Raises:
        InputError: It is no JSON, no object, nested too deep, or has a number that is not finite
            or a string that is no text.
    """
    try:
        content = parse_json(body, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError:
        raise InputError("the body must be JSON, got one that is nested too deep") from None
    except ValueError as error:  # bytes that are not UTF-8, too
        raise InputError(f"the body must be JSON, got another one ({printable(error)})") from None
    if not isinstance(content, dict):
        raise InputError(f"the body must be a JSON object, got {type(content).__name__}")
    return content


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{printable(text, limit=40)} is not finite")
    return value


def take(body: Mapping[str, Any], key: str, kind: type, *, legal: str) -> Any:
    """Return a value of a request.

    Raises:
        InputError: It is missing or of another type.
    """
    value = body.get(key)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{key} must be {legal}, got {printable(repr(value), limit=80)}")
    return value


class Channels:
    """Keeps the number of the newest request of each page and channel."""

    def __init__(self) -> None:
        self._newest: OrderedDict[str, dict[str, int]] = OrderedDict()
        self._lock = threading.Lock()

    def enter(self, body: Mapping[str, Any], channel: str) -> Ticket:
        """Register a request by its ``client`` and ``sequence``.

        Raises:
            InputError: One of them is not legal.
        """
        client = take(body, "client", str, legal="the id of a page")
        if not 0 < len(client) <= MAX_NAME_CHARACTERS:
            raise InputError(f"client must have 1 to {MAX_NAME_CHARACTERS} characters")
        sequence = take(body, "sequence", int, legal="a whole number")
        if not 0 <= sequence <= MAX_SEQUENCE:
            raise InputError(f"sequence must be a whole number from 0 to {MAX_SEQUENCE}")
        with self._lock:
            newest = self._newest.setdefault(client, {})
            self._newest.move_to_end(client)
            # older followers would keep the score waiting, and nobody waits for them
            for name in (channel, *(FOLLOWERS if channel == "score" else ())):
                newest[name] = max(sequence, newest.get(name, 0))
            while len(self._newest) > MAX_CLIENTS:
                self._newest.popitem(last=False)
        return Ticket(self, client, channel, sequence)

    def newest(self, client: str, channel: str) -> int:
        """Return the number of the newest request of a page and channel; 0 where there is none."""
        return self._newest.get(client, {}).get(channel, 0)


class Ticket:
    """One request of a channel."""

    def __init__(self, channels: Channels, client: str, channel: str, sequence: int) -> None:
        self._channels, self._client = channels, client
        self._channel, self._sequence = channel, sequence

    def check(self) -> None:
        """Check, between two images, that the request still counts.

        Raises:
            DroppedError: A newer one has arrived.
        """
        if self._channels.newest(self._client, self._channel) > self._sequence:
            raise DroppedError
