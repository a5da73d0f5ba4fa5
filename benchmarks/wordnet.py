"""Words and their definitions in WordNet, of Debian's package wordnet-base."""

from __future__ import annotations

from pathlib import Path

_NOUNS = Path("/usr/share/wordnet/data.noun")


def noun_glosses() -> list[tuple[str, str]]:
    """Words of the noun synsets and their glosses, each gloss once.

    Raises:
        FileNotFoundError: the package is not installed.
    """
    found: dict[str, str] = {}
    for line in _NOUNS.read_text().splitlines():
        if line.startswith("  "):
            continue
        head, _, gloss = line.partition(" | ")
        fields = head.split()
        words = [fields[4 + 2 * i].replace("_", " ") for i in range(int(fields[3], 16))]
        found.setdefault(gloss.split(";")[0].strip(), ", ".join(words))
    return [(words, gloss) for gloss, words in found.items()]
