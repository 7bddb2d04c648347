"""What transport security needs to remember: wishes of messages, policies of domains, sessions to report on."""

from typing import ClassVar

from django.db import migrations

from mailq.contrib.django.operations import ToRevision


class Migration(migrations.Migration):
    """Revision 0002."""

    dependencies: ClassVar = [("mailq", "0001_queue")]
    operations: ClassVar = [ToRevision("0002", before="0001")]
