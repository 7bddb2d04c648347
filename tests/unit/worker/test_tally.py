"""The result of a task, as people see it."""

import threading

from mailq.worker.tally import Tally, count_outcomes, tally


def test_what_was_recorded_is_one_line_in_the_usual_order():
    with tally() as one:
        count_outcomes(["deferred", "sent"])
        count_outcomes(["sent", "bounced"])
    assert "sent 2, deferred 1, bounced 1 in 0.8 s" == one.line(0.81)


def test_a_word_nobody_thought_of_is_shown_too():
    with tally() as one:
        count_outcomes(["new", "sent"])
    assert "sent 1, new 1 in 1.0 s" == one.line(1)


def test_a_task_that_found_nothing_says_so():
    assert "nothing to do in 0.0 s" == Tally().line(0)


def test_outside_a_task_nobody_counts():
    count_outcomes(["sent"])
    with tally() as one:
        pass
    count_outcomes(["sent"])
    assert "nothing to do in 0.0 s" == one.line(0)


def test_each_thread_has_its_own():
    with tally() as here:
        thread = threading.Thread(target=count_outcomes, args=(["sent"],))
        thread.start()
        thread.join()
    assert "nothing to do in 0.0 s" == here.line(0)


def test_the_tally_of_an_inner_task_is_not_that_of_the_outer():
    with tally() as outer:
        with tally() as inner:
            count_outcomes(["sent"])
        count_outcomes(["bounced"])
    assert "sent 1 in 0.0 s" == inner.line(0)
    assert "bounced 1 in 0.0 s" == outer.line(0)
