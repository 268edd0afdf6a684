"""Run the chaos on a cluster and write its table into docs/reliability.md (`make chaos`)."""

import argparse
import datetime
import os
import platform
import random
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import yaml

from moe_serve.config import rollout_file as plan_file
from moe_serve.kubernetes.api import connect
from tests.chaos.arena import NEIGHBOUR, Arena
from tests.chaos.kills import Kills
from tests.chaos.lives import Lives
from tests.chaos.observer import Observer
from tests.chaos.scenarios import SCENARIOS, Stage
from tests.chaos.servers import Judge, Line, Webhook
from tests.testing.failpoints import NAMES

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
_BEGIN, _END = "<!-- chaos -->\n", "<!-- /chaos -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, default=os.environ.get("KUBECONFIG"))
    parser.add_argument("--each", type=int, default=20, help="kills a boundary")
    parser.add_argument("--outage", type=float, default=300, help="seconds without API server")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="part of one scenario's name, or `kills`")
    parser.add_argument("--write", action="store_true", help="write docs/reliability.md")
    args = parser.parse_args()
    began, lines = time.monotonic(), []
    arena, stage, webhook = _set_up(args)
    before = arena.api.get(arena.of("httproutes") + f"/{NEIGHBOUR}")
    try:
        if args.only in ("", "kills"):
            kills = Kills(
                arena=arena, lives=stage.lives, observer=stage.observer, judge=stage.judge,
                webhook=webhook, each=args.each, random=random.Random(args.seed),
            )  # fmt: skip
            kills.run()
            lines += _counts(kills)
        lines += ["| what | measured |", "|---|---|"]
        for name, scenario in SCENARIOS.items():
            if args.only in name:
                found = scenario(stage)
                sys.stderr.write(f"\n{name}: {found}")
                lines.append(f"| {name} | {found} |")
        after = arena.api.get(arena.of("httproutes") + f"/{NEIGHBOUR}")
        assert after == before, "another team's route was touched"
        observer = stage.observer
        assert not observer.broken, observer.broken
        lines += [
            "",
            f"A separate observer watched {observer.routes} versions of the route and "
            f"{observer.states} of the state: weights only ever the plan's, no promotion without "
            "PROMOTE and answers that passed, never a step backwards; another team's route in the "
            "namespace is byte-identical.",
        ]
    finally:
        stage.lives.end()
        arena.close()
    command = f"make chaos EACH={args.each} OUTAGE={args.outage:g} SEED={args.seed}"
    minutes = (time.monotonic() - began) / 60
    day = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    head = [
        f"`{command}`, {day}, {minutes:.0f} minutes on {os.cpu_count()} cores "
        f"({platform.system()}, Python {platform.python_version()}), a real kube-apiserver "
        f"{arena.api.get('/version')['gitVersion']}; pods, endpoints and the judge's answers are "
        "set by the test.",
        "",
    ]
    text = "\n".join([*head, *lines]) + "\n"
    sys.stdout.write(text)
    if args.write:
        page = PAGE.read_text("utf-8")
        start, end = page.index(_BEGIN) + len(_BEGIN), page.index(_END)
        PAGE.write_text(page[:start] + text + page[end:], "utf-8")
    return 0


def _counts(kills: Kills) -> list[str]:
    total, ends = sum(kills.counts.values()), sum(kills.ends.values())
    names = dict.fromkeys(name.rpartition(".")[0] for name in NAMES)
    return [
        "| write | killed before | killed after |",
        "|---|---|---|",
        *(
            f"| {name} | {kills.counts[f'{name}.before']} | {kills.counts[f'{name}.after']} |"
            for name in names
        ),
        "",
        f"{total} kills in {ends} rollouts: {kills.ends['done']} promoted to the end, "
        f"{kills.ends['rolled_back']} rolled back, as the judge said; no other end. Every line of "
        f"the history once in the audit (its chain whole) and once as an Event; {kills.notified} "
        f"webhook messages, none lost, {kills.twice} sent twice, told by their key.",
        "",
    ]


def _set_up(args: argparse.Namespace) -> tuple[Arena, Stage, Webhook]:
    kubeconfig = str(args.kubeconfig)
    name = f"chaos-{os.getpid()}"
    api = connect(name, kubeconfig=kubeconfig)
    labels = {"pod-security.kubernetes.io/enforce": "privileged"}
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}
    api.create("/api/v1/namespaces", space)
    arena, judge, webhook = Arena(api), Judge(), Webhook()
    account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
    while not _there(api, account):
        time.sleep(0.1)
    judge.start()
    webhook.start()
    (arena.folder / "webhook").write_text(webhook.url)
    settings = yaml.safe_load(Path(kubeconfig).read_text())
    server = urlsplit(settings["clusters"][0]["cluster"]["server"])
    line = Line((server.hostname or "", server.port or 443))
    line.start()
    settings["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{line.port}"
    settings["clusters"][0]["cluster"]["tls-server-name"] = server.hostname
    (arena.folder / "kubeconfig").write_text(yaml.safe_dump(settings))
    arena.begin()
    plan = plan_file.load(arena.plan_file)
    allowed = [
        {
            plan.tracks[track].service: weight_index.of(track)
            for track in plan.tracks
            if weight_index.of(track)
        }
        for weight_index in plan.weight_steps
    ]
    observer = Observer(arena, allowed, judge)
    observer.start()
    lives = Lives(
        plan=arena.plan_file,
        kubeconfig=arena.folder / "kubeconfig",
        namespace=name,
        judge=judge.url,
        audit=arena.folder / "audit.jsonl",
        webhook=arena.folder / "webhook",
        log=arena.folder / "log",
    )
    sys.stderr.write(f"{arena.folder}\n")
    stage = Stage(
        arena=arena, lives=lives, observer=observer, judge=judge, line=line,
        outage_seconds=args.outage,
    )  # fmt: skip
    return arena, stage, webhook


def _there(api: object, path: str) -> bool:
    from moe_serve.kubernetes.api import ClusterError

    try:
        api.get(path)  # type: ignore[attr-defined]
    except ClusterError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
