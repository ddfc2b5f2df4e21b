"""Counts words. It needs no packages, and shows the three kinds of function that a route can call."""

import asyncio
import re
from collections import Counter

_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


def stats(text, top=3):
    """Sizes of a text and its most frequent words. A plain function: it runs in a thread of its own."""
    words = _words(text)
    return {
        "characters": len(text),
        "words": len(words),
        "lines": len(text.splitlines()),
        "most_common": [{"word": word, "count": count} for word, count in Counter(words).most_common(top)],
    }


async def compare(texts):
    """How many words each text has, and how many all share. An async function: it lets others run in between."""
    found = []
    for text in texts:
        found.append(set(_words(text)))
        await asyncio.sleep(0)
    shared = set.intersection(*found) if found else set()
    return {"distinct": [len(words) for words in found], "shared": sorted(shared)}


def words(text):
    """Each word with how often it was there so far. A generator: what it yields is sent at once."""
    seen = Counter()
    for word in _words(text):
        seen[word] += 1
        yield {"word": word, "count": seen[word]}


def about():
    """What this endpoint does."""
    return {"name": "text-stats", "counts": ["characters", "words", "lines"]}


def _words(text):
    return [word.lower() for word in _WORD.findall(text)]
