"""Measure a model on a published benchmark: describe its pictures, rank them, report the protocol.

The metrics and their rules are those of ``core.evaluation.retrieval``. The model's config names its
training data, so the report shows when a model of one data set is measured on another.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from core.arrays import Float32Array
from core.data.benchmarks import Benchmark, ImageFiles
from core.data.benchmarks.cvact import HIT_RADIUS_M
from core.data.benchmarks.views import open_views
from core.errors import SettingError
from core.evaluation.retrieval import (
    Scores,
    earth_metres,
    score_classes,
    score_metres,
    score_positives,
    score_truth,
    score_within,
)
from core.models.two_branch import TwoBranch

__all__ = [
    "AerialInput",
    "aerial_input",
    "describe_images",
    "evaluate_benchmark",
    "lineage",
    "score_benchmark",
]

Size = tuple[int, int]
Describe = Callable[[Tensor], Tensor]

TOWNS = "rendered towns"


@dataclass(frozen=True)
class AerialInput:
    """Pictures for an aerial branch, their (height, width) in pixels, and a description in words."""

    images: ImageFiles
    size: Size
    seen: str


def aerial_input(
    images: ImageFiles, model: TwoBranch, config: Mapping[str, Any], polar_root: Path | None = None
) -> AerialInput:
    """The input of a model's aerial branch.

    A polar model gets the published polar pictures of ``polar_root``, or else SAFA's transform
    computed here. A model trained on rendered towns gets tiles and transforms them itself.

    Raises:
        SettingError: polar pictures for a model that takes none.
        DataError: a picture has no polar version.

    """
    if not model.polar:
        if polar_root is not None:
            raise SettingError(
                "Polar pictures: got a folder of them, but this model looks at tiles as they are. "
                "Leave --polar-root out."
            )
        return AerialInput(images, model.aerial_size, "tiles as they are")
    if polar_root is not None:
        stored = images.from_polar_root(polar_root)
        return AerialInput(stored, model.ground_size, "the stored polar pictures")
    if lineage(config)[-1:] == [TOWNS]:
        return AerialInput(images, model.aerial_size, "the model's own polar view of tiles")
    return AerialInput(images.as_polar(), model.ground_size, "SAFA's polar view, computed here")


def lineage(config: Mapping[str, Any]) -> list[str]:
    """The data sets that a model was trained on, each once, the latest last.

    Names of ``core.data.benchmarks`` (of the test part if ``convert`` wrote it), or "rendered
    towns"; empty if the config names none.
    """
    training = config.get("training")
    if training:
        return list(dict.fromkeys(reversed(_stages(training))))[::-1]
    data_set = (config.get("protocol") or {}).get("data_set")
    return [] if data_set is None else [str(data_set)]


def _stages(record: Mapping[str, Any]) -> list[str]:
    """Data sets of a training record and of the records before it, in order."""
    earlier = record.get("earlier")
    if earlier is None:
        earlier = _stages(record["before"]) if record.get("before") else []
    own = [TOWNS] if "towns" in record else []
    return [*earlier, *([str(record["data_set"])] if "data_set" in record else own)]


@torch.inference_mode()
def describe_images(
    describe: Describe, images: ImageFiles, size: Size, device: str = "cpu", batch: int = 32
) -> Float32Array:
    """Descriptors (N, D) float32 of pictures, ``batch`` pictures at a time.

    Args:
        describe: from images (B, 3, H, W) in [0, 1] to unit vectors (B, D).
        images: N pictures.
        size: (H, W) in pixels; each picture is stretched to it.
        device: as torch names it.
        batch: B at most.

    Raises:
        DataError: a picture cannot be read.

    """
    parts = []
    bar = tqdm(total=len(images), desc=images.root.name, disable=None)
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as workers:
        for start in range(0, len(images), batch):
            rows = range(start, min(start + batch, len(images)))
            views = torch.from_numpy(open_views(images, rows, size, workers)).to(device)
            described = describe(views.permute(0, 3, 1, 2).float() / 255)
            parts.append(described.float().cpu().numpy())
            bar.update(len(rows))
    bar.close()
    return np.concatenate(parts)


def score_benchmark(
    benchmark: Benchmark, queries: Float32Array, references: Float32Array
) -> tuple[dict[str, float], list[str]]:
    """The metrics of a benchmark, and the rules behind them.

    CVACT's test part counts any reference within 5 m. VIGOR adds metres and the hit rate,
    University-1652 adds AP. Data sets of classes report recall at 1, 2, 4 and 8.

    Args:
        benchmark: with Q queries and R references.
        queries: (Q, D) unit vectors.
        references: (R, D) unit vectors.

    Raises:
        SettingError: descriptors are not unit vectors, or their number differs from the pictures'.

    """
    if benchmark.references is benchmark.queries:
        firsts = [min(own, int(others.min())) for own, others in enumerate(benchmark.positives)]
        found = [score_classes(queries, np.asarray(firsts))]
    elif benchmark.name == "VIGOR":
        found = _vigor(benchmark, queries, references)
    elif benchmark.name == "University-1652":
        found = [score_positives(queries, references, benchmark.positives)]
    elif benchmark.query_xy_m is not None and benchmark.split == "test":
        assert benchmark.reference_xy_m is not None
        places = benchmark.query_xy_m, benchmark.reference_xy_m
        found = [score_within(queries, references, *places, radius_m=HIT_RADIUS_M)]
    else:
        found = [score_truth(queries, references, benchmark.positives)]
    values = {name: value for scores in found for name, value in scores.values.items()}
    return values, [scores.protocol for scores in found]


def _vigor(benchmark: Benchmark, queries: Float32Array, references: Float32Array) -> list[Scores]:
    places = benchmark.places
    assert places is not None
    cameras = np.stack([places.query_lat_deg, places.query_lon_deg], axis=1)
    centres = np.stack([places.reference_lat_deg, places.reference_lon_deg], axis=1)
    return [
        score_truth(queries, references, benchmark.positives, benchmark.ignored),
        score_metres(queries, references, cameras, centres, earth_metres),
    ]


def evaluate_benchmark(
    model: TwoBranch,
    config: Mapping[str, Any],
    benchmark: Benchmark,
    name: str,
    polar_root: Path | None = None,
    device: str = "cpu",
    batch: int = 32,
) -> dict[str, Any]:
    """Measure a model; returns the report of ``evaluate --benchmark``, without provenance.

    An azimuth model is aligned at the data set's own heading, north in the middle column: one
    descriptor for each picture, no search over azimuth shifts.

    Args:
        model: any two-branch model.
        config: of its folder.
        benchmark: the test part.
        name: of the test part, a key of ``core.data.benchmarks.BENCHMARKS``.
        polar_root: see ``aerial_input``.
        device: as torch names it.
        batch: pictures at a time.

    Raises:
        DataError: a picture cannot be read.
        SettingError: polar pictures for a model that takes none, or unusable descriptors of a model
            that diverged.

    """
    aerial = _answers(benchmark, model, config, polar_root)  # refuse before hours of describing
    model.to(device).eval()
    queries = describe_images(
        model.describe_ground, benchmark.queries, model.ground_size, device, batch
    )
    references = queries
    if aerial is not None:
        references = describe_images(
            model.describe_aerial, aerial.images, aerial.size, device, batch
        )
    values, rules = score_benchmark(benchmark, queries, references)
    learned = lineage(config)
    families = {_family(each) for each in learned}
    return {
        "protocol": "; ".join([benchmark.protocol.rstrip("."), *rules, *_cautions(learned, name)]),
        "benchmark": name,
        "split": benchmark.split,
        "trained_on": learned[-1] if learned else None,
        "trained_before_on": learned[:-1],
        "trained_on_is_assumed": "data_set" in (config.get("source") or {}).get("assumed", ()),
        "evaluated_on": name,
        "cross_dataset": _family(name) not in families if learned else None,
        "ground_size": list(model.ground_size),
        "aerial_size": None if aerial is None else list(aerial.size),
        "polar": None if aerial is None else model.polar,
        "references_seen": "the same pictures" if aerial is None else aerial.seen,
        "skipped": benchmark.skipped,
        "rows": [{"queries": len(queries), "gallery": len(references), **values}],
    }


def _answers(
    benchmark: Benchmark, model: TwoBranch, config: Mapping[str, Any], polar_root: Path | None
) -> AerialInput | None:
    """The input of the aerial branch; None for a data set with one view only.

    The ground branch describes such a data set.
    """
    if benchmark.references is not benchmark.queries:
        return aerial_input(benchmark.references, model, config, polar_root)
    if polar_root is not None:
        raise SettingError(
            f"Polar pictures: got a folder of them, but {benchmark.name} has one view. "
            "Leave --polar-root out."
        )
    return None


def _family(name: str) -> str:
    """The data set of a part: cvact for cvact-val."""
    return name.partition("-")[0]


def _cautions(learned: Sequence[str], name: str) -> list[str]:
    has_seen = any(each.startswith("vigor-same") for each in learned)
    if has_seen and name.startswith("vigor-cross"):
        return ["caution: the model's training part, vigor-same, holds panoramas of this test part"]
    return []
