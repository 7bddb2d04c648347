"""The pages of all metrics and of all events of the log, from the tables in the code."""

from collections.abc import Iterable

from mailq.worker.log_events import EVENTS
from mailq.worker.metric_names import METRICS, Metric, Page

_METRICS_HEAD = """\
# Metrics

<!-- Written by scripts/generate_docs.py from mailq/worker/metric_names.py; `make docs` rewrites it. -->

What to do with them: [monitoring](monitoring.md). No label is a mail address or a server's words. Beside these, both
pages have the `process_…` metrics of their own process.
"""

_WORKER_HEAD = """\
## Of a worker

Each worker process shows what it does itself: the first at `metrics_address`, the others of the same worker at the
ports behind it; sum over instances.
"""

_QUEUE_HEAD = """\
## Of the queue

One `mailq metrics` shows them for all workers; they are gauges. `nexthop` and `key` are at most `metrics_sites` names
each, those with most mail; the others together are `other`. The key of an account that holds an address is left out.

What waits is counted by a scan of one index; a look that took a second is not repeated for twenty, so the page may be
as old as `mailq_gauges_age_seconds` says, and costs a twentieth of one connection at most.
"""

_LOGGING_HEAD = """\
# The log

<!-- Written by scripts/generate_docs.py from mailq/worker/log_events.py; `make docs` rewrites it. -->

Workers log to standard error. With `log_format = "json"` each record is one object on one line:

```json
{"at": "2026-03-01T12:10:00.123+00:00", "level": "info", "logger": "mailq.outcome", "event": "sent",
 "message": "sent 01K9… to=<ann@example.org> …", "queue_id": "01K9…", "recipient": "ann@example.org",
 "nexthop": "example.org", "lease": 4711, "session": 17, …}
```

`queue_id` leads to the message (`mailq show`), `lease` to all that one task did in one batch and to the attempts in the
history, `session` to all that one worker sent over one connection; `session` is 0 where there was none. Records that
are no event have an empty `event`. A traceback, where there is one, stands in `traceback`.

`log_addresses` says what is shown of mail addresses, wherever they stand, a server's words and tracebacks included:
`full`; `domain`, as `***@example.org`; `none`, as `***`. Queue ids and leases find the address in the database.

Both settings are for `mailq worker`, `mailq metrics` and `mailq flower`. An application that has the worker within
itself configures logging itself, and may use the same formatter:

```python
LOGGING = {
    "version": 1,
    "formatters": {"mail": {"()": "mailq.worker.logs.Lines", "form": "json", "addresses": "domain"}},
    "handlers": {"mail": {"class": "logging.StreamHandler", "formatter": "mail"}},
    "loggers": {"mailq": {"handlers": ["mail"], "level": "INFO"}},
}
```

## Events
"""


def metrics_page() -> str:
    """Return the reference of all metrics."""
    parts = [_METRICS_HEAD]
    for head, page in ((_WORKER_HEAD, Page.WORKER), (_QUEUE_HEAD, Page.QUEUE)):
        parts.append(head + "\n" + _metric_table(one for one in METRICS.values() if one.page is page))
    return "\n".join(parts)


def _metric_table(metrics: Iterable[Metric]) -> str:
    rows = "\n".join(
        f"| `{one.name}` | {one.kind} | {', '.join(f'`{label}`' for label in one.labels)} | {one.text} |"
        for one in metrics
    )
    return f"| Metric | Kind | Labels | Meaning |\n|---|---|---|---|\n{rows}\n"


def logging_page() -> str:
    """Return the reference of the log's form and of all its events."""
    rows = "\n".join(
        f"| `{one.name}` | {one.level} | {one.text} | {', '.join(f'`{name}`' for name in one.fields)} |"
        for one in EVENTS.values()
    )
    return f"{_LOGGING_HEAD}\n| Event | Level | What happened | Fields |\n|---|---|---|---|\n{rows}\n"
