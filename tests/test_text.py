"""The words and the three numbers of a verdict, whatever the answer: ``pytest tests/test_text.py``."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app import fragments, text
from core.localization.calibration import LIKELY
from core.localization.output import percent
from core.records import Candidate, Place, Prediction, Tile

DOUBTS = (text.NO_MATCH_OUTSIDE, text.NO_MATCH_SEVERAL)
SHARES = st.floats(0, 1)


def prediction(first: float, outside: float, confident: bool = False) -> Prediction:
    """An answer with one place and these probabilities."""
    tile = Tile("t", Place(0.0, 0.0), 0.0, 0.0, 76.8)
    place = Candidate(1, 0, tile, 0.9, None, first, None, None, tile.place)
    return Prediction(
        photo="a.jpg",
        fov_deg=90.0,
        fov_source="typed",
        confident=confident,
        candidates=(place,),
        rest_probability=max(0.0, 1 - first - outside),
        outside_probability=outside,
    )


def escaped(sentence: str) -> str:
    return fragments.esc(sentence)


@given(SHARES, SHARES, st.booleans())
@example(0.5, 0.5, False)
@example(np.nextafter(0.5, 1), 0.2, False)
@example(1.0, 0.0, True)
def test_doubt_never_speaks_beside_a_probability_above_one_half(first, share, sure):
    one = prediction(first, share * (1 - first), confident=sure and first > LIKELY)
    shown = fragments.verdict(one, None, None, None)
    doubts = [doubt for doubt in DOUBTS if escaped(doubt) in shown]
    if first > LIKELY:
        assert doubts == []
        assert text.NO_MATCH not in shown
    else:
        assert len(doubts) == 1
        assert f"<h2>{text.NO_MATCH}</h2>" in shown
    assert ("Almost certainly" in shown) == (one.confident and first >= 0.9)
    assert (escaped(text.LIKELY_MORE) in shown) == (one.verdict == "likely")


@given(SHARES, SHARES)
def test_what_doubt_says_is_the_greater_part(confidence, share):
    outside = share * (1 - confidence)
    rest = 1 - confidence - outside
    said = text.doubt(confidence, outside)
    assert said in DOUBTS
    if said == text.NO_MATCH_SEVERAL:
        assert rest > outside
    if said == text.NO_MATCH_OUTSIDE:
        assert outside >= rest


@given(SHARES, SHARES)
def test_the_bar_shows_the_three_numbers_of_the_prediction(first, share):
    one = prediction(first, share * (1 - first))
    shown = fragments.verdict(one, None, None, None)
    parts = dict(re.findall(r"</span>([^<]+) <b>([^<]+)</b>", shown))
    expected = (one.confidence, one.rest_probability, one.outside_probability)
    assert list(parts.items()) == [
        (escaped(name), escaped(percent(number)))
        for name, number in zip(text.PARTS, expected, strict=True)
    ]
    widths = [
        float(width) for width in re.findall(r'class="cv-part-\w+" style="width:(.*?)%', shown)
    ]
    assert widths == pytest.approx([100 * number for number in expected], abs=0.051)


def test_what_is_listed_but_not_first_counts_as_elsewhere():
    """The bar has three parts: places 2 to 10 are, like the rest, elsewhere in this imagery."""
    one = prediction(0.4, 0.2)
    second = SimpleNamespace(**{**vars(one.candidates[0]), "probability": 0.3})
    listed = Prediction(
        **{**vars(one), "candidates": (*one.candidates, second), "rest_probability": 0.1}
    )
    shown = fragments.verdict(listed, None, None, None)
    assert f"{text.PARTS[1]} <b>40 %</b>" in shown


@pytest.mark.parametrize(
    ("square_metres", "words"),
    [(369, "369 m²"), (9999, "9,999 m²"), (10_000, "1.0 ha"), (54_321, "5.4 ha"),
     (2_345_678, "2.3 km²")],
)  # fmt: skip
def test_areas_as_a_person_would_say_them(square_metres, words):
    assert text.area(square_metres) == words


@given(st.floats(368, 1e9))
def test_an_area_is_said_to_within_a_twentieth(square_metres):
    number, unit = text.area(square_metres).split(" ")
    said = float(number.replace(",", "")) * {"m²": 1, "ha": 1e4, "km²": 1e6}[unit]
    assert said == pytest.approx(square_metres, rel=0.05)


@given(SHARES)
def test_the_certainty_is_that_of_the_first_place(confidence):
    assert text.certainty(confidence) == (
        f"{percent(confidence)} that place 1 is within 25 m of the camera"
    )


def test_areas_are_shown_where_there_are_any():
    one = prediction(0.6, 0.1)
    assert "of the probability on" not in fragments.verdict(one, None, None, None)
    wide = Prediction(**{**vars(one), "area_50_m2": 369.0, "area_90_m2": 54_321.0})
    shown = fragments.verdict(wide, None, None, None)
    assert re.findall(r"of the probability on</span>(.*?)</span>", shown) == ["369 m²", "5.4 ha"]
