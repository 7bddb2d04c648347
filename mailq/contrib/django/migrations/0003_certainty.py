"""Uncertain and quarantined mail, what a lease is at work on, and stricter rules about states."""

from typing import ClassVar

from django.db import migrations

from mailq.contrib.django.operations import ToRevision


class Migration(migrations.Migration):
    """Revision 0003."""

    dependencies: ClassVar = [("mailq", "0002_security")]
    operations: ClassVar = [ToRevision("0003", before="0002")]
