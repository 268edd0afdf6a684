"""The judge's evaluation as samples of its metrics."""

from moe_serve.analysis.comparison import Findings
from moe_serve.analysis.estimate import Estimate
from moe_serve.analysis.verdict import Verdict
from moe_serve.judge.watch import Evaluation
from moe_serve.metrics.catalogue import JUDGE
from moe_serve.metrics.samples import Samples


def judge_samples(evaluation: Evaluation) -> Samples:
    """The verdict in force, each rate's estimate, and each check; no data, no sample."""
    samples = Samples(JUDGE)
    verdict = evaluation.to_json()["verdict"]
    samples.put_state("verdict", verdict, of=[each.value for each in Verdict])
    samples.put("last_evaluation_timestamp_seconds", evaluation.at)
    samples.put("source_up", int(evaluation.fault is None))
    samples.put("audit_write_failed", int(evaluation.audit_fault is not None))
    if evaluation.findings is not None:
        _add_rates(samples, evaluation.findings)
        _add_checks(samples, evaluation.findings)
    return samples


def _add_rates(samples: Samples, findings: Findings) -> None:
    rates = {
        "step": findings.estimates.step,
        "kernel": findings.estimates.kernel,
        "equal_weights": findings.estimates.equal,
    }
    for rate, estimate in rates.items():
        if isinstance(estimate, Estimate):
            samples.put("log_ratio", estimate.theta, rate)
            samples.put("log_ratio_lo", estimate.lo, rate)
            samples.put("log_ratio_hi", estimate.hi, rate)
            samples.put("covered_ratio", estimate.covered_weight, rate)


def _add_checks(samples: Samples, findings: Findings) -> None:
    for check in findings.judgement.checks:
        samples.put("check_passed", int(check.passed), check.name)
        samples.put("check_number", check.number, check.name)
        samples.put("check_threshold", check.threshold, check.name)
