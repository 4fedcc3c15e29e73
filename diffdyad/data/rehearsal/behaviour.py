"""One person through one session: every part of the behaviour put together into a motion."""

from __future__ import annotations

import numpy as np

from diffdyad.data.rehearsal import blink, face, gaze, visemes
from diffdyad.data.rehearsal.curves import Streams
from diffdyad.data.rehearsal.habits import Habits
from diffdyad.data.rehearsal.listening import listening
from diffdyad.data.rehearsal.reaction import LAYOUT, NECK_SHARE, Reaction, planted_delta
from diffdyad.data.rehearsal.scene import Canvas, Turn


def speak(canvas: Canvas, habits: Habits, turns: list[Turn], fps: float, streams: Streams) -> None:
    """The mouth of every turn, laid on the canvas with enough time around it to prepare and to rest."""
    margin = 0.6
    for number, turn in enumerate(turns):
        if not turn.phones:
            continue
        rng = streams("mouth", number)
        first = max(0, int(np.floor((turn.start_s - margin) * fps)))
        last = min(len(canvas.times), int(np.ceil((turn.end_s + margin) * fps)))
        if first >= last:
            continue
        start_s = first / fps
        num_samples = round((last - first) * visemes.INTERNAL_RATE / fps)
        loudness = np.zeros(num_samples)
        offset = round((turn.start_s - start_s) * visemes.INTERNAL_RATE)
        begin, end = max(offset, 0), min(offset + len(turn.loudness), num_samples)
        loudness[begin:end] = turn.loudness[begin - offset : end - offset]
        gain = habits.articulation * (1.0 + 0.2 * turn.arousal)
        mouth = visemes.articulate(
            turn.phones, num_samples, start_s=start_s, gain=gain, loudness_track=loudness, rng=rng
        )
        expression, jaw, contact = visemes.mouth_motion(mouth, fps)
        canvas.expression[first:last] += expression
        canvas.jaw[first:last] = np.maximum(canvas.jaw[first:last], jaw)
        canvas.contact[first:last] = np.maximum(canvas.contact[first:last], contact)


def perform(
    habits: Habits,
    own: list[Turn],
    partner: list[Turn],
    reactions: list[Reaction],
    num_frames: int,
    fps: float,
    streams: Streams,
) -> np.ndarray:
    """The person's motion over the session, (num_frames, 56) float32 in `MotionLayout.arkit()`.

    `own` and `partner`: the turns of both, in order, on the session's clock, which starts at frame 0.
    `reactions`: planted effects on this person; whether there are any changes nothing else.
    """
    canvas = Canvas.blank(num_frames, fps)
    duration_s = num_frames / fps
    face.posture(canvas, habits, own, fps, streams)
    face.accents(canvas, habits, own, streams)
    face.affect(canvas, habits, own, fps, streams)
    face.sounds(canvas, habits, own, streams)
    face.silent_answers(canvas, habits, own, streams)
    listening(canvas, habits, own, partner, streams)
    points = gaze.fixations(habits, own, duration_s, streams("gaze"))
    gaze.draw_gaze(canvas, points, streams("gaze tremor"))
    gaze.head_follows(canvas, points, habits)
    canvas.head -= np.median(canvas.head, axis=0)  # a head's pose counts from its median over the session
    left_eye, right_eye = gaze.eyes_and_lids(canvas, habits)
    speak(canvas, habits, own, fps, streams)

    visemes.make_contact(canvas.expression, canvas.jaw, canvas.contact)
    canvas.expression *= habits.asymmetry
    canvas.expression += habits.rest
    rng = streams("blink")
    blink.draw_blinks(canvas, habits, blink.blink_times(habits, own, points, duration_s, rng), rng)

    motion = np.zeros((num_frames, LAYOUT.dim))
    where = LAYOUT.slices
    motion[:, where["expression"]] = canvas.expression
    motion[:, where["global_orient"]] = (1.0 - NECK_SHARE) * canvas.head
    motion[:, where["neck_pose"]] = NECK_SHARE * canvas.head
    motion[:, where["jaw_pose"].start] = canvas.jaw
    motion[:, where["leye_pose"]] = left_eye
    motion[:, where["reye_pose"]] = right_eye
    times = canvas.times
    for reaction in reactions:
        motion += planted_delta(reaction, times)
    motion[:, where["expression"]] = np.clip(motion[:, where["expression"]], 0.0, 1.0)
    return motion.astype(np.float32)
