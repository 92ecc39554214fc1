"""The benchmarks' metrics, from descriptors: recalls, hit rate, AP, metres.

Each metric comes with its protocol as text, since published codes differ. Ties count against the
model, and working memory is bounded (``core.evaluation.ranks``). A view that is searched under
several azimuth shifts has no single descriptor; ``core.evaluation.answers`` measures such views.

Q queries, R references, D values of a descriptor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from core.arrays import Float64Array, FloatArray, Int64Array
from core.errors import SettingError
from core.evaluation.chunks import CHUNK_MB
from core.evaluation.metrics import recall_at, recall_at_one_percent, share_within
from core.evaluation.ranks import (
    Distance,
    Lists,
    best_ranks,
    check_places,
    first_place_errors_m,
    positive_places,
    truth_ranks,
)
from core.geo import EARTH

__all__ = [
    "Scores",
    "average_precision",
    "earth_metres",
    "plane_metres",
    "score_classes",
    "score_metres",
    "score_positives",
    "score_truth",
    "score_within",
]


RECALLS = (1, 5, 10)
CLASS_RECALLS = (1, 2, 4, 8)


@dataclass(frozen=True)
class Scores:
    """Metrics and how they were measured.

    Attributes:
        values: by name; shares in [0, 1], names ending in ``_m`` in metres.
        protocol: what counts as found, the k of 1 %, and the treatment of ties.
        queries: Q.
        references: R.

    """

    values: dict[str, float]
    protocol: str
    queries: int
    references: int


def score_truth(
    queries: FloatArray,
    references: FloatArray,
    positives: Lists,
    ignored: Lists | None = None,
    chunk_mb: float = CHUNK_MB,
) -> Scores:
    """R@1, 5, 10 and 1 % of the one true reference, and the hit rate (CVUSA, CVACT_val, VIGOR).

    The hit rate (VIGOR: Zhu et al., CVPR 2021) is the share of queries whose true reference is
    first after the ignored references (VIGOR's semi-positives) are left out. In R@K they count as
    wrong. The hit rate is present if ``ignored`` is given.

    Args:
        queries: (Q, D) unit vectors.
        references: (R, D) unit vectors.
        positives: of each query at least one; the first is the true one, others count as wrong.
        ignored: of each query any number, none of them positive.
        chunk_mb: working memory in MB (10^6 bytes), descriptors not counted.

    Raises:
        SettingError: descriptors, lists or memory are not as described here.

    """
    ranks = truth_ranks(queries, references, positives, ignored, chunk_mb)
    values = _recalls(ranks.among_all, len(references))
    found = "found = the one true reference"
    if ignored is not None:
        values["hit_rate"] = recall_at(ranks.without_ignored, 1)
        found += "; hit rate leaves the ignored references out, R@K counts them as wrong"
    protocol = _protocol(found, _one_percent(references))
    return Scores(values, protocol, len(queries), len(references))


def score_positives(
    queries: FloatArray,
    references: FloatArray,
    positives: Lists,
    ignored: Lists | None = None,
    chunk_mb: float = CHUNK_MB,
) -> Scores:
    """R@1, 5, 10 and 1 % of the best positive, and AP over all of them (University-1652).

    ``ap`` is the mean of ``average_precision`` over queries (mAP). Arguments and errors as for
    ``score_truth``; the order of positives does not matter.
    """
    places = positive_places(queries, references, positives, ignored, chunk_mb)
    values = _recalls(np.array([own[0] for own in places]), len(references))
    values["ap"] = float(np.mean([average_precision(own) for own in places]))
    protocol = _protocol(
        "found = any positive, ignored references left out",
        "AP by trapezoids as in University-1652's code",
        _one_percent(references),
    )
    return Scores(values, protocol, len(queries), len(references))


def average_precision(places: Int64Array) -> float:
    """Average precision in (0, 1] of one query as University-1652 publishes it.

    Each positive adds a trapezoid of width 1 / P between the precision just before it and the
    precision at it; before the first place precision is 1. (evaluate_gpu.py of
    layumi/University1652-Baseline; Zheng et al., ACM MM 2020.) A step-wise AP would be lower.

    Args:
        places: (P,) places of the positives in the ranking, ascending; 0 is the first place.

    """
    before = np.arange(len(places))
    precision = (before + 1) / (places + 1)
    earlier = np.where(places == 0, 1.0, before / np.maximum(places, 1))
    return float(np.mean((earlier + precision) / 2))


def score_within(
    queries: FloatArray,
    references: FloatArray,
    query_xy_m: Float64Array,
    reference_xy_m: Float64Array,
    radius_m: float = 5.0,
    chunk_mb: float = CHUNK_MB,
) -> Scores:
    """R@1, 5, 10 and 1 % if any reference near the query counts as found (CVACT_test).

    Liu & Li, "Lending Orientation to Neural Networks", CVPR 2019; its RecallGeo.m uses 5 m in UTM,
    border included.

    Args:
        queries: (Q, D) unit vectors.
        references: (R, D) unit vectors.
        query_xy_m: (Q, 2) metres east and north.
        reference_xy_m: (R, 2) metres in the same plane.
        radius_m: greatest distance of a found reference.
        chunk_mb: working memory in MB (10^6 bytes), descriptors not counted.

    Raises:
        SettingError: descriptors, places or memory are not as described here, or a query has no
            reference within the radius.

    """
    check_places(query_xy_m, reference_xy_m, len(queries), len(references))
    near = cKDTree(reference_xy_m).query_ball_point(query_xy_m, radius_m)
    alone = next((query for query, found in enumerate(near) if not found), None)
    if alone is not None:
        raise SettingError(
            f"Query {alone}: got no reference within {radius_m:g} m, expected at least one. "
            "Leave it out, or check that both places are in one plane and in metres."
        )
    ranks = best_ranks(queries, references, list(near), None, chunk_mb)
    protocol = _protocol(
        f"found = any reference within {radius_m:g} m of the query", _one_percent(references)
    )
    return Scores(_recalls(ranks, len(references)), protocol, len(queries), len(references))


def score_classes(
    descriptors: FloatArray, labels: Int64Array, chunk_mb: float = CHUNK_MB
) -> Scores:
    """R@1, 2, 4 and 8 of each picture as a query among all others (CUB-200, Cars-196, SOP).

    Any other picture of the query's class counts as found; the query itself is left out. (Oh Song et
    al., "Deep Metric Learning via Lifted Structured Feature Embedding", CVPR 2016.)

    Args:
        descriptors: (N, D) unit vectors.
        labels: (N,) class of each picture; each class has at least two.
        chunk_mb: working memory in MB (10^6 bytes), descriptors not counted.

    Raises:
        SettingError: descriptors, labels or memory are not as described here.

    """
    positives = _others_of_class(labels, len(descriptors))
    own = np.arange(len(descriptors))[:, None]
    ranks = best_ranks(descriptors, descriptors, positives, list(own), chunk_mb)
    values = {f"recall@{k}": recall_at(ranks, k) for k in CLASS_RECALLS}
    protocol = _protocol("found = any other picture of the class, the query itself left out")
    return Scores(values, protocol, len(descriptors), len(descriptors))


def score_metres(
    queries: FloatArray,
    references: FloatArray,
    query_places: Float64Array,
    reference_places: Float64Array,
    distance: Distance,
    radii_m: Sequence[float] = (10, 25, 50),
    chunk_mb: float = CHUNK_MB,
) -> Scores:
    """Mean and median metres from query to first place, and the share within each radius (VIGOR).

    Args:
        queries: (Q, D) unit vectors.
        references: (R, D) unit vectors.
        query_places: (Q, 2), in the form that ``distance`` takes.
        reference_places: (R, 2), likewise.
        distance: ``plane_metres`` or ``earth_metres``.
        radii_m: radii of ``within_<radius>_m``, borders included.
        chunk_mb: working memory in MB (10^6 bytes), descriptors not counted.

    Raises:
        SettingError: descriptors, places or memory are not as described here.

    """
    errors = first_place_errors_m(
        queries, references, query_places, reference_places, distance, chunk_mb
    )
    values = {"mean_error_m": float(errors.mean()), "median_error_m": float(np.median(errors))}
    values |= {f"within_{radius:g}_m": share_within(errors, radius) for radius in radii_m}
    protocol = _protocol("metres from the query to its first reference, the farthest of tied ones")
    return Scores(values, protocol, len(queries), len(references))


def plane_metres(place: Float64Array, places: Float64Array) -> Float64Array:
    """Distances (n,) in a plane, from (2,) to (n, 2) metres east and north."""
    offset = places - place
    return np.asarray(np.hypot(offset[:, 0], offset[:, 1]))


def earth_metres(place: Float64Array, places: Float64Array) -> Float64Array:
    """Geodesic distances (n,) in metres on WGS 84, from (2,) to (n, 2) latitude and longitude.

    Latitude and longitude in degrees. For galleries of several cities, too far apart for one plane.
    """
    lat_deg, lon_deg = np.broadcast_to(place, places.shape).T
    return np.asarray(EARTH.inv(lon_deg, lat_deg, places[:, 1], places[:, 0])[2])


def _recalls(ranks: Int64Array, references: int) -> dict[str, float]:
    values = {f"recall@{k}": recall_at(ranks, k) for k in RECALLS}
    return values | {"recall@1%": recall_at_one_percent(ranks, references)}


def _protocol(*rules: str) -> str:
    return "; ".join([*rules, "ties against the model"])


def _one_percent(references: FloatArray) -> str:
    count = len(references)
    return f"k for 1 % = {count // 100 + 1:,} of {count:,}"


def _others_of_class(labels: Int64Array, count: int) -> list[Int64Array]:
    if labels.shape != (count,):
        raise SettingError(
            f"Labels: got shape {labels.shape}, expected ({count},), one for each descriptor."
        )
    order = np.argsort(labels, kind="stable")
    edges = np.flatnonzero(labels[order][1:] != labels[order][:-1]) + 1
    others: dict[int, Int64Array] = {}
    for members in np.split(order, edges):
        if len(members) < 2:
            raise SettingError(
                f"Class {labels[members[0]]}: got one picture, expected at least two. "
                "Leave it out: nothing in the gallery answers it."
            )
        others |= {int(own): members[members != own] for own in members}
    return [others[own] for own in range(count)]
