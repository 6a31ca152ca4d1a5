"""The page's tests, side by side, as it says."""

import pytest
from tests.frameworks.page import Page


@pytest.mark.parametrize("page", ["pytest"], indirect=True)
def test_the_pages_tests_pass(page: Page) -> None:
    assert "4 passed" in page.run("pytest -n 2")
