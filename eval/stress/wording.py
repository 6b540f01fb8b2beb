"""The words of stressed texts: sentences that do not matter, and words that are no name and no thing."""

from __future__ import annotations

import re

NO_NAMES = frozenset(
    re.findall(
        r"\w+",
        """
    the and but are can did does was were will would could should how what when where which who whose why there here
    this that these those his her its our your their she they you all any both each every some many most much few if
    for from with without within into onto over under after before during since until while because then than thus
    also not now one two three four five six seven eight nine ten once twice first second last next find give given
    let suppose assume consider compute calculate evaluate solve simplify determine state show prove use write answer
    question note today yesterday tomorrow monday tuesday wednesday thursday friday saturday sunday january february
    march april may june july august september october november december
    """,
    )
)
"""Words of three letters or more that begin sentences, and what has a capital letter and is nobody."""
NO_THINGS = frozenset(
    re.findall(
        r"\w+",
        """
    same other final following total whole first second third last next number amount sum rest answer question image
    picture correct given only more most less least few lot way one two and are was has had per for each than then
    above below new old big small large long short
    """,
    )
)
"""What stands behind an article or a number and is no thing to tell of."""

PLACES = ("museum", "library", "harbour", "theatre", "bakery", "station", "garden", "lighthouse")
FACTS = (
    "by the old bridge closes early in winter",
    "at the end of the street was painted last spring",
    "behind the park is popular with visitors",
    "near the river has a new roof",
    "in the next town is known for its quiet mornings",
    "on the hill can be seen from far away",
)
OF_NAMES = (
    "A cousin of {} likes to read in the evening.",
    "A teacher of {} once lived near the sea.",
    "A neighbour of {} is learning to play the violin.",
    "A photograph of {} hangs in a hallway.",
    "A letter to {} arrived late because of the snow.",
    "An uncle of {} prefers tea to coffee.",
)
OF_THINGS = (
    "A poem about the {} was read on the radio.",
    "A student once drew the {} in an art class.",
    "A story about the {} is told to children.",
    "An essay on the {} won a prize in another country.",
    "A song about the {} is played in the evening.",
    "A film about the {} was shown in a school.",
)
NAMES_COUNTED = (
    "A cousin of {} counted {} {} last week.",
    "A neighbour of {} once bought {} {}.",
    "A teacher of {} keeps {} {} in a cupboard.",
    "A friend of an aunt of {} lost {} {} on a journey.",
)
THINGS_COUNTED = (
    "A poem about the {} mentions {} {}.",
    "A painter of the {} owned {} {}.",
    "A story about the {} begins with {} {}.",
    "A film about the {} shows {} {}.",
)
COUNTED = ("seashells", "umbrellas", "postcards", "candles", "acorns", "buttons", "feathers", "lanterns")
