"""How a registered model is made again, in the words of its card."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from fer_experiments import environment
from fer_experiments.config import Config, options, project_root, to_dict
from fer_experiments.config.commands import command, override
from fer_experiments.config.compose import group_section
from fer_experiments.registry.candidates import Choice


def how_again(config: Config, choice: Choice) -> str:
    """A section of a card: the command that makes the model again, and what it was made with."""
    of = f"sweep={choice.sweep_id}" if choice.sweep_id else f"run={choice.candidates[0].run_id}"
    git, known = environment.git_state(project_root()), environment.versions()
    code = f"fer-experiments {known.get('fer-experiments', '')}, commit {git.commit or 'unknown'}"
    changes = {
        True: ", with uncommitted changes (`environment/git.diff` of the run)",
        None: "; git did not say whether it had uncommitted changes" if git.commit else "",
    }
    made = [code + changes.get(git.dirty, "")]
    lock = project_root() / "requirements.lock"
    if lock.is_file():
        digest = hashlib.sha256(lock.read_bytes()).hexdigest()
        made.append(f"`environment/{lock.name}` of the run, sha256 `{digest[:16]}`")
    words = " ".join(
        f"{name} {known[name]}" for name in ("python", "keras", "tensorflow", "jax", "numpy") if name in known
    )
    lines = "\n".join(f"- {line}" for line in (*made, words))
    again = command("promote", of, *_differing(config), config=config)
    return (
        f"## How it is made again\n\n    {again}\n\nRefits that are on record are taken from there.\n\n{lines}\n\n"
        f"Promoted {datetime.now(UTC):%Y-%m-%d}."
    )


def _differing(config: Config) -> list[str]:
    """The overrides of the sections promote and gate, and where the data lie, that a command does not have without."""
    words = []
    for name in ("promote", "gate"):
        section = to_dict(config)[name]
        known = group_section(name, section["name"]) if section["name"] in options(name) else {}
        words += [f"{name}={section['name']}"] if section["name"] != "default" else []
        changed = [key for key in section if key not in ("name", "dry_run") and section[key] != known.get(key, {})]
        words += [override(f"{name}.{key}", section[key]) for key in changed]
    return [*words, *([override("data.path", config.data.path)] if config.data.path is not None else [])]
