"""Addresses are checked before anything starts, so that no thread dies of one later."""

import pytest

from moe_serve.sources.addresses import address_fault

BAD = {
    "http://judge:port": "port",
    "http://judge:0": "port",
    "http://127.0.0.1:99999": "port",
    "http://": "host",
    "http://:9500": "host",
    "http://a..b": "host",
    "http://" + "a" * 64: "host",
    "http://ex ample": "character",
    "http://ex%20ample": "host",
    "http://xn--a": "host",
    "http://judge/\x00": "character",
    "http://judge/a b": "character",
    "ftp://judge": "http",
    "judge:9500": "http",
    "": "http",
}


@pytest.mark.parametrize(("url", "names"), BAD.items())
def test_address_that_no_request_can_be_sent_to_is_named(url: str, names: str) -> None:
    fault = address_fault(url)
    assert fault is not None and names in fault
    assert "\n" not in fault


@pytest.mark.parametrize(
    "url",
    ["http://judge:9500", "https://judge.ns.svc/x?a=b", "http://[::1]:9500/", "http://10.0.0.1",
     "http://user:pw@judge:1/", "http://jüdge"],
)  # fmt: skip
def test_address_of_a_server_has_no_fault(url: str) -> None:
    assert address_fault(url) is None


def test_fault_of_an_address_does_not_quote_its_secret() -> None:
    fault = address_fault("http://user:geheim@judge:port/token")
    assert fault is not None
    assert "geheim" not in fault and "token" not in fault
