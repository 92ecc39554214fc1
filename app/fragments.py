"""Pieces of HTML around the map: verdict, candidate cards, facts of a photo, legend.

All outside text (file names, notes, gallery metadata) passes through ``esc``.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Callable, Sequence

from PIL import Image

from app import text
from core.arrays import UInt8Array
from core.explain.pair import Explanation
from core.localization.output import percent
from core.records import Candidate, Place, Prediction, SearchArea

__all__ = [
    "cards",
    "colour_key",
    "esc",
    "example_strip",
    "explained",
    "facts",
    "legend",
    "masthead",
    "picture_url",
    "verdict",
    "waiting",
]

THUMBNAIL_SIDE = 192


def esc(value: object) -> str:
    """Text made safe for any position in HTML."""
    return html.escape(str(value), quote=True)


def picture_url(image: UInt8Array, side: int = THUMBNAIL_SIDE) -> str:
    """A small picture as a data URL. ``image``: uint8 (H, W, 3); ``side``: its longer side."""
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def chip(label: str, value: str, kind: str = "") -> str:
    """One labelled fact."""
    return (
        f'<span class="cv-chip {esc(kind)}"><span class="cv-chip-label">{esc(label)}</span>'
        f"{esc(value)}</span>"
    )


def waiting(title: str = text.WAITING, more: str = text.WAITING_MORE) -> str:
    """The text in place of the verdict before there is an answer."""
    return (
        f'<div class="cv-verdict cv-idle"><h2>{esc(title)}</h2>'
        f'<p class="cv-lead">{esc(more)}</p></div>'
    )


def verdict(
    prediction: Prediction,
    compass_deg: float | None,
    near: SearchArea | None,
    error_m: float | None,
) -> str:
    """The answer in words, with its evidence.

    ``compass_deg``, ``near``: set by the visitor; ``error_m``: distance of the first place to the
    truth, if the truth is known and shown.
    """
    confidence, outside = prediction.confidence, prediction.outside_probability
    level = {"match": "cv-sure", "likely": "cv-likely", "none": "cv-unsure"}[prediction.verdict]
    lead = f"{text.certainty(confidence)}."
    if prediction.verdict == "likely":
        lead = f"{lead} {text.LIKELY_MORE}"
    if prediction.verdict == "none":
        lead = f"{text.doubt(confidence, outside)} ({text.certainty(confidence)}.)"
    chips = [
        chip(
            "field of view",
            f"{prediction.fov_deg:.0f}° · {text.fov_source(prediction.fov_source)}",
            "cv-guess" if prediction.fov_source == "guess" else "",
        )
    ]
    if compass_deg is not None:
        chips.append(chip("compass, from you", text.compass(compass_deg), "cv-given"))
    if prediction.heading_deg is not None and prediction.candidates:
        chips.append(chip("camera looked", text.compass(prediction.heading_deg)))
    radius = prediction.candidates[0].radius_m if prediction.candidates else None
    if prediction.confident and radius is not None:
        chips.append(chip("if right, 9 of 10 cameras within", text.distance(radius)))
    for share, area in (("half", prediction.area_50_m2), ("90 %", prediction.area_90_m2)):
        if area is not None:
            chips.append(chip(f"{share} of the probability on", text.area(area)))
    if near is not None:
        chips.append(chip("searched within, from you", f"{near.radius_m:.0f} m", "cv-given"))
    if error_m is not None:
        chips.append(chip("to the true place", text.distance(error_m), "cv-true"))
    notes = "".join(f"<li>{esc(note)}</li>" for note in prediction.notes)
    return (
        f'<div class="cv-verdict {level}">'
        f"<h2>{esc(text.verdict(prediction.verdict, prediction.confidence))}</h2>"
        f'<p class="cv-lead">{esc(lead)}</p>'
        f"{_distribution(prediction)}"
        f'<div class="cv-chips">{"".join(chips)}</div>'
        + (f'<ul class="cv-notes">{notes}</ul>' if notes else "")
        + f'<p class="cv-timings">{esc(text.timings(prediction.timings_ms))}</p></div>'
    )


def _distribution(prediction: Prediction) -> str:
    """The three parts of the distribution as one bar, with a key of their numbers."""
    confidence, outside = prediction.confidence, prediction.outside_probability
    shares = (confidence, max(0.0, 1 - confidence - outside), outside)
    kinds = ("first", "rest", "outside")
    bar = "".join(
        f'<span class="cv-part-{kind}" style="width:{100 * share:.1f}%"></span>'
        for kind, share in zip(kinds, shares, strict=True)
    )
    key = "".join(
        f'<li><span class="cv-dot cv-part-{kind}"></span>{esc(name)} '
        f"<b>{esc(percent(share))}</b></li>"
        for kind, name, share in zip(kinds, text.PARTS, shares, strict=True)
    )
    return f'<div class="cv-meter">{bar}</div><ul class="cv-parts">{key}</ul>'


def cards(
    candidates: Sequence[Candidate],
    selected: int | None,
    thumbnail: Callable[[Candidate], str],
) -> str:
    """One card per candidate. ``thumbnail`` gives the address of its tile's picture."""
    if not candidates:
        return ""
    return (
        '<div class="cv-cards" role="group" aria-label="Candidate places">'
        + "".join(_card(c, c.rank == selected, thumbnail(c)) for c in candidates)
        + "</div>"
    )


def _card(candidate: Candidate, chosen: bool, picture: str) -> str:
    heading = "unknown" if candidate.heading_deg is None else text.compass(candidate.heading_deg)
    rows = [("similarity", f"{candidate.similarity:.3f}")]
    if candidate.teacher_score is not None:
        rows.append(("pair score", f"{candidate.teacher_score:.3f}"))
    rows.append(("heading", heading))
    facts_html = "".join(f"<dt>{esc(k)}</dt><dd>{esc(v)}</dd>" for k, v in rows)
    return (
        f'<button type="button" class="cv-card{" cv-chosen" if chosen else ""}" '
        f'data-rank="{candidate.rank}" aria-pressed="{str(chosen).lower()}">'
        f'<img alt="Aerial tile {esc(candidate.tile.tile_id)}" src="{picture}">'
        f'<span class="cv-card-body"><span class="cv-card-head">'
        f'<span class="cv-rank">{candidate.rank}</span>'
        f'<span class="cv-share">{esc(percent(candidate.probability))}</span></span>'
        f'<dl>{facts_html}</dl><span class="cv-where">{esc(coordinates(candidate.camera))}</span>'
        "</span></button>"
    )


def coordinates(place: Place) -> str:
    """Latitude and longitude with hemispheres, to about a metre."""
    north, east = "N" if place.lat_deg >= 0 else "S", "E" if place.lon_deg >= 0 else "W"
    return f"{abs(place.lat_deg):.5f}° {north}, {abs(place.lon_deg):.5f}° {east}"


def facts(
    fov_deg: float, source: str, size: tuple[int, int], heading_deg: float | None, has_place: bool
) -> str:
    """The facts read from a photo. ``size``: width and height in pixels."""
    chips = [
        chip("picture", f"{size[0]} × {size[1]}"),
        chip(
            "field of view",
            f"{fov_deg:.0f}° · {text.fov_source(source)}",
            "cv-guess" if source == "guess" else "",
        ),
    ]
    if heading_deg is not None:
        chips.append(chip("compass in the photo", f"{text.compass(heading_deg)} · not used"))
    if has_place:
        chips.append(chip("position in the photo", "not used, not kept in the file"))
    return f'<div class="cv-chips">{"".join(chips)}</div>'


def legend(has_cells: bool, has_near: bool, has_truth: bool, has_candidates: bool) -> str:
    """The meaning of the signs on the map; only of those present."""
    entries = []
    if has_candidates:
        entries.append(("cv-key-pin", "where the camera may have stood, best first"))
        entries.append(("cv-key-tile", "the tile that was compared"))
        entries.append(("cv-key-wedge", "where the camera looked"))
        entries.append(("cv-key-radius", "how exact the chosen point is"))
    if has_cells:
        entries.append(("cv-key-cells", "probability, 0.5 % to 50 %"))
    if has_near:
        entries.append(("cv-key-near", "your search circle"))
    if has_truth:
        entries.append(("cv-key-truth", text.TRUTH.lower()))
    items = "".join(
        f'<li><span class="cv-key {key}"></span>{esc(word)}</li>' for key, word in entries
    )
    return f'<ul class="cv-legend">{items}</ul>' if items else ""


def example_strip(addresses: Sequence[tuple[str, str]]) -> str:
    """A button with a picture for each example. ``addresses``: its URL and readable name."""
    buttons = "".join(
        f'<button type="button" class="cv-example" data-index="{i}" aria-label="Example: {esc(name)}" '
        f'title="{esc(name)}"><img alt="" loading="lazy" src="{esc(url)}"></button>'
        for i, (url, name) in enumerate(addresses)
    )
    return f'<div class="cv-examples">{buttons}</div>' if buttons else ""


def masthead(places: int, is_rendered: bool) -> str:
    """Title, one sentence, and the searched imagery. ``places``: size of the gallery."""
    note = text.DEMO_NOTE if is_rendered else text.OWN_NOTE
    return (
        f'<header class="cv-masthead"><div><h1>{esc(text.TITLE)}</h1>'
        f'<p class="cv-tagline">{esc(text.TAGLINE)}</p></div>'
        f'<p class="cv-note">{esc(text.searched(places))} {esc(note)}</p></header>'
    )


def explained(words: str, explanation: Explanation | None = None) -> str:
    """The sentence over the two pictures of the Explain tab, with the pair's headings and score."""
    chips = ""
    if explanation is not None:
        chips = chip("camera looks", text.compass(explanation.heading_deg))
        chips += chip(
            "heading from attention alone", text.compass(explanation.attention_heading_deg)
        )
        chips += chip("pair score from there", f"{explanation.teacher_score:.3f}")
    return (
        f'<div class="cv-explained"><p>{esc(words)}</p>'
        + (f'<div class="cv-chips">{chips}</div>' if chips else "")
        + "</div>"
    )


def colour_key(factors: bool) -> str:
    """The meaning of the colours of the Explain tab."""
    low, high = text.FACTOR_ENDS if factors else text.ATTENTION_ENDS
    ramp = "cv-ramp-factors" if factors else "cv-ramp-attention"
    return (
        f'<div class="cv-ramp"><span>{esc(low)}</span><span class="cv-ramp-bar {ramp}"></span>'
        f"<span>{esc(high)}</span></div>"
    )
