"""What text looks like to who reads it: letters of another width, without the characters that nobody sees."""

import re
from unicodedata import decimal, normalize

_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
"""Source: `Default_Ignorable_Code_Point` of https://www.unicode.org/Public/UCD/latest/ucd/DerivedCoreProperties.txt."""

_FOREIGN_DIGIT = re.compile(r"[^\D0-9]")
_DASH = re.compile("[\u2010-\u2015\u2212\ufe58]")

_LATIN = str.maketrans(
    dict(
        zip(
            "\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f\u03a1\u03a4\u03a5\u03a7\u03bf\u03bd\u03c1\u03b1\u03b9"
            "\u0405\u0406\u0408\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0423\u0425\u04ae\u04c0\u0501\u051b\u051d"
            "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0455\u0456\u0458\u04bb\u04cf\u050c\u0261\u0131\u0269\u1d0f\u0570\u0578\u057d\u0585",
            "ABEZHIKMNOPTYXovpaiSIJABEKMHOPCTYXYIdqwaeopcyxsijhlGgiiohnuo",
            strict=True,
        )
    )
)
"""Greek, Cyrillic and Armenian letters that are drawn as Latin ones are.
Source: the commonest of https://www.unicode.org/Public/security/latest/confusables.txt."""


def plain(text: str) -> str:
    """The text in the usual forms of its letters, digits and dashes, and without what nobody sees."""
    if text.isascii():
        return text
    usual = _UNSEEN.sub("", normalize("NFKC", text))
    return _DASH.sub("-", _FOREIGN_DIGIT.sub(lambda found: str(decimal(found.group())), usual))


def latin(text: str) -> str:
    """The plain text with Latin letters for those of other scripts that look the same."""
    return text if text.isascii() else plain(text).translate(_LATIN)
