"""Which tiers of tests a change needs."""

import re
import subprocess
from pathlib import Path

import pytest

from tools import tiers
from tools.errors import ToolError
from tools.git import ROOT, present
from tools.tiers import Change, Rule, Tier, TierMap

MAP = TierMap(
    tiers={
        "pure": Tier(command="make test-pure", proves="the core", minutes="4", base=True),
        "whole": Tier(command="make test-cluster SOME=whole", proves="rollouts", minutes="15"),
        "chaos": Tier(command="make chaos", proves="kills", minutes="40"),
    },
    rules=(
        Rule(paths=("docs/*",), tiers=()),
        Rule(paths=("core/*", "*.toml"), tiers=("pure",)),
        Rule(paths=("core/controller/*",), tiers=("whole", "chaos")),
    ),
)


def git(root: Path, *words: str) -> None:
    who = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    subprocess.run(["git", "-C", str(root), *who, *words], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit on `main`: a.py, b.py."""
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(f"{name}: a text that git can recognise after a move\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message=first")
    return tmp_path


# --- the repository's own map


def test_the_map_knows_every_path_and_no_pattern_is_dead() -> None:
    assert tiers.check(tiers.load(), present()) == []


@pytest.mark.parametrize(
    "path",
    [
        f"moe_serve/{name}/module.py"
        for name in (
            "cli", "controller", "kubernetes", "judge", "benchmark", "probe", "report", "config",
            "rollout", "sources", "analysis", "quality", "exporter", "preflight", "vllm_plugin",
            "telemetry", "padding", "metrics",
        )
    ],
)  # fmt: skip
def test_every_package_of_the_product_needs_tests(path: str) -> None:
    assert tiers.load().of(path)


def test_every_command_is_a_target_and_ci_runs_the_base_tiers() -> None:
    found = tiers.load().tiers.values()
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    script = (ROOT / ".ci/run").read_text("utf-8")

    assert {tier.command.split()[1] for tier in found} <= set(targets)
    assert {tier.command for tier in found if tier.base} == set(
        re.findall(r"^tier (make [a-z-]+)$", script, re.MULTILINE)
    )


def test_the_table_of_tiers_in_contributing_is_in_date() -> None:
    table = "\n".join(tiers.table(tiers.load()))

    assert table in (ROOT / "CONTRIBUTING.md").read_text("utf-8"), (
        "replace the table of tiers in CONTRIBUTING.md by: python -m tools.tiers --table"
    )


# --- rules


@pytest.mark.parametrize(
    ("path", "needed"),
    [
        ("docs/page.md", set()),
        ("core/x.py", {"pure"}),
        ("core/controller/deep/x.py", {"pure", "whole", "chaos"}),
        ("other/x.toml", {"pure"}),
        ("other/x.py", None),
        ("core", None),
    ],
)
def test_a_path_needs_the_tiers_of_every_rule_that_matches(
    path: str, needed: set[str] | None
) -> None:
    assert MAP.of(path) == needed


def test_an_unknown_path_and_a_dead_pattern_are_named() -> None:
    assert tiers.check(MAP, ["docs/page.md", "core/x.py", "a.toml", "new/x.py"]) == [
        "new/x.py: no rule of tiers.yaml matches it; add it to a rule",
        "tiers.yaml: core/controller/*: it matches no path; remove it",
    ]


def test_a_pattern_that_is_declared_absent_may_match_nothing() -> None:
    declared = MAP.model_copy(update={"absent": ("core/controller/*",)})

    assert tiers.check(declared, ["docs/page.md", "core/x.py", "a.toml"]) == []


# --- a change


def test_each_tier_has_the_paths_that_need_it() -> None:
    change = Change(base="abc", paths=("core/controller/x.py", "core/y.py", "docs/page.md"))

    assert tiers.reasons(MAP, change) == {
        "pure": ["core/controller/x.py", "core/y.py"],
        "whole": ["core/controller/x.py"],
        "chaos": ["core/controller/x.py"],
    }


def test_a_change_with_an_unknown_path_is_refused() -> None:
    with pytest.raises(ToolError, match=r"^new/x\.py: no rule of tiers\.yaml matches it"):
        tiers.reasons(MAP, Change(base="abc", paths=("new/x.py",)))


def test_a_removed_path_that_no_rule_knows_any_more_needs_every_tier() -> None:
    change = Change(base="abc", paths=("old/x.py",), removed=frozenset({"old/x.py"}))

    assert set(tiers.reasons(MAP, change)) == {"pure", "whole", "chaos"}


def test_what_ci_does_not_run_is_listed_with_its_reason() -> None:
    change = Change(base="abc", paths=("core/controller/x.py", "core/controller/y.py"))

    assert list(tiers.by_name(MAP, change)) == [
        "make test-cluster SOME=whole (15 minutes): core/controller/x.py and 1 more paths changed",
        "make chaos (40 minutes): core/controller/x.py and 1 more paths changed",
    ]
    assert list(tiers.by_name(MAP, Change(base="abc", paths=("core/x.py",)))) == []


def test_every_tier_is_listed_if_the_change_is_not_known() -> None:
    assert list(tiers.by_name(MAP, None)) == [
        "make test-cluster SOME=whole (15 minutes): what has changed is not known (name a base)",
        "make chaos (40 minutes): what has changed is not known (name a base)",
    ]


def test_the_summary_has_base_tiers_and_those_by_name() -> None:
    assert list(tiers.summary(MAP, Change(base="abc", paths=("core/x.py",)))) == [
        "1 paths differ from abc",
        "always, in .ci/run:",
        "  make test-pure: core/x.py changed",
        "by name: nothing",
    ]
    assert list(tiers.summary(MAP, None))[:3] == [
        "always, in .ci/run:",
        "  make test-pure: the core",
        "by name:",
    ]


# --- git


def test_a_change_is_what_differs_in_the_working_tree(repository: Path) -> None:
    (repository / "a.py").write_text("changed, and not committed\n")
    git(repository, "mv", "b.py", "moved.py")
    git(repository, "commit", "--quiet", "--message=second")
    (repository / "new.py").write_text("not added\n")

    found = tiers.change_since("main~1", repository)

    assert found.paths == ("a.py", "b.py", "moved.py", "new.py")
    assert found.removed == {"b.py"}


def test_a_revision_that_is_not_there_is_refused(repository: Path) -> None:
    with pytest.raises(ToolError, match=r"^git rev-parse .*nowhere"):
        tiers.change_since("nowhere", repository)


def test_a_branch_begins_where_it_left_main(repository: Path) -> None:
    git(repository, "switch", "--quiet", "--create=branch")
    git(repository, "commit", "--quiet", "--allow-empty", "--message=second")
    start = subprocess.run(
        ["git", "-C", str(repository), "rev-parse", "main"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip

    assert tiers.branch_point(repository) == start


def test_the_main_branch_itself_has_no_known_start(repository: Path) -> None:
    assert tiers.branch_point(repository) is None


# --- the file and the command


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tiers: {}\nrules: []\nmore: 1\n", "more: Extra inputs are not permitted"),
        ("tiers: {}\n", "rules: Field required"),
        ("tiers: {}\nrules: [{paths: [a], tiers: [b]}]\n", "rules: a: no such tier: b"),
        ("tiers: {}\nrules: []\nabsent: [a]\n", "absent: a: no rule has this pattern"),
        ("tiers: [\n", "cannot be read: "),
    ],
)
def test_a_wrong_map_is_refused_with_the_key(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "tiers.yaml").write_text(text)

    with pytest.raises(ToolError, match=re.escape(said)) as stopped:
        tiers.load(tmp_path / "tiers.yaml")
    assert str(stopped.value).startswith(str(tmp_path / "tiers.yaml"))
    assert "\n" not in str(stopped.value)


def test_the_command_ends_with_2_and_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert tiers.main(["--base", "no-such-revision"]) == 2

    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("tiers: git rev-parse")
    assert len(said.err.splitlines()) == 1
