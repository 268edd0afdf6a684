"""Does the server answer: one GET, within a probe's patience."""

from urllib.parse import urlsplit

from moe_serve.errors import UsageError
from moe_serve.preflight.checks import PreflightCheck, fail, ok

_SECONDS = 2.0
_NAME = "server"


def check_health(url: str) -> PreflightCheck:
    """Ask `url`; only 200 is well, and no redirection is followed.

    Raises:
        UsageError: it is not an HTTP address.
    """
    from http.client import HTTPConnection, HTTPException, HTTPSConnection

    parts = urlsplit(url)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if parts.scheme not in ("http", "https") or not host:
        raise UsageError(f"--url {url!r}: give an address such as http://127.0.0.1:8000/health")
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(host, port, timeout=_SECONDS)
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    try:
        connection.request("GET", path)
        status = connection.getresponse().status
    except (OSError, HTTPException) as error:
        return fail(_NAME, f"{url} does not answer ({error}); see the server's log")
    finally:
        connection.close()
    if status != 200:
        return fail(_NAME, f"{url} answers {status}, not 200; see the server's log")
    return ok(_NAME, f"{url} answers 200")
