"""Reads FLAME files, and knows FLAME's mesh: its regions, its lips, how to close its lids.

FLAME: Li, Bolkart, Black, Li, Romero, "Learning a model of facial shape and expression from 4D scans",
SIGGRAPH Asia 2017. All editions share one mesh of 5023 vertices and 9976 triangles.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np

from diffdyad.errors import UserError
from diffdyad.unpickle import load_arrays

FLAME_BASES = ("flame2020", "flame2023", "flame2023-open")
VERTICES, FACES = 5023, 9976
LEFT_EYE, RIGHT_EYE = slice(3931, 4477), slice(4477, 5023)
LEFT_EYE_JOINT, RIGHT_EYE_JOINT = 3, 4

# the rims of the lips that touch at rest, paired by column from the right corner to the left: found on the template
# by walking the mesh from the midline
INNER_LIP_UPPER = (2817, 2864, 2813, 2865, 2786, 3531, 1669, 1750, 1696, 1749, 1700)
INNER_LIP_LOWER = (2894, 2895, 2896, 2907, 2938, 3504, 1849, 1804, 1793, 1792, 1791)

# edges of the left eye's lids, from the nose outwards; both begin and end in the corners
UPPER_LID = (3827, 1243, 1340, 1343, 3855, 1344, 1218, 1216, 1201, 1182, 1154)
LOWER_LID = (3827, 825, 826, 992, 994, 995, 958, 814, 1096, 1175, 1154)

SKIN, LIP, BROW = (0.62, 0.43, 0.34), (0.50, 0.24, 0.21), (0.20, 0.13, 0.09)
SCLERA, IRIS, PUPIL = (0.80, 0.78, 0.75), (0.16, 0.22, 0.26), (0.01, 0.01, 0.01)

# file's key -> ours; a file has one of the names
_KEYS = {
    "template": ("v_template",), "faces": ("f", "faces"), "joint_regressor": ("J_regressor",),
    "skinning_weights": ("weights",), "pose_dirs": ("posedirs",),
}  # fmt: skip
# columns of `shapedirs` -> how many of them are identity; the rest is expression
_IDENTITY_COLUMNS = {400: 300, 150: 100}


def detect_basis(path: Path) -> str:
    """Which edition a file is, by what its name says, or else its folder's name.

    `2023` with `open` -> flame2023-open; `2023` -> flame2023; `2020` -> flame2020. Official files of several editions
    are named `generic_model.pkl`: raises UserError where neither name tells, asking for the basis.
    """
    for name in (path.name.lower(), path.absolute().parent.name.lower()):
        if "2023" in name and "2020" not in name:
            return "flame2023-open" if "open" in name else "flame2023"
        if "2020" in name and "2023" not in name:
            return "flame2020"
    raise UserError(
        f"cannot tell which FLAME edition {path} is: name its basis, one of {', '.join(FLAME_BASES)}, or rename it"
    )


def read_flame(path: str | os.PathLike, basis: str | None = None) -> tuple[dict[str, np.ndarray], str]:
    """A FLAME file (.pkl or .npz) -> the arrays that `HeadModel` takes, and its basis.

    Files with 400 (300 + 100) or 150 (100 + 50) columns in `shapedirs` have expressions; files with
    `shapedirs_identity*` have none and load with 0 expressions. `basis`: what the file stores under that name, or else
    `detect_basis`. Raises UserError where something is missing or of the wrong shape.
    """
    path = Path(path)
    content = _read(path)
    if basis is None:
        basis = str(content["basis"]) if "basis" in content else detect_basis(path)
    if basis not in FLAME_BASES:
        raise UserError(f"expected a FLAME basis, one of {', '.join(FLAME_BASES)}, found {basis!r} for {path}")
    arrays = {}
    for name, keys in _KEYS.items():
        key = next((key for key in keys if key in content), None)
        if key is None:
            raise UserError(f"expected the key {keys[0]!r} in {path}, found {', '.join(sorted(content)[:20])}")
        arrays[name] = np.asarray(content[key])
    arrays["shape_dirs"], arrays["expression_dirs"] = _directions(content, path)
    arrays["parents"] = _parents(content, path)
    for name, array in arrays.items():
        if array.dtype.kind not in "fiu":
            raise UserError(f"expected numbers for {name} in {path}, found dtype {array.dtype}")
    found = arrays["template"].shape, arrays["faces"].shape, arrays["pose_dirs"].shape
    if found != ((VERTICES, 3), (FACES, 3), (VERTICES, 3, 36)):
        raise UserError(f"expected FLAME's mesh of {VERTICES} vertices and {FACES} faces in {path}, found v_template, "
                        f"f and posedirs of shapes {', '.join(map(str, found))}")
    arrays["pose_dirs"] = arrays["pose_dirs"].reshape(-1, 36).T
    template = arrays["template"].astype(np.float64)
    eyes = (arrays["joint_regressor"] @ template)[[LEFT_EYE_JOINT, RIGHT_EYE_JOINT]]
    sets = vertex_sets(template, eyes)
    arrays |= {f"set_{name}": indices for name, indices in sets.items()}
    left = [np.array(edge) for edge in (UPPER_LID, LOWER_LID)]
    right = [_mirror(template, edge) for edge in (UPPER_LID, LOWER_LID)]
    arrays["eyelid_dirs"] = np.stack([_close_lid(template, eyes[0], *left), _close_lid(template, eyes[1], *right)], -1)
    arrays["vertex_colors"], arrays["vertex_gloss"] = _paint(template, sets)
    return arrays, basis


def _read(path: Path) -> dict:
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as archive:
                return {key: archive[key] for key in archive.files}
        except FileNotFoundError:
            raise UserError(f"no head file at {path}") from None
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"expected an .npz without pickled objects, cannot read {path}: {error}") from None
    if path.suffix not in (".pkl", ".pickle"):
        raise UserError(f"expected a head as .pkl or .npz, found {path}")
    content = load_arrays(path)
    if not isinstance(content, dict):
        raise UserError(f"expected a FLAME model (a dict of arrays) in {path}, found a {type(content).__name__}")
    return {key: value for key, value in content.items() if isinstance(key, str)}


def _directions(content: dict, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Identity and expression directions, (V, 3, S) and (V, 3, E)."""
    if "shapedirs" in content:
        directions = np.asarray(content["shapedirs"])
        columns = directions.shape[-1]
        if directions.ndim != 3 or columns not in _IDENTITY_COLUMNS:
            raise UserError(f"expected shapedirs of shape ({VERTICES}, 3, 400) or ({VERTICES}, 3, 150) in {path}, "
                            f"found {directions.shape}: which of its columns are expressions is not known")
        identity = _IDENTITY_COLUMNS[columns]
        return directions[..., :identity], directions[..., identity:]
    partial = [key for key in content if key.startswith("shapedirs_identity")]
    if len(partial) != 1:
        raise UserError(f"expected the key 'shapedirs' in {path}, found {', '.join(sorted(content)[:20])}")
    directions = np.asarray(content[partial[0]])
    return directions, directions[..., :0]


def _parents(content: dict, path: Path) -> np.ndarray:
    if "parents" in content:
        parents = np.array(content["parents"], np.int64)
    elif "kintree_table" in content:
        parents = np.array(content["kintree_table"])[0].astype(np.int64)
    else:
        raise UserError(f"expected the key 'kintree_table' in {path}, found {', '.join(sorted(content)[:20])}")
    # the root's parent is stored as 2^32 - 1
    parents[:1] = -1
    return parents


# --------------------------------------------------------------------------------------------------------- regions


def vertex_sets(template: np.ndarray, eyes: np.ndarray) -> dict[str, np.ndarray]:
    """Vertex indices by region, from the places of the template's eyes (left, right) and lips. (5023, 3), (2, 3)

    Approximate: boxes and distances in units of the head itself.
    """
    x, y, z = template.T
    eye_y = eyes[:, 1].mean()
    half = (eyes[0, 0] - eyes[1, 0]) / 2  # half the distance between the eyes
    upper, lower = template[list(INNER_LIP_UPPER)], template[list(INNER_LIP_LOWER)]
    mouth = (upper[5] + lower[5]) / 2
    eyeball = np.zeros(len(template), bool)
    eyeball[LEFT_EYE] = eyeball[RIGHT_EYE] = True
    across = np.abs(x - eyes[:, 0].mean())
    # the lips' outline bends back with the face: wide and flat, and no deeper than the inner lips' corners
    lip = ((across / (1.0 * half)) ** 2 + ((y - mouth[1] + 0.002) / 0.0145) ** 2 < 1) & (z > mouth[2] - 0.014)
    near_eye = np.min([np.linalg.norm(template - eye, axis=1) for eye in eyes], 0)
    front = z > eyes[:, 2].mean() - 0.005
    eyelid = ~eyeball & (near_eye < 0.0185) & front
    brow_y = eye_y + 0.019 + 0.004 * np.sin(np.clip((across - 0.3 * half) / (1.4 * half), 0, 1) * np.pi)
    brow = front & (np.abs(y - brow_y) < 0.0055) & (across > 0.3 * half) & (across < 1.75 * half) & (near_eye > 0.0185)
    cheek = front & ~eyelid & (y < eye_y - 0.016) & (y > mouth[1] - 0.004) & (np.abs(across / half - 1.475) < 0.525)
    # the face in front of the ears, from the hairline to below the chin
    face = ~eyeball & (y < eye_y + 0.055) & (y > mouth[1] - 0.052) & (z > eyes[:, 2].mean() - 0.045 + 0.25 * across)
    found = {"lips": lip, "brows": brow, "eyelids": eyelid, "cheeks": cheek & ~lip, "face": face}
    sets = {name: np.flatnonzero(mask) for name, mask in found.items()}
    sets["left_eye"] = np.arange(LEFT_EYE.start, LEFT_EYE.stop)
    sets["right_eye"] = np.arange(RIGHT_EYE.start, RIGHT_EYE.stop)
    sets["inner_lip_upper"], sets["inner_lip_lower"] = np.array(INNER_LIP_UPPER), np.array(INNER_LIP_LOWER)
    return sets


def _close_lid(template: np.ndarray, eye: np.ndarray, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Displacements (V, 3) that bring the upper lid down to the lower one, around the eye's joint (3,).

    upper, lower: vertices along the lids' edges, from corner to corner. In polar coordinates about the horizontal axis
    through the eye, skin above the opening turns down by what closes it, less and less towards the fold under the brow;
    the lower lid rises a little. Along an arc the lid would stay clear of the eyeball, but a direction is a chord: so
    the lid also comes forward, by as much as the chord's middle would sink in.
    """
    skin = np.arange(len(template)) < LEFT_EYE.start
    x, y, z = (template - eye).T
    radius, elevation = np.hypot(y, z), np.arctan2(y, z)
    distance = np.linalg.norm(template - eye, axis=1)
    high, low = (_edge(x, elevation, edge) for edge in (upper, lower))
    closed = 0.12 * high + 0.88 * low  # where the lids meet
    width = np.clip(high - low, 0, None)
    above = np.clip((elevation - high) / np.radians(30), 0, 1)
    below = np.clip((low - elevation) / np.radians(25), 0, 1)
    is_upper = elevation > (high + low) / 2
    fade = 1 - np.where(is_upper, above, below)
    fade = fade * fade * (3 - 2 * fade) * np.clip((0.0225 - distance) / 0.005, 0, 1) * (skin & (z > 0) & (width > 0))
    turn = np.where(is_upper, closed - high, closed - low) * fade
    further = radius + 1.3 * radius * (1 - np.cos(turn / 2))
    after = np.stack([np.zeros_like(x), further * np.sin(elevation + turn), further * np.cos(elevation + turn)], -1)
    before = np.stack([np.zeros_like(x), y, z], -1)
    return np.where((fade > 0)[:, None], after - before, 0.0)


def _edge(x: np.ndarray, elevation: np.ndarray, edge: np.ndarray) -> np.ndarray:
    """Elevation of a lid's edge at every x, by linear interpolation along its vertices."""
    order = edge[np.argsort(x[edge])]
    return np.interp(x, x[order], elevation[order])


def _mirror(template: np.ndarray, indices: tuple[int, ...]) -> np.ndarray:
    """The vertices nearest to the mirror images of some: FLAME's template is symmetric to a millimetre or two."""
    image = template[list(indices)] * np.array([-1.0, 1.0, 1.0])
    skin = template[: LEFT_EYE.start]
    return np.linalg.norm(image[:, None] - skin, axis=-1).argmin(1)


def _paint(template: np.ndarray, sets: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Linear albedo (V, 3) and gloss (V,)."""
    colours, gloss = np.tile(SKIN, (len(template), 1)), np.full(len(template), 0.3)
    colours[sets["brows"]] = BROW
    colours[sets["lips"]] = LIP
    for name in ("left_eye", "right_eye"):
        ball = template[sets[name]]
        centre = (ball.max(0) + ball.min(0)) / 2
        # ten degrees of pupil, twenty-seven of iris
        forward = (ball - centre) @ (0, 0, 1) / np.linalg.norm(ball - centre, axis=1)
        tint = np.where(forward[:, None] > np.cos(np.radians(27)), IRIS, SCLERA)
        colours[sets[name]] = np.where(forward[:, None] > np.cos(np.radians(10)), PUPIL, tint)
        gloss[sets[name]] = 0.9
    return colours, gloss
