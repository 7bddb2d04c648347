"""PostgreSQL has rules of single rows looked at by its guards, and an attempt's message not looked up."""

from typing import ClassVar

from django.db import migrations

from mailq.contrib.django.operations import ToRevision


class Migration(migrations.Migration):
    """Revision 0016."""

    dependencies: ClassVar = [("mailq", "0015_no_check_of_own_rows")]
    operations: ClassVar = [ToRevision("0016", before="0015")]
