"""PostgreSQL makes contents smaller by LZ4, which takes a fraction of the time, where it was built with that."""

from typing import ClassVar

from django.db import migrations

from mailq.contrib.django.operations import ToRevision


class Migration(migrations.Migration):
    """Revision 0017."""

    dependencies: ClassVar = [("mailq", "0016_rules_by_guards")]
    operations: ClassVar = [ToRevision("0017", before="0016")]
