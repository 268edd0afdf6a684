"""Addresses as they may be shown, logged and written to an audit."""

import httpx

from moe_serve.errors import SourceError


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
