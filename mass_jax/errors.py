"""Errors caused by invalid user input."""


class UserError(ValueError):
    """Error that the user can fix.

    Commands print its message and exit without a traceback. The message is one line that names the value and the fix.
    """
