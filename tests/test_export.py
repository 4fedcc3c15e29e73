"""What is written is what was given, whole or not at all."""

import errno

import av
import numpy as np
import pytest
from PIL import Image

from diffdyad import export, staging
from diffdyad.export import contact_sheet, join_panels, plot_sweep, save_png, side_by_side, write_video

RATE = 16000


def gradient(k, size=(48, 64)):
    y, x = np.mgrid[: size[0], : size[1]]
    return np.stack([x * 3 % 256, y * 4 % 256, np.full_like(x, 20 + 5 * k % 200)], -1).astype(np.uint8)


def read(path):
    with av.open(str(path)) as container:
        picture, sound = container.streams.video[0], (container.streams.audio or [None])[0]
        frames, samples = [], []
        for frame in container.decode(*[s for s in (picture, sound) if s is not None]):
            if isinstance(frame, av.VideoFrame):
                frames.append(frame.to_ndarray(format="rgb24"))
            else:
                samples.append((frame.pts, frame.to_ndarray()[0]))
        seconds = [float(s.duration * s.time_base) for s in (picture, sound) if s is not None]
        return frames, samples, picture.average_rate, seconds


@pytest.mark.parametrize("fps", [25, 30, 29.97])
def test_frames_rate_and_sound_come_back(tmp_path, fps):
    frames = [gradient(k) for k in range(30)]
    click = np.zeros(RATE * 3, np.float32)
    click[8000:8080] = 0.8
    assert write_video(tmp_path / "a.mp4", iter(frames), fps, click, RATE) == 30
    back, samples, rate, seconds = read(tmp_path / "a.mp4")
    assert len(back) == 30 and float(rate) == pytest.approx(fps, rel=1e-4)
    assert seconds == pytest.approx([30 / fps] * 2, abs=1.1 / RATE)
    assert max(np.abs(a.astype(int) - b).mean() for a, b in zip(frames, back)) < 8
    start = samples[0][0]
    loud = np.flatnonzero(np.abs(np.concatenate([s for _, s in samples])) > 0.4)
    assert loud[0] + start == pytest.approx(8000, abs=64)  # sound stays where it was


def test_colours_survive(tmp_path):
    color = np.array([196, 120, 64], np.uint8)
    write_video(tmp_path / "a.mp4", [np.tile(color, (64, 64, 1))] * 3, 25)
    back, _, _, _ = read(tmp_path / "a.mp4")
    assert np.abs(back[1].mean((0, 1)) - color).max() < 4  # BT.601 read as BT.709 would be 8 off


def test_short_sound_is_padded_and_silence_allowed(tmp_path):
    frames = [gradient(k) for k in range(25)]
    write_video(tmp_path / "short.mp4", frames, 25, np.full(1000, 0.1, np.float32), RATE)
    assert read(tmp_path / "short.mp4")[3] == pytest.approx([1.0, 1.0], abs=1e-3)
    write_video(tmp_path / "mute.mp4", frames, 25)
    _, samples, _, seconds = read(tmp_path / "mute.mp4")
    assert samples == [] and seconds == pytest.approx([1.0])


def test_one_frame_and_odd_sizes(tmp_path):
    write_video(tmp_path / "one.mp4", [gradient(0, (33, 47))], 25, np.zeros(9, np.float32), RATE)
    frames, _, _, seconds = read(tmp_path / "one.mp4")
    assert [f.shape for f in frames] == [(34, 48, 3)]
    assert seconds == pytest.approx([0.04, 0.04], abs=1e-3)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "no space left on device"), RuntimeError()]
)
def test_failure_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"before")

    def frames():
        for k in range(40):
            yield gradient(k)
        raise error

    with pytest.raises(type(error)):
        write_video(path, frames(), 25, np.zeros(RATE, np.float32), RATE)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"] and path.read_bytes() == b"before"


def test_a_disk_error_is_an_oserror(tmp_path, monkeypatch):
    with pytest.raises(OSError):
        write_video(tmp_path / "nowhere" / "a.mp4", [gradient(0)], 25)

    def full(*_):
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(staging.os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        save_png(tmp_path / "a.png", gradient(0))
    with pytest.raises(OSError, match="no space"):
        plot_sweep(tmp_path / "a.png", [0, 1], {"a": [0, 1]})
    assert list(tmp_path.iterdir()) == []


def test_wrong_input_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        write_video(tmp_path / "a.mp4", [], 25)
    with pytest.raises(ValueError, match="fps"):
        write_video(tmp_path / "a.mp4", [gradient(0)], float("nan"))
    with pytest.raises(ValueError, match="sampling rate"):
        write_video(tmp_path / "a.mp4", [gradient(0)], 25, np.zeros(10))
    with pytest.raises(ValueError, match=r"expected frames \(48, 64, 3\)"):
        write_video(tmp_path / "a.mp4", [gradient(0), gradient(0, (50, 64))], 25)
    assert list(tmp_path.iterdir()) == []


def test_panels_stand_side_by_side_with_labels():
    frames = [gradient(k, (128, 160)) for k in range(3)]
    wide = list(side_by_side([iter(frames), iter(frames[:2])], ["one", "two"]))
    assert len(wide) == 2 and wide[0].shape == (128, 2 * 160 + export.GAP, 3)
    assert (wide[1][:80, :160] == frames[1][:80]).all() and (wide[1][:80, -160:] == frames[1][:80]).all()
    left, right = wide[0][:, :160], wide[0][:, -160:]
    assert (left != frames[0]).any() and (left != right).any()  # labels, and not the same
    assert (frames[0] == gradient(0, (128, 160))).all()  # the input is not drawn upon


def test_the_speakers_lamp():
    frame = np.zeros((256, 256, 3), np.uint8)
    rows = [(frame, frame)] * 2
    first, second = join_panels(rows, ["a", "a"], [[True, False], lambda k: k == 1])
    assert (first[:, :256] == second[:, -256:]).all() and (first[:, -256:] == second[:, :256]).all()
    warm = lambda image: ((image[..., 0] > 200) & (image[..., 2] < 140)).sum()  # noqa: E731
    assert warm(first[:, :256]) > 4 and warm(first[:, -256:]) == 0


def test_labels_that_do_not_fit_are_cut():
    frame = np.zeros((256, 120, 3), np.uint8)
    (image,) = side_by_side([[frame]], ["a very long label that nobody could fit into this"])
    assert image.shape == frame.shape and image.max() > 150
    with pytest.raises(ValueError, match="1 panels"):
        list(side_by_side([[frame], [frame]], ["only one"]))


def test_contact_sheet_takes_every_nth():
    sheet = contact_sheet((gradient(k) for k in range(21)), every=5, columns=3)
    g = export.GAP
    assert sheet.shape == (2 * 48 + g, 3 * 64 + 2 * g, 3)
    assert (sheet[:48, :64] == gradient(0)).all() and (sheet[48 + g :, 64 + g : 128 + g] == gradient(20)).all()
    small = contact_sheet([gradient(0, (96, 128))] * 3, every=1, columns=9, fps=25, width=64)
    assert small.shape == (48, 3 * 64 + 2 * g, 3)


def test_pictures_are_written(tmp_path):
    save_png(tmp_path / "a.png", gradient(3))
    assert (np.asarray(Image.open(tmp_path / "a.png")) == gradient(3)).all()
    curves = {"distance (mm)": np.random.default_rng(0).random((4, 3)), "smile": [0.1, 0.2, 0.3]}
    plot_sweep(tmp_path / "sweep.png", [0, 1, 2.5], curves, title="a sweep")
    assert np.asarray(Image.open(tmp_path / "sweep.png")).std() > 5
    with pytest.raises(ValueError, match="expected 3 values of 'smile'"):
        plot_sweep(tmp_path / "b.png", [0, 1, 2], {"smile": [0, 1]})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "sweep.png"]
