"""Our encoders against their transcription, timed: run alone with ``pytest tests/test_bench_models.py``.

Nothing here is judged by a clock.
"""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core.bench import models as bench_models
from core.bench.models import PAIRS, Pair, contest_table, run_contests, run_training
from core.cli import main
from core.errors import ParityError, SettingError
from core.models.l2ltr import L2ltr, L2ltrConfig
from core.models.saig import saig_d, saig_s
from core.models.transcription import PlainL2ltr, PlainSaig
from tests.parity import fill, own_keys, weights


class Flat(nn.Module):
    """A model that describes by a linear map of the mean colour."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift
        self.map = nn.Linear(3, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return F.normalize(self.map(images.mean(dim=(2, 3))) + self.shift, dim=1)


def flat(shift: float = 0.0) -> Pair:
    return Pair(lambda: Flat(shift), Flat, lambda model, images: model(images), (8, 8))


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The calls in order: which of the two, and how many views."""
    made: list[str] = []

    class Told(Flat):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            made.append(f"{'ours' if self.shift else 'plain'} {len(images)}")
            return super().forward(images)

    pair = Pair(lambda: Told(1e-12), Told, lambda model, images: model(images), (8, 8))
    monkeypatch.setitem(bench_models.PAIRS, "flat", pair)
    monkeypatch.setattr(bench_models, "computes_in_bfloat16", lambda device: False)
    return made


def test_both_are_run_in_alternation_after_one_comparison(calls):
    contests = run_contests(["flat"], [1, 3], repeat=2)
    once = ["plain", "ours"]
    assert calls == [f"{who} {n}" for n in (1, 3) for _ in range(3) for who in once]
    assert [(c.batch, c.precision, c.runs) for c in contests] == [
        (1, "float32", 2),
        (3, "float32", 2),
    ]
    for contest in contests:
        assert contest.ratio == pytest.approx(contest.plain_ms / contest.ours_ms)
        assert contest.largest_difference <= 1e-5
        assert 0 <= contest.cosine_error <= 1e-9


def test_the_ceiling_is_the_time_of_the_multiply_adds_at_the_speed_of_the_fastest_product(
    monkeypatch,
):
    monkeypatch.setattr(bench_models, "_fastest_product", lambda device, context: 1000.0)
    contest = run_contests(["flat"], [5], 1, pairs={"flat": flat()})[0]
    operations = 5 * 2 * 3 * 4  # five views through a map of three values to four
    assert contest.ceiling == pytest.approx(contest.plain_ms / 1000 / (operations / 1000))


def test_the_plain_models_are_counted_whole(monkeypatch):
    monkeypatch.setattr(bench_models, "_fastest_product", lambda device, context: 1.0)
    contest = run_contests(["saig-s"], [1], 1)[0]
    counted = contest.plain_ms / 1000 / contest.ceiling
    tokens, width = 256, 384
    stem = 27 * 64 * 128**2 + 9 * 4096 * (64 * 128 + 128 * 128) + 9 * 1024 * (128 * 256 + 256 * 256)
    stem += 9 * 256 * 256 * 512 + tokens * 512 * width
    block = 4 * tokens * width**2 + 2 * tokens**2 * width
    assert counted == pytest.approx(2 * (stem + 11 * block))


def test_a_faster_wrong_answer_is_an_error():
    with pytest.raises(ParityError, match="Model flat: got descriptors that differ"):
        run_contests(["flat"], [2], 1, pairs={"flat": flat(0.1)})
    with pytest.raises(ParityError):
        run_contests(["flat"], [2], 1, pairs={"flat": flat(float("nan"))})


def test_bfloat16_is_measured_with_its_error_where_there_is_any(monkeypatch):
    monkeypatch.setattr(bench_models, "computes_in_bfloat16", lambda device: True)
    full, half = run_contests(["flat"], [4], 1, pairs={"flat": flat()})
    assert (full.precision, half.precision) == ("float32", "bfloat16")
    assert full.largest_difference < half.largest_difference < 0.05
    assert 0 < half.cosine_error < 1e-3
    assert half.plain_ms == full.plain_ms


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"models": ["resnet"]}, "got 'resnet', expected one of flat"),
        ({"models": ["flat"], "batches": [0]}, "at least 1"),
        ({"models": ["flat"], "repeat": 0}, "got 0 runs"),
    ],
)
def test_nonsense_is_refused(given, words):
    with pytest.raises(SettingError, match=words):
        run_contests(**given, pairs={"flat": flat()})


def test_training_is_whole_steps_of_pairs():
    row = run_training("flat", 4, steps=2, device="cpu", pairs={"flat": flat()})
    assert row["pairs_per_s"] > 0
    assert "trains on" in contest_table([], [row])
    with pytest.raises(SettingError):
        run_training("flat", 1, device="cpu", pairs={"flat": flat()})


def test_the_command_writes_what_it_prints(calls, tmp_path, capsys):
    out = tmp_path / "models.json"
    arguments = ["bench", "models", "--model", "flat", "--batch", "2", "--repeat", "1"]
    assert main([*arguments, "--json", "--out", str(out)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads(out.read_text())
    assert report["command"].startswith("python -m core bench models --model flat --batch 2")
    assert report["rows"][0]["model"] == "flat"
    assert report["training"] == []
    assert main(arguments) == 0
    assert "1 - cosine" in capsys.readouterr().out


def test_the_command_explains_itself_and_its_mistakes(tmp_path, capsys):
    assert main(["bench", "models", "--help"]) == 0
    assert "Example: python -m core bench models " in " ".join(capsys.readouterr().out.split())
    assert main(["bench", "models", "--out", str(tmp_path / "no" / "x.json")]) == 1
    assert "the folder" in capsys.readouterr().err
    assert main(["bench", "models", "--model", "vgg"]) == 1
    assert "Model: got 'vgg', expected one of saig-s" in capsys.readouterr().err
    assert main(["bench", "models", "--batch", "0"]) == 2


@pytest.mark.parametrize("name", PAIRS)
def test_transcriptions_have_the_keys_of_our_encoders(name):
    with torch.device("meta"):
        ours, plain = PAIRS[name].ours(), PAIRS[name].plain()
    assert own_keys(plain) == own_keys(ours)


@torch.no_grad()
@pytest.mark.parametrize(("build", "depth"), [(saig_s, 11), (saig_d, 22)])
def test_saig_equals_its_transcription(build, depth):
    ours, plain = build((32, 64)).double().eval(), PlainSaig(8, depth).double().eval()
    filled = weights(ours.state_dict(), "saig.")
    ours.load_state_dict(filled)
    plain.load_state_dict(filled)
    views = fill("views", 2, 3, 32, 64)
    described = F.normalize(ours.feature_map(views).mean(dim=(2, 3)), dim=1)
    torch.testing.assert_close(described, plain(views), atol=1e-10, rtol=0)


@torch.no_grad()
def test_l2ltr_equals_its_transcription():
    """All of its layers, on a small view: the weights are many, so they are drawn simply."""
    with torch.device("meta"):
        ours, plain = L2ltr(L2ltrConfig(image_size=(32, 64))).eval(), PlainL2ltr(8).eval()
    generator = torch.Generator().manual_seed(0)
    drawn = {
        key: torch.empty(value.shape).uniform_(-0.05, 0.05, generator=generator)
        + (1.0 if value.ndim == 1 and key.endswith("weight") else 0.0)
        for key, value in ours.state_dict().items()
    }
    ours.load_state_dict(drawn, assign=True)
    plain.load_state_dict(drawn, assign=True)
    views = fill("views", 2, 3, 32, 64).float()
    described = ours.describe(views)
    assert not torch.allclose(described[0], described[1], atol=1e-3)
    torch.testing.assert_close(described, plain(views), atol=1e-5, rtol=0)
