"""The pages say of every setting what the code does with it."""

import pytest

from tests.reference import Table, tables, written


@pytest.mark.parametrize("table", list(tables()), ids=lambda table: table.model.__name__)
def test_a_page_lists_every_setting(table: Table) -> None:
    page = table.page.read_text(encoding="utf-8")
    assert page == written(page, table), "write it: python -m tests.reference"
