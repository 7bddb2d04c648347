"""The queue: messages, recipients, attempts, leases, destinations, the leader."""

from typing import ClassVar

from django.db import migrations

from mailq.contrib.django.operations import ReadOnlyModels, ToRevision


class Migration(migrations.Migration):
    """Revision 0001."""

    dependencies: ClassVar[list[tuple[str, str]]] = []
    operations: ClassVar = [ToRevision("0001", before="base"), ReadOnlyModels()]
