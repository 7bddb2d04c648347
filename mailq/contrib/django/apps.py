"""The Django app ``mailq``."""

from django.apps import AppConfig
from django.core.signals import setting_changed
from django.utils.translation import gettext_lazy as _


class MailqConfig(AppConfig):
    """Registers the system checks, and reads the settings again where a test overrides them."""

    name = "mailq.contrib.django"
    label = "mailq"
    verbose_name = _("Mail queue")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Register what Django asks for."""
        from mailq.contrib.django import conf  # noqa: PLC0415 - apps must be loaded first
        from mailq.contrib.django.checks import register_checks  # noqa: PLC0415 - likewise

        register_checks()
        setting_changed.connect(conf.forget, dispatch_uid="mailq.forget_settings")
