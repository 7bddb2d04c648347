"""What Alembic's autogenerate is told to leave alone."""

import pytest

from mailq.contrib.alembic import PREFIX, without_mailq
from mailq.queue.tables import metadata


def test_every_table_of_the_queue_is_left_alone() -> None:
    assert [] == [name for name in (*metadata.tables, "mailq_schema") if without_mailq(name, "table", {})]


@pytest.mark.parametrize(("name", "kind"), [("person", "table"), (None, "schema"), (f"{PREFIX}x", "column")])
def test_what_is_the_applications_is_not(name: str | None, kind: str) -> None:
    assert without_mailq(name, kind, {})
