"""What others say, fit for a line of a log or a message.

A server chooses its words, and so does an impostor in its place. A carriage return, an escape
sequence or a mark that turns the direction of writing would forge lines, or hide them.
"""

import unicodedata

_SPACES = "Zs"
"""The category of those that lie within a line. French servers write no-break ones in quotes."""


def printable(text: str) -> str:
    """The same with everything escaped that is neither seen nor a space within a line: control and
    format characters, ends of lines, marks of direction, lone surrogates. One line in any case."""
    if text.isprintable():
        return text
    return "".join(
        character
        if character.isprintable() or unicodedata.category(character) == _SPACES
        else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
