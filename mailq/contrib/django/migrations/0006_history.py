"""Longer history, and large content in parts or elsewhere."""

from typing import ClassVar

from django.db import migrations

from mailq.contrib.django.operations import ToRevision


class Migration(migrations.Migration):
    """Revision 0006."""

    dependencies: ClassVar = [("mailq", "0005_operations")]
    operations: ClassVar = [ToRevision("0006", before="0005")]
