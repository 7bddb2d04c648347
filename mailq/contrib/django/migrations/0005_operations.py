"""Suspended destinations, and who did what."""

from typing import ClassVar

from django.db import migrations

from mailq.contrib.django.operations import ToRevision


class Migration(migrations.Migration):
    """Revision 0005."""

    dependencies: ClassVar = [("mailq", "0004_lanes")]
    operations: ClassVar = [ToRevision("0005", before="0004")]
