"""Flags of the commands that judge. Light: nothing heavy is imported until one of them runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from diffdyad.errors import UserError
from diffdyad.flags import number, whole


def within(flag: str, value: float | None, low: float, high: float) -> None:
    """Raises UserError where a value was given and lies outside."""
    if value is not None and not low <= value <= high:
        raise UserError(f"expected {flag} from {low:g} to {high:g}, found {value:g}")


def add_commands(commands) -> None:
    """Adds `evaluate` and `context` to the subparsers of the command line."""
    _add_evaluate(commands.add_parser(
        "evaluate", help="score generated motion against the truth, beside control rows",
        usage="diffdyad evaluate DATASET --model default|DIR|USER/REPO --out DIR [...]\n"
        "       diffdyad evaluate --pred DIR --truth DIR --out DIR [...]",
        description="Scores a model on a dataset of exchanges, or anybody's motion files against the truth's:\n"
        "docs/metrics.md. Writes metrics.json and metrics.md.",
    ))  # fmt: skip
    _add_context(commands.add_parser(
        "context", help="does the previous turn change the motion, and in the right direction?",
        description="Measures whether, where, when and how strongly the previous turn changes what a model generates,\n"
        "against wrong turns and none: docs/context.md. Writes report.html and report.json. The same command\n"
        "again goes on where it stopped. Under several processes: accelerate launch -m diffdyad.cli context ...",
    ))  # fmt: skip


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", nargs="?", help="folder of a dataset of exchanges, for --model")
    what = parser.add_argument_group("what is scored")
    what.add_argument("--model", metavar="default|DIR|USER/REPO|nearest", help="a model, which answers the exchanges "
                      "of DATASET; nearest: the baseline that copies the training answer whose sound is nearest "
                      "(default: not given)")
    what.add_argument("--pred", metavar="DIR", help="a folder of motion files instead (default: not given)")
    what.add_argument("--truth", metavar="DIR", help="the folder of the true motions of --pred (default: not given)")
    model = parser.add_argument_group("with a model")
    model.add_argument("--split", metavar="NAME", default="test", help="of the dataset (default: %(default)s)")
    model.add_argument("--limit", metavar="N", type=whole, help="at most so many exchanges, spread over all people "
                       "(default: all)")
    model.add_argument("--guidance-scale", metavar="W", type=number, default=1.0, help="strength of the previous "
                       "turn's influence, a factor (default: %(default)g)")
    model.add_argument("--num-samples", metavar="K", type=whole, default=1, help="answers per exchange (default: "
                       "%(default)d)")
    model.add_argument("--steps", metavar="N", type=whole, help="denoising steps; 1 is a regression: the mean of what "
                       "the model expects (default: the model's own)")
    model.add_argument("--start", metavar="listen|none", default="listen", help="generate the listening before the "
                       "answer, too, or the answer alone (default: %(default)s)")
    model.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu, cuda, ... (default: %(default)s)")
    files = parser.add_argument_group("with files")
    files.add_argument("--layout", metavar="NAME", default="auto", help="of --pred: auto, diffdyad, dualtalk, unils, "
                       "arkit (default: %(default)s)")
    files.add_argument("--truth-layout", metavar="NAME", default="auto", help="of --truth (default: %(default)s)")
    files.add_argument("--basis", metavar="NAME", default="flame2020", help="of foreign FLAME codes (default: "
                       "%(default)s)")
    files.add_argument("--fps", metavar="HZ", type=number, help="resample both sides to this rate (default: not given, "
                       "they must agree)")
    files.add_argument("--file-fps", metavar="HZ", type=number, help="rate of files that do not say theirs (default: "
                       "25 for DualTalk and UniLS)")
    files.add_argument("--compat", metavar="NAME", nargs="+", default=[], help="add other projects' figures as their "
                       "code prints them, for comparison with papers: dualtalk, lm_listener (50 FLAME expressions, and "
                       "partners), unils, codetalker (--head FILE) (default: none)")
    files.add_argument("--compat-vertices", metavar="FILE", help="their lip_vertices and upper_face_vertices, .json or "
                       ".npz, for unils and codetalker (default: our vertex sets)")
    both = parser.add_argument_group("both")
    both.add_argument("--out", metavar="DIR", required=True, help="folder for the report (no default)")
    both.add_argument("--head", metavar="clay|FILE", help="a head in the motion's basis, for figures in millimetres "
                      "(default: the clay head for ARKit, none for FLAME)")
    both.add_argument("--units", metavar="people|clips", default="people", help="what is independent (default: "
                      "%(default)s)")
    both.add_argument("--seed", metavar="N", type=whole, default=0, help="whole number of 0 or more (default: "
                      "%(default)d)")
    both.add_argument("--workers", metavar="N", type=whole, help="processes (default: one per core)")
    parser.set_defaults(run=_evaluate)


def _evaluate(arguments: argparse.Namespace) -> None:
    with_model, with_files = bool(arguments.model), bool(arguments.pred or arguments.truth)
    if with_model == with_files:
        raise UserError("expected either DATASET --model MODEL, or --pred DIR --truth DIR, found "
                        f"{'both' if with_model else 'neither'}; see `diffdyad evaluate --help`")  # fmt: skip
    if with_model and not arguments.dataset:
        raise UserError("expected a DATASET for --model, found none; make one with `diffdyad data rehearse`")
    if with_files and not (arguments.pred and arguments.truth):
        raise UserError(f"expected both --pred and --truth, found no {'--truth' if arguments.pred else '--pred'}")
    if with_model and (arguments.compat or arguments.compat_vertices):
        raise UserError("expected --pred and --truth with --compat, found --model: write its answers to files with "
                        "`diffdyad sample`")  # fmt: skip
    if arguments.start not in ("listen", "none"):
        raise UserError(f"expected --start listen or none, found {arguments.start!r}")
    within("--workers", arguments.workers, 1, 1024)
    within("--limit", arguments.limit, 2, 10**9)
    within("--num-samples", arguments.num_samples, 1, 64)
    within("--steps", arguments.steps, 1, 1000)
    within("--guidance-scale", arguments.guidance_scale, -100, 100)
    within("--seed", arguments.seed, 0, 2**63 - 1)
    for flag in ("fps", "file_fps"):
        within(f"--{flag.replace('_', '-')}", getattr(arguments, flag), 1, 1000)
    from diffdyad.judging import evaluate

    report = (evaluate.evaluate_model if with_model else evaluate.evaluate_folders)(arguments, sys.stderr.isatty())
    facts = report.facts
    print(f"{arguments.out}: metrics.json, metrics.md ({facts['clips']} clips, {facts['seconds'] / 60:.1f} min, "
          f"{facts['units']} independent {'people or pairs' if facts['independent'] == 'people' else 'clips'})")
    for found in report.theirs:
        print(f"\n{found.mode}, as its own code prints it ({found.about})")
        print("\n".join(found.table()))


def _add_context(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", metavar="DATASET", help="folder of a dataset of exchanges")
    parser.add_argument("--model", metavar="default|DIR|USER/REPO", default="default", help="the model that is judged "
                        "(default: %(default)s)")
    parser.add_argument("--out", metavar="DIR", help="folder for the report; needed but for --power (no default)")
    parser.add_argument("--power", action="store_true", help="no model: print how many independent pairs a given "
                        "effect needs (default: off)")
    parser.add_argument("--placebo", metavar="DIR|USER/REPO", help="a model trained on permuted contexts, for which "
                        "nothing must be found (default: not given)")
    what = parser.add_argument_group("what is asked")
    what.add_argument("--smallest-effect", metavar="R2", type=number, default=0.01, help="smallest effect of interest, "
                      "in partial R2 of the expression given the own audio; state it before the run (default: "
                      "%(default)g)")
    what.add_argument("--lips-margin-mm", metavar="MM", type=number, default=0.3, help="by which the opening of the "
                      "lips may change, millimetres (default: %(default)g)")
    what.add_argument("--answer-s", metavar="S", type=number, default=4.0, help="seconds of the answer that count, "
                      "from its onset (default: %(default)g)")
    run = parser.add_argument_group("the run")
    run.add_argument("--split", metavar="NAME", default="test", help="of the dataset (default: %(default)s)")
    run.add_argument("--limit-pairs", metavar="N", type=whole, help="at most so many independent pairs (default: all)")
    run.add_argument("--budget", metavar="F", type=number, default=1.0, help="a factor on the number of exchanges that "
                     "are answered: 1 = 32 of them (default: %(default)g)")
    run.add_argument("--critic-pairs", metavar="N", type=whole, default=4000, help="real pairs that the retrieval's "
                     "critic is trained on, of the other splits (default: %(default)d)")
    run.add_argument("--head", metavar="clay|FILE", help="a head in the motion's basis, for millimetres (default: the "
                     "clay head for ARKit, none for FLAME)")
    run.add_argument("--verdict-only", action="store_true", help="the endpoints and nothing that is only described: no "
                     "dose curve, no map of where and when, no control rows, no clips (default: all)")
    run.add_argument("--no-video", dest="video", action="store_false", help="leave out the clips and the blind page "
                     "(default: made)")
    run.add_argument("--store", action="store_true", help="leave what was found about the guidance scale beside the "
                     "model's weights, for `diffdyad sample` to say; MODEL must be a folder (default: off)")
    run.add_argument("--answers", metavar="FILE", nargs="+", help="what the blind page saved, one file per person, to "
                     "be read into the report (default: DIR/blind/answers*.json, where there are any)")
    run.add_argument("--seed", metavar="N", type=whole, default=0, help="whole number of 0 or more (default: "
                     "%(default)d)")
    run.add_argument("--workers", metavar="N", type=whole, help="processes that read the dataset (default: one per "
                     "core)")
    run.add_argument("--device", metavar="NAME", default="auto", help="auto, cpu, cuda, ... (default: %(default)s)")
    parser.set_defaults(run=_context)


def _context(arguments: argparse.Namespace) -> None:
    if not arguments.power and arguments.out is None:
        raise UserError("expected --out DIR for the report, found none; or --power, which writes none")
    if arguments.store and arguments.verdict_only:
        raise UserError("expected --store or --verdict-only, found both: what is stored is the dose curve")
    if arguments.store and not Path(arguments.model).is_dir():
        raise UserError(f"expected --model to be a folder for --store, found {arguments.model!r}")
    for name in arguments.answers or ():
        if not Path(name).is_file():
            raise UserError(f"expected the blind page's answers in {name}, found no such file")
    within("--smallest-effect", arguments.smallest_effect, 1e-4, 0.5)
    within("--lips-margin-mm", arguments.lips_margin_mm, 0.01, 10)
    within("--answer-s", arguments.answer_s, 1, 5)
    within("--limit-pairs", arguments.limit_pairs, 2, 10**9)
    within("--budget", arguments.budget, 0.25, 1000)  # of fewer answers than 8 nothing follows
    within("--critic-pairs", arguments.critic_pairs, 100, 10**7)
    within("--seed", arguments.seed, 0, 2**31 - 1)
    within("--workers", arguments.workers, 1, 1024)
    from diffdyad.judging import context

    (context.power if arguments.power else context.run)(arguments, sys.stderr.isatty())
