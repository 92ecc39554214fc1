"""Measured reports as typed rows (``core.results.reading`` reads them from JSON).

A class holds the part of a report that the pages show; other keys of the JSON are ignored. Shares
are in [0, 1], distances in metres, angles in degrees; None means not measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = [
    "AblationReport",
    "AblationRow",
    "BenchReport",
    "Budget",
    "ClassRow",
    "ContestRow",
    "ExplanationReport",
    "ExplanationRow",
    "HeadingRow",
    "Kind",
    "Learned",
    "PhotoRow",
    "PointingRow",
    "Progress",
    "Report",
    "Reports",
    "SeenReport",
    "ShortcutReport",
    "ShortcutRow",
    "StudentReport",
    "TownReport",
    "TownRow",
    "TrainingReport",
]


def _named(key: str, **options: Any) -> Any:
    """A field whose JSON key is not a Python name, or differs from the field's name."""
    return field(metadata={"key": key}, **options)


class Kind(NamedTuple):
    """The kind of a town's row: view, help, and ranking by student or teacher."""

    fov_deg: float
    view: str
    heading: str = "unknown"
    radius_m: float | None = None
    reranked: bool = False


@dataclass(frozen=True, kw_only=True)
class TownRow:
    """One row of ``evaluate`` on a town (``core.evaluation.report``)."""

    fov_deg: float
    view: str
    heading: str
    radius_m: float | None
    reranked: bool
    queries: int
    gallery: int
    within_25_m: float
    chance_25_m: float
    hit_at_1: float | None = _named("hit@1", default=None)
    hit_at_5: float | None = _named("hit@5", default=None)
    within_10_m: float | None = None
    within_50_m: float | None = None
    within_25_m_at_5: float | None = _named("within_25_m@5", default=None)
    standard_error_25_m: float | None = None
    median_error_m: float | None = None
    median_position_error_m: float | None = None
    position_error_90_m: float | None = None
    median_heading_error_deg: float | None = None
    median_heading_error_located_deg: float | None = None

    @property
    def kind(self) -> Kind:
        """The kind of this row; it is unique within a town."""
        return Kind(self.fov_deg, self.view, self.heading, self.radius_m, self.reranked)


@dataclass(frozen=True, kw_only=True)
class PhotoRow:
    """One row of ``evaluate`` on a town's perspective photos (``core.evaluation.report.photo_rows``)."""

    radius_m: float | None
    reranked: bool
    photos: int
    within_10_m: float
    within_25_m: float
    standard_error_25_m: float
    within_50_m: float
    median_error_m: float
    median_heading_error_located_deg: float | None


@dataclass(frozen=True, kw_only=True)
class AblationRow:
    """One row of ``ablate``: one arm, seed and town (``core.research.ablation``)."""

    kind: str
    arm: str
    seed: int | None
    town: str
    fov_deg: float
    hit_at_1: float = _named("hit@1")
    within_25_m: float


@dataclass(frozen=True, kw_only=True)
class ContestRow:
    """One row of ``bench models``: an encoder beside its transcription (``core.bench.models``)."""

    model: str
    batch: int
    precision: str
    plain_ms: float
    ours_ms: float
    ratio: float
    work_ratio: float | None
    ceiling: float
    largest_difference: float
    cosine_error: float


@dataclass(frozen=True, kw_only=True)
class PointingRow:
    """Distance from the place that a guess points to, to the place of a patch's content."""

    guess: str
    median_m: float | None
    mean_m: float | None
    standard_error_m: float | None


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """Contribution and pointing error of one group of classes."""

    group: str = _named("class")
    patches: int
    contribution: float | None
    contribution_standard_error: float | None
    beside_row: float | None
    beside_row_standard_error: float | None
    patches_in_tile: int
    attention_median_m: float | None
    own_azimuth_median_m: float | None


@dataclass(frozen=True, kw_only=True)
class HeadingRow:
    """Heading error of one source."""

    source: str
    median_deg: float
    within_a_bin: float


@dataclass(frozen=True, kw_only=True)
class ExplanationRow:
    """One field of view of ``pointing`` (``core.evaluation.explanations``)."""

    fov_deg: float
    queries: int
    patches: int
    patches_in_tile: int
    pointing: tuple[PointingRow, ...]
    classes: tuple[ClassRow, ...]
    headings: tuple[HeadingRow, ...]


@dataclass(frozen=True, kw_only=True)
class ShortcutRow:
    """One row of ``shortcuts``, for one reduction of photos or tiles (``core.research.shortcuts``)."""

    of: str
    left: str
    queries: int
    gallery: int
    hit_at_1: float | None = _named("hit@1")
    within_25_m: float | None
    standard_error_25_m: float | None
    chance_25_m: float | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """The part that all reports share. ``file``: its name, "" for a report just measured.

    ``protocol``: what counted as found, "" in the oldest reports.
    """

    file: str = ""
    protocol: str = ""
    command: str
    date: str
    machine: str

    @property
    def caveat(self) -> str:
        """A sentence for old reports, which measured the distance to the centre of the place."""
        if "answered position" in self.protocol:
            return ""
        return " Measured to the centre of the first place, before the answered position counted."


@dataclass(frozen=True, kw_only=True)
class TownReport(Report):
    """A report of ``evaluate`` on one town. ``viewpoints``: of each place, 1 in the oldest reports."""

    data: str
    seed: int = 0
    viewpoints: int = 1
    rows: tuple[TownRow, ...]
    photos: tuple[PhotoRow, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Budget:
    """The training of a student of ``student-*.json``; minutes and steps of its last run."""

    name: str
    pooling: str
    ground_size: tuple[int, ...] | None
    towns: int
    steps: int | None
    minutes: float | None
    went_on: bool = False


@dataclass(frozen=True, kw_only=True)
class StudentReport(TownReport):
    """``student-*.json``: another student on a town."""

    trained: Budget


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The training of the student of a ``training-*.json``, all runs together.

    ``name`` and ``device``: missing in the oldest reports, which are of convnet-s on a CPU.
    """

    all_steps: int
    all_minutes: float
    offset_m: float | None
    extra_negatives: float = _named("elsewhere", default=0.0)
    name: str = "convnet-s"
    device: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrainingReport(TownReport):
    """``training-*.json``: the student at one time of its training, on a validation town."""

    trained: Progress


@dataclass(frozen=True, kw_only=True)
class Learned:
    """The number of towns that a student was trained on."""

    towns: int


@dataclass(frozen=True, kw_only=True)
class SeenReport(TownReport):
    """``seen-*.json``: the student on a town that it was trained on, or on another town."""

    model: str
    trained: Learned


@dataclass(frozen=True, kw_only=True)
class AblationReport(Report):
    """``ablation*.json``. ``student``: the model of fresh students, None if they continue one."""

    steps: int
    batch: int
    seeds: int
    noise: float
    student: str | None = _named("fresh")
    rows: tuple[AblationRow, ...]


@dataclass(frozen=True, kw_only=True)
class BenchReport(Report):
    """``bench-models.json``. ``load``: load average of the last minute, if the system has it."""

    torch: str
    load: float | None
    rows: tuple[ContestRow, ...]


@dataclass(frozen=True, kw_only=True)
class ExplanationReport(Report):
    """``explanations.json``. ``groups``: the classes that each group holds."""

    data: str
    seed: int
    protocol: str
    groups: dict[str, tuple[str, ...]]
    rows: tuple[ExplanationRow, ...]


@dataclass(frozen=True, kw_only=True)
class ShortcutReport(Report):
    """``shortcuts.json``."""

    data: str
    rows: tuple[ShortcutRow, ...]


@dataclass(frozen=True, kw_only=True)
class Reports:
    """All reports of a folder, each kind in the order of its files' names."""

    towns: list[TownReport]
    training: list[TrainingReport]
    seen: list[SeenReport]
    students: list[StudentReport]
    ablations: list[AblationReport]
    bench: list[BenchReport]
    explanations: list[ExplanationReport]
    shortcuts: list[ShortcutReport]
    trust: list[Mapping[str, Any]]
