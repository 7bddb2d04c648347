"""PostgreSQL no longer looks up the message of a content or recipient, which the same statement has just written."""

from typing import ClassVar

from django.db import migrations

from mailq.contrib.django.operations import ToRevision


class Migration(migrations.Migration):
    """Revision 0015."""

    dependencies: ClassVar = [("mailq", "0014_several_at_work")]
    operations: ClassVar = [ToRevision("0015", before="0014")]
