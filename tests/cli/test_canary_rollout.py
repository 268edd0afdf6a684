"""`canary run`, `status`, `approve`, `abort`: bad input is one line and exit code 2."""

from pathlib import Path

import pytest
import yaml

from moe_serve.cli.main import main
from tests.rollout.world import DOCUMENT


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "no-kubeconfig"))
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(DOCUMENT))
    (tmp_path / "policy.yaml").write_text("validity: {canary_share: 0.3}")
    (tmp_path / "arms.yaml").write_text("arms: {stable: gptoss-stable}")
    return path


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["run"], "no source: give --history FILE, --prometheus URL"),
        (["run", "--judge", "judge:9500"], "--judge 'judge:9500': as http://judge:9500"),
        (["run", "--exporter", "stable=http://x"], "exporters have no past to replay"),
        (["run", "--judge", "http://x", "--listen", "x"], "no cluster: "),
        (["run", "--judge", "http://x", "--every", "0"], "--every: '0' is not allowed"),
        (["run", "--judge", "http://x", "--slack-file", "/nowhere"], "--slack-file /nowhere: No"),
        (
            ["run", "--prometheus", "http://x", "--policy-file", "POLICY"],
            "validity.canary_share is 0.3, the plan's steps give the canary 0.5 of the compared",
        ),
        (
            ["run", "--prometheus", "http://x", "--stable-label", "stable"],
            "--stable-label: stable is not compared where the plan has a baseline; leave it out, "
            "or give "
            "the baseline's value (baseline, gptoss-1b)",
        ),
        (["run", "--prometheus", "http://x", "--stable-label", "gptoss-1b"], "no cluster: "),
        (
            ["run", "--prometheus", "http://x", "--policy-file", "ARMS"],
            "arms.yaml: arms.stable: gptoss-stable is not compared where the plan has a baseline",
        ),
        (
            ["run", "--judge", "http://x", "--load-query", "sum(x)"],
            "--load-query: it is asked of --prometheus URL",
        ),
        (["status"], "no cluster: "),
        (["approve"], "no cluster: "),
        (["abort"], "no cluster: "),
    ],
)
def test_what_cannot_be_done_is_one_line(
    plan: Path, capsys: pytest.CaptureFixture[str], flags: list[str], says: str
) -> None:
    files = {name.upper(): str(plan.with_name(f"{name}.yaml")) for name in ("policy", "arms")}
    flags = [files.get(flag, flag) for flag in flags]
    assert main(["canary", *flags, "--rollout-file", str(plan)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("moe-serve: ") and says in err
    assert err.count("\n") == 1
