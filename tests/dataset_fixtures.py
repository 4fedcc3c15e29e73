"""Small datasets in their published forms: widths, rates and key names as the sources have them, written out here.

One made-up conversation after another: voices are buzzes in syllables, mouths open with them.
"""

from __future__ import annotations

import io
import json
import struct
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
import numpy as np


def video(path: Path, seconds: float, fps: float) -> None:
    """Grey pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_video(seconds, fps))


@lru_cache
def _video(seconds: float, fps: float) -> bytes:
    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=Fraction(fps).limit_denominator(1001))
        stream.width = stream.height = 32
        for _ in range(round(seconds * fps)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), 128, np.uint8))))
        container.mux(stream.encode())
    return sink.getvalue()


Turns = list[tuple[int, float, float]]
DIALOGUE: Turns = [(0, 0.4, 4.0), (1, 4.3, 8.2), (0, 8.5, 12.6), (1, 12.7, 16.4)]
MONOLOGUE: Turns = [(0, 0.2, 6.0), (0, 6.6, 11.8), (0, 12.4, 15.9)]


@dataclass
class Talk:
    """A conversation: who speaks when, and everything else about it from the seed."""

    seed: int
    seconds: float = 17.0
    turns: Turns = None

    def __post_init__(self):
        self.turns = DIALOGUE if self.turns is None else self.turns

    def envelope(self, side: int, times: np.ndarray) -> np.ndarray:
        """Loudness of a side, 0..1, in syllables of irregular length."""
        rng = np.random.default_rng([self.seed, side])
        phase = np.cumsum(rng.uniform(0.6, 1.4, int(self.seconds * 8) + 8))
        coarse = np.arange(0, self.seconds + 0.02, 0.01)
        beats = 0.5 - 0.5 * np.cos(2 * np.pi * np.interp(coarse * 4.5, np.arange(len(phase)), phase))
        syllables = np.interp(times, coarse, beats)
        knots = np.arange(0, self.seconds + 2, 0.7)
        stress = np.interp(times, knots, rng.uniform(0.3, 1, len(knots)))
        active = np.zeros_like(times)
        for who, start, end in self.turns:
            if who == side:
                active = np.maximum(active, np.clip(np.minimum(times - start, end - times) / 0.05, 0, 1))
        return active * stress * (0.15 + 0.85 * syllables)

    def waveform(self, side: int, rate: int = 16000, bleed_db: float | None = None) -> np.ndarray:
        times = np.arange(round(self.seconds * rate)) / rate
        rng = np.random.default_rng([self.seed, side, 7])
        pitch = 110 + 90 * side
        cycle = sum(np.sin(2 * np.pi * k * np.arange(1024) / 1024) / k for k in range(1, 9))
        buzz = cycle[(pitch * times * 1024).astype(int) % 1024]
        wave = 0.15 * self.envelope(side, times) * buzz + 0.0004 * rng.normal(size=len(times))
        if bleed_db is not None:
            wave = wave + 10 ** (bleed_db / 20) * self.waveform(1 - side, rate)
        return wave.astype(np.float32)

    def frames(self, fps: float) -> np.ndarray:
        return np.arange(round(self.seconds * fps)) / fps

    def jaw(self, side: int, fps: float) -> np.ndarray:  # (T,)
        rng = np.random.default_rng([self.seed, side, 8])
        opening = self.envelope(side, self.frames(fps))
        return (0.02 + 0.15 * opening + 0.01 * rng.normal(size=len(opening))).astype(np.float32)

    def smooth(self, side: int, fps: float, width: int, scale: float, salt: int = 0) -> np.ndarray:  # (T, width)
        rng = np.random.default_rng([self.seed, side, 9, salt])
        knots = np.arange(0, self.seconds + 1, 0.5)
        values = rng.normal(size=(len(knots), width))
        return np.stack([np.interp(self.frames(fps), knots, v) for v in values.T], 1).astype(np.float32) * scale

    def pose(self, side: int, fps: float, rest: tuple[float, float, float] = (0.1, -0.2, 0.03)) -> np.ndarray:  # (T, 6)
        head = self.smooth(side, fps, 3, 0.05, 1) + np.array(rest, np.float32)
        jaw = np.zeros_like(head)
        jaw[:, 0] = self.jaw(side, fps)
        return np.concatenate([head, jaw], 1).astype(np.float32)


def float_wav(path: Path, wave: np.ndarray, rate: int) -> None:
    """WAV of 32-bit floats, mono, as DualTalk's are."""
    data = wave.astype("<f4").tobytes()
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 3, 1, rate, 4 * rate, 4, 32)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + struct.pack("<4sI", b"data", len(data)) + data)


def pcm_wav(path: Path, wave: np.ndarray, rate: int, channels: int = 1) -> None:
    data = np.repeat(np.clip(wave * 32768, -32768, 32767).astype("<i2"), channels).tobytes()
    size = 2 * channels
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", 16, 1, channels, rate, size * rate,
                       size, 16)  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + struct.pack("<4sI", b"data", len(data)) + data)


# -------------------------------------------------------------------------------------------------------- the datasets


def dualtalk_side(folder: Path, stem: str, talk: Talk, face: int, voice: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    frames = len(talk.frames(25))
    rng = np.random.default_rng([talk.seed, face, 3])
    shape = rng.normal(size=100) + 0.1 * rng.normal(size=(frames, 100))
    np.savez(
        folder / f"{stem}.npz", shape=shape.astype(np.float32), tex=np.zeros((frames, 50), np.float32),
        exp=talk.smooth(face, 25, 50, 0.5), pose=talk.pose(face, 25), cam=np.ones((frames, 3), np.float32),
        light=np.zeros((frames, 9, 3), np.float32),
    )  # fmt: skip
    float_wav(folder / f"{stem}.wav", talk.waveform(voice, 16000), 16000)


def dualtalk(root: Path, train: int = 6, test: int = 1, ood: int = 1, swap: tuple[int, ...] = ()) -> Path:
    """Clips named as DualTalk names them; `swap`: numbers of training clips whose voices are exchanged."""
    number = 0
    for split, count in (("train", train), ("test", test), ("ood", ood)):
        for index in range(count):
            stem = f"Vid{split}_{index // 2}x-Y_sub_video_{index}" + ("_000" if index % 3 == 2 else "")
            for face in (0, 1):
                voice = 1 - face if split == "train" and index in swap else face
                dualtalk_side(root / split, f"{stem}_speaker{face + 1}", Talk(100 + number), face, voice)
            number += 1
    return root


def unilstalk(root: Path, pairs: dict[str, int] | None = None) -> Path:
    import lmdb

    folder = root / "SeamlessInteractionTalk"
    (folder / "data_lmdb").mkdir(parents=True)
    listing: dict[str, dict] = {}
    environment = lmdb.open(str(folder / "data_lmdb"), map_size=1 << 27)
    with environment.begin(write=True) as transaction:
        number = 0
        for split, count in (pairs or {"train": 3, "val": 1, "test": 1}).items():
            listing[split] = {}
            for index in range(count):
                talk = Talk(200 + number)
                frames = len(talk.frames(25))
                keys = [f"V00_S{number:04d}_I{index:08d}_P{2 * number + side:04d}" for side in (0, 1)]
                for side, key in enumerate(keys):
                    pose = talk.pose(side, 25, rest=(0, 0, 0))
                    eyes = talk.smooth(side, 25, 6, 0.08, 2)
                    code = np.concatenate([talk.smooth(side, 25, 100, 0.5), pose[:, :3], pose[:, 3:], eyes], 1)
                    mask = np.zeros(frames, np.float32)
                    for who, start, end in talk.turns:
                        if who == side:
                            mask[round(start * 25) : round(end * 25)] = 1
                    buffer = io.BytesIO()
                    np.savez(buffer, audio=talk.waveform(side), motioncode=code.astype(np.float32), speech_mask=mask)
                    transaction.put(key.encode(), buffer.getvalue())
                listing[split][f"pair{index}"] = [f"some/where/{keys[0]}", f"some/where/{keys[1]}", frames]
                number += 1
    environment.close()
    (folder / "seamless_interaction_pairs.json").write_text(json.dumps(listing))
    return root


def learning2listen(root: Path, hosts: tuple[str, ...] = ("conan", "fallon", "trevor"), windows: int = 6) -> Path:
    """Windows of 64 frames, every second one overlapping the one before by half."""
    for number, host in enumerate(hosts):
        right = host == "fallon"
        for split in ("train", "test"):
            talk = Talk(300 + 2 * number + (split == "test"), seconds=40.0, turns=[(1, 0.3, 39.0)])
            tracks = []
            for side in (0, 1):
                pose = talk.pose(side, 30)
                detail = np.zeros((len(pose), 128), np.float32)
                tracks.append(np.concatenate([talk.smooth(side, 30, 50, 0.5), pose, detail], 1))
            starts = [100 + 64 * (w // 2) + 32 * (w % 2) for w in range(windows)]
            faces = [np.stack([track[s : s + 64] for s in starts]) for track in tracks]
            names = np.array([[[f"{host}_videos/{split}7.mp4", "0", str(s + k)] for k in range(64)] for s in starts])
            mel = np.zeros((windows, 256, 128), np.float32)
            listener, speaker = ("p1", "p0") if right else ("p0", "p1")
            folder = root / "data" / host / split
            folder.mkdir(parents=True)
            np.save(folder / f"{listener}_list_faces_clean_deca.npy", faces[0])
            np.save(folder / f"{speaker}_speak_faces_clean_deca.npy", faces[1])
            np.save(folder / f"{speaker}_speak_audio_clean_deca.npy", mel)
            np.save(folder / f"{speaker}_speak_files_clean_deca.npy", names)
    return root


def lm_segments(count: int, host: str, seed: int = 400) -> list[dict]:
    segments = []
    for number in range(count):
        talk = Talk(seed + number, seconds=7.0, turns=[(1, 0.2, 6.8)])
        first = 900 + 300 * number
        during = [{"text": w, "end": first / 30 + 1.0 + k} for k, w in enumerate(("you", "know"))]
        segment = {"fname": f"{host}/done/{number:03d}.mp4", "split_start_frame": first,
                   "split_end_frame": first + 210, "before_words": [{"text": "well", "end": first / 30 - 0.5}],
                   "during_words": during}  # fmt: skip
        for who, side in (("p0", 0), ("p1", 1)):
            segment[f"{who}_exp"] = talk.smooth(side, 30, 50, 0.5)
            segment[f"{who}_pose"] = talk.pose(side, 30)
            segment[f"{who}_shape"] = talk.smooth(side, 30, 100, 0.1, 5)
        segments.append(segment)
    return segments


def beat2(root: Path, people: tuple[str, ...] = ("1_wayne", "2_scott", "4_lawrence", "6_carla")) -> Path:
    for number, person in enumerate(people):
        talk = Talk(500 + number, seconds=16.0, turns=MONOLOGUE)
        frames = len(talk.frames(30))
        poses = np.zeros((frames, 165), np.float32)
        poses[:, 36:39], poses[:, 45:48] = talk.smooth(0, 30, 3, 0.03, 1), talk.smooth(0, 30, 3, 0.03, 2)
        poses[:, 66] = talk.jaw(0, 30)
        stem = f"{person}_0_{number}_{number}"
        (root / "smplxflame_30").mkdir(parents=True, exist_ok=True)
        np.savez(
            root / "smplxflame_30" / f"{stem}.npz", betas=np.zeros(300), poses=poses, trans=np.zeros((frames, 3)),
            expressions=talk.smooth(0, 30, 100, 0.5), jaw_pose=poses[:, 66:69], model="smplx2020", gender="neutral",
            mocap_frame_rate=30,
        )  # fmt: skip
        pcm_wav(root / "wave16k" / f"{stem}.wav", talk.waveform(0), 16000)
    return root


ARKIT_52 = [
    "eyeBlinkLeft", "eyeLookDownLeft", "eyeLookInLeft", "eyeLookOutLeft", "eyeLookUpLeft", "eyeSquintLeft",
    "eyeWideLeft", "eyeBlinkRight", "eyeLookDownRight", "eyeLookInRight", "eyeLookOutRight", "eyeLookUpRight",
    "eyeSquintRight", "eyeWideRight", "jawForward", "jawRight", "jawLeft", "jawOpen", "mouthClose", "mouthFunnel",
    "mouthPucker", "mouthRight", "mouthLeft", "mouthSmileLeft", "mouthSmileRight", "mouthFrownLeft",
    "mouthFrownRight", "mouthDimpleLeft", "mouthDimpleRight", "mouthStretchLeft", "mouthStretchRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthPressLeft", "mouthPressRight",
    "mouthLowerDownLeft", "mouthLowerDownRight", "mouthUpperUpLeft", "mouthUpperUpRight", "browDownLeft",
    "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff", "cheekSquintLeft",
    "cheekSquintRight", "noseSneerLeft", "noseSneerRight", "tongueOut",
]  # fmt: skip
ANGLES_9 = [
    "HeadYaw", "HeadPitch", "HeadRoll", "LeftEyeYaw", "LeftEyePitch", "LeftEyeRoll", "RightEyeYaw", "RightEyePitch",
    "RightEyeRoll",
]  # fmt: skip


def livelink(path: Path, talk: Talk, fps: int = 60, lower: bool = False, drop: slice | None = None) -> Path:
    """One recording; `drop`: frames that the phone lost."""
    frames = len(talk.frames(fps))
    columns = dict.fromkeys([*ARKIT_52, *ANGLES_9], np.zeros(frames))
    columns["jawOpen"] = np.clip(talk.jaw(0, fps) * 2, 0, 1)
    columns["mouthSmileLeft"] = 0.3 + 0.2 * np.sin(talk.frames(fps))
    gaze = talk.smooth(0, fps, 2, 0.15, 4)  # to the left and down, in eyeLook units
    for side, sign in (("Left", 1), ("Right", -1)):
        columns[f"eyeLookOut{side}"] = np.clip(sign * gaze[:, 0], 0, 1)
        columns[f"eyeLookIn{side}"] = np.clip(-sign * gaze[:, 0], 0, 1)
        columns[f"eyeLookDown{side}"] = np.clip(gaze[:, 1], 0, 1)
        columns[f"eyeLookUp{side}"] = np.clip(-gaze[:, 1], 0, 1)
        # the app writes the angles of the mirror image
        columns[f"{side}EyeYaw"], columns[f"{side}EyePitch"] = -0.61 * gaze[:, 0], 0.61 * gaze[:, 1]
    head = talk.smooth(0, fps, 3, 0.05, 6)
    columns["HeadYaw"], columns["HeadPitch"], columns["HeadRoll"] = head.T
    names = [n if lower or n in ANGLES_9 else n[0].upper() + n[1:] for n in columns]
    lines = ["Timecode,BlendshapeCount," + ",".join(names)]
    start = 11 * 3600 + 54 * 60 + 29
    lost = range(frames)[drop] if drop else ()
    for k in range(frames):
        second, frame = divmod(k + 19, fps)
        whole = start + second
        code = f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}:{frame:02d}.804"
        if k not in lost:
            lines.append(f"{code},61," + ",".join(f"{columns[n][k]:.10f}" for n in columns))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    pcm_wav(path.with_suffix(".wav"), talk.waveform(0), 16000)
    return path


def react(root: Path, sessions: int = 2) -> Path:
    for split in ("train", "val"):
        for number in range(sessions):
            talk = Talk(600 + number + 10 * (split == "val"))
            for side, role in enumerate(("Expert_video", "Novice_video")):
                place = f"NoXI/{number:03d}_2016-03-17_Paris/{role}/1"
                frames = len(talk.frames(25)) + 1  # 751 for 30 s
                angles = np.concatenate([talk.smooth(side, 25, 3, 0.1), np.zeros((1, 3))])
                coefficients = np.concatenate([np.full((frames, 52), 0.1), angles, np.full((frames, 3), 0.5)], 1)
                path = root / split / "3D_FV_files" / f"{place}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, coefficients[:, None].astype(np.float32))
                np.save(path.with_name("1_full.npy"), coefficients.astype(np.float32))
                pcm_wav(root / split / "Audio_files" / f"{place}.wav", talk.waveform(side, 44100), 44100, channels=2)
                video = root / split / "Video_files" / f"{place}.mp4"
                video.parent.mkdir(parents=True, exist_ok=True)
                video.write_bytes(b"a video")
    return root


def vico(root: Path, count: int = 4) -> Path:
    rows = ["uuid,speaker_id,listener_id,data_split"]
    for number in range(count):
        name, talk = f"u{number:03d}", Talk(700 + number, seconds=6.0, turns=[(0, 0.2, 5.8)])
        rows.append(f"{name},s{number},l{number},{'test' if number == 0 else 'train'}")
        pcm_wav(root / "audios" / f"{name}.wav", talk.waveform(0, 44100), 44100)
        for who in ("speaker", "listener"):
            video(root / "videos" / f"{name}.{who}.mp4", talk.seconds, 30)
    (root / "RLD_data.csv").write_text("\n".join(rows) + "\n")
    return root


def seamless(root: Path, count: int = 4) -> Path:
    for number in range(count):
        split = ("train", "train", "dev", "test")[number % 4]
        talk = Talk(800 + number)
        for side in (0, 1):
            stem = root / "naturalistic" / split / f"V00_S{number:04d}_I00000129_P{2 * number + side:04d}"
            pcm_wav(stem.with_suffix(".wav"), talk.waveform(side, 48000, bleed_db=-20.0), 48000)
            mine = [(start, end) for who, start, end in talk.turns if who == side]
            content = {
                "id": stem.name, "metadata:vad": [{"start": a, "end": b} for a, b in mine],
                "metadata:transcript": [
                    {"start": a, "end": b, "transcript": "right so", "words": [
                        {"word": "right", "start": a + 0.2, "end": a + 0.6, "score": 0.9},
                        {"word": "so", "start": a + 1.0, "end": a + 1.3, "score": None},
                    ]} for a, b in mine
                ],
            }  # fmt: skip
            stem.with_suffix(".json").write_text(json.dumps(content))
            video(stem.with_suffix(".mp4"), talk.seconds, 30)
    return root
