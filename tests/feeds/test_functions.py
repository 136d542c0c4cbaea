"""Functions of the user, by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcompiler.errors import DataError
from qcompiler.feeds.functions import function_named, is_function_name, what_happened


@pytest.mark.parametrize(
    ("text", "is_one"),
    [("a:b", True), ("a.b.c:d", True), ("a", False), (":b", False), ("a:", False), ("a/b.py:c", False)],
)
def test_a_name_is_a_module_and_a_function(text: str, is_one: bool) -> None:
    assert is_function_name(text) == is_one


def test_modules_of_the_working_directory_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_function_here.py").write_text("def seven():\n    return 7\nnumber = 1\n")
    monkeypatch.chdir(tmp_path)
    assert function_named("own_function_here:seven", "counts")() == 7
    with pytest.raises(DataError, match="'number' is not a function that counts"):
        function_named("own_function_here:number", "counts")
    with pytest.raises(DataError, match=r"has no function 'sven' \(did you mean 'seven'\?\)"):
        function_named("own_function_here:sven", "counts")


def test_an_error_is_one_line_with_its_place_in_the_users_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_fault_here.py").write_text("\n\ndef fails():\n    raise ValueError('two\\nlines')\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="two") as caught:
        function_named("own_fault_here:fails", "fails")()
    assert what_happened(caught.value) == "ValueError: two lines (own_fault_here.py, line 4)"


def test_a_module_that_is_not_there_has_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        function_named("no_such_module_here:feeds", "yields feeds")
    assert str(caught.value).endswith("ModuleNotFoundError: No module named 'no_such_module_here'")
