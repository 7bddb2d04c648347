"""What cron would start again and again, ``send_queued_mail``, without the time that starting takes."""

import time

import django


def main() -> None:
    """Send what is queued, for ever."""
    django.setup()
    from django.db import connection  # noqa: PLC0415 - Django must be set up first
    from post_office.mail import send_queued  # noqa: PLC0415 - as above

    while True:
        sent = send_queued(processes=2)
        # Its processes have ended the session that they inherited; the command does the same.
        connection.close()
        if not any(sent):
            time.sleep(0.05)


if __name__ == "__main__":
    main()
