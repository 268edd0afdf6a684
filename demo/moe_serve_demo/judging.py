"""The verdict on a chapter's files, by the parts that `moe-serve canary judge` runs."""

import shutil
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from moe_serve.analysis.comparison import Findings, examine
from moe_serve.analysis.history import History
from moe_serve.analysis.plan import AnalysisPlan
from moe_serve.config import policy_file, quality_file
from moe_serve.sources.recorded import RecordedFile


@dataclass(frozen=True, slots=True)
class ChapterFiles:
    """The files of one chapter, which the product's command line reads as well."""

    folder: Path

    @property
    def policy(self) -> Path:
        """The policy file."""
        return self.folder / "policy.yaml"

    @property
    def quality(self) -> Path:
        """The probe's result, JSON."""
        return self.folder / "quality.json"

    @property
    def history(self) -> Path:
        """The recorded history, OpenMetrics text with timestamps."""
        return self.folder / "history.txt"

    @property
    def command(self) -> str:
        """The command line that gives the verdict again."""
        return (
            f"moe-serve canary judge --policy-file {self.policy} --history {self.history} "
            f"--quality {self.quality}"
        )

    def prepare(self, mode: str) -> AnalysisPlan:
        """Make the folder with the demo's policy for this quality mode; return its plan."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        source = resources.files(__package__).joinpath("policies", f"{mode}.yaml")
        self.policy.write_text(source.read_text("utf-8"), "utf-8")
        return policy_file.load(self.policy)

    def judge(self) -> tuple[History, Findings]:
        """The recorded history, and the findings on it."""
        recorded = RecordedFile(path=self.history)
        history = recorded.history(*recorded.span())
        plan, quality = policy_file.load(self.policy), quality_file.read(self.quality)
        return history, examine(history, plan, quality)
