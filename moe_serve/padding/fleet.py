"""Every policy of one model over several releases and parallel sizes: a table to choose from."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from moe_serve.errors import UsageError
from moe_serve.padding.contract import PaddingPolicy, Report
from moe_serve.padding.deployment import Deployment, judge
from moe_serve.padding.report import Answer, answer
from moe_serve.padding.shapes import Parallelism

COLUMNS = ("vLLM", "AITER", "ranks", "policy", "pads sent", "bytes", "neurons lost", "answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRow:
    """One deployment under one policy; `report` None: it cannot be spread this way, and `why`."""

    vllm: str
    aiter: str
    ranks: str
    policy: PaddingPolicy
    report: Report | None
    why: str = ""

    @property
    def bytes_ratio(self) -> float | None:
        """Fetched weight bytes of the decode kernel over the unpadded weights'."""
        return None if self.report is None else self.report.paths[0].bytes_ratio

    @property
    def answer(self) -> str:
        """`safe`, `unverified`, or the rules that are broken."""
        if self.report is None:
            return self.why
        found = answer(self.report)
        if found is not Answer.UNSAFE:
            return found.value
        return ", ".join(dict.fromkeys(v.rule.value for v in self.report.violations))

    def cells(self) -> tuple[str, ...]:
        """The row as text, in the order of `COLUMNS`."""
        return (self.vllm, self.aiter, self.ranks, self.policy.value, *self._numbers(), self.answer)

    def _numbers(self) -> tuple[str, str, str]:
        if self.report is None:
            return ("-", "-", "-")
        neurons = self.report.lost.stage1_neurons
        lost = f"{neurons} of {self.report.call.part.intermediate}" if neurons else "0"
        return (str(self.report.sent), f"{self.report.paths[0].bytes_ratio:.3f}", lost)

    def to_json(self) -> dict[str, object]:
        """The row with numbers as numbers; null where the deployment cannot be spread."""
        report = self.report
        return {
            "vllm": self.vllm,
            "aiter": self.aiter,
            "ranks": self.ranks,
            "policy": self.policy.value,
            "sent": report.sent.to_json() if report else None,
            "bytes_ratio": self.bytes_ratio,
            "lost": report.lost.to_json() if report else None,
            "loss_fraction": report.loss_fraction if report else None,
            "safe": report.safe if report else None,
            "verified": report.call.verified if report else None,
            "answer": self.answer,
        }


def fleet_rows(
    deployments: Iterable[Deployment], policies: Sequence[PaddingPolicy]
) -> Iterator[FleetRow]:
    """One row for each deployment and policy, in their order."""
    for deployment in deployments:
        for policy in policies:
            yield _row(deployment, policy)


def _row(deployment: Deployment, policy: PaddingPolicy) -> FleetRow:
    report, why = None, ""
    try:
        report = judge(deployment, policy).worst
    except UsageError as error:
        why = str(error)
    return FleetRow(
        vllm=deployment.vllm.text,
        aiter=deployment.aiter.text,
        ranks=ranks(deployment.parallel),
        policy=policy,
        report=report,
        why=why,
    )


def ranks(parallel: Parallelism) -> str:
    """`TP 8`, `EP 8`, `TP 2 DP 4`."""
    text = f"EP {parallel.tp}" if parallel.ep else f"TP {parallel.tp}"
    return f"{text} DP {parallel.dp}" if parallel.dp > 1 else text
