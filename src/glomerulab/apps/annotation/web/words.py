"""The pages' words in English and Chinese.

English itself is the key, so that a page reads as it looks; ``words_zh.toml`` holds the Chinese.
"""

import tomllib
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources

__all__ = ["LANGUAGES", "chinese_words", "script_words", "translate"]

LANGUAGES = {"en": "English", "zh": "中文"}
"""Code to what the language calls itself."""


@lru_cache(maxsize=1)
def chinese_words() -> Mapping[str, str]:
    """Return English to Chinese."""
    file = resources.files("glomerulab.apps.annotation.web") / "words_zh.toml"
    return {text: str(said) for text, said in tomllib.loads(file.read_text("utf-8")).items()}


def translate(text: str, language: str) -> str:
    """Say a text in a language.

    Parameters
    ----------
    text : str
        English; may hold names in braces.
    language : str
        One of `LANGUAGES`.

    Returns
    -------
    str
        The English text where there is no other.

    Examples
    --------
    >>> translate("Note", "zh")
    '备注'
    """
    return chinese_words().get(text, text) if language == "zh" else text


def script_words(language: str) -> Mapping[str, str]:
    """Return what a page's script needs to speak a language: nothing for English."""
    return chinese_words() if language == "zh" else {}
