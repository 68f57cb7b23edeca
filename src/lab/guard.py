"""Who may ask: checks of address, origin and token before anything of a request is used.

A page of another site can send requests to a server on this machine. It cannot read this server's
answers nor set the header ``X-Lab``; and a name that it lets point at 127.0.0.1 (DNS rebinding) is
none of the server's own, so the header ``Host`` tells.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from werkzeug.wrappers import Request

from src.lab.requests import MAX_BODY_BYTES

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LOCAL_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
_OPEN_PATHS = ("/static/", "/api/photo", "/api/thumbnail")  # what the page's own tags ask for


class LabRequest(Request):
    """A request whose body is limited."""

    max_content_length = MAX_BODY_BYTES
    max_form_memory_size = MAX_BODY_BYTES


def is_loopback(host: str) -> bool:
    """Return whether an address to listen on is this machine's own alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Guard:
    """Checks of each request.

    Args:
        host: The address that the server listens on.
        port: Its port.
        token: What the address of the page must carry; None: nothing, on loopback.
    """

    host: str
    port: int
    token: str | None = None

    @property
    def cookie(self) -> str:
        """Name of the cookie that has the token; cookies do not tell ports apart."""
        return f"lab-{self.port}"

    def problem(self, request: LabRequest) -> str | None:
        """Return why a request is refused; None: it is not."""
        if not self._is_own_host(request.headers.get("Host", "")):
            return "Host must be the address of the lab"
        if (origin := request.headers.get("Origin")) is not None:
            own = f"http://{request.headers['Host']}"
            if origin.lower() != own.lower():
                return "Origin must be the lab's own page"
        is_page = request.path == "/" and request.method in ("GET", "HEAD")
        site = request.headers.get("Sec-Fetch-Site", "none")
        is_navigation = request.headers.get("Sec-Fetch-Mode", "navigate") == "navigate"
        if site not in ("none", "same-origin") and not (is_page and is_navigation):
            return "requests must come from the lab's own page"
        is_open = is_page or request.path.startswith(_OPEN_PATHS)
        if not is_open and request.headers.get("X-Lab") != "1":
            return "X-Lab must be 1, as the lab's page sends it"
        if self.token is not None and not self._has_token(request, in_address=is_page):
            return "the address must have the token that the command has printed"
        return None

    def _is_own_host(self, header: str) -> bool:
        try:
            parts = urlsplit(f"//{header}")
            name, port = (parts.hostname or "").rstrip("."), parts.port or 80
        except ValueError:
            return False
        if parts.netloc != header or "@" in header or port != self.port:
            return False
        if self.token is None:
            return name in LOCAL_NAMES or name == self.host
        if name in LOCAL_NAMES or name in (self.host.lower(), socket.gethostname().lower()):
            return True
        try:  # no name that somebody could let point here
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _has_token(self, request: LabRequest, *, in_address: bool) -> bool:
        assert self.token is not None
        given = [request.cookies.get(self.cookie, "")]
        if in_address:
            given.append(request.args.get("token", ""))
        return any(hmac.compare_digest(one.encode(), self.token.encode()) for one in given)
