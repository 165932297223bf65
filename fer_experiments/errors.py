"""The exceptions a user sees as a line."""

from fer_experiments.terminal import fit

EMPTY = "must not be empty (a variable of the shell that is not set?)"


class UserError(Exception):
    """A mistake in a config, a path or a file that its user can mend.

    The message is one line that names the thing and the remedy; `fer` prints it to standard error and exits with 2.
    """

    def __init__(self, message: str) -> None:
        super().__init__(fit(message))


class Refused(Exception):
    """A model that the gate does not let into the registry; the message names every condition. Exit code 3."""


class FitError(UserError):
    """A fit that came to nothing, with the reason: its run fails; a sweep and a multirun go on with the next."""


def first_line(error: BaseException, most: int = 5000, *, named: bool = False) -> str:
    """The first line of what an error says, or its class where it says nothing; named: after its class."""
    name, lines = type(error).__name__, str(error).strip().splitlines()[:1]
    line = fit(": ".join([name, *lines] if named else lines or [name]))
    return line if len(line) <= most else f"{line[: most - 3]}..."
