"""Words that the field's terms replaced must not come back, in text or in names.

``TEXT`` holds on every line of code, comments and pages. ``NAMES`` are common English words that only
names in code may not hold. Keys of stored files are exempt: a quoted word alone, as ``"pupil"``.
"""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def word(pattern: str) -> str:
    """The pattern as a word of its own; an underscore parts words too."""
    return rf"(?<![A-Za-z])(?:{pattern})(?![A-Za-z])"


TEXT = {
    word("standpoints?"): "viewpoint",
    word("likeness"): "match similarity",
    word("spoken"): "projected value, or say what it does",
    word("believed|believes|believing"): "estimated",
    word("lookers?"): "Reranker",
    word("look(?:s|ed|ing)?[ _]again"): "rerank",
    word("step(?:s|ped|ping)?[ _]closer|closer[ _]in"): "refine_position, refined",
    word("pupils?"): "student",
    word("lessons?"): "auxiliary weights",
    word("strangers?"): "out-of-gallery photos",
    word("passing"): "transient",
    word("taken_for|confusing"): "hard negatives",
    word("from_each"): "viewpoints",
    word("alone_in"): "folder_lock",
    word("over one another"): "aligned",
    # Of a camera: roll_deg, or beside its pitch. Of an array: np.roll, torch.roll, tensor.roll(.
    r"(?<!np\.)(?<!torch\.)" + word(r"(?<!\.)roll(?:s|ed|ing)?(?!_deg)"): "azimuth shift",
}
"""Pattern of a replaced word, in any case, and what to say."""

EARLIER_OPTION = '"--standpoints"'
"""A second name of ``gallery build --viewpoints``, which scripts still use."""

CAMERA = re.compile(r"pitch|roll_deg")
"""A line that speaks of a camera's roll."""

NAMES = {
    "alike": "match_similarity, similar",
    "asked": "ground, query, given",
    "told": "aerial, reference, given",
    "met": "aligned",
    "meet": "align",
    "meets": "aligned",
    "closer": "refined",
    "elsewhere": "extra_negatives, wrong_tile, other_towns",
    "turns": "rotations",
    "believed": "estimated",
    "confusing": "hard_negatives",
    "figures": "metrics; drawn figures are core.explain.figures alone",
}
"""Part of a name, between underscores, and what to say."""

CLASSES = {"Ask": "LocateRequest", "Note": "UploadedPhoto", "Remembered": "WeightCache"}


def text_files() -> list[Path]:
    code = [path for folder in ("core", "app") for path in (ROOT / folder).rglob("*.py")]
    pages = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "recipes" / "README.md"]
    web = [*(ROOT / "assets" / "web").glob("*.js"), *(ROOT / "assets" / "web").glob("*.css")]
    return sorted([*code, *pages, *web, ROOT / "app.py"])


def python_files() -> list[Path]:
    return [path for path in text_files() if path.suffix == ".py"]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def lines_of(path: Path) -> list[str]:
    """Lines without keys of stored files; of the measured page also without recorded commands."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = re.sub(r"([\"'])[a-z_]+\1", "", text)
        text = text.replace(EARLIER_OPTION, "")
    if path.suffix == ".md":
        text = re.sub(r"`python -m core [^`]*`", "", text)
    return text.splitlines()


def replaced_in(line: str) -> list[str]:
    """What to say instead of each replaced word in a line."""
    return [
        f"{found[0]!r}: {instead}"
        for pattern, instead in TEXT.items()
        if (found := re.search(pattern, line, re.IGNORECASE))
        and not (instead == "azimuth shift" and CAMERA.search(line))
    ]


def replaced_names(source: str) -> list[tuple[int, str]]:
    """Line and name of every name in Python source that holds a replaced word."""
    found, before = [], ""
    draws = "from core.explain import figures" in source
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME:
            parts = set(token.string.lower().split("_")) & NAMES.keys()
            # The module of drawn figures: core.explain.figures, and its short name where imported.
            if token.string == "figures" and (before == "." or draws):
                parts = set()
            if parts or token.string in CLASSES:
                found.append((token.start[0], token.string))
        before = token.string
    return found


@pytest.mark.parametrize("path", text_files(), ids=named)
def test_no_replaced_word_is_written(path: Path) -> None:
    found = [
        f"{named(path)}:{number}: {said}"
        for number, line in enumerate(lines_of(path), start=1)
        for said in replaced_in(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", python_files(), ids=named)
def test_no_name_holds_a_replaced_word(path: Path) -> None:
    found = [
        f"{named(path)}:{number}: {name}"
        for number, name in replaced_names(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("the best roll of a pair", 1),
        ("rolls = similarity.argmax()", 1),
        ("x = np.roll(x, 3); y = torch.roll(y, 1); z = z.roll(2, dims=1)", 0),
        ("a rollout of attention, a controller, unrolled", 0),
        ("def tilted(canvas, pitch_deg, roll_deg)", 0),
        ("what lies pitch * cos(a) - roll * sin(a) higher", 0),
        ("TwoBranch.standpoint_offsets", 1),
        ("def passing_loss(phi)", 1),
        ("surpassing", 0),
        ("the student believed it; where you believe it was", 1),
    ],
)
def test_the_patterns_mean_what_they_should(line: str, said: int) -> None:
    assert len(replaced_in(line)) == said


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("from core.explain import figures\nfigures.outline(figures)\n", []),
        ("from core.explain.figures import outline\n", []),
        ("figures = {'accuracy': 1}\n", ["figures"]),
        (
            "def class_figures(asked): return asked.told\n",
            ["class_figures", "asked", "asked", "told"],
        ),
        ("closed, method, turn, metres = 1, 2, 3, 4  # we met elsewhere\n", []),
        ("class Ask: pass\nclass AskedFor: pass\n", ["Ask"]),
    ],
)
def test_names_are_found_and_comments_are_not(source: str, names: list[str]) -> None:
    assert [name for _, name in replaced_names(source)] == names
