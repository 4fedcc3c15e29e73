"""Figures of `diffdyad data build` and `turns`, as JSON: who speaks when, speed, memory, what SIGKILL and broken files
do. Needs the extra `data`, and `rehearse` for the voices, unless --rehearsal names a corpus."""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import wave
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch

from diffdyad.data.exchange import Exchange, ExchangeShards
from diffdyad.data.recordings import activity, gate
from diffdyad.data.recordings.frames import levels_db, merge, spans_mask
from diffdyad.data.recordings.hearing import hear
from diffdyad.data.recordings.pcm import Pcm, write_pcm
from diffdyad.data.recordings.rttm import diarization_error, read_rttm
from diffdyad.data.recordings.steps import Steps
from diffdyad.data.rehearsal.acoustics import convolve, room_response
from diffdyad.media import SAMPLING_RATE

PARTS = ("diarization", "edges", "speed", "kills", "broken")
BLEEDS_DB = (None, -20.0, -12.0, -6.0)
CONVERSATION = Path(__file__).resolve().parents[2] / "shared" / "data" / "conversation"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rehearsal", help="folder of a rehearsal corpus (default: one of 0.2 h is made)")
    parser.add_argument("--sessions", type=int, default=10, help="of it, for turn edges (default: %(default)d)")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS, help="which figures (default: all)")
    parser.add_argument("--hours", type=float, nargs="*", default=[1.0, 3.0], help="lengths for speed and memory")
    parser.add_argument("--layouts", nargs="+", default=["channels", "mixed"], help="of these (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=40, help="(default: %(default)d)")
    parser.add_argument("--recordings", type=int, default=100, help="two of which are broken (default: %(default)d)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = Path(arguments.rehearsal) if arguments.rehearsal else folder / "rehearsal"
        if arguments.rehearsal is None:
            from diffdyad.data.rehearsal.corpus import rehearse

            rehearse(corpus, 0.2, 0, 1.0)
        talks = [tracks(exchanges) for exchanges in sessions(corpus, arguments.sessions)]
        found = {}
        if "diarization" in arguments.parts:
            found["diarization_error"] = diarization(folder)
        if "edges" in arguments.parts:
            found["turn_edges"] = edges(talks, folder)
        if "speed" in arguments.parts:
            found["speed"] = [speed(talks, folder, hours, layout)
                              for hours in arguments.hours for layout in arguments.layouts]  # fmt: skip
        if "kills" in arguments.parts:
            found["kills"] = kills(talks, folder / "kills", arguments.kills)
        if "broken" in arguments.parts:
            found["broken"] = broken(talks, folder / "broken", arguments.recordings)
    print(json.dumps(found, indent=1))


# --------------------------------------------------------------------------------------------------- who speaks when


def diarization(folder: Path) -> dict[str, float] | str:
    """Of one microphone; no collar, overlap counted, before pauses are merged."""
    if not CONVERSATION.is_dir():
        return f"skipped: no {CONVERSATION}"
    found = {}
    for name in ("dev01", "trn03"):
        heard = hear([CONVERSATION / f"{name}.wav"], Steps(folder / "steps"))
        speakers = {str(number): spans for number, spans in enumerate(heard.spans)}
        found[name] = round(diarization_error(read_rttm(CONVERSATION / "turns.rttm", name), speakers).total, 4)
    return found


def edges(talks: list[Talk], folder: Path) -> dict[str, float]:
    """Share of 10 ms frames in which a person is wrongly taken to have, or not to have, the turn."""
    found = {}
    for bleed in BLEEDS_DB:
        errors = []
        for seed, talk in enumerate(talks):
            write_wav(folder / "talk.wav", in_rooms(talk, bleed, np.random.default_rng(seed)))
            width = write_pcm(folder / "talk.wav", folder / "talk.pcm").num_channels
            channels = [Pcm(folder / "talk.pcm", number, width) for number in (0, 1)]
            levels = [levels_db(channel.blocks()) for channel in channels]
            speech = [activity.speech_probability("silero", c, level) for c, level in zip(channels, levels)]
            heard = gate.gated(speech, levels)
            for words, spans in zip(talk.words, heard.spans):
                truth = spans_mask(merge(words, 0.5), len(levels[0]))
                errors.append(float((truth != spans_mask(merge(spans, 0.5), len(levels[0]))).mean()))
        found["none" if bleed is None else f"{bleed:g} dB"] = round(float(np.mean(errors)), 4)
    return found


class Talk:
    """Both voices of a session, dry, and when each says a word."""

    def __init__(self, voices: list[np.ndarray], words: list[list[tuple[float, float]]]):
        self.voices, self.words = voices, words


def sessions(corpus: Path, count: int) -> list[list[Exchange]]:
    found: dict[str, list[Exchange]] = defaultdict(list)
    for exchange in ExchangeShards(corpus, "test"):
        found[exchange.session_id].append(exchange)
        if len(found) > count:
            break
    return list(found.values())[:count]


def tracks(exchanges: list[Exchange]) -> Talk:
    """A session put together again from its exchanges."""
    end = max(exchange.session_onset_s + exchange.end_s for exchange in exchanges) + 1
    names = sorted({name for e in exchanges for name in (e.previous_speaker, e.responder_name)})
    voices = {name: np.zeros(round(end * SAMPLING_RATE), np.float32) for name in names}
    words: dict[str, dict[float, tuple[float, float]]] = {name: {} for name in names}
    for e in exchanges:
        begin = round((e.session_onset_s + e.start_s) * SAMPLING_RATE)
        for name, person in ((e.previous_speaker, e.previous), (e.responder_name, e.responder)):
            voices[name][begin : begin + len(person.waveform)] = person.waveform
            for word in person.words:
                start = e.session_onset_s + word.start_s
                words[name][round(start, 2)] = (start, e.session_onset_s + word.end_s)
    return Talk([voices[name] for name in names], [sorted(words[name].values()) for name in names])


def in_rooms(talk: Talk, bleed_db: float | None, rng: np.random.Generator) -> np.ndarray:  # (S, 2)
    """Each voice in its own channel, and the other's through a room, so much quieter."""
    dry = [voice / loudness(voice) * 0.05 for voice in talk.voices]
    channels = []
    for side in (0, 1):
        channel = dry[side]
        if bleed_db is not None:
            room = room_response(float(rng.uniform(0.2, 0.6)), float(rng.uniform(0, 6)), rng)
            other = convolve(dry[1 - side].astype(np.float32), room)
            noise = 0.05 * 10 ** (-45 / 20) * rng.standard_normal(len(other))
            channel = channel + 10 ** (bleed_db / 20) * other / loudness(other) * 0.05 + noise
        channels.append(channel)
    return np.stack(channels, 1)


def loudness(waveform: np.ndarray) -> float:
    """Root mean square where there is speech: within 30 dB of the loudest 10 ms."""
    levels = levels_db([waveform])
    return float(np.sqrt((10 ** (levels[levels > levels.max() - 30] / 10)).mean()))


# ------------------------------------------------------------------------------------------------------ speed, memory


def speed(talks: list[Talk], folder: Path, hours: float, layout: str) -> dict[str, float | str]:
    """A build of so many hours by one process, with the backends that a manifest has unless it names others."""
    path = folder / "long.wav"
    rng = np.random.default_rng(0)
    block = np.concatenate([in_rooms(talk, -8.0, rng) for talk in talks])
    if layout == "mixed":
        block = block.mean(1, keepdims=True)
    write_wav(path, block, round(hours * 3600 * SAMPLING_RATE))
    manifest = folder / "long.yaml"
    manifest.write_text(f"sessions: [{{files: [long.wav], layout: {layout}}}]\n")
    out = folder / f"out-{layout}-{hours:g}"
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    script = ("import resource, sys\nfrom diffdyad.cli import main\n"
              "code = main(['data', 'build', sys.argv[1], '--out', sys.argv[2], '--workers', '1'])\n"
              "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\nsys.exit(code)\n")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script, manifest, out], check=True, capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "layout": layout, "hours": hours, "cpu_s": round(cpu, 1), "wall_s": round(wall, 1),
        "times_real_time_cpu": round(hours * 3600 / cpu, 1), "times_real_time_wall": round(hours * 3600 / wall, 1),
        "memory_gb": round(int(done.stdout.split()[-1]) / 1e6, 3),
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------- kills and broken files


WRITTEN = (".steps/.media-*.partial", ".steps/media-*", ".steps/.activity-*.partial", ".steps/activity-*",
           ".steps/.speech-*.partial", ".steps/speech-*", ".import/.*.partial", ".import/*.parquet", ".import/*.json",
           "*-of-*.parquet", "README.md", "import.json")  # fmt: skip
"""What comes to be in the course of a build: a kill waits for one of them, and hits what is being done then."""


def short_recordings(talks: list[Talk], folder: Path, count: int, seconds: float = 30.0) -> Path:
    """A manifest of so many recordings in two channels, each of two people of its own."""
    folder.mkdir(parents=True)
    rng, sessions = np.random.default_rng(0), []
    length = round(seconds * SAMPLING_RATE)
    for number in range(count):
        sound = in_rooms(talks[number % len(talks)], -12.0 if number < len(talks) else None, rng)
        begin = round(rng.uniform(0, max(0, len(sound) - length)))
        write_wav(folder / f"talk{number:03d}.wav", sound[begin : begin + length])
        sessions.append(f"- files: [talk{number:03d}.wav]\n")
    manifest = folder / "manifest.yaml"
    manifest.write_text("backends: {activity: energy, prosody: none}\nsessions:\n" + "".join(sessions))
    return manifest


def start_build(manifest: Path, out: Path) -> int:
    """A build in a process of its own, forked: what it imports is here already. Returns its id."""
    from diffdyad.cli import main as command

    child = os.fork()
    if child == 0:
        code = 1
        try:
            with open(out.with_suffix(".log"), "w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
                code = command(["data", "build", str(manifest), "--out", str(out), "--workers", "1"])
        finally:
            os._exit(code)
    return child


def parquets(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.parquet")}


def kills(talks: list[Talk], folder: Path, count: int) -> dict[str, int | bool]:
    """Builds of 8 recordings killed with SIGKILL and run again, until they end: are the shards those of an undisturbed
    one? A kill waits for one kind of file after the other to be written, every third for a random time."""
    manifest, rng = short_recordings(talks, folder, 8), np.random.default_rng(0)
    began = time.perf_counter()
    if os.waitstatus_to_exitcode(os.waitpid(start_build(manifest, folder / "whole"), 0)[1]):
        raise SystemExit((folder / "whole.log").read_text())
    whole_s, whole = time.perf_counter() - began, parquets(folder / "whole")
    hit = missed = ended = equal = 0
    out, killed_in = folder / "out0", set()
    while hit < count and missed < count:
        pattern = WRITTEN[(hit + missed) % len(WRITTEN)] if (hit + missed) % 3 else ""
        before, started = set(out.glob(pattern)) if pattern else set(), time.perf_counter()
        wait_s, child = rng.uniform(0, whole_s), start_build(manifest, out)
        done = 0
        while not done and (not set(out.glob(pattern)) - before if pattern
                            else time.perf_counter() - started < wait_s):  # fmt: skip
            done, status = os.waitpid(child, os.WNOHANG)
        if not done:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            hit += 1
            killed_in.add(pattern or "at a random time")
        else:
            missed += 1
            ended, equal = ended + 1, equal + (parquets(out) == whole)
            out = folder / f"out{ended}"
    os.waitpid(start_build(manifest, out), 0)
    return {
        "kills": hit, "kinds_of_moments": len(killed_in), "builds_ended": ended + 1,
        "with_the_same_bytes": equal + (parquets(out) == whole), "shards": len(whole), "whole_s": round(whole_s, 1),
    }  # fmt: skip


def broken(talks: list[Talk], folder: Path, count: int) -> dict[str, int | bool]:
    """Of so many recordings one is cut short and one is missing."""
    manifest = short_recordings(talks, folder, count, 20.0)
    path = folder / "talk017.wav"
    path.write_bytes(path.read_bytes()[:50_000])
    (folder / "talk042.wav").unlink()
    code = os.waitstatus_to_exitcode(os.waitpid(start_build(manifest, folder / "out"), 0)[1])
    log = (folder / "out.log").read_text()
    lines = [json.loads(line) for line in (folder / "out" / "sessions.jsonl").read_text().splitlines()]
    failed = sorted(line["recording"] for line in lines if "failed" in line)
    return {
        "recordings": count, "exit_code": code, "failed": failed, "named": all(name in log for name in failed),
        "done": sum("failed" not in line for line in lines), "with_exchanges": sum(bool(line.get("exchanges"))
                                                                                  for line in lines),
    }  # fmt: skip


def write_wav(path: Path, samples: np.ndarray, length: int | None = None) -> None:
    """(S, C), repeated to `length` samples."""
    data = np.clip(np.rint(samples * 32767), -32768, 32767).astype("<i2")
    length = len(data) if length is None else length
    with wave.open(str(path), "wb") as writer:
        writer.setnchannels(data.shape[1])
        writer.setsampwidth(2)
        writer.setframerate(SAMPLING_RATE)
        for begin in range(0, length, len(data)):
            writer.writeframes(data[: min(len(data), length - begin)].tobytes())


if __name__ == "__main__":
    main()
