"""An address that no request can be sent to is one line and exit code 2, whichever flag has it."""

from pathlib import Path

import pytest
import yaml

from moe_serve.cli.main import main
from tests.rollout.world import DOCUMENT

PORT, LABEL, RANGE = "http://judge:port", "http://a..b:1", "http://127.0.0.1:99999"


@pytest.mark.parametrize("url", [PORT, LABEL, RANGE])
@pytest.mark.parametrize(
    "command",
    [
        "canary run --rollout-file PLAN --judge URL",
        "canary run --rollout-file PLAN --prometheus URL",
        "canary run --rollout-file PLAN --policy-file POLICY",
        "canary status --rollout-file PLAN --controller URL",
        "canary judge --prometheus URL",
        "canary serve --exporter stable=URL --exporter canary=http://127.0.0.1:1",
        "canary serve --policy-file EXPORTERS",
        "quality probe --stable-url URL --canary-url http://127.0.0.1:1",
        "bench --stable-url URL --canary-url http://127.0.0.1:1 --out OUT",
    ],
)
def test_address_that_no_request_can_be_sent_to_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    url: str,
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))
    files = {
        "PLAN": DOCUMENT,
        "POLICY": {"source": {"prometheus": {"url": url}}},
        "EXPORTERS": {"source": {"exporters": {"stable": [url], "canary": ["http://127.0.0.1:1"]}}},
    }
    for name, content in files.items():
        (tmp_path / name).write_text(yaml.safe_dump(content))
    words = {name: str(tmp_path / name) for name in (*files, "OUT")}
    given = [words.get(word, word.replace("URL", url)) for word in command.split()]
    assert main(given) == 2
    _, err = capsys.readouterr()
    # The probe says before what it lacks.
    *_, err = err.splitlines()
    assert err.startswith("moe-serve: ")
    assert ("port is no number" if url != LABEL else "host is no host's name") in err
