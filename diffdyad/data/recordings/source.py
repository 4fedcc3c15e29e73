"""Recordings of a manifest, as the machinery of importers takes them: each heard, its turns found, its voices apart."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from diffdyad.data.encoded import weights_of
from diffdyad.data.exchange import Exchange
from diffdyad.data.importers.recording import Importer, ImportOptions, Item, Recording, Side
from diffdyad.data.recordings import activity, diarization, recognisers, trackers
from diffdyad.data.recordings.affect import add_affect, load_affect
from diffdyad.data.recordings.agreement import agreed, voiced
from diffdyad.data.recordings.face_affect import add_face_affect, load_face_affect
from diffdyad.data.recordings.features import FEATURES, add_prosody
from diffdyad.data.recordings.hearing import Heard, channels_of, hear, own_voice, residual_db, speech_share
from diffdyad.data.recordings.manifest import LATER, WEIGHTS, Manifest, Session, load_manifest
from diffdyad.data.recordings.separation import DEFAULT_ASTEROID, SEPARATION, load_separator, separate
from diffdyad.data.recordings.steps import STEPS, Steps
from diffdyad.data.recordings.tagging import DEFAULT_AST, TAGS, Tags, find_tags, load_tagger
from diffdyad.data.recordings.turns import find_turns
from diffdyad.data.recordings.watching import Kind, Seen, check_motion, kind_of, reprojection_px, see
from diffdyad.data.recordings.words import WORDS, Words, find_words
from diffdyad.errors import UserError
from diffdyad.media import SAMPLING_RATE
from diffdyad.motion import Motion

_MOST_SHARDS = 64
_SESSIONS_PER_SHARD = 8


class OwnVoice:
    """A person's voice in a recording, as a waveform that is read when it is wanted; slices of it are such, too."""

    def __init__(self, heard: Heard, side: int, begin: int = 0, end: int | None = None):
        self.heard, self.side, self.begin = heard, side, begin
        self.end = round(heard.seconds * SAMPLING_RATE) if end is None else end

    def __len__(self) -> int:
        return self.end - self.begin

    def __getitem__(self, part: slice) -> OwnVoice:
        begin, end, _ = part.indices(len(self))
        return OwnVoice(self.heard, self.side, self.begin + begin, self.begin + max(begin, end))

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        samples = own_voice(self.heard, self.side, self.begin, self.end)
        return np.clip(np.pad(samples, (0, len(self) - len(samples))), -1.0, 1.0).astype(dtype or np.float32)


@dataclass
class HeardSide(Side):
    """One person of a heard recording; the sound stays on the disk."""

    def cut(self, begin: int, end: int) -> OwnVoice:
        return self.waveform[begin:end]


@dataclass
class HeardRecording(Recording):
    """A recording with what was heard in it."""

    session: Session | None = None
    heard: Heard | None = None
    steps: Steps | None = None
    words: Words = field(default_factory=Words)
    tags: Tags = field(default_factory=Tags)
    seen: Seen = field(default_factory=Seen)


class Recordings(Importer):
    """A manifest's sessions. source: the manifest; steps: folder of their results, beside the shards."""

    name, title = "recordings", "Recordings"
    expects = "sessions in a manifest"
    rebuilds, compares_sides, takes_silences = True, False, True

    def __init__(self, source: Path, options: ImportOptions | None = None):
        super().__init__(source, options)
        self._manifest: Manifest | None = None
        self._steps: list[Path] = []

    @property
    def manifest(self) -> Manifest:
        if self._manifest is None:
            self._manifest = load_manifest(self.source)
        return self._manifest

    @property
    def kind(self) -> Kind:
        return kind_of(self.manifest.backends)

    @property
    def basis(self) -> str:
        return self.kind.basis

    @property
    def num_expression(self) -> int:
        return self.kind.num_expression

    @property
    def tracker(self) -> str:
        return self.kind.tracker

    @property
    def neck_folded(self) -> bool:
        return self.kind.neck_folded

    @property
    def items_per_shard(self) -> int:
        """So many that there is work for many processes, and not too many files."""
        return max(1, min(_SESSIONS_PER_SHARD, -(-len(self.manifest.sessions) // _MOST_SHARDS)))

    @property
    def license(self) -> str:
        return self.manifest.license

    @property
    def consent(self) -> str:
        return self.manifest.consent

    def check_source(self) -> None:
        """Raises UserError for a wrong manifest and for backends that are not known or not installed."""
        backends = self.manifest.backends
        activity.check_activity(backends.activity)
        self._check_diarization()
        for what, name, known in (("separation", backends.separation, SEPARATION), ("words", backends.words, WORDS),
                                   ("tags", backends.tags, TAGS), ("prosody", backends.prosody, FEATURES)):  # fmt: skip
            if name not in known:
                raise UserError(f"expected a backend for {what} among {', '.join(known)}, found {name!r}")
        if backends.separation != "none":
            load_separator(self.weights(backends.separation_model) or DEFAULT_ASTEROID, backends.separation_revision)
        if backends.words != "none":
            recogniser = recognisers.load(backends.words, self.weights(backends.words_model), backends.words_revision)
            for language in {session.language or self.manifest.language for session in self.manifest.sessions}:
                recogniser.language(language)
        if backends.tags != "none":
            load_tagger(self.weights(backends.tags_model) or DEFAULT_AST, backends.tags_revision)
        if backends.affect != "none":
            load_affect(self.weights(backends.affect), backends.affect_revision)
        if backends.face_affect != "none":
            load_face_affect(self.face_weights, backends.face_affect_revision)
        check_motion(self.manifest)

    def _check_diarization(self) -> None:
        """Where a session is of one microphone, by its word or by its file; of two channels it shows as they are heard.
        """
        alone = [session for session in self.manifest.sessions
                 if session.layout == "mixed" or (session.layout is None and len(session.files) == 1)]  # fmt: skip
        try:
            if alone:
                diarization.diarization_version(self.manifest.backends.diarization)
        except UserError as error:
            for session in alone:
                if session.layout == "mixed" or channels_of(self.path(session.files[0])) not in (None, 2):
                    raise UserError(f"{session.name} has one microphone for both: {error}") from None

    def settings(self) -> dict[str, Any]:
        backends = self.manifest.backends
        # where a machine keeps its interpreters changes nothing; what came later and is not asked for, neither
        left = {"mediapipe_python"} | {key for key in LATER if getattr(backends, key) == LATER[key]}
        settings: dict[str, Any] = {"manifest": self.manifest.model_dump(mode="json", exclude={"backends": left})}
        named = {key: weights_of(self.weights(getattr(backends, key))) for key in WEIGHTS if getattr(backends, key)}
        if folders := {key: digest for key, digest in named.items() if digest}:
            settings["weights"] = folders
        return settings

    def weights(self, name: str | None) -> str | None:
        """A folder beside the manifest, or else a name as it is: of a folder, or on the Hub."""
        return str(self.path(name)) if name and self.path(name).is_dir() else name

    @property
    def face_weights(self) -> str | None:
        name = self.manifest.backends.face_affect
        return None if name == "none" else self.weights(name)

    def path(self, name: str) -> Path:
        return self.source.parent / name

    def scan(self) -> Iterator[Item]:
        for session in self.manifest.sessions:
            files = [*session.files]
            for name in session.motion or ():
                folder = self.path(name)  # of results, each of its files counts
                inside = trackers.frame_files(folder, self.manifest.backends.motion) if folder.is_dir() else ()
                files += [str(Path(name) / file.relative_to(folder)) for file in inside] or [name]
            yield Item(session.name, tuple(files), session.people, session.split, session.name)

    def load(self, item: Item) -> HeardRecording:
        session = next(session for session in self.manifest.sessions if session.name == item.item_id)
        backends = self.manifest.backends
        steps = Steps(self.steps_folder or self.source.parent / STEPS)
        files = [self.path(name) for name in session.files]
        heard = hear(files, steps, session.layout, session.channels, session.offsets_s, backends.activity,
                     backends.diarization)  # fmt: skip
        if not self._is_shared(session):
            self._steps += [steps.folder / key for key in heard.keys if key.startswith("media-")]
        heard = separate(heard, steps, backends.separation, self.weights(backends.separation_model),
                         backends.separation_revision, backends.activity)  # fmt: skip
        words = find_words(heard, steps, backends.words, session.language or self.manifest.language,
                           self.weights(backends.words_model), backends.words_revision)  # fmt: skip
        tags = find_tags(heard, steps, backends.tags, self.weights(backends.tags_model), backends.tags_revision)
        evidence = agreed(heard, words, tags)
        voices = voiced(heard, evidence)
        seen = see(files, [self.path(name) for name in session.motion or ()], session, backends, steps, heard.spans,
                   heard.seconds, heard.layout, self.face_weights)  # fmt: skip
        sides = [
            HeardSide(person, OwnVoice(voices, side), seen.motion[side], words=words.of(side), speech=heard.spans[side],
                      betas=_betas(seen.motion[side]))
            for side, person in enumerate(item.people)
        ]
        share = speech_share(heard)
        about = {
            "layout": heard.layout, "steps": steps.about, "gain_offset_db": heard.offset_db,
            "speech_share": [round(x, 4) for x in share],
        }  # fmt: skip
        notes = heard.notes + seen.notes
        if heard.layout == "mixed" and session.speakers:
            notes.append("one microphone: the first to speak is taken as the first of `speakers`")
        return HeardRecording(
            sides, heard.seconds, source=self.manifest.name, notes=notes, about=about, session=session, heard=heard,
            words=words, tags=tags, seen=seen, steps=steps, cuts_s=seen.cuts_s,
            turns=find_turns(heard.spans, evidence.sounds, evidence.has_words),
        )  # fmt: skip

    def _is_shared(self, session: Session) -> bool:
        """Whether another session, which may be worked on at the same time, is of one of its files, too."""
        mine = set(session.files)
        return any(other is not session and mine & set(other.files) for other in self.manifest.sessions)

    def complete(self, recording: HeardRecording, exchanges: list[Exchange]) -> None:
        session, heard, backends = recording.session, recording.heard, self.manifest.backends
        sides = {person: side for side, person in enumerate(session.people)}
        for exchange in exchanges:
            exchange.language = recording.words.language or session.language or self.manifest.language
            exchange.license = session.license or self.manifest.license
            exchange.consent = session.consent or self.manifest.consent
            start = exchange.session_onset_s + exchange.start_s
            end = exchange.session_onset_s + exchange.end_s
            for name, person in ((exchange.previous_speaker, exchange.previous), (
                exchange.responder_name, exchange.responder)):  # fmt: skip
                person.residual_db = residual_db(heard, sides[name], start, end) if name in sides else float("nan")
                if name in sides and recording.tags.known:
                    tags = recording.tags.of(sides[name], start, end)
                    person.tags = [replace(t, start_s=t.start_s + exchange.start_s, end_s=t.end_s + exchange.start_s)
                                   for t in tags]  # fmt: skip
            exchange.reprojection_px = reprojection_px(recording.seen, start, end)
            if self.face_weights:
                faces = {person: recording.seen.faces[side] for person, side in sides.items()}
                add_face_affect(exchange, faces, self.face_weights, backends.face_affect_revision)
        add_prosody(exchanges, recording.steps, backends.prosody)
        if backends.affect != "none":
            add_affect(exchanges, recording.steps, self.weights(backends.affect), backends.affect_revision)

    def close(self) -> None:
        """Decoded sound is made again when it is wanted, but for that of files with several sessions; everything else
        that was found stays."""
        for folder in self._steps:
            shutil.rmtree(folder, ignore_errors=True)
        self._steps.clear()


def _betas(motion: Motion | None) -> np.ndarray:
    return np.zeros(0, np.float32) if motion is None or motion.betas is None else motion.betas.numpy()
