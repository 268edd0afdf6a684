"""The images that `make images` left, run for real: read-only, no capability, by any user."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import layout, pins
from tests.images.room import Room, entered

pytestmark = [pytest.mark.images, pytest.mark.timeout(300)]

SELF, ANY = 2000, 1_000_730_000  # the image's own user, and one as OpenShift gives out
USERS = pytest.mark.parametrize("uid", [SELF, ANY], ids=["its own user", "an arbitrary user"])
PREFIX = "org.opencontainers.image"


def place() -> Path:
    return Path(os.environ["MOE_SERVE_IMAGES"])


@pytest.fixture(scope="module")
def serving() -> Iterator[Room]:
    with entered(place(), "localhost/moe-serve:dev") as room:
        yield room


@pytest.fixture(scope="module")
def ops() -> Iterator[Room]:
    with entered(place(), "localhost/moe-serve-ops:dev") as room:
        yield room


def test_the_serving_image_says_what_it_is(serving: Room) -> None:
    labels = serving.config["Labels"]
    assert isinstance(labels, dict)

    assert labels[f"{PREFIX}.licenses"] == "Apache-2.0"
    assert labels[f"{PREFIX}.base.name"] == "localhost/moe-serve-base-stand-in:dev"
    assert labels[f"{PREFIX}.base.digest"]
    assert len(labels[f"{PREFIX}.revision"].removesuffix("-dirty")) == 40
    assert labels["io.moe-serve.aiter.unvalidated"] == "no"
    for name in pins.VERSIONS:
        assert labels[f"io.moe-serve.{name}.version"]


def test_its_labels_are_what_it_holds(serving: Room) -> None:
    held = serving.python(SELF, "import torch, vllm; print(torch.__version__, vllm.__version__)")
    labels = serving.config["Labels"]
    assert isinstance(labels, dict)
    torch, vllm = held.split()

    assert torch.startswith(labels["io.moe-serve.torch.version"])
    assert vllm.startswith(labels["io.moe-serve.vllm.version"])


def test_it_starts_as_its_user_and_is_asked_for_its_health(serving: Room) -> None:
    config = serving.config

    assert config["User"] == "2000:0"
    assert config["Entrypoint"] == ["moe-serve", "serve"]
    assert not config.get("Cmd")
    assert "/health" in json.dumps(config["Healthcheck"])


@pytest.mark.parametrize("tag", ["serving", "ops"])
def test_no_image_holds_a_file_that_makes_one_root_beyond_the_bases(
    tag: str, request: pytest.FixtureRequest
) -> None:
    room: Room = request.getfixturevalue(tag)
    found = [
        str(path)
        for folder in ("opt", "app", "var/cache")
        for path in (room.root / folder).rglob("*")
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o6000
    ]

    assert found == []


@USERS
def test_every_cache_is_written_below_one_folder(serving: Room, uid: int) -> None:
    code = """
import getpass, os, pathlib
for name in ("HOME", "VLLM_CACHE_ROOT", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "HF_HOME"):
    folder = pathlib.Path(os.environ[name])
    assert folder.is_relative_to("/var/cache/moe-serve"), name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "file").write_text("x")
try:
    pathlib.Path("/opt/file").write_text("x")
except OSError as error:
    print(getpass.getuser(), os.getuid(), os.getgid(), error.strerror)
"""

    assert serving.python(uid, code) in {
        f"moe-serve {uid} 0 Read-only file system",
        f"moe-serve {uid} 0 Permission denied",
    }


@USERS
def test_preflight_passes_where_nothing_is_mounted_but_memory(serving: Room, uid: int) -> None:
    result = serving.run(uid, "moe-serve", "preflight", "--no-gpu")

    assert result.returncode == 0, result.stdout + result.stderr


SERVE = """
set -euo pipefail
model=$(python3 -m moe_serve_emulation.learned.checkpoint --cache /tmp/models --intermediate 360)
export PYTHONPATH=$(python3 -c 'import moe_serve_emulation as e; print(e.STANDIN)')
moe-serve serve "$model" --served-model-name tiny --host 127.0.0.1 --port 8000 --enforce-eager \\
  --max-model-len 256 --max-num-seqs 8 --max-num-batched-tokens 256 > /tmp/log 2>&1 &
server=$!
python3 - "$server" <<'PYTHON' || { grep -i error /tmp/log >&2; exit 1; }
import json, os, sys, time, urllib.error, urllib.request
for _ in range(240):
    os.kill(int(sys.argv[1]), 0)  # it is still there
    try:
        urllib.request.urlopen("http://127.0.0.1:8000/health", timeout=5)
        break
    except (OSError, urllib.error.URLError):
        time.sleep(1)
body = json.dumps({"model": "tiny", "prompt": "1+1=", "max_tokens": 4, "temperature": 0})
ask = urllib.request.Request("http://127.0.0.1:8000/v1/completions", body.encode(),
                             {"Content-Type": "application/json"})
print(json.load(urllib.request.urlopen(ask, timeout=120))["usage"]["completion_tokens"])
PYTHON
moe-serve preflight --proof --ranks 1 --url http://127.0.0.1:8000/health
grep '^moe-serve' /tmp/log | head -1
kill "$server"
"""


def test_an_arbitrary_user_serves_a_completion_from_a_read_only_root(serving: Room) -> None:
    result = serving.run(
        ANY, "bash", "-c", SERVE,
        MOE_SERVE_EMULATE_AITER="cktile", VLLM_CPU_KVCACHE_SPACE="1", HF_HUB_OFFLINE="1",
        OMP_NUM_THREADS="1", MOE_SERVE_RECORD_DIR="/dev/shm/moe-serve",
    )  # fmt: skip

    assert result.returncode == 0, result.stdout[-1500:] + result.stderr[-3000:]
    lines = result.stdout.splitlines()
    assert int(lines[0]) > 0
    assert "vLLM" in lines[-1]
    assert "aligned" in lines[-1]


@USERS
@pytest.mark.parametrize("verb", ["exporter", "canary serve", "quality probe", "canary judge"])
def test_every_verb_of_the_small_image_runs(ops: Room, uid: int, verb: str) -> None:
    result = ops.run(uid, "moe-serve", *verb.split(), "--help")

    assert (result.returncode, result.stderr) == (0, "")


@USERS
def test_the_small_image_exports(ops: Room, uid: int) -> None:
    code = """
import subprocess, sys, time, urllib.error, urllib.request
server = subprocess.Popen(["moe-serve", "exporter", "--record-dir", "/dev/shm/moe-serve",
                           "--listen", "127.0.0.1:9400"])
for _ in range(100):
    try:
        text = urllib.request.urlopen("http://127.0.0.1:9400/metrics", timeout=5).read().decode()
        break
    except OSError:
        time.sleep(0.1)
server.terminate()
print("moe_serve_" in text)
"""

    assert ops.python(uid, code) == "True"


def test_the_small_image_has_no_torch_and_no_installer(ops: Room) -> None:
    code = """
from importlib.util import find_spec
print([name for name in ("torch", "vllm", "triton", "pip", "setuptools") if find_spec(name)])
"""

    assert ops.python(SELF, code) == "[]"


@pytest.mark.parametrize("name", ["moe-serve", "moe-serve-ops"])
def test_each_layout_holds_its_image_alone_with_what_it_is(name: str) -> None:
    folder, identity = place() / f"{name}.oci", place() / f"{name}.id"
    found = layout.blobs(folder)
    [manifest] = json.loads((folder / "index.json").read_text("utf-8"))["manifests"]
    layers = json.loads(found[manifest["digest"]].read_text("utf-8"))["layers"]

    assert layout.name_of(folder) == f"localhost/{name}:dev"
    assert len(found) == len(layers) + 2  # the manifest and the configuration
    assert sum(path.stat().st_size for path in found.values()) > 100e6
    assert len(identity.read_text("utf-8").strip()) >= 64
