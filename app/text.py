"""Every word a visitor reads. Plain strings and small functions of numbers; nothing is escaped here."""

from __future__ import annotations

from core.localization.output import percent
from core.records import Verdict

TITLE = "Crossview"
TAGLINE = "Where was this street photo taken? Crossview looks for it in aerial imagery."
DEMO_NOTE = (
    "The demo town is rendered: it lies in the sea at 0° N, 0° E, so every answer can be checked. "
    "Nothing leaves this machine."
)
OWN_NOTE = "Nothing leaves this machine."
PHOTO = "Street photo"
PHOTO_HINT = "Drop a street photo here\n- or -\nClick to choose one"
EXAMPLES = "Or try one of these"
LOCATE = "Locate"
EXPLAIN_BUTTON = "Why this place?"
KNOWN = "What you already know (optional)"
FOV = "Field of view"
FOV_AUTO = "From the photo"
FOV_HAND = "Set by hand"
FOV_DEGREES = "Horizontal field of view in degrees"
HEADING = "Camera heading"
HEADING_UNKNOWN = "Unknown"
HEADING_COMPASS = "Compass"
HEADING_DEGREES = "Degrees clockwise from north"
NEAR = "Somewhere around here"
NEAR_HINT = "Click the map to put the circle where you believe the camera was."
RADIUS = "Radius in metres"
GPS_CHOICES = "The photo says where it was taken"
GPS_SHOW = "Show it on the map"
GPS_SEARCH = "Search around it"
MAP_TITLE = "Map of the candidate places"
TRUTH = "Where the photo was really taken"

WAITING = "Choose a photo to begin"
READY = "Ready: press Locate"
WAITING_MORE = (
    "You will see candidate places on the map, how sure the program is, and which parts of the "
    "photo matched which parts of the ground."
)
NO_MATCH = "No confident match"
NO_MATCH_OUTSIDE = (
    "The photo may not have been taken in this imagery, or it shows too little to tell. The places below "
    "are the best of what is here."
)
LIKELY = "More likely here than not"
LIKELY_MORE = (
    "But a photo from somewhere else reaches this now and then: a compass heading, or a circle on the "
    "map around where you believe the camera was, would settle it."
)
NO_MATCH_SEVERAL = (
    "Several places here fit about as well. A compass heading, or a circle on the map around where you "
    "believe the camera was, would help to choose."
)
PARTS = ("place 1", "elsewhere in this imagery", "not in this imagery")

EXPLAIN_WAITING = "Locate a photo first; then this page shows what matched what."
EXPLAIN_GROUND = "The photo, unrolled"
EXPLAIN_AERIAL = "The place from above"
EXPLAIN_ATTENTION = "Attention"
EXPLAIN_FACTORS = "Contribution"
EXPLAIN_SHOW = "What to draw"
OPACITY = "Opacity"
PLACE = "Place"

ATTENTION_IDLE = (
    "Click any patch of the photo, or any sector of the aerial tile. The places in the other view "
    "that it looks at light up: the brighter, the more attention."
)
FACTORS_WORDS = (
    "Contribution factors: how large a share each part has in what the two pictures are compared "
    "by. Orange parts have more than an even share, blue parts less."
)
ERROR_TITLE = "That did not work"
UNFORESEEN = "Something went wrong on this machine. Try again, or try another photo."
NO_PHOTO = "Photo: got none, expected a street photo. Upload one or pick an example first."
NOT_UPLOADED = (
    "Photo: got an address or a path that nobody uploaded, expected an uploaded file. Upload the "
    "picture first, then name the path that the upload answers."
)
NEAR_MISSING = (
    "Search circle: got no centre, expected a place on the map. Click the map where you believe "
    'the camera was, or untick "Somewhere around here".'
)
CLAIMED_PLACE = "Where the photo says it was taken"

FACTOR_ENDS = ("less than an even share", "more")
ATTENTION_ENDS = ("no attention", "most attention")


def not_kept(name: str) -> str:
    """What is said of an uploaded file that is there no more."""
    return (
        f"Photo {name}: got a file that was refused or has expired, expected one that is still "
        "kept. Upload it again, or choose another."
    )


def searched(places: int) -> str:
    """How much is searched."""
    return f"It compares {places:,} places."


def fov_source(source: str) -> str:
    """Where a field of view comes from, in a visitor's words; core.photos.opening gives the source."""
    if source == "typed":
        return "set by you"
    if source == "guess":
        return "a guess, the photo does not say"
    if source.startswith("panorama"):
        return "its shape says panorama"
    if source == "GPano":
        return "written in the panorama"
    return f"from {source}"


def verdict(kind: Verdict, confidence: float) -> str:
    """The headline of an answer. ``confidence``: probability of place 1 in [0, 1]."""
    if kind == "none":
        return NO_MATCH
    if kind == "likely":
        return LIKELY
    return "Almost certainly here" if confidence >= 0.9 else "Probably here"


def doubt(confidence: float, outside: float) -> str:
    """Why there is no confident match. Probabilities of place 1 and of being outside, in [0, 1]."""
    return NO_MATCH_SEVERAL if outside < 1 - confidence - outside else NO_MATCH_OUTSIDE


def certainty(confidence: float) -> str:
    """What the probability of place 1 means. ``confidence`` in [0, 1]."""
    return f"{percent(confidence)} that place 1 is within 25 m of the camera"


def area(square_metres: float) -> str:
    """An area as a person would say it."""
    if square_metres < 10_000:
        return f"{square_metres:,.0f} m²"
    return (
        f"{square_metres / 10_000:,.1f} ha"
        if square_metres < 1e6
        else f"{square_metres / 1e6:,.1f} km²"
    )


def distance(metres: float) -> str:
    """A distance as a person would say it."""
    if metres < 1000:
        return f"{metres:.0f} m"
    return f"{metres / 1000:.1f} km" if metres < 100_000 else f"{metres / 1000:,.0f} km"


def compass(heading_deg: float) -> str:
    """A heading with its compass point: '92° E'."""
    points = ("N", "NE", "E", "SE", "S", "SW", "W", "NW")
    return f"{heading_deg % 360:.0f}° {points[round(heading_deg % 360 / 45) % 8]}"


def timings(timings_ms: dict[str, float]) -> str:
    """How long an answer took: the whole, then its steps."""
    if not timings_ms:
        return ""
    total = timings_ms.get("total", sum(timings_ms.values()))
    steps = [f"{name.replace('_', ' ')} {ms:.0f} ms" for name, ms in timings_ms.items()]
    parts = [step for step in steps if not step.startswith("total ")]
    return f"Answered in {total / 1000:.2f} s ({', '.join(parts)})"


def lit_patch(view: str, bearing_deg: float, strongest: float) -> str:
    """What a clicked patch shows. ``view``: where it was clicked; ``bearing_deg`` of the patch;
    ``strongest``: the largest share of its attention in the other view.
    """
    here, there = ("photo", "aerial tile") if view == "ground" else ("aerial tile", "photo")
    return (
        f"Outlined: a part of the {here}, towards {compass(bearing_deg)}. The {there} shows where it "
        f"looks: the paler, the more attention; the strongest part holds {percent(strongest)} of it."
    )
