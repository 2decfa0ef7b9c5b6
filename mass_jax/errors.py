"""Errors caused by invalid user input, and other errors in one line."""


class UserError(ValueError):
    """Error that the user can fix.

    Commands print its message and exit without a traceback. The message is one line that names the value and the fix.
    """


def from_program(error: Exception) -> UserError | None:
    """Returns the `UserError` that a Python function raised when a compiled program called it, or None.

    The runtime reports it as an error of its own, whose text ends with the traceback.

    >>> from_program(RuntimeError("INTERNAL: callback: Traceback ... \\nUserError: the disk is full; free space"))
    UserError('the disk is full; free space')
    """
    lines = [line.removeprefix("mass_jax.errors.") for line in str(error).splitlines()]
    found = [line.removeprefix("UserError: ") for line in lines if line.startswith("UserError: ")]
    return UserError(found[-1]) if found else None


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message that is not blank, or the error's type if it has none.

    >>> first_line(ValueError("\\ntoo long\\nat line 3")), first_line(KeyError()), first_line(OSError(" "))
    ('too long', 'KeyError', 'OSError')
    """
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
