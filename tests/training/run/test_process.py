import os
import signal

import pytest

from mtl_opt.training.run.process import finish_step_on_interrupt


def test_the_first_interrupt_is_a_wish_and_the_second_stops():
    def press_twice():
        with finish_step_on_interrupt() as wish:
            assert not wish.requested
            os.kill(os.getpid(), signal.SIGINT)
            assert wish.requested
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        press_twice()
    assert signal.getsignal(signal.SIGINT) is before
