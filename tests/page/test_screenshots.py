"""The pictures for the documents."""

from pathlib import Path

from selenium.webdriver import Chrome
from tools.status_page.command import SCREENS, play

from pyscopg2.testing.cluster import LocalCluster

MOST = 150_000
"""Bytes of a picture that goes into the repository."""


async def test_there_is_one_for_each_screen_and_moment(
    driver: Chrome, cluster: LocalCluster, tmp_path: Path
) -> None:
    await play(driver, cluster, tmp_path, calm=0.5)
    pictures = {path.stem: path.read_bytes() for path in tmp_path.iterdir()}
    assert pictures.keys() == {
        f"{moment}-{screen}-{scheme}"
        for moment in ("before", "during", "after")
        for screen in SCREENS
        for scheme in ("light", "dark")
    }
    for picture in pictures.values():
        assert picture.startswith(b"\x89PNG")
        assert len(picture) < MOST
    # No two of them show the same.
    assert len(set(pictures.values())) == len(pictures)
