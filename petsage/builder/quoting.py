"""Text from outside as what it may be in a file: a literal, a docstring, Markdown; never more.

Every text is one line of printable characters: requests with another one are refused.
"""

import re
from typing import Final

COLUMNS: Final = 100
"""How long a line of a built feature may be."""

_WIDEST: Final = "\N{KHMER SIGN BEYYAL}"  # the one letter that takes three columns
_INDENT: Final = 4

# Letters, digits and what stands between them in plain prose.
_PLAIN: Final = re.compile(r"[^\W_](?:[^\W_]|[ ,.;:!?'()/%&+-])*")
_MARKS: Final = re.compile(
    r"[\\`*\[\]<|~$@]"  # code, emphasis, links, HTML, tables, strikes, formulas, addresses
    r"|(?<![^\W_])_|_(?![^\W_])"  # inside of a word it is no emphasis
    r"|&(?=#?\w+;)"  # an entity
    r"|:(?=//)|(?<=www)\.",  # a link without brackets
    re.IGNORECASE,
)
_LINE_MARKS: Final = re.compile(r"[#>=:+-]|(?<=\d)[.)](?= |$)")
_NUMBERED: Final = re.compile(r"\d+[.)](?: |$)")


def width_of(text: str) -> int:
    """The columns that a text takes at most; ruff measures letters in the same way."""
    return sum(1 if each.isascii() else 3 if each == _WIDEST else 2 for each in text)


def literal(text: str, *, lead: str = "", indent: int = 0, behind: str = ",") -> str:
    """A Python expression that is the text, behind `lead`.

    One that does not fit into a line becomes several literals in parentheses, those of a call
    where `lead` opens one, broken behind spaces where there are some.

    Args:
        text: what the expression comes to, to the letter.
        lead: what stands before it on its line: `summary=`, or `print(`, which is closed.
        indent: how far the line is indented.
        behind: what stands behind it on its line.
    """
    opening, closing = ("", ")") if lead.endswith("(") else ("(", "")
    whole = f"{lead}{string(text)}{closing}"
    if indent + width_of(whole) + len(behind) <= COLUMNS:
        return whole
    margin = " " * (indent + _INDENT)
    lines = "".join(f"{margin}{each}\n" for each in _pieces(text, COLUMNS - len(margin)))
    return f"{lead}{opening}\n{lines}{' ' * indent})"


def _pieces(text: str, columns: int) -> list[str]:
    pieces = []
    while text:
        end = _longest(text, columns)
        if end < len(text):
            # A space belongs to the piece that it ends.
            end = text.rfind(" ", 0, end) + 1 or end
        pieces.append(string(text[:end]))
        text = text[end:]
    return pieces


def _longest(text: str, columns: int) -> int:
    """How many letters of a text make a literal of so many columns at most, and one at least."""
    end = min(len(text), columns)
    while end > 1 and width_of(string(text[:end])) > columns:
        end -= 1
    return end


def string(text: str) -> str:
    """One literal, in the quotes that ruff prefers."""
    quote = "'" if text.count('"') > text.count("'") else '"'
    escaped = text.replace("\\", "\\\\").replace(quote, f"\\{quote}")
    return f"{quote}{escaped}{quote}"


def raw(text: str) -> str:
    """A regular expression as a literal, raw where that is easier to read."""
    for quote in ('"', "'"):
        if "\\" in text and quote not in text and not text.endswith("\\"):
            return f"r{quote}{text}{quote}"
    return string(text)


def sentence(text: str) -> str | None:
    """The text as a docstring of one line, None where it cannot stand there as it is."""
    if not _PLAIN.fullmatch(text) or not (text[-1].isalnum() or text[-1] in ".!?)"):
        return None
    first = text[0].upper()
    whole = f"{first if len(first) == 1 else text[0]}{text[1:]}"
    if whole[-1] not in ".!?":
        whole += "."
    return whole if width_of(f'"""{whole}"""') <= COLUMNS else None


def docline(*texts: str, indent: int = _INDENT) -> str:
    """The first of some texts that makes a docstring of one line, the last where none does.

    Args:
        texts: plain sentences, none of which comes from outside.
        indent: how far the line is indented.
    """
    lines = [f'"""{text}"""' for text in texts]
    return next((line for line in lines if indent + width_of(line) <= COLUMNS), lines[-1])


def paragraph(text: str) -> str:
    """Markdown that shows the text and nothing else, in lines of at most `COLUMNS` where it can.

    Args:
        text: its white space is folded.
    """
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and width_of(_escaped_line(longer)) <= COLUMNS:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(map(_escaped_line, lines))


def _escaped_line(line: str) -> str:
    """A line's marks escaped, those too that only mean something at its beginning."""
    escaped = _escaped(line)
    if _NUMBERED.match(line) or line[0] in "#>=:+-":
        return _LINE_MARKS.sub(r"\\\g<0>", escaped, count=1)
    return escaped


def _escaped(text: str) -> str:
    return _MARKS.sub(r"\\\g<0>", text)


def cell(text: str) -> str:
    """Markdown that shows the text, and nothing else, in a cell of a table."""
    # A cell's own spaces are taken for its margin.
    inner = text.strip(" ")
    before = len(text) - len(text.lstrip(" "))
    after = len(text) - before - len(inner)
    return f"{'&#32;' * before}{_escaped(inner)}{'&#32;' * after}"


def fenced(text: str) -> str:
    """A block of code that holds the text to the letter."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
