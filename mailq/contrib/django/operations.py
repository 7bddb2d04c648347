"""The operations that mailq's migrations in Django are made of.

:class:`ToRevision` brings the tables to one revision of mailq's own.

There is one migration here for each revision there, so ``showmigrations``
tells the truth. Both ways of migrating may be mixed: what ``mailq migrate``
has done already is left as it is.
"""

from typing import Any

from django.apps import apps
from django.db import router
from django.db.migrations.operations.base import Operation
from django.db.migrations.state import ModelState

from mailq.contrib.django import conf
from mailq.contrib.django.queues import get_queue


class ToRevision(Operation):
    """Bring the tables to a revision, unless they are there or newer; and back to the one before.

    Args:
        revision: Of ``migrations/`` of mailq.
        before: The revision before it; ``base``: no tables.
    """

    reduces_to_sql = False
    reversible = True

    def __init__(self, revision: str, before: str) -> None:
        self.revision = revision
        self.before = before

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Leave the state alone: the models are not managed by Django."""

    def database_forwards(
        self,
        app_label: str,
        schema_editor: Any,
        from_state: Any,  # noqa: ARG002 - Django's signature
        to_state: Any,  # noqa: ARG002 - likewise
    ) -> None:
        """Migrate up, in the migration's own transaction."""
        if self._is_here(app_label, schema_editor):
            get_queue().store.upgrade(self.revision)

    def database_backwards(
        self,
        app_label: str,
        schema_editor: Any,
        from_state: Any,  # noqa: ARG002 - Django's signature
        to_state: Any,  # noqa: ARG002 - likewise
    ) -> None:
        """Migrate down."""
        if self._is_here(app_label, schema_editor):
            get_queue().store.downgrade(self.before)

    def describe(self) -> str:
        """Return what ``migrate`` shows."""
        return f"Bring the tables of mailq to revision {self.revision}"

    def _is_here(self, app_label: str, schema_editor: Any) -> bool:
        alias = schema_editor.connection.alias
        return conf.configuration().alias == alias and bool(router.allow_migrate(alias, app_label))


class ReadOnlyModels(Operation):
    """Tell Django of the models that are there now, whatever they are: it only reads by them, and makes no tables."""

    reduces_to_sql = False
    reversible = True

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Add the models as they are, so that ``makemigrations`` has nothing to do when they change."""
        for model in apps.get_app_config(app_label).get_models():
            state.add_model(ModelState.from_model(model))

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Change nothing."""

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Change nothing."""

    def describe(self) -> str:
        """Return what ``migrate`` shows."""
        return "Tell Django of the models that it reads by"
