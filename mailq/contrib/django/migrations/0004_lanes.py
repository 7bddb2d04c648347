"""Classes and tenants of mail, the order of claims, and destinations that are dead."""

from typing import ClassVar

from django.db import migrations

from mailq.contrib.django.operations import ToRevision


class Migration(migrations.Migration):
    """Revision 0004."""

    dependencies: ClassVar = [("mailq", "0003_certainty")]
    operations: ClassVar = [ToRevision("0004", before="0003")]
