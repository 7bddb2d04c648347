"""Pages of a list that may have millions of rows, without counting them."""

from functools import cached_property
from typing import Any, Final

from django.core.paginator import Paginator

MOST_COUNTED: Final = 5_000
"""Rows are counted up to this many; what lies behind is found by filters and by the search."""


class BoundedPaginator(Paginator):
    """Counts at most :data:`MOST_COUNTED` rows, and one more to know whether there are more."""

    @cached_property
    def _counted(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[: MOST_COUNTED + 1].count())

    @property
    def count(self) -> int:
        """How many rows have a page."""
        return min(self._counted, MOST_COUNTED)

    @property
    def is_cut(self) -> bool:
        """Whether there are more."""
        return self._counted > MOST_COUNTED
