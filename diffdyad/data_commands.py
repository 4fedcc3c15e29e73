"""The commands `diffdyad data ...`: flags and help. Imports nothing heavy until a command runs."""

from __future__ import annotations

import argparse
import sys

from diffdyad.errors import UserError
from diffdyad.flags import number, whole


def add_data(kinds) -> None:
    """Adds every `data` command to the subparsers of `data`."""
    _add_rehearse(kinds.add_parser(
        "rehearse", help="make a synthetic corpus whose truth is known",
        description="Makes a synthetic corpus of two people talking, with a planted effect of the previous turn.\n"
        "The same settings give the same bytes; the same command again goes on where it stopped.",
    ))  # fmt: skip
    _add_features(kinds.add_parser(
        "features", help="compute a pretrained speech encoder's features of a dataset",
        description="Computes the features of a frozen speech encoder for all sounds of a dataset, once: trainings\n"
        "with `speech.encoder: NAME` find them. The same command again goes on where it stopped.",
    ))  # fmt: skip
    _add_build(kinds.add_parser(
        "build", help="make exchanges of recordings",
        description="Makes exchanges of the recordings that a manifest names: docs/recordings.md. What cannot be read\n"
        "is named, the rest is done (exit code 3). The same command again goes on where it stopped.",
    ))  # fmt: skip
    _add_turns(kinds.add_parser(
        "turns", help="write who speaks when in a recording",
        description="Writes who speaks when in one recording of two people, as RTTM: A is the first\n"
        "channel or file; with one microphone, the first to speak.",
    ))  # fmt: skip
    _add_check(kinds.add_parser(
        "check", help="look for what is wrong in a dataset",
        description="Looks at every exchange: schema, ranges, sync of sound and mouth, exchanged sides, people in\n"
        "several splits, the same sound twice. Exit code 3 where something is wrong.",
    ))  # fmt: skip
    _add_describe(kinds.add_parser(
        "describe", help="say what is in a dataset",
        description="Counts, hours, gaps, kinds of response, voices and affect of the turns before, head dynamics;\n"
        "with --against: do the responders move otherwise than those of another dataset (of plain talk, say)?",
    ))  # fmt: skip
    _add_filter(kinds.add_parser(
        "filter", help="judge anew which exchanges are kept",
        description="Writes `keep` and `reject_reasons` of all exchanges anew, from the scores that lie in the\n"
        "dataset: nothing else is done again. Thresholds that are not given are the defaults.",
    ))  # fmt: skip
    _add_import(kinds.add_parser(
        "import", help="make exchanges of a published dataset",
        description="Imports a dataset as it is published: docs/importers.md. What cannot be read is named, the rest\n"
        "is done (exit code 3). The same command again goes on, and tries again what failed.",
    ))  # fmt: skip
    _add_export(kinds.add_parser(
        "export", help="write exchanges or a motion in the form of another system",
        description="Writes a dataset of exchanges, or one motion.npz, as other systems read it.",
    ))  # fmt: skip


def _add_rehearse(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the dataset: new, empty, or an "
                        "unfinished one of the same settings (no default)")
    parser.add_argument("--hours", metavar="H", type=number, default=1.0, help="hours of conversation, all splits "
                        "together (default: %(default)g)")
    parser.add_argument("--seed", metavar="N", type=whole, default=0, help="whole number of 0 or more (default: "
                        "%(default)d)")
    parser.add_argument("--effect", metavar="K", type=number, default=1.0, help="strength of the planted effect, a "
                        "factor; 0 = none (default: %(default)g)")
    parser.add_argument("--reactive-share", metavar="P", type=number, default=0.25, help="of the exchanges, in how "
                        "many the responder reacts (default: %(default)g)")
    parser.add_argument("--flite-share", metavar="P", type=number, default=0.0, help="of the people who train with "
                        "English, how many speak with Flite's voices, which must be installed (default: %(default)g)")
    parser.add_argument("--workers", metavar="N", type=whole, help="processes (default: one per core); the corpus "
                        "does not depend on it")
    parser.set_defaults(run=_rehearse)


def _rehearse(arguments: argparse.Namespace) -> None:
    if arguments.workers is not None and not 1 <= arguments.workers <= 1024:
        raise UserError(f"expected --workers from 1 to 1024, found {arguments.workers}")
    from diffdyad.data.rehearsal.corpus import rehearse

    folder = rehearse(
        arguments.out, arguments.hours, arguments.seed, arguments.effect, arguments.reactive_share,
        arguments.flite_share, arguments.workers, progress=sys.stderr.isatty(),
    )
    print(f"{folder}: a rehearsal corpus of {arguments.hours:g} h")


def _add_features(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="folder of a dataset of exchanges")
    parser.add_argument("--encoder", metavar="NAME", required=True, help="a Hugging Face speech encoder, such as "
                        "facebook/hubert-base-ls960, or a folder of one (no default)")
    parser.add_argument("--revision", metavar="REV", help="its branch, tag or commit (default: main)")
    parser.add_argument("--cache", metavar="DIR", help="folder for the features (default: `features` in the dataset)")
    parser.add_argument("--device", metavar="NAME", default="cpu", help="cpu, cuda, cuda:1, ... (default: %(default)s)")
    parser.add_argument("--workers", metavar="N", type=whole, default=2, help="processes on the CPU (default: "
                        "%(default)d)")
    parser.set_defaults(run=_features)


def _features(arguments: argparse.Namespace) -> None:
    if not 1 <= arguments.workers <= 1024:
        raise UserError(f"expected --workers from 1 to 1024, found {arguments.workers}")
    from diffdyad.data.encoded import encode_dataset

    done = encode_dataset(
        arguments.dataset, arguments.encoder, arguments.revision, arguments.cache, arguments.device,
        arguments.workers, progress=sys.stderr.isatty(),
    )
    print(f"{done.folder}: features of {done.num_shards} shards ({done.num_made} new), {done.size / 1e9:.3g} GB")


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("manifest", metavar="MANIFEST", help="YAML file that names the recordings")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the exchanges (no default)")
    parser.add_argument("--shard", metavar="I/N", help="do the I-th of N parts, as one of N machines that share the "
                        "folder (default: all)")
    parser.add_argument("--workers", metavar="N", type=whole, help="processes (default: one per core)")
    parser.set_defaults(run=_build)


def _build(arguments: argparse.Namespace) -> None:
    _check_workers(arguments.workers)
    from diffdyad.data.recordings.build import build_dataset

    report = build_dataset(arguments.manifest, arguments.out, arguments.workers, arguments.shard,
                           progress=True)  # fmt: skip
    print("\n".join(report.lines()))
    report.raise_for_failures()


def _check_workers(workers: int | None) -> None:
    if workers is not None and not 1 <= workers <= 1024:
        raise UserError(f"expected --workers from 1 to 1024, found {workers}")


def _add_turns(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", metavar="FILE", nargs="+", help="a recording (any sound or video file), or one per "
                        "person")
    parser.add_argument("--rttm", metavar="OUT", help="file for who speaks when (default: printed)")
    parser.add_argument("--layout", metavar="NAME", help="channels (a person per channel) or mixed (one microphone); "
                        "default: as the file is")
    parser.add_argument("--speakers", metavar="N", type=whole, default=2, help="people on one microphone (default: "
                        "%(default)d)")
    parser.add_argument("--activity", metavar="NAME", default="silero", help="voice activity by silero or energy "
                        "(default: %(default)s)")
    parser.add_argument("--picture", metavar="PNG", help="picture of the timeline, turns and exchanges (default: none)")
    parser.set_defaults(run=_turns)


def _turns(arguments: argparse.Namespace) -> None:
    from diffdyad.data.recordings.timeline import write_turns

    print(write_turns(
        arguments.files, arguments.rttm, arguments.layout, arguments.speakers, arguments.activity, arguments.picture,
    ))  # fmt: skip


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DIR", help="folder of a dataset of exchanges")
    parser.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> None:
    from diffdyad.data.doctor import check_dataset

    findings = check_dataset(arguments.dataset, progress=sys.stderr.isatty())
    print("\n".join(findings.lines()))
    findings.raise_for_problems()


def _add_describe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DIR", help="folder of a dataset of exchanges")
    parser.add_argument("--against", metavar="DIR", help="another dataset, to compare with (default: none)")
    parser.add_argument("--head", metavar="FILE", help="a FLAME file of the motion's edition, for smiles and brows of "
                        "FLAME motion (default: they are left out)")
    parser.add_argument("--out", metavar="DIR", help="folder for describe.json and describe.png (default: not written)")
    parser.set_defaults(run=_describe)


def _describe(arguments: argparse.Namespace) -> None:
    from diffdyad.survey import describe_datasets

    lines = describe_datasets(arguments.dataset, arguments.against, arguments.out, progress=sys.stderr.isatty(),
                              head=arguments.head)  # fmt: skip
    print("\n".join(lines))


def _add_filter(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DIR", help="folder of a dataset of exchanges")
    parser.add_argument("--set", metavar="NAME=VALUE", nargs="+", action="extend", default=[], help="thresholds, a "
                        "number or off: max_residual_db (-6), min_valid_share (0.5), max_head_speed_deg_s (300); "
                        "min_head_speed_deg_s, min_active_speaker_score, max_sync_lag_ms, max_reprojection_px, "
                        "max_overlap_ratio, min_reactivity, min_head_percentile (off)")
    parser.add_argument("--out", metavar="DIR", help="new folder for the dataset (default: it is changed itself)")
    parser.set_defaults(run=_filter)


def _filter(arguments: argparse.Namespace) -> None:
    from diffdyad.data.filtering import filter_dataset
    from diffdyad.data.filters import Filters

    tally = filter_dataset(arguments.dataset, Filters.of(arguments.set), arguments.out, sys.stderr.isatty())
    print("\n".join([f"{arguments.out or arguments.dataset}: {tally.lines()[0]}", *tally.lines()[1:]]))


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="dualtalk, unilstalk, learning2listen, lm-listener, beat2, "
                        "livelink, react, vico or seamless")
    parser.add_argument("source", metavar="DIR", help="folder of the dataset")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the exchanges (no default)")
    parser.add_argument("--basis", metavar="NAME", help="of FLAME expressions (default: the importer's own)")
    parser.add_argument("--fps", metavar="HZ", type=number, help="the motion's rate, where the dataset does not "
                        "state it (default: not given; of --tracked, the video's)")
    parser.add_argument("--tracker", metavar="NAME", help="for datasets of videos (react, vico, seamless): preview "
                        "(MediaPipe and our own fit), or smirk, emica, vhap, deca, motion (default: none)")
    parser.add_argument("--tracked", metavar="DIR", help="what that tracker made of the videos, named like these "
                        "(default: not given)")
    parser.add_argument("--swapped", metavar="fix|keep|drop", default="fix", help="what to do where the two voices "
                        "are exchanged (default: %(default)s)")
    parser.add_argument("--split", metavar="source|people", default="source", help="the dataset's own split, or one "
                        "by who speaks with whom (default: %(default)s)")
    parser.add_argument("--limit", metavar="N", type=whole, help="at most so many recordings (default: all)")
    parser.add_argument("--workers", metavar="N", type=whole, help="processes (default: one per core)")
    parser.set_defaults(run=_import)


def _import(arguments: argparse.Namespace) -> None:
    if arguments.name == "recordings":
        raise UserError("recordings come with a manifest: expected a dataset's name, found 'recordings'; run "
                        "`diffdyad data build MANIFEST --out DIR`")  # fmt: skip
    _check_workers(arguments.workers)
    from diffdyad.data.importers.corpus import import_dataset
    from diffdyad.data.importers.recording import ImportOptions

    options = ImportOptions(arguments.basis, arguments.fps, arguments.swapped, arguments.split, arguments.limit,
                            arguments.tracker, arguments.tracked)  # fmt: skip
    report = import_dataset(
        arguments.name, arguments.source, arguments.out, options, arguments.workers, progress=True
    )
    print("\n".join(report.lines()))
    report.raise_for_failures()


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="DIR|FILE", help="folder of a dataset of exchanges, or a motion.npz")
    parser.add_argument("--format", metavar="NAME", required=True, help="dualtalk, arkit-csv, gagavatar or pirender")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder for the files (no default)")
    parser.add_argument("--audio", metavar="FILE", help="the sound that goes with a motion.npz (default: not given)")
    parser.add_argument("--split", metavar="NAME", help="of a dataset: train, validation or test (default: all)")
    parser.add_argument("--limit", metavar="N", type=whole, help="at most so many exchanges (default: all)")
    parser.add_argument("--expression-map", metavar="FILE", help="for pirender: .npz whose `matrix` (E, 64) takes our "
                        "expressions to BFM's (default: not given)")
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> None:
    from diffdyad.data.exporting import export_dataset
    from diffdyad.media import read_audio

    report = export_dataset(
        arguments.source, arguments.out, arguments.format, arguments.split, arguments.limit,
        read_audio(arguments.audio) if arguments.audio is not None else None, arguments.expression_map,
        progress=sys.stderr.isatty(),
    )
    print("\n".join(report.lines()))
    report.raise_for_failures()
