"""When mail to a destination last did well, so that the many that do not cannot take its turn."""

from typing import ClassVar

from django.db import migrations

from mailq.contrib.django.operations import ToRevision


class Migration(migrations.Migration):
    """Revision 0010."""

    dependencies: ClassVar = [("mailq", "0009_shared_limits")]
    operations: ClassVar = [ToRevision("0010", before="0009")]
