"""The protocol from end to end: what is generated and measured, stage by stage, and what it amounts to.

Everything dear is kept on disk under names that say what it follows from, so that a run that was stopped goes on, and
several processes share the work through the same folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from diffdyad.data.exchange import ExchangeShards
from diffdyad.data.sides import motion_of
from diffdyad.evaluation.clips import Clip
from diffdyad.evaluation.effect import critic, dose, gap, occlusion, retrieval, where
from diffdyad.evaluation.effect.answers import Answers, Ask
from diffdyad.evaluation.effect.conditions import NEAR, NULL, PLACEBO, TRUE, swapped, without
from diffdyad.evaluation.effect.face import Face
from diffdyad.evaluation.effect.gap import Gaps
from diffdyad.evaluation.effect.inference import (
    Effect,
    Equivalence,
    bootstrap_interval,
    effect_of,
    equivalence,
    power_of,
    ratio_interval,
    unit_means,
)
from diffdyad.evaluation.effect.network import Network
from diffdyad.evaluation.effect.power import power_table
from diffdyad.evaluation.effect.reading import Item, Reading
from diffdyad.evaluation.effect.setting import Crew, ProtocolSettings, Setting
from diffdyad.evaluation.effect.verdict import Endpoint, Evidence, Verdict, decide
from diffdyad.evaluation.gauge import FaceGauge
from diffdyad.evaluation.intervals import Estimate
from diffdyad.evaluation.report import Report
from diffdyad.evaluation.score import score
from diffdyad.evaluation.voice import frame_energy_db
from diffdyad.evaluation.work import ScoreSettings
from diffdyad.head import HeadModel
from diffdyad.media import SAMPLING_RATE
from diffdyad.motion import Motion
from diffdyad.pipeline import DyadPipeline

NUM_SAMPLES = 8
_LOOKED = 96  # exchanges that where, when and which part of the turn are told of
_SPLIT = 8  # exchanges of which start is told from context
CONTRASTS = (NEAR, NULL)


@dataclass
class Retrieval:
    """rows: name -> (R@1, MRR) of the own turn; intervals: 95 % of both over units; chance: of guessing; truth: the
    contrast that makes it testable."""

    rows: dict[str, tuple[float, float]]
    intervals: dict[str, tuple[Estimate, Estimate]]
    chance: tuple[float, float]
    truth: Effect
    num_pairs: int
    correlations: list[float]


@dataclass
class Findings:
    """All that a report says.

    gaps: by contrast, also those that are only described; by_group: group -> contrast -> effect, the placebo's among
    them; modality_controls, r2_controls: rows beside the modalities' and the partial R2, where nothing may be found
    (and, of the former, what the whole turn does); noise_mm: by region, what other noise alone changes; controls: the
    metrics' table.
    """

    verdict: Verdict
    evidence: Evidence
    gaps: dict[str, Effect]
    by_group: dict[str, dict[str, Effect]]
    modalities: dict[str, Effect]
    swapped_modalities: dict[str, Effect]
    modality_controls: dict[str, Effect]
    r2_controls: dict[str, Estimate]
    retrieval: Retrieval | None
    doses: list[dose.Dose]
    largest_scale: float | None
    noise_mm: dict[str, float]
    where: where.Where | None
    split: where.Split | None
    controls: Report | None
    facts: dict
    notes: list[str] = field(default_factory=list)


def measure(
    pipeline: DyadPipeline, setting: Setting, settings: ProtocolSettings, crew: Crew,
    placebo: DyadPipeline | None = None,
) -> tuple[Network, Answers]:
    """All that needs the network, shared among the processes: losses and answers."""
    network = Network(pipeline, settings.answer_s)
    gap.measure(network, setting.conditions, settings.cache / "gaps", settings.seed, crew.share, crew.bar("loss gap"))
    if placebo is not None:
        gap.measure(Network(placebo, settings.answer_s), setting.conditions, settings.cache / "gaps", settings.seed,
                    crew.share, crew.bar("loss gap, placebo"))  # fmt: skip
    answers = Answers(network, setting.conditions, settings.cache / "answers", settings.seed)
    main = [Ask(index, name, 1.0, NUM_SAMPLES) for index in setting.chosen for name in (TRUE, NULL, NEAR)]
    answers.make(main, crew.share, crew.bar("answers"))
    if not settings.verdict_only:
        answers.make(dose.asks(setting.chosen, answers), crew.share, crew.bar("dose"))
        answers.make(where.split_asks(setting.chosen[:_SPLIT], setting.conditions), crew.share, crew.bar("starts"))
        occlusion.measure(network, setting.conditions, _looked(setting), settings.cache / "hidden", settings.seed,
                          crew.share, crew.bar("hidden parts of turns"))  # fmt: skip
    crew.wait()
    return network, answers


def conclude(
    network: Network, answers: Answers, setting: Setting, settings: ProtocolSettings, crew: Crew,
    head: HeadModel | None, placebo: DyadPipeline | None = None,
) -> Findings:
    """From what was measured to the verdict, in one process."""
    rng = np.random.default_rng([settings.seed, 2])
    pipeline, items, units, chosen = network.pipeline, setting.items, setting.units, setting.chosen
    gaps = gap.gather(network, setting.conditions, settings.cache / "gaps", settings.seed)
    face = Face(head, pipeline.layout, pipeline.fps) if head is not None else None
    modalities = setting.conditions.modalities
    found = {name: effect_of(gaps.gap(name), units, rng) for name in gaps.errors if name not in (TRUE, PLACEBO)}
    gap_end = Endpoint(
        "1 Loss gap", "how much worse the true expression is denoised with the wrong turn, or none", "variances",
        {name: found[name] for name in CONTRASTS},
    )  # fmt: skip
    chosen_units = units[chosen]
    truths = [network.target(items[index]) for index in chosen]
    scores = {name: np.array([dose.score(answers(Ask(index, name, 1.0, NUM_SAMPLES)), *truth, pipeline.statistics)
                              for index, truth in zip(chosen, truths)]) for name in (TRUE, NULL, NEAR)}  # fmt: skip
    energy = Endpoint(
        "2 Energy score", "how much farther from the truth the answers lie under the wrong turn, or none",
        "deviations", {name: effect_of(scores[name] - scores[TRUE], chosen_units, rng) for name in CONTRASTS},
    )  # fmt: skip
    retrieved, third, notes = _retrieval(network, answers, setting, settings, crew, rng)
    r2 = {name: _partial_r2(gaps, name, units, rng) for name in CONTRASTS}
    evidence = Evidence(
        gap_end, energy, third, _lips(answers, chosen, chosen_units, face, settings.lips_margin_mm),
        _placebo(gaps, units, settings, rng, placebo, setting), r2, settings.smallest_effect,
        _power_at_smallest(gaps, setting, settings, pipeline), setting.num_units,
    )  # fmt: skip
    described = None if settings.verdict_only else face
    controls_rng = np.random.default_rng([settings.seed, 9])
    doses = dose.doses(answers, chosen, chosen_units, truths, face, pipeline.statistics, settings.lips_margin_mm,
                       np.random.default_rng([settings.seed, 10])) if described else []  # fmt: skip
    noise_mm = dose.noise_mm(answers, chosen, chosen_units, face) if described else {}
    bled = sum(item.has_bleed for item in items)
    if bled:
        notes.append(f"In {bled} of {len(items)} exchanges one voice was heard in the other's channel; it was gated.")
    if setting.num_units < 20:
        notes.append(f"Only {setting.num_units} independent pairs: intervals are wide and rough.")
    if pipeline.config.num_inference_steps == 1:
        notes.append("The model answers in one step, as a regression does: the loss gap asks it at noise levels that "
                     "its training may not have seen.")  # fmt: skip
    if placebo is None:
        notes.append("The placebo is a wrong turn taken for the true one; a model trained on permuted contexts was not "
                     "given (--placebo).")  # fmt: skip
    facts = {
        "exchanges": len(items), "units": setting.num_units, "answered": len(chosen), "samples": NUM_SAMPLES,
        "people": len({name for item in items for name in (item.previous_speaker, item.responder)}),
        "answer_s": settings.answer_s, "seed": settings.seed, "split": settings.split,
        "smallest_effect": settings.smallest_effect, "swap_distance": setting.swaps.distance,
        "without_near_swap": int((setting.swaps.near < 0).sum()), "gallery": min(retrieval.GALLERY, len(items)),
        "energy_score": {name: _mean(values) for name, values in scores.items()},
        "loss": {name: _mean(gaps.loss(name)) for name in gap.MAIN},
    }  # fmt: skip
    return Findings(
        decide(evidence), evidence, found,
        {group: {**{name: effect_of(gaps.gap(name, TRUE, group), units, rng) for name in CONTRASTS},
                 PLACEBO: effect_of(gaps.gap(PLACEBO, NEAR, group), units, controls_rng, two_sided=True)}
         for group in gap.GROUPS},
        {name: found[without(name)] for name in modalities}, {name: found[swapped(name)] for name in modalities},
        _modality_controls(gaps, units, controls_rng), _r2_controls(gaps, network, setting, controls_rng),
        retrieved, doses, dose.largest_usable(doses) if doses else None, noise_mm,
        where.look(network, setting.conditions, gaps, _looked(setting), face, settings.cache / "hidden", settings.seed)
        if described else None,
        where.split(answers, chosen[:_SPLIT], face) if described else None,
        None if settings.verdict_only else _controls(answers, setting, face.gauge if face else None, settings),
        facts, notes,
    )  # fmt: skip


def _mean(values: np.ndarray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None


def _looked(setting: Setting) -> list[int]:
    """The exchanges that where, when and which part are told of."""
    count = len(setting.items)
    return [int(k) for k in np.linspace(0, count - 1, min(_LOOKED, count))]


def _retrieval(network, answers, setting, settings, crew, rng) -> tuple[Retrieval | None, Endpoint, list[str]]:
    name, about = "3 Retrieval", "the answer tells its turn among 32 better than an answer to another turn does"
    pipeline, items = network.pipeline, setting.items
    encoder, stats, units = pipeline.context_encoder, pipeline.statistics, setting.units
    people = {person for item in items for person in (item.previous_speaker, item.responder)}
    pairs = critic.real_pairs(
        settings.dataset, settings.split, people, Reading.of(pipeline), settings.cache, settings.critic_pairs,
        settings.workers, crew.bar("critic's pairs"),
    )  # fmt: skip
    if len(pairs) < critic.FEWEST_PAIRS:
        why = f"the other splits hold {len(pairs)} real pairs of other people, {critic.FEWEST_PAIRS} are needed"
        return None, Endpoint(name, about, "", {}, False, why), []

    def vector(motion, known):
        return critic.motion_vector(motion, known, pipeline.fps)

    judge = critic.fit_critic(
        [critic.turn_vector(encoder, pair.features.turn, pair.features.previous_end_s) for pair in pairs],
        torch.stack([vector(*critic.answer_of(pair.features, stats, network.answer)) for pair in pairs]),
    )
    turns = [critic.turn_vector(encoder, item.turn, item.features.previous_end_s) for item in items]
    truths = [critic.answer_of(item.features, stats, network.answer) for item in items]
    rows = retrieval.galleries(items, setting.swaps.near, np.random.default_rng([settings.seed, 3]))

    def of(motions: torch.Tensor, places: np.ndarray) -> np.ndarray:
        """(M, ..., Q) motions of exchanges at `places` -> (M, ..., S) scores with their galleries."""
        flat = judge.scores(turns, motions.flatten(0, -2)).reshape(*motions.shape[:-1], len(items))
        index = rows[places].reshape(len(places), *[1] * (flat.ndim - 2), -1)
        return np.take_along_axis(flat, index, -1)

    everywhere = np.arange(len(items))
    true_scores = of(torch.stack([vector(*truth) for truth in truths]), everywhere)
    with_near = np.flatnonzero(setting.swaps.near >= 0)
    near_place = [list(rows[index]).index(setting.swaps.near[index]) for index in with_near]
    own = retrieval.ranks(true_scores, np.zeros(len(items), int))
    near = retrieval.ranks(true_scores[with_near], near_place)
    ceiling = effect_of(own.reciprocal[with_near] - near.reciprocal, units[with_near], rng)
    chosen, found, table, intervals = np.array(setting.chosen), {}, {}, {}
    draws = np.random.default_rng([settings.seed, 8])

    def note(row: str, first: np.ndarray, reciprocal: np.ndarray) -> None:
        table[row] = (float(first.mean()), float(reciprocal.mean()))
        means = [unit_means(values, units[chosen]) for values in (first, reciprocal)]
        intervals[row] = tuple(bootstrap_interval(values, draws) for values in means)

    note("truth", own.first[chosen], own.reciprocal[chosen])
    for condition in (TRUE, NEAR, NULL):
        motions = []
        for index in chosen:
            samples = stats.standardise(answers(Ask(int(index), condition, 1.0, NUM_SAMPLES)).to(stats.mean.device))
            known = truths[index][1]  # as much of the answer as the truth has
            motions.append(torch.stack([vector(sample * known, known) for sample in samples.cpu()]))
        found[condition] = retrieval.ranks(of(torch.stack(motions), chosen), np.zeros(len(chosen), int))
        note(condition, found[condition].first, found[condition].reciprocal)
    others = np.roll(chosen, 1)  # a control: the truth of other people
    shuffled = retrieval.ranks(
        of(torch.stack([vector(*truths[index]) for index in others]), chosen), np.zeros(len(chosen), int)
    )
    note("truth of others", shuffled.first, shuffled.reciprocal)
    contrast = effect_of(found[TRUE].reciprocal - found[NEAR].reciprocal, units[chosen], rng)
    result = Retrieval(table, intervals, retrieval.chance(rows.shape[1]), ceiling, len(pairs), judge.correlations)
    why = "" if ceiling.is_positive else (
        f"the critic does not tell the true turn from a near one for real answers (p = {ceiling.p_value:.2g})"
    )
    return result, Endpoint(name, about, "of the reciprocal rank", {NEAR: contrast}, ceiling.is_positive, why), []


def _partial_r2(gaps: Gaps, wrong: str, units: np.ndarray, rng: np.random.Generator):
    """Of the expression, given the own audio: what the true turn explains that the wrong one does not."""
    errors = {name: gaps.expected_error(name)[0] for name in (TRUE, NULL, wrong)}
    known = np.isfinite(errors[wrong])
    return ratio_interval((errors[wrong] - errors[TRUE])[known], errors[NULL][known], units[known], rng, 0.9)


def _r2_controls(gaps: Gaps, network: Network, setting: Setting, rng: np.random.Generator) -> dict[str, Estimate]:
    """By contrast, the partial R2 where the answer of other people, after a like turn, is taken for the true one."""
    errors, span = {}, network.pipeline.layout.slices["expression"]
    others = [int(k) for k in setting.swaps.far]
    if not others or min(others) < 0:
        return {}
    truths, known = (torch.stack(x) for x in zip(*[network.target(setting.items[k]) for k in others]))
    truths, known = (x[:, : network.answer, span] for x in (truths, known))
    for name in (TRUE, *CONTRASTS):
        errors[name] = ((gaps.means[name][..., span] - truths).square() * known).double().sum((1, 2)).numpy()
    found = {}
    for name in CONTRASTS:
        there = np.isfinite(errors[name])
        found[name] = ratio_interval((errors[name] - errors[TRUE])[there], errors[NULL][there], setting.units[there],
                                     rng, 0.9)  # fmt: skip
    return found


def _modality_controls(gaps: Gaps, units: np.ndarray, rng: np.random.Generator) -> dict[str, Effect]:
    """At the noise levels of the modalities: a wrong turn for the true one, and the whole turn, by contrast."""
    levels = gap.SECONDARY_LEVELS
    return {
        PLACEBO: effect_of(gaps.gap(PLACEBO, NEAR, levels=levels), units, rng, two_sided=True),
        **{name: effect_of(gaps.gap(name, levels=levels), units, rng) for name in CONTRASTS},
    }  # fmt: skip


def _power_at_smallest(
    gaps: Gaps, setting: Setting, settings: ProtocolSettings, pipeline: DyadPipeline
) -> dict[str, float]:
    """By contrast, power to find a partial R2 of the smallest of interest: the lower of two.

    One takes units to differ as this model's gaps do, which is nothing where it ignores the turn; the other as an
    ideal model's would, for reactions of that size planted into the truth.
    """
    rng, frames = np.random.default_rng([settings.seed, 7]), round(settings.answer_s * pipeline.fps)
    rows = power_table(setting.items, pipeline.statistics, frames, rng, [settings.smallest_effect])
    found = {row.contrast: row.power for row in rows}
    errors = {name: gaps.expected_error(name)[0] for name in (TRUE, *CONTRASTS)}
    for name in CONTRASTS:
        means = unit_means((errors[name] - errors[TRUE]) / np.nanmean(errors[NULL]), setting.units)
        spread = means.std(ddof=1)
        if spread > 0:
            found[name] = min(found[name], power_of(settings.smallest_effect / spread, len(means)))
    return found


def _placebo(gaps, units, settings, rng, placebo: DyadPipeline | None, setting: Setting) -> dict[str, Effect]:
    # how well a wrong turn matches must not matter, either way
    difference, found = gaps.gap(PLACEBO, NEAR), {}
    if len(unit_means(difference, units)) >= 2:
        found["a wrong turn for the true one"] = effect_of(difference, units, rng, two_sided=True)
    if placebo is not None:
        theirs = gap.gather(Network(placebo, settings.answer_s), setting.conditions, settings.cache / "gaps",
                            settings.seed)  # fmt: skip
        # any turn may help it, as training rarely shows it none: as for the endpoint, both must hold
        both = [effect_of(theirs.gap(name), units, rng) for name in CONTRASTS]
        found["trained on permuted contexts"] = max(both, key=lambda effect: effect.p_value)
    return found


def _lips(answers, chosen, units, face: Face | None, margin_mm: float) -> Equivalence | None:
    if face is None:
        return None
    opening = {name: np.array([face.opening_mm(answers(Ask(index, name, 1.0, NUM_SAMPLES))).mean() for index in chosen])
               for name in (TRUE, NULL)}  # fmt: skip
    return equivalence(unit_means(opening[TRUE] - opening[NULL], units), margin_mm)


def _controls(answers: Answers, setting: Setting, gauge: FaceGauge | None, settings: ProtocolSettings) -> Report:
    """The metrics of the answers to the true turns, beside the control rows."""
    network, predictions = answers.network, {}
    layout, fps = network.pipeline.layout, network.pipeline.fps
    partners = _partners([setting.items[index] for index in setting.chosen], settings, network)

    def clip_of(item: Item) -> Clip:
        span = slice(onset := item.onset(fps), onset + network.answer)
        truth = Motion(item.features.motion[span], layout, fps, valid=item.features.valid[span])
        return Clip(item.name, truth, item.responder, item.previous_speaker, partners.get(item.name),
                    response_kind=item.kind)  # fmt: skip

    clips = [clip_of(setting.items[index]) for index in setting.chosen]
    beside = [clip_of(item) for index, item in enumerate(setting.items) if index not in set(setting.chosen)]
    for index, clip in zip(setting.chosen, clips):
        item, truth = setting.items[index], clip.truth
        clip.energy_db = frame_energy_db(item.audio, SAMPLING_RATE, fps, len(truth))
        samples = answers(Ask(index, TRUE, 1.0, NUM_SAMPLES))[:, : len(truth)]
        predictions[item.name] = [Motion(sample, layout, fps) for sample in samples]
    scoring = ScoreSettings(system="model", seed=settings.seed, workers=1)
    return score(clips, predictions, gauge, scoring, beside=beside)


def _partners(items: Sequence[Item], settings: ProtocolSettings, network: Network) -> dict[str, Motion]:
    """What the previous speaker's face does during the answers, by exchange."""
    shards, found = ExchangeShards(settings.dataset, settings.split, audio=False), {}
    wanted, stats = {item.name for item in items}, network.pipeline.statistics
    for place in range(len(shards)):
        if shards.row(place, ["exchange_id"])["exchange_id"] in wanted:
            exchange = shards[place]
            motion = motion_of(exchange, "previous", stats.layout).resample(stats.config.fps)
            span = slice(onset := max(0, round(-exchange.start_s * motion.fps)), onset + network.answer)
            found[exchange.exchange_id] = Motion(motion.values[span], motion.layout, motion.fps,
                                                 valid=motion.valid[span])  # fmt: skip
    return {name: motion for name, motion in found.items() if len(motion)}
