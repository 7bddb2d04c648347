"""A TLS report as mail. Values in, message bytes out.

It goes out even where TLS does not work, since that is what it tells of.

Source: RFC 8460 §5.1, §5.3, §6.5, §6.6; RFC 8689 §3; RFC 3834 §5.
"""

from datetime import datetime
from email import policy
from email.generator import BytesGenerator
from email.mime.application import MIMEApplication
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from email.utils import format_datetime
from io import BytesIO

from mailq.tls.tlsrpt import Reporter, file_name, report_id


def compose_report_mail(
    to: str, *, day: str, domain: str, reporter: Reporter, report: bytes, message_id: str, now: datetime
) -> bytes:
    """Return the message that carries a report.

    Args:
        to: Its recipient.
        day: UTC, that is reported on.
        domain: Whose.
        reporter: Its author.
        report: As :func:`mailq.tls.tlsrpt.packed` makes it.
        message_id: Without angle brackets.
        now: Its date.
    """
    name = report_id(day, domain, reporter)
    message = MIMEMultipart("report")
    message.set_param("report-type", "tlsrpt")
    fields = {
        "From": reporter.contact,
        "To": to,
        "Subject": f"Report Domain: {domain} Submitter: {reporter.hostname} Report-ID: <{name}>",
        "Date": format_datetime(now),
        "Message-ID": f"<{message_id}>",
        "TLS-Report-Domain": domain,
        "TLS-Report-Submitter": reporter.hostname,
        "TLS-Required": "No",
        "Auto-Submitted": "auto-generated",
    }
    for field, value in fields.items():
        message[field] = value
    text = f"This is the TLS report of {reporter.hostname}\non sessions with the servers of {domain} on {day} (UTC).\n"
    message.attach(MIMEText(text, "plain", "us-ascii"))
    attachment = MIMEApplication(report, "tlsrpt+gzip")
    attachment.add_header("Content-Disposition", "attachment", filename=file_name(day, domain, reporter))
    message.attach(attachment)
    written = BytesIO()
    BytesGenerator(written, mangle_from_=False, policy=policy.compat32.clone(linesep="\r\n")).flatten(message)
    return written.getvalue()
