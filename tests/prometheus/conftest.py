"""The same dice for jitter and policies in every run."""

import random

import pytest


@pytest.fixture(autouse=True)
def same_dice() -> None:
    random.seed(0)
