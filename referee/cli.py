"""The command line: `referee new | run | probe | evaluate | verdicts | tables | report | demo | check | originality |
calibrate`.

Exit status: 0 fine; 1 something fell short (a stale or unreadable record, a failed probe, a stale table, training that
broke off); 2 wrong usage; 130 interrupted. A claim that is not reproduced is a result, not an error: it exits with 0.

This module imports little; each command imports what it needs when it is called.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from common.errors import ConfigError, DeviceError, UserError, nearest
from common.records import PRESETS_ORDER
from referee.project import UsageError

STAGES = ("proposed", "v1", "v2", "published")
FINE, FELL_SHORT, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130
COMMANDS = (
    "new",
    "run",
    "runs",
    "cost",
    "fetch",
    "probe",
    "evaluate",
    "verdicts",
    "tables",
    "report",
    "demo",
    "check",
    "originality",
    "forge",
    "calibrate",
    "review",
    "respond",
    "decide",
    "status",
    "gate",
    "assign",
    "grade",
    "site",
)

SCHEDULED = ("gpus", "cpus", "memory", "time", "array", "partition", "processes", "detach", "estimate")
"""Flags of `referee run` that say something only with --on."""

EPILOG = """exit status: 0 fine, 1 something fell short, 2 wrong usage, 130 interrupted.
A claim that is not reproduced is a result, not an error: the commands still exit with 0."""


class Parser(argparse.ArgumentParser):
    """argparse, with our errors: the nearest name, the command that helps, exit status 2."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}\nSee '{self.prog} --help'.")


PROBES = """what they have to be given (each docstring in common/probes says what that is, and what may be given):
  probes.bits(preprocess)
  probes.bound(bound_fn, log_p, x)
  probes.normalisation(log_prob, *, shape, levels)
  probes.density(log_prob, *, dims, extent)
  probes.impossible(log_prob, x, *, entropy)
  probes.causality(conditionals, x)
  probes.cache(cached, naive)
  probes.sampler(sample, *, steps)
  probes.schedule(alpha_bar)
  probes.gan(critic, generator, critic_step, generator_step)
  probes.bijection(forward, inverse, x)
  probes.quantise(preprocess)
  probes.invariance(score, x)
  probes.resume(train)"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = Parser(
        prog="referee",
        description="Reproduce papers, judge their claims by what came out, and show it to readers.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="""examples:
  referee demo iwae                       the whole movement: run, judge, report
  referee run iwae --preset smoke         reproduce a paper in seconds, on bundled data
  referee verdicts                        claim, paper, ours, verdict: all papers
  referee report iwae                     one HTML page about one paper

""" + EPILOG,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="store_true", help="of this, of torch and of Python")
    commands = top.add_subparsers(dest="command", metavar="command", parser_class=Parser)

    def add(name: str, what: str, description: str, examples: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=what,
            description=description,
            epilog=f"examples:\n{examples}\n\n{EPILOG}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_help=name != "run",  # whose help also lists the paper's own settings
        )

    new = add(
        "new",
        "begin a project for a paper",
        "Make projects/<paper>/ from templates/project/: project.yaml, code, tests, notebook, README. It runs as it\n"
        "stands, on a small stand-in model; what is to be written by the team is marked 'WRITE:'.",
        "  referee new iwae --title 'Importance Weighted Autoencoders' --venue ICLR --year 2016 --arxiv 1509.00519 \\\n"
        "      --authors 'Yuri Burda, Roger Grosse, Ruslan Salakhutdinov' --family vae --team ada,bo",
    )
    new.add_argument("paper", help="the project's name, as in projects/<paper>: small letters, digits and _")
    new.add_argument("--title", required=True)
    new.add_argument("--authors", required=True, metavar="NAME,...", help="or with ; where names hold commas")
    new.add_argument("--venue", required=True, help="where it was published, like ICLR")
    new.add_argument("--year", required=True)
    new.add_argument("--arxiv", metavar="NUMBER", help="like 1509.00519; leave it away if the paper is not there")
    new.add_argument("--family", required=True, help="the kind of model, like vae; it decides what reviewers check")
    new.add_argument("--team", required=True, metavar="HANDLE,...", help="the team's public handles")

    run = add(
        "run",
        "train and evaluate a paper's runs",
        "Train, evaluate and record the runs of a preset. What is finished is reused, what was interrupted continues.\n"
        "Any setting of the paper may be changed with --<setting> <value>; the result then goes to a folder of its\n"
        "own (<preset>+<digest of the changes>) and does not count for the claims. 'referee run <paper> --help' lists\n"
        "the settings. Runs under torchrun too: torchrun --nproc-per-node 2 -m referee run ...",
        "  referee run iwae --preset laptop\n"
        "  referee run iwae --preset paper --only iwae-1l-k50 --device cuda\n"
        "  referee run iwae --preset smoke --k 3 --seed 1\n"
        "  referee run iwae --preset laptop --seeds 0-4\n"
        "  referee run iwae vae --preset paper --on slurm --gpus 1 --time 8:00:00\n"
        "  referee run iwae --preset laptop --fresh --publish",
    )
    run.add_argument("-h", "--help", action="store_true", help="show this help, and the paper's settings")
    run.add_argument("papers", nargs="*", metavar="paper", help="the project's name, as in projects/<paper>")
    run.add_argument("--preset", metavar="NAME", help=f"{', '.join(PRESETS_ORDER)} (those the paper has)")
    run.add_argument("--only", metavar="RUN,...", help="these runs of the preset, not all")
    run.add_argument("--seeds", metavar="S-T|S,...", help="each run with each of these seeds (default: the preset's)")
    how = run.add_mutually_exclusive_group()
    how.add_argument("--resume", action="store_true", help="only if there is something to continue")
    how.add_argument("--fresh", action="store_true", help="start over; what is there goes when its successor is done")
    run.add_argument("--device", default="auto", metavar="NAME", help="auto (default), cpu, cuda, cuda:1, mps")
    run.add_argument("--out", default="runs", metavar="DIR", help="folder for runs (default: runs, in the repository)")
    run.add_argument("--jobs", type=int, metavar="N", help="runs at a time on a CPU (default: one a core)")
    run.add_argument("--publish", action="store_true", help="copy the results to projects/<paper>/results afterwards")
    run.add_argument("--quiet", action="store_true", help="no progress bars")
    many = run.add_argument_group("as jobs of a scheduler, several papers at once; docs: from laptop to cluster")
    many.add_argument(
        "--on", choices=("slurm", "local"), help="queue the runs, one job each; local: jobs of this machine"
    )
    many.add_argument("--all", action="store_true", help="every paper that has the preset")
    many.add_argument("--gpus", type=int, metavar="N", help="a job; with several, so many processes train together")
    many.add_argument("--cpus", type=int, metavar="N", help="processor cores a process (default: 2)")
    many.add_argument("--memory", type=float, metavar="GB", help="a job (default: what the scheduler gives)")
    many.add_argument("--time", metavar="H:MM:SS", help="a job, then it saves and queues again (default: an hour)")
    many.add_argument("--array", type=int, metavar="N", help="at most so many jobs at a time")
    many.add_argument("--partition", metavar="NAME", help="of the cluster (default: the cluster's own)")
    many.add_argument("--processes", type=int, metavar="N", help="that train one run together, on processors")
    many.add_argument("--detach", action="store_true", help="queue, and do not watch")
    many.add_argument(
        "--estimate", action="store_true", help="try a few steps first where nobody knows what a run costs"
    )

    runs = add(
        "runs",
        "what became of runs that were queued",
        "Every 'referee run --on' is a call, with its runs. Their states are read from what is on the disk and from\n"
        "the scheduler's queue, never from its accounting. 'collect' says what is done and what is not, and prints\n"
        "scores; it waits for nothing and may be called again. A call is named by its beginning or its end; without a\n"
        "name it is the newest. Exits with 1 if a run of the call failed.",
        "  referee runs\n  referee runs collect\n  referee runs watch 20270108-101500-3fa2\n  referee runs cancel 3fa2",
    )
    runs.add_argument("action", nargs="?", choices=("list", "collect", "watch", "cancel"), help="default: list")
    runs.add_argument("call", nargs="?", metavar="CALL", help="default: the newest")
    runs.add_argument("--all-calls", action="store_true", help="list the older ones, too")
    runs.add_argument("--out", default="runs", metavar="DIR", help="folder for runs (default: runs, in the repository)")
    _format(runs)

    cost = add(
        "cost",
        "what a preset's runs take: time, memory, and how that is known",
        "For each run: what a record of the same settings says, and on which hardware it was made; else an estimate\n"
        "from a trial here, which begins the run in a temporary folder, stops it after some seconds and counts up.\n"
        "Settings are changed as for 'referee run'.",
        "  referee cost iwae --preset paper\n  referee cost iwae --preset paper --no-trial\n"
        "  srun --gpus 1 referee cost iwae --preset paper      # tries where the runs will be",
    )
    cost.add_argument("papers", nargs="*", metavar="paper", help="the project's name, as in projects/<paper>")
    cost.add_argument("--all", action="store_true", help="every paper that has the preset")
    cost.add_argument("--preset", metavar="NAME", help=f"{', '.join(PRESETS_ORDER)} (those the paper has)")
    cost.add_argument("--only", metavar="RUN,...", help="these runs of the preset, not all")
    cost.add_argument("--seeds", metavar="S-T|S,...", help="each run with each of these seeds (default: the preset's)")
    cost.add_argument("--seconds", type=float, metavar="S", help="that a trial trains (default: 20)")
    cost.add_argument("--no-trial", action="store_true", help="only what records say")
    cost.add_argument(
        "--device", default="auto", metavar="NAME", help="of trials: auto (default), cpu, cuda, cuda:1, mps"
    )
    _format(cost)

    fetch = add(
        "fetch",
        "get and verify the data, networks and weights that papers need, for machines without a network",
        "Find on this machine, or fetch into the cache, all that the presets' runs will ask for: data sets, feature\n"
        "networks, weights of other projects; verify each by its digest. Then runs need no network. Where there is\n"
        "none, set REFEREE_OFFLINE=1: what is missing is said at once, by this command too, which then only looks.\n"
        "Exits with 1 if something is missing. docs/cluster.md says how machines share a cache.",
        "  referee fetch iwae\n  referee fetch ddpm ddim --preset laptop\n  referee fetch --all\n"
        "  REFEREE_OFFLINE=1 referee fetch iwae --preset paper",
    )
    fetch.add_argument("papers", nargs="*", metavar="paper", help="projects")
    fetch.add_argument("--all", action="store_true", help="all projects")
    fetch.add_argument("--preset", metavar="NAME", help="for this preset's runs, not for all presets")

    probe = add(
        "probe",
        "check a paper's mathematics on tiny instances",
        "Run the checks that the paper's module offers (its PROBES) and print each verdict with its numbers.\n"
        "Exits with 1 if one fails, or if project.yaml names what the module does not have.",
        "  referee probe iwae\n  referee probe iwae --only bound,resume\n  referee probe iwae --format json\n"
        "  referee probe iwae --publish\n\n" + PROBES,
    )
    probe.add_argument("paper")
    probe.add_argument("--only", metavar="PROBE,...", help="these probes, not all")
    probe.add_argument("--publish", action="store_true", help="keep the outcome in projects/<paper>/results")
    _format(probe)

    evaluate = add(
        "evaluate",
        "measure samples, whoever made them, or a model by its weights",
        "Compare samples with a split of a data set, by metrics that each have an error and a protocol. Samples are a\n"
        "folder of images (png, jpg, ...), or a file of one tensor (.npy, .npz, .safetensors, .pt): uint8 codes, or\n"
        "floats in [0, 1], which are rounded. Nothing is resized, and nothing in a file is run. With a paper, its\n"
        "data set is the default, and --weights measures its model: what the paper measures (own), or metrics of\n"
        "draws. The outcome is a record in runs/<paper>/evaluate/. docs/evaluate.md says what to watch for.",
        "  referee evaluate --dataset fashion_mnist --samples my-samples/\n"
        "  referee evaluate --dataset mnist --samples x.npy --metrics fd,precision --network raw-pixels\n"
        "  referee evaluate ddpm --weights projects/ddpm/results/laptop/eps-simple/weights.safetensors\n"
        "  referee evaluate ddpm --weights w.safetensors --preset laptop --run eps-simple --metrics own,kid --n 500\n"
        "  referee evaluate --metrics list",
    )
    evaluate.add_argument("paper", nargs="?", help="the project's name; leave it away for models that are not here")
    evaluate.add_argument(
        "--samples", metavar="DIR|FILE", help="what is measured; or features, made by --keep-features"
    )
    evaluate.add_argument("--weights", metavar="FILE", help="weights of the paper's model (.safetensors)")
    evaluate.add_argument("--preset", metavar="NAME", help="with --run: the configuration that the weights belong to")
    evaluate.add_argument("--run", metavar="NAME", help="(default: the config.json beside the weights)")
    evaluate.add_argument("--metrics", metavar="NAME,...", help="'list' says which there are; own, of --weights")
    evaluate.add_argument("--dataset", metavar="NAME", help="compare with this data set (default: the paper's)")
    evaluate.add_argument("--reference", metavar="DIR|FILE", help="compare with this instead: images, or features")
    evaluate.add_argument("--split", choices=("train", "val", "test"), help="default: test; of --reference: not said")
    evaluate.add_argument("--allow-train", action="store_true", help="--split train is meant, and the scores say so")
    evaluate.add_argument("--network", metavar="NAME,...", help="whose features (default: the data set's own)")
    evaluate.add_argument("--n", type=int, metavar="N", help="so many of the samples, by --seed; draws (default: 1000)")
    evaluate.add_argument("--seed", type=int, default=0, metavar="S", help="of draws, choices, resamples (default: 0)")
    evaluate.add_argument("--ema", action="store_true", help="the samples, or weights, are of averaged weights")
    evaluate.add_argument(
        "--device", default="auto", metavar="NAME", help="for a model: auto (default), cpu, cuda, mps"
    )
    evaluate.add_argument("--output", metavar="DIR", help="where record.json goes (default: runs/<paper>/evaluate/...)")
    evaluate.add_argument("--keep-features", action="store_true", help="write the samples' features beside the record")
    evaluate.add_argument("--quiet", action="store_true", help="no progress bars")
    _format(evaluate)

    verdicts = add(
        "verdicts",
        "compare claims with records",
        "Claim, paper, ours, verdict: computed from the published records, or from the runs on this machine.\n"
        "Exits with 1 if a record cannot be read or is stale (made by other code than the present).",
        "  referee verdicts\n  referee verdicts iwae --all\n  referee verdicts iwae --runs\n"
        "  referee verdicts iwae --format json",
    )
    verdicts.add_argument("paper", nargs="?", help="one paper; all when not given")
    verdicts.add_argument("--runs", action="store_true", help="judge runs/ on this machine, not what is published")
    verdicts.add_argument("--all", action="store_true", help="list the claims that were not attempted, too")
    _format(verdicts)

    tables = add(
        "tables",
        "write the generated tables into READMEs",
        "Regenerate, from project.yaml and the published records, what stands between markers such as\n"
        "<!-- referee:claims --> and <!-- /referee:claims --> in projects/<paper>/README.md (claims, results,\n"
        "presets, deviations) and in the repository's README.md (projects). Nobody types a result twice. The table of\n"
        "projects is written on main: a submission leaves it alone, and --check lets a changed project wait for it.",
        "  referee tables iwae\n  referee tables              # all of them, on main\n"
        "  referee tables --check      # exit 1 and name what is stale",
    )
    tables.add_argument("paper", nargs="?", help="one paper's README; all, and the repository's, when not given")
    tables.add_argument("--check", action="store_true", help="change nothing; exit 1 if a table is stale")

    report = add(
        "report",
        "write one HTML page about a paper",
        "One self-contained page: claims and verdicts, curves, samples, scores, deviations, how it was run, how to\n"
        "run it again, how to cite it. Its path is printed last.",
        "  referee report iwae\n  referee report iwae --runs\n  referee report iwae -o iwae.html --open",
    )
    report.add_argument("paper")
    report.add_argument("--runs", action="store_true", help="report runs/ on this machine, not what is published")
    report.add_argument("-o", "--output", metavar="FILE", help="default: runs/<paper>/report.html")
    report.add_argument("--open", action="store_true", help="open it in the browser")

    review = add(
        "review",
        "begin a review, see what is wrong with it, measure it",
        "Review a paper. Files are reviews/<paper>/<handle>.md; reviews/README.md says what goes into them.",
        "  referee review start iwae --as carol\n  referee review check iwae\n"
        "  referee review evidence iwae 'check NB-003'\n  referee review score iwae",
    )
    actions = review.add_subparsers(dest="action", metavar="action", parser_class=Parser, required=True)
    start = actions.add_parser(
        "start",
        help="write the form, with what the machine answers first",
        description="Write reviews/<paper>/<handle>.md: pinned to a commit, with the checklist for the paper's\n"
        "family. Items that checks and probes answer are answered, with their evidence. Overwrites nothing.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    start.add_argument("paper")
    start.add_argument("--as", dest="handle", required=True, metavar="HANDLE", help="your public handle")
    start.add_argument("--commit", metavar="SHA", help="what is reviewed (default: the last commit)")
    start.add_argument("--round", type=int, default=1, choices=range(1, 10), metavar="N", help="2 after a revision")
    start.add_argument("--no-probes", action="store_true", help="run none of the paper's code")
    look = actions.add_parser(
        "check",
        help="what is wrong with a paper's reviews, response and decision",
        description="Hold the files in reviews/<paper>/ against the checklist, the reviewed commit, the course, the\n"
        "history and each other. Exits with 1 if something is wrong.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    look.add_argument("paper")
    look.add_argument("--run", action="store_true", help="run cited checks, probes and referee commands again")
    look.add_argument("--changed", metavar="BASE", help="refuse changes since BASE to files that are not --actor's")
    look.add_argument("--actor", metavar="HANDLE", help="who made the changes, as the forge tells")
    look.add_argument("--format", choices=("table", "json", "github", "markdown"), default="table")
    cite = actions.add_parser("evidence", help="the line that cites a check, a probe or a command", allow_abbrev=False)
    cite.add_argument("paper")
    cite.add_argument("what", help="like 'check NB-003', 'probe bound' or 'command make test'")
    cite.add_argument("--commit", metavar="SHA", help="where (default: the last commit)")
    measure = actions.add_parser("score", help="what each reviewer found and missed", allow_abbrev=False)
    measure.add_argument("paper")
    _format(measure)

    respond = add(
        "respond",
        "begin the team's answer to the reviews",
        "Write reviews/<paper>/response.md with every finding of every review, to be answered. Overwrites nothing.",
        "  referee respond iwae",
    )
    respond.add_argument("paper")

    decide = add(
        "decide",
        "begin the editor's decision",
        "Write reviews/<paper>/decision.md with all findings, their answers and the verdicts. Overwrites nothing.",
        "  referee decide iwae --as founding-editor",
    )
    decide.add_argument("paper")
    decide.add_argument("--as", dest="handle", required=True, metavar="HANDLE", help="your public handle")

    demo = add(
        "demo",
        "the whole movement on one paper: run, judge, re-execute the notebook, report, site",
        "Reproduce the paper's laptop preset, print its verdicts, re-execute its notebook, write its report and build\n"
        "the public site, which shows what is published.\n"
        "Where the data cannot be reached it says so and shows the same movement with the smoke preset.",
        "  referee demo\n  referee demo iwae --preset smoke",
    )
    demo.add_argument("paper", nargs="?", default="iwae")
    demo.add_argument("--preset", default="laptop", metavar="NAME")
    demo.add_argument("--device", default="auto", metavar="NAME")

    forge = add(
        "forge",
        "what the workflows ask of GitHub",
        "The commands of .github/workflows that speak with GitHub's API, or prepare what it takes. They read\n"
        "GITHUB_REPOSITORY and GITHUB_TOKEN; `--dry-run` prints what would be written and needs neither.",
        "  referee forge papers --base origin/main --format lines\n"
        "  referee forge comment summary/ --event event.json --dry-run\n"
        "  referee forge approved 12 0123456789abcdef0123456789abcdef01234567",
    )
    asked = forge.add_subparsers(dest="what", metavar="what", parser_class=Parser, required=True)
    papers = asked.add_parser("papers", help="the projects that changed since a base, or all", allow_abbrev=False)
    papers.add_argument("--base", metavar="REF", help="compare with its merge base; all projects when not given")
    papers.add_argument("--under", choices=("projects", "reviews"), default="projects", help="which folder changed")
    papers.add_argument("--groups", type=int, default=256, metavar="N", help="at most so many jobs (default: 256)")
    papers.add_argument("--format", choices=("github", "lines"), default="github")
    comment = asked.add_parser("comment", help="put a summary on its pull request", allow_abbrev=False)
    comment.add_argument("folder", help="where the summary's .md files are")
    comment.add_argument("--event", required=True, metavar="FILE", help="the workflow_run event")
    comment.add_argument("--dry-run", action="store_true", help="print the comment, and leave it at that")
    approved = asked.add_parser("approved", help="has an editor approved this very commit?", allow_abbrev=False)
    approved.add_argument("pull", type=int, help="the pull request's number")
    approved.add_argument("commit", help="all 40 digits")
    issue = asked.add_parser("issue", help="open or update the issue about a failed night", allow_abbrev=False)
    issue.add_argument("folder", help="where the .json files of `referee check --format json` are")
    issue.add_argument("--dry-run", action="store_true", help="print the issue, and leave it at that")
    night = asked.add_parser("status", help="print what a night's jobs left, as one file", allow_abbrev=False)
    night.add_argument("folder", help="where the .json files of `referee check --format json` are")
    asked.add_parser("fetch", help="bring the last night's status to build/night.json", allow_abbrev=False)

    check = add(
        "check",
        "what a submission lacks: files, results, notebook, tests, README, safety",
        "Apply the rules of a stage to projects and say what is wrong, where, and what to do. Only files are read;\n"
        "--run also imports the paper, runs its tests, probes and notebook, and compares it with other projects.\n"
        "Exits with 1 if a finding is an error. docs/checks.md explains each rule.",
        "  referee check iwae\n  referee check iwae --stage v2 --run\n  referee check --changed origin/main\n"
        "  referee check iwae --only NB-003,NB-007",
    )
    check.add_argument("papers", nargs="*", metavar="paper", help="projects; all when none is given")
    check.add_argument("--stage", choices=STAGES, help="default: what project.yaml states")
    check.add_argument("--changed", metavar="BASE", help="the projects that changed since the work left this branch")
    check.add_argument("--only", metavar="RULE,...", help="these rules, not all")
    check.add_argument("--run", action="store_true", help="also what runs code or reads other projects")
    check.add_argument("--notebooks", action="store_true", help="also execute the notebooks and compare")
    check.add_argument(
        "--format", choices=("table", "json", "github", "markdown"), default="table", help="for whom it is said"
    )
    check.add_argument("--document", action="store_true", help="write docs/checks.md, check nothing")

    originality = add(
        "originality",
        "what of a project's code stands elsewhere, too",
        "Compare the Python of projects with all other projects, earlier cohorts and given sources, token by token\n"
        "and whatever names were changed. People judge the matches: the command exits with 0.",
        "  referee originality iwae\n  referee originality iwae --earlier ../2025 --source ../their-repository",
    )
    originality.add_argument("papers", nargs="*", metavar="paper", help="projects; all when none is given")
    originality.add_argument("--earlier", action="append", default=[], metavar="DIR", help="an earlier cohort's folder")
    originality.add_argument("--source", action="append", default=[], metavar="PATH", help="code it may have come from")
    _format(originality)
    calibrate = add(
        "calibrate",
        "plant known mistakes: do tests, probes, checks and reviewers find them?",
        "The mistakes are those of referee/mutations/, each planted in a copy, never here. 'measure' writes the table\n"
        "docs/calibration.md; it takes long, and continues where it was interrupted. 'start' gives a reviewer a copy\n"
        "of a project with a few of them, and you the key; 'score' compares the review with the key.",
        "  referee calibrate measure --only iwae-mean-of-logs\n"
        "  referee calibrate start iwae --as ada --seed 7 --into ../ada --private ../keys\n"
        "  referee calibrate score ada.md --key ../keys/ada-iwae.key.json",
    )
    _calibrate(calibrate)

    status = add(
        "status",
        "where all projects stand",
        "Each project's stage, what the next one waits for, when it is due, and who reviews it (✓ has written).",
        "  referee status\n  referee status iwae vae\n  referee status --format json",
    )
    status.add_argument("papers", nargs="*", metavar="paper", help="these papers; all when not given")
    _format(status)

    gate = add(
        "gate",
        "what the commits since a base do, and whether they may",
        "Which transition the commits since the merge base with --base make, whether it is allowed now, and what it\n"
        "requires: stages, deadlines, frozen claims, who may change what. Only what is committed is looked at.\n"
        "Exits with 1 if the gate is shut.",
        "  referee gate --base origin/main\n"
        "  referee gate --base origin/main --actor ada\n"
        "  referee gate --base origin/main --event event.json --format github",
    )
    gate.add_argument("--base", required=True, metavar="REF", help="the branch that the change goes to")
    gate.add_argument("--event", metavar="FILE", help="GitHub's payload: tells when it was pushed (GITHUB_EVENT_PATH)")
    gate.add_argument("--actor", metavar="HANDLE", help="whose change it is (default: whom the event names)")
    gate.add_argument(
        "--private", metavar="DIR", help="an editor's folder: keep there when the forge received it, for the grades"
    )
    gate.add_argument("--format", choices=("table", "json", "github", "markdown"), default="table")

    assign = add(
        "assign",
        "give every project at v1 its reviewers",
        "Assign the reviewers of course.yaml to the projects at v1: nobody to their own or in conflict, no two teams\n"
        "to each other, loads alike, expertise where it can be. What was assigned before changes as little as\n"
        "possible. Writes reviews/assignment.yaml. Exits with 1, and says what stands in the way, if it cannot be.",
        "  referee assign --seed 7 --dry-run\n  referee assign --seed 7",
    )
    assign.add_argument("--seed", type=int, required=True, metavar="N", help="decides between equal assignments")
    assign.add_argument("--dry-run", action="store_true", help="print the assignment, and leave it at that")
    assign.add_argument("--previous", metavar="FILE", help="follow this one (default: reviews/assignment.yaml)")

    grade = add(
        "grade",
        "compute grades, into a folder outside the repository",
        "Compute everybody's grade from the last commit, its history and marks.yaml in the editor's private folder;\n"
        "write grades.csv, grades.json and an explanation for each person there. docs/grading.md has the formula.\n"
        "Exits with 1 if a mark is missing or contradicts the history.",
        "  referee grade --private ../grades\n  referee grade --private ../grades --as-of 2027-02-14",
    )
    grade.add_argument("--private", required=True, metavar="DIR", help="holds marks.yaml; not inside the repository")
    grade.add_argument(
        "--as-of", metavar="DATE", help="'2027-02-14' or '2027-02-14 18:00' (default: the last commit's)"
    )
    _format(grade)

    site = add(
        "site",
        "build the public site, or serve it",
        "Make the pages of all projects, results, reviews and guides from the repository's files: Markdown in\n"
        "build/site/tree, and the finished site in build/site/html, which works from that folder and asks nothing of\n"
        "the network. 'serve' shows it at an address of this machine and builds again what changes.",
        "  referee site build\n  referee site build --strict\n  referee site serve --port 8001",
    )
    make = site.add_subparsers(dest="action", metavar="action", parser_class=Parser, required=True)
    build = make.add_parser("build", help="write it to build/site/html", allow_abbrev=False)
    build.add_argument("--strict", action="store_true", help="a warning is an error, and leaves the old site in place")
    serve = make.add_parser("serve", help="serve it on this machine; pages reload when a file changes")
    serve.add_argument("--port", type=int, default=8000, metavar="N", help="default: 8000")
    return top


def _calibrate(command: argparse.ArgumentParser) -> None:
    actions = command.add_subparsers(dest="action", metavar="action", required=True, parser_class=Parser)

    measure = actions.add_parser(
        "measure", help="which tests, probes and checks notice which mistake", allow_abbrev=False
    )
    measure.add_argument("--only", metavar="NAME,...", help="these mistakes, not all")
    measure.add_argument("--fresh", action="store_true", help="ask again what was asked on the same code")
    measure.add_argument("--table", action="store_true", help="measure nothing; write the table from what is known")
    measure.add_argument("--jobs", type=int, default=1, metavar="N", help="mistakes at a time (default: 1)")
    measure.add_argument("--timeout", type=float, default=600, metavar="S", help="seconds a command may take")

    start = actions.add_parser("start", help="give a reviewer a copy with planted mistakes", allow_abbrev=False)
    start.add_argument("paper", nargs="?", default="iwae", help="the project that is copied (default: iwae)")
    start.add_argument("--as", dest="handle", required=True, metavar="HANDLE", help="the reviewer")
    start.add_argument(
        "--seed", type=int, required=True, metavar="S", help="decides what is planted; keep it to yourself"
    )
    start.add_argument("--mistakes", type=int, default=4, metavar="N", help="how many (default: 4)")
    start.add_argument("--into", required=True, metavar="DIR", help="the reviewer's folder; must not exist")
    start.add_argument("--private", required=True, metavar="DIR", help="where the key goes; not inside the repository")

    score = actions.add_parser("score", help="compare a review with the key", allow_abbrev=False)
    score.add_argument("review", help="the file that the reviewer gave back")
    score.add_argument("--key", required=True, metavar="FILE", help="the key that 'start' wrote")
    _format(score)


def _format(command: argparse.ArgumentParser) -> None:
    command.add_argument("--format", choices=("table", "json"), default="table", help="for people, or for programs")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. A user's mistake is a message, never a traceback."""
    for stream in (sys.stdout, sys.stderr):  # a terminal without these letters gets '?' instead of an error
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    # Before torch loads OpenMP: threads that wait asleep instead of spinning. On a machine that is busy with other
    # things too, spinning makes small steps several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        return _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our output has gone, as in `referee verdicts | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINE
    except OSError as error:
        from referee.runs.planning import disk_is_full

        if not disk_is_full(error):
            raise
        print(f"referee: {error}. Make room, and give the same command again.", file=sys.stderr)
        return FELL_SHORT
    except UserError as error:
        print(f"referee: {error}", file=sys.stderr)
        if type(error).__name__ in (
            "Interrupted",
            "Stopped",
        ):  # the first is of common.training, which would bring torch
            return INTERRUPTED
        return WRONG_USAGE if isinstance(error, UsageError | ConfigError | DeviceError) else FELL_SHORT


def _versions() -> str:
    """'refereed-generative-models 0.1.0, torch 2.5.1, Python 3.11.9': of what is installed; nothing is imported."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    said = []
    for name in ("refereed-generative-models", "torch"):
        try:
            said.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            said.append(f"{name} (not installed)")
    return ", ".join([*said, f"Python {platform.python_version()}"])


def _dispatch(arguments: list[str]) -> int:
    top = parser()
    if not arguments:
        top.print_help()
        return WRONG_USAGE
    first = arguments[0]
    if not first.startswith("-") and first not in COMMANDS:
        hint = nearest(first, COMMANDS)
        raise UsageError(f"unknown command '{first}'.{hint} Commands: {', '.join(COMMANDS)}.")
    options, rest = top.parse_known_args(arguments)
    if options.command == "run":
        if options.on is not None and not options.help:
            from referee.runs import scheduling

            options.typed = arguments
            return scheduling.run_command(options, rest)
        if len(options.papers) > 1 or options.all:
            raise UsageError("run: several papers at once are for --on slurm or --on local; name one here.")
        if given := [flag for flag in SCHEDULED if getattr(options, flag) not in (None, False)]:
            raise UsageError(f"run: --{given[0]} is for runs that are queued: give --on slurm or --on local with it.")
        from referee.runs import running

        options.paper = options.papers[0] if options.papers else None
        return running.run_command(options, rest, top)
    if options.command == "cost":
        from referee.runs import cost

        return cost.cost_command(options, rest)
    if options.command == "runs":
        from referee.runs import calls

        if rest:
            raise UsageError(f"runs: unknown argument '{rest[0]}'.\nSee 'referee runs --help'.")
        return calls.runs_command(options)
    if options.command is None and options.version:
        print(_versions())
        return FINE
    if options.command is None:
        raise UsageError(f"unknown argument '{arguments[0]}'.\nSee 'referee --help'.")
    if rest:
        raise UsageError(f"{options.command}: unknown argument '{rest[0]}'.\nSee 'referee {options.command} --help'.")
    if options.command == "new":
        from referee import scaffold

        return scaffold.new_command(options)
    if options.command == "forge":
        from referee import forge

        return forge.forge_command(options)
    if options.command == "fetch":
        from referee.runs import fetching

        return fetching.fetch_command(options)
    if options.command == "probe":
        from referee.runs import running

        return running.probe_command(options)
    if options.command == "evaluate":
        from referee import evaluating

        return evaluating.evaluate_command(options)
    if options.command == "demo":
        from referee.runs import running

        return running.demo_command(options)
    if options.command == "verdicts":
        from referee import show

        return show.verdicts_command(options)
    if options.command == "tables":
        from referee import tables

        return tables.tables_command(options)
    if options.command == "check":
        from referee.checks import command

        return command.check_command(options)
    if options.command == "originality":
        from referee import originality

        return originality.originality_command(options)
    if options.command == "calibrate":
        from referee import calibrate, measuring

        actions = {
            "measure": measuring.measure_command,
            "start": calibrate.start_command,
            "score": calibrate.score_command,
        }
        return actions[options.action](options)
    if options.command in ("review", "respond", "decide"):
        from referee import reviewing

        commands = {
            "review": reviewing.review_command,
            "respond": reviewing.respond_command,
            "decide": reviewing.decide_command,
        }
        return commands[options.command](options)
    if options.command == "status":
        from referee import status

        return status.status_command(options)
    if options.command == "gate":
        from referee import gate

        return gate.gate_command(options)
    if options.command == "assign":
        from referee import assignment

        return assignment.assign_command(options)
    if options.command == "grade":
        from referee import grades

        return grades.grade_command(options)
    if options.command == "site":
        try:
            from referee.site import build
        except ModuleNotFoundError as error:
            message = f"the site cannot be built: {error}. Run 'make setup', or 'pip install -e .[site]'."
            raise UserError(message) from None
        return build.site_command(options)
    from referee import report

    return report.report_command(options)


if __name__ == "__main__":
    sys.exit(main())
