"""The promises of the store hold when attempts are partitioned by month as docs/history.md says.

The whole contract is run once more, on a database that was converted by the statements in the document.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from mailq.queue.store import Store
from mailq.testing.postgres import PostgresServer
from tests.contract.test_store_contract import *  # noqa: F403 - the contract itself
from tests.contract.test_store_history_contract import *  # noqa: F403 - as above
from tests.fakes.queue_values import a_message, finish, recipients_of, sent, take

pytestmark = pytest.mark.postgres

_TEMPLATE = "mailq_partitioned"
_numbers = itertools.count()


def statements() -> list[str]:
    document = (Path(__file__).parents[2] / "docs" / "history.md").read_text()
    (block,) = re.findall(r"```sql\n(.*?)```", document, re.DOTALL)
    return [each.strip() for each in block.split(";") if each.strip() not in {"", "BEGIN", "COMMIT"}]


def convert(store: Store) -> None:
    with store.engine.begin() as connection:
        for statement in statements():
            connection.execute(text(statement))


@pytest.fixture(scope="module")
def partitioned_template(postgres_server: PostgresServer) -> str:
    store = Store.open(postgres_server.create_database(_TEMPLATE, template="mailq_template"))
    convert(store)
    store.close()
    return _TEMPLATE


@pytest.fixture
def store_url(postgres_server: PostgresServer, partitioned_template: str) -> Iterator[str]:
    name = f"partitioned{next(_numbers)}"
    yield postgres_server.create_database(name, template=partitioned_template)
    postgres_server.drop_database(name)


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    opened = Store.open(store_url)
    yield opened
    opened.close()


def test_attempts_from_before_the_conversion_are_there_afterwards(postgres_url: str) -> None:
    opened = Store.open(postgres_url)
    (queue_id,) = opened.insert([a_message("bob@far.test")])
    lease = take(opened)
    finish(opened, [sent(one) for one in recipients_of(lease)], lease)
    with opened.engine.begin() as connection:
        # As if it had been in February.
        connection.execute(text("UPDATE mailq_attempt SET finished_at = '2026-02-01'"))
    convert(opened)
    (later,) = opened.insert([a_message("eve@far.test")])
    lease = take(opened)
    finish(opened, [sent(one) for one in recipients_of(lease)], lease)
    assert [1, 1] == [len(opened.show(one).recipients[0].history) for one in (queue_id, later)]
    with opened.engine.connect() as connection:
        homes = connection.execute(text("SELECT tableoid::regclass::text FROM mailq_attempt ORDER BY id")).scalars()
        assert ["mailq_attempt_before", "mailq_attempt_2026_03"] == list(homes)
    opened.close()
