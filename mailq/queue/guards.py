"""The table of states, and what holds of each row, enforced by the database itself.

A trigger refuses every update that moves a recipient along a way that
:data:`mailq.queue.states.TRANSITIONS` does not have: nothing leaves a final
state, and nothing is leased but what was queued, whoever writes. On PostgreSQL
it also refuses rows that :data:`mailq.queue.tables.ROW_RULES` do not allow,
which on SQLite are constraints.

PostgreSQL reads and plans the condition of a trigger anew for each statement,
like that of a constraint. So its conditions are short: they let pass what
nearly all statements do, to queue, to lease and to send, and have a function
look at all else.

Invariant: a trigger's name holds a digest of all that it enforces, so a
schema that was migrated by this release has the rules of this release.
"""

import hashlib
from typing import Final

from sqlalchemy import Connection, text

from mailq.queue.states import TRANSITIONS
from mailq.queue.tables import ROW_RULES

_PREFIX: Final = "mailq_guard_"
_PAIRS: Final = sorted(
    {f"{one}>{other}" for ways in TRANSITIONS.values() for one, other in ways.items() if one != other}
)
_ILLEGAL: Final = (
    "OLD.state <> NEW.state AND (OLD.state || '>' || NEW.state) NOT IN ("
    + ", ".join(f"'{pair}'" for pair in _PAIRS)
    + ")"
)
_REFUSAL: Final = "mailq: no event leads from this state of a recipient to that one"
_LIE: Final = "mailq: a recipient cannot be like this"
# What is leased has no end, and what was sent has one: a lease is the matter of a constraint.
_UNUSUAL_UPDATE: Final = (
    "(OLD.state = CASE NEW.state WHEN 'leased' THEN 'queued' WHEN 'sent' THEN 'leased' END"
    " AND (NEW.state = 'sent') = (NEW.finished_at IS NOT NULL)) IS NOT TRUE"
)
_UNUSUAL_INSERT: Final = "NEW.state <> 'queued' OR NEW.finished_at IS NOT NULL"
_COLUMNS: Final = "state, lease_id, finished_at, notice, attempts, stumbles"
_RULES: Final = " ".join(
    f"IF NOT ({rule.format(row='NEW.')}) THEN RAISE EXCEPTION '{_LIE}' USING ERRCODE = 'check_violation', "
    f"DETAIL = 'rule: {name}'; END IF;"
    for name, rule in ROW_RULES.items()
)
_FUNCTION: Final = (
    "CREATE OR REPLACE FUNCTION mailq_refuse_transition() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    f"IF TG_OP = 'UPDATE' THEN IF {_ILLEGAL} THEN "
    f"RAISE EXCEPTION '{_REFUSAL}' USING ERRCODE = 'check_violation', "
    "DETAIL = format('recipient %s: from %s to %s', OLD.id, OLD.state, NEW.state); END IF; END IF; "
    f"{_RULES} RETURN NEW; END $$"
)


def _digest(*rules: str) -> str:
    return hashlib.sha256(",".join(rules).encode()).hexdigest()[:12]


_TRIGGERS: Final = {
    "postgresql": {
        f"{_PREFIX}insert_{_digest(_FUNCTION, _UNUSUAL_INSERT)}": (
            "CREATE TRIGGER {name} BEFORE INSERT ON mailq_recipient FOR EACH ROW "
            f"WHEN ({_UNUSUAL_INSERT}) EXECUTE FUNCTION mailq_refuse_transition()"
        ),
        f"{_PREFIX}update_{_digest(_FUNCTION, _UNUSUAL_UPDATE, _COLUMNS)}": (
            f"CREATE TRIGGER {{name}} BEFORE UPDATE OF {_COLUMNS} ON mailq_recipient FOR EACH ROW "
            f"WHEN ({_UNUSUAL_UPDATE}) EXECUTE FUNCTION mailq_refuse_transition()"
        ),
    },
    "sqlite": {
        f"{_PREFIX}{_digest(*_PAIRS)}": (
            f"CREATE TRIGGER {{name}} BEFORE UPDATE OF state ON mailq_recipient FOR EACH ROW WHEN {_ILLEGAL} "
            f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
        ),
    },
}
_INSTALLED = {
    "postgresql": "SELECT tgname FROM pg_trigger WHERE tgrelid = to_regclass('mailq_recipient') AND NOT tgisinternal",
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'mailq_recipient'",
}


def install(connection: Connection) -> None:
    """Have the database enforce the rules of this release; does nothing where it does already."""
    triggers = _TRIGGERS[connection.dialect.name]
    found = _installed(connection)
    if sorted(found) == sorted(triggers):
        return
    _drop(connection, found)
    if connection.dialect.name == "postgresql":
        # The driver's own way, because a colon or a per cent sign would be taken for a parameter.
        connection.exec_driver_sql(_FUNCTION.replace("%", "%%"))
    for name, statement in triggers.items():
        connection.exec_driver_sql(statement.format(name=name))


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
