"""What a delivery means to a sender who asked to be told, and messages with an envelope sender for each recipient."""

from typing import ClassVar

from django.db import migrations

from mailq.contrib.django.operations import ToRevision


class Migration(migrations.Migration):
    """Revision 0007."""

    dependencies: ClassVar = [("mailq", "0006_history")]
    operations: ClassVar = [ToRevision("0007", before="0006")]
