"""The `fer` command: one subcommand a verb. Nothing heavy is imported until the config is known to be good."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

from fer_experiments.ambient import check_surroundings, pin_warnings, speak_utf8
from fer_experiments.errors import EMPTY, Refused, UserError
from fer_experiments.quiet import importing, own_process, silenced
from fer_experiments.terminal import DASHES, fit, say
from fer_experiments.termination import signals_as_exceptions

OVERRIDES = """\
Overrides are Hydra's: group=option and key=value, for example
  {example}
Groups: data, backbone, head, training, tracking, compute, experiment, gate (see conf/).
"""
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST)


@dataclass(frozen=True)
class Verb:
    """One subcommand: what it says of itself, and the function of a room that does it, with the config first.

    needs: what is looked for before anything heavy is imported: data, a backbone with them, or a space with all its
    backbones. backend: Keras is imported next. prints: what the function returns; a number is the exit code. own:
    arguments besides overrides, and its names for them. chosen: groups, where no override chooses. several: of values
    parted by commas each makes a config. words: its name for words that are no overrides, and theirs in its help.
    forms, flags: options, of what it prints, and of what else it does.
    """

    summary: str
    example: str
    room: str
    needs: str = ""
    backend: bool = False
    prints: bool = False
    own: Mapping[str, str] = field(default_factory=dict)
    chosen: tuple[str, ...] = ()
    several: bool = False
    words: tuple[str, str, str] | None = None
    forms: tuple[str, ...] = ()
    flags: Mapping[str, str] = field(default_factory=dict)


# fmt: off
VERBS = {
    "data": Verb("count, clean and split the faces, and draw a sheet of them", "fer data data.split=stratified",
        "experiment.look:show_data", needs="data"),
    "download": Verb(
        "get FER2013 into data/ through kagglehub, and check it", "fer download", "data.download:fetch", prints=True),
    "features": Verb("forward all images through the frozen backbone, once", "fer features backbone=facenet",
        "experiment.prepare:prepare_features", needs="backbone", backend=True),
    "probe": Verb(
        "say what features are worth, by nearest neighbours and logistic regression; several values are compared",
        "fer probe backbone=pocket,facenet", "experiment.probe:probe", needs="backbone", backend=True, several=True,
        chosen=("head=linear",)),
    "train": Verb(
        "train one head and record the run", "fer train data=fer2013 backbone=facenet head=conv head.l2=1e-4",
        "experiment.train:train", needs="backbone", backend=True),
    "sweep": Verb(
        "search hyperparameters, or go on with a stopped search", "fer sweep sweep=facenet sweep.max_trials=20",
        "report.sweep:sweep", needs="space", backend=True, chosen=("sweep=",)),
    "sweeps": Verb(
        "list the sweeps: running, stopped, finished, and the best of each; watch [<id>] shows one while it runs, "
        "stop <id> ends it after its trials in flight, with now=true at once", "fer sweeps watch quick-1a2b3c4d",
        "search.sweeps:sweeps", prints=True, own={"stop": "stopped", "watch": "watched", "now": "now"}),
    "clean": Verb(
        "list what takes room and nothing needs, and remove it after a yes: heads beyond sweep.keep (or keep=best:5), "
        "runs deleted in the UI, features unused for days=30", "fer clean keep=best:5",
        "registry.clean:clean", prints=True, own={"keep": "kept", "days": "days"}, flags={"yes": "do not ask"}),
    "report": Verb(
        "write what a sweep found as one HTML page; sweep= is its id or name, else the last; a,b: two side by side",
        "fer report sweep=facenet", "report.report:write_report", prints=True, own={"sweep": "sweep"}),
    "compare": Verb(
        "one table of runs, sweeps, registered models (fer-<task>, fer-<task>/<version>) and published systems (their "
        "names in conf/published, or all of them: published)",
        "fer compare facenet fer-seven published --markdown",
        "report.compare:compare", words=("names", "row", "what are its rows, and overrides"),
        forms=("markdown", "csv", "html")),
    "promote": Verb(
        "refit a sweep's best configs, test the winner once, and register it; sweep= as in report, or run=<id>",
        "fer promote sweep=facenet gate=strict promote.dry_run=true",
        "registry.promote:promote", backend=True, own={"sweep": "sweep", "run": "run_id"},
        chosen=("promote=default", "gate=default")),
    "seeds": Verb(
        "fit a recorded run's config again with n=10 seeds, and say how much of what it came to is noise; run=<id>",
        "fer seeds run=<id> n=10",
        "registry.noise:repeat", backend=True, own={"run": "run_id", "n": "count"}, chosen=("promote=default",)),
    "rollback": Verb(
        "make the previous model the champion again, or version=<number>", "fer rollback", "registry.versions:rollback",
        prints=True, own={"version": "number"}),
    "models": Verb(
        "list the registered models: versions, aliases, test metrics; trust version=<number> shows whose files a "
        "version's are, and records what they are", "fer models",
        "registry.versions:list_models", prints=True, own={"trust": "trusting", "version": "number"}),
    "predict": Verb(
        "tell the expression of faces: pictures, folders, or - for names (or one picture) on standard input; each is "
        "a crop that one face fills (no constant one), or searched for faces", "fer predict face.jpg photos/ --json",
        "serving.predict:predict", own={"version": "version", "marked": "marked"},
        flags={"find-faces": "look for faces in photographs; marked=<folder>: copies with these framed and labelled"},
        words=("paths", "picture", "pictures, folders or -, and overrides"), forms=("json", "csv")),
    "serve": Verb(
        "answer over HTTP on crops of one face; host=127.0.0.1 port=5001", "fer serve port=8080", "serving.serve:serve",
        own={"version": "version", "host": "host", "port": "port", "allowed_hosts": "allowed_hosts"}),
    "export": Verb(
        "write the champion as format=savedmodel, onnx or openvino to output=<path>, checked against it",
        "fer export format=onnx output=face.onnx",
        "serving.export:export", own={"version": "version", "format": "form", "output": "output"}),
    "pretrain": Verb(
        "train the pocket backbone from scratch", "fer pretrain pretrain.epochs=2", "experiment.pretrain:run_pretrain",
        needs="data", backend=True, chosen=("data=fer2013_seven", "pretrain=pocket")),
    "ui": Verb(
        "compare runs in MLflow's UI, in your browser alone; port=5000", "fer ui port=0", "tracking.ui:show",
        own={"port": "port"}),
    "doctor": Verb(
        "say what this machine has and what is missing", "fer doctor", "doctor:report", backend=True, prints=True),
}
# fmt: on
MANY = replace(VERBS["train"], room="experiment.train:train_many")  # with --multirun


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `fer`; returns the exit code.

    0; 2 for a mistake that its user can mend, 3 for a model that the gate refuses, 130 for Ctrl-C, 143 for SIGTERM.
    """
    if arguments is None:
        speak_utf8()
        own_process()
    pin_warnings()
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = f"fer {words[0]}" if words and words[0] in VERBS else "fer"
    try:
        with signals_as_exceptions():
            return _run(_parsed(words))
    except (UserError, Refused) as error:
        return _said(name, str(error), 3 if isinstance(error, Refused) else 2)
    except KeyboardInterrupt as error:
        on = "" if name[4:] in ("serve", "ui", "sweeps", "train") else "the same command goes on"
        return _said(name, "; ".join(filter(None, ("stopped", str(error) or on))), 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        return _said(name, f"{where}{error.strerror}; make room, mend the permissions, or name another folder", 2)
    return 0


def _said(name: str, message: str, code: int) -> int:
    """Prints what went wrong as one line, and returns the exit code."""
    say(f"{name}: {fit(message)}", sys.stderr)
    return code


def _parsed(words: list[str]) -> argparse.Namespace:
    """verb, multirun, form; overrides; words of a verb's own, which need no look when they follow --.

    Raises:
        UserError: no such verb or option.
    """
    if words and not words[0].startswith("-") and words[0] not in VERBS:
        from fer_experiments.config import close

        raise UserError(f"{words[0]}: no such verb{close(words[0], VERBS) or '; fer --help lists them'}")
    if "" in words:
        raise UserError(f'"": a word {EMPTY}')
    end = words.index("--") if "--" in words else len(words)
    parsed, extra = _parser().parse_known_args(words[:end])
    # argparse cannot take overrides on both sides of an option: what is left over and is no option is an override.
    given, after = [*parsed.overrides, *extra], words[end + 1 :]
    if VERBS[parsed.verb].words:
        is_own = _word_of(parsed.verb)
        parsed.words = [*filter(is_own, given), *after]
        given, after = [word for word in given if not is_own(word)], []
    for word in given:
        if word[0:1] in DASHES:
            hint = "" if word.startswith("-") else f" (its dash is no hyphen: -{word.lstrip(DASHES)})"
            hint += "; pictures of such names go after --" if parsed.verb == "predict" else ""
            raise UserError(f"{word}: no such option{hint}; see fer {parsed.verb} --help")
    parsed.overrides = [*given, *after]
    return parsed


def _word_of(verb: str) -> Callable[[str], bool]:
    """What tells a verb's own words from overrides."""
    if verb == "predict":
        from fer_experiments.serving.predict import names_picture

        return lambda word: names_picture(word, VERBS[verb].own)
    return lambda word: "=" not in word and word[0:1] not in DASHES


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fer",
        allow_abbrev=False,
        description="Facial expressions on a frozen backbone: features once, many heads, every run recorded.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    for name, verb in VERBS.items():
        sub = verbs.add_parser(
            name,
            allow_abbrev=False,
            help=verb.summary,
            description=f"{verb.summary[0].upper()}{verb.summary[1:]}.",
            epilog=OVERRIDES.format(example=verb.example),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _, called, said = verb.words or ("", "override", "what differs from conf/config.yaml")
        sub.add_argument("overrides", nargs="*", metavar=called, help=said)
        for flag, said in verb.flags.items():
            sub.add_argument(f"--{flag}", action="store_true", help=said)
        if name == "train":
            sub.add_argument("-m", "--multirun", action="store_true", help="one run a combination: head=paper,pooled")
        sub.set_defaults(form="table")
        for form in verb.forms:
            said = f"print {form.upper() if len(form) < 5 else form.title()}"
            sub.add_argument(f"--{form}", dest="form", action="store_const", const=form, help=said)
    return parser


def _run(parsed: argparse.Namespace) -> int:
    """Finds out whether the config is good, and hands it over to the verb's room; returns the exit code."""
    check_surroundings()
    multirun = getattr(parsed, "multirun", False)
    verb = MANY if multirun else VERBS[parsed.verb]
    if parsed.verb == "download":
        if parsed.overrides:
            raise UserError(f"{parsed.overrides[0]}: download takes no overrides")
        return _hand_over(VERBS["download"])
    from fer_experiments.config.compose import compose
    from fer_experiments.config.overrides import check_named, check_recorded, split_multirun

    own, implied, words = _own(verb, parsed)
    check_named(words, verb.own)
    configs = [compose(job, implied) for job in (split_multirun(words) if multirun or verb.several else [words])]
    if "run" in verb.own:
        check_recorded(words, () if "gate=default" in verb.chosen else ("promote", "gate"))
    if verb.needs:
        from fer_experiments.search.start import check_needs

        for config in configs:
            check_needs(config, verb.needs)
    return _hand_over(verb, configs) if multirun else _hand_over(verb, *configs, **own)


def _hand_over(verb: Verb, *arguments: Any, **own: Any) -> int:
    """Calls the room, imported here, so that only its own weight is carried; returns the exit code."""
    module, _, function = verb.room.partition(":")
    with importing("keras"), silenced():
        if verb.backend:
            import keras  # noqa: F401  takes seconds
        call = getattr(import_module(f"fer_experiments.{module}"), function)
    said = call(*arguments, **own)
    if verb.prints:
        say(str(said))
    return said if isinstance(said, int) else 0


def _own(verb: Verb, parsed: argparse.Namespace) -> tuple[dict[str, Any], list[str], list[str]]:
    """What the verb's function takes besides a config, groups that it implies, and the overrides that make the config.

    Raises:
        UserError: an argument without a value, or two that exclude each other.
    """
    words = [word.partition("=") for word in parsed.overrides]
    if parsed.verb == "sweeps" and len(words) > 1 and words[0][0] in verb.own and not (words[0][1] or words[1][1]):
        words[:2] = [(words[0][0], "=", words[1][0])]  # stop <id>
    named = {key: value if equals else key for key, equals, value in words if key in verb.own}
    if empty := [key for key, value in named.items() if not value]:
        raise UserError(f"{empty[0]}=: {EMPTY}")
    keys = [word[0] for word in words if word[0] in verb.own]
    if len(clash := [k for k in keys if keys.count(k) > 1] or [k for k in ("sweep", "run") if k in keys]) > 1:
        raise UserError(f"{'= and '.join(clash)}=: say one of them")
    port = named.get("port", "0")
    if not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise UserError(f"port={port}: must be a number up to 65535")
    chosen = [word for word in verb.chosen if (word.partition("=")[0], "=") not in [given[:2] for given in words]]
    if "sweep=" in chosen:
        from fer_experiments.data.download import default_sweep

        chosen = [default_sweep()]
    own: dict[str, Any] = {verb.own[key]: int(value) if key == "port" else value for key, value in named.items()}
    own |= {name: getattr(parsed, name) for name in (flag.replace("-", "_") for flag in verb.flags)}
    own |= {verb.words[0]: parsed.words, "form": parsed.form} if verb.words else {}
    return own, chosen, ["".join(word) for word in words if word[0] not in verb.own]


if __name__ == "__main__":
    sys.exit(main())
