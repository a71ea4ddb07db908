"""What went wrong through no fault of the code: told in one message, without a traceback."""


class UserError(Exception):
    """A mistake in the input. The message names the file or key, what was expected and what to do."""


class ConfigError(UserError):
    """A mistake in the configuration (exit code 2; every other user error exits with 1)."""


class KilledError(UserError):
    """A process was ended from outside: the same command may succeed when it is given again."""
