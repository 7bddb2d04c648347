"""Nexthops that wait for what they share with others, and a place to count sessions in."""

from typing import ClassVar

from django.db import migrations

from mailq.contrib.django.operations import ToRevision


class Migration(migrations.Migration):
    """Revision 0009."""

    dependencies: ClassVar = [("mailq", "0008_limit_rules")]
    operations: ClassVar = [ToRevision("0009", before="0008")]
