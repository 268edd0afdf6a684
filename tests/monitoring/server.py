"""A real Prometheus over given targets, with this project's rules at a test's pace."""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.monitoring.rules import FILES, tool

LABELS = {"namespace": "llm", "model": "gpt-oss-120b"}
DASHBOARDS = FILES[0].parents[1] / "dashboards"


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def query(self, expression: str) -> list[dict[str, Any]]:
        """An instant query's result."""
        return self._get("query", query=expression)

    def query_range(self, expression: str, *, start: float, end: float) -> list[dict[str, Any]]:
        """A range query's result, a point a second."""
        return self._get("query_range", query=expression, start=start, end=end, step=1)

    def _get(self, what: str, **params: Any) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.url}/api/v1/{what}", params=params, timeout=30).json()
        assert answer["status"] == "success", answer
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result


@contextlib.contextmanager
def prometheus(
    folder: Path, port: int, targets: Mapping[str, str], *, keep: str = "1d"
) -> Iterator[Prometheus]:
    """Scrape `targets` (address -> track) every second; what is in `folder/data` is kept."""
    rules = folder / "rules"
    rules.mkdir()
    for file in FILES:
        text = file.read_text("utf-8").replace("interval: 30s", "interval: 1s")
        (rules / file.name).write_text(text)
    jobs = [
        {"targets": [address], "labels": {**LABELS, "track": track, "pod": f"{track}-0"}}
        for address, track in targets.items()
    ]
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [f"{rules}/*.yaml"],
        "scrape_configs": [{"job_name": "moe-serve", "static_configs": jobs}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    command = [
        tool("prometheus"),
        f"--config.file={folder}/prometheus.yaml",
        f"--storage.tsdb.path={folder}/data",
        f"--storage.tsdb.retention.time={keep}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}/-/ready", timeout=2).is_success:
                    break
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            assert time.monotonic() < until, "Prometheus is not ready"
            time.sleep(0.2)
        yield Prometheus(port)
    finally:
        process.terminate()
        process.wait(30)


def panels() -> Iterator[tuple[str, str, str]]:
    """Dashboard, panel and query of every target, as the JSON files have them."""
    for file in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(file.read_text("utf-8"))["panels"]:
            for target in panel["targets"]:
                yield file.stem, panel["title"], filled(target["expr"])


def filled(expression: str) -> str:
    """A panel's query with its variables as they are when all is chosen."""
    for name in ("namespace", "model", "track"):
        expression = expression.replace(f"${name}", ".*")
    return expression.replace("$__rate_interval", "1m")


def silent_panels(server: Prometheus) -> list[tuple[str, str, str]]:
    """Those without data."""
    return [panel for panel in panels() if not server.query(panel[2])]
