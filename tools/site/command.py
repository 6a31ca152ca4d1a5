"""The command line: `hatch run site:build`."""

import argparse
import shutil
import tempfile
from pathlib import Path

from sphinx.cmd.build import build_main

from .pages import ROOT
from .staging import stage

BUILT = ROOT / "build/site"


def main() -> int:
    parser = argparse.ArgumentParser(prog="hatch run site:build", description=__doc__)
    parser.add_argument("--into", type=Path, default=BUILT, metavar="FOLDER", help="the site")
    parser.add_argument("--texts", type=Path, metavar="FOLDER", help="keep Sphinx's input here")
    options = parser.parse_args()
    return build(options.into, options.texts)


def build(into: Path, texts: Path | None = None) -> int:
    """Build the site into a folder, whose old content goes. 0: nothing was to be warned of."""
    with tempfile.TemporaryDirectory() as temporary:
        staged = texts or Path(temporary, "texts")
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        stage(staged)
        shutil.rmtree(into, ignore_errors=True)
        settings = ("-W", "-n", "--keep-going", "-q", "-c", str(Path(__file__).parent))
        trees = ("-d", str(Path(temporary, "trees")))
        return build_main([*settings, *trees, "-b", "html", str(staged), str(into)])
