"""The command line: `hatch run release:check`, `rehearse`, `news` and `prepare`."""

import argparse
import tempfile
from pathlib import Path

from .checks import check
from .distributions import BuildError, Distribution, build, distributions, prepare, show_news
from .rehearsal import rehearse


def main() -> int:
    parser = argparse.ArgumentParser(prog="hatch run", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("check", "build all sdists, the wheels from them, and look at both"),
        ("rehearse", "that, and upload them to a local index and install each from there"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--into", type=Path, metavar="FOLDER", help="keep what was built here")
    commands.add_parser("news", help="what each changelog will say of the next release")
    command = commands.add_parser("prepare", help="set a version, and write its changelog")
    command.add_argument("package", help="the folder's name in packages/")
    command.add_argument("version")
    options = parser.parse_args()

    made = distributions()
    if options.command == "news":
        for each in made:
            show_news(each)
        return 0
    if options.command == "prepare":
        chosen = [each for each in made if each.folder.name == options.package]
        if not chosen:
            parser.error(f"no packages/{options.package}")
        prepare(chosen[0], options.version)
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.into or Path(temporary)
        failed = _build_and_check(made, folder)
        if options.command == "rehearse" and not failed:
            failed = rehearse(made, folder)
    for told in failed:
        print(f"failed: {told}")
    return 1 if failed else 0


def _build_and_check(made: list[Distribution], folder: Path) -> list[str]:
    if folder.exists() and any(folder.iterdir()):
        return [f"{folder} is not empty: what is old there could be uploaded"]
    for each in made:
        try:
            build(each, folder, "--installer", "uv")
        except BuildError as error:
            return [str(error)]
        print(f"built {each.sdist}, {each.wheel}", flush=True)
    return check(made, folder)
