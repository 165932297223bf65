"""The exceptions a user sees as a line."""


class UserError(Exception):
    """A mistake in a config, a path or a file that its user can mend.

    The message is one line that names the thing and the remedy; `fer` prints it to standard error and exits with 2.
    """


class Refused(Exception):
    """A model that the gate does not let into the registry; the message names every condition. Exit code 3."""


class FitError(UserError):
    """A fit that came to nothing, with the reason: its run fails; a sweep and a multirun go on with the next."""


def first_line(error: BaseException) -> str:
    """An error as its class and the first line of what it says."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}"[:5000] if lines else type(error).__name__
