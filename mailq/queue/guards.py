"""The table of states, enforced by the database itself.

A trigger refuses every update that moves a recipient along a way that
:data:`mailq.queue.states.TRANSITIONS` does not have: nothing leaves a final
state, and nothing is leased but what was queued, whoever writes. The test is
the trigger's own condition, so a legal change calls no function; it costs
less than can be measured beside the commit.

Invariant: the trigger's name holds a digest of the table of states, so a
schema that was migrated by this release has the rules of this release.
"""

import hashlib

from sqlalchemy import Connection, text

from mailq.queue.states import TRANSITIONS

_PREFIX = "mailq_guard_"
_PAIRS = sorted({f"{one}>{other}" for ways in TRANSITIONS.values() for one, other in ways.items() if one != other})
_NAME = _PREFIX + hashlib.sha256(",".join(_PAIRS).encode()).hexdigest()[:12]
_ILLEGAL = (
    "OLD.state <> NEW.state AND (OLD.state || '>' || NEW.state) NOT IN ("
    + ", ".join(f"'{pair}'" for pair in _PAIRS)
    + ")"
)
_REFUSAL = "mailq: no event leads from this state of a recipient to that one"

_INSTALL = {
    "postgresql": (
        (
            "CREATE OR REPLACE FUNCTION mailq_refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"RAISE EXCEPTION '{_REFUSAL}' USING ERRCODE = 'check_violation', "
            "DETAIL = format('recipient %s: from %s to %s', OLD.id, OLD.state, NEW.state); END $$"
        ),
        (
            f"CREATE TRIGGER {_NAME} BEFORE UPDATE OF state ON mailq_recipient FOR EACH ROW WHEN ({_ILLEGAL}) "
            "EXECUTE FUNCTION mailq_refuse_transition()"
        ),
    ),
    "sqlite": (
        (
            f"CREATE TRIGGER {_NAME} BEFORE UPDATE OF state ON mailq_recipient FOR EACH ROW WHEN {_ILLEGAL} "
            f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
        ),
    ),
}
_INSTALLED = {
    "postgresql": "SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass('mailq_recipient') AND NOT tgisinternal",
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'mailq_recipient'",
}


def install(connection: Connection) -> None:
    """Have the database enforce the states of this release; does nothing where it does already."""
    found = _installed(connection)
    if found == [_NAME]:
        return
    _drop(connection, found)
    for statement in _INSTALL[connection.dialect.name]:
        # The driver's own way, because a colon or a per cent sign would be taken for a parameter.
        connection.exec_driver_sql(statement.replace("%", "%%") if connection.dialect.name != "sqlite" else statement)


def remove(connection: Connection) -> None:
    """Let the states be written freely, for a migration that does what no event does."""
    _drop(connection, _installed(connection))
    if connection.dialect.name == "postgresql":
        connection.execute(text("DROP FUNCTION IF EXISTS mailq_refuse_transition()"))


def _installed(connection: Connection) -> list[str]:
    names = connection.execute(text(_INSTALLED[connection.dialect.name])).scalars()
    return [name for name in names if name.startswith(_PREFIX)]


def _drop(connection: Connection, names: list[str]) -> None:
    behind = " ON mailq_recipient" if connection.dialect.name == "postgresql" else ""
    for name in names:
        connection.execute(text(f"DROP TRIGGER {name}{behind}"))
