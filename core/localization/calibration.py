"""An answer's probabilities: one distribution over tiles, the rest of the imagery, and outside of it.

It follows Bayes' rule. A tile with similarity s and teacher score t has the logit

    l = student * s + teacher * t,

the log of the likelihood ratio of this tile and an arbitrary place. The rest of the imagery is the
N - K places that are not among the K tiles of the ranking. They fit no better than the last of these:

    l_rest = log(N - K) + (mean logit of the last quarter of the ranking) + rest.

The photo may also be from outside the searched imagery. With more places, the best of them fits better
by chance. A known heading leaves less to chance:

    l_outside = outside + growth * log(N) + compass * (1 if the heading is known).

The softmax of all logits is the distribution. Evidence beside the photo conditions it: a circle makes N
smaller, a known heading leaves one azimuth shift. All numbers are fitted together on validation towns
(``core.evaluation.fit``), for views of each width.

A narrow photo from outside can fit some place as well as an own photo fits its true place. So an answer
is a confident match only if its first place reaches ``threshold``; hardly any photo of another town
does. It is no match if the first place is no more likely than everything else together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from core.arrays import Float64Array, FloatArray
from core.errors import SettingError

__all__ = ["LIKELY", "Calibration", "Distribution", "ViewCalibration"]

LIKELY = 0.5
"""Above this probability the first place is more likely than everything else together."""


@dataclass(frozen=True)
class Distribution:
    """Probabilities that sum to 1: of the tiles (K,), of the rest of the imagery, of being outside."""

    tiles: Float64Array
    rest: float
    outside: float


@dataclass(frozen=True)
class ViewCalibration:
    """Fitted numbers for views of ``bins`` azimuth bins. ``teacher`` is 0 without a teacher.

    ``rest``, ``outside``, ``growth``, ``compass``: see the module. ``threshold``: smallest probability
    of a confident match. ``radius_m``: if the place was right, nine of ten cameras stood within this
    distance of the student's position. ``refined_radius_m``: the same for the position refined by the
    teacher, None without a teacher. ``located``: share of the validation towns' own photos whose first
    place was right.
    """

    bins: int
    student: float
    teacher: float = 0.0
    rest: float = 0.0
    outside: float = -1e6
    growth: float = 0.0
    compass: float = 0.0
    threshold: float = LIKELY
    radius_m: float | None = None
    refined_radius_m: float | None = None
    located: float | None = None

    def logits(self, similarities: FloatArray, teacher_scores: FloatArray) -> Float64Array:
        """Logits (K,) of tiles in the student's order; the teacher scored the first T.

        The other tiles get the lowest score given. So the teacher's scores alone can move none of
        them before one of the first T.
        """
        student = self.student * np.asarray(similarities, np.float64)
        scored = np.asarray(teacher_scores, np.float64)
        if not len(scored) or not self.teacher:
            return np.asarray(student)
        filled = np.concatenate([scored, np.full(len(student) - len(scored), scored.min())])
        return np.asarray(student + self.teacher * filled)

    def distribution(
        self, logits: Float64Array, searched: int, heading_known: bool = False
    ) -> Distribution:
        """Probabilities of K tiles, the rest and outside.

        Args:
            logits: (K,) of the tiles of a ranking, see ``logits``.
            searched: N, number of searched places.
            heading_known: whether only one azimuth shift was searched.

        """
        others = searched - len(logits)
        tail = float(np.sort(logits)[: max(1, len(logits) // 4)].mean())
        rest = np.log(others) + tail + self.rest if others > 0 else -np.inf
        outside = self.outside + self.growth * np.log(searched) + self.compass * heading_known
        together = np.concatenate([logits, [rest, outside]])
        weights = np.exp(together - together.max())
        weights /= weights.sum()
        return Distribution(weights[:-2], float(weights[-2]), float(weights[-1]))


UNFITTED = ViewCalibration(bins=32, student=20.0)


@dataclass(frozen=True)
class Calibration:
    """A model's calibration, fitted on validation towns and stored in the model's config.json.

    ``views``: one entry for each fitted width, by bins; other widths take the nearest.
    ``viewpoints``: number of viewpoints per place in the fit, if anything was fitted.
    """

    views: tuple[ViewCalibration, ...] = (UNFITTED,)
    viewpoints: int | None = None

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Calibration:
        """From the ``calibration`` part of a model's config; an empty part gives the unfitted one.

        Raises:
            SettingError: it is from another version of the program, or damaged.

        """
        if not config:
            return cls()
        try:
            views = tuple(ViewCalibration(**view) for view in config["views"])
        except (TypeError, KeyError) as error:
            raise SettingError(
                f"Calibration: got one that this version does not know ({error}), expected one of its "
                "own. Fit it again with: python -m core calibrate"
            ) from error
        return cls(views, config.get("viewpoints"))

    def to_config(self) -> dict[str, Any]:
        """The JSON that ``from_config`` reads."""
        return asdict(self)

    def at(self, bins: int) -> ViewCalibration:
        """The fitted view nearest in width to ``bins`` azimuth bins."""
        return min(self.views, key=lambda view: abs(view.bins - bins))
