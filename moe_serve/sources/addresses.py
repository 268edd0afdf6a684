"""Addresses: whether a request can be sent to one, and how it may be shown, logged and audited."""

import httpx

from moe_serve.errors import SourceError

_PORTS = 65535


def without_secrets(url: str) -> str:
    """The address without user, password and query, any of which may be a secret.

    Raises:
        SourceError: it is no address.
    """
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise SourceError(f"{url!r} is no URL") from error
    return f"{found.scheme}://{found.netloc.decode('ascii').rpartition('@')[2]}{found.path}"


def address_fault(url: str) -> str | None:
    """Why no request can be sent to an HTTP address; None if one can.

    An address that passes makes the client raise no other errors than its own
    (`httpx.HTTPError`). The reason quotes nothing of the address, which may hold a secret.
    """
    if not url.startswith(("http://", "https://")):
        return "it does not begin with http:// or https://"
    if not url.isprintable() or " " in url:
        return "it holds a character that no address has"
    try:
        found = httpx.URL(url)
        # What the resolver does to the name; it allows labels of 1 to 63 characters.
        name = found.raw_host.decode("ascii").encode("idna") if found.host else b""
    except httpx.InvalidURL as error:
        port = str(error).startswith("Invalid port")
        return f"its port is no number from 1 to {_PORTS}" if port else "its host is no host's name"
    except UnicodeError:
        return "its host is no host's name"
    if not name or b"%" in name:
        return "its host is no host's name"
    if not 1 <= (1 if found.port is None else found.port) <= _PORTS:
        return f"its port is no number from 1 to {_PORTS}"
    return None
