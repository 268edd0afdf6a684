"""Arms and source as a policy file states them; flags of the command line win over it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from moe_serve.errors import UsageError
from moe_serve.sources.addresses import address_fault

_Url = Annotated[str, Field(pattern=r"^https?://[^/?#]")]
_File = Annotated[str, Field(min_length=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArmsPart(_Part):
    """How samples tell their arm."""

    label: str | None = Field(
        None, pattern="^[a-zA-Z_][a-zA-Z0-9_]*$", description="that tells the arms apart"
    )
    stable: str | None = Field(None, min_length=1, description="its value for what serves now")
    canary: str | None = Field(None, min_length=1, description="its value for what is under test")


class PrometheusPart(_Part):
    """A Prometheus server; secrets stay in files of their own."""

    url: Annotated[str, Field(pattern=r"^https?://[^/?#]+(/[^?#]*)?$")]
    selector: str = Field("", description="label matchers for every query")
    bearer_token_file: _File | None = None
    basic_auth_file: _File | None = Field(None, description="user:password")
    ca_file: _File | None = Field(None, description="who signed the server")


class ExportersPart(_Part):
    """Exporters that are asked directly; each address is one pod's."""

    stable: tuple[_Url, ...] = Field(min_length=1)
    canary: tuple[_Url, ...] = Field(min_length=1)


class SourcePart(_Part):
    """Exactly one place."""

    prometheus: PrometheusPart | None = None
    exporters: ExportersPart | None = None
    history: _File | None = Field(None, description="a recorded history, OpenMetrics text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a file states, by the names of the flags that it stands in for; paths are below the
    file's own folder. Empty where it states nothing.
    """

    arms: dict[str, str] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)


def declared(arms: ArmsPart | None, source: SourcePart | None, name: str, folder: Path) -> Declared:
    """The parts of the file `name`, checked against each other.

    Raises:
        UsageError: they contradict each other, or hold a secret.
    """
    return Declared(
        arms={} if arms is None else _arms(arms, name),
        source={} if source is None else _source(source, name, folder),
    )


def _arms(arms: ArmsPart, name: str) -> dict[str, str]:
    if arms.stable is not None and arms.stable == arms.canary:
        raise UsageError(
            f"{name}: arms.canary: equal to arms.stable; no arm is told from the other"
        )
    named = {"arm_label": arms.label, "stable_label": arms.stable, "canary_label": arms.canary}
    return {flag: value for flag, value in named.items() if value is not None}


def _source(source: SourcePart, name: str, folder: Path) -> dict[str, Any]:
    stated = [key for key, part in source if part is not None]
    if len(stated) != 1:
        told = " and ".join(stated) or "none"
        raise UsageError(
            f"{name}: source: states {told}; give one of prometheus, exporters and history"
        )
    if source.history is not None:
        return {"history": folder / source.history}
    if source.exporters is not None:
        for arm, urls in source.exporters:
            for number, url in enumerate(urls):
                _sendable(f"{name}: source.exporters.{arm}.{number}", url)
        return {"exporter": [f"{arm}={url}" for arm, urls in source.exporters for url in urls]}
    assert source.prometheus is not None
    return _prometheus(source.prometheus, name, folder)


def _sendable(where: str, url: str) -> None:
    if fault := address_fault(url):
        raise UsageError(f"{where}: no request can be sent to this address: {fault}")


def _prometheus(part: PrometheusPart, name: str, folder: Path) -> dict[str, Any]:
    _sendable(f"{name}: source.prometheus.url", part.url)
    if "@" in part.url.partition("://")[2].partition("/")[0]:
        raise UsageError(f"{name}: source.prometheus.url: holds a user; give it in basic_auth_file")
    if part.bearer_token_file is not None and part.basic_auth_file is not None:
        raise UsageError(
            f"{name}: source.prometheus.basic_auth_file: bearer_token_file is there too; give one"
        )
    files = {
        key: folder / path
        for key in ("bearer_token_file", "basic_auth_file", "ca_file")
        if (path := getattr(part, key)) is not None
    }
    return {"prometheus": part.url, "selector": part.selector, **files}
