"""The table of every method of every task under every option: each row is made again, and none is missing."""

import csv

import combinations
import pytest

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

with combinations.TABLE.open(newline="") as file:
    TABLE = {(row["task"], row["method"]): row for row in csv.DictReader(file)}


def test_the_table_has_every_combination():
    assert list(TABLE) == combinations.ROWS
    assert all(list(row) == ["task", "method", *combinations.COLUMNS] and all(row.values()) for row in TABLE.values())


@pytest.mark.parametrize("task, method", combinations.ROWS)
def test_no_combination_is_silently_wrong(task, method):
    assert combinations.row(task, method) == TABLE[task, method]
