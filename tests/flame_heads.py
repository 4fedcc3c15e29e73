"""A made-up head in FLAME's mesh."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from diffdyad import flame

EYE, MOUTH_Y = np.array([0.032, 0.03, 0.06]), -0.03


def flame_template() -> np.ndarray:
    """Eyes, lids and lips where FLAME's mesh has them by number, and skin all around: (5023, 3) metres."""
    count = np.arange(flame.VERTICES)
    height, turn = 1 - 2 * (count + 0.5) / len(count), count * np.pi * (3 - 5**0.5)
    radius = np.sqrt(1 - height**2)
    points = np.stack([0.075 * radius * np.sin(turn), 0.11 * height, 0.09 * radius * np.cos(turn)], 1)
    ball = points[:546] / np.abs(points[:546]).max() * 0.012
    points[flame.LEFT_EYE], points[flame.RIGHT_EYE] = ball + EYE, ball + EYE * [-1, 1, 1]
    across = np.linspace(-0.025, 0.025, 11)
    for rim, y in ((flame.INNER_LIP_UPPER, 0.001), (flame.INNER_LIP_LOWER, -0.001)):
        points[list(rim)] = np.stack([across, np.full(11, MOUTH_Y + y), 0.09 - 8 * across**2], 1)
    along = np.linspace(0, np.pi, 11)
    for lid, sign in ((flame.UPPER_LID, 1), (flame.LOWER_LID, -1)):
        points[list(lid)] = EYE + 0.0145 * np.stack([-np.cos(along), 0.4 * sign * np.sin(along), np.sin(along)], 1)
    return points


def write_flame_head(path: Path) -> Path:
    """50 made-up expressions: the first moves everything forward by 1 mm, the second what is above the eyes up by 1."""
    template = flame_template()
    shapes = np.zeros((flame.VERTICES, 3, 150))
    shapes[:, 2, 100] = 1e-3
    shapes[template[:, 1] > EYE[1], 1, 101] = 1e-3
    regressor = np.zeros((5, flame.VERTICES))
    regressor[3, flame.LEFT_EYE] = regressor[4, flame.RIGHT_EYE] = 1 / 546
    regressor[[0, 1, 2], [5, 6, 7]] = 1
    np.savez(path, v_template=template, f=np.arange(3 * flame.FACES).reshape(-1, 3) % flame.VERTICES, shapedirs=shapes,
             posedirs=np.zeros((flame.VERTICES, 3, 36)), J_regressor=regressor,
             weights=np.tile([0.0, 1, 0, 0, 0], (flame.VERTICES, 1)),
             kintree_table=np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]]))  # fmt: skip
    return path
