"""What else the owner of a lease may be sending, so that it need not wait for each record before the next message."""

from typing import ClassVar

from django.db import migrations

from mailq.contrib.django.operations import ToRevision


class Migration(migrations.Migration):
    """Revision 0014."""

    dependencies: ClassVar = [("mailq", "0013_gauges")]
    operations: ClassVar = [ToRevision("0014", before="0013")]
