"""Ask a running controller where its rollout stands: a shadow writes that nowhere."""

import httpx

from moe_serve.errors import UsageError
from moe_serve.rollout.state import RolloutState
from moe_serve.rollout.state_json import from_json
from moe_serve.sources.addresses import address_fault

_ANSWER_SECONDS = 5.0


def ask(url: str) -> tuple[RolloutState, str]:
    """The state of its last look, and why that failed if it did.

    Raises:
        UsageError: it does not answer, or has no state.
        RolloutError: its state is of another release.
    """
    if address := address_fault(url):
        raise UsageError(f"--controller {url}: no request can be sent there: {address}")
    try:
        with httpx.Client(timeout=_ANSWER_SECONDS, trust_env=False) as client:
            body = client.get(f"{url.rstrip('/')}/state").raise_for_status().json()
        state, fault = body["state"], str(body["fault"])
    except (httpx.HTTPError, httpx.InvalidURL, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"--controller {url}: no controller answers there ({type(error).__name__})"
        ) from error
    if state is None:
        raise UsageError(f"--controller {url}: no state yet: {fault}")
    return from_json(state), fault
