"""The `diffdyad` command: flags, help and exit codes. Imports nothing heavy until a command runs."""

from __future__ import annotations

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from itertools import islice
from typing import NoReturn

from diffdyad import __version__
from diffdyad.data_commands import add_data
from diffdyad.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, UserError, redact
from diffdyad.flags import number, whole
from diffdyad.interrupts import interruptible
from diffdyad.judging.options import add_commands as add_judging_commands
from diffdyad.settings import DEFAULT_GAP_S, DTYPES, MOST_SAMPLES, MOST_STEPS, SCHEDULERS, SampleSettings


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0 done, 2 wrong arguments or unreadable input, 3 a batch
    command finished and some items failed, 130 interrupted, 1 anything else. Errors are one line on stderr
    (with DIFFDYAD_DEBUG=1, the traceback before it)."""
    try:
        with interruptible():
            argv = list(sys.argv[1:] if argv is None else argv)
            if argv[:1] == ["train"]:
                argv[1:] = _gather_overrides(argv[1:])
            arguments = _parser().parse_args(argv)
            arguments.run(arguments)
        return EXIT_OK
    except UserError as error:
        return _fail(error.exit_code, str(error))
    except KeyboardInterrupt:
        return _fail(EXIT_INTERRUPTED, "interrupted")
    except MemoryError as error:
        return _fail(EXIT_FAILED, f"out of memory: {error}" if str(error) else "out of memory")
    except Exception as error:
        if _is_full_disk(error):
            return _fail(EXIT_FAILED, "the disk is full; free some space and give the same command again, or another "
                         "output folder")  # fmt: skip
        if isinstance(error, OSError):
            return _fail(EXIT_FAILED, f"{type(error).__name__}: {error}")
        return _fail(EXIT_FAILED, f"{type(error).__name__}: {error} (DIFFDYAD_DEBUG=1 shows where)")


def _is_full_disk(error: Exception) -> bool:
    """Python's error, or the words of safetensors, whose error is none of the system's."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in full or any(f"(os error {code})" in str(error) for code in full)


def _fail(code: int, message: str) -> int:
    if os.environ.get("DIFFDYAD_DEBUG") == "1":
        print(redact(traceback.format_exc()), end="", file=sys.stderr)
    print(f"diffdyad: {redact(' '.join(message.split()))}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    """Errors are a UserError of one line, flags are never abbreviated."""

    def __init__(self, **options):
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(**options)

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see `{self.prog} --help`")


def _parser() -> _Parser:
    parser = _Parser(
        prog="diffdyad",
        description="The face that answers: head motion of a person who answers another, from both voices.",
        epilog="Exit codes: 0 done, 2 wrong arguments or unreadable input, 3 some items of a batch failed, "
        "130 interrupted,\n1 anything else. DIFFDYAD_DEBUG=1 prints tracebacks.",
    )
    parser.add_argument("--version", action="version", version=f"diffdyad {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_sample(commands.add_parser(
        "sample", help="generate an answer's motion and video",
        description="Generates the responder's head motion from the responder's speech and the previous speaker's\n"
        "turn. Without --audio, an embedded exchange is answered.",
    ))  # fmt: skip
    _add_train(commands.add_parser(
        "train", help="train a model from a config",
        usage="diffdyad train --config FILE [--push-to-hub USER/REPO] [section.key=value ...]",
        description="Trains a model; the same command again resumes. Keys given here win over the file, in any order.\n"
        "Under several processes: accelerate launch train.py --config FILE ...",
    ))  # fmt: skip
    data = commands.add_parser("data", help="make datasets of exchanges")
    add_data(data.add_subparsers(title="commands", metavar="COMMAND", required=True))
    add_judging_commands(commands)
    _add_push(commands.add_parser(
        "push", help="put a trained pipeline on the Hugging Face Hub",
        description="Uploads a pipeline with its model card as one commit. The login is that of `hf auth login`, or\n"
        "the token in HF_TOKEN. What is on the Hub is sampled from with --model USER/REPO.",
    ))  # fmt: skip
    return parser


# -------------------------------------------------------------------------------------------- sample


def _add_sample(parser: argparse.ArgumentParser) -> None:
    d = SampleSettings()
    who = parser.add_argument_group("who speaks")
    who.add_argument("--audio", metavar="FILE", help="the responder's speech, any sound or video file "
                     "(default: that of --exchange)")
    who.add_argument("--exchange", metavar="NAME|DIR", help="an embedded exchange, or a folder of one, instead of "
                     "--audio and --context-* (default: the first embedded one)")
    who.add_argument("--context-audio", metavar="FILE", help="the previous speaker's voice, any sound or video file; "
                     "the last 20 s count (default: not given)")
    who.add_argument("--context-motion", metavar="FILE", help="the previous speaker's motion .npz (default: not given)")
    who.add_argument("--context-video", metavar="FILE", help="the previous speaker's video: its sound and its face, "
                     "tracked with MediaPipe (docs/recordings.md); the last 20 s count (default: not given)")
    who.add_argument("--context-text", metavar="STR", help="what the previous speaker said (default: not given)")
    who.add_argument("--context-gap", metavar="S", type=number, help="silence between the turns, seconds; negative "
                     f"= they overlap (default: {DEFAULT_GAP_S:g}; an exchange has its own)")
    how = parser.add_argument_group("how the context counts")
    how.add_argument("--guidance-scale", metavar="W", type=number, nargs="+", default=list(d.guidance_scale),
                     help="strength of the previous turn's influence, a factor: 0 none, 1 as trained; several "
                     "values: a sweep with the same noise (default: 1)")
    how.add_argument("--audio-guidance-scale", metavar="W", type=number, default=d.audio_guidance_scale,
                     help="strength of the responder's own speech, a factor (default: %(default)g)")
    how.add_argument("--start", metavar="none|neutral|smile|listen|FILE", default=d.start, help="first frames: the "
                     "model's choice, a resting face, a smile, the model's own listening before, or the last frames "
                     "of a motion .npz (default: %(default)s)")
    how.add_argument("--style", metavar="FILE", help="another motion .npz of the responder, for the habitual face "
                     "(default: not given)")
    run = parser.add_argument_group("sampling")
    run.add_argument("--steps", metavar="N", type=whole, help=f"denoising steps, 1 to {MOST_STEPS} (default: the "
                     "model's own)")
    run.add_argument("--scheduler", metavar="NAME", help=f"one of {', '.join(SCHEDULERS)} (default: the model's own)")
    run.add_argument("--seed", metavar="N", type=whole, default=d.seed, help="whole number of 0 or more; the same "
                     "seed gives the same motion (default: %(default)d)")
    run.add_argument("--num-samples", metavar="K", type=whole, default=d.num_samples, help="answers per scale, "
                     f"1 to {MOST_SAMPLES} (default: %(default)d)")
    parts = parser.add_argument_group("parts")
    parts.add_argument("--model", metavar="default|DIR|USER/REPO", default=d.model, help="the embedded model, a "
                       "pipeline's folder, or a repository of the Hub, which is fetched; USER/REPO@REVISION: a branch, "
                       "a tag or a commit of it (default: %(default)s)")
    parts.add_argument("--head", metavar="clay|FILE", default=d.head, help="the embedded head, or a FLAME file (.pkl, "
                       ".npz); an ARKit model's motion is then retargeted to the file's own expressions, and "
                       "motion.npz is in its basis (default: %(default)s)")
    parts.add_argument("--device", metavar="NAME", default=d.device, help="auto, cpu, cuda, cuda:1, ...; auto = cuda "
                       "where there is one (default: %(default)s)")
    parts.add_argument("--dtype", metavar="NAME", default=d.dtype, help=f"one of {', '.join(DTYPES)} "
                       "(default: %(default)s)")
    out = parser.add_argument_group("results")
    out.add_argument("--out", metavar="DIR", help="folder for motion.npz, video.mp4 and sample.json (default: "
                     "outputs/NAME, after the audio or the exchange)")
    out.add_argument("--no-video", dest="video", action="store_false", help="leave out video.mp4 (default: made)")
    parser.set_defaults(run=_sample)


def _sample(arguments: argparse.Namespace) -> None:
    values = {key: value for key, value in vars(arguments).items() if key != "run"}
    settings = SampleSettings(**{**values, "guidance_scale": tuple(values["guidance_scale"])})
    from diffdyad.sample import sample

    result = sample(settings)
    record = result.record
    print(f"{result.out}: {', '.join(result.files)} ({record['motion']['seconds']:.2f} s of motion, "
          f"{record['seconds']['total']:.1f} s in all, real-time factor {record['real_time_factor']:.3f})")
    for line in record["resolved"]["knob"] or []:
        print(line)


# --------------------------------------------------------------------------------------------- train


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", metavar="FILE", required=True, help="YAML file, such as configs/rehearsal.yaml "
                        "(no default); its keys are explained in diffdyad/config.py")
    parser.add_argument("overrides", metavar="section.key=value", nargs="*", help="values that win over the file, also "
                        "as --section.key value (default: none)")
    parser.add_argument("--push-to-hub", metavar="USER/REPO", help="put the trained pipeline there at the end, with "
                        "the license in card.license; login and license are checked first (default: not pushed)")
    parser.set_defaults(run=_train)


def _gather_overrides(argv: Sequence[str]) -> list[str]:
    """`--section.key value`, in any order, as `section.key=value` after the flags that the parser knows."""
    flags, overrides = [], []
    tokens = iter(argv)
    for token in tokens:
        name, sign, value = token.partition("=")
        if name in ("-h", "--help"):
            flags.append(token)
        elif name in ("--config", "--push-to-hub"):
            flags += [token] if sign else [token, *islice(tokens, 1)]
        elif name.startswith("--"):
            if not sign and (value := next(tokens, None)) is None:
                raise UserError(f"expected a value after {token}; see `diffdyad train --help`")
            overrides.append(f"{name[2:]}={value}")
        else:
            overrides.append(token)
    return flags + overrides


def _train(arguments: argparse.Namespace) -> None:
    from diffdyad.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    repository = arguments.push_to_hub if os.environ.get("RANK", "0") == "0" else None  # one of several processes
    if repository is not None:
        from diffdyad.push import check_beforehand

        check_beforehand(repository, config.card.license)
    from diffdyad.training import train

    pipeline = train(config)
    if repository is not None:
        from diffdyad.push import push

        print(push(pipeline, repository))


# ---------------------------------------------------------------------------------------------- push


def _add_push(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="folder of a pipeline, or of a training run")
    parser.add_argument("repository", metavar="USER/REPO", help="repository on the Hub; made where it is missing")
    parser.add_argument("--private", action="store_true", help="make the repository private (default: public, "
                        "unless an organisation has it otherwise)")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to commit to, made where it is missing (default: "
                        "main)")
    parser.add_argument("--license", metavar="ID", help="the model's license by its name on the Hub, such as "
                        "apache-2.0 (default: that of the model card; without one nothing is pushed)")
    parser.add_argument("--message", metavar="TEXT", help="of the commit (default: Upload a diffdyad pipeline)")
    parser.set_defaults(run=_push)


def _push(arguments: argparse.Namespace) -> None:
    for flag in ("folder", "revision", "license", "message"):
        if getattr(arguments, flag) == "":
            raise UserError(f"expected a value for {'DIR' if flag == 'folder' else f'--{flag}'}, found an empty one")
    from diffdyad.push import push

    print(push(arguments.folder, arguments.repository, arguments.license, arguments.private, arguments.revision,
               arguments.message))


if __name__ == "__main__":
    sys.exit(main())
