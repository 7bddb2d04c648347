"""The admin, page by page, in a Django project: run by tests/integration/test_django_admin.py on each database."""

from datetime import UTC, datetime, timedelta
from typing import Any
from unittest import mock

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.management import call_command
from django.db import connections
from django.test import TestCase, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import NoReverseMatch, reverse

from mailq.contrib.django import admin_orders, admin_paging, get_queue, models
from mailq.queue.certainty import Quarantine
from tests.fakes.queue_values import a_message, bounced, deferred, finish, recipients_of, stumbled, take

LIST = "/admin/mailq/message/"
connection = connections[models.Message.objects.all().db]


def content(subject: str = "hello", header_id: str = "1@home.test") -> bytes:
    return f"From: ann@home.test\r\nSubject: {subject}\r\nMessage-ID: <{header_id}>\r\n\r\nHi.\r\n".encode()


def queued(*addresses: str, subject: str = "hello", **fields: Any) -> str:
    """Queue a message and return its queue id."""
    (queue_id,) = get_queue().store.insert([a_message(*addresses, content=content(subject), **fields)])
    return queue_id


def stored(instant: datetime) -> Any:
    """Return *instant* as the tables have it."""
    return models.Message._meta.get_field("created_at").get_db_prep_value(instant, connection)


class AdminCase(TestCase):
    """Somebody who may do everything is logged in, and there are two others."""

    databases = "__all__"

    @classmethod
    def setUpTestData(cls) -> None:
        users = get_user_model().objects
        users.create_superuser("root", password="root")
        views = Permission.objects.filter(content_type__app_label="mailq", codename__startswith="view_")
        for name in ("viewer", "operator"):
            user = users.create_user(name, password=name, is_staff=True)
            user.user_permissions.set(views)
        user.user_permissions.add(Permission.objects.get(codename="operate"))

    def setUp(self) -> None:
        self.log_in("root")

    def log_in(self, name: str) -> None:
        self.client.force_login(get_user_model().objects.get(username=name))

    def shown(self, query: str = "", **params: str) -> list[str]:
        """Return the queue ids that the list shows."""
        answer = self.client.get(LIST, params or ({"q": query} if query else {}))
        self.assertEqual(200, answer.status_code)
        return [message.pk for message in answer.context["cl"].result_list]

    def states(self, queue_id: str) -> dict[str, str]:
        return {address: state.value for address, state in get_queue().status(queue_id).items()}

    def order(self, verb: str, *ids: str, path: str = LIST, confirm: bool = True, **fields: str) -> Any:
        """Give an order, by its preview."""
        data = {"action": verb, "_selected_action": list(ids), "index": "0", **fields}
        preview = self.client.post(path, data)
        if not confirm or preview.status_code != 200:
            return preview
        kept: dict[str, Any] = {}
        for name, value in preview.context["kept"]:
            kept.setdefault(name, []).append(value)
        kept |= {"action": verb, "counted": str(preview.context["preview"].count), "confirmed": "1", **fields}
        return self.client.post(path, kept, follow=True)


class ListTests(AdminCase):
    """The list of messages: its rows, its search, its filters, and what it costs."""

    def test_a_row_says_subject_states_and_recipients(self) -> None:
        queue_id = queued("bob@far.test", "eve@near.test", subject="Your order", tags={"campaign": "spring"})
        get_queue().hold(queue_ids=[queue_id], recipient="eve@near.test")
        page = self.client.get(LIST).content.decode()
        for words in ("Your order", queue_id, "bob@far.test", "and 1 other", "queued", "held", "campaign=spring"):
            self.assertIn(words, page)

    def test_the_search_finds_by_what_people_have_in_their_hands(self) -> None:
        one = queued("bob@far.test", subject="Grüße: your 100% order", sender="ann@home.test")
        other = queued("eve@near.test", subject="Invoice", sender="ben@home.test")
        self.assertEqual([one], self.shown(one.lower()))
        self.assertEqual([one], self.shown("bob@FAR.test"))
        self.assertEqual([other], self.shown("ben@home.test"))
        self.assertEqual([other], self.shown("@near.test"))
        self.assertEqual([one], self.shown("100%"))
        self.assertEqual([other], self.shown("invoice"))
        self.assertEqual({other, one}, set(self.shown("<1@home.test>")))
        self.assertEqual([], self.shown("nobody@near.test"))

    def test_each_filter_narrows_the_list(self) -> None:
        old = queued("bob@far.test", tenant="acme", tags={"a__b": "1"})
        new = queued("eve@near.test", nexthop="[relay.test]", tags={"a__b": "2"})
        get_queue().hold(queue_ids=[new])
        with connection.cursor() as cursor:
            arrived_at = stored(datetime.now(UTC) - timedelta(days=2))
            cursor.execute("UPDATE mailq_message SET arrived_at = %s WHERE id = %s", [arrived_at, old])
        for params, expected in (
            ({"state": "held"}, [new]),
            ({"state": "queued"}, [old]),
            ({"state": "deferred"}, []),
            ({"state": "active"}, []),
            ({"age": "over-day"}, [old]),
            ({"age": "over-3-days"}, []),
            ({"age": "hour"}, [new]),
            ({"domain": "NEAR.test"}, [new]),
            ({"nexthop": "[relay.test]"}, [new]),
            ({"tenant": "acme"}, [old]),
            ({"tag": "a__b=1"}, [old]),
            ({"tag": "a__b=1", "state": "held"}, []),
            ({"state": "held", "q": "hello"}, [new]),
        ):
            with self.subTest(params):
                self.assertEqual(expected, self.shown(**params))

    def test_a_hundred_messages_cost_as_many_queries_as_one(self) -> None:
        def queries() -> int:
            with CaptureQueriesContext(connection) as found:
                self.shown()
            return len(found)

        queued("bob@far.test")
        self.shown()
        few = queries()
        get_queue().store.insert([a_message(f"r{number}@far.test", "x@near.test") for number in range(150)])
        self.assertEqual(few, queries())
        self.assertEqual(100, len(self.shown()))
        self.assertLessEqual(few, 6)

    def test_a_backlog_is_counted_up_to_a_bound_only(self) -> None:
        get_queue().store.insert([a_message(f"r{number}@far.test") for number in range(7)])
        with mock.patch.object(admin_paging, "MOST_COUNTED", 5):
            answer = self.client.get(LIST)
        self.assertContains(answer, "more than 5 messages")
        self.assertEqual(5, answer.context["cl"].result_count)

    def test_times_are_right_whatever_use_tz_says(self) -> None:
        queue_id = queued("bob@far.test")
        before = models.Message.objects.get(pk=queue_id).created_at
        self.assertEqual(timedelta(0), before.utcoffset())
        with override_settings(USE_TZ=False, TIME_ZONE="America/New_York"):
            self.assertEqual([queue_id], self.shown(age="hour"))
            if connection.vendor == "sqlite":
                self.assertEqual(before, models.Message.objects.get(pk=queue_id).created_at)


class OrderTests(AdminCase):
    """Orders: seen before they are given, given by name, and about what was chosen."""

    def test_a_preview_says_what_would_happen_and_touches_nothing(self) -> None:
        queue_id = queued("bob@far.test", "eve@near.test")
        page = self.order("hold", queue_id, confirm=False)
        self.assertContains(page, "2 recipients")
        for words in ("bob@far.test", "far.test", "near.test", "queued"):
            self.assertContains(page, words)
        self.assertEqual({"queued"}, set(self.states(queue_id).values()))
        self.assertEqual(0, models.AuditEntry.objects.count())

    def test_a_held_message_is_released_and_the_audit_names_the_user(self) -> None:
        queue_id = queued("bob@far.test")
        self.order("hold", queue_id, reason="wrong VAT")
        self.assertEqual({"bob@far.test": "held"}, self.states(queue_id))
        self.log_in("operator")
        answer = self.order("release", queue_id, reason=" corrected ")
        self.assertContains(answer, "Release: one recipient")
        self.assertEqual({"bob@far.test": "queued"}, self.states(queue_id))
        told = [(one.actor, one.action, one.reason, one.counted, one.touched) for one in get_queue().audit()]
        self.assertEqual([("operator", "release", "corrected", 1, 1), ("root", "hold", "wrong VAT", 1, 1)], told)
        self.assertContains(self.client.get("/admin/mailq/auditentry/"), "wrong VAT")

    def test_each_order_that_ends_mail_ends_it(self) -> None:
        for verb, state in (("cancel", "cancelled"), ("bounce", "bounced"), ("expire", "expired")):
            queue_id = queued("bob@far.test")
            self.order(verb, queue_id, reason="asked to")
            self.assertEqual({"bob@far.test": state}, self.states(queue_id))

    def test_what_is_quarantined_is_tried_again(self) -> None:
        queue_id = queued("bob@far.test")
        store = get_queue().store
        lease = take(store)
        finish(store, [stumbled(one, Quarantine()) for one in recipients_of(lease)], lease)
        self.assertEqual({"bob@far.test": "quarantined"}, self.states(queue_id))
        self.assertContains(self.client.get(f"{LIST}{queue_id}/change/"), "ours.py:7 in render")
        self.order("retry", queue_id)
        self.assertEqual({"bob@far.test": "deferred"}, self.states(queue_id))

    def test_mail_is_rerouted_where_the_new_way_parses(self) -> None:
        queue_id = queued("bob@far.test")
        answer = self.order("reroute", queue_id, nexthop="relay.test:99999")
        self.assertContains(answer, "bad network port")
        self.order("reroute", queue_id, nexthop="[relay.test]:587")
        self.assertEqual("[relay.test]:587", models.Recipient.objects.get(message_id=queue_id).nexthop)

    def test_everything_in_a_filtered_list_means_the_recipients_that_the_filters_choose(self) -> None:
        both = queued("bob@far.test", "eve@near.test")
        far = queued("dan@far.test")
        self.order("hold", both, path=f"{LIST}?domain=far.test", select_across="1")
        self.assertEqual({"bob@far.test": "held", "eve@near.test": "queued"}, self.states(both))
        self.assertEqual({"dan@far.test": "held"}, self.states(far))

    def test_everything_that_a_search_found_is_bounded(self) -> None:
        found = [queued("bob@far.test", subject="Spring sale") for _ in range(3)]
        other = queued("bob@far.test", subject="Invoice")
        with mock.patch.object(admin_orders, "MOST_FOUND", 2):
            answer = self.order("hold", *found, path=f"{LIST}?q=spring", select_across="1")
            self.assertEqual(302, answer.status_code)
        self.assertEqual(0, models.Recipient.objects.filter(state="held").count())
        self.order("hold", found[0], path=f"{LIST}?q=spring", select_across="1")
        self.assertEqual(3, models.Recipient.objects.filter(state="held").count())
        self.assertEqual({"bob@far.test": "queued"}, self.states(other))

    def test_everything_without_a_filter_is_said_to_be_everything(self) -> None:
        one, other = queued("bob@far.test"), queued("eve@near.test")
        page = self.order("hold", one, select_across="1", confirm=False)
        self.assertContains(page, "this is about all mail in the queue")
        self.order("hold", one, select_across="1")
        self.assertEqual(["held", "held"], [*self.states(one).values(), *self.states(other).values()])

    def test_one_recipient_alone_can_be_meant(self) -> None:
        queue_id = queued("bob@far.test", "eve@near.test")
        answer = self.order("cancel", queue_id, recipient="eve@near.test", next="message")
        self.assertEqual(f"{LIST}{queue_id}/change/", answer.redirect_chain[-1][0])
        self.assertEqual({"bob@far.test": "queued", "eve@near.test": "cancelled"}, self.states(queue_id))

    def test_an_order_that_would_touch_nothing_cannot_be_given(self) -> None:
        queue_id = queued("bob@far.test")
        page = self.order("release", queue_id, confirm=False)
        self.assertContains(page, "Nothing would be touched")
        self.assertNotContains(page, 'name="confirmed"')


class PageTests(AdminCase):
    """The pages of one message and of one destination."""

    def test_a_message_shows_what_was_said_why_it_waits_and_never_its_content(self) -> None:
        queue_id = queued("bob@far.test", "eve@near.test", subject="Your order")
        store = get_queue().store
        lease = take(store)
        finish(store, [deferred(one, wait=timedelta(days=3650)) for one in recipients_of(lease)], lease)
        lease = take(store, "near.test")
        finish(store, [bounced(one) for one in recipients_of(lease)], lease)
        now = stored(datetime.now(UTC))
        with connection.cursor() as cursor:
            cursor.execute("INSERT INTO mailq_transcript (id, created_at, text) VALUES (7, %s, 'C: EHLO us')", [now])
            cursor.execute("UPDATE mailq_attempt SET transcript_id = 7 WHERE outcome = 'bounced'")
        page = self.client.get(f"{LIST}{queue_id}/change/")
        for words in (
            "C: EHLO us",
            "Your order",
            "1@home.test",
            "bob@far.test waits until",
            "Connection timed out",
            "550 5.1.1 no such user",
            "mx.far.test[127.0.0.9]:25",
            "worker 1",
        ):
            self.assertContains(page, words)
        self.assertNotContains(page, "Hi.")

    def test_what_a_server_said_is_shown_as_text(self) -> None:
        queue_id = queued("bob@far.test", subject="<script>alert(1)</script>")
        for path in (LIST, f"{LIST}{queue_id}/change/"):
            self.assertNotContains(self.client.get(path), "<script>alert(1)")

    def test_a_message_with_many_recipients_costs_a_bounded_number_of_queries(self) -> None:
        few = queued("bob@far.test")
        many = queued(*(f"r{number}@far.test" for number in range(120)))
        counts = []
        for queue_id in (few, many):
            with CaptureQueriesContext(connection) as found:
                page = self.client.get(f"{LIST}{queue_id}/change/")
            counts.append(len(found))
        self.assertLessEqual(counts[1], counts[0])
        self.assertContains(page, "page 1 of 5")
        self.assertContains(page, "Why does it wait?")
        self.assertNotContains(page, "r30@far.test")
        self.assertContains(self.client.get(f"{LIST}{many}/change/?page=2&explain=1"), "r30@far.test")

    def test_a_message_that_is_gone_is_said_to_be_gone(self) -> None:
        answer = self.client.get(f"{LIST}00000000000000000000/change/", follow=True)
        self.assertContains(answer, "exist. Perhaps it was deleted")

    def test_a_destination_is_suspended_and_resumed(self) -> None:
        queued("bob@far.test")
        new = reverse("admin:mailq_suspension_new")
        answer = self.client.post(
            new,
            {"pattern": "far.test\nsite:mx.near.test", "until": "2999-01-01T10:00", "reason": "they asked"},
            follow=True,
        )
        self.assertContains(answer, "nexthop:far.test")
        found = {one.pattern: one for one in get_queue().suspensions()}
        self.assertEqual({"nexthop:far.test", "site:mx.near.test"}, set(found))
        self.assertEqual(
            ("root", "they asked", 2999),
            (
                found["nexthop:far.test"].actor,
                found["nexthop:far.test"].reason,
                found["nexthop:far.test"].until_at.year,
            ),
        )
        path = "/admin/mailq/suspension/"
        data = {"action": "resume", "_selected_action": ["nexthop:far.test"]}
        self.assertContains(self.client.post(path, {**data, "index": "0"}), "they asked")
        self.assertEqual(2, len(get_queue().suspensions()))
        self.client.post(path, {**data, "confirmed": "1"})
        self.assertEqual(["site:mx.near.test"], [one.pattern for one in get_queue().suspensions()])

    def test_a_suspension_that_cannot_be_meant_is_refused_on_its_page(self) -> None:
        answer = self.client.post(
            reverse("admin:mailq_suspension_new"), {"pattern": "far.test", "until": "2001-01-01T10:00"}
        )
        self.assertContains(answer, "past")
        self.assertEqual([], list(get_queue().suspensions()))

    def test_a_destination_shows_its_condition_and_its_limits(self) -> None:
        now = stored(datetime.now(UTC))
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO mailq_destination (nexthop, touched_at, dead_since, dead_reason, hosts) "
                "VALUES (%s, %s, %s, %s, %s)",
                ["[far.test]:25", now, now, "it hung up", "mx.far.test"],
            )
        get_queue().limits.set("destination:[far.test]:25", {"sessions": "3"})
        self.assertEqual("3", models.Limit.objects.get(field="sessions").value)
        self.assertContains(self.client.get("/admin/mailq/destination/"), "not answering")
        page = self.client.get(reverse("admin:mailq_destination_change", args=["[far.test]:25"]))
        for words in ("it hung up", "mx.far.test", "sessions", "Limits that its mail has to pass"):
            self.assertContains(page, words)
        get_queue().suspend("site:mx.far.test")
        get_queue().suspend("[far.test]:25")
        self.assertContains(self.client.get("/admin/mailq/destination/?q=far"), "suspended")
        self.assertContains(self.client.get("/admin/mailq/destination/limits/"), "sessions")
        answer = self.client.post(
            "/admin/mailq/destination/", {"action": "suspend", "_selected_action": ["[far.test]:25"], "index": "0"}
        )
        self.assertIn("pattern=", answer["Location"])

    def test_every_page_of_the_index_opens(self) -> None:
        for name in ("message", "destination", "suspension", "auditentry"):
            self.assertEqual(200, self.client.get(f"/admin/mailq/{name}/").status_code)
        self.assertContains(self.client.get("/admin/"), "Mail queue")


class PermissionTests(AdminCase):
    """Who may look, who may give orders, and that nobody writes rows."""

    def test_a_viewer_sees_and_is_offered_no_order(self) -> None:
        queue_id = queued("bob@far.test")
        self.log_in("viewer")
        self.assertNotContains(self.client.get(LIST), 'name="action"')
        self.assertNotContains(self.client.get(f"{LIST}{queue_id}/change/"), 'name="action"')
        self.assertNotContains(self.client.get("/admin/mailq/suspension/"), "/new/")

    def test_a_viewer_who_posts_an_order_is_refused(self) -> None:
        queue_id = queued("bob@far.test")
        get_queue().suspend("far.test")
        self.log_in("viewer")
        for data in ({"index": "0"}, {"confirmed": "1"}):
            answer = self.client.post(LIST, {"action": "cancel", "_selected_action": [queue_id], **data})
            self.assertEqual(403, answer.status_code)
        for path, action, chosen in (
            ("/admin/mailq/suspension/", "resume", "nexthop:far.test"),
            ("/admin/mailq/destination/", "suspend", "far.test"),
        ):
            answer = self.client.post(path, {"action": action, "_selected_action": [chosen], "confirmed": "1"})
            self.assertEqual(403, answer.status_code)
        self.assertEqual(403, self.client.post("/admin/mailq/suspension/new/", {"pattern": "x.test"}).status_code)
        self.assertEqual(403, self.client.get("/admin/mailq/suspension/new/").status_code)
        self.assertEqual({"bob@far.test": "queued"}, self.states(queue_id))
        self.assertEqual(1, len(get_queue().suspensions()))

    def test_who_may_view_nothing_sees_nothing(self) -> None:
        queue_id = queued("bob@far.test")
        get_user_model().objects.create_user("clerk", is_staff=True)
        self.log_in("clerk")
        for path in (LIST, f"{LIST}{queue_id}/change/", "/admin/mailq/destination/limits/", "/admin/mailq/auditentry/"):
            self.assertEqual(403, self.client.get(path).status_code)
        self.client.logout()
        self.assertEqual(302, self.client.get(LIST).status_code)

    def test_an_order_needs_the_token_of_its_page(self) -> None:
        queue_id = queued("bob@far.test")
        self.client.handler.enforce_csrf_checks = True
        answer = self.client.post(LIST, {"action": "cancel", "_selected_action": [queue_id], "confirmed": "1"})
        self.assertEqual(403, answer.status_code)
        self.assertEqual({"bob@far.test": "queued"}, self.states(queue_id))

    def test_no_row_can_be_written(self) -> None:
        queue_id = queued("bob@far.test")
        message = models.Message.objects.get(pk=queue_id)
        for write in (
            message.save,
            message.delete,
            models.Message.objects.all().delete,
            lambda: models.Message.objects.update(sender=""),
            lambda: models.Message.objects.create(pk="x"),
            lambda: message.recipients.all().delete(),
        ):
            self.assertRaises(models.ReadOnlyError, write)
        for name in ("add", "delete", "history"):
            self.assertRaises(NoReverseMatch, reverse, f"admin:mailq_message_{name}", args=[queue_id])
        self.client.post(f"{LIST}{queue_id}/change/", {"sender": "mallory@home.test"})
        self.assertEqual("ann@home.test", models.Message.objects.get(pk=queue_id).sender)

    def test_django_finds_no_migration_missing(self) -> None:
        call_command("makemigrations", "mailq", check=True, dry_run=True, verbosity=0)

    @override_settings(MAILQ={"DATABASE_URL": "sqlite:////nonexistent/elsewhere.db"})
    def test_a_queue_in_a_database_that_django_does_not_know_is_not_shown(self) -> None:
        self.assertNotContains(self.client.get("/admin/"), "Mail queue")
        self.assertEqual(403, self.client.get(LIST).status_code)
