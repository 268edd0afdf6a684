"""The exporter as its users run it: a process, asked over HTTP."""

import contextlib
import signal
import socket
import ssl
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

import bcrypt
import pytest
import yaml

from tests.exporter import workers
from tests.testing import proofs

Answer = tuple[int, dict[str, str], str]


class Exporter:
    """A running exporter and how to ask it."""

    def __init__(self, process: "subprocess.Popen[str]", port: int, *, tls: bool) -> None:
        self.process, self.port, self._tls = process, port, tls

    def get(self, path: str, context: ssl.SSLContext | None = None, **headers: str) -> Answer:
        made = (
            HTTPSConnection("localhost", self.port, timeout=10, context=context)
            if self._tls
            else HTTPConnection("localhost", self.port, timeout=10)
        )
        with contextlib.closing(made) as connection:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, text


Start = Callable[..., Exporter]


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "moe_serve", "exporter", *flags]


def refused(*flags: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command(*flags), check=False, capture_output=True, text=True, timeout=30)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[subprocess.Popen[str]] = []

    def run(*flags: str, tls: bool = False) -> Exporter:
        port = free_port()
        records = ("--record-dir", str(tmp_path / "records"), "--listen", f"127.0.0.1:{port}")
        process = subprocess.Popen(command(*records, *flags), stderr=subprocess.PIPE, text=True)
        started.append(process)
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return Exporter(process, port, tls=tls)
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.05)
        raise AssertionError("it does not listen")

    yield run
    for process in started:
        process.kill()
        process.communicate()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def test_it_serves_metrics_and_probes_and_stops_politely(start: Start, tmp_path: Path) -> None:
    exporter = start()
    before, _, why = exporter.get("/-/ready")
    writer = workers.worker(tmp_path / "records")
    ready, _, _ = exporter.get("/-/ready")
    status, headers, text = exporter.get("/metrics")
    openmetrics = exporter.get("/metrics", accept="application/openmetrics-text;version=1.0.0")
    missing, _, paths = exporter.get("/")
    writer.close()
    after, _, dead = exporter.get("/-/ready")
    exporter.process.send_signal(signal.SIGTERM)
    _, said = exporter.process.communicate(timeout=20)

    assert (before, ready, after, status, missing) == (503, 200, 503, 200, 404)
    assert "no record in" in why
    assert "there is no such folder yet" in why
    assert why.count("\n") == dead.count("\n") == 1
    assert "all of workers that have ended" in dead
    assert 'moe_serve_kernel_invocations_total{bucket="64"' in text
    assert headers["content-type"].startswith("text/plain; version=0.0.4")
    assert openmetrics[1]["content-type"].startswith("application/openmetrics-text")
    assert openmetrics[2].endswith("# EOF\n")
    assert "/metrics" in paths
    assert exporter.process.returncode == 0
    assert "WARNING" not in said  # a probe every few seconds must not fill the log
    assert "Traceback" not in said


def test_every_rank_must_prove_its_padding(start: Start, tmp_path: Path) -> None:
    exporter = start("--ranks", "2")
    first = workers.worker(tmp_path / "records")
    half, _, why = exporter.get("/-/ready")
    second = workers.worker(tmp_path / "records", tp=1, policy="upstream")
    differ, _, how = exporter.get("/-/ready")
    second.prove(proofs.proof())
    both, _, _ = exporter.get("/-/ready")
    first.close()
    second.close()

    assert (half, differ, both) == (503, 503, 200)
    assert "1 of 2" in why
    assert "the ranks differ" in how


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    make_certificate(folder, "web")
    make_certificate(folder, "other")
    return folder


def make_certificate(folder: Path, name: str) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"),
            *("-days", "2", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.crt"),
        ],
        check=True,
        capture_output=True,
    )


def web_config(folder: Path, **changes: object) -> str:
    path = folder / "web.yaml"
    config = {"tls_server_config": {"cert_file": "web.crt", "key_file": "web.key"}, **changes}
    path.write_text(yaml.safe_dump(config))
    return str(path)


def test_tls_and_users_keep_metrics_and_not_the_probes(start: Start, tls: Path) -> None:
    hashed = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
    exporter = start(
        "--web-config", web_config(tls, basic_auth_users={"prometheus": hashed}), tls=True
    )
    trust = ssl.create_default_context(cafile=str(tls / "web.crt"))

    def login(user: str, password: str) -> int:
        token = b64encode(f"{user}:{password}".encode()).decode()
        return exporter.get("/metrics", trust, authorization=f"Basic {token}")[0]

    assert exporter.get("/-/healthy", trust)[0] == 200
    refused, headers, _ = exporter.get("/metrics", trust)
    assert (refused, headers["www-authenticate"]) == (401, 'Basic realm="moe-serve"')
    attempts = [("prometheus", "wrong"), ("nobody", "right"), ("prometheus", "right")] * 2
    assert [login(*each) for each in attempts] == [401, 401, 200] * 2
    assert exporter.get("/metrics", trust, authorization="Basic %%%")[0] == 401


def test_a_client_without_a_certificate_is_turned_away(start: Start, tls: Path) -> None:
    config = {"cert_file": "web.crt", "key_file": "web.key", "client_ca_file": "other.crt"}
    exporter = start("--web-config", web_config(tls, tls_server_config=config), tls=True)
    trust = ssl.create_default_context(cafile=str(tls / "web.crt"))
    with pytest.raises((ssl.SSLError, ConnectionError)):
        exporter.get("/metrics", trust)
    trust.load_cert_chain(tls / "other.crt", tls / "other.key")

    assert exporter.get("/metrics", trust)[0] == 200


def test_a_renewed_certificate_is_taken_without_a_restart(start: Start, tmp_path: Path) -> None:
    make_certificate(tmp_path, "web")
    exporter = start("--web-config", web_config(tmp_path), tls=True)
    make_certificate(tmp_path, "web")
    trust = ssl.create_default_context(cafile=str(tmp_path / "web.crt"))
    for _ in range(100):
        with contextlib.suppress(ssl.SSLError):
            assert exporter.get("/-/healthy", trust)[0] == 200
            return
        time.sleep(0.1)
    raise AssertionError("it still shows the old certificate")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--listen", "9400"), "--listen '9400': HOST:PORT is needed"),
        (("--listen", "127.0.0.1:99999"), "HOST:PORT is needed"),
        (("--listen", "192.0.2.1:9400"), "--listen 192.0.2.1:9400: "),
        (("--listen", "h" * 99 + ":9400"), "--listen hhh"),
        (("--record-dir", "{here}/file"), "it is no folder"),
        (("--ttl", "0"), "--ttl"),
        (("--web-config", "{here}/missing.yaml"), "it cannot be read"),
        (("--web-config", "{here}/bad.yaml"), "has no key 'tls_config'; known: tls_server_config"),
        (("--web-config", "{here}/wrong-key.yaml"), "no certificate with its key"),
        (("--web-config", "{here}/plain.yaml"), "basic_auth_users.me must be a bcrypt hash"),
        (("--web-config", "{here}/cut.yaml"), "basic_auth_users.me must be a bcrypt hash"),
        (("--web-config", "{here}/nokey.yaml"), "web.nokey: No such file"),
    ],
)
def test_what_cannot_start_is_told_in_one_line(
    flags: tuple[str, ...], message: str, tls: Path
) -> None:
    (tls / "file").write_text("")
    (tls / "bad.yaml").write_text("tls_config: {}")
    (tls / "cut.yaml").write_text("basic_auth_users: {me: $2b$12$secret}")
    (tls / "plain.yaml").write_text("basic_auth_users: {me: secret}")
    for name, key in (("wrong-key", "other.key"), ("nokey", "web.nokey")):
        config = {"tls_server_config": {"cert_file": "web.crt", "key_file": key}}
        (tls / f"{name}.yaml").write_text(yaml.safe_dump(config))
    given = [flag.format(here=tls) for flag in flags]
    ended = refused(*given)

    assert ended.returncode == 2
    assert message in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "secret" not in ended.stderr


def test_a_port_that_is_taken_is_told_in_one_line(start: Start) -> None:
    taken = start().port
    ended = refused("--listen", f"127.0.0.1:{taken}")

    assert ended.returncode == 2
    assert ended.stderr == f"moe-serve: --listen 127.0.0.1:{taken}: Address already in use\n"
