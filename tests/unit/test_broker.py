"""The configuration that was measured to lose and repeat the least."""

import pytest

from mailq.broker import DELIVER_QUEUE, DELIVER_TASK, DISPATCH_TASK, MAINTENANCE_QUEUE, celery_config, make_celery
from mailq.settings import Settings

REDIS = Settings(broker_url="redis://127.0.0.1:1/0", key_prefix="ours:", worker_concurrency=7)


def test_a_ring_is_acknowledged_before_it_is_answered_and_has_no_result() -> None:
    config = celery_config(REDIS)
    wanted = {"task_acks_late": False, "task_ignore_result": True, "result_backend": None, "task_publish_retry": False}
    assert wanted == {name: config[name] for name in wanted}


def test_only_json_is_spoken() -> None:
    config = celery_config(REDIS)
    assert (["json"], "json") == (config["accept_content"], config["task_serializer"])


def test_redis_gets_timeouts_and_the_prefix_and_no_prefetching() -> None:
    config = celery_config(REDIS)
    options = config["broker_transport_options"]
    assert "ours:" == options["global_keyprefix"]
    assert 0 < options["socket_timeout"] <= 5
    assert 0 < options["socket_connect_timeout"] <= 5
    assert config["worker_disable_prefetch"]


@pytest.mark.parametrize("url", ["redis://h/0", "rediss://h/0", "redis+socket:///run/redis.sock"])
def test_every_spelling_of_redis_is_redis(url: str) -> None:
    assert celery_config(Settings(broker_url=url))["worker_disable_prefetch"]


def test_the_broker_in_memory_is_looked_at_often() -> None:
    config = celery_config(Settings())
    assert {"polling_interval": 0.05} == config["broker_transport_options"]
    assert not config["worker_disable_prefetch"]


def test_another_broker_gets_no_options_of_redis() -> None:
    assert {} == celery_config(Settings(broker_url="amqp://h//"))["broker_transport_options"]


def test_threads_are_the_pool_and_the_setting_says_how_many() -> None:
    config = celery_config(REDIS)
    assert ("threads", 7) == (config["worker_pool"], config["worker_concurrency"])


def test_there_are_two_queues_and_no_other_is_made_up() -> None:
    app = make_celery(REDIS)
    assert {DELIVER_QUEUE, MAINTENANCE_QUEUE} == set(app.amqp.queues)
    assert not app.conf.task_create_missing_queues
    assert DELIVER_QUEUE == app.amqp.router.route({}, DELIVER_TASK)["queue"].name
    assert MAINTENANCE_QUEUE == app.amqp.router.route({}, DISPATCH_TASK)["queue"].name


def test_our_application_does_not_become_the_current_one() -> None:
    app = make_celery(REDIS)
    from celery import current_app  # noqa: PLC0415 - looked at after the other was made

    assert current_app._get_current_object() is not app
