"""What a task tells those who watch tasks: a nexthop, counts, and nothing else."""

from types import SimpleNamespace

import pytest
from celery import Celery

from mailq.broker import DELIVER_TASK, RING_VERSION
from mailq.worker import tasks
from mailq.worker.tally import count_outcomes


@pytest.fixture
def deliver(monkeypatch):
    """The task, and what serves its nexthop."""
    app = Celery("test", set_as_current=False)
    tasks.register_tasks(app, lambda: SimpleNamespace(monotonic=lambda: 1.0, on_ring=lambda: None))

    def serving_by(serve):
        monkeypatch.setattr(tasks, "serve_nexthop", serve)
        return app.tasks[DELIVER_TASK]

    yield serving_by
    app.close()


def test_the_result_of_a_task_is_what_became_of_the_mail(deliver):
    task = deliver(lambda nexthop, runtime: count_outcomes(["sent", "sent", "deferred"]))
    assert "sent 2, deferred 1 in 0.0 s" == task(nexthop="a.test", v=RING_VERSION)


def test_a_ring_of_another_release_is_ignored_and_says_so(deliver):
    task = deliver(lambda nexthop, runtime: pytest.fail("it was served"))
    assert "ignored: a ring of another release" == task(nexthop="a.test", v=RING_VERSION + 1)
    assert "ignored: a ring of another release" == task(nexthop="a.test", v=RING_VERSION, more=1)


def test_what_a_task_stumbles_over_is_told_to_the_log_alone(deliver, caplog):
    def serve(nexthop, runtime):
        raise ValueError("ann@example.org is odd")

    task = deliver(serve)
    with pytest.raises(RuntimeError) as raised:
        task(nexthop="a.test", v=RING_VERSION)
    assert "ann@" not in str(raised.value)
    assert raised.value.__suppress_context__
    assert "ann@example.org is odd" in caplog.text
