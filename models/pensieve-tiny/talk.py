"""Skills about JSON, manners and memory.

JSON answers are written the way `json.dumps` writes them, so that exact match is well defined.
"""
import json

import facts
from prompts import Turn, city, code, coin, content, errand, fact_turn, person, phrase, word
from skills import list_key, some_numbers, some_words, sum_key


def dump(value):
    return json.dumps(value, ensure_ascii=False)


# --- pick a field -----------------------------------------------------------------------------

FIELDS = """name age city country color colour email phone id title author price year size weight
height width length status type kind brand model owner score level rank points total count
quantity stock date time day month place street zip language currency unit code key value label
category department job role salary team player song artist album genre rating pages publisher
speed distance temperature humidity pressure host port path user password token version url method
active enabled verified open closed visible latitude longitude population area capital region
flavor material shape pet food drink sport hobby animal""".split()

GET_FIELD = [
    'What is the value of "{field}" in this JSON? {object}', 'Given {object}, what is {field}?',
    "What is the {field} in {object}?", "Get the {field} from {object}", "{object} What is the "
    "{field}?", "{object}\nWhat is the {field}?", "From this JSON get the {field}: {object}",
    "Extract the {field} field from this JSON: {object}", 'Read "{field}" from {object}',
    "Here is a JSON object: {object} What is the value of {field}?", "Pick {field} out of {object}",
    "In the object {object}, what is the value of {field}?", "What does {field} hold in {object}?",
    "Return the {field} of this object: {object}", "Give me the {field} from this JSON: {object}",
    "{object}\n\nGive me the value of {field}.", "Extract {field} from {object}",
    'JSON: {object}\nWhat is the "{field}"?', "Tell me the {field} in this JSON:\n{object}",
    "Look at this JSON: {object}. What's the {field}?", "What's the {field}? {object}",
    "Which {field} does this JSON have? {object}", "Find the {field} in this JSON object: {object}",
]


def _field_name(rng):
    if rng.random() < 0.75:
        return rng.choice(facts.THINGS if rng.random() < 0.15 else FIELDS)
    name = coin(rng)
    return rng.choice([name, name, f"{rng.choice(FIELDS)}_{name}", f"{rng.choice(FIELDS)}_id"])


def _field_value(rng):
    return rng.choice([
        lambda: person(rng), lambda: city(rng), lambda: word(rng), lambda: errand(rng),
        lambda: code(rng), lambda: rng.randint(0, 99), lambda: rng.randint(0, 9999),
        lambda: round(rng.uniform(0, 100), rng.randint(1, 2)), lambda: rng.random() < 0.5,
        lambda: coin(rng), lambda: rng.choice(facts.COLOURS), lambda: -rng.randint(1, 60),
        lambda: f"{coin(rng, 2)}@{coin(rng, 1)}.com", lambda: facts.DAYS[rng.randrange(7)],
    ])()


def _object(rng):
    return {_field_name(rng): _field_value(rng) for _ in range(rng.randint(2, 6))}


def plain(value):
    """A JSON value as an answer: strings lose their quotes, nothing else changes."""
    return value if isinstance(value, str) else dump(value)


def json_field(rng):
    obj = _object(rng)
    field = rng.choice(list(obj))
    answer = plain(obj[field])
    if rng.random() < 0.15:
        outer = rng.choice(["user", "data", "item", "result", "person", "order", coin(rng)])
        field, obj = rng.choice([f"{outer}.{field}", field]), {outer: obj}
    elif rng.random() < 0.1:
        obj[field] = [word(rng) for _ in range(rng.randint(2, 3))]
        answer = dump(obj[field])
    if rng.random() < 0.06:
        field = _field_name(rng)
        answer = answer if field in obj else "I don't know."
        answer = plain(obj[field]) if field in obj else answer
    shape = rng.random()
    shown = dump(obj) if shape < 0.7 else json.dumps(obj, ensure_ascii=False, indent=2) \
        if shape < 0.8 else json.dumps(obj, ensure_ascii=False, separators=(",", ":"))
    text, _ = phrase(rng, GET_FIELD, field=field, object=shown)
    return Turn(text, answer, content("object", dump(obj), field))


# --- answer as JSON ---------------------------------------------------------------------------

JSON_CAPITAL = [
    "Give the capital of {country} as JSON with keys {k1} and {k2}.",
    "Answer in JSON with keys {k1} and {k2}: what is the capital of {country}?",
    "What is the capital of {country}? Answer as JSON with keys {k1} and {k2}.",
    "Return JSON with keys {k1} and {k2} for the capital of {country}.",
    "Capital of {country} as JSON with the keys {k1} and {k2}",
    "Give me a JSON object with keys {k1} and {k2} for {country}.",
    "Write {country} and its capital as JSON with keys {k1} and {k2}.",
    'Give the capital of {country} as JSON with keys "{k1}" and "{k2}".',
    "Reply with JSON only, keys {k1} and {k2}: the capital of {country}.",
    "Return the capital of {country} in JSON, using keys {k1} and {k2}.",
    "What's the capital of {country}? Use JSON with {k1} and {k2} as keys.",
    "As JSON with keys {k1} and {k2}: the capital of {country}.",
    "I want the capital of {country} as a JSON object with keys {k1} and {k2}.",
    "Please answer with a JSON object (keys {k1}, {k2}): capital of {country}?",
    "Name the capital of {country} in JSON format with keys {k1} and {k2}.",
]
JSON_ONE_CAPITAL = [
    "Give the capital of {country} as JSON with key {k2}.",
    "What is the capital of {country}? Answer as JSON with the key {k2}.",
    "Answer in JSON with the key {k2}: what is the capital of {country}?",
    "Return the capital of {country} as a JSON object with one key, {k2}.",
    "Capital of {country} in JSON, key {k2}",
]
JSON_SUM = [
    "What is {sum}? Answer as JSON with key {k1}.", "Compute {sum} and answer as JSON with key "
    "{k1}.", "Calculate {sum}. Reply in JSON with the key {k1}.", "Give {sum} as JSON with key {k1}.",
    "Answer in JSON with the key {k1}: what is {sum}?", "Return the result of {sum} as JSON with "
    "the key {k1}.", '{sum} as JSON with key "{k1}"', "Give me the answer to {sum} as a JSON object "
    "with key {k1}.", "Work out {sum} and return JSON with the key {k1}.",
]
JSON_SUM_PARTS = [
    "Add {a} and {b} and answer as JSON with keys {k1}, {k2} and {k3}.",
    "Return JSON with keys {k1}, {k2} and {k3} for {a} + {b}.",
    "Give {a} + {b} as JSON with keys {k1}, {k2} and {k3}.",
    "What is {a} + {b}? Answer as JSON with keys {k1}, {k2} and {k3}.",
]
JSON_FILL = [
    "Write this as JSON: {pairs}", "Turn this into JSON: {pairs}", "Convert to JSON: {pairs}",
    "Make a JSON object from this: {pairs}", "Give me this as JSON: {pairs}", "As JSON: {pairs}",
    "Return this as a JSON object: {pairs}", "Make a JSON object with {pairs}",
    "Format this as JSON: {pairs}", "Create a JSON object with {pairs}", "JSON for: {pairs}",
]
ABOUT = [
    ("{name} is {age} years old.", ("name", "age")),
    ("{name} lives in {city}.", ("name", "city")),
    ("{name} is {age} years old and lives in {city}.", ("name", "age", "city")),
    ("{name}, {age}, is from {city}.", ("name", "age", "city")),
    ("{name} from {city} is {age}.", ("name", "city", "age")),
    ("{name} works as a {job}.", ("name", "job")),
    ("{name} is a {job} in {city}.", ("name", "job", "city")),
    ("{name} has a {colour} {thing}.", ("name", "colour", "thing")),
    ("{name} bought {count} {thing}s.", ("name", "count", "thing")),
    ("The {thing} costs {price} euros.", ("thing", "price")),
    ("The {colour} {thing} costs {price} dollars.", ("colour", "thing", "price")),
    ("Meet {name} in {city} on {day}.", ("name", "city", "day")),
    ("My name is {name} and I am {age}.", ("name", "age")),
]
JSON_EXTRACT = [
    "Extract {keys} as JSON: {text}", "{text} Give this as JSON with keys {keys}.",
    "Turn this into JSON with keys {keys}: {text}", "{text}\nAnswer as JSON with keys {keys}.",
    "Return JSON with keys {keys} for this sentence: {text}",
    "Read this and answer with JSON (keys {keys}): {text}",
    "Write JSON with the keys {keys} from this text: {text}",
    "From the text get a JSON object with keys {keys}: {text}",
]
JSON_LIST = {
    "same": ["Write this list as a JSON array: {items}", "Give me this list as a JSON array: {items}",
             "Turn this list into a JSON array: {items}", "Convert to a JSON array: {items}"],
    "sorted": ["Sort this list and answer as a JSON array: {items}", "Sort these and return a JSON "
               "array: {items}", "Return as a sorted JSON array: {items}"],
    "reversed": ["Reverse this list and answer as a JSON array: {items}", "Return this list reversed "
                 "as a JSON array: {items}", "Reverse these and return a JSON array: {items}"],
}
ORDERED = {"same": list, "sorted": sorted, "reversed": lambda items: items[::-1]}
COUNTRY_KEYS = ["country", "nation", "land", "state", "name", "country_name"]
CAPITAL_KEYS = ["capital", "city", "capital_city", "town", "answer"]


def _key_name(rng):
    return rng.choice(FIELDS) if rng.random() < 0.5 else coin(rng)


def _joined(words):
    return ", ".join(words[:-1]) + " and " + words[-1]


def json_answer(rng):
    kind = rng.random()
    country = rng.choice(facts.COUNTRIES)
    if kind < 0.32:
        usual = rng.random() < 0.6
        k1, k2 = ("country", "capital") if usual else (
            rng.choice(COUNTRY_KEYS + [coin(rng)]), rng.choice(CAPITAL_KEYS + [coin(rng)]))
        shown = country.removeprefix("the ")
        if rng.random() < 0.2:
            turn = fact_turn(rng, "json-one-capital", JSON_ONE_CAPITAL,
                             dump({k2: facts.CAPITAL[country]}), country=country, k2=k2)
        else:
            turn = fact_turn(rng, "json-capital", JSON_CAPITAL,
                             dump({k1: shown, k2: facts.CAPITAL[country]}),
                             country=country, k1=k1, k2=k2)
        # Capitals hide how the keys are spelt.
        return turn if not turn.user.isupper() else json_answer(rng)
    if kind < 0.5:
        a, b, op = rng.randint(10, 99), rng.randint(10, 99), rng.choice("+-")
        result = a + b if op == "+" else a - b
        if op == "+" and rng.random() < 0.3:
            keys = rng.sample(FIELDS, 3) if rng.random() < 0.5 else ["a", "b", "sum"]
            text, _ = phrase(rng, JSON_SUM_PARTS, a=a, b=b, **dict(zip(("k1", "k2", "k3"), keys)))
            return Turn(text, dump(dict(zip(keys, (a, b, result)))), sum_key(a, op, b))
        key = rng.choice(["result", "answer", "sum", "value", _key_name(rng)])
        text, _ = phrase(rng, JSON_SUM, sum=f"{a} {op} {b}", k1=key)
        return Turn(text, dump({key: result}), sum_key(a, op, b))
    if kind < 0.66:
        obj = {_key_name(rng): _field_value(rng) for _ in range(rng.randint(2, 4))}
        glue = rng.choice([": ", " = ", "=", " is "])
        pairs = ", ".join(f"{key}{glue}{plain(value)}" for key, value in obj.items())
        text, _ = phrase(rng, JSON_FILL, pairs=pairs)
        obj = {k: int(v) if isinstance(v, str) and v.isdigit() and str(int(v)) == v else v
               for k, v in obj.items()}
        if any(isinstance(v, str) and v.isdigit() for v in obj.values()):
            return json_answer(rng)  # "007" could be meant either way
        return Turn(text, dump(obj), content("fill", dump(obj)))
    if kind < 0.84:
        sentence, roles = rng.choice(ABOUT)
        values = {"name": person(rng), "age": rng.randint(10, 99), "city": city(rng),
                  "job": rng.choice(facts.JOBS), "colour": rng.choice(facts.COLOURS),
                  "thing": rng.choice(facts.THINGS), "count": rng.randint(2, 99),
                  "price": rng.randint(2, 999), "day": rng.choice(facts.DAYS)}
        chosen = {role: values[role] for role in roles}
        text, _ = phrase(rng, JSON_EXTRACT, keys=_joined(list(roles)),
                         text=sentence.format(**values))
        return Turn(text, dump(chosen), content("extract", dump(chosen)))
    how = rng.choice(list(JSON_LIST))
    items = some_numbers(rng) if rng.random() < 0.5 else some_words(rng)
    text, _ = phrase(rng, JSON_LIST[how], items=", ".join(map(str, items)))
    return Turn(text, dump(ORDERED[how](items)), list_key(items))


# --- manners ----------------------------------------------------------------------------------

ME = "I am Pensieve Tiny, a small language model."
CAN_DO = ("I can tell capitals, do sums, name days and months, convert units, sort lists, read and "
          "write JSON, call tools and remember what you tell me.")
MANNERS = {
    "Hello! How can I help you?": [
        "Hi", "Hello", "Hey", "Hi!", "Hello!", "Hey!", "Hi there", "Hello there", "Hey there!",
        "Greetings", "Hello, Pensieve", "Hi Pensieve!", "Howdy", "Yo", "Hiya", "Hello again",
        "Hi, nice to meet you", "Hello, can you help me?", "Hey, are you there?", "Hi, I need help",
        "Good day", "Hello assistant", "Hello world", "Hi friend", "Is anyone there?"],
    "Good morning! How can I help you?": ["Good morning", "Good morning!", "Morning!",
                                          "Good morning to you", "Hi, good morning"],
    "Good afternoon! How can I help you?": ["Good afternoon", "Good afternoon!",
                                            "Hello, good afternoon"],
    "Good evening! How can I help you?": ["Good evening", "Good evening!", "Hi, good evening",
                                          "Evening!"],
    "Good night!": ["Good night", "Good night!", "Goodnight", "Night night", "Sleep well"],
    "I am fine, thank you. How can I help you?": [
        "How are you?", "How are you doing?", "How do you do?", "How's it going?", "What's up?",
        "How are you today?", "Are you OK?", "Hi, how are you?", "Hello, how are you?",
        "How are things?", "Hey, how are you doing today?", "How have you been?"],
    "You're welcome!": [
        "Thanks", "Thank you", "Thanks!", "Thank you!", "Thanks a lot", "Thank you very much",
        "Many thanks", "Thank you so much!", "Cheers, thanks", "Great, thanks", "Perfect, thank you",
        "That helps, thanks", "Thx", "Ok thanks", "Nice, thank you", "Thanks for your help",
        "Thank you for the answer", "Much appreciated", "I appreciate it", "Thanks, that's all"],
    "How else can I help you?": [
        "OK", "Ok.", "Okay", "Yes", "No", "Sure", "Cool", "Great", "Nice", "Good", "Right", "Fine",
        "I see", "Got it", "Perfect", "Alright", "Well done", "Good job", "Very good", "That's right",
        "Awesome", "Interesting", "Hmm", "Yes please", "No thanks", "Correct"],
    "Goodbye!": [
        "Bye", "Goodbye", "Bye!", "Goodbye!", "See you", "See you later", "Bye bye", "Farewell",
        "See you tomorrow", "Bye for now", "I have to go", "I'm leaving, bye", "Talk to you later",
        "Until next time", "Take care", "Have a nice day", "Ciao", "Later!", "Good bye"],
    ME: [
        "Who are you?", "What are you?", "What is your name?", "What's your name?",
        "Tell me who you are.", "Introduce yourself.", "Tell me about yourself.", "Who am I "
        "talking to?", "Are you a robot?", "Are you an AI?", "Are you human?", "Which model are you?",
        "What model are you?", "Do you have a name?", "Who is this?", "How should I call you?",
        "Are you ChatGPT?", "Are you a language model?", "What should I call you?", "Your name?",
        "May I know your name?", "Are you a real person?", "Hi, who are you?", "And who are you?"],
    CAN_DO: [
        "What can you do?", "How can you help me?", "What do you know?", "What are you able to do?",
        "What can I ask you?", "What are your skills?", "Help", "Help me", "What are you good at?",
        "What kind of questions can you answer?", "Which things can you do?", "What do you do?",
        "List your skills.", "What are your abilities?", "Tell me what you can do."],
}
# Each manner as often as people use it, not as often as it has templates.
_MANNERS_WEIGHTS = [6, 1, 1, 1, 1, 3, 4, 3, 4, 5, 3]


def greeting(rng):
    answer = rng.choices(list(MANNERS), _MANNERS_WEIGHTS)[0]
    return fact_turn(rng, "manners", MANNERS[answer], answer)
