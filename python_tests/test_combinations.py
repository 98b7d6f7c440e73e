"""The table of every objective of every task under every option: each row is made again, and none is missing."""

import csv

import combinations
import pytest

pytestmark = pytest.mark.written_memory  # the loop's own tools read memory that they did not write

with combinations.TABLE.open(newline="") as file:
    TABLE = {(row["task"], row["objective"]): row for row in csv.DictReader(file)}


def test_the_table_has_every_combination():
    assert list(TABLE) == combinations.ROWS
    assert all(
        list(row) == ["task", "objective", *combinations.COLUMNS] and all(row.values()) for row in TABLE.values()
    )


@pytest.mark.parametrize("task, objective", combinations.ROWS)
def test_no_combination_is_silently_wrong(task, objective):
    assert combinations.row(task, objective) == TABLE[task, objective]
