"""Takes text apart into terms, by which memories are found: in any language, each word by its script."""

from __future__ import annotations

import re
import threading
import unicodedata
from functools import cache
from hashlib import blake2b
from itertools import chain
from typing import TYPE_CHECKING

import regex
import Stemmer

from memory.languages import DEFAULT_LANGUAGE, NO_LANGUAGE

if TYPE_CHECKING:
    from collections.abc import Iterable

_SCRIPT_LANGUAGES = {
    "Arabic": "arabic",
    "Armenian": "armenian",
    "Cyrillic": "russian",
    "Devanagari": "hindi",
    "Greek": "greek",
    "Tamil": "tamil",
}
"""Scripts whose words are stemmed whatever the language, unless that is one of the script itself."""

_OWN_SCRIPT = {"persian": "Arabic", "nepali": "Devanagari"} | {
    language: script for script, language in _SCRIPT_LANGUAGES.items()
}

# Scripts that are written without blanks between words: characters and pairs of them stand for these.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\u30fc"
_ASCII_WORD = re.compile("[a-z0-9]+")
_WORD = regex.compile(r"[\p{L}\p{N}][\p{L}\p{M}\p{N}]*")
_PIECE = regex.compile(rf"[{_UNSPACED}\p{{M}}]+|[^{_UNSPACED}]+")
_IS_UNSPACED = regex.compile(rf"[{_UNSPACED}]")
_SCRIPTS = {script: regex.compile(rf"\p{{{script}}}") for script in {"Latin", *_SCRIPT_LANGUAGES, "Hebrew"}}
# In these scripts marks are an accent or a vowel that people leave out; in others they are letters.
_FOLDED = ("Latin", "Greek", "Cyrillic", "Arabic", "Hebrew")

_MOST_KNOWN = 500_000  # words, of some 150 bytes each

# English words that say how others belong together. They are left out of queries alone, so no text loses any.
_STOP_WORDS = frozenset(
    _ASCII_WORD.findall("""
    a about after all also am an and any are aren as at be because been before being but by can cannot could
    couldn d did didn do does doesn doing don down during each else ever few for from further had hadn has
    hasn have haven having he her here hers herself him himself his how i if in into is isn it its itself
    just let ll m me might more most must mustn my myself no nor not now of off on once only or other our
    ours ourselves out over own re s same shall shan she should shouldn so some such t than that the their
    theirs them themselves then there these they this those through to too under until up upon us ve very
    was wasn we were weren what when where which while who whom whose why will with won would wouldn you
    your yours yourself yourselves
    """)
)


class Analyzer:
    """Takes text apart into numbers that stand for its terms. Safe to call from several threads.

    A term is a word, or for scripts without blanks a character or a pair of them, in its plain form: as by
    Unicode's NFKC and case folding, stemmed, without accents. Its number is a 64-bit hash. Memories and
    queries must be taken apart by the same language.

    Args:
        language: one of `memory.languages.LANGUAGES`, for words in Latin script; those of Arabic, Armenian,
            Cyrillic, Devanagari, Greek and Tamil script are stemmed as what most of their texts are in.

    """

    def __init__(self, language: str = DEFAULT_LANGUAGE) -> None:
        self.language = language
        self._known: dict[str, tuple[int, ...]] = {}
        self._lock = threading.Lock()  # a stemmer serves one thread at a time
        self._stemmers = _stemmers(language)

    def terms(self, text: str) -> list[int]:
        """Return the terms of a text in their order, as often as they are there; each is in 0..2⁶⁴-1."""
        words = _words(text)
        while True:
            try:
                return list(chain.from_iterable(map(self._known.__getitem__, words)))
            except KeyError:
                self._learn(words)

    def query_terms(self, text: str) -> list[int]:
        """Return the distinct terms of a query: without English stop words, unless it has nothing else.

        A single character of a script without blanks is only one where it stands alone.
        """
        words = _words(text)
        telling = [word for word in words if self.language != DEFAULT_LANGUAGE or word not in _STOP_WORDS]
        with self._lock:
            terms = [
                _number(term)
                for word in telling or words
                for piece in _PIECE.findall(word)
                for term in self._plain(piece)[-max(1, len(piece) - 1) :]
            ]
        return list(dict.fromkeys(terms))

    def forget(self) -> None:
        """Forget every word that was learned: they may be those of a text that must be gone."""
        with self._lock:
            self._known = {}

    def _learn(self, words: Iterable[str]) -> None:
        with self._lock:
            known = self._known if len(self._known) < _MOST_KNOWN else {}
            for word in words:
                if word not in known:
                    pieces = _PIECE.findall(word)
                    known[word] = tuple(_number(term) for piece in pieces for term in self._plain(piece))
            self._known = known

    def _plain(self, piece: str) -> list[str]:
        """Return the terms of a part of a word that is of one kind of script; single characters first."""
        if _IS_UNSPACED.match(piece):
            return [*piece, *(piece[i : i + 2] for i in range(len(piece) - 1))]
        script = next((name for name, pattern in _SCRIPTS.items() if pattern.match(piece)), None)
        stemmer = self._stemmers.get(script) if script else None
        stem: str = stemmer.stemWord(piece) if stemmer else piece
        return [_without_marks(stem) or stem if script in _FOLDED else stem]


@cache
def analyzer_of(language: str) -> Analyzer:
    """Return the process's one analyzer of a language: what it has learned serves every index."""
    return Analyzer(language)


def _words(text: str) -> list[str]:
    if text.isascii():  # which is most of what is said in English, and three times as fast
        return _ASCII_WORD.findall(text.lower())
    found: list[str] = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return found


def _stemmers(language: str) -> dict[str, Stemmer.Stemmer]:
    """Return a stemmer by script."""
    named = dict(_SCRIPT_LANGUAGES)
    if language != NO_LANGUAGE:
        named[_OWN_SCRIPT.get(language, "Latin")] = language
    # Without the library's own memory: each word comes here once.
    return {script: Stemmer.Stemmer(name, 0) for script, name in named.items()}


def _without_marks(text: str) -> str:
    if text.isascii():
        return text
    return "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) != "Mn")


def _number(term: str) -> int:
    return int.from_bytes(blake2b(term.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
