"""What strangers wrote, as text that does nothing: no terminal obeys it.

Values come from the topic, the profile and servers' messages. Every command and error line that shows one takes it
from here.
"""

from rich.console import Console
from rich.table import Table


def plain(value: object, most: int | None = None) -> str:
    """A value as one line of text; of a long one its first `most` bytes or letters, and "…".

    What is not UTF-8 or not printable, and marks that turn the direction of writing, are written as escapes.
    """
    long = most is not None and isinstance(value, bytes | str) and len(value) > most
    text = value[:most].decode("utf-8", errors="backslashreplace") if isinstance(value, bytes) else str(value)[:most]
    if not text.isprintable():
        text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    return text + "…" if long else text


def print_table(table: Table, width: int = 200) -> None:
    """Print a table whose cells mean what they say: no markup, no names of emojis. Not on a terminal: that wide."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, emoji=False, width=width)
    console.print(table)
