"""Each framework's application, by its own server, through a failover; and the page's own tests."""

import pytest
from tests.frameworks.failover import answers_through_a_failover
from tests.frameworks.page import Page

from pyscopg2.testing.cluster import LocalCluster


@pytest.mark.parametrize(
    ("page", "command"),
    [
        ("fastapi", "uvicorn --factory app:create_app --port 8000"),
        ("fastapi", "uvicorn --factory app_asyncpg:create_app --port 8000"),
        ("litestar", "uvicorn --factory app:create_app --port 8000"),
        ("starlette", "uvicorn --factory app:create_app --port 8000"),
        ("django", "uvicorn --factory asgi:create_app --port 8000"),
        ("aiohttp", "python -m aiohttp.web --hostname 127.0.0.1 --port 8000 app:init"),
        (
            "gunicorn-and-uvicorn with fastapi",
            "uvicorn --factory app:create_app --workers 2 --port 8000",
        ),
        (
            "gunicorn-and-uvicorn with fastapi",
            'gunicorn --bind 127.0.0.1:8000 "app:create_app()"',
        ),
    ],
    indirect=["page"],
    ids=lambda value: str(value).partition(":")[0].replace(" --factory", ""),
)
def test_answers_through_a_failover(page: Page, command: str, cluster: LocalCluster) -> None:
    with page.served(command) as client:
        answers_through_a_failover(client, cluster)


@pytest.mark.parametrize(
    "page", ["fastapi", "litestar", "starlette", "django", "aiohttp"], indirect=True
)
def test_the_pages_own_tests_pass(page: Page) -> None:
    page.check()
