"""What stops a node is one line that names it and says what to do."""

import hashlib
import json
import multiprocessing
import re
import shutil
import tarfile
import time
from collections import namedtuple
from pathlib import Path

import pytest

from images import layout as image_layout
from tools.node import __main__ as command
from tools.node import (
    addons,
    archive,
    binaries,
    crds,
    images,
    lifecycle,
    namespaces,
    preconditions,
)
from tools.node.errors import CommandFailed, NodeError
from tools.node.layout import TOOLS, Layout, addresses

_Usage = namedtuple("_Usage", "total used free")


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(cache=tmp_path)


@pytest.fixture(autouse=True)
def whole_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that lacks nothing; each test takes one thing away."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(preconditions, "CNI_PLUGINS", Path("/usr"))
    monkeypatch.setattr(preconditions, "PLUGINS", ("bin",))
    monkeypatch.setattr(preconditions, "run", lambda *_, **__: "")


def _said(layout: Layout) -> str:
    with pytest.raises(NodeError) as stopped:
        preconditions.check(layout)
    return str(stopped.value)


def test_a_whole_machine_carries_a_node(layout: Layout) -> None:
    preconditions.check(layout)


def test_without_root(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    assert _said(layout) == (
        "a node needs root: run it with sudo, or point KUBECONFIG at a cluster"
    )


@pytest.mark.parametrize(("program", "package"), preconditions.PROGRAMS.items())
def test_without_a_program(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, program: str, package: str
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None if name == program else "/usr/bin/it")

    assert _said(layout) == f"{program}: not on this machine; apt-get install {package}"


def test_without_a_network_plugin(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preconditions, "PLUGINS", ("nowhere",))

    assert _said(layout) == "/usr/nowhere: absent; apt-get install containernetworking-plugins"


def test_with_a_full_disk(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: _Usage(0, 0, 2**30))

    said = _said(layout)
    assert said.startswith(f"{layout.cache}: 1.0 GiB of disk are free, a node needs 5")
    assert "\n" not in said


@pytest.mark.parametrize("folder", ["/run/x", "/var/lib", "/var/log/x"])
def test_with_a_cache_where_the_node_hides_it(folder: str) -> None:
    assert _said(Layout(cache=Path(folder))).startswith(f"{folder}: the node hides ")


@pytest.mark.parametrize("feature", preconditions.KERNEL)
def test_on_a_kernel_that_forbids_something(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, feature: str
) -> None:
    def refuse(words: list[str], **_: object) -> str:
        if words[-1] == preconditions.KERNEL[feature]:
            raise CommandFailed("Operation not permitted")
        return ""

    monkeypatch.setattr(preconditions, "run", refuse)

    assert _said(layout) == (
        f"this kernel does not give {feature} to root: Operation not permitted"
    )


def test_the_command_prints_each_problem_on_a_line_and_ends_with_2(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NodeError("one\ntwo")

    monkeypatch.setattr(lifecycle, "up", fail)

    assert command.main(["up", "--cache", str(layout.cache)]) == 2
    assert capsys.readouterr().err == "error: one\nerror: two\n"


def test_what_is_missing_is_said_before_minutes_of_compiling(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None if name == "nft" else "/usr/bin/it")
    monkeypatch.setattr(binaries, "built", lambda *_: pytest.fail("something was compiled"))

    with pytest.raises(NodeError, match="nft: not on this machine"):
        lifecycle.up(layout)


def test_what_is_missing_is_said_where_a_start_was_broken_off(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None if name == "nft" else "/usr/bin/it")
    monkeypatch.setattr(namespaces, "find", lambda _: namespaces.Namespaces(init=1))
    monkeypatch.setattr(binaries, "built", lambda _, name: Path(name))
    monkeypatch.setattr(lifecycle, "_down", lambda _: None)
    monkeypatch.setattr(lifecycle, "_start", lambda *_: pytest.fail("a node was started"))

    with pytest.raises(NodeError, match="nft: not on this machine"):
        lifecycle.up(layout)


@pytest.mark.parametrize(("options", "given"), [([], 1), (["--without-monitoring"], 0)])
def test_a_running_node_gets_prometheus_unless_it_is_to_have_none(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, options: list[str], given: int
) -> None:
    monkeypatch.setattr(namespaces, "find", lambda _: namespaces.Namespaces(init=1))
    monkeypatch.setattr(binaries, "built", lambda _, name: Path(name))
    monkeypatch.setattr(lifecycle, "_ready", lambda *_: True)
    monkeypatch.setattr(images, "ensure_built", lambda *_: None)
    layout.state.mkdir()
    monitored: list[object] = []
    monkeypatch.setattr(addons, "monitor", lambda *_: monitored.append("once"))

    assert command.main(["up", "--cache", str(layout.cache), *options]) == 0
    assert len(monitored) == given


def test_a_node_that_did_not_become_whole_for_a_command_ends(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NodeError("prometheus: no space left")

    ended: list[Layout] = []
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(lifecycle, "up", fail)
    monkeypatch.setattr(lifecycle, "down", ended.append)

    assert command.main(["with", "--cache", str(layout.cache), "--", "true"]) == 2
    assert capsys.readouterr().err == "error: prometheus: no space left\n"
    assert ended == [layout]


@pytest.mark.parametrize("monitoring", [True, False])
def test_prometheus_is_compiled_for_a_node_that_is_to_have_it(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, monitoring: bool
) -> None:
    monkeypatch.setattr(binaries, "built", lambda _, name: Path(name))

    made = lifecycle.programs(layout, monitoring=monitoring)

    assert {"kubernetes", "etcd", "coredns", "traefik"} <= set(made)
    assert ("prometheus" in made) == monitoring


def test_a_negative_number_of_nodes_is_refused(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        command.main(["up", "--cache", str(layout.cache), "--nodes", "-1"])

    assert stopped.value.code == 2
    assert "--nodes: -1 is not between 0 and 1000" in capsys.readouterr().err


def test_a_command_with_a_node_runs_on_the_cluster_that_the_user_names(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "/somewhere/else")
    monkeypatch.setattr(lifecycle, "up", lambda *_, **__: pytest.fail("a node was started"))
    arguments = ["with", "--cache", str(layout.cache), "--", "sh", "-c", "exit 7"]

    assert command.main(arguments) == 7


def test_a_second_start_at_the_same_time_is_refused(layout: Layout) -> None:
    with (
        lifecycle._alone(layout),
        pytest.raises(NodeError, match="another make cluster is at work"),
    ):
        lifecycle.down(layout)


def test_an_image_without_its_identity_is_named(layout: Layout) -> None:
    layout.images.mkdir()
    (layout.images / "moe-serve.oci").mkdir()

    with pytest.raises(NodeError, match=r"moe-serve\.id: absent; run make images again"):
        images.ensure_built(layout, namespaces.Namespaces(init=1))


def test_an_image_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "ctr", lambda *_, **__: "localhost/other:dev\n")

    with pytest.raises(
        NodeError, match=r"localhost/moe-serve:dev: not in the node; run make images"
    ):
        images.require(namespaces.Namespaces(init=1), "localhost/moe-serve:dev")


def test_a_process_number_that_went_to_somebody_else_is_no_node(layout: Layout) -> None:
    layout.state.mkdir()
    (layout.state / "init.pid").write_text("1")

    assert namespaces.find(layout) is None


def test_nodes_of_different_folders_have_different_names_and_addresses() -> None:
    places = [Layout(cache=Path(f"/somewhere/{number}")) for number in range(50)]

    assert len({place.cgroup for place in places}) == 50
    assert len({addresses(place).node for place in places}) >= 49


def test_the_same_program_makes_the_same_image(tmp_path: Path) -> None:
    program = tmp_path / "true"
    shutil.copy("/bin/true", program)
    targets = [tmp_path / "one.tar", tmp_path / "two.tar"]

    digests = {archive.write(program, "localhost/it:built", target) for target in targets}

    assert len(digests) == 1
    with tarfile.open(targets[0]) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    assert image_layout.name_of(tmp_path / "unpacked") == "localhost/it:built"
    assert len({hashlib.sha256(target.read_bytes()).digest() for target in targets}) == 1


def test_versions_that_stand_in_two_places_agree() -> None:
    kubernetes = (TOOLS / "kubernetes/go.mod").read_text("utf-8")
    operator = crds.PROJECTS["prometheus-operator"]

    assert re.findall(r"k8s\.io/kubernetes (v\S+)", kubernetes) == [binaries.KUBERNETES]
    for tool, project in (
        ("prometheus-operator", operator),
        ("argo-rollouts", crds.PROJECTS["argo-rollouts"]),
        ("flagger", crds.PROJECTS["flagger"]),
    ):
        required = (TOOLS / tool / "go.mod").read_text("utf-8")
        assert re.findall(rf"{project.module} (v[^/\s]+)", required) == [project.version]


def _filled(place: Path, journal: Path) -> None:
    def fill(folder: Path) -> None:
        with journal.open("a") as lines:
            lines.write("filled\n")
        time.sleep(0.2)
        (folder / "program").touch()

    binaries.made_once(place, fill)


def test_programs_that_two_processes_need_are_built_by_one(tmp_path: Path) -> None:
    place, journal = tmp_path / "bin" / "it", tmp_path / "journal"
    processes = [
        multiprocessing.get_context("fork").Process(target=_filled, args=(place, journal))
        for _ in range(3)
    ]
    for each in processes:
        each.start()
    for each in processes:
        each.join()

    assert [each.exitcode for each in processes] == [0, 0, 0]
    assert journal.read_text() == "filled\n"
    assert (place / "program").exists()


def test_a_program_that_cannot_be_built_leaves_nothing_that_looks_built(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise CommandFailed("no space left")

    with pytest.raises(CommandFailed):
        binaries.made_once(tmp_path / "it", fail)

    assert [each.name for each in tmp_path.iterdir()] == [".lock-it"]


@pytest.fixture
def imported(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """The names of the files of each import; containerd holds the blob `base` already."""
    found: list[set[str]] = []

    def ctr(_: object, *words: str, **__: object) -> str:
        return "sha256:base\n" if words[:2] == ("content", "ls") else ""

    def run(_: object, *words: str | Path, **__: object) -> str:
        found.append({str(word) for word in words[7:]})
        return ""

    monkeypatch.setattr(images, "ctr", ctr)
    monkeypatch.setattr(namespaces.Namespaces, "run", run)
    return found


def _image(layout: Layout, *blobs: str) -> None:
    folder = layout.images / "moe-serve.oci"
    (folder / "blobs/sha256").mkdir(parents=True)
    for name in blobs:
        (folder / "blobs/sha256" / name).write_text(name)
    named = {"annotations": {image_layout.NAME: "localhost/moe-serve:dev"}}
    (folder / "index.json").write_text(json.dumps({"manifests": [named]}))
    folder.with_suffix(".id").write_text("one\n")


def test_of_an_image_only_what_the_node_lacks_is_imported_and_once(
    layout: Layout, imported: list[set[str]]
) -> None:
    _image(layout, "base", "ours")
    space = namespaces.Namespaces(init=1)

    assert images.ensure_built(layout, space) == ["moe-serve.oci"]
    assert images.ensure_built(layout, space) == []
    assert imported == [{"oci-layout", "index.json", "blobs/sha256/ours"}]


def test_a_folder_that_is_no_image_layout_is_named(
    layout: Layout, imported: list[set[str]]
) -> None:
    _image(layout, "base")
    (layout.images / "moe-serve.oci/index.json").write_text("{}")

    with pytest.raises(
        NodeError, match=r"moe-serve\.oci: no OCI image layout .* make images again"
    ):
        images.ensure_built(layout, namespaces.Namespaces(init=1))
    assert imported == []


@pytest.mark.parametrize(("options", "monitoring"), [([], True), (["--without-monitoring"], False)])
def test_a_node_for_a_command_has_prometheus_unless_it_is_to_have_none(
    layout: Layout, monkeypatch: pytest.MonkeyPatch, options: list[str], monitoring: bool
) -> None:
    started: list[dict[str, object]] = []
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(lifecycle, "up", lambda *_, **how: started.append(how))
    monkeypatch.setattr(lifecycle, "down", lambda _: None)

    arguments = ["with", "--cache", str(layout.cache), "--nodes", "3", *options, "--", "true"]
    assert command.main(arguments) == 0
    assert started == [{"nodes": 3, "monitoring": monitoring}]


def test_a_program_that_is_not_known_is_named_with_those_that_are(
    layout: Layout, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "NODE_PROGRAMS", ())
    monkeypatch.setattr(binaries, "NODE_IMAGES", ())
    arguments = ["programs", "--without-monitoring", "--cache", str(layout.cache), "kubelot"]

    assert command.main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: kubelot: no program; there are traefik, ")


def test_libraries_of_both_modules_that_cost_most_to_compile_have_one_version() -> None:
    shared = ("google.golang.org/grpc", "google.golang.org/protobuf", "golang.org/x/net")
    shared += ("go.opentelemetry.io/otel", "github.com/prometheus/client_golang")

    def versions(module: Path) -> dict[str, str]:
        return dict(re.findall(r"^\t(\S+) (v\S+)", (module / "go.mod").read_text("utf-8"), re.M))

    kubernetes, prometheus = map(versions, (binaries.KUBERNETES_MODULE, binaries.PROMETHEUS_MODULE))

    assert {name: kubernetes[name] for name in shared} == {
        name: prometheus[name] for name in shared
    }
