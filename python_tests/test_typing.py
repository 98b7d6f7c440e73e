"""What type checkers are shown runs as it is written, and leaves no public name out."""

import ast
import re
from pathlib import Path

import pytest
import torch
import typed_use
from contract_cases import noise

import sampling_argmax_cuda

SOURCE = Path(typed_use.__file__).read_text()
RIGHT = [typed_use.right, typed_use.right_modules, typed_use.right_drop_ins]


@pytest.mark.parametrize("use", RIGHT, ids=lambda use: use.__name__)
def test_what_type_checkers_accept_runs(use):
    with torch.random.fork_rng():
        use(noise(2, 3, 6, 5), torch.ones(2, 3, 2), torch.ones(2, 3))


def test_every_public_name_is_shown_right_and_wrong():
    kinds = {"right": set(), "wrong": set()}
    for function in ast.parse(SOURCE).body:
        if isinstance(function, ast.FunctionDef):
            kind = "wrong" if function.name.startswith("wrong") else "right"
            kinds[kind] |= set(re.findall(r"\b\w+\b", ast.unparse(function)))
    assert all(names >= set(sampling_argmax_cuda.__all__) for names in kinds.values())


def test_each_error_is_expected_by_its_code():
    wrong = [line for line in SOURCE.splitlines() if "type: ignore" in line]
    assert len(wrong) > 25 and all(re.search(r"# type: ignore\[[a-z-]+\]", line) for line in wrong)
