"""Training objectives: a student alone, a teacher over pairs, a student under a teacher."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from core.errors import SettingError
from core.models.azimuth import shift_similarity
from core.models.geossk import GeoSSK
from core.models.two_branch import TwoBranch
from core.polar import BINS
from core.training.auxiliary import AuxiliaryWeights, pointing_loss, transient_loss
from core.training.distillation import (
    descriptor_knowledge_loss,
    filter_incorrect_knowledge,
    local_knowledge_loss,
    relation_knowledge_loss,
)
from core.training.losses import (
    LearnedScale,
    exhaustive_triplet,
    hard_triplet,
    saig_info_nce,
    semi_hard_triplet,
    shift_info_nce,
    symmetric_info_nce,
)
from core.training.memory import TileMemory
from core.training.sampling import Batch, to_model_views

__all__ = [
    "DistillationConfig",
    "DistillationObjective",
    "LossConfig",
    "LossName",
    "PairObjective",
    "StudentObjective",
    "TeacherObjective",
]

LossName = Literal[
    "exhaustive-triplet", "hard-triplet", "semi-hard-triplet", "saig-info-nce", "symmetric-info-nce"
]
Metrics = dict[str, float]


def batch_truth(batch: Batch, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """True columns (Q,), true azimuth shifts (Q,) and the ignored mask (Q, R), as tensors."""
    return (
        torch.from_numpy(batch.true_columns).to(device),
        torch.from_numpy(batch.true_shifts).to(device),
        torch.from_numpy(batch.ignored).to(device),
    )


def batch_rotations(batch: Batch, device: str) -> Tensor | None:
    """Residual rotations (R,) of a batch's tiles in bins; None for tiles that are north up."""
    rotations = batch.residual_rotations
    return None if rotations is None else torch.from_numpy(rotations).to(device)


def batch_views(
    batch: Batch, student: TwoBranch, generator: torch.Generator, device: str
) -> tuple[Tensor, Tensor]:
    """Views and tiles as a model takes them: float32, channels last for fast convolutions."""
    sizes = student.ground_size, student.aerial_size
    with torch.autocast(torch.device(device).type, enabled=False):
        is_global = student.bins is None
        views, tiles = to_model_views(batch, *sizes, generator, device, whole=is_global)
    layout = torch.channels_last
    return views.contiguous(memory_format=layout), tiles.contiguous(memory_format=layout)


def batch_accuracy(scores: Tensor, truth: Tensor, ignored: Tensor) -> float:
    """Share of queries whose true tile scores above every tile that is not ignored.

    A tie counts as lost.
    """
    rows = torch.arange(len(scores), device=scores.device)
    others = scores.detach().float().masked_fill(ignored, -torch.inf)
    own = others[rows, truth].clone()
    others[rows, truth] = -torch.inf
    return float((own > others.amax(dim=1)).float().mean())


def similarity_of(student: TwoBranch, ground: Tensor, aerial: Tensor) -> Tensor:
    """Similarities of descriptors: (Q, R, K) for an azimuth student, (Q, R) for a global one."""
    return ground @ aerial.T if student.bins is None else shift_similarity(ground, aerial)


class StudentObjective(nn.Module):
    """The retrieval task: InfoNCE over tiles, and over azimuth shifts for a model with azimuth bins.

    ``memory``: extra negatives for models with azimuth bins; tiles nearer to a camera than
    ``apart_m`` are left out.
    """

    def __init__(
        self, student: TwoBranch, memory: TileMemory | None = None, apart_m: float = 0.0
    ) -> None:
        super().__init__()
        self.student = student
        self.scale = LearnedScale(temperature=1 / 14)
        self.memory, self.apart_m = memory, apart_m

    def forward(
        self, batch: Batch, generator: torch.Generator, device: str
    ) -> tuple[Tensor, Metrics]:
        """Loss (scalar) and metrics of one batch."""
        student = self.student
        views, tiles = batch_views(batch, student, generator, device)
        columns, azimuth_shifts, ignored = batch_truth(batch, device)
        ground = student.describe_ground(views)
        aerial = student.describe_aerial(tiles, batch_rotations(batch, device))
        with torch.autocast(views.device.type, enabled=False):
            ground, aerial = ground.float(), aerial.float()
            curve = similarity_of(student, ground, aerial)
            wrong = self._remembered(batch, ground, aerial)
            loss, scores = _task_loss(curve, self.scale(), columns, azimuth_shifts, ignored, wrong)
        metrics = {
            "accuracy": batch_accuracy(scores, columns, ignored),
            "scale": float(self.scale().detach()),
        }
        if wrong is not None:
            own = scores.detach().gather(1, columns[:, None])[:, 0]
            metrics["above_memory"] = float((own > wrong.detach().amax(dim=1)).float().mean())
        return loss, metrics

    def _remembered(self, batch: Batch, ground: Tensor, aerial: Tensor) -> Tensor | None:
        """Similarities (Q, E) of the views with remembered tiles; then remember this batch's tiles."""
        if self.memory is None or batch.town is None:
            return None
        assert batch.centres is not None, "batches of towns have centres"
        assert batch.places is not None, "batches of towns have places"
        places = torch.from_numpy(batch.places).to(ground.device)
        wrong = self.memory.wrong(batch.town, ground, places, self.apart_m)
        if self.training:
            self.memory.add(batch.town, aerial, torch.from_numpy(batch.centres).to(aerial.device))
        return wrong


@dataclass(frozen=True)
class LossConfig:
    """A loss over the pairs of a batch, by name, see ``core.training.losses``.

    ``alpha``: steepness of the triplets' soft margin. ``temperature``: of InfoNCE; of the symmetric
    one the start value, its scale is learned.
    """

    name: LossName
    alpha: float = 10.0
    temperature: float = 0.02


class PairObjective(nn.Module):
    """The retrieval task as the papers train it: whole descriptors, one loss over all pairs.

    Batches are square, row and column i a pair (``PairBatches``). The descriptors of an azimuth
    model are compared at azimuth shift 0, since the data sets are aligned.
    """

    def __init__(self, student: TwoBranch, config: LossConfig) -> None:
        super().__init__()
        self.student = student
        self.config = config
        is_learned = config.name == "symmetric-info-nce"
        self.scale = LearnedScale(config.temperature) if is_learned else None

    def forward(
        self, batch: Batch, generator: torch.Generator, device: str
    ) -> tuple[Tensor, Metrics]:
        """Loss (scalar) and metrics of one batch."""
        views, tiles = batch_views(batch, self.student, generator, device)
        columns, _, ignored = batch_truth(batch, device)
        ground, aerial = self.student.describe_ground(views), self.student.describe_aerial(tiles)
        with torch.autocast(views.device.type, enabled=False):
            similarity = ground.float() @ aerial.float().T
            loss = self._loss(similarity, ignored)
        return loss, {"accuracy": batch_accuracy(similarity, columns, ignored)}

    def _loss(self, similarity: Tensor, ignored: Tensor) -> Tensor:
        name, alpha = self.config.name, self.config.alpha
        if self.scale is not None:
            return symmetric_info_nce(similarity, self.scale(), None, ignored)
        if name == "saig-info-nce":
            return saig_info_nce(similarity, self.config.temperature, ignored)
        if name == "hard-triplet":
            return hard_triplet(similarity, alpha, ignored)
        if name == "semi-hard-triplet":
            return semi_hard_triplet(similarity, alpha, ignored)
        return exhaustive_triplet(similarity, alpha, ignored)


def _task_loss(
    curve: Tensor,
    scale: Tensor,
    columns: Tensor,
    azimuth_shifts: Tensor,
    ignored: Tensor,
    wrong: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """InfoNCE of similarities (Q, R, K) or (Q, R), and the scores (Q, R) they give."""
    if curve.ndim == 2:
        return symmetric_info_nce(curve, scale, columns, ignored), curve
    return shift_info_nce(curve, columns, azimuth_shifts, scale, ignored, wrong), curve.amax(dim=2)


class TeacherObjective(nn.Module):
    """L_T = InfoNCE(T) + InfoNCE(S_teacher): after and before interaction (docs/geossk.md section 5).

    Every pair of the batch is aligned at the azimuth shift that the teacher's own descriptors find
    best, as at inference. The true shift enters through the second term only. The branches come from
    a trained student: they learn at a tenth of the rate and keep their batch statistics.

    ``auxiliary``: weights of the auxiliary losses, for batches of towns with truth. For these losses
    the true pairs are aligned at their true azimuth shift.
    """

    def __init__(self, teacher: GeoSSK, auxiliary: AuxiliaryWeights | None = None) -> None:
        super().__init__()
        self.teacher = teacher
        self.auxiliary = auxiliary or AuxiliaryWeights()
        self.scale = LearnedScale(temperature=1 / 14)
        self.plain_scale = LearnedScale(temperature=1 / 14)

    @property
    def slow(self) -> nn.Module:
        """The two branches."""
        return self.teacher.base

    def train(self, mode: bool = True) -> TeacherObjective:
        """Training mode for all but the batch statistics of the branches."""
        super().train(mode)
        self.teacher.base.eval()
        return self

    def forward(
        self, batch: Batch, generator: torch.Generator, device: str
    ) -> tuple[Tensor, Metrics]:
        """Loss (scalar) and metrics of one batch."""
        teacher = self.teacher
        views, tiles = batch_views(batch, teacher.base, generator, device)
        columns, azimuth_shifts, ignored = batch_truth(batch, device)
        ground = teacher.ground_tokens(views)
        aerial = teacher.aerial_tokens(tiles, batch_rotations(batch, device))
        with torch.autocast(views.device.type, enabled=False):
            ground, aerial = ground.float(), aerial.float()
            plain = teacher.plain_similarity(ground, aerial)
            best = plain.detach().argmax(dim=2) if plain.ndim == 3 else None
            scores = teacher.pair_scores(ground, aerial, best)
        before, own = _task_loss(plain, self.plain_scale(), columns, azimuth_shifts, ignored)
        after = symmetric_info_nce(scores, self.scale(), columns, ignored)
        loss = before + after
        metrics = {
            "accuracy": batch_accuracy(scores, columns, ignored),
            "accuracy_before": batch_accuracy(own, columns, ignored),
            "kappa": float(teacher.kappa.detach()),
            "scale": float(self.scale().detach()),
        }
        if not self.auxiliary:
            return loss, metrics
        pairs = ground, aerial[columns], azimuth_shifts.round()
        loss, measured = self._with_auxiliary(loss, batch, *pairs, aerial)
        return loss, metrics | measured

    def _with_auxiliary(
        self,
        loss: Tensor,
        batch: Batch,
        ground: Tensor,
        paired: Tensor,
        azimuth_shifts: Tensor,
        aerial: Tensor,
    ) -> tuple[Tensor, Metrics]:
        """Add the weighted auxiliary losses, and give their values; none for a town without truth."""
        if batch.content is None or batch.transient is None:
            return loss, {}
        content = torch.from_numpy(batch.content).to(ground.device)
        kinds = torch.from_numpy(batch.transient).to(ground.device)
        with torch.autocast(ground.device.type, enabled=False):
            attention = self.teacher.attention(ground, paired, azimuth_shifts)
            pointing, error_m = pointing_loss(attention, content)
            transient = transient_loss(self.teacher.factors(ground, aerial)[0], kinds)
        weights = self.auxiliary
        loss = loss + weights.pointing * pointing + weights.transient * transient
        return loss, {
            "pointing": float(pointing.detach()),
            "pointing_m": error_m,
            "transient": float(transient.detach()),
        }


@dataclass(frozen=True)
class DistillationConfig:
    """Weights and temperatures of the distillation losses, and whether IKF filters.

    See docs/geossk.md section 5.

    ``relation``: weight of the relations between images. ``local``: of the relations between parts of
    a true pair. ``descriptors``: of the descriptors of each view. With all three at 0 the student
    learns alone.
    """

    relation: float = 1.0
    local: float = 0.1
    descriptors: float = 50.0
    relation_temperature: float = 0.1
    local_temperature: float = 0.1
    is_filtered: bool = True

    @property
    def teaches(self) -> bool:
        """Whether any loss needs the teacher."""
        return bool(self.relation or self.local or self.descriptors)


@dataclass(frozen=True)
class _Knowledge:
    """A teacher's output for a batch.

    ``scores``: (Q, R). ``attention``: (Q, H, N, M) in true pairs, None without CIM. ``gates``: (Q, N)
    of ground tokens. ``ground_bins``, ``aerial_bins``: (Q, n, D) and (R, K, D) before interaction.
    ``weights``: (Q,) of ``filter_incorrect_knowledge``, 0 for a query that IKF filters out.
    """

    scores: Tensor
    attention: Tensor | None
    gates: Tensor
    ground_bins: Tensor
    aerial_bins: Tensor
    weights: Tensor


class DistillationObjective(nn.Module):
    """L_S = L_task + weighted SSKD (relation, local) + weighted descriptors; the teacher is frozen.

    With IKF, a query whose labelled tile the teacher does not rank first is left out of the relation,
    local and task losses: either the label or the teacher is wrong, and it is unknown which.
    """

    def __init__(
        self, student: TwoBranch, teacher: GeoSSK, config: DistillationConfig | None = None
    ) -> None:
        super().__init__()
        self.config = config or DistillationConfig()
        own, known = student.ground_pool, teacher.base.ground_pool
        if type(own) is not type(known) or student.ground_size != teacher.ground_size:
            raise SettingError("Distillation: student and teacher must have one pooling and size.")
        if self.config.descriptors and own.dim != known.dim:
            raise SettingError(
                f"Distillation of descriptors: got a student of {own.dim} values and a teacher of "
                f"{known.dim}, expected as many. Set knowledge.descriptors = 0."
            )
        self.student = student
        self.scale = LearnedScale(temperature=1 / 14)
        self._frozen = [teacher.eval().requires_grad_(False)]  # a list hides it from parameters()

    @torch.no_grad()
    def _knowledge(
        self, views: Tensor, tiles: Tensor, columns: Tensor, ignored: Tensor
    ) -> _Knowledge:
        """The teacher's output; batches have one view per tile, so pair i is (i, i)."""
        teacher = self._frozen[0].to(views.device)
        ground, aerial = teacher.ground_tokens(views), teacher.aerial_tokens(tiles)
        with torch.autocast(views.device.type, enabled=False):
            ground, aerial = ground.float(), aerial.float()
            bins = teacher.plain_bins(ground, aerial)
            plain = teacher.bin_similarity(*bins)
            best = plain.argmax(dim=2) if plain.ndim == 3 else None
            scores, attention = teacher.scores_and_attention(ground, aerial, best)
            gates = teacher.gate(teacher.factors(ground, aerial)[0])
            weights = filter_incorrect_knowledge(
                scores, columns, self.config.relation_temperature, ignored
            )
        return _Knowledge(scores, attention, gates, *bins, weights)

    def forward(
        self, batch: Batch, generator: torch.Generator, device: str
    ) -> tuple[Tensor, Metrics]:
        """Loss (scalar) and metrics of one batch; the metrics hold the share that IKF keeps."""
        student, config = self.student, self.config
        views, tiles = batch_views(batch, student, generator, device)
        columns, azimuth_shifts, ignored = batch_truth(batch, device)
        ground_map, aerial_map = student.ground_map(views), student.aerial_map(tiles)
        ground = student.describe_ground_map(ground_map)
        aerial = student.describe_aerial_map(aerial_map)
        known = self._knowledge(views, tiles, columns, ignored) if config.teaches else None
        with torch.autocast(views.device.type, enabled=False):
            curve = similarity_of(student, ground.float(), aerial.float())
            kept = torch.ones_like(columns, dtype=torch.bool)
            if known is not None and config.is_filtered:
                kept = known.weights > 0
            loss = curve.sum() * 0.0  # stays if IKF keeps no query
            if kept.any():
                truth = columns[kept], azimuth_shifts[kept], ignored[kept]
                loss, _ = _task_loss(curve[kept], self.scale(), *truth)
            scores = curve if curve.ndim == 2 else curve.amax(dim=2)
        metrics = {"accuracy": batch_accuracy(scores, columns, ignored)}
        if known is None:
            return loss, metrics
        maps = ground_map, aerial_map
        added, measured = self._distillation_loss(known, scores, maps, columns, ignored)
        return loss + added, metrics | measured

    def _distillation_loss(
        self,
        known: _Knowledge,
        scores: Tensor,
        maps: tuple[Tensor, Tensor],
        columns: Tensor,
        ignored: Tensor,
    ) -> tuple[Tensor, Metrics]:
        """Weighted sum of the distillation losses, and their values."""
        config = self.config
        pair_weights = known.weights if config.is_filtered else None
        relation = relation_knowledge_loss(
            scores,
            known.scores,
            columns,
            config.relation_temperature,
            ignored,
            is_filtered=config.is_filtered,
        )
        described = self._descriptor_loss(known, maps)
        loss = config.relation * relation.loss + config.descriptors * described
        metrics = {
            "relation": float(relation.loss.detach()),
            "descriptors": float(described.detach()),
            "kept_rows": float(relation.kept_rows),
            "kept_columns": float(relation.kept_columns),
            "teacher_accuracy": batch_accuracy(known.scores, columns, ignored),
        }
        if config.local and known.attention is not None:
            local = local_knowledge_loss(
                maps[0].flatten(2).transpose(1, 2),
                maps[1].flatten(2).transpose(1, 2)[columns],
                known.attention,
                known.gates,
                config.local_temperature,
                pair_weights,
            )
            loss = loss + config.local * local
            metrics["local"] = float(local.detach())
        return loss, metrics

    def _descriptor_loss(self, known: _Knowledge, maps: tuple[Tensor, Tensor]) -> Tensor:
        """Distance of the student's descriptors from the teacher's, in both views.

        It is not filtered: a wrong label says nothing about a single view.
        """
        if not self.config.descriptors:
            return known.scores.new_zeros(())
        student = self.student
        if student.bins is None:
            own = student.ground_pool(maps[0])[:, None], student.aerial_pool(maps[1])[:, None]
        else:
            own = (
                student.ground_pool(maps[0], known.ground_bins.shape[1]),
                student.aerial_pool(maps[1], BINS),
            )
        return descriptor_knowledge_loss(own[0], known.ground_bins) + descriptor_knowledge_loss(
            own[1], known.aerial_bins
        )
