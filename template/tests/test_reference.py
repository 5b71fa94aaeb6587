"""The pages say of every setting what the code does with it."""

import pytest

from tests.reference import Table, tables, written


@pytest.mark.parametrize("table", list(tables()), ids=lambda table: table.model.__name__)
def test_a_page_lists_every_setting(table: Table) -> None:
    page = table.page.read_text(encoding="utf-8")
    # A default that was changed is a change of one line; a setting that nobody finds is a fault.
    for row in written(page, table).splitlines():
        if row.startswith("| `"):
            assert row.split("|")[1] in page, "write it: python -m tests.reference"
