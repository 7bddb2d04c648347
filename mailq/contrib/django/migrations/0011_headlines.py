"""What a message is called by people: its subject and its Message-ID, to be listed and searched by."""

from typing import ClassVar

from django.db import migrations

from mailq.contrib.django.operations import ToRevision


class Migration(migrations.Migration):
    """Revision 0011."""

    dependencies: ClassVar = [("mailq", "0010_proven_destinations")]
    operations: ClassVar = [ToRevision("0011", before="0010")]
