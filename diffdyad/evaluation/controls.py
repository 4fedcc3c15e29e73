"""Control rows: predictions that know nothing, or too much, so that a number means something beside them.

A figure in which a frozen face, shuffled frames or another clip does as well as a system says nothing about the system.
Each control makes one clip's prediction out of the clips; None where it cannot (no partner, no other clip).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from diffdyad.evaluation.clips import Clip
from diffdyad.evaluation.trim import fit_length
from diffdyad.motion import POSE_GROUPS, Motion, MotionLayout


@dataclass
class Corpus:
    """The clips that controls draw from, with the mean pose of all their valid frames: (D,).

    beside: clips that are not scored, from which people's other clips may be drawn.
    """

    clips: Sequence[Clip]
    beside: Sequence[Clip] = ()
    mean_pose: Tensor = field(init=False, repr=False)

    def __post_init__(self):
        total, count = 0.0, 0.0
        for clip in self.clips:
            known = clip.truth.layout.group_to_channels(clip.truth.valid)
            total = total + (clip.truth.values.double() * known).sum(0)
            count = count + known.sum(0)
        self.mean_pose = (total / torch.as_tensor(count).clamp_min(1)).float()


@dataclass(frozen=True)
class Control:
    """make(corpus, index of the clip, generator) -> a prediction with as many frames as the clip, or None."""

    name: str
    about: str
    make: Callable[[Corpus, int, np.random.Generator], Motion | None] = field(repr=False)


def truth_itself(corpus: Corpus, index: int, generator: np.random.Generator) -> Motion:
    """What happened: the best value of an error, the right value of a rate."""
    return corpus.clips[index].truth


def mean_pose(corpus: Corpus, index: int, generator: np.random.Generator) -> Motion:
    """The mean over all clips, motionless."""
    truth = corpus.clips[index].truth
    return _like(truth, corpus.mean_pose.expand_as(truth.values))


def frozen(corpus: Corpus, index: int, generator: np.random.Generator) -> Motion:
    """The clip's own mean, motionless: the right person in the right mood, and dead."""
    truth = corpus.clips[index].truth
    return _like(truth, _own_mean(truth).expand_as(truth.values))


def half_amplitude(corpus: Corpus, index: int, generator: np.random.Generator) -> Motion:
    """Half-way between the truth and the clip's own mean: the right motion, too small."""
    truth = corpus.clips[index].truth
    mean = _own_mean(truth)
    return _like(truth, mean + (truth.values - mean) / 2)


def frames_shuffled(corpus: Corpus, index: int, generator: np.random.Generator) -> Motion:
    """The truth's frames in random order: the right expressions at the wrong times, in fits."""
    truth = corpus.clips[index].truth
    order = torch.from_numpy(generator.permutation(len(truth)))
    return replace(truth, values=truth.values[order], valid=truth.valid[order])


def mirror_of_partner(corpus: Corpus, index: int, generator: np.random.Generator) -> Motion | None:
    """The partner's motion at the same time, sides exchanged as in a mirror."""
    clip = corpus.clips[index]
    if clip.partner_motion is None or clip.partner_motion.layout != clip.truth.layout:
        return None
    return fit_length(mirrored(clip.partner_motion), len(clip))


def other_person(corpus: Corpus, index: int, generator: np.random.Generator) -> Motion | None:
    """A random clip of somebody else who is not the partner either."""
    own = corpus.clips[index]
    return _random([clip for clip in corpus.clips if clip.person not in own.people], len(own), generator)


def same_person(corpus: Corpus, index: int, generator: np.random.Generator) -> Motion | None:
    """A random other clip of the same person."""
    own = corpus.clips[index]
    others = [clip for clip in (*corpus.clips, *corpus.beside)
              if clip.person == own.person and clip.clip_id != own.clip_id]  # fmt: skip
    return _random(others, len(own), generator)


CONTROLS = (
    Control("truth", "ground truth against itself", truth_itself),
    Control("mean_pose", "mean of all clips, motionless", mean_pose),
    Control("frozen", "mean of the clip, motionless", frozen),
    Control("half_amplitude", "truth at half its size around the clip's mean", half_amplitude),
    Control("frames_shuffled", "truth's frames in random order", frames_shuffled),
    Control("mirror_of_partner", "partner's motion, sides exchanged", mirror_of_partner),
    Control("same_person", "another clip of the person", same_person),
    Control("other_person", "a clip of another person", other_person),
)


def mirrored(motion: Motion) -> Motion:
    """Left and right exchanged: (T, D) -> (T, D).

    Rotations: yaw and roll change sign, the eyes their sides. Expressions: by name in the ARKit basis; FLAME's do not
    name their sides and stay as they are, which is nearly right, since faces are nearly symmetric.
    """
    order, sign = _mirror(motion.layout)
    groups = list(motion.layout.groups)
    sides = [groups.index(_OTHER_EYE.get(group, group)) for group in groups]
    return replace(motion, values=motion.values[:, order] * sign, valid=motion.valid[:, sides])


_OTHER_EYE = {"leye_pose": "reye_pose", "reye_pose": "leye_pose"}


@lru_cache(maxsize=8)
def _mirror(layout: MotionLayout) -> tuple[Tensor, Tensor]:
    """Channel d of the mirror image is channel order[d] times sign[d]."""
    order, sign = torch.arange(layout.dim), torch.ones(layout.dim)
    names = layout.expression_names or ()
    for channel, name in enumerate(names):
        for side, other in (("Left", "Right"), ("Right", "Left")):
            if name.endswith(side):
                order[channel] = names.index(name.removesuffix(side) + other)
    if layout.eyelids:
        lids = layout.slices["eyelids"]
        order[lids] = order[lids].flip(0)
    for group in POSE_GROUPS:
        where = layout.slices[group]
        order[where] = torch.arange(layout.dim)[layout.slices[_OTHER_EYE.get(group, group)]]
        sign[where] = torch.tensor([1.0, -1.0, -1.0])
    return order, sign


def _like(truth: Motion, values: Tensor) -> Motion:
    return replace(truth, values=values.contiguous())


def _own_mean(truth: Motion) -> Tensor:
    known = truth.layout.group_to_channels(truth.valid)
    return (truth.values * known).sum(0) / known.sum(0).clamp_min(1)


def _random(choices: list[Clip], num_frames: int, generator: np.random.Generator) -> Motion | None:
    return fit_length(choices[generator.integers(len(choices))].truth, num_frames) if choices else None
