"""``evaluate --benchmark``: a model on a published test set, with its protocol and metrics."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.commands.devices import checked_device
from core.commands.provenance import provenance

__all__ = ["benchmark_report", "benchmark_text"]


def benchmark_report(
    student: Path,
    data: Path,
    name: str,
    polar_root: Path | None = None,
    device: str = "cpu",
    batch: int = 32,
) -> dict[str, Any]:
    """Measure the model folder ``student`` on the test part ``name`` of the data set in ``data``.

    Raises:
        SettingError: there is no such benchmark or device.
        DataError: the data set is missing or not as published.
        CheckpointError: the folder holds no two-branch model.

    """
    device = checked_device(device)
    from core.checkpoints import load_student
    from core.data.benchmarks import open_benchmark
    from core.evaluation.benchmarks import evaluate_benchmark

    benchmark = open_benchmark(name, data)
    model, config = load_student(student)
    measured = evaluate_benchmark(model, config, benchmark, name, polar_root, device, batch)
    command = ["evaluate", str(student), "--benchmark", name, "--data", str(data)]
    command += [] if polar_root is None else ["--polar-root", str(polar_root)]
    rest = {"model": str(student), "data": str(data), **provenance(shlex.join(command))}
    return {"protocol": measured.pop("protocol"), **rest, **measured}


def benchmark_text(report: Mapping[str, Any]) -> str:
    """A report for the terminal: the protocol, then a line for each metric."""
    row = dict(report["rows"][0])
    queries, gallery = row.pop("queries"), row.pop("gallery")
    sizes = ["{} x {} px".format(*report["ground_size"])]
    if report["aerial_size"] is not None:
        sizes.append("{} x {} px".format(*report["aerial_size"]))
    lines = [
        report["protocol"],
        f"{report['benchmark']} ({report['split']}): {queries:,} queries, {gallery:,} references"
        + (f", {report['skipped']:,} listed pairs without pictures" if report["skipped"] else ""),
        f"shown at {' and '.join(sizes)}; references: {report['references_seen']}",
        f"trained on {_lineage(report)}",
    ]
    return "\n".join(lines + [f"{name:>16}  {_shown(name, row[name])}" for name in row])


def _lineage(report: Mapping[str, Any]) -> str:
    learned = report["trained_on"] or "nothing that its config names"
    if report["trained_before_on"]:
        learned += f" (before that on {', '.join(report['trained_before_on'])})"
    assumed = " (assumed when it was converted)" if report["trained_on_is_assumed"] else ""
    crossed = ": another data set" if report["cross_dataset"] else ""
    return f"{learned}{assumed}, evaluated on {report['evaluated_on']}{crossed}"


def _shown(name: str, value: float) -> str:
    return f"{value:.1f} m" if name.endswith("error_m") else f"{value:.2%}"
