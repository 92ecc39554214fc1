"""GeoSSK's teacher: two views that interact before they are compared.

Chen, Huang, Yuan, Chen, Zhong, Pun, "Cross-View Geo-Localization via Learning Correspondence Semantic
Similarity Knowledge", MMM 2025. Only the abstract is public, so **every equation here is this
project's reconstruction**: the cross-fusion interaction module (CIM) is one layer of cross-view
attention in both directions, gated by the contribution factor (CF) of every token.

Axes: Q queries, R references, B images, N ground tokens, M aerial tokens, C channels, H heads,
n azimuth bins of a query, K = 32 bins of a full circle, D values per bin.

The teacher scores all *pairs* of a batch. If only true pairs interacted, a descriptor would hold its
own partner and every score in the batch would be trivially right. For the same reason it has no
``describe_*`` and cannot be indexed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from core.errors import SettingError
from core.models.azimuth import shift_similarity
from core.models.pooling import AzimuthPooling, GapPooling
from core.models.two_branch import TwoBranch
from core.polar import BINS

__all__ = [
    "GeoSSK",
    "GeoSSKConfig",
    "Interaction",
    "contribution_factor",
    "token_parts",
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
    """Inside the teacher for one pair.

    ground_to_aerial: attention (H, N, M). aerial_to_ground: attention (H, M, N).
    phi_ground: contribution factors (N,). phi_aerial: contribution factors (M,).
    """

    ground_to_aerial: Tensor
    aerial_to_ground: Tensor
    phi_ground: Tensor
    phi_aerial: Tensor


@dataclass(frozen=True)
class ProjectedTokens:
    """Images of one view, ready to be paired: all that does not depend on the other view's image.

    query, key: (B, H, N, d). values: (B, H, rows, N, D), see ``GeoSSK._project``.
    gate: (B, N). bins: (B, columns, D), before interaction.
    """

    query: Tensor
    key: Tensor
    values: Tensor
    gate: Tensor
    bins: Tensor

    def __len__(self) -> int:
        return len(self.bins)

    @property
    def columns(self) -> int:
        """Columns of bins, as many as the view is wide."""
        return self.bins.shape[1]

    def repeated(self, index: int, copies: int) -> ProjectedTokens:
        """One image ``copies`` times, without a copy in memory."""

        def one(tensor: Tensor) -> Tensor:
            return tensor[index : index + 1].expand(copies, *tensor.shape[1:])

        return ProjectedTokens(*(one(getattr(self, name)) for name in self.__dataclass_fields__))


def token_parts(tokens: Tensor, pool: nn.Module) -> Tensor:
    """Each token's summand of its bin: (B, N, C) -> (B, rows, columns, D).

    Azimuth pooling has one column per bin. GAP has one column, of N rows.

    Raises:
        SettingError: another pooling, whose descriptor is no sum over tokens.

    """
    if isinstance(pool, AzimuthPooling):
        return pool.contributions(tokens, tokens.shape[1] // pool.rows)
    if isinstance(pool, GapPooling):
        return (tokens / tokens.shape[1])[:, :, None]
    raise SettingError(
        f"Contribution factors: got {type(pool).__name__}, expected gap or azimuth pooling. Choose a "
        "model with one of them."
    )


def contribution_factor(parts: Tensor, equal_bins: bool) -> Tensor:
    """Share of each token in its image's descriptor; sums to 1 over an image.

    Args:
        parts: (B, rows, columns, D), each token's summand of its column's bin.
        equal_bins: True where every bin is scaled to one length (tiles), else one norm for all.

    Returns:
        phi (B, rows * columns); negative where a token pulls against the descriptor.

    """
    bins = parts.sum(dim=1, keepdim=True)
    along = (parts * bins).sum(dim=3)
    power = bins.square().sum(dim=3).clamp_min(1e-12)
    total = power * parts.shape[2] if equal_bins else power.sum(dim=2, keepdim=True)
    return (along / total).flatten(1)


def _identity_heads(dim: int, heads: int) -> nn.Linear:
    """Map (..., dim) -> (..., heads * dim) whose heads begin as the identity, but for small noise.

    With queries and keys from such maps attention begins as the similarity of tokens.
    """
    layer = nn.Linear(dim, heads * dim)
    nn.init.zeros_(layer.bias)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(dim).repeat(heads, 1) + 0.02 * torch.randn(heads * dim, dim))
    return layer


def _near_azimuths() -> Tensor:
    """First attention bias (BINS,) by column difference; largest where the azimuths are equal.

    A camera some metres off the tile's centre sees near things a few bins aside, hence the width.
    """
    apart = torch.arange(BINS).float()
    apart = torch.minimum(apart, BINS - apart)
    return -(0.5 * (apart / 2.5).square()).clamp(max=4.0)


class GeoSSK(nn.Module):
    """The teacher over a two-branch model of its own (``base``); azimuth or GAP pooling.

    With azimuth pooling each pair is compared at its azimuth shift: equal content then lies in
    nearly equal columns. A learned bias over (ground row, aerial row, column difference) prefers
    such columns. It forbids none: a camera off the tile's centre sees near things at other azimuths.
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
        if not isinstance(base.ground_pool, AzimuthPooling | GapPooling):
            raise SettingError("Teacher: its base must have gap or azimuth pooling.")
        self.norm = nn.LayerNorm(channels)
        self.query = _identity_heads(base.ground_pool.dim, self.config.heads)
        self.key = _identity_heads(base.ground_pool.dim, self.config.heads)
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

    def aerial_tokens(self, tiles: Tensor, rotations: Tensor | None = None) -> Tensor:
        """Local tokens (B, M, C) of tiles in [0, 1].

        ``rotations``: (B,), residual rotations in bins, see ``TwoBranch.aerial_views``.
        """
        return self.base.aerial_tokens(tiles, rotations)

    def factors(self, ground: Tensor, aerial: Tensor) -> tuple[Tensor, Tensor]:
        """Contribution factors phi of ground tokens (Q, N) and aerial tokens (R, M)."""
        equal = self.base.bins is not None
        return (
            contribution_factor(token_parts(ground, self.base.ground_pool), equal_bins=False),
            contribution_factor(token_parts(aerial, self.base.aerial_pool), equal_bins=equal),
        )

    def gate(self, phi: Tensor) -> Tensor:
        """Gamma = sigmoid(kappa (N phi - 1) + beta), in (0, 1); ones where CF is off. phi detached."""
        if not self.config.contribution:
            return torch.ones_like(phi)
        share = phi.detach() * phi.shape[-1] - 1
        return torch.sigmoid(self.kappa.clamp_min(0) * share.clamp(-8, 8) + self.beta)

    def plain_bins(self, ground: Tensor, aerial: Tensor) -> tuple[Tensor, Tensor]:
        """Bins before interaction, not normalised: (Q, n, D) and (R, K, D); one for a global base."""
        ground_bins = token_parts(ground, self.base.ground_pool).sum(1)
        return ground_bins, token_parts(aerial, self.base.aerial_pool).sum(1)

    def plain_similarity(self, ground: Tensor, aerial: Tensor) -> Tensor:
        """Similarity before interaction: (Q, R, K) over azimuth shifts, or (Q, R) for a global base."""
        return self.bin_similarity(*self.plain_bins(ground, aerial))

    def bin_similarity(self, ground_bins: Tensor, aerial_bins: Tensor) -> Tensor:
        """Similarity of bins as ``plain_bins`` gives them: (Q, R, K), or (Q, R) for a global base."""
        query = F.normalize(ground_bins.flatten(1), dim=1)
        if self.base.bins is None:
            return query @ F.normalize(aerial_bins.flatten(1), dim=1).T
        reference = F.normalize(aerial_bins, dim=2) / BINS**0.5
        return shift_similarity(query, reference.flatten(1))

    def pair_scores(
        self, ground: Tensor, aerial: Tensor, azimuth_shifts: Tensor | None = None
    ) -> Tensor:
        """Cosine (Q, R) of every pair after interaction.

        Args:
            ground: tokens (Q, N, C).
            aerial: tokens (R, M, C).
            azimuth_shifts: int (Q, R), at which each pair is aligned; None for a global base.

        Raises:
            SettingError: an azimuth teacher without an azimuth shift for each pair.

        """
        return self.scores_and_attention(ground, aerial, azimuth_shifts)[0]

    def scores_near(
        self, ground: Tensor, aerial: Tensor, azimuth_shifts: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores (Q, R) of every pair, and the whole azimuth shifts (Q, R) they were aligned at.

        Of the azimuth shifts that are allowed, each pair takes the one at which its bins before
        interaction are the most similar. A global base has none: its azimuth shifts are zeros.

        Args:
            ground: tokens (Q, N, C).
            aerial: tokens (R, M, C).
            azimuth_shifts: int (Q, R); allowed are these and one bin to either side.
                None allows all.

        """
        ground_side, aerial_side = self._project_ground(ground), self._project_aerial(aerial)
        pairs = len(ground_side), len(aerial_side)
        found = torch.zeros(pairs, dtype=torch.long, device=ground.device)
        if self.base.bins is not None:
            curve = self.bin_similarity(ground_side.bins, aerial_side.bins)
            found = curve.argmax(dim=2)
            if azimuth_shifts is not None:
                step = torch.arange(-1, 2, device=azimuth_shifts.device)
                near = (azimuth_shifts[..., None] + step) % BINS
                best = curve.gather(2, near).argmax(dim=2, keepdim=True)
                found = near.gather(2, best)[..., 0]
        return self._all_pairs(ground_side, aerial_side, found)[0], found

    def scores_and_attention(
        self, ground: Tensor, aerial: Tensor, azimuth_shifts: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """``pair_scores``, and the attention (B, H, N, M) of pairs (i, i), i < min(Q, R), with CIM."""
        return self._all_pairs(
            self._project_ground(ground), self._project_aerial(aerial), azimuth_shifts
        )

    def _all_pairs(
        self,
        ground_side: ProjectedTokens,
        aerial_side: ProjectedTokens,
        azimuth_shifts: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        """Scores (Q, R) of all pairs, and the attention of pairs (i, i) where there is any."""
        azimuth_shifts = self._checked_shifts(ground_side, aerial_side, azimuth_shifts)
        biases = self._position_biases(ground_side.columns, ground_side.columns)
        queries, references = len(ground_side), len(aerial_side)
        by_query = queries < references
        scores, matched = [], []
        # One image of the smaller side at a time, against all of the other side: few, full steps,
        # and attention (P, H, N, M) that stays small.
        for index in range(min(queries, references)):
            if by_query:
                one = ground_side.repeated(index, references)
                pairs = one, aerial_side, azimuth_shifts[index]
            else:
                one = aerial_side.repeated(index, queries)
                pairs = ground_side, one, azimuth_shifts[:, index]
            score, forward = self._score_pairs(*pairs, biases)
            scores.append(score)
            matched += [] if forward is None else [forward[index]]
        stacked = torch.stack(scores, dim=0 if by_query else 1)
        return stacked, torch.stack(matched) if matched else None

    def _score_pairs(
        self,
        ground_side: ProjectedTokens,
        aerial_side: ProjectedTokens,
        azimuth_shifts: Tensor,
        biases: tuple[Tensor, Tensor],
    ) -> tuple[Tensor, Tensor | None]:
        """Cosines (P,) of P pairs, and the attention (P, H, N, M) from ground to aerial."""
        aligned = self._align(aerial_side, azimuth_shifts, ground_side.columns)
        ground_bins, aerial_bins, forward = ground_side.bins, aligned.bins, None
        if self.config.interaction:
            forward = self._attend(ground_side, aerial_side, biases[0][azimuth_shifts])
            ground_bins = ground_bins + self._message(forward, ground_side.gate, aerial_side.values)
            backward = self._attend(aligned, ground_side, biases[1])
            aerial_bins = aerial_bins + self._message(backward, aligned.gate, ground_side.values)
        return self._cosine(ground_bins, aerial_bins), forward

    @torch.no_grad()
    def interact(
        self, ground: Tensor, aerial: Tensor, azimuth_shift: int | None = None
    ) -> Interaction:
        """Attention and factors of one pair: tokens (1, N, C) and (1, M, C).

        ``azimuth_shift``: at which the pair is aligned; None for a global base.
        """
        given = None
        if azimuth_shift is not None:
            given = torch.full((1, 1), int(azimuth_shift) % BINS, device=ground.device)
        ground_side, aerial_side = self._project_ground(ground), self._project_aerial(aerial)
        shifts = self._checked_shifts(ground_side, aerial_side, given)[:, 0]
        forward_bias, backward_bias = self._position_biases(ground_side.columns, BINS)
        forward = self._attend(ground_side, aerial_side, forward_bias[shifts])
        backward = self._attend(self._align(aerial_side, shifts, BINS), ground_side, backward_bias)
        if self.base.bins is not None:  # aligned columns back to those of the polar view
            grid = backward.unflatten(2, (self.rows, BINS))
            backward = grid.roll(int(shifts[0]), dims=3).flatten(2, 3)
        phi_ground, phi_aerial = self.factors(ground, aerial)
        return Interaction(forward[0], backward[0], phi_ground[0], phi_aerial[0])

    def attention(self, ground: Tensor, aerial: Tensor, azimuth_shifts: Tensor) -> Tensor:
        """Attention (P, H, N, M) from ground to aerial of P pairs, for an azimuth base.

        Args:
            ground: tokens (P, N, C), or (1, N, C) for one image in all pairs.
            aerial: tokens (P, M, C), or (1, M, C).
            azimuth_shifts: int (P,), at which each pair is aligned.

        """
        ground_side, aerial_side = self._project_ground(ground), self._project_aerial(aerial)
        forward_bias, _ = self._position_biases(ground_side.columns, ground_side.columns)
        shifts = azimuth_shifts.to(ground.device).long() % BINS
        return self._attend(ground_side, aerial_side, forward_bias[shifts])

    def _checked_shifts(
        self,
        ground_side: ProjectedTokens,
        aerial_side: ProjectedTokens,
        azimuth_shifts: Tensor | None,
    ) -> Tensor:
        """Azimuth shifts (Q, R) as indices in [0, BINS); zeros for a global base."""
        pairs, device = (len(ground_side), len(aerial_side)), ground_side.bins.device
        if self.base.bins is None:
            return torch.zeros(pairs, dtype=torch.long, device=device)
        if azimuth_shifts is None or azimuth_shifts.shape != pairs:
            got = None if azimuth_shifts is None else tuple(azimuth_shifts.shape)
            raise SettingError(
                f"Teacher azimuth shifts: got {got}, expected one azimuth shift for each of "
                f"{pairs[0]} x {pairs[1]} pairs. Take the student's best azimuth shifts."
            )
        return azimuth_shifts.to(device).long() % BINS

    def _project_ground(self, ground: Tensor) -> ProjectedTokens:
        return self._project(ground, self.base.ground_pool, self.base.aerial_pool, False)

    def _project_aerial(self, aerial: Tensor) -> ProjectedTokens:
        return self._project(aerial, self.base.aerial_pool, self.base.ground_pool, True)

    def _project(
        self, tokens: Tensor, own: nn.Module, other: nn.Module, equal_bins: bool
    ) -> ProjectedTokens:
        """All that is computed once per image: q, k, v of its tokens, its gate and its bins.

        The branches share no weights, so their tokens have no common space; their descriptors have.
        So q and k are made of each token's summand of the descriptor, divided by the image's root
        mean square: a token that adds little has small q and k. v is made of the token itself.

        The projected values are v through W_o and the *other* view's pooling, for each of its rows.
        Pooling is linear, so the message is formed after pooling, never token by token
        (docs/geossk.md section 4).
        """
        parts = token_parts(tokens, own)
        phi = contribution_factor(parts, equal_bins and self.base.bins is not None)
        summands = parts.flatten(1, 2)
        scale = summands.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp_min(1e-6)
        summands = summands / scale
        weight = self.output.weight.unflatten(1, (self.config.heads, -1))  # C, H, d
        if isinstance(other, AzimuthPooling):
            pooled = torch.einsum("xcr,chd->hrdx", other.project.weight[..., 0], weight)
        else:
            pooled = weight.permute(1, 2, 0)[:, None]
        return ProjectedTokens(
            query=self._heads(self.query, summands) * summands.shape[2] ** -0.5,
            key=self._heads(self.key, summands),
            values=self._heads(self.value, self.norm(tokens))[:, :, None] @ pooled,
            gate=self.gate(phi),
            bins=parts.sum(dim=1),
        )

    def _heads(self, layer: nn.Linear, tokens: Tensor) -> Tensor:
        """A linear map split into heads: (B, N, C) -> (B, H, N, d)."""
        projected: Tensor = layer(tokens)
        heads: Tensor = projected.unflatten(2, (self.config.heads, -1)).transpose(1, 2)
        return heads

    def _align(
        self, aerial_side: ProjectedTokens, azimuth_shifts: Tensor, columns: int
    ) -> ProjectedTokens:
        """References (P, ...) reduced to ``columns`` columns, from azimuth shift (P,) on.

        Column i then lies under column i of its query. Keys and values stay whole: the query may
        attend to all of the tile.
        """
        if self.base.bins is None:
            return aerial_side
        device = azimuth_shifts.device
        kept = (azimuth_shifts[:, None] + torch.arange(columns, device=device)) % BINS
        pair = torch.arange(len(azimuth_shifts), device=device)[:, None]
        query = aerial_side.query.unflatten(2, (self.rows, BINS)).permute(0, 3, 1, 2, 4)[pair, kept]
        gate = aerial_side.gate.unflatten(1, (self.rows, BINS)).transpose(1, 2)[pair, kept]
        return replace(
            aerial_side,
            query=query.permute(0, 2, 3, 1, 4).flatten(2, 3),
            gate=gate.transpose(1, 2).flatten(1),
            bins=aerial_side.bins[pair, kept],
        )

    def _attend(self, queries: ProjectedTokens, keys: ProjectedTokens, bias: Tensor) -> Tensor:
        """Attention of one view's tokens over the other's: (P, H, N, M), each row summing to 1.

        A key's gate weighs it: its logarithm is added to the logits.
        """
        logits = queries.query @ keys.key.transpose(2, 3) + bias
        return (logits + keys.gate.clamp_min(1e-6).log()[:, None, None, :]).softmax(dim=3)

    def _position_biases(self, columns: int, aligned_columns: int) -> tuple[Tensor, Tensor]:
        """Attention biases by ground row, aerial row and column difference.

        Args:
            columns: of the ground view.
            aligned_columns: of the aerial view, counted from the azimuth shift on (``_align``).

        Returns:
            Forward (K, H, N, M), one for each azimuth shift, and backward (H, M', N). Zeros for a
            global base, whose views have no common columns.

        """
        if self.base.bins is None:
            zero = self.kappa.new_zeros(1)
            return zero[:, None, None, None], zero
        device = self.azimuth_bias.device
        ground = torch.arange(columns, device=device)
        aerial = torch.arange(BINS, device=device)  # serves as all azimuth shifts too
        ahead = (aerial[None, None] - ground[None, :, None] - aerial[:, None, None]) % BINS
        forward = self.azimuth_bias[:, :, :, ahead].permute(3, 0, 1, 4, 2, 5)
        aligned = torch.arange(aligned_columns, device=device)
        ahead = (aligned[:, None] - ground[None]) % BINS
        backward = self.azimuth_bias[:, :, :, ahead].permute(0, 2, 3, 1, 4)
        return forward.flatten(4, 5).flatten(2, 3), backward.flatten(3, 4).flatten(1, 2)

    def _message(self, attention: Tensor, gate: Tensor, values: Tensor) -> Tensor:
        """The message to a view from the other, pooled: (P, bins, D).

        attention: (P, H, N, M). gate: (P, N), of the receiving tokens.
        values: (P, H, rows, M, D), the projected values of the other view.
        """
        weighted = attention * gate[:, None, :, None]
        if self.base.bins is None:
            weighted = weighted.mean(dim=2, keepdim=True)
        pooled: Tensor = (weighted.unflatten(2, (self.rows, -1)) @ values).sum(dim=(1, 2))
        return pooled

    def _cosine(self, ground_bins: Tensor, aerial_bins: Tensor) -> Tensor:
        """Cosine (P,) of bins (P, n, D); azimuth bins of a tile are brought to equal length."""
        if self.base.bins is None:
            return F.cosine_similarity(ground_bins[:, 0], aerial_bins[:, 0], dim=1)
        reference = F.normalize(aerial_bins, dim=2) / ground_bins.shape[1] ** 0.5
        query = F.normalize(ground_bins.flatten(1), dim=1)
        cosine: Tensor = (query * reference.flatten(1)).sum(dim=1)
        return cosine
