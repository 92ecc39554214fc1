"""The mean of a student's weights before and after a training run.

"Robust fine-tuning of zero-shot models" (Wortsman et al., CVPR 2022): a weighted mean keeps the earlier
skills and most of the new ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from core.checkpoints import StateDict, check_fit, load_student, save_model
from core.errors import SettingError
from core.training.cards import model_card

__all__ = ["blend_students"]


def blend_students(before: Path, trained: Path, share: float, out: Path) -> Path:
    """Write the model folder of the weighted mean of two students.

    Args:
        before: model folder that ``trained`` started from.
        trained: model folder of the trained student; its config is kept.
        share: weight of ``trained`` in the mean, from 0 to 1, also for batch statistics.
        out: model folder to write.

    Raises:
        CheckpointError: a folder holds no student, or the two students are different models.
        SettingError: ``trained`` has no training record.

    """
    student, config = load_student(trained)
    record = config.get("training")
    if record is None or "recipe" not in record:
        raise SettingError(
            f"Model {trained}: got no training record, expected a student that train wrote. Name it."
        )
    old, new = load_student(before)[0].state_dict(), student.state_dict()
    check_fit(f"Model {before}", new, old)
    student.load_state_dict(_between(old, new, share))
    last = {name: value for name, value in record["last"].items() if name != "validation"}
    record = {**record, "blend": share, "last": last}
    kept: dict[str, Any] = {name: config[name] for name in ("name", "model")}
    save_model(out, student, {**kept, "training": record}, model_card(config["name"], record))
    return out


def _between(old: StateDict, new: StateDict, share: float) -> StateDict:
    """Weighted mean of two state dicts; integer entries are those of the trained one."""
    return {
        name: torch.lerp(old[name].to(value), value, share) if value.is_floating_point() else value
        for name, value in new.items()
    }
