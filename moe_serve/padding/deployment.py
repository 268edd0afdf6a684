"""One model on one set of software, spread one way: every call that it may make, and the worst.

A build of vLLM that may be one of several releases loads the weights in several ways, and a model
may have experts of several sizes. Each is a call of its own; the deployment is as safe as the
worst of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from moe_serve.errors import UsageError
from moe_serve.padding.aiter_eras import AiterEra
from moe_serve.padding.builds import Build
from moe_serve.padding.contract import Call, PaddingPolicy, Report, assess
from moe_serve.padding.models import ModelFacts
from moe_serve.padding.shapes import Layout, Parallelism, Quant, shard
from moe_serve.padding.site_tables import OWN_TABLES, SitePaths
from moe_serve.padding.vllm_eras import VllmEra


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """What is judged before it runs; `layout` None: as vLLM stores it for this quantisation."""

    model: ModelFacts
    parallel: Parallelism
    vllm: Build[VllmEra]
    aiter: Build[AiterEra]
    quant: Quant = Quant.W4A16
    layout: Layout | None = None
    ksplit: int = 0
    site: SitePaths = OWN_TABLES

    def calls(self) -> Iterator[Call]:
        """Every call that the deployment may make.

        Raises:
            UsageError: the model cannot be spread this way.
        """
        for dims in self.model.dims:
            for era in self.vllm.eras:
                align = era.alignment(self.quant, dims.activation)
                yield Call(
                    part=shard(dims, self.parallel, align=align),
                    vllm=self.vllm.only(era),
                    aiter=self.aiter,
                    quant=self.quant,
                    layout=self.layout or default_layout(self.quant),
                    activation=dims.activation,
                    # vLLM passes biases for w4a16 alone.
                    bias=False if self.quant is Quant.W4A4 else dims.bias,
                    ksplit=self.ksplit,
                    site=self.site,
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class PaddingJudgement:
    """The worst of a deployment's reports, and how many different calls were judged."""

    deployment: Deployment
    worst: Report
    calls: int


def default_layout(quant: Quant) -> Layout:
    """The order in which vLLM stores w13's rows for this quantisation."""
    return Layout.SEPARATED if quant is Quant.W4A4 else Layout.INTERLEAVE


def require_layout(layout: Layout | None, quant: Quant) -> None:
    """Refuse a layout that weights of this quantisation cannot have.

    Raises:
        UsageError: there is no such choice.
    """
    if layout is not None and quant is Quant.W4A8:
        raise UsageError(f"--layout {layout}: w4a8 has no such choice; leave --layout out")
    if layout is Layout.INTERLEAVE and quant is Quant.W4A4:
        raise UsageError(
            f"--layout {layout}: w4a4 weights are stored separated; leave --layout out"
        )


def judge(
    deployment: Deployment, policy: PaddingPolicy, *, max_loss: float = 0.0
) -> PaddingJudgement:
    """Judge every call of a deployment under `policy`.

    Raises:
        UsageError: the model cannot be spread this way, or the budget is no fraction.
    """
    require_layout(deployment.layout, deployment.quant)
    reports = [assess(call, policy, max_loss=max_loss) for call in deployment.calls()]
    worst = max(reports, key=_badness)
    return PaddingJudgement(deployment=deployment, worst=worst, calls=len(reports))


def _badness(report: Report) -> tuple[bool, int, float]:
    return (not report.safe, len(report.violations), report.loss_fraction)
