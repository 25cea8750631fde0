"""What every skill shares: the train/held-out split, phrasings with surface noise, made-up words.

A `Turn` is one user message with its one right answer. Its `keys` say what the turn is about,
and `Split` looks at nothing else, so a key that is held out can never be met in training:

* a combinatorial turn (an operand pair, a list, a name told) has the content as its key;
* a turn about a fact has two: fact × template × system prompt, and the prompt's own letters and
  digits. The second makes the split hold even where two templates happen to read alike.
"""
import hashlib
import random
import re
from typing import NamedTuple

import facts

HELDOUT_PERCENT = 5


class Turn(NamedTuple):
    user: str
    answer: str
    keys: tuple
    is_fact: bool = False


def bucket(key: str) -> int:
    """A stable number from 0 to 99; Python's own hash() changes from run to run."""
    digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % 100


class Split:
    """One side of the train/held-out division."""

    def __init__(self, name: str):
        if name not in ("train", "heldout"):
            raise ValueError(f"no such split: {name}")
        self.heldout = name == "heldout"

    def takes(self, *keys: str) -> bool:
        """Held-out content needs every key held out, training content needs none to be:
        what is half and half is used by neither side."""
        return all((bucket(key) < HELDOUT_PERCENT) == self.heldout for key in keys)

    def draw(self, make, rng: random.Random, system: str = "") -> Turn:
        """Calls `make(rng)` until it gives a turn of this side; its keys are then final."""
        while True:
            turn = make(rng)
            keys = turn.keys
            if turn.is_fact:
                keys = (f"{keys[0]}|{system}", f"{squash(turn.user)}|{system}")
            if self.takes(*keys):
                return turn._replace(keys=keys)


def squash(text: str) -> str:
    """The letters and digits of a prompt: two prompts that squash alike count as the same."""
    return re.sub(r"\W+", "", text.casefold()) or text


def content(kind: str, *parts, order: bool = True) -> tuple:
    """The key of combinatorial content; `order=False` when the order does not matter."""
    shown = [str(part) for part in parts]
    return (f"{kind}:" + "|".join(shown if order else sorted(shown)),)


OPENERS = ["Hey, ", "Hi, ", "Hello, ", "Please ", "Can you tell me: ", "Quick question: ",
           "Tell me: ", "OK, ", "So, ", "Question: ", "Now, ", "And ", "One more: ", "Well, ",
           "Could you help? ", "I have a question. ", "Please tell me: "]
CLOSERS = [" Please.", " Thanks!", " Thank you.", " please", " Thanks"]


def _typo(rng, template):
    """Swaps two inner letters of one long word, never inside a {slot}."""
    words = [m for m in re.finditer(r"(?<![{\w])[a-z]{6,}(?![}\w])", template)]
    if not words:
        return template
    word = rng.choice(words)
    at = rng.randrange(word.start() + 1, word.end() - 2)
    return template[:at] + template[at + 1] + template[at] + template[at + 2:]


def _scruff(rng, template):
    """Writes a template the way people type: lower case, no question mark, no apostrophe."""
    if rng.random() < 0.45:
        return template
    if rng.random() < 0.25:
        opener = rng.choice(OPENERS)
        if opener[-2] not in ".:?" and not template.startswith(("I ", "I'")):
            template = template[0].lower() + template[1:]
        template = opener + template
    if rng.random() < 0.45:
        template = template.lower()
    if rng.random() < 0.35:
        template = template.rstrip("?.!")
    if rng.random() < 0.4:
        template = template.replace("'", rng.choice(["", "’"]))
    if rng.random() < 0.05:
        template = _typo(rng, template)
    if rng.random() < 0.08 and not template.endswith("}"):
        template = template.rstrip(".") + rng.choice(CLOSERS)
    if rng.random() < 0.04:
        template += rng.choice(["?", "!", " ", "??", "..."]) if not template.endswith("}") else ""
    return template


def stop(sentence):
    """Ends a sentence, unless what it ends with did: "Washington, D.C."."""
    return sentence if sentence.endswith(".") else sentence + "."


def phrase(rng, templates, **slots):
    """Picks a template, roughs it up and fills its slots. Slot values stay as they are: they
    may have to be copied. Returns the text and the template it came from."""
    template = rng.choice(templates)
    return _scruff(rng, template).format(**slots), template


def fact_turn(rng, skill, templates, answer, **slots):
    """A turn about a memorised fact, whose slots people also type in lower or upper case."""
    shown = dict(slots)
    noise = rng.random()
    if noise < 0.25:
        shown = {name: str(value).lower() for name, value in slots.items()}
    text, template = phrase(rng, templates, **shown)
    if noise > 0.98:
        text = text.upper()
    key = f"{skill}:{template}:" + "|".join(str(v).lower() for v in slots.values())
    return Turn(text, answer, (key,), is_fact=True)


# Made-up words keep the model honest: what it copies must not have to be a word it knows.
_ONSETS = ("b bl br c ch cl cr d dr f fl fr g gl gr h j k kl l m n p pl pr qu r s sc sh sk sl sm "
           "sn sp st str t th tr v w x y z").split()
_VOWELS = "a e i o u a e i o ai au ea ee ie oa oo ou".split()
_CODAS = "b ck d f g l ll m n nd ng nk nt p r rd rk rn s sh ss st t th x z".split()


def _letter_chains():
    """Which letter follows which two, over every word of the tables; "^" and "$" are the ends."""
    chains = {}
    for known in facts.WORDS + facts.NAMES + facts.CITIES + facts.COUNTRIES + facts.LANGUAGES:
        spelled = f"^^{known.lower().replace(' ', '')}$"
        for i in range(len(spelled) - 2):
            chains.setdefault(spelled[i:i + 2], []).append(spelled[i + 2])
    return chains


_CHAINS = _letter_chains()


def _lookalike(rng):
    """A word that could be real, and mostly is not: "walroom", "zanzi", "melonth"."""
    word = "^^"
    while len(word) < 12:
        letter = rng.choice(_CHAINS[word[-2:]])
        if letter == "$":
            if len(word) > 4:
                break
            return _lookalike(rng)
        word += letter
    return word[2:]


def coin(rng, syllables=0):
    """A made-up word; of few syllables where that many are asked for."""
    if not syllables and rng.random() < 0.5:
        return _lookalike(rng)
    word = ""
    for _ in range(syllables or rng.choice((1, 2, 2, 3))):
        word += rng.choice(_ONSETS) + rng.choice(_VOWELS)
    return word + rng.choice(_CODAS) if rng.random() < 0.6 or len(word) < 4 else word


_ACCENTS = str.maketrans("aeiouncsyz", "áéíóúñçšýž")
_UMLAUTS = str.maketrans("aeiounczy", "äëïöüńćżÿ")


_SCRIPTS = [(0x430, 0x44F), (0x3B1, 0x3C9), (0x4E00, 0x9FA5), (0x3041, 0x3096), (0xAC00, 0xD7A3),
            (0x627, 0x63A), (0xE0, 0xF6), (0x100, 0x17E), (0x905, 0x939), (0x1F300, 0x1F64F)]


def glyphs(rng):
    """A few characters of one script, most of them several bytes long."""
    first, last = rng.choice(_SCRIPTS)
    return "".join(chr(rng.randint(first, last)) for _ in range(rng.randint(1, 4)))


def emoji(rng):
    return rng.choice(facts.EMOJI) if rng.random() < 0.6 else chr(rng.randint(0x1F300, 0x1F64F))


def scrap(rng):
    """Something to copy letter by letter: "b", "XQRT", "héllo", "camelCase"."""
    kind = rng.random()
    if kind > 0.9:
        return glyphs(rng)
    if kind < 0.2:
        return rng.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    if kind < 0.45:
        text = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(2, 7)))
        return text.upper() if rng.random() < 0.3 else text
    made_up = rng.choice((rng.choice(facts.WORDS), coin(rng)))
    if kind < 0.65:
        return made_up.translate(rng.choice((_ACCENTS, _UMLAUTS)))
    if kind < 0.8:
        return made_up + rng.choice(["", "_", "-"]) + rng.choice(facts.WORDS).capitalize()
    return rng.choice((made_up.upper(), made_up.capitalize(), made_up + "s", made_up + "ing"))


def code(rng):
    """Something like a serial number: "K42", "zx-9081", "7314"."""
    kind = rng.random()
    digits = str(rng.randrange(10 ** rng.randint(2, 5)))
    if kind < 0.4:
        return digits
    letters = "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randint(1, 3)))
    letters = letters.upper() if kind < 0.8 else letters
    return letters + rng.choice(["", "-", ""]) + digits


def person(rng):
    if rng.random() < 0.55:
        return rng.choice(facts.NAMES)
    return coin(rng, rng.choice((0, 0, 1, 2, 2, 3))).capitalize()


def city(rng):
    kind = rng.random()
    if kind < 0.3:
        return rng.choice(facts.CITIES)
    if kind < 0.6:
        return facts.CAPITAL[rng.choice(facts.COUNTRIES)]
    return coin(rng, rng.choice((0, 0, 2, 2, 3))).capitalize()


def word(rng):
    kind = rng.random()
    if kind < 0.55:
        return rng.choice(facts.WORDS)
    if kind < 0.85:
        return coin(rng)
    return scrap(rng) if kind < 0.95 else rng.choice(facts.FOREIGN)


def errand(rng):
    """A short text to note, send or be reminded of."""
    return rng.choice([
        lambda: f"{rng.choice(facts.VERBS)} the {rng.choice(facts.THINGS)}",
        lambda: f"buy {rng.choice(facts.FOODS)}",
        lambda: f"buy {rng.choice(facts.FOODS)} and {rng.choice(facts.FOODS)}",
        lambda: f"call {person(rng)}",
        lambda: f"{rng.choice(facts.VERBS)} {word(rng)}",
        lambda: f"meet {person(rng)} at the {rng.choice(facts.THINGS)}",
        lambda: f"the {rng.choice(facts.THINGS)} is {rng.choice(facts.ADJECTIVES)}",
        lambda: f"{rng.choice(facts.VERBS)} the {rng.choice(facts.ADJECTIVES)} "
                f"{rng.choice(facts.THINGS)} for {person(rng)}",
        lambda: f"see you at {clock(rng)}",
        lambda: f"ask {person(rng)} about the {word(rng)}",
    ])()


def clock(rng):
    hour, minute = rng.randint(0, 23), rng.choice((0, 5, 10, 15, 20, 30, 40, 45, 50, 55))
    return rng.choice([f"{hour}:{minute:02}", f"{hour % 12 or 12}{rng.choice(['am', 'pm'])}",
                       f"{hour % 12 or 12} {rng.choice(['am', 'pm'])}",
                       f"{hour % 12 or 12}:{minute:02} {rng.choice(['am', 'pm'])}", "noon"])


_ROLES = ["assistant", "chatbot", "language model", "helper", "agent", "bot", "AI assistant"]
_TRAITS = ["helpful", "friendly", "concise", "polite", "careful", "small", "kind", "reliable",
           "cheerful", "smart", "honest", "professional", "local"]
_RULES = ["Answer briefly.", "Be concise.", "Keep your answers short.", "Be polite.",
          "Answer the user's questions.", "Reply in one sentence.", "Help the user.",
          "If you do not know, say so.", "Do not make things up.", "Be accurate.",
          "Always answer in English.", "You answer questions.", "Use the tools when needed."]


def system_prompt(rng):
    """Nothing, one of the usual ones, or one put together: the model must not care which."""
    kind = rng.random()
    if kind < 0.5:
        return ""
    if kind < 0.65:
        return "You are a helpful assistant."
    name = rng.choice(["", "", "Pensieve Tiny, ", "Pensieve, ", f"{person(rng)}, "])
    trait = rng.choice(_TRAITS)
    who = f"{'an' if trait[0] in 'aeiou' else 'a'} {trait} {rng.choice(_ROLES)}"
    rules = [rng.choice(_RULES) for _ in range(rng.choice((0, 0, 1, 1, 2)))]
    lead = [] if kind > 0.95 and rules else [f"You are {name}{who}."]
    return " ".join(lead + rules)
