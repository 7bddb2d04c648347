"""Limits that are set at run time, and the number that changes with them."""

from typing import ClassVar

from django.db import migrations

from mailq.contrib.django.operations import ToRevision


class Migration(migrations.Migration):
    """Revision 0008."""

    dependencies: ClassVar = [("mailq", "0007_notices")]
    operations: ClassVar = [ToRevision("0008", before="0007")]
