"""Messages name keywords as Python spells them. Where a caller spells them otherwise, they are respelled as they are shown."""

import re
from collections.abc import Callable, Iterable

from fused_cache_ops.keywords.call import CALL_OPTIONS
from fused_cache_ops.keywords.client import CLIENT_OPTIONS
from fused_cache_ops.keywords.selection import KINDS

Spell = Callable[[str, str | None], str | None]
"""``spell(name, value)``: how a caller writes a keyword. The value is None where only the keyword is named. None: as it is."""

_ASKING = r"(?:(?<=one of )|(?<=[Oo]mit )|(?<=[Pp]ass )|(?<=[Rr]aise )|(?<=[Uu]se )|(?<=[Gg]ive )|(?<=[Ss]et )|(?<=[Aa]dd ))"
_BEGINS = r"(?= = | needs | is of type | is None| are both | cannot )"
_VALUE = r"\{[^{}]*\}|'[^']*'|\"[^\"]*\"|\d[\d,.]*\d|[\w…-]+"


def respelled(message: str, spell: Spell, more: Iterable[str] = ()) -> str:
    """A message with its keywords as a caller writes them.

    A word that is also plain English, such as ``tiles``, is taken for a keyword only where a message begins with it or asks
    for it. What is quoted is left alone, and so is what a file says.

    Args:
        message: the message.
        spell: how the caller writes a keyword.
        more: further keywords that the caller has.
    """
    if _OF_A_FILE.match(message):
        return message
    message = re.sub(r"Raise the deadline(?=,| to )", "Raise deadline", message)
    names = "|".join(sorted({*CALL_OPTIONS, *CLIENT_OPTIONS, *KINDS, *more}, key=len, reverse=True))
    plain = "|".join(name for name in names.split("|") if "_" in name)
    keyword = re.compile(
        rf"(?P<quoted>(?<!\w)'[^']*'|\"[^\"]*\")"
        rf"|(?<![\w.-])(?P<given>{names})=(?P<value>{_VALUE})?"
        rf"|{_ASKING}(?P<list>(?:{names})(?:(?:, (?:and |or )?| and | or )(?:{names})\b)*)\b(?![=\w-])"
        rf"|^(?P<first>(?:{names})(?: and (?:{names}))*){_BEGINS}"
        rf"|(?<![\w.-])(?P<named>{plain})\b(?!=)"
    )

    def replaced(found: "re.Match[str]") -> str:
        if found["quoted"] is not None:
            return found[0]
        if several := found["list"] or found["first"]:
            return re.sub(rf"\b(?:{names})\b", lambda each: spell(each[0], None) or each[0], several)
        return spell(found["given"] or found["named"], found["value"]) or found[0]

    return keyword.sub(replaced, message)


def without_attributes(message: str) -> str:
    """A message without what only Python can reach: the attributes of the error that it is of."""
    return _ATTRIBUTES.sub("", message).strip()


_ATTRIBUTES = re.compile(
    r" ?The tiles not yet confirmed are in this error's \.remaining(?:_by_udf\.|: [^.]*\.)"
    r"| \.unfinished lists them for each UDF and instance\.| see this error's \.result\.failed\."
)
_OF_A_FILE = re.compile(r"[^\s,]*(?:\.toml)?, (?:dataset|table|entry) |[^\s:]+\.toml[ :,]|the cache map[:,]")
