"""What is installed where: every combination of chart and values that the repository offers."""

from dataclasses import dataclass

_PROFILES = (
    "airgap", "aiter-off", "benchmark", "cpu-local", "dp8", "ep8", "latency-tp8", "openshift",
    "pr42098", "stock", "throughput",
)  # fmt: skip
_PROFILE = "charts/moe-serve/profiles/{}.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One `helm install`; `name` is the golden's path."""

    name: str
    chart: str
    files: tuple[str, ...]
    release: str


def _environment(name: str, *below: str) -> tuple[Offer, ...]:
    arm = (*below, f"deploy/{name}/moe-serve.yaml")
    return (
        Offer(name=f"{name}/moe-serve", chart="moe-serve", files=arm, release="gptoss-1"),
        Offer(
            name=f"{name}/canary",
            chart="moe-serve",
            files=(*arm, f"deploy/{name}/canary.yaml"),
            release="gptoss-2",
        ),
        Offer(
            name=f"{name}/moe-canary",
            chart="moe-canary",
            files=(f"deploy/{name}/moe-canary.yaml",),
            release="verdict",
        ),
    )


_PR42098 = (
    Offer(
        name="production/pr42098",
        chart="moe-serve",
        files=(
            "deploy/production/moe-serve.yaml",
            "deploy/production/canary.yaml",
            _PROFILE.format("pr42098"),
            "deploy/production/pr42098.yaml",
        ),
        release="gptoss-2",
    ),
    Offer(
        name="production/pr42098-canary",
        chart="moe-canary",
        files=("deploy/production/moe-canary.yaml", "deploy/production/pr42098-canary.yaml"),
        release="verdict",
    ),
)

ENVIRONMENTS = (
    *_environment("local", _PROFILE.format("cpu-local")),
    *_environment("staging"),
    *_environment("production"),
    *_PR42098,
)
PROFILES = tuple(
    Offer(
        name=f"profiles/{name}",
        chart="moe-serve",
        files=(_PROFILE.format(name),),
        release="gptoss-1",
    )
    for name in _PROFILES
)
# Everything that can be switched on, so that no template is left unseen.
EVERYTHING = tuple(
    Offer(
        name=f"everything/{name}",
        chart=chart,
        files=(f"tests/charts/values/{name}.yaml",),
        release="gptoss-1",
    )
    for name, chart in (
        ("moe-serve", "moe-serve"),
        ("moe-serve-claims", "moe-serve"),
        ("moe-serve-adoption", "moe-serve"),
        ("moe-serve-dra", "moe-serve"),
        ("proxy", "moe-serve"),
        ("moe-canary", "moe-canary"),
        ("moe-canary-direct", "moe-canary"),
    )
)
DEFAULTS = (Offer(name="defaults/moe-serve", chart="moe-serve", files=(), release="gptoss-1"),)
ALL = (*DEFAULTS, *ENVIRONMENTS, *PROFILES, *EVERYTHING)
