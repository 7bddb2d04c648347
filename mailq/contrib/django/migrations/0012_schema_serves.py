"""Which releases may work on the schema, so that those of one release before know that they still can."""

from typing import ClassVar

from django.db import migrations

from mailq.contrib.django.operations import ToRevision


class Migration(migrations.Migration):
    """Revision 0012."""

    dependencies: ClassVar = [("mailq", "0011_headlines")]
    operations: ClassVar = [ToRevision("0012", before="0011")]
