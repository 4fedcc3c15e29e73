"""The renderer: geometry and light that can be worked out by hand."""

import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from diffdyad.render import Camera, Light, Renderer, Studio, neck_fade, render_frames, render_panels
from diffdyad.render.mesh import RowSums, loop_subdivision, vertex_normals
from diffdyad.render.workers import FEW

FLAME = Path(__file__).parents[2] / "shared" / "data" / "flame2023_open_partial" / "flame2023_open_partial.npz"


def sphere(radius=0.1, rings=24, segments=48):
    polar = np.linspace(0, math.pi, rings + 1)[1:-1, None]
    around = np.arange(segments) / segments * 2 * math.pi
    ring = np.stack([np.sin(polar) * np.sin(around), np.cos(polar) + 0 * around, np.sin(polar) * np.cos(around)], -1)
    vertices = radius * np.concatenate([ring.reshape(-1, 3), [[0, 1, 0], [0, -1, 0]]])
    top, bottom = len(vertices) - 2, len(vertices) - 1
    index = np.arange((rings - 1) * segments).reshape(rings - 1, segments)
    following = np.roll(index, -1, axis=1)
    quads = [index[:-1], index[1:], following[:-1]], [following[:-1], index[1:], following[1:]]
    faces = np.concatenate(
        [np.stack(q, -1).reshape(-1, 3) for q in quads]
        + [
            np.stack([np.full(segments, top), index[0], following[0]], -1),
            np.stack([index[-1], np.full(segments, bottom), following[-1]], -1),
        ]
    )
    return vertices, faces


def ball(size=(128, 128), studio=None, radius=0.1, height=0.3, color=0.5, gloss=0.0, **options):
    vertices, faces = sphere(radius)
    camera = Camera(eye=(0.0, 0.0, 2.0), target=(0.0, 0.0, 0.0), height=height)
    colors, shine = np.full((len(vertices), 3), color), np.full(len(vertices), gloss)
    return vertices, Renderer(faces, colors, shine, size, camera, studio=studio, **options)


def silhouette(renderer, vertices):
    """Coverage of each pixel, measured with a black backdrop and a white glow of the surface."""
    return renderer.render(vertices).astype(float).mean(-1) / 255


BLACK = ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
GLOW = Studio(lights=(Light((0, 0, 1), (0, 0, 0)),), sky=(99.0,) * 3, ground=(99.0,) * 3, backdrop=BLACK)


def test_sphere_covers_the_area_that_perspective_gives():
    vertices, renderer = ball((256, 256), GLOW, subdivisions=0)
    level = silhouette(renderer, vertices)
    # From distance d a sphere's rim is seen under asin(r / d); edge pixels are stored in sRGB.
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    rim = 2.0 * math.tan(math.asin(0.1 / 2.0)) / 0.3 * 256
    assert linear.sum() == pytest.approx(math.pi * rim**2, rel=0.01)
    rows, columns = np.nonzero(level > 0.5)
    assert rows.mean() == pytest.approx(127.5, abs=0.3)
    assert columns.mean() == pytest.approx(127.5, abs=0.3)


def test_edges_are_smooth():
    vertices, renderer = ball((256, 256), GLOW)
    level = silhouette(renderer, vertices)
    between = ((level > 0.1) & (level < 0.9)).sum()
    circumference = 2 * math.pi * 0.1 / 0.3 * 256
    assert 0.5 * circumference < between < 2.5 * circumference


def test_light_on_the_lens_is_brightest_in_the_middle_and_falls_with_the_cosine():
    light = Light((0, 0, 1), (0.5,) * 3, spread_deg=0.5)
    dark = Studio(lights=(light,), sky=(0.0,) * 3, ground=(0.0,) * 3, backdrop=BLACK, exposure=1.0)
    vertices, renderer = ball((257, 257), dark, color=0.3, subdivisions=0)
    image = renderer.render(vertices).astype(int)[..., 1]
    row = image[128]
    assert row[128] >= row.max() - 1
    radius = 0.1 / 0.3 * 257
    at = lambda share: row[128 + round(share * radius)]  # noqa: E731
    assert at(0) > at(0.5) + 3 > at(0.8) + 13 > at(0.95) + 23


def test_a_symmetric_head_under_frontal_light_mirrors():
    vertices, renderer = ball((96, 96), Studio.frontal(), gloss=0.5)
    image = renderer.render(vertices).astype(int)
    difference = np.abs(image - image[:, ::-1])
    assert difference.mean() < 0.6
    assert np.quantile(difference, 0.99) <= 8


def test_the_key_light_comes_from_the_pictures_left_and_above():
    vertices, renderer = ball((96, 96), gloss=0.2)
    image = renderer.render(vertices).astype(float).mean(-1)
    middle = slice(36, 60)
    assert image[middle, 22:40].mean() > image[middle, 56:74].mean() + 10
    assert image[22:40, middle].mean() > image[56:74, middle].mean() + 10


def test_glossy_surfaces_have_a_highlight_and_dull_ones_do_not():
    vertices, dull = ball((128, 128), color=0.05)
    _, shiny = ball((128, 128), color=0.05, gloss=1.0)
    assert shiny.render(vertices)[40:88, 40:88].max() > dull.render(vertices)[40:88, 40:88].max() + 80


def test_a_shadow_falls_behind_and_creases_are_dark():
    big, faces = sphere(0.1)
    small = sphere(0.03)[0]
    # A small ball between the big one and the key light, which is up and to the camera's left.
    towards = np.array([-0.56, 0.48, 0.80]) / np.linalg.norm([-0.56, 0.48, 0.80])
    camera = Camera(eye=(0.0, 0.0, 2.0), target=(0.0, 0.0, 0.0), height=0.5)
    vertices = np.concatenate([big, small + 0.2 * towards])
    both = np.concatenate([faces, faces + len(big)])
    renderer = Renderer(both, np.full((len(vertices), 3), 0.5), np.zeros(len(vertices)), (128, 128), camera)
    far = np.concatenate([big, small + np.array([0.0, 0.0, -5.0])])
    # Of the big ball the lower right half is in neither ball's way: it must stay as it is.
    shaded, free = (renderer.render(v).astype(int) for v in (vertices, far))
    target = camera.project((0.1 * towards)[None], (128, 128))[0].round().astype(int)
    column, row = target[0] + 4, target[1] + 3
    assert free[row, column].mean() > shaded[row, column].mean() + 25
    assert np.abs(free[78:84, 72:80] - shaded[78:84, 72:80]).max() <= 2


def test_same_vertices_same_bytes_and_nothing_is_left_behind_by_other_frames():
    vertices, renderer = ball()
    first = renderer.render(vertices)
    renderer.render(vertices + np.array([0.05, 0.0, 0.0]))
    again = renderer.render(vertices.astype(np.float32))
    assert first.tobytes() == again.tobytes()
    assert first.dtype == np.uint8 and first.shape == (128, 128, 3)
    assert ball()[1].render(vertices).tobytes() == first.tobytes()


def test_out_of_view_is_the_backdrop():
    vertices, renderer = ball((64, 48))
    empty = renderer.render(vertices + np.array([9.0, 0.0, 0.0]))
    assert empty.shape == (48, 64, 3)
    partly = renderer.render(vertices + np.array([0.15, 0.0, 0.0]))
    assert (partly[:, :20] == empty[:, :20]).all() and (partly != empty).any()


def test_fade_dissolves_into_the_backdrop():
    vertices, renderer = ball(fade=np.zeros(len(sphere()[0])))
    empty = renderer.render(vertices + np.array([9.0, 0.0, 0.0]))
    assert np.abs(renderer.render(vertices).astype(int) - empty).max() <= 1
    fade = neck_fade(vertices)
    assert fade.min() == 0 and fade.max() == 1


def test_wrong_shapes_are_refused():
    vertices, renderer = ball()
    with pytest.raises(ValueError, match=rf"expected vertices \({len(vertices)}, 3\), got \(7, 3\)"):
        renderer.render(np.zeros((7, 3)))
    with pytest.raises(ValueError, match="camera"):
        Renderer(sphere()[1], np.zeros((len(vertices), 3)), np.zeros(len(vertices)))


def test_camera_projects_where_its_rays_go():
    camera = Camera.portrait(sphere()[0] * (1, 1.4, 1), yaw_deg=30)
    size = (80, 60)
    points = np.random.default_rng(0).uniform(-0.1, 0.1, (20, 3)).astype(np.float32)
    columns, rows = camera.project(points, size).T
    rays = camera.directions(columns, rows, size)
    expected = (points - camera.eye) / np.linalg.norm(points - camera.eye, axis=1, keepdims=True)
    assert rays == pytest.approx(expected, abs=1e-5)
    assert camera.eye[0] > 0.3 and camera.eye[2] > 0.5  # yaw > 0: from the character's left


@pytest.mark.parametrize("aspect", [1.0, 0.6, 16 / 9])
def test_portrait_keeps_a_turning_head_in_view(aspect):
    vertices = sphere()[0] * (1, 1.4, 1)
    camera = Camera.portrait(vertices, aspect=aspect)
    size = (round(300 * aspect), 300)
    pivot = np.array([0.0, -0.104, -0.04])
    for axis in range(3):
        for angle in (-0.5, 0.0, 0.5):
            i, j = (axis + 1) % 3, (axis + 2) % 3
            rotation = np.eye(3)
            rotation[[i, j], [i, j]] = math.cos(angle)
            rotation[i, j], rotation[j, i] = -math.sin(angle), math.sin(angle)
            moved = (vertices - pivot) @ rotation.T + pivot
            where = camera.project(moved[vertices[:, 1] > -0.05], size)
            assert where.min() > 0 and (where.max(0) < size).all()


def test_loop_subdivision_keeps_planes_and_borders():
    grid = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), -1).reshape(-1, 2)
    vertices = np.column_stack([grid, 2 * grid[:, 0] - grid[:, 1]]).astype(np.float32)
    corner = np.arange(25).reshape(5, 5)[:-1, :-1].ravel()
    faces = np.concatenate([corner[:, None] + [0, 1, 6], corner[:, None] + [0, 6, 5]])
    fine, matrix = loop_subdivision(faces, 25)
    points = matrix(vertices)
    assert len(fine) == 4 * len(faces) and fine.max() + 1 == len(points)
    assert points[:, 2] == pytest.approx(2 * points[:, 0] - points[:, 1], abs=1e-5)
    assert points[12] == pytest.approx(vertices[12])  # in the middle of a regular grid nothing moves
    assert matrix(np.ones((25, 1), np.float32)) == pytest.approx(1.0)
    (ax, ay), (bx, by) = ((points[fine[:, k]] - points[fine[:, 0]])[:, :2].T for k in (1, 2))
    areas = ax * by - ay * bx
    assert (areas > 0).all() and areas.sum() / 2 == pytest.approx(16, rel=0.02)


def test_loop_subdivision_keeps_a_seam_of_double_vertices_closed():
    upper = np.array([[0, 0, 0], [1, 0.2, 0.1], [2, 0, 0], [0, 1, 0], [1, 1, 0], [2, 1, 0]], np.float32)
    lower = upper * (1, -1, 1) + (0, 0, 0)
    lower[:3] = upper[:3]
    top = np.array([[0, 1, 4], [0, 4, 3], [1, 2, 5], [1, 5, 4]])
    faces = np.concatenate([top, top[:, ::-1] + 6])
    fine, matrix = loop_subdivision(faces, 12)
    points = matrix(np.concatenate([upper, lower]).astype(np.float32))
    used = np.unique(fine)
    # The outer ends are corners of the outline here, so only what lies between them is a seam.
    seam = points[used][(np.abs(points[used][:, 1]) < 0.35) & (np.abs(points[used][:, 0] - 1) < 0.7)]
    assert len(seam) == 6 and len(np.unique(seam.round(5), axis=0)) == 3


def test_normals_point_outwards_on_a_sphere():
    vertices, faces = sphere()
    around = RowSums(len(vertices), faces.reshape(-1), np.arange(faces.size) // 3)
    normals = vertex_normals(vertices.astype(np.float32), faces, around)
    assert (normals * vertices / 0.1).sum(-1).min() > 0.999


def test_frames_are_in_order_and_the_same_from_workers_and_alone():
    vertices, renderer = ball((32, 32))
    count = 3 * FEW + 1
    moved = np.stack([vertices + [0.004 * k - 0.1, 0, 0] for k in range(count)]).astype(np.float32)
    seen = []
    parallel = list(render_frames(renderer, (part for part in np.array_split(moved, 5)), progress=seen.append))
    assert seen == list(range(1, count + 1))
    alone = list(render_frames(renderer, moved, processes=1))
    assert len(parallel) == count
    assert all(a.tobytes() == b.tobytes() for a, b in zip(parallel, alone))
    assert [len(list(render_frames(renderer, lambda n=n: iter(moved[:n])))) for n in (0, 1)] == [0, 1]


def test_panels_belong_to_their_motions():
    vertices, renderer = ball((32, 32))
    left, right = ([vertices + [x + 0.01 * k, 0, 0] for k in range(3)] for x in (-0.08, 0.05))
    rows = list(render_panels(renderer, [left, right]))
    assert len(rows) == 3
    for k, (a, b) in enumerate(rows):
        assert a.tobytes() == renderer.render(left[k]).tobytes()
        assert b.tobytes() == renderer.render(right[k]).tobytes()


def test_long_motions_are_read_as_they_are_needed_and_workers_end(monkeypatch):
    vertices, renderer = ball((16, 16))
    read, started, popen = 0, [], subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(popen(*a, **k)) or started[-1])

    def endless():
        nonlocal read
        while True:
            read += 1
            yield vertices

    frames = render_frames(renderer, endless)
    for _ in range(5):
        next(frames)
    assert read <= 64
    frames.close()
    assert len(started) == 2 and all(process.poll() is not None for process in started)


def test_a_workers_error_reaches_the_caller():
    vertices, renderer = ball((16, 16))
    wrong = [vertices] * FEW * 2 + [vertices[:5]] * 8
    with pytest.raises(ValueError, match=r"got \(5, 3\)"):
        list(render_frames(renderer, wrong))


def test_scripts_without_a_main_guard_work(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import numpy as np
            from diffdyad.render import Camera, Renderer, render_frames
            v = np.array([[0, 0, 0], [.1, 0, 0], [0, .1, 0]])
            r = Renderer([[0, 1, 2]], np.ones((3, 3)), np.ones(3), (8, 8), Camera((0., 0., 1.), (0., 0., 0.), .3))
            print(sum(1 for _ in render_frames(r, np.stack([v] * 40))))
            """
        )
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment, timeout=60)
    assert (done.stdout, done.stderr) == ("40\n", "")


def test_flame_in_the_studio():
    if not FLAME.is_file():
        pytest.skip(f"no FLAME geometry at {FLAME}")
    data = np.load(FLAME)
    template, faces = data["v_template"], data["faces"]
    colors, gloss = np.full((len(template), 3), 0.4), np.full(len(template), 0.2)
    renderer = Renderer(faces, colors, gloss, (128, 128), Camera.portrait(template), fade=neck_fade(template))
    image = renderer.render(template).astype(float)
    empty = renderer.render(template + 9.0).astype(float)
    head = np.abs(image - empty).max(-1) > 12
    assert 0.2 < head.mean() < 0.5
    assert 90 < image[head].mean() < 200  # neither dark nor burnt
    assert (image[head] >= 254).mean() < 0.01
    assert image[45:65, 52:60].mean() > image[45:65, 72:80].mean() - 5  # the key light's side
