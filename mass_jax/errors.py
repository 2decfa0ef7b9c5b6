"""Errors caused by invalid user input, and other errors in one line."""

_EXHAUSTED = "RESOURCE_EXHAUSTED: "


class UserError(ValueError):
    """Error that the user can fix.

    Commands print its message and exit without a traceback. The message is one line that names the value and the fix.
    """


def from_program(error: Exception) -> UserError | None:
    """Returns the `UserError` behind an error of a compiled program, or None.

    That is one which a Python function raised when the program called it, which the runtime reports as an error of its
    own whose text ends with the traceback, or one for a device that is out of memory.

    >>> from_program(RuntimeError("INTERNAL: callback: Traceback ... \\nUserError: the disk is full; free space"))
    UserError('the disk is full; free space')
    >>> str(from_program(RuntimeError("RESOURCE_EXHAUSTED: allocating 8 bytes"))).partition(";")[0]
    'the device is out of memory (allocating 8 bytes)'
    >>> from_program(RuntimeError("RESOURCE_EXHAUSTED: Shared memory size limit exceeded")) is None
    True
    """
    text = str(error)
    if text.startswith(_EXHAUSTED) and ("out of memory" in text.lower() or "allocat" in text):
        return UserError(
            f"the device is out of memory ({first_line(error).removeprefix(_EXHAUSTED).strip()}); process less at a "
            f"time: in training and evaluation --tasks_at_a_time=1, --example_chunk=1, a smaller --eval_batch, "
            f"--remat=block or --memory=auto, with another --workdir if this one has results"
        )
    lines = [line.removeprefix("mass_jax.errors.") for line in text.splitlines()]
    found = [line.removeprefix("UserError: ") for line in lines if line.startswith("UserError: ")]
    return UserError(found[-1]) if found else None


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message that is not blank, or the error's type if it has none.

    >>> first_line(ValueError("\\ntoo long\\nat line 3")), first_line(KeyError()), first_line(OSError(" "))
    ('too long', 'KeyError', 'OSError')
    """
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
