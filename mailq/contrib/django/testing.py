"""For an application's own tests: leave the queue as empty as it was.

Django's ``TestCase`` rolls mail back with all else. ``TransactionTestCase``
deletes only rows of tables that Django manages, which mailq's are not.
"""

from django.db import connections, transaction

from mailq.contrib.django import conf
from mailq.queue.tables import metadata, schema_serves


def empty_queue() -> None:
    """Delete all mail, and all that is known of it, from the database of the tests."""
    alias = conf.configuration().alias
    if alias is None:
        raise TypeError("the queue has a database of its own; give each test another")
    connection = connections[alias]
    with transaction.atomic(using=alias), connection.cursor() as cursor:
        for table in reversed(metadata.sorted_tables):
            if table is not schema_serves:
                cursor.execute(f"DELETE FROM {connection.ops.quote_name(table.name)}")  # noqa: S608 - our own names
