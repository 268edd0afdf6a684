"""Who is told of a rollout beside Kubernetes: the audit log, Slack, a webhook."""

import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from moe_serve.errors import UsageError
from moe_serve.judge.audit import Audit
from moe_serve.rollout.state import Entry, EntryKind
from moe_serve.sources.addresses import address_fault

_LOG = logging.getLogger(__name__)
_ANSWER_SECONDS, _LONGEST_PAUSE = 5.0, 60.0


@dataclass(slots=True)
class AuditNotifier:
    """The hash-chained audit log; a line that is there already is not written again."""

    log: Audit
    name: str = "audit"

    def notify(self, rollout: str, entry: Entry) -> bool:
        """Write a line."""
        self.log.transition(rollout, entry)
        return True


@dataclass(slots=True, kw_only=True)
class WebhookNotifier:
    """Something that takes HTTP POSTs, in its own thread: nobody waits for it.

    Each line is sent until it was taken, with the same key each time; a controller that dies
    between sending and noting it sends it once more, and the key tells. `page` is where a person
    reads on; every message links to it.
    """

    name: str
    url: str
    plan: str
    slack: bool
    page: str = ""
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=_ANSWER_SECONDS))
    _taken: set[tuple[str, int]] = field(default_factory=set)
    _waiting: dict[tuple[str, int], Entry] = field(default_factory=dict)
    _lock: threading.Condition = field(default_factory=threading.Condition)

    def notify(self, rollout: str, entry: Entry) -> bool:
        """True once it was taken."""
        if self.slack and entry.kind is not EntryKind.PHASE:
            return True
        key = (rollout, entry.revision)
        with self._lock:
            if key in self._taken:
                return True
            self._waiting[key] = entry
            self._lock.notify()
        return False

    def run(self, stop: threading.Event) -> None:
        """Send until stopped; what is not taken is sent again after a pause that grows."""
        pause = 1.0
        while not stop.is_set():
            with self._lock:
                if not self._waiting:
                    self._lock.wait(1.0)
                    continue
                key, entry = next(iter(self._waiting.items()))
            if self._send(key, entry):
                pause = 1.0
                continue
            stop.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _send(self, key: tuple[str, int], entry: Entry) -> bool:
        headers = {"Idempotency-Key": f"{key[0]}.{key[1]}"}
        try:
            self.client.post(
                self.url, json=self._body(key[0], entry), headers=headers
            ).raise_for_status()
        except Exception as error:  # noqa: BLE001 - no error may end the thread
            # The address is a secret: it is neither logged nor part of the error's text.
            _LOG.warning("%s does not take a message: %s", self.name, type(error).__name__)
            return False
        with self._lock:
            self._taken.add(key)
            self._waiting.pop(key, None)
        return True

    def _body(self, rollout: str, entry: Entry) -> dict[str, Any]:
        if self.slack:
            link = f"\n{self.page}" if self.page else ""
            return {"text": f"*{self.plan}*: {entry.title}\n{entry.detail}{link}"}
        return {
            "plan": self.plan,
            "rollout": rollout,
            "revision": entry.revision,
            "at": entry.at,
            "kind": entry.kind.value,
            "title": entry.title,
            "detail": entry.detail,
            **({"page": self.page} if self.page else {}),
        }


def hook(flag: str, path: Path, plan: str, *, slack: bool, page: str = "") -> WebhookNotifier:
    """The hook whose address is in a file, since an address that posts is a secret.

    Raises:
        UsageError: the file cannot be read, or holds no address.
    """
    try:
        url = path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        text = getattr(error, "strerror", None) or "not UTF-8 text"
        raise UsageError(f"{flag} {path}: {text}") from error
    if not url.startswith(("http://", "https://")) or "\n" in url:
        raise UsageError(f"{flag} {path}: one line with an http(s) address is needed")
    if fault := address_fault(url):
        raise UsageError(f"{flag} {path}: no request can be sent to its address: {fault}")
    name = f"webhook:{'slack' if slack else 'generic'}"
    return WebhookNotifier(name=name, url=url, plan=plan, slack=slack, page=page)
