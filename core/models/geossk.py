"""GeoSSK's teacher: two views that interact before they are compared.

Chen, Huang, Yuan, Chen, Zhong, Pun, "Cross-View Geo-Localization via Learning Correspondence Semantic
Similarity Knowledge", MMM 2025. Only the abstract is public, so **every equation here is this
project's reconstruction**: the cross-fusion interaction module (CIM) is one layer of cross-view
attention in both directions, gated by the contribution factor (CF) of every token.

Axes: Q queries, R references, B images, N ground tokens, M aerial tokens, C channels, H heads,
n azimuth bins of a query, K = 32 bins of a full circle, D values per bin.

The teacher scores *pairs*, always all of them: a descriptor that has seen its own partner would make
every in-batch score trivially right. It has no ``describe_*`` and cannot be indexed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import SettingError
from core.models.azimuth import shift_similarity
from core.models.pooling import AzimuthPooling
from core.models.two_branch import TwoBranch
from core.polar import BINS

__all__ = [
    "GeoSSK",
    "GeoSSKConfig",
    "Interaction",
    "contribution_factor",
]


@dataclass(frozen=True)
class GeoSSKConfig:
    """``interaction``: CIM on or off (off: a plain two-branch model that scores pairs).

    ``contribution``: CF gates on or off.
    """

    heads: int = 2
    interaction: bool = True
    contribution: bool = True


@dataclass(frozen=True)
class Interaction:
    """What the teacher saw in one pair: attention (H, N, M) and (H, M, N), and factors."""

    ground_to_aerial: Tensor
    aerial_to_ground: Tensor
    phi_ground: Tensor
    phi_aerial: Tensor


@dataclass(frozen=True)
class Prepared:
    """Images of one view ready to be paired: all that does not depend on whom they meet.

    query, key (B, H, N, d); spoken (B, H, rows, N, D); gate (B, N); bins (B, columns, D).
    """

    query: Tensor
    key: Tensor
    spoken: Tensor
    gate: Tensor
    bins: Tensor

    def __len__(self) -> int:
        return len(self.bins)

    @property
    def columns(self) -> int:
        """Columns of bins, as many as the view is wide."""
        return self.bins.shape[1]

    def of(self, index: int, copies: int) -> Prepared:
        """One image, as seen by each of ``copies`` queries."""

        def one(tensor: Tensor) -> Tensor:
            return tensor[index : index + 1].expand(copies, *tensor.shape[1:])

        return Prepared(*(one(getattr(self, name)) for name in self.__dataclass_fields__))


def contribution_factor(parts: Tensor, equal_bins: bool) -> Tensor:
    """Share of each token in its image's descriptor; sums to 1 over an image.

    Args:
        parts: (B, rows, columns, D), what each token adds to its column's bin.
        equal_bins: True where every bin is scaled to one length (tiles), else one norm for all.

    Returns:
        phi (B, rows * columns); negative where a token pulls against the descriptor.

    """
    bins = parts.sum(dim=1, keepdim=True)
    along = (parts * bins).sum(dim=3)
    power = bins.square().sum(dim=3).clamp_min(1e-12)
    total = power * parts.shape[2] if equal_bins else power.sum(dim=2, keepdim=True)
    return (along / total).flatten(1)


def _alike(dim: int, heads: int) -> nn.Linear:
    """Queries or keys that begin as what they are given: then attention begins as likeness."""
    layer = nn.Linear(dim, heads * dim)
    nn.init.zeros_(layer.bias)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(dim).repeat(heads, 1) + 0.02 * torch.randn(heads * dim, dim))
    return layer


def _near_azimuths() -> Tensor:
    """Bias (BINS,) by column difference that attention begins with: things lie about where they are
    seen. A camera some metres off the tile's centre sees near things a few bins aside, hence the width.
    """
    apart = torch.arange(BINS).float()
    apart = torch.minimum(apart, BINS - apart)
    return -(0.5 * (apart / 2.5).square()).clamp(max=4.0)


class GeoSSK(nn.Module):
    """The teacher over a two-branch model of its own (``base``); azimuth or GAP pooling.

    With azimuth pooling the aerial tokens are met at the azimuth shift of each pair, so that equal content
    lies near equal columns and a learned bias over (ground row, aerial row, column difference) can
    hold what geometry says; attention stays free over the whole circle, because a camera off the
    tile's centre sees near things at other azimuths.
    """

    def __init__(self, base: TwoBranch, config: GeoSSKConfig | None = None) -> None:
        super().__init__()
        self.base = base
        self.config = config or GeoSSKConfig()
        self.ground_size, self.aerial_size = base.ground_size, base.aerial_size
        channels: int = base.ground_encoder.channels
        if channels % self.config.heads:
            raise SettingError(
                f"Teacher: got {self.config.heads} heads for {channels} channels, expected a divisor."
            )
        if base.bins is None and type(base.ground_pool).__name__ != "GapPooling":
            raise SettingError("Teacher: its base must have gap or azimuth pooling.")
        self.norm = nn.LayerNorm(channels)
        self.query = _alike(base.ground_pool.dim, self.config.heads)
        self.key = _alike(base.ground_pool.dim, self.config.heads)
        self.value = nn.Linear(channels, channels)
        self.output = nn.Linear(channels, channels, bias=False)
        nn.init.zeros_(self.output.weight)  # at step 0 the teacher is its plain base
        self.kappa = nn.Parameter(torch.tensor(1.0))
        self.beta = nn.Parameter(torch.tensor(0.0))
        self.rows = base.ground_pool.rows if isinstance(base.ground_pool, AzimuthPooling) else 1
        rows = self.rows if base.bins else 0
        self.azimuth_bias = nn.Parameter(_near_azimuths().repeat(self.config.heads, rows, rows, 1))

    def ground_tokens(self, images: Tensor) -> Tensor:
        """Local tokens (B, N, C) of ground views in [0, 1]."""
        return self.base.ground_tokens(images)

    def aerial_tokens(self, tiles: Tensor, turns: Tensor | None = None) -> Tensor:
        """Local tokens (B, M, C) of tiles in [0, 1]; ``turns``: see ``TwoBranch.aerial_views``."""
        return self.base.aerial_tokens(tiles, turns)

    def _parts(self, tokens: Tensor, pool: nn.Module) -> Tensor:
        """What each token adds to its bin: (B, rows, columns, D); GAP is one column of N rows."""
        if isinstance(pool, AzimuthPooling):
            return pool.contributions(tokens, tokens.shape[1] // self.rows)
        return (tokens / tokens.shape[1])[:, :, None]

    def factors(self, ground: Tensor, aerial: Tensor) -> tuple[Tensor, Tensor]:
        """Contribution factors phi of ground tokens (Q, N) and aerial tokens (R, M)."""
        equal = self.base.bins is not None
        return (
            contribution_factor(self._parts(ground, self.base.ground_pool), equal_bins=False),
            contribution_factor(self._parts(aerial, self.base.aerial_pool), equal_bins=equal),
        )

    def gate(self, phi: Tensor) -> Tensor:
        """Gamma = sigmoid(kappa (N phi - 1) + beta), in (0, 1); ones where CF is off. phi detached."""
        if not self.config.contribution:
            return torch.ones_like(phi)
        share = phi.detach() * phi.shape[-1] - 1
        return torch.sigmoid(self.kappa.clamp_min(0) * share.clamp(-8, 8) + self.beta)

    def plain_bins(self, ground: Tensor, aerial: Tensor) -> tuple[Tensor, Tensor]:
        """Bins before interaction, not normalised: (Q, n, D) and (R, K, D); one for a global base."""
        asked = self._parts(ground, self.base.ground_pool).sum(1)
        return asked, self._parts(aerial, self.base.aerial_pool).sum(1)

    def plain_similarity(self, ground: Tensor, aerial: Tensor) -> Tensor:
        """Similarity before interaction: (Q, R, K) over azimuth shifts, or (Q, R) for a global base."""
        return self.bin_similarity(*self.plain_bins(ground, aerial))

    def bin_similarity(self, asked: Tensor, told: Tensor) -> Tensor:
        """Similarity of bins as ``plain_bins`` gives them: (Q, R, K), or (Q, R) for a global base."""
        query = F.normalize(asked.flatten(1), dim=1)
        if self.base.bins is None:
            return query @ F.normalize(told.flatten(1), dim=1).T
        return shift_similarity(query, (F.normalize(told, dim=2) / BINS**0.5).flatten(1))

    def pair_scores(
        self, ground: Tensor, aerial: Tensor, azimuth_shifts: Tensor | None = None
    ) -> Tensor:
        """Cosine (Q, R) of every pair after interaction.

        Args:
            ground: tokens (Q, N, C).
            aerial: tokens (R, M, C).
            azimuth_shifts: int (Q, R), the azimuth shift at which each pair is met; None for a global base.

        Raises:
            SettingError: an azimuth teacher without an azimuth shift for each pair.

        """
        return self.scores_and_attention(ground, aerial, azimuth_shifts)[0]

    def scores_near(
        self, ground: Tensor, aerial: Tensor, azimuth_shifts: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores (Q, R) of every pair, and the whole azimuth shifts (Q, R) at which they were met.

        Args:
            ground: tokens (Q, N, C).
            aerial: tokens (R, M, C).
            azimuth_shifts: int (Q, R) at most one bin from which each pair is met, where the teacher's own
                descriptors find it best; None to look all around. A global base knows no azimuth shifts.

        """
        asked, told = self._prepare_ground(ground), self._prepare_aerial(aerial)
        found = torch.zeros(len(asked), len(told), dtype=torch.long, device=ground.device)
        if self.base.bins is not None:
            curve = self.bin_similarity(asked.bins, told.bins)
            found = curve.argmax(dim=2)
            if azimuth_shifts is not None:
                near = (
                    azimuth_shifts[..., None] + torch.arange(-1, 2, device=azimuth_shifts.device)
                ) % BINS
                best = curve.gather(2, near).argmax(dim=2, keepdim=True)
                found = near.gather(2, best)[..., 0]
        return self._all_pairs(asked, told, found)[0], found

    def scores_and_attention(
        self, ground: Tensor, aerial: Tensor, azimuth_shifts: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """``pair_scores``, and the attention (B, H, N, M) of pairs (i, i), i < min(Q, R), with CIM."""
        return self._all_pairs(
            self._prepare_ground(ground), self._prepare_aerial(aerial), azimuth_shifts
        )

    def _all_pairs(
        self, asked: Prepared, told: Prepared, azimuth_shifts: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        azimuth_shifts = self._checked_shifts(asked, told, azimuth_shifts)
        biases = self._biases(asked.columns, asked.columns)
        by_query = len(asked) < len(told)
        scores, matched = [], []
        # One image of the smaller side at a time, against all of the other side: few, full steps,
        # and attention (P, H, N, M) that stays small.
        for index in range(min(len(asked), len(told))):
            if by_query:
                pairs = asked.of(index, len(told)), told, azimuth_shifts[index]
            else:
                pairs = asked, told.of(index, len(asked)), azimuth_shifts[:, index]
            score, forward = self._score_pairs(*pairs, biases)
            scores.append(score)
            matched += [] if forward is None else [forward[index]]
        stacked = torch.stack(scores, dim=0 if by_query else 1)
        return stacked, torch.stack(matched) if matched else None

    def _score_pairs(
        self, asked: Prepared, told: Prepared, azimuth_shifts: Tensor, biases: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Cosines (P,) of P pairs, and the attention (P, H, N, M) from ground to aerial."""
        met = self._meet(told, azimuth_shifts, asked.columns)
        query, place, forward = asked.bins, met.bins, None
        if self.config.interaction:
            forward = self._attend_forward(asked, told, biases[0][azimuth_shifts])
            query = query + self._message(forward, asked.gate, told.spoken)
            backward = self._attend_backward(asked, met, biases[1])
            place = place + self._message(backward, met.gate, asked.spoken)
        return self._cosine(query, place), forward

    @torch.no_grad()
    def interact(
        self, ground: Tensor, aerial: Tensor, azimuth_shift: int | None = None
    ) -> Interaction:
        """Attention and factors of one pair: tokens (1, N, C) and (1, M, C)."""
        given = (
            None
            if azimuth_shift is None
            else torch.full((1, 1), int(azimuth_shift) % BINS, device=ground.device)
        )
        asked, told = self._prepare_ground(ground), self._prepare_aerial(aerial)
        azimuth_shifts = self._checked_shifts(asked, told, given)
        forward_bias, backward_bias = self._biases(asked.columns, BINS)
        forward = self._attend_forward(asked, told, forward_bias[azimuth_shifts[:, 0]])
        around = self._meet(told, azimuth_shifts[:, 0], BINS)
        backward = self._attend_backward(asked, around, backward_bias)
        if (
            self.base.bins is not None
        ):  # back from the azimuth shift's columns to the polar view's own
            grid = backward.unflatten(2, (self.rows, BINS))
            backward = grid.roll(int(azimuth_shifts[0, 0]), dims=3).flatten(2, 3)
        phi_ground, phi_aerial = self.factors(ground, aerial)
        return Interaction(forward[0], backward[0], phi_ground[0], phi_aerial[0])

    def attention(self, ground: Tensor, aerial: Tensor, azimuth_shifts: Tensor) -> Tensor:
        """Attention (P, H, N, M) from ground to aerial of P pairs, each met at its whole azimuth shift.

        For azimuth bins. Tokens (P, N, C) and (P, M, C), azimuth shifts int (P,); one pair is met at every azimuth shift.
        """
        asked, told = self._prepare_ground(ground), self._prepare_aerial(aerial)
        bias = self._biases(asked.columns, asked.columns)[0][
            azimuth_shifts.to(ground.device).long() % BINS
        ]
        return self._attend_forward(asked, told, bias)

    def _checked_shifts(
        self, asked: Prepared, told: Prepared, azimuth_shifts: Tensor | None
    ) -> Tensor:
        if self.base.bins is None:
            return torch.zeros(len(asked), len(told), dtype=torch.long, device=asked.bins.device)
        if azimuth_shifts is None or azimuth_shifts.shape != (len(asked), len(told)):
            got = None if azimuth_shifts is None else tuple(azimuth_shifts.shape)
            raise SettingError(
                f"Teacher azimuth shifts: got {got}, expected one azimuth shift for each of "
                f"{len(asked)} x {len(told)} pairs. Take the student's best azimuth shifts."
            )
        return azimuth_shifts.to(asked.bins.device).long() % BINS

    def _prepare_ground(self, ground: Tensor) -> Prepared:
        return self._project(ground, self.base.ground_pool, self.base.aerial_pool, False)

    def _prepare_aerial(self, aerial: Tensor) -> Prepared:
        return self._project(aerial, self.base.aerial_pool, self.base.ground_pool, True)

    def _project(
        self, tokens: Tensor, own: nn.Module, other: nn.Module, equal_bins: bool
    ) -> Prepared:
        """All that is computed once per image: q, k, v of its tokens, its gate and its bins.

        Two branches that share no weights have no common space but that of their descriptors. So
        q and k are taken of what each token adds to its descriptor, at the image's own scale: a
        token that adds little asks vaguely. v is taken of the token itself.

        ``spoken`` is v through W_o and the *other* view's pooling, one for each of its rows:
        pooling is linear, so only the pooled message is formed, never a token's (docs/geossk.md section 4).
        """
        parts = self._parts(tokens, own)
        phi = contribution_factor(parts, equal_bins and self.base.bins is not None)
        said = parts.flatten(1, 2)
        said = said / said.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp_min(1e-6)
        normed = self.norm(tokens)
        weight = self.output.weight.unflatten(1, (self.config.heads, -1))  # C, H, d
        if isinstance(other, AzimuthPooling):
            through = torch.einsum("xcr,chd->hrdx", other.project.weight[..., 0], weight)
        else:
            through = weight.permute(1, 2, 0)[:, None]
        return Prepared(
            query=self._heads(self.query, said) * said.shape[2] ** -0.5,
            key=self._heads(self.key, said),
            spoken=self._heads(self.value, normed)[:, :, None] @ through,
            gate=self.gate(phi),
            bins=parts.sum(dim=1),
        )

    def _heads(self, layer: nn.Linear, normed: Tensor) -> Tensor:
        projected: Tensor = layer(normed)
        heads: Tensor = projected.unflatten(2, (self.config.heads, -1)).transpose(1, 2)
        return heads

    def _meet(self, told: Prepared, azimuth_shifts: Tensor, columns: int) -> Prepared:
        """The references (P, ...) as their queries meet them: ``columns`` from the azimuth shift (P,) on."""
        if self.base.bins is None:
            return told
        meets = (
            azimuth_shifts[:, None] + torch.arange(columns, device=azimuth_shifts.device)
        ) % BINS
        pair = torch.arange(len(azimuth_shifts), device=azimuth_shifts.device)[:, None]
        query = told.query.unflatten(2, (self.rows, BINS)).permute(0, 3, 1, 2, 4)[pair, meets]
        gate = told.gate.unflatten(1, (self.rows, BINS)).transpose(1, 2)[pair, meets]
        return replace(
            told,
            query=query.permute(0, 2, 3, 1, 4).flatten(2, 3),
            gate=gate.transpose(1, 2).flatten(1),
            bins=told.bins[pair, meets],
        )

    def _attend_forward(self, asked: Prepared, told: Prepared, bias: Tensor) -> Tensor:
        """Ground asks, its reference answers: (P, H, N, M), each row summing to 1."""
        logits = asked.query @ told.key.transpose(2, 3) + bias
        return (logits + told.gate.clamp_min(1e-6).log()[:, None, None, :]).softmax(dim=3)

    def _attend_backward(self, asked: Prepared, met: Prepared, bias: Tensor) -> Tensor:
        """The met columns of a reference ask, ground answers: (P, H, M', N)."""
        logits = met.query @ asked.key.transpose(2, 3) + bias
        return (logits + asked.gate.clamp_min(1e-6).log()[:, None, None, :]).softmax(dim=3)

    def _biases(self, columns: int, met: int) -> tuple[Tensor, Tensor]:
        """Position biases by ground row, aerial row and column difference.

        Forward (K, H, N, M), one for each azimuth shift; backward (H, M', N) for ``met`` columns that are
        counted from the azimuth shift on. Zeros for a global base, whose views have no common columns.
        """
        if self.base.bins is None:
            zero = self.kappa.new_zeros(1)
            return zero[:, None, None, None], zero
        device = self.azimuth_bias.device
        own = torch.arange(columns, device=device)
        around = torch.arange(BINS, device=device)
        turned = (around[None, None] - own[None, :, None] - around[:, None, None]) % BINS
        forward = self.azimuth_bias[:, :, :, turned].permute(3, 0, 1, 4, 2, 5)
        ahead = (torch.arange(met, device=device)[:, None] - own[None]) % BINS
        backward = self.azimuth_bias[:, :, :, ahead].permute(0, 2, 3, 1, 4)
        return forward.flatten(4, 5).flatten(2, 3), backward.flatten(3, 4).flatten(1, 2)

    def _message(self, attention: Tensor, gate: Tensor, spoken: Tensor) -> Tensor:
        """What a view takes in, pooled: (P, bins, D).

        attention (P, H, takers, givers), gate (P, takers), spoken (P, H, rows, givers, D).
        """
        weighted = attention * gate[:, None, :, None]
        if self.base.bins is None:
            weighted = weighted.mean(dim=2, keepdim=True)
        pooled: Tensor = (weighted.unflatten(2, (self.rows, -1)) @ spoken).sum(dim=(1, 2))
        return pooled

    def _cosine(self, query: Tensor, place: Tensor) -> Tensor:
        """Cosine (P,) of bins (P, n, D); with azimuth bins those of the place have equal length."""
        if self.base.bins is None:
            return F.cosine_similarity(query[:, 0], place[:, 0], dim=1)
        met = F.normalize(place, dim=2) / query.shape[1] ** 0.5
        cosine: Tensor = (F.normalize(query.flatten(1), dim=1) * met.flatten(1)).sum(dim=1)
        return cosine
