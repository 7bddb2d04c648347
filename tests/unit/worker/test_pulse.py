import itertools
import threading

from mailq.worker.pulse import Pulse
from tests.fakes.poll import eventually


def test_a_process_that_wakes_up_in_time_is_not_late() -> None:
    pulse = Pulse()
    for _ in range(20):
        pulse.note(0.001)
    assert not pulse.late


def test_one_late_moment_is_soon_forgotten() -> None:
    pulse = Pulse()
    pulse.note(0.3)
    assert pulse.late
    for _ in range(10):
        pulse.note(0.001)
    assert not pulse.late


def test_a_process_that_is_always_late_is_known_for_it() -> None:
    pulse = Pulse()
    for _ in range(20):
        pulse.note(0.05)
    assert pulse.late


def test_an_early_wake_up_makes_up_for_nothing() -> None:
    pulse = Pulse()
    pulse.note(0.2)
    pulse.note(-5.0)
    assert pulse.late


def test_a_pulse_ends_when_it_is_told_to() -> None:
    pulse = Pulse()
    pulse.start()
    pulse.stop()
    assert "mailq-pulse" not in {thread.name for thread in threading.enumerate()}


def test_a_pulse_that_never_began_can_be_stopped() -> None:
    Pulse().stop()


def test_a_process_is_busy_that_uses_most_of_a_processor_for_some_time() -> None:
    pulse = Pulse()
    pulse.note(0.0, share=0.9)
    assert not pulse.busy
    for _ in range(20):
        pulse.note(0.0, share=0.9)
    assert pulse.busy
    for _ in range(10):
        pulse.note(0.0, share=0.1)
    assert not pulse.busy


def test_a_started_pulse_sees_how_much_of_a_processor_is_used() -> None:
    spent = itertools.count()
    pulse = Pulse(cpu=lambda: float(next(spent)))
    pulse.start()
    eventually(lambda: pulse.busy)
    pulse.stop()
