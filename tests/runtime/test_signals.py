"""Tests for mass_jax.runtime.signals, with real signals."""

import os
import signal

import pytest

from mass_jax.runtime import Interrupted, stop_on_signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_poll_raises_after_signal(number):
    with stop_on_signals() as stop:
        stop.poll()
        os.kill(os.getpid(), number)
        with pytest.raises(Interrupted, match=number.name) as caught:
            stop.poll()
    assert caught.value.exit_code == 128 + number


def test_second_signal_stops_at_once():
    before = signal.getsignal(signal.SIGINT)
    with stop_on_signals(), pytest.raises(KeyboardInterrupt):  # noqa: PT012  the first must not raise
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        signal.sigtimedwait([], 1)
    assert signal.getsignal(signal.SIGINT) is before
