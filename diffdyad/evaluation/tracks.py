"""What metrics look at in one motion: points, openings, rotations, events; each computed once, when first asked for."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from diffdyad import rotation
from diffdyad.evaluation import dynamics, events
from diffdyad.evaluation.beats import motion_beats_s
from diffdyad.evaluation.gauge import FaceActions, FaceGauge
from diffdyad.motion import POSE_GROUPS, Motion

EVENTS = ("nod", "smile", "blink", "brow_raise", "gaze_shift")


class Undefined(Exception):
    """A figure that does not exist for a clip; the message says why, in a few words, as tables print it."""


class Tracks:
    """One motion (T frames) as metrics see it; `gauge` None: no head in its basis, so nothing in millimetres.

    Properties raise `Undefined` where what they need was not measured.
    """

    def __init__(self, motion: Motion, gauge: FaceGauge | None = None):
        self.motion, self.gauge, self.fps = motion, gauge, motion.fps
        self._length = len(motion)
        self._events: dict[str, events.Events] = {}
        self._spreads: dict[bytes, np.ndarray] = {}
        self._known: dict[tuple[str, ...], np.ndarray] = {}

    def __len__(self) -> int:
        return self._length

    def known(self, *groups: str) -> np.ndarray:
        """Frames in which all these channel groups were measured: (T,) bool. Undefined where there are none."""
        if groups not in self._known:
            layout = self.motion.layout
            self._known[groups] = np.zeros(len(self), bool)
            if set(groups) <= set(layout.groups):
                columns = [layout.groups.index(group) for group in groups]
                self._known[groups] = self.motion.valid.numpy()[:, columns].all(1)
        if not self._known[groups].any():
            raise Undefined(f"no {' or '.join(groups).replace('_', ' ')} in the data")
        return self._known[groups]

    @property
    def face_known(self) -> np.ndarray:
        return self.known("expression", "jaw_pose")

    @property
    def head_known(self) -> np.ndarray:
        """Frames whose head rotation is known; a tracker that folds the neck into the head needs no neck."""
        return self.known("global_orient", *(() if self.motion.neck_folded else ("neck_pose",)))

    @property
    def gaze_known(self) -> np.ndarray:
        return self.known("leye_pose", "reye_pose")

    def _needs_head(self) -> FaceGauge:
        if self.gauge is None:
            raise Undefined("needs a head file with expressions")
        return self.gauge

    @property
    def sets(self) -> dict[str, slice | np.ndarray]:
        """Where the named vertex sets lie within `points`."""
        return self._needs_head().sets

    @cached_property
    def points(self) -> np.ndarray:
        """(T, P, 3) mm of the still head, float32."""
        gauge = self._needs_head()
        self.face_known  # noqa: B018, raises where there is no face
        return gauge.points(self.motion)

    @cached_property
    def _moving_points(self) -> np.ndarray:
        return self.points[:, self._needs_head().movers]

    @cached_property
    def point_speed_mm_s(self) -> np.ndarray:
        """(T - 1,)"""
        return dynamics.point_speed_per_frame_mm_s(self._moving_points, self.fps)

    @cached_property
    def point_jerk_mm_s3(self) -> np.ndarray:
        """(T - 3,)"""
        return dynamics.point_jerk_per_frame_mm_s3(self._moving_points, self.fps)

    @cached_property
    def _upper_face(self) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates of the upper face about their means over the clip, and their squares: (T, 3 N) each."""
        planes = self.points.transpose(0, 2, 1)[:, :, self.sets["upper_face"]].astype(np.float64)
        planes = planes.reshape(len(planes), -1)
        planes -= planes.mean(0)
        return planes, np.square(planes)

    def upper_face_spread_mm(self, frames: np.ndarray) -> np.ndarray:
        """`vertices.vertex_spread_mm` of the upper face over some frames (T,) bool: (N,)"""
        key = frames.tobytes()
        if key not in self._spreads:
            places, squares = self._upper_face
            weights = frames / frames.sum()
            # products with large matrices, for which all phases share one pair
            variances = np.maximum(weights @ squares - np.square(weights @ places), 0)
            self._spreads[key] = np.sqrt(variances.reshape(3, -1).sum(0))
        return self._spreads[key]

    @cached_property
    def opening_mm(self) -> np.ndarray:
        """(T,)"""
        return self._needs_head().opening_mm(self.points)

    @cached_property
    def actions(self) -> FaceActions:
        gauge = self._needs_head()
        self.known("expression")
        return gauge.actions(self.motion)

    @cached_property
    def expression(self) -> np.ndarray:
        """(T, E) coefficients."""
        return self.motion.select("expression").numpy()

    @cached_property
    def jaw(self) -> np.ndarray:
        """(T, 3) axis-angle, radians."""
        return self.motion.select("jaw_pose").numpy()

    @cached_property
    def jaw_rad(self) -> np.ndarray:
        """Opening rotation of the jaw: (T,)"""
        self.known("jaw_pose")
        return self.jaw[:, 0].astype(np.float64)

    @cached_property
    def head(self) -> np.ndarray:
        """Rotation of the head, neck included: (T, 3) axis-angle, radians."""
        self.head_known  # noqa: B018
        turn = rotation.compose(self.motion.select("global_orient").double(), self.motion.select("neck_pose").double())
        return turn.numpy()

    @cached_property
    def head_speed_deg_s(self) -> np.ndarray:
        """(T - 1,)"""
        return dynamics.rotation_speed_per_frame_deg_s(self.head, self.fps)

    @cached_property
    def head_beats_s(self) -> np.ndarray:
        """Times at which the head turns or rests: (N,)"""
        return motion_beats_s(self.head_speed_deg_s, self.fps)

    @cached_property
    def gaze(self) -> np.ndarray:
        """Mean rotation of both eyes within the head: (T, 3) axis-angle, radians."""
        self.gaze_known  # noqa: B018
        eyes = [self.motion.select(group).numpy().astype(np.float64) for group in POSE_GROUPS[3:]]
        return (eyes[0] + eyes[1]) / 2

    @cached_property
    def gaze_speed_deg_s(self) -> np.ndarray:
        """(T - 1,)"""
        return dynamics.rotation_speed_per_frame_deg_s(self.gaze, self.fps)

    def events(self, kind: str) -> events.Events:
        """Events of one of `EVENTS`, those in frames that were not measured left out."""
        if kind not in self._events:
            self._events[kind] = self._detect(kind)
        return self._events[kind]

    def _detect(self, kind: str) -> events.Events:
        if kind == "nod":
            found, known = events.nods(self.head[:, 0], self.fps), self.head_known
        elif kind == "gaze_shift":
            found, known = events.gaze_shifts(self.gaze, self.fps, self.gaze_speed_deg_s), self.gaze_known
        elif kind == "smile":
            found, known = events.smiles(self.actions.smile, self.fps), self.known("expression")
        elif kind == "brow_raise":
            found, known = events.brow_raises(self.actions.brow_raise, self.fps), self.known("expression")
        elif kind == "blink":
            if self.actions.lid_closure is None:
                raise Undefined("no eyelids in the data")
            found, known = events.blinks(self.actions.lid_closure, self.fps), self.known("expression")
        else:
            raise ValueError(f"expected one of {', '.join(EVENTS)}, got {kind!r}")
        keep = known[self.frames_of(found.times_s)]
        return events.Events(found.times_s[keep], found.durations_s[keep])

    def frames_of(self, seconds: np.ndarray) -> np.ndarray:
        """The frames nearest to times within the clip."""
        return np.minimum((seconds * self.fps + 0.5).astype(np.int64), len(self) - 1)
