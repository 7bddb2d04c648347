"""What older releases say to the database is understood by this release's schema, and does what it did."""

import copy
import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.fakes.statements import differences, record

pytestmark = pytest.mark.postgres
UPGRADES = Path(__file__).resolve().parents[1] / "upgrades"
OLDER = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(UPGRADES.glob("statements-*.json"))]


@pytest.mark.parametrize("recording", OLDER, ids=lambda recording: recording["revision"])
def test_an_older_release_s_statements_do_on_this_schema_what_they_did(recording: Any, postgres_url: str) -> None:
    assert len(recording["statements"]) > 50
    assert [] == differences(recording, postgres_url)


@pytest.fixture
def recorded(empty_postgres_url: str) -> Any:
    return record(empty_postgres_url)


def test_this_release_s_statements_can_be_kept_and_said_again(recorded: Any, postgres_url: str) -> None:
    assert [] == differences(json.loads(json.dumps(recorded)), postgres_url)


def test_a_column_that_must_be_filled_and_one_that_is_gone_are_noticed(postgres_url: str) -> None:
    recording = copy.deepcopy(OLDER[0])
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE mailq_message ADD COLUMN wanted text NOT NULL")
        with pytest.raises(psycopg.errors.NotNullViolation, match="wanted"):
            differences(recording, postgres_url)
        connection.execute("ALTER TABLE mailq_message DROP COLUMN wanted, DROP COLUMN size_bytes")
        with pytest.raises(psycopg.errors.UndefinedColumn, match="size_bytes"):
            differences(recording, postgres_url)


def test_an_answer_of_other_length_is_noticed(postgres_url: str) -> None:
    recording = copy.deepcopy(OLDER[0])
    recording["statements"] = recording["statements"][:1]
    recording["statements"][0]["rows"] += 1
    (found,) = differences(recording, postgres_url)
    assert f"rows, not {recording['statements'][0]['rows']}: INSERT INTO mailq_message" in found
