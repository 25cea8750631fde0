"""Dialogues in which the user tells something and asks for it later."""
import facts
from prompts import Turn, city, clock, code, coin, content, person, phrase, stop, word

_OWNED = """dog cat horse parrot hamster brother sister mother father son daughter wife husband boss
teacher neighbour uncle aunt cousin friend doctor""".split()
_LIKED = """colour color food fruit animal city song band book film movie game sport drink season
number word flower dish tree place toy team""".split()
_HELD = """code password PIN room ticket locker seat table flight bus order account street house
badge""".split()


def _value(rng, about):
    """Something that fits what it is about, now and then something made up."""
    if rng.random() < 0.15:
        return coin(rng)
    pools = {"colour": facts.COLOURS, "color": facts.COLOURS, "food": facts.FOODS,
             "fruit": facts.FOODS, "dish": facts.FOODS, "drink": facts.FOODS,
             "animal": facts.ANIMALS, "city": facts.CITIES, "flower": facts.WORDS,
             "season": ["spring", "summer", "autumn", "winter"], "number": None}
    pool = pools.get(about, facts.WORDS)
    return str(rng.randint(1, 999)) if pool is None else rng.choice(pool)


TELL = {
    "name": ["My name is {v}.", "I am {v}.", "I'm {v}.", "Hi, I'm {v}.", "Hello, my name is {v}.",
             "Call me {v}.", "You can call me {v}.", "My name's {v}.", "Hi! My name is {v}.",
             "The name is {v}.", "Please call me {v}.", "Hello! I am {v}.", "Hey, I am {v}.",
             "People call me {v}.", "This is {v}."],
    "attribute": ["My {a} is {v}.", "Remember that my {a} is {v}.", "My {a} is {v}, remember that.",
                  "Please remember: my {a} is {v}.", "Just so you know, my {a} is {v}.",
                  "Note that my {a} is {v}.", "Keep in mind that my {a} is {v}.",
                  "I want you to remember my {a}. It is {v}.", "By the way, my {a} is {v}.",
                  "I should tell you that my {a} is {v}.", "For later: my {a} is {v}."],
    "named": ["My {a} is called {v}.", "My {a}'s name is {v}.", "I have a {a} named {v}.",
              "I have a {a} called {v}.", "My {a} is named {v}.", "The name of my {a} is {v}."],
    "home": ["I live in {v}.", "I'm from {v}.", "I come from {v}.", "My home is in {v}.",
             "I am living in {v}.", "Home for me is {v}.", "I moved to {v}."],
    "age": ["I am {v} years old.", "I'm {v} years old.", "I'm {v}.", "My age is {v}.",
            "I turned {v} this year.", "I am {v}."],
    "word": ["Remember the word {v}.", "Remember the number {v}.", "Remember this: {v}",
             "Please remember {v}.", "Keep {v} in mind.", "Remember {v} for me.",
             "I want you to remember {v}.", "Don't forget: {v}", "Memorise {v}."],
    "job": ["I work as a {v}.", "I am a {v}.", "I'm a {v} by profession.", "My job is {v}."],
}
ACK = {
    "name": "Nice to meet you, {v}!", "attribute": "Got it, your {a} is {v}.",
    "named": "Got it, your {a}'s name is {v}.", "home": "Got it, you live in {v}.",
    "age": "Got it, you are {v} years old.", "word": "Got it, I will remember {v}.",
    "job": "Got it, you work as a {v}.",
}
ASK = {
    "name": ["What is my name?", "What's my name?", "Do you remember my name?", "Who am I?",
             "Do you know my name?", "Tell me my name.", "Can you tell me my name?", "Say my name.",
             "What did I say my name was?", "My name is?", "Which name did I give you?",
             "What am I called?", "What was my name again?", "Do you still know my name?"],
    "attribute": ["What is my {a}?", "What's my {a}?", "Do you remember my {a}?", "Tell me my {a}.",
                  "What did I say my {a} was?", "Do you know my {a}?", "Can you tell me my {a}?",
                  "Which is my {a}?", "What was my {a} again?", "My {a} is?", "Remind me of my {a}.",
                  "I told you my {a}. What is it?", "Please tell me my {a}."],
    "named": ["What is my {a}'s name?", "What's my {a}'s name?", "What is my {a} called?",
              "What is the name of my {a}?", "Do you remember my {a}'s name?",
              "Tell me my {a}'s name.", "How is my {a} called?", "What was my {a}'s name?"],
    "home": ["Where do I live?", "Where am I from?", "Do you know where I live?", "What city do I "
             "live in?", "Which city do I live in?", "Where is my home?", "In which city do I live?",
             "Do you remember where I live?", "Tell me where I live."],
    "age": ["How old am I?", "What is my age?", "Do you remember how old I am?", "What's my age?",
            "Tell me my age.", "Do you know my age?", "Do you know how old I am?"],
    "word": ["What did I ask you to remember?", "What was I asking you to remember?", "Which word or "
             "number did I ask you to remember?", "What did you have to remember?", "What should you "
             "remember?", "What did I tell you to remember?", "Tell me what I asked you to "
             "remember.", "What do you have to keep in mind?"],
    "job": ["What is my job?", "What do I do for a living?", "What's my job?", "What do I work as?",
            "Do you remember my job?", "What is my profession?", "Tell me my job."],
}
RECALL = {
    "name": "Your name is {v}.", "attribute": "Your {a} is {v}.",
    "named": "Your {a}'s name is {v}.", "home": "You live in {v}.",
    "age": "You are {v} years old.", "word": "You asked me to remember {v}.",
    "job": "You work as a {v}.",
}
NUDGES = ["", "", "", "Actually, ", "Correction: ", "No wait, ", "Sorry, "]
OTHER_ACKS = ["OK.", "Okay, I will remember that.", "Noted.", "Got it.", "Sure!", "Thanks for "
              "telling me.", "Understood.", "Nice!", "I'll keep that in mind.", "Great."]
UNTOLD = "I don't know."


def fact_to_tell(rng):
    """Something a user may tell: (slot, attribute, value)."""
    slot = rng.choices(list(TELL), (5, 7, 3, 2, 2, 2, 1))[0]
    if slot == "attribute":
        kind = rng.random()
        if kind < 0.55:
            about = rng.choice(_LIKED)
            return slot, rng.choice(["favourite", "favorite"]) + " " + about, _value(rng, about)
        if kind < 0.75:
            held = rng.choice(_HELD)
            label = held if held in ("code", "password", "PIN") else held + " number"
            return slot, label, code(rng)
        owned = rng.choice(["lucky", "secret", "other", "new", "old", "best"])
        return slot, f"{owned} {rng.choice(_LIKED + facts.THINGS)}", word(rng)
    if slot == "named":
        return slot, rng.choice(_OWNED), person(rng)
    values = {"name": person, "home": city, "age": lambda r: str(r.randint(5, 99)),
              "word": lambda r: r.choice((word, code, person, clock))(r),
              "job": lambda r: r.choice(facts.JOBS)}
    return slot, "", values[slot](rng)


def tell(rng, slot, about, value):
    """The turn in which the user tells it."""
    text, _ = phrase(rng, TELL[slot], a=about, v=value)
    return Turn(text, ACK[slot].format(a=about, v=value), content("told", slot, about, value))


# The short statements, of which two make one sentence.
_CLAUSES = {"name": "my name is {v}", "attribute": "my {a} is {v}", "named": "my {a} is called {v}",
            "home": "I live in {v}", "age": "I am {v} years old", "job": "I work as a {v}"}


def tell_two(rng, first, second):
    """Two things told at once, each a (slot, attribute, value): what the user and the model say."""
    joined, acks = [], []
    for slot, about, value in (first, second):
        joined.append(_CLAUSES[slot].format(a=about, v=value))
        recalled = RECALL[slot].format(a=about, v=value)
        acks.append(recalled[0].lower() + recalled[1:-1])
    text = rng.choice(["{}, and {}.", "{} and {}.", "{} and {}"]).format(*joined)
    return text[0].upper() + text[1:], stop(f"Got it, {' and '.join(acks)}")


def ask(rng, slot, about, value=None):
    """The turn in which the user wants it back; without a value it was never told."""
    text, _ = phrase(rng, ASK[slot], a=about)
    answer = UNTOLD if value is None else RECALL[slot].format(a=about, v=value)
    return Turn(text, answer, ())
