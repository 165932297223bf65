"""The `fer` command: one subcommand a verb. Nothing heavy is imported until the config is known to be good."""

from __future__ import annotations

import argparse
import difflib
import errno
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fer_experiments.ambient import check_backend, pin_warnings, speak_utf8
from fer_experiments.errors import Refused, UserError
from fer_experiments.quiet import silenced
from fer_experiments.termination import signals_as_exceptions

if TYPE_CHECKING:
    from fer_experiments.config import Config

OVERRIDES = """\
Overrides are Hydra's: group=option and key=value, for example
  {example}
Groups: data, backbone, head, training, tracking, compute, experiment, gate (see conf/).
"""
DASHES = "-\u2010\u2011\u2012\u2013\u2014\u2212"
PICTURES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm")
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EEXIST)
DIFFERS = "what differs from conf/config.yaml"
VERBS = {
    "data": (
        "count, clean and split the faces, and draw a sheet of them",
        "fer data data.split=stratified",
    ),
    "download": ("get FER2013 into data/ through kagglehub, and check it", "fer download"),
    "features": ("forward all images through the frozen backbone, once", "fer features backbone=facenet"),
    "train": ("train one head and record the run", "fer train data=fer2013 backbone=facenet head=conv head.l2=1e-4"),
    "sweep": ("search hyperparameters, or go on with a stopped search", "fer sweep sweep=facenet sweep.max_trials=20"),
    "sweeps": ("list the sweeps: running, stopped, finished, and the best of each", "fer sweeps"),
    "report": (
        "write what a sweep found as one HTML page; sweep= is the id or the name of a recorded one, else the last",
        "fer report sweep=facenet",
    ),
    "promote": (
        "refit a sweep's best configs, test the winner once, and register it; sweep= as in report, or run=<id>",
        "fer promote sweep=facenet gate=strict promote.dry_run=true",
    ),
    "rollback": ("make the previous model the champion again, or version=<number>", "fer rollback"),
    "models": ("list the registered models: versions, aliases, test metrics", "fer models"),
    "predict": (
        "tell the expression of faces: pictures, folders, or - for names (or one picture) on standard input; "
        "no face is looked for, every picture is taken for one",
        "fer predict face.jpg photos/ --json",
    ),
    "serve": ("answer over HTTP with the champion; host=127.0.0.1 port=5001", "fer serve port=8080"),
    "export": (
        "write the champion as format=savedmodel, onnx or openvino to output=<path>, checked against it",
        "fer export format=onnx output=face.onnx",
    ),
    "pretrain": ("train the pocket backbone from scratch", "fer pretrain pretrain.epochs=2"),
    "doctor": ("say what this machine has and what is missing", "fer doctor"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `fer`; returns the exit code.

    0; 2 for a mistake that its user can mend, 3 for a model that the gate refuses, 130 for Ctrl-C, 143 for SIGTERM.
    """
    if arguments is None:
        speak_utf8()
    pin_warnings()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = f"fer {words[0]}" if words and words[0] in VERBS else "fer"
    try:
        with signals_as_exceptions():
            return _run(_parsed(words))
    except UserError as error:
        return _said(name, str(error), 2)
    except Refused as error:
        return _said(name, str(error), 3)
    except KeyboardInterrupt:
        return _said(name, "stopped" if name == "fer serve" else "stopped; the same command goes on", 130)
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
    print(f"{name}: {message}".replace("\n", "\\n").replace("\r", "\\r"), file=sys.stderr)
    return code


def _parsed(words: list[str]) -> argparse.Namespace:
    """verb, multirun, form; overrides; pictures (of `predict`), which need no look when they follow --.

    Raises:
        UserError: no such verb or option.
    """
    if words and not words[0].startswith("-") and words[0] not in VERBS:
        raise UserError(f"{words[0]}: no such verb{_close(words[0], VERBS) or '; fer --help lists them'}")
    end = words.index("--") if "--" in words else len(words)
    parsed, extra = _parser().parse_known_args(words[:end])
    # argparse cannot take overrides on both sides of an option: what is left over and is no option is an override.
    given, after = [*parsed.overrides, *extra], words[end + 1 :]
    parsed.pictures = []
    if parsed.verb == "predict":
        parsed.pictures = [*filter(_is_picture, given), *after]
        given, after = [word for word in given if not _is_picture(word)], []
    for word in given:
        if word[0:1] in DASHES:
            hint = "" if word.startswith("-") else f" (its dash is no hyphen: -{word.lstrip(DASHES)})"
            hint += "; pictures of such names go after --" if parsed.verb == "predict" else ""
            raise UserError(f"{word}: no such option{hint}; see fer {parsed.verb} --help")
    parsed.overrides = [*given, *after]
    return parsed


def _is_picture(word: str) -> bool:
    """Whether a word of `fer predict` names a picture, or a folder, and is no override or option."""
    if word == "-" or os.path.exists(word):  # noqa: PTH110  Path.exists raises of a name that is too long
        return True
    key, equals, _ = word.partition("=")
    if word[0:1] in DASHES:
        return False
    return not equals or (Path(word).suffix.lower() in PICTURES and "." not in key)


def _close(name: str, known: Iterable[str]) -> str:
    matches = difflib.get_close_matches(name, list(known), n=2, cutoff=0.5)
    return f"; did you mean {' or '.join(matches)}?" if matches else ""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fer",
        allow_abbrev=False,
        description="Facial expressions on a frozen backbone: features once, many heads, every run recorded.",
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="verb")
    for name, (summary, example) in VERBS.items():
        sub = verbs.add_parser(
            name,
            allow_abbrev=False,
            help=summary,
            description=f"{summary[0].upper()}{summary[1:]}.",
            epilog=OVERRIDES.format(example=example),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        given = ("picture", "pictures, folders or -, and overrides") if name == "predict" else ("override", DIFFERS)
        sub.add_argument("overrides", nargs="*", metavar=given[0], help=given[1])
        if name == "train":
            sub.add_argument(
                "-m", "--multirun", action="store_true", help="one run for every combination: head=paper,pooled"
            )
        if name == "predict":
            sub.set_defaults(form="table")
            for form in ("json", "csv"):
                sub.add_argument(
                    f"--{form}", dest="form", action="store_const", const=form, help=f"print {form.upper()}"
                )
    return parser


def _run(parsed: argparse.Namespace) -> int:
    verb, overrides, multirun = parsed.verb, parsed.overrides, getattr(parsed, "multirun", False)
    check_backend()
    if verb == "download":
        if overrides:
            raise UserError(f"{overrides[0]}: download takes no overrides")
        from fer_experiments.data.download import fetch

        print(fetch())
        return 0
    from fer_experiments.config.compose import compose, split_multirun

    if verb in ("report", "promote", "rollback", "predict", "serve", "export"):
        return _with_record(verb, overrides, parsed.pictures, getattr(parsed, "form", "table"))
    if verb == "sweep" and not any(o.startswith("sweep=") for o in overrides):
        overrides = [_default_sweep(), *overrides]
    if verb == "pretrain":
        overrides = ["data=fer2013_seven", "pretrain=pocket", *overrides]
    configs = [compose(job) for job in split_multirun(overrides)] if multirun else [compose(overrides)]
    if verb in ("sweeps", "models"):
        print(_listed(verb, configs[0]))
        return 0
    for config in configs:
        _check(verb, config)
    if verb != "data":
        _import_backend()
    if multirun:
        from fer_experiments.experiment.train import train_many

        train_many(configs)
    else:
        _work(verb, configs[0])
    return 0


def _with_record(verb: str, arguments: list[str], pictures: list[str], form: str) -> int:
    """The verbs that work on what is recorded: they take a few arguments of their own besides overrides."""
    from fer_experiments.config.checks import EMPTY
    from fer_experiments.config.compose import compose

    own = {"report": ("sweep",), "promote": ("sweep", "run"), "rollback": ("version",), "predict": ("version",)}
    own |= {"serve": ("version", "host", "port"), "export": ("version", "format", "output")}
    named = {a.partition("=")[0]: a.partition("=")[2] for a in arguments if a.partition("=")[0] in own[verb]}
    if empty := [key for key, value in named.items() if not value]:
        raise UserError(f"{empty[0]}=: {EMPTY}")
    overrides = [a for a in arguments if a.partition("=")[0] not in own[verb]]
    if verb == "promote":
        overrides = ["promote=default", *(["gate=default"] if not _given("gate", overrides) else []), *overrides]
    config = compose(overrides)
    if verb == "report":
        from fer_experiments.report.report import write_report

        print(write_report(config, named.get("sweep")))
    elif verb == "promote":
        if len(named) == 2:
            raise UserError("sweep= and run=: say one of them")
        _import_backend()
        from fer_experiments.registry.promote import promote

        promote(config, sweep=named.get("sweep"), run_id=named.get("run"))
    elif verb == "rollback":
        from fer_experiments.registry.versions import rollback

        print(rollback(config, named.get("version")))
    else:
        return _use(verb, config, named, pictures, form)
    return 0


def _use(verb: str, config: Config, named: dict[str, str], pictures: list[str], form: str) -> int:
    """The verbs that use a registered model."""
    version = named.get("version", "champion")
    if verb == "predict":
        from fer_experiments.serving.predict import predict

        return predict(config, pictures, form, version=version)
    if verb == "serve":
        from fer_experiments.serving.serve import serve

        port = named.get("port", "5001")
        if not port.isdecimal() or int(port) > 65535:
            raise UserError(f"port={port}: must be a number up to 65535")
        serve(config, named.get("host", "127.0.0.1"), int(port), version=version)
    else:
        from fer_experiments.serving.export import NEEDED, export

        if not (named.get("format") and named.get("output")):
            raise UserError(f"say format=<one of {', '.join(NEEDED)}> and output=<path>")
        export(config, named["format"], named["output"], version=version)
    return 0


def _given(group: str, overrides: list[str]) -> bool:
    return any(override.startswith(f"{group}=") for override in overrides)


def _listed(verb: str, config: Config) -> str:
    from fer_experiments.config import mlruns_dir

    if verb == "models":
        from fer_experiments.registry.versions import list_models

        return list_models(config)
    from fer_experiments.search.state import list_sweeps

    return list_sweeps(mlruns_dir(config) / "sweeps")


def _check(verb: str, config: Config) -> None:
    """Finds what is missing while nothing heavy is imported yet."""
    from fer_experiments.backbones.preprocessing import parse_scaling
    from fer_experiments.backbones.weights import obtain_weights
    from fer_experiments.data import find_source
    from fer_experiments.data.cleaning import clean_steps
    from fer_experiments.search.space import check_space, searched_backbones

    if verb == "sweep":
        check_space(config)
    if verb != "doctor":
        clean_steps(config.data.clean)
        find_source(config.data)
    if verb in ("features", "train"):
        parse_scaling(config.backbone)
        obtain_weights(config.backbone)
    elif verb == "sweep":
        for backbone in searched_backbones(config):
            parse_scaling(backbone)
            obtain_weights(backbone)


def _work(verb: str, config: Config) -> None:
    """Hands over to the room that does it; imported here, so that only its own weight is carried."""
    if verb == "data":
        from fer_experiments.experiment.look import show_data

        show_data(config)
    elif verb == "features":
        from fer_experiments.executors.executor import open_executor
        from fer_experiments.experiment.prepare import prepare, smoke

        with open_executor(config.compute) as executor:
            prepare(smoke(config), executor=executor)
    elif verb == "train":
        from fer_experiments.experiment.train import train

        train(config)
    elif verb == "sweep":
        from fer_experiments.report.sweep import sweep

        sweep(config)
    elif verb == "pretrain":
        from fer_experiments.experiment.pretrain import run_pretrain

        run_pretrain(config)
    elif verb == "doctor":
        from fer_experiments.doctor import report

        print(report(config))


def _import_backend() -> None:
    """Imports Keras and its backend, which takes seconds."""
    with silenced():
        import keras  # noqa: F401


def _default_sweep() -> str:
    """The real thing where FER2013 is at hand, else the demo; says so."""
    from fer_experiments.config.commands import get_data_command
    from fer_experiments.data import find_fer2013

    found = find_fer2013()
    if found is None:
        print(
            "FER2013 is not at hand ($FER2013, data/fer2013*): running on drawn demo faces with the pocket backbone. "
            f"`{get_data_command()}` gets FER2013."
        )
        return "sweep=quick"
    print(f"FER2013 found at {found}: running sweeps/paper.yaml")
    return "sweep=paper"


if __name__ == "__main__":
    sys.exit(main())
