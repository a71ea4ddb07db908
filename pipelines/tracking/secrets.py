"""Addresses without the secrets in them, as they may be printed and stored; and what may be told of an error's text.

An address is read by no standard here: a password that somebody forgot to encode may hold any character, and then no
parser finds it. So everything up to the last `@` goes, and so does everything that may be a query.
"""

import hashlib
import re
from functools import lru_cache
from urllib.parse import quote, unquote, unquote_plus, urlsplit

LOCAL = ("sqlite", "file")  # schemes of files, whose paths may hold an `@`
TELLING = 4  # so many characters in a row of a secret are not shown either


def without_password(uri: str) -> str:
    """The address as it may be printed and stored: scheme, host and path."""
    scheme, rest = _split(uri)
    if re.split(r"[+:]", scheme)[0] in LOCAL and rest.startswith("/"):
        return scheme + re.split(r"[?#]", rest)[0]
    hidden, at, shown = rest.rpartition("@")
    if at and re.search(r"[?#].*=", hidden, re.DOTALL):  # this `@` may be one in a query's value
        return f"{scheme}***"
    return scheme + re.split(r"[?#]", shown)[0]


def is_readable(uri: str) -> bool:
    """Whether an address's parts are where a parser finds them."""
    try:
        parts = urlsplit(uri)
        parts.port  # noqa: B018 - raises ValueError where it is no number
    except ValueError:
        return False
    return parts.scheme.partition("+")[0] in LOCAL or "@" not in f"{parts.path}{parts.query}{parts.fragment}"


def told(error: BaseException, uri: str) -> str:
    """An error's type and text, in one line; no text where it tells a secret of the address."""
    return f"{type(error).__name__}: {without_secrets(str(error), uri)}"


def without_secrets(text: str, uri: str) -> str:
    """A text in one line and at most 300 characters; a note in its place where it tells a secret of the address."""
    line = " ".join(text.split())
    return "(left out: it holds a part of the password)" if _tells(line, uri) else mask(line)[:300]


def mask(text: str) -> str:
    """A text without what stands before the host in its addresses."""
    return re.sub(r"(\b[A-Za-z][\w+.-]*://)[^\s'\"<>]*@", r"\1", text)


@lru_cache
def fingerprint(uri: str) -> str:
    """Differs where the address or the password does; slow to compute, so that nobody finds the password by trying."""
    return hashlib.pbkdf2_hmac("sha256", uri.encode(errors="surrogateescape"), b"cursor", 200_000).hex()[:16]


def _tells(text: str, uri: str) -> bool:
    """Whether a part of a secret is in the text, however it is written there."""
    plain = _letters(text)
    for secret in _secrets(uri):
        for form in (secret, unquote(secret), unquote_plus(secret), quote(secret)):
            letters = _letters(form)
            size = min(TELLING, len(letters))
            if form and form in text:
                return True
            if size and any(letters[i : i + size] in plain for i in range(len(letters) - size + 1)):
                return True
    return False


def _letters(text: str) -> str:
    """What no way of writing changes: a parser or a message may escape the rest, or change its case."""
    return "".join(filter(str.isalnum, text.casefold()))


def _secrets(uri: str) -> list[str]:
    """Whatever in an address may be a secret: what follows the user's name, and values of a query."""
    _, rest = _split(uri)
    name, _, password = rest.rpartition("@")[0].partition(":")
    query = "".join(re.split(r"[?#]", rest, maxsplit=1)[1:])
    values = re.findall(r"=(.*?)(?=&[\w.-]+=|$)", query, re.DOTALL)  # up to the next name: a value may hold anything
    return list(filter(None, [password or name, *values]))


def _split(uri: str) -> tuple[str, str]:
    """The scheme with what ends it, and the rest."""
    scheme = re.match(r"[A-Za-z][\w+.-]*://", uri)
    return (scheme[0], uri[scheme.end() :]) if scheme else ("", uri)
