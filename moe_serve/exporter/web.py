"""The exporter over HTTP: three paths, TLS with reload, and basic authentication."""

import hashlib
import hmac
import logging
import re
import socket
import ssl
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from moe_serve.bounded_requests import BoundedRequests
from moe_serve.errors import UsageError
from moe_serve.exporter.collector import Collector
from moe_serve.metrics.exposition import content_type, render

logger = logging.getLogger(__name__)

_TLS, _USERS = "tls_server_config", "basic_auth_users"
_TLS_KEYS = ("cert_file", "key_file", "client_ca_file", "client_auth_type", "min_version")
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_REQUIRED = "RequireAndVerifyClientCert"
_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}")


@dataclass(frozen=True, slots=True, kw_only=True)
class WebConfig:
    """A web-config file as Prometheus's exporters have it: TLS, and users with bcrypt hashes."""

    context: ssl.SSLContext | None = None
    chain: tuple[Path, Path] | None = None
    users: Mapping[str, str] = field(default_factory=dict)


def load_web_config(path: Path) -> WebConfig:
    """Read and check the file; paths in it are relative to it.

    Raises:
        UsageError: it cannot be read, has an unknown key, or its certificate does not work.
    """
    import yaml

    try:
        found = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: it cannot be read: {_one_line(error)}") from error
    found = _mapping(path, "the file", found, (_TLS, _USERS))
    tls = _mapping(path, _TLS, found.get(_TLS), _TLS_KEYS)
    users = _mapping(path, _USERS, found.get(_USERS), None)
    for name, hashed in users.items():
        if not isinstance(hashed, str) or not _BCRYPT.fullmatch(hashed):
            raise UsageError(f"{path}: {_USERS}.{name} must be a bcrypt hash")
    if not tls:
        return WebConfig(users=users)
    chain = _file(path, tls, "cert_file"), _file(path, tls, "key_file")
    return WebConfig(context=_context(path, tls, chain), chain=chain, users=users)


def _mapping(path: Path, what: str, value: Any, keys: tuple[str, ...] | None) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise UsageError(f"{path}: {what} must be a mapping")
    unknown = sorted(set(value) - set(keys)) if keys is not None else []
    if unknown:
        raise UsageError(
            f"{path}: {what} has no key {unknown[0]!r}; known: {', '.join(keys or ())}"
        )
    return value


def _file(path: Path, tls: Mapping[str, Any], key: str) -> Path:
    name = tls.get(key)
    if not isinstance(name, str) or not name:
        raise UsageError(f"{path}: {_TLS}.{key} is missing")
    return path.parent / name


def _context(path: Path, tls: Mapping[str, Any], chain: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    version = tls.get("min_version", "TLS12")
    if version not in _VERSIONS:
        raise UsageError(f"{path}: {_TLS}.min_version must be one of {', '.join(_VERSIONS)}")
    context.minimum_version = _VERSIONS[version]
    _load_chain(context, chain)
    wanted = tls.get("client_auth_type", _REQUIRED if "client_ca_file" in tls else "NoClientCert")
    if wanted not in (_REQUIRED, "NoClientCert"):
        raise UsageError(f"{path}: {_TLS}.client_auth_type must be NoClientCert or {_REQUIRED}")
    if wanted == _REQUIRED:
        authority = _file(path, tls, "client_ca_file")
        try:
            context.load_verify_locations(authority)
        except OSError as error:
            raise UsageError(f"{authority}: no CA certificate: {_one_line(error)}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load_chain(context: ssl.SSLContext, chain: tuple[Path, Path]) -> None:
    certificate, key = chain
    for each in chain:
        try:
            each.open("rb").close()
        except OSError as error:
            raise UsageError(f"{each}: {error.strerror}") from error
    try:
        context.load_cert_chain(certificate, key, password="")
    except (ssl.SSLError, ValueError) as error:
        raise UsageError(
            f"{certificate} and {key}: no certificate with its key: {_one_line(error)}"
        ) from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


class Application:
    """`/metrics` for Prometheus, `/-/healthy` and `/-/ready` for the kubelet."""

    def __init__(
        self,
        collector: Collector,
        unready: Callable[[], str | None],
        users: Mapping[str, str],
    ) -> None:
        """`unready`: why the workers do not prove their padding, or None."""
        self._collector, self._unready, self._users = collector, unready, users

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        status, kind, body = self._answer(environ)
        headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
        if status.startswith("401"):
            headers.append(("WWW-Authenticate", 'Basic realm="moe-serve"'))
        start_response(status, headers)
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _answer(self, environ: WSGIEnvironment) -> tuple[str, str, bytes]:
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _plain("405 Method Not Allowed", "GET only")
        path = environ.get("PATH_INFO", "/")
        # The kubelet's probes cannot log in, and learn nothing here.
        if path == "/-/healthy":
            return _plain("200 OK", "healthy")
        if path == "/-/ready":
            reason = self._unready()
            return (
                _plain("503 Service Unavailable", reason) if reason else _plain("200 OK", "ready")
            )
        if not self._allowed(environ.get("HTTP_AUTHORIZATION", "")):
            return _plain("401 Unauthorized", "unauthorized")
        if path != "/metrics":
            return _plain("404 Not Found", "/metrics, /-/healthy, /-/ready")
        kind = content_type(environ.get("HTTP_ACCEPT", ""))
        return "200 OK", kind, render(self._collector.collect(), kind)

    def _allowed(self, header: str) -> bool:
        if not self._users:
            return True
        scheme, _, token = header.partition(" ")
        try:
            name, _, password = b64decode(token).decode().partition(":")
        except (ValueError, UnicodeDecodeError):
            return False
        # An unknown user takes as long as a known one.
        known = self._users.get(name)
        hashed = known or next(iter(self._users.values()))
        digest = hashlib.sha256(password.encode()).hexdigest()
        return scheme.lower() == "basic" and _is_password(password, digest, hashed) and bool(known)


def _plain(status: str, text: str) -> tuple[str, str, bytes]:
    return status, "text/plain; charset=utf-8", f"{text}\n".encode(errors="replace")


class _Verified:
    """Passwords that were checked before, by digest: bcrypt is slow on purpose."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def __call__(self, password: str, digest: str, hashed: str) -> bool:
        import bcrypt

        if hmac.compare_digest(self._known.get(hashed, ""), digest):
            return True
        matches = bcrypt.checkpw(password.encode()[:72], hashed.encode())
        if matches:
            self._known[hashed] = digest
        return matches


_is_password = _Verified()


class _Handler(BoundedRequests, WSGIRequestHandler):
    timeout = 10  # of the TLS handshake; requests have bounds of their own

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args)


class ExporterServer(ThreadingMixIn, WSGIServer):
    """One thread a request; the TLS handshake is in that thread."""

    daemon_threads = True
    web = WebConfig()
    _stamps: tuple[int, ...] = ()

    def service_actions(self) -> None:
        """Between requests: take a renewed certificate; while it is no whole pair, keep the old."""
        if self.web.context is None or self.web.chain is None:
            return
        try:
            stamps = tuple(path.stat().st_mtime_ns for path in self.web.chain)
            if stamps != self._stamps:
                _load_chain(self.web.context, self.web.chain)
                self._stamps = stamps
        except (OSError, UsageError) as error:
            logger.debug("the certificate stays as it was: %s", error)

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Handshake first, if there is TLS."""
        if self.web.context is not None:
            request.settimeout(_Handler.timeout)
            try:
                request = self.web.context.wrap_socket(request, server_side=True)
            except (ssl.SSLError, OSError) as error:
                logger.debug("%s: %s", client_address, error)
                return
        super().finish_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of ours."""
        logger.debug("%s: the request failed", client_address, exc_info=True)


class _Server6(ExporterServer):
    address_family = socket.AF_INET6


def make_listener(host: str, port: int, application: Application, web: WebConfig) -> ExporterServer:
    """Bind.

    Raises:
        UsageError: the address cannot be had.
    """
    kind = _Server6 if ":" in host else ExporterServer
    try:
        server = make_server(host, port, application, server_class=kind, handler_class=_Handler)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"--listen {host}:{port}: {reason}") from error
    server.web = web
    return server
