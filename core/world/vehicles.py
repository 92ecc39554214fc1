"""Triangles of vehicles: cars, vans, lorries and buses."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.arrays import Float64Array
from core.world.materials import CODE
from core.world.meshes import Mesh, box_faces, place, plain, prism, quads

__all__ = ["vehicle_mesh"]


def _car(
    length: float, width: float, height: float, nose: float, tail: float, hood: float
) -> tuple[Any, Any]:
    """(t, 3, 3) faces and (t,) what: 0 paint, 1 glass, 2 tyre, 3 lamp, 4 tail lamp."""
    long, w = length / 2, width / 2
    body = box_faces(-long, long, -w, w, 0.42, hood)
    skirt = box_faces(-long + 0.15, long - 0.15, -w + 0.08, w - 0.08, 0.2, 0.42)
    low = [
        (-long + tail, -w + 0.04),
        (long - nose, -w + 0.04),
        (long - nose, w - 0.04),
        (-long + tail, w - 0.04),
    ]
    lean = 0.55 if hood < height - 0.3 and height < 1.7 else 0.16
    high = [(-long + tail + lean * 0.6, -w + 0.2), (long - nose - lean * 1.3, -w + 0.2),
            (long - nose - lean * 1.3, w - 0.2), (-long + tail + lean * 0.6, w - 0.2)]  # fmt: skip
    a = [np.array([[*c, hood]]) for c in low]
    b = [np.array([[*c, height]]) for c in high]
    cabin = np.concatenate([quads(a[i], a[(i + 1) % 4], b[(i + 1) % 4], b[i]) for i in range(4)]
                           + [quads(*b)])  # fmt: skip
    wheels = []
    for x in (-long + 0.85, long - 0.9):
        for y in (-1, 1):
            disc = prism(0.34, 0, 0.12, 8)
            turned = disc[:, :, [0, 2, 1]] * (1, y, 1) + (x, y * (w - 0.1), 0.34)
            wheels.append(turned)
    lamps = [
        box_faces(x0, x0 + 0.06, y, y + 0.36, 0.62, 0.8)
        for x0 in (long - 0.03, -long - 0.03)
        for y in (-w + 0.1, w - 0.46)
    ]
    faces = np.concatenate([body, skirt, cabin, *wheels, *lamps])
    glass = np.array([1] * 8 + [0] * 2)
    kind = np.concatenate([np.zeros(10), np.full(10, 2), glass, np.full(24 * 4, 2),
                           np.full(20, 3), np.full(20, 4)])  # fmt: skip
    return faces, kind.astype(int)


def _models() -> list[tuple[Any, Any]]:
    models = [
        _car(4.3, 1.8, 1.46, 1.0, 0.35, 0.92), _car(4.7, 1.84, 1.44, 1.15, 0.95, 0.90),
        _car(4.5, 1.88, 1.68, 0.95, 0.25, 1.02), _car(5.2, 1.98, 2.15, 0.7, 0.05, 1.12),
        _car(7.4, 2.3, 3.1, 0.5, 0.1, 1.3), _car(11.5, 2.5, 3.1, 0.12, 0.05, 1.2),
    ]  # fmt: skip
    faces, kind = models[4]
    cargo = box_faces(-3.7, 1.7, -1.17, 1.17, 0.9, 3.3)
    models[4] = (np.concatenate([faces, cargo]), np.concatenate([kind, np.zeros(10, int)]))
    return models


PAINTS = np.array(
    [
        (0.68, 0.68, 0.67),
        (0.75, 0.74, 0.72),
        (0.03, 0.03, 0.032),
        (0.06, 0.062, 0.068),
        (0.28, 0.29, 0.30),
        (0.42, 0.43, 0.44),
        (0.14, 0.15, 0.16),
        (0.38, 0.035, 0.03),
        (0.04, 0.09, 0.26),
        (0.03, 0.13, 0.15),
        (0.22, 0.17, 0.11),
        (0.46, 0.33, 0.04),
    ]
)


def vehicle_mesh(rows: Float64Array) -> list[Mesh]:
    """Cars, vans, lorries and buses. ``rows`` (n, 5) as in TownPlan.vehicles."""
    found = []
    names = np.array([CODE["paintwork"], CODE["glass"], CODE["tyre"], CODE["sign"], CODE["sign"]])
    other = np.array(
        [(0, 0, 0), (0.03, 0.035, 0.04), (0.03, 0.03, 0.03), (0.7, 0.7, 0.65), (0.3, 0.02, 0.02)]
    )
    for number, (faces, kind) in enumerate(_models()):
        mine = rows[rows[:, 3] == number]
        if len(mine) == 0:
            continue
        paint = PAINTS[mine[:, 4].astype(int)]
        rgb = np.where((kind == 0)[None, :, None], paint[:, None], other[kind][None])
        code = np.tile(names[kind], len(mine)).astype(np.uint8)
        found.append(
            plain(place(faces, mine[:, 0], mine[:, 1], mine[:, 2]), code, rgb.reshape(-1, 3))
        )
    return found
