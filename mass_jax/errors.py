"""What the user of a command can mend."""


class UserError(ValueError):
    """Ends a command with its message, one line that names the value and the fix, and without a traceback."""
