"""Eight generators of questions and SQL on the database of time zones, good ones and bad ones.

Each generator represents one way of making synthetic text-to-SQL data. All draw from intents: a
query with slots, several casual ways to ask for it, and one stiff way. The slots are filled from
the database. Equal arguments give equal examples. The phrasings were written after the real
questions of the recipe, by the same author.
"""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from synque_select.errors import ConfigError
from synque_select.utils.wording import counted

__all__ = ["FALSE_LABELS", "GENERATORS", "Record", "Slots", "generate", "read_slots"]

Slots = Mapping[str, Sequence[str]]

_COUNTRY_JOIN = "zones JOIN countries ON zones.country = countries.code"
_OF_COUNTRIES = "countries JOIN zones ON zones.country = countries.code"
_MAX_FAILED = 2000


class Record(TypedDict):
    """One example: a question and its query."""

    question: str
    SQL: str


@dataclass(frozen=True)
class Intent:
    """One thing to ask for.

    Args:
        query: SQL with slots in braces.
        casual: Ways in which people ask.
        stiff: How a machine would ask that reads the schema aloud.
    """

    query: str
    casual: tuple[str, ...]
    stiff: str


_LOOKUPS = (
    Intent(
        "SELECT utc_offset FROM zones WHERE city = '{city}'",
        (
            "What is the UTC offset in {city}?",
            "how far is {city} from UTC",
            "{city}: which offset?",
        ),
        "Return utc_offset of zones where city is {city}.",
    ),
    Intent(
        "SELECT name FROM zones WHERE city = '{city}'",
        ("Which time zone is {city} in?", "what's the zone name for {city}", "Zone of {city}?"),
        "Return name of zones where city is {city}.",
    ),
    Intent(
        "SELECT dst FROM zones WHERE city = '{city}'",
        ("Do they change the clocks in {city}?", "Is there summer time in {city}?"),
        "Return dst of zones where city is {city}.",
    ),
    Intent(
        "SELECT latitude, longitude FROM zones WHERE name = '{zone}'",
        ("Where on the map is {zone}?", "Give me the coordinates for {zone}."),
        "Return latitude and longitude of zones where name is {zone}.",
    ),
    Intent(
        "SELECT code FROM countries WHERE name = '{country}'",
        ("What's the code of {country}?", "Two letter code for {country}, please."),
        "Return code of countries where name is {country}.",
    ),
    Intent(
        "SELECT name FROM countries WHERE code = '{code}'",
        ("Which country has the code {code}?", "what is {code} short for"),
        "Return name of countries where code is {code}.",
    ),
    Intent(
        "SELECT name FROM countries WHERE name LIKE '{letter}%'",
        ("Which countries start with {letter}?", "List the countries beginning with {letter}."),
        "Return name of countries where name begins with {letter}.",
    ),
    Intent(
        "SELECT COUNT(*) FROM zones WHERE region = '{region}'",
        ("How many zones are there in {region}?", "number of zones in the region {region}"),
        "Return the count of zones where region is {region}.",
    ),
    Intent(
        "SELECT name FROM zones WHERE region = '{region}' AND dst = {flag}",
        ("Which zones in {region} have dst {flag}?", "{region}: all zones with dst = {flag}"),
        "Return name of zones where region is {region} and dst is {flag}.",
    ),
    Intent(
        "SELECT name FROM zones WHERE utc_offset = {offset}",
        ("Which zones are at UTC {offset}?", "Where is the offset {offset} hours?"),
        "Return name of zones where utc_offset is {offset}.",
    ),
    Intent(
        "SELECT city FROM zones WHERE utc_offset > {offset}",
        ("Which cities are ahead of {offset} hours?", "cities with an offset above {offset}"),
        "Return city of zones where utc_offset is greater than {offset}.",
    ),
    Intent(
        "SELECT city FROM zones WHERE region = '{region}' ORDER BY {axis} {direction} LIMIT {n}",
        (
            "Sort the cities of {region} by {axis} ({direction}) and show the first {n}.",
            "top {n} cities in {region} by {axis}, {direction}",
        ),
        "Return city of zones where region is {region} ordered by {axis} {direction}, {n} rows.",
    ),
    Intent(
        "SELECT name FROM zones WHERE {axis} > {degrees}",
        ("Which zones have a {axis} over {degrees} degrees?", "zones beyond {degrees} of {axis}"),
        "Return name of zones where {axis} is greater than {degrees}.",
    ),
    Intent(
        "SELECT note FROM zones WHERE name = '{zone}'",
        ("What does the note on {zone} say?", "Any remark about {zone}?"),
        "Return note of zones where name is {zone}.",
    ),
    Intent(
        "SELECT AVG({axis}) FROM zones WHERE region = '{region}'",
        ("What's the average {axis} in {region}?", "mean {axis} of the zones in {region}"),
        "Return the average of {axis} of zones where region is {region}.",
    ),
)

_ALIASES = (
    Intent(
        "SELECT zone FROM aliases WHERE alias = '{alias}'",
        ("What is {alias} called now?", "Which zone is behind {alias}?"),
        "Return zone of aliases where alias is {alias}.",
    ),
    Intent(
        "SELECT alias FROM aliases WHERE zone = '{aliased}'",
        ("Which other names does {aliased} have?", "aliases of {aliased}?"),
        "Return alias of aliases where zone is {aliased}.",
    ),
    Intent(
        "SELECT COUNT(*) FROM aliases WHERE zone = '{aliased}'",
        ("How many aliases are there for {aliased}?",),
        "Return the count of aliases where zone is {aliased}.",
    ),
    Intent(
        "SELECT alias FROM aliases WHERE alias LIKE '{letter}%'",
        ("Which aliases begin with {letter}?",),
        "Return alias of aliases where alias begins with {letter}.",
    ),
)

_CHANGES = (
    Intent(
        "SELECT date FROM changes WHERE zone = '{zone}' AND date LIKE '{year}%'",
        (
            "When did the clocks change in {zone} in {year}?",
            "clock changes of {zone} during {year}",
        ),
        "Return date of changes where zone is {zone} and date begins with {year}.",
    ),
    Intent(
        "SELECT COUNT(*) FROM changes WHERE date LIKE '{year}%'",
        ("How many clock changes happened in {year}?", "number of changes in the year {year}"),
        "Return the count of changes where date begins with {year}.",
    ),
    Intent(
        "SELECT MAX(date) FROM changes WHERE zone = '{zone}'",
        ("When was the last change in {zone}?", "Since when has {zone} not changed its clock?"),
        "Return the greatest date of changes where zone is {zone}.",
    ),
    Intent(
        "SELECT MIN(date) FROM changes WHERE zone = '{zone}' AND dst = {flag}",
        ("What's the first date with dst {flag} in {zone}?",),
        "Return the smallest date of changes where zone is {zone} and dst is {flag}.",
    ),
    Intent(
        "SELECT COUNT(*) FROM changes WHERE zone = '{zone}' AND date > '{year}-01-01'",
        ("How often has {zone} changed its clocks since {year}?",),
        "Return the count of changes where zone is {zone} and date is after {year}-01-01.",
    ),
    Intent(
        "SELECT DISTINCT abbreviation FROM changes WHERE zone = '{zone}'",
        ("Which abbreviations were used in {zone}?", "all abbreviations of {zone}"),
        "Return distinct abbreviation of changes where zone is {zone}.",
    ),
    Intent(
        "SELECT DISTINCT zone FROM changes WHERE abbreviation = '{abbreviation}'",
        ("Where was {abbreviation} ever used?", "zones that have used {abbreviation}"),
        "Return distinct zone of changes where abbreviation is {abbreviation}.",
    ),
    Intent(
        "SELECT zone FROM changes GROUP BY zone ORDER BY COUNT(*) DESC LIMIT {n}",
        ("Which {n} zones changed their clocks most often?",),
        "Return zone of changes grouped by zone ordered by count descending, {n} rows.",
    ),
)

_JOINS = (
    Intent(
        f"SELECT COUNT(*) FROM {_COUNTRY_JOIN} WHERE countries.name = '{{country}}'",
        ("How many zones does {country} have?", "number of time zones in {country}?"),
        "Return the count of zones joined to countries where countries name is {country}.",
    ),
    Intent(
        f"SELECT zones.name FROM {_COUNTRY_JOIN} WHERE countries.name = '{{country}}'",
        ("List the zones of {country}.", "Which time zones are used in {country}?"),
        "Return zones name joined to countries where countries name is {country}.",
    ),
    Intent(
        "SELECT countries.name FROM countries JOIN zones ON zones.country = countries.code "
        "WHERE zones.city = '{city}'",
        ("Which country is {city} in?", "{city} belongs to which country?"),
        "Return countries name joined to zones where zones city is {city}.",
    ),
    Intent(
        f"SELECT DISTINCT countries.name FROM {_OF_COUNTRIES} "
        "WHERE zones.region = '{region}' AND zones.dst = {flag}",
        ("Which countries in {region} have dst {flag}?", "countries of {region} with dst = {flag}"),
        "Return distinct countries name joined to zones where region is {region}, dst is {flag}.",
    ),
    Intent(
        f"SELECT DISTINCT countries.name FROM {_OF_COUNTRIES} WHERE zones.utc_offset = {{offset}}",
        ("Which countries are at UTC {offset}?", "Who uses an offset of {offset}?"),
        "Return distinct countries name joined to zones where zones utc_offset is {offset}.",
    ),
    Intent(
        f"SELECT zones.city FROM {_COUNTRY_JOIN} WHERE countries.name = '{{country}}' "
        "ORDER BY zones.{axis} {direction} LIMIT 1",
        ("Which city of {country} comes first by {axis}, {direction}?",),
        "Return zones city where countries name is {country} ordered by {axis} {direction}, 1 row.",
    ),
    Intent(
        f"SELECT MIN(zones.utc_offset), MAX(zones.utc_offset) FROM {_COUNTRY_JOIN} "
        "WHERE countries.name = '{country}'",
        ("What's the range of offsets in {country}?", "lowest and highest offset in {country}"),
        "Return the smallest and greatest utc_offset where countries name is {country}.",
    ),
    Intent(
        "SELECT countries.name FROM countries JOIN zones ON zones.country = countries.code "
        "GROUP BY countries.name HAVING COUNT(*) = {n}",
        ("Which countries have {n} zones?", "countries with exactly {n} time zones"),
        "Return countries name grouped by name having a count of {n}.",
    ),
    Intent(
        "SELECT countries.name FROM countries JOIN zones ON zones.country = countries.code "
        "JOIN aliases ON aliases.zone = zones.name WHERE aliases.alias = '{alias}'",
        ("Which country does the alias {alias} belong to?",),
        "Return countries name joined to zones and aliases where alias is {alias}.",
    ),
    Intent(
        "SELECT zones.utc_offset FROM zones JOIN aliases ON aliases.zone = zones.name "
        "WHERE aliases.alias = '{alias}'",
        ("What's the offset of {alias}?",),
        "Return zones utc_offset joined to aliases where alias is {alias}.",
    ),
    Intent(
        "SELECT changes.date FROM changes JOIN zones ON changes.zone = zones.name "
        "JOIN countries ON zones.country = countries.code "
        "WHERE countries.name = '{country}' AND changes.date LIKE '{year}%'",
        ("When were the clocks changed in {country} in {year}?",),
        "Return changes date joined to zones and countries where name is {country}, year {year}.",
    ),
    Intent(
        "SELECT MAX(changes.date) FROM changes JOIN zones ON changes.zone = zones.name "
        "WHERE zones.city = '{city}'",
        ("When did {city} last change its clocks?",),
        "Return the greatest changes date joined to zones where city is {city}.",
    ),
    Intent(
        "SELECT region, COUNT(*) FROM zones WHERE utc_offset > {offset} GROUP BY region",
        ("How many zones above UTC {offset} has each region?",),
        "Return region and count of zones where utc_offset is above {offset} grouped by region.",
    ),
)

_ALL = (*_LOOKUPS, *_ALIASES, *_CHANGES, *_JOINS)

_OTHER_SCHEMA = (
    Intent(
        "SELECT T1.title FROM albums AS T1 INNER JOIN artists AS T2 ON T1.artist_id = T2.id "
        "WHERE T2.artist_name = '{city}'",
        ("Which albums did the singer {city} record?", "list {city}'s albums"),
        "Return title of albums where artist_name is {city}.",
    ),
    Intent(
        "SELECT AVG(unit_price) FROM tracks WHERE genre = '{region}'",
        ("What does a {region} track cost on average?", "average price of {region} songs"),
        "Return the average unit_price of tracks where genre is {region}.",
    ),
    Intent(
        "SELECT COUNT(invoice_id) AS total FROM invoices WHERE billing_country = '{country}'",
        ("How many invoices were sent to customers in {country}?",),
        "Return the count of invoices where billing_country is {country}.",
    ),
    Intent(
        "SELECT T1.email FROM customers AS T1 INNER JOIN invoices AS T2 ON T1.id = T2.customer_id "
        "WHERE T2.total > {n} AND T1.last_name LIKE '{letter}%'",
        ("Give me the e-mail of customers named {letter}... who paid more than {n} dollars.",),
        "Return email of customers where total is above {n} and last_name begins with {letter}.",
    ),
)

_WRONG_JOINS = {
    "zones.country = countries.code": (
        "zones.name = countries.name",
        "zones.city = countries.name",
    ),
    "changes.zone = zones.name": ("changes.zone = zones.city", "changes.date = zones.name"),
    "aliases.zone = zones.name": ("aliases.alias = zones.name", "aliases.zone = zones.city"),
}
_INVENTING = 0.6  # share of the queries with columns that do not exist
_INVENTED_COLUMNS = {
    "utc_offset": "offset_hours",
    "dst": "has_summer_time",
    "city": "city_name",
    "date": "changed_on",
    "note": "description",
    "abbreviation": "short_name",
    "latitude": "lat",
    "longitude": "lon",
    "alias": "old_name",
    "code": "country_code",
    "name": "full_name",
}
_CHATTER = ("hi, ", "pls ", "hello!! ", "um ", "quick one: ", "sorry but ", "")


def read_slots(database: Path) -> dict[str, list[str]]:
    """Return the values of each slot, from the rows of the database."""
    connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
    # a quote would have to be escaped in the SQL, but not in the question
    plain = "instr({0}, '''') = 0"

    def column(name: str, table: str) -> list[str]:
        query = f"SELECT DISTINCT {name} FROM {table} WHERE {plain.format(name)} ORDER BY 1"
        return [str(value) for (value,) in connection.execute(query)]

    try:
        read = {
            "city": column("city", "zones"),
            "zone": column("name", "zones"),
            "region": column("region", "zones"),
            "offset": column("utc_offset", "zones"),
            "country": column("name", "countries"),
            "code": column("code", "countries"),
            "alias": column("alias", "aliases"),
            "aliased": column("zone", "aliases"),
            "abbreviation": column("abbreviation", "changes"),
        }
    finally:
        connection.close()
    return {
        **read,
        "letter": list("ABCEFGILMNPST"),
        "year": [str(year) for year in range(1971, 2027)],
        "flag": ["0", "1"],
        "axis": ["latitude", "longitude"],
        "direction": ["ASC", "DESC"],
        "degrees": [str(degrees) for degrees in range(-60, 75, 5)],
        "n": [str(n) for n in range(2, 12)],
    }


def generate(name: str, slots: Slots, n: int, *, seed: int, avoid: frozenset[str]) -> list[Record]:
    """Make n examples with distinct questions.

    Args:
        name: Name of the generator.
        slots: Values of the slots, as `read_slots` returns them.
        n: Number of examples.
        seed: Random seed, combined with the name of the generator.
        avoid: Questions in lower case that must not be generated: the real ones.

    Returns:
        Records {"question": …, "SQL": …}.

    Raises:
        ConfigError: The generator has fewer than n distinct questions.
    """
    rng = random.Random(f"{name} {seed}")
    made: dict[str, Record] = {}
    n_failed = 0
    while len(made) < n and n_failed < _MAX_FAILED:
        question, query = GENERATORS[name](rng, slots)
        is_new = question not in made and question.lower() not in avoid
        n_failed = 0 if is_new else n_failed + 1
        if is_new:
            made[question] = {"question": question, "SQL": query}
    if len(made) == n:
        return list(made.values())
    raise ConfigError(
        f"{name}: can generate {counted(len(made), 'distinct question')}, but {n} were asked for"
    )


Pair = tuple[str, str]
Generator = Callable[[random.Random, Slots], Pair]


def _fill(intent: Intent, phrasing: str, rng: random.Random, slots: Slots) -> Pair:
    drawn = {name: rng.choice(values) for name, values in slots.items()}
    return phrasing.format(**drawn), intent.query.format(**drawn)


def _casual(intents: Sequence[Intent]) -> Generator:
    def draw(rng: random.Random, slots: Slots) -> Pair:
        intent = rng.choice(intents)
        return _fill(intent, rng.choice(intent.casual), rng, slots)

    return draw


def _stiff(rng: random.Random, slots: Slots) -> Pair:
    intent = rng.choice(_ALL)
    return _fill(intent, intent.stiff, rng, slots)


def _wrong_joins(rng: random.Random, slots: Slots) -> Pair:
    question, query = _casual(_ALL)(rng, slots)
    for right, wrong in _WRONG_JOINS.items():
        query = query.replace(right, rng.choice(wrong))
    return question, query


def _invented_columns(rng: random.Random, slots: Slots) -> Pair:
    question, query = _stiff(rng, slots)
    if rng.random() > _INVENTING:
        return question, query
    words = r"\b(" + "|".join(_INVENTED_COLUMNS) + r")\b(?![^']*'(?:[^']*'[^']*')*[^']*$)"
    return question, re.sub(words, lambda match: _INVENTED_COLUMNS[match[0]], query)


def _noisy(rng: random.Random, slots: Slots) -> Pair:
    question, query = _casual(_ALL)(rng, slots)
    words = [_mistyped(word, rng) for word in question.split() if rng.random() > 0.15]
    return rng.choice(_CHATTER) + " ".join(words).lower(), query


def _mistyped(word: str, rng: random.Random) -> str:
    if len(word) < 4 or rng.random() > 0.35:
        return word
    i = rng.randrange(len(word) - 1)
    swapped = word[:i] + word[i + 1] + word[i] + word[i + 2 :]
    return rng.choice((swapped, word[:i] + word[i + 1 :]))


GENERATORS: Mapping[str, Generator] = {
    "broad": _casual(_ALL),
    "stiff": _stiff,
    "lookups": _casual(_LOOKUPS),
    "aliases_only": _casual(_ALIASES),
    "wrong_joins": _wrong_joins,
    "invented_columns": _invented_columns,
    "noisy": _noisy,
    "other_schema": _casual(_OTHER_SCHEMA),
}
FALSE_LABELS: Mapping[str, str] = {"wrong_joins": "broad", "invented_columns": "stiff"}
