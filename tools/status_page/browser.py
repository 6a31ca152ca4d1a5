"""A headless Chromium, with a profile of its own that is gone afterwards."""

import contextlib
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CHROMIUM, DRIVER = "chromium", "chromedriver"

_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


class NoChromiumError(RuntimeError):
    """It is not installed."""


@contextlib.contextmanager
def chromium() -> Generator[webdriver.Chrome]:
    """It may be used in one thread at a time.

    `NoChromiumError`: it, or its driver, is not installed.
    """
    found = {name: shutil.which(name) for name in (CHROMIUM, DRIVER)}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise NoChromiumError(
            f"{' and '.join(missing)} not found: apt-get install chromium chromium-driver"
        )
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(found[CHROMIUM])
        for argument in (*_ARGUMENTS, f"--user-data-dir={profile}"):
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options, Service(str(found[DRIVER])))
        try:
            yield driver
        finally:
            driver.quit()


def looks_like(
    driver: webdriver.Chrome, width: int, height: int, *, dark: bool, motion: bool = True
) -> None:
    """The screen, and what the system prefers."""
    command(
        driver,
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
    )
    features = [
        {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
        {"name": "prefers-reduced-motion", "value": "no-preference" if motion else "reduce"},
    ]
    command(driver, "Emulation.setEmulatedMedia", {"features": features})


def command(driver: webdriver.Chrome, name: str, arguments: dict[str, Any]) -> Any:
    """One of the DevTools protocol."""
    return driver.execute_cdp_cmd(name, arguments)  # pyright: ignore[reportUnknownMemberType]


def read_log(driver: webdriver.Chrome, kind: str) -> list[dict[str, Any]]:
    """What was written there since this was asked last: ``browser``, the console; or
    ``performance``, what DevTools are told."""
    answer: dict[str, Any] = driver.execute("getLog", {"type": kind})
    entries: list[dict[str, Any]] = answer["value"]
    return entries


def shoot(driver: webdriver.Chrome, path: Path) -> None:
    """What the screen shows, as a PNG."""
    path.write_bytes(driver.get_screenshot_as_png())
