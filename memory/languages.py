"""The languages whose words can be reduced to stems."""

from __future__ import annotations

DEFAULT_LANGUAGE = "english"

NO_LANGUAGE = "none"
"""Words stay as they are."""

LANGUAGES = (
    NO_LANGUAGE,
    *(
        "arabic",
        "armenian",
        "basque",
        "catalan",
        "czech",
        "danish",
        "dutch",
        "english",
        "esperanto",
        "estonian",
        "finnish",
        "french",
        "german",
        "greek",
        "hindi",
        "hungarian",
        "indonesian",
        "irish",
        "italian",
        "lithuanian",
        "nepali",
        "norwegian",
        "persian",
        "polish",
        "portuguese",
        "romanian",
        "russian",
        "serbian",
        "sesotho",
        "spanish",
        "swedish",
        "tamil",
        "turkish",
        "yiddish",
    ),
)
"""Snowball's algorithms. Named here, so that who only reads the settings need not load these."""
