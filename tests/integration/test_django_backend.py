"""Django's e-mail backend: mail is part of the transaction that it is sent in."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from io import StringIO
from unittest import TextTestRunner, defaultTestLoader

import psycopg
import pytest
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.db import connections, transaction
from django.http import HttpRequest, HttpResponse

from mailq.api import Queue
from mailq.errors import (
    AddressSyntaxError,
    DatabaseUnavailableError,
    EnvelopeError,
    IdempotencyConflictError,
    SchemaError,
)
from tests.fakes.django_project import VIEWS, project_on, set_up

set_up()

from django.test import Client, TestCase, override_settings  # noqa: E402 - needs the settings

from mailq.contrib.django import CancelSendError, get_queue, message_queued, post_send, pre_send  # noqa: E402 - likewise
from mailq.contrib.django.testing import empty_queue  # noqa: E402 - likewise


class SomethingElseError(Exception):
    """What an application's own code may raise after it has sent mail."""


@pytest.fixture(scope="module", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def lasting_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A database of each kind for all tests of this module: to make one takes longer than most tests."""
    if request.param == "sqlite":
        path = tmp_path_factory.mktemp("django") / "queue.db"
        path.write_bytes(request.getfixturevalue("sqlite_template"))
        yield f"sqlite:///{path}"
        return
    server = request.getfixturevalue("postgres_server")
    yield server.create_database("django_backend", template="mailq_template")
    server.drop_database("django_backend")


@pytest.fixture
def alias(lasting_url: str) -> Iterator[str]:
    """The project on each kind of database, empty, and Django's name of it."""
    with project_on(lasting_url) as name:
        yield name
        empty_queue()


@pytest.fixture
def rung(alias: str) -> list[str]:
    """The nexthops that the workers were told of."""
    told: list[str] = []
    get_queue()._ring = told.extend
    return told


@contextmanager
def taken_back(alias: str) -> Iterator[None]:
    """A transaction whose application raises at its end."""
    with suppress(SomethingElseError), transaction.atomic(using=alias):
        yield
        raise SomethingElseError


def send(*to: str, **options: object) -> EmailMessage:
    """Send one message."""
    message = EmailMessage("Hello", "text", None, list(to) or ["ann@example.net"])
    message.mailq_options = options
    message.send()
    return message


def recipients() -> list[str]:
    """Who has mail in the queue, in order."""
    return [one.address for one in get_queue().find()]


def content_of(message: EmailMessage) -> bytes:
    """What is stored of a message."""
    with get_queue().store.bodies.open(message.mailq_id) as body:
        return body.read()


def test_mail_of_a_transaction_that_is_rolled_back_is_not_there(alias, rung) -> None:
    with taken_back(alias):
        send()
        assert ["ann@example.net"] == recipients()
    assert [] == recipients()
    assert [] == rung


def test_workers_are_told_after_the_commit_and_not_before(alias, rung) -> None:
    with transaction.atomic(using=alias):
        send("ann@example.net")
        send("bob@example.com")
        assert [] == rung
    assert ["example.net", "example.com"] == rung
    assert ["ann@example.net", "bob@example.com"] == recipients()


def test_outside_a_transaction_mail_is_there_at_once(alias, rung) -> None:
    send()
    assert ["example.net"] == rung
    assert ["ann@example.net"] == recipients()


def test_a_savepoint_takes_back_its_own_mail_alone(alias, rung) -> None:
    with transaction.atomic(using=alias):
        send("kept@example.net")
        with taken_back(alias):
            send("lost@example.com")
        send("also@example.org")
    assert ["kept@example.net", "also@example.org"] == recipients()
    assert ["example.net", "example.org"] == rung


def test_a_view_that_raises_has_sent_nothing(alias) -> None:
    def order(_request: HttpRequest) -> HttpResponse:
        with transaction.atomic(using=alias):
            send()
            raise SomethingElseError

    VIEWS["order"] = order
    assert 500 == Client(raise_request_exception=False).get("/order/").status_code
    assert [] == recipients()


def test_a_hundred_messages_are_queued_in_one_call_and_each_knows_its_id(alias) -> None:
    messages = [EmailMessage("Hello", "text", None, [f"ann{number}@example.net"]) for number in range(100)]
    assert 100 == mail.get_connection().send_messages(messages)
    assert [f"ann{number}@example.net" for number in range(100)] == recipients()
    assert {message.mailq_id for message in messages} == {one.queue_id for one in get_queue().find()}


def test_one_message_that_is_refused_keeps_the_others_of_its_call_back(alias) -> None:
    messages = [EmailMessage(to=["ann@example.net"]), EmailMessage(to=["no address@"])]
    with pytest.raises(AddressSyntaxError):
        mail.get_connection().send_messages(messages)
    assert [] == recipients()


def test_silent_failure_leaves_out_what_is_refused_and_counts_the_rest(alias) -> None:
    messages = [EmailMessage(to=["ann@example.net"]), EmailMessage(to=["no address@"]), EmailMessage(to=[])]
    assert 1 == mail.get_connection(fail_silently=True).send_messages(messages)
    assert ["ann@example.net"] == recipients()


def test_a_message_without_recipients_does_not_count(alias) -> None:
    assert 0 == mail.get_connection().send_messages([EmailMessage("Hello", "text")])


def test_envelope_header_and_parts_are_those_of_the_message(alias) -> None:
    message = EmailMultiAlternatives(
        "Grüße",
        "text",
        "Shop <shop@example.org>",
        ["Ann <ann@example.net>"],
        cc=["cc@example.net"],
        bcc=["hidden@example.net"],
        reply_to=["office@example.org"],
        headers={"Message-ID": "<mine@example.org>", "X-Own": "kept"},
    )
    message.attach_alternative("<p>text</p>", "text/html")
    message.attach("bill.pdf", b"%PDF", "application/pdf")
    assert 1 == message.send()
    assert ["ann@example.net", "cc@example.net", "hidden@example.net"] == recipients()
    assert "shop@example.org" == get_queue().show(message.mailq_id).sender
    stored = content_of(message)
    for wanted in (b"Message-ID: <mine@example.org>", b"Reply-To: office@example.org", b"X-Own: kept", b"bill.pdf"):
        assert wanted in stored
    assert b"hidden@example.net" not in stored


def test_options_of_a_message_are_those_of_the_queue(alias) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    options = {"tags": {"order": "7"}, "priority": 1, "tenant": "shop", "mail_class": "bill", "expires": later}
    message = send(**options)
    view = get_queue().show(message.mailq_id)
    assert ({"order": "7"}, 1, "shop", "bill", later) == (
        view.tags,
        view.priority,
        view.tenant,
        view.mail_class,
        view.expires_at,
    )


def test_instants_are_read_in_the_right_zone_on_djangos_connection(alias) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    view = get_queue().show(send().mailq_id)
    assert before <= view.created_at <= datetime.now(UTC) + timedelta(seconds=2)


def test_a_misspelt_option_of_a_message_is_refused_with_a_suggestion(alias) -> None:
    with pytest.raises(EnvelopeError, match=r"'priorty'.*Did you mean 'priority'"):
        send(priorty=1)
    assert [] == recipients()


def test_the_same_order_sent_twice_by_its_key_is_one_message(alias) -> None:
    assert send(idempotency_key="order-7").mailq_id == send(idempotency_key="order-7").mailq_id
    assert ["ann@example.net"] == recipients()


def test_a_refusal_by_the_queue_leaves_the_transaction_usable(alias) -> None:
    send(idempotency_key="order-7")
    with transaction.atomic(using=alias):
        with pytest.raises(IdempotencyConflictError):
            send("other@example.net", idempotency_key="order-7")
        send("next@example.net")
    assert ["ann@example.net", "next@example.net"] == recipients()


def test_options_of_the_backend_count_for_all_its_messages(alias) -> None:
    message = EmailMessage(to=["ann@example.net"], connection=mail.get_connection(tenant="shop", priority=8))
    message.mailq_options = {"priority": 2}
    message.send()
    view = get_queue().show(message.mailq_id)
    assert ("shop", 2) == (view.tenant, view.priority)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tennant": "shop"}, "Did you mean 'tenant'"),
        ({"host": "mail.example.org"}, "There are"),
        ({"username": "shop", "password": "secret"}, "SASL_PASSWORD_MAPS"),
    ],
)
def test_unknown_options_of_the_backend_are_refused_by_name(alias, options, words) -> None:
    with pytest.raises(ImproperlyConfigured, match=words):
        mail.get_connection(**options)


@pytest.mark.parametrize("header", [{"subject": "Hi\nBcc: all@example.net"}, {"headers": {"X-A": "b\r\nBcc: c@d.org"}}])
def test_line_ends_in_a_header_are_refused_even_silently(alias, header) -> None:
    message = EmailMessage(to=["ann@example.net"], connection=mail.get_connection(fail_silently=True), **header)
    with pytest.raises(ValueError, match="newlines"):
        message.send()
    assert [] == recipients()


def test_line_ends_in_an_address_of_the_envelope_are_refused(alias) -> None:
    with pytest.raises(AddressSyntaxError):
        EmailMessage("Hi", "text", to=["ann@example.net"], bcc=["bob@example.net>\r\nDATA"]).send()
    assert [] == recipients()


def test_an_address_without_domain_is_of_this_host(alias) -> None:
    message = EmailMessage("Hi", "text", "root", ["admin"])
    message.send()
    assert ["admin@mail.example.org"] == recipients()
    assert "root@mail.example.org" == get_queue().show(message.mailq_id).sender


def test_missing_tables_name_the_command_and_spoil_the_transaction_as_errors_of_django_do(store_url) -> None:
    with project_on(store_url) as name:
        get_queue().store.migrate("base")
        with transaction.atomic(using=name):
            with pytest.raises(SchemaError, match=r"manage\.py migrate"):
                send()
            with connections[name].cursor() as cursor, pytest.raises(transaction.TransactionManagementError):
                cursor.execute("SELECT 1")


def test_an_unreachable_database_is_the_documented_error_and_silence_counts_nothing() -> None:
    with project_on("postgresql://mailq@127.0.0.1:1/nowhere"):
        with pytest.raises(DatabaseUnavailableError, match="check that it runs"):
            send()
        assert 0 == EmailMessage(to=["ann@example.net"]).send(fail_silently=True)


def test_a_connection_that_breaks_amid_a_transaction_leaves_nothing_half_done(postgres_url) -> None:
    with project_on(postgres_url) as alias:
        with transaction.atomic(using=alias):
            send("first@example.net")
            ours = connections[alias].connection.info.backend_pid
            with psycopg.connect(postgres_url, autocommit=True) as other:
                other.execute("SELECT pg_terminate_backend(%s)", (ours,)).fetchall()
            with pytest.raises(DatabaseUnavailableError):
                send("second@example.net")
        connections[alias].close_if_unusable_or_obsolete()
        send("third@example.net")
        assert ["third@example.net"] == recipients()


def test_mail_is_accepted_while_the_broker_is_down(alias) -> None:
    broker = {"BROKER_URL": "redis://127.0.0.1:1/0", "PUBLISH_TIMEOUT": "200ms"}
    with override_settings(MAILQ={"DATABASE": alias, **broker}):
        send()
        assert ["ann@example.net"] == recipients()


def test_djangos_test_case_sees_its_mail_and_leaves_none(alias) -> None:
    seen = []

    class Case(TestCase):
        databases = (alias,)

        def test_one(self) -> None:
            with self.settings(EMAIL_BACKEND="mailq.contrib.django.EmailBackend"):
                send()
            seen.append(recipients())

        test_two = test_one

    result = TextTestRunner(stream=StringIO()).run(defaultTestLoader.loadTestsFromTestCase(Case))
    assert (2, []) == (result.testsRun, result.errors + result.failures)
    assert [["ann@example.net"], ["ann@example.net"]] == seen
    assert [] == recipients()


def test_threads_send_on_connections_of_their_own(alias) -> None:
    def work(number: int) -> None:
        try:
            for each in range(5):
                send(f"ann{number}-{each}@example.net")
        finally:
            connections[alias].close()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert 20 == len(recipients())


def test_a_queue_with_a_database_of_its_own_is_not_part_of_the_transaction(alias, sqlite_url) -> None:
    with override_settings(MAILQ={"DATABASE_URL": sqlite_url}):
        with taken_back(alias):
            send()
        assert ["ann@example.net"] == recipients()


def test_the_queue_is_emptied_for_the_next_test(alias) -> None:
    send()
    empty_queue()
    assert [] == recipients()


def test_orders_belong_to_the_transaction_too(alias) -> None:
    send()
    with taken_back(alias):
        assert 1 == get_queue().hold(recipient="ann@example.net").touched
    assert ["queued"] == [one.state.value for one in get_queue().find()]


def test_receivers_may_change_a_message_or_keep_it_back(alias) -> None:
    def check(message: EmailMessage, **_: object) -> None:
        if message.to == ["no@example.net"]:
            raise CancelSendError
        message.bcc = ["archive@example.org"]

    pre_send.connect(check)
    try:
        count = mail.get_connection().send_messages(
            [EmailMessage(to=["ann@example.net"]), EmailMessage(to=["no@example.net"])]
        )
    finally:
        pre_send.disconnect(check)
    assert 1 == count
    assert ["ann@example.net", "archive@example.org"] == recipients()


def test_receivers_hear_of_mail_that_is_written_and_of_mail_that_is_committed(alias) -> None:
    heard = []

    def written(queue_id: str, **_: object) -> None:
        heard.append(("written", queue_id))

    def queued(queue_id: str, **_: object) -> None:
        heard.append(("queued", queue_id))
        raise SomethingElseError

    post_send.connect(written)
    message_queued.connect(queued)
    try:
        with transaction.atomic(using=alias):
            message = send()
            assert [("written", message.mailq_id)] == heard
        assert [("written", message.mailq_id), ("queued", message.mailq_id)] == heard
    finally:
        post_send.disconnect(written)
        message_queued.disconnect(queued)


def test_the_queue_is_the_same_until_settings_change(alias) -> None:
    first = get_queue()
    assert isinstance(first, Queue)
    assert first is get_queue()
    with override_settings(MAILQ={"DATABASE": alias, "MAX_RECIPIENTS": 1}):
        assert 1 == get_queue().settings.max_recipients
