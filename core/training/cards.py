"""What a trained model's folder says about its training: the record in its config, and its card."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from core.models import TEACHER
from core.training.loop import RunConfig
from core.training.recipe_files import TOWNS, Recipe

__all__ = ["model_card", "training_record"]

AUXILIARY = {
    "pointing": "attention was taught where things are",
    "transient": "contribution factors were taught that vehicles and sky count for little",
}
RECONSTRUCTION = "GeoSSK is rebuilt from its abstract; no number of this model is the paper's.\n"


def training_record(
    recipe: Recipe, is_trial: bool, command: str, config: RunConfig, run: Path
) -> dict[str, Any]:
    """The record of a finished run, for the model's config; ``run``: the folder of its log."""
    lines = (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    log = [json.loads(line) for line in lines]
    return {
        "kind": recipe.kind,
        "is_trial": is_trial,
        "command": command,
        "recipe": asdict(recipe),
        "loop": asdict(config),
        "minutes": round(_seconds(log) / 60, 1),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {config.device}",
        "torch": torch.__version__,
        "last": log[-1],
        **({} if recipe.data == TOWNS else {"data_set": recipe.data}),
    }


def _seconds(log: Sequence[dict[str, Any]]) -> float:
    """Seconds of a run with all its interruptions; each line counts from the last start."""
    total = last = 0.0
    for record in log:
        now = float(record.get("seconds", last))
        if now < last:
            total += last
        last = now
    return total + last


def model_card(name: str, record: dict[str, Any]) -> str:
    """The card of a trained model, from its name and the training record in its config."""
    is_town = "towns" in record
    data_set = "rendered towns" if is_town else record["data_set"]
    title = "Teacher GeoSSK (reconstruction)" if name == TEACHER else f"Student {name}"
    loop, schedule = record["loop"], record["recipe"]["schedule"]
    trial = " A trial, shorter than its recipe says." if record["is_trial"] else ""
    return (
        f"# {title}, {data_set}\n\n"
        f"{_town_data(record) if is_town else _pair_data(record)}{trial}\n\n"
        f"- command: `{record['command']}`\n"
        f"- {loop['steps']} steps of {schedule['batch']} pairs, peak rate {loop['rate']}, "
        f"sharpness {loop['sharpness']}, seed {loop['seed']}\n"
        f"- {record['minutes']} minutes on {record['machine']}, torch {record['torch']}\n"
        f"{_before(record.get('before'))}"
        f"{_special(record)}"
        f"{_result(record)}\n"
        f"{_terms(record)}"
    )


def _town_data(record: dict[str, Any]) -> str:
    return (
        f"Trained on {len(record['towns'])} rendered (synthetic) towns with {record['panoramas']} "
        f"panoramas; seeds of the towns: {', '.join(record['towns'])}. No test town and no real photo "
        "was seen."
    )


def _pair_data(record: dict[str, Any]) -> str:
    return (
        f"Trained on {record['pairs']} pairs of {record['data_set']}. The last weights of the run; "
        "nothing was chosen on a test part."
    )


def _before(before: dict[str, Any] | None) -> str:
    """A line on the model that was started from, which was trained on a benchmark or on towns."""
    if before is None:
        return ""
    if "data_set" in before:
        data = f" on {before['data_set']}"
    else:
        data = f" and {before['minutes']} minutes on {len(before['towns'])} towns"
    loop = before["loop"]
    return f"- started from a model of {loop['steps']} steps{data}, peak rate {loop['rate']}\n"


def _special(record: dict[str, Any]) -> str:
    """Lines on auxiliary losses and on blended weights."""
    weights = record["recipe"].get("auxiliary") or {}
    lines = [
        f"- {sentence} (auxiliary loss, weight {weights[name]:g})\n"
        for name, sentence in AUXILIARY.items()
        if weights.get(name)
    ]
    if "blend" in record:
        lines.append(f"- weights: {record['blend']:g} of those trained, the rest of those before\n")
    return "".join(lines)


def _result(record: dict[str, Any]) -> str:
    """A line on validation towns, or on the log's last line for a benchmark."""
    if "towns" not in record:
        aerial = f"- aerial pictures: {record['aerial']}\n"
        return f"{aerial}- last line of the log: `{json.dumps(record['last'])}`\n"
    metrics = record["last"].get("validation", {})
    shares = [
        f"{field}° {100 * metrics[key]:.1f} %"
        + (f" ({100 * metrics[again]:.1f} % re-ranked)" if again in metrics else "")
        for field in (360, 180, 90)
        if (key := f"within_25_m_{field}") in metrics
        for again in (f"{key}_reranked",)
    ]
    if not shares:
        return "- not judged on validation towns (no `--validation`): measure it with `evaluate`\n"
    return (
        "- first place within 25 m of the camera on validation towns, of all places of a town, heading "
        f"unknown: {', '.join(shares)}\n"
    )


def _terms(record: dict[str, Any]) -> str:
    reconstruction = "" if record["kind"] == "student" else RECONSTRUCTION
    if "towns" in record:
        return f"{reconstruction}These weights: CC0.\n"
    return (
        f"{reconstruction}The pictures are their owners'; their terms may bind these weights too.\n"
    )
