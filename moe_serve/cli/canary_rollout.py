"""`moe-serve canary run|status|approve|abort`: a rollout on a cluster."""

import argparse
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from moe_serve.cli.canary_inputs import (
    http_address,
    policy_flag,
    quality,
    quality_flag,
    read_analysis_plan,
    source,
    source_flags,
    with_policy,
)
from moe_serve.cli.parsing import Verb, at_least
from moe_serve.errors import UsageError

if TYPE_CHECKING:
    from moe_serve.analysis.comparison import Findings
    from moe_serve.analysis.plan import AnalysisPlan
    from moe_serve.cli.controller_assembly import JudgeThread
    from moe_serve.controller.load import PrometheusLoad
    from moe_serve.controller.run import Thread
    from moe_serve.kubernetes.api import Api
    from moe_serve.kubernetes.store import Store
    from moe_serve.rollout.plan import RolloutPlan
    from moe_serve.rollout.state import RolloutState

_ROUNDING = 1e-6


def _where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--rollout-file", type=Path, required=True, metavar="FILE", help="the rollout's plan"
    )
    parser.add_argument(
        "--namespace", metavar="NAME", help="default: the pod's, or the kubeconfig's"
    )
    parser.add_argument("--context", metavar="NAME", help="of the kubeconfig")


def _run_flags(run: argparse.ArgumentParser) -> None:
    run.description = (
        "Without --active it is a shadow: it reads, decides and logs, and writes nothing. "
        "The judge is --judge URL, or judges here: --policy-file, --prometheus, --quality."
    )
    _where(run)
    run.add_argument("--active", action="store_true", help="write the route, state and Events")
    run.add_argument("--judge", metavar="URL", help="of `canary serve`, as http://judge:9500")
    policy_flag(run)
    source_flags(run)
    quality_flag(run)
    run.add_argument(
        "--every", type=at_least(1), default=10, metavar="SECONDS", help="between looks, at most"
    )
    run.add_argument(
        "--judge-every", type=at_least(1), default=30, metavar="SECONDS", help="between verdicts"
    )
    run.add_argument(
        "--load-query", metavar="PROMQL",
        help="for --prometheus: the whole traffic, in pods kept fully busy; it then says what an "
        "arm carries, in place of the plan's load test",
    )  # fmt: skip
    run.add_argument("--listen", default="127.0.0.1:9501", metavar="HOST:PORT", help="address")
    run.add_argument("--audit", type=Path, metavar="FILE", help="append to this log")
    run.add_argument(
        "--slack-file", type=Path, metavar="FILE", help="holds a Slack webhook's address"
    )
    run.add_argument(
        "--webhook-file", type=Path, metavar="FILE", help="holds the address of any webhook"
    )
    run.add_argument(
        "--page-url", metavar="URL",
        help="of the judge's live page or a report, as people reach it; in every message",
    )  # fmt: skip
    run.add_argument(
        "--identity", metavar="NAME", help="this controller's, in the Lease (default: the host's)"
    )


def _status_flags(status: argparse.ArgumentParser) -> None:
    status.description = (
        "From the ConfigMap that the controller keeps; of a shadow, which keeps none, from the "
        "controller itself. 0 if it could be read."
    )
    _where(status)
    status.add_argument(
        "--controller", metavar="URL", help="ask this one, as http://127.0.0.1:9501"
    )


def _approve_flags(approve: argparse.ArgumentParser) -> None:
    approve.description = "For a rollout that is held: go on. It names this one hold and no later."
    _where(approve)


def _abort_flags(abort: argparse.ArgumentParser) -> None:
    abort.description = "Everything back to stable, from any phase that is not final."
    _where(abort)


def _run(args: argparse.Namespace) -> int:
    from moe_serve.cli.controller_assembly import ControllerSettings, assemble
    from moe_serve.config import rollout_file
    from moe_serve.controller.notifiers import AuditNotifier, hook
    from moe_serve.judge.audit import Audit
    from moe_serve.kubernetes.api import connect

    plan = rollout_file.load(args.rollout_file)
    log = Audit(args.audit) if args.audit else None
    hooks = [
        hook(flag, path, plan.name, slack=slack, page=args.page_url or "")
        for flag, path, slack in (
            ("--slack-file", args.slack_file, True),
            ("--webhook-file", args.webhook_file, False),
        )
        if path is not None
    ]
    audited = [AuditNotifier(log)] if log else []
    settings = ControllerSettings(
        plan=plan,
        active=args.active,
        every=float(args.every),
        identity=args.identity or socket.gethostname(),
    )
    judge = _judge(args, plan, log.append if log else None)
    load = _load(args)
    api = connect(args.namespace, args.context, os.environ.get("KUBECONFIG"))
    beside: list[Thread] = [*hooks, *([load] if load else [])]
    runner, threads = assemble(
        api, settings, judge, [*audited, *hooks], beside, load, lambda: log.fault if log else ""
    )
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s"
    )
    # At INFO it logs addresses, and that of a webhook is a secret.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: runner.end())
    return runner.run(threads, _address(args.listen))


def _judge(
    args: argparse.Namespace, plan: "RolloutPlan", log: "Callable[[Findings, float], None] | None"
) -> "Callable[[Callable[[], None]], JudgeThread]":
    from moe_serve.config.policy_file import load_declared
    from moe_serve.controller.judges import LocalJudge, RemoteJudge
    from moe_serve.rollout.weights import Track

    if args.judge is not None:
        http_address(f"--judge {args.judge!r}", args.judge, "http://judge:9500")
        return lambda wake: RemoteJudge(
            url=args.judge,
            every=min(float(args.every), 10.0),
            fresh_seconds=plan.patience.blind_seconds,
            on_result=wake,
        )
    told = with_policy(args)
    if told.exporter:
        raise UsageError("exporters have no past to replay: use --prometheus, or --judge URL")
    if plan.baseline:
        of_baseline = {"baseline", plan.tracks[Track.BASELINE].label}
        in_file = args.policy_file and "stable_label" in load_declared(args.policy_file).arms
        named = args.stable_label or in_file
        if named and told.stable_label not in of_baseline:
            raise UsageError(
                f"{'--stable-label' if args.stable_label else f'{args.policy_file}: arms.stable'}: "
                f"{told.stable_label} is "
                "not compared where the plan has a baseline; leave it out, or give the baseline's "
                f"value ({', '.join(sorted(of_baseline))})"
            )
        args.stable_label = told.stable_label if named else "baseline"
    found, rules, answers = source(args), read_analysis_plan(args), quality(args)
    _shares_agree(plan, rules)

    def audited(findings: "Findings") -> None:
        if log:
            log(findings, time.time())

    return lambda wake: LocalJudge(
        source=found,
        analysis_plan=rules,
        quality=answers,
        every=float(args.judge_every),
        on_result=wake,
        on_judged=audited,
    )


def _shares_agree(plan: "RolloutPlan", rules: "AnalysisPlan") -> None:
    """What the judge expects of the requests' split is what the plan's steps make of it."""
    planned = {
        step.weights.canary / (step.weights.canary + (step.weights.baseline or step.weights.stable))
        for step in plan.steps
    }
    expected = rules.canary_share
    if expected is not None and any(abs(share - expected) > _ROUNDING for share in planned):
        shares = ", ".join(f"{share:.3g}" for share in sorted(planned))
        raise UsageError(
            f"--policy-file: validity.canary_share is {expected:g}, the plan's steps give the "
            f"canary {shares} of the compared arms' requests; make them agree, or leave it out"
        )


def _load(args: argparse.Namespace) -> "PrometheusLoad | None":
    from moe_serve.controller.load import PrometheusLoad
    from moe_serve.sources.prometheus import Prometheus

    query = args.load_query
    if query is None:
        return None
    found = source(args) if with_policy(args).prometheus else None
    if not isinstance(found, Prometheus):
        raise UsageError("--load-query: it is asked of --prometheus URL, which is not given")
    return PrometheusLoad(ask=lambda: found.number(query), every=float(args.every))


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--listen {text!r}: HOST:PORT is needed, as in 127.0.0.1:9501")
    return host.strip("[]"), int(port)


def _kept(args: argparse.Namespace) -> "tuple[RolloutPlan, Store, RolloutState, str]":
    """The last is what a look failed for: a state that cannot be written does not say that."""
    from moe_serve.cli.controller_assembly import state_name
    from moe_serve.config import rollout_file
    from moe_serve.kubernetes.api import ClusterError, connect
    from moe_serve.kubernetes.events import Events
    from moe_serve.kubernetes.store import Store

    plan = rollout_file.load(args.rollout_file)
    api: Api = connect(args.namespace, args.context, os.environ.get("KUBECONFIG"))
    store = Store(api, state_name(plan))
    state, fault = store.load().state, ""
    with contextlib.suppress(ClusterError):  # who may not list Events is told of the rest
        fault = Events(api, state_name(plan)).last_fault()
    if state is None:
        raise UsageError(
            f"ConfigMap {state_name(plan)} is not in namespace {api.namespace}: "
            + (
                fault
                or "no controller with --active has written there (--controller asks a shadow)"
            )
        )
    return plan, store, state, fault


def _status(args: argparse.Namespace) -> int:
    from moe_serve.config import rollout_file
    from moe_serve.controller.state_client import ask
    from moe_serve.controller.status_text import screen, to_json

    if args.controller:
        plan = rollout_file.load(args.rollout_file)
        state, fault = ask(args.controller)
    else:
        plan, _, state, fault = _kept(args)
    if args.output == "json":
        sys.stdout.write(json.dumps(to_json(plan, state, fault), sort_keys=True) + "\n")
    else:
        sys.stdout.write(screen(plan, state, time.time(), fault))
    return 0


def _approve(args: argparse.Namespace) -> int:
    from moe_serve.kubernetes.store import APPROVE

    _, store, state, _ = _kept(args)
    if state.hold is None or not state.hold.reason.approvable:
        why = f"held for {state.hold.reason}" if state.hold else f"in {state.phase}"
        raise UsageError(f"nothing to approve: the rollout is {why}")
    store.ask(APPROVE, str(state.hold.revision))
    return _said(args, state, "approved", str(state.hold.reason))


def _abort(args: argparse.Namespace) -> int:
    from moe_serve.kubernetes.store import ABORT

    _, store, state, _ = _kept(args)
    if state.phase.final:
        raise UsageError(f"nothing to abort: the rollout is {state.phase}")
    store.ask(ABORT, state.rollout)
    return _said(args, state, "aborted", str(state.phase))


def _said(args: argparse.Namespace, state: "RolloutState", what: str, of: str) -> int:
    if args.output == "json":
        sys.stdout.write(json.dumps({"rollout": state.rollout, what: of}) + "\n")
    else:
        sys.stdout.write(f"rollout {state.rollout}: {of} {what}; the controller acts on it\n")
    return 0


VERBS: dict[str, tuple[str, Callable[[argparse.ArgumentParser], None], Verb]] = {
    "run": ("the controller: moves weights as the judge and the plan allow", _run_flags, _run),
    "status": ("where a rollout stands, and what it waits for", _status_flags, _status),
    "approve": ("let a rollout that is held go on", _approve_flags, _approve),
    "abort": ("give everything back to stable", _abort_flags, _abort),
}
