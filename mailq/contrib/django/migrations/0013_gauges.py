"""Indexes by which monitoring counts what is set aside and what is dead without reading a table."""

from typing import ClassVar

from django.db import migrations

from mailq.contrib.django.operations import ToRevision


class Migration(migrations.Migration):
    """Revision 0013."""

    dependencies: ClassVar = [("mailq", "0012_schema_serves")]
    operations: ClassVar = [ToRevision("0013", before="0012")]
