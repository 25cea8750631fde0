"""Questions that Pensieve Tiny cannot answer, so that it learns to say so.

Breadth is what counts here: the model must fall back on "I don't know." whenever a prompt is not
one of its skills, not when it recognises one of these. So the templates cover many subjects, their
slots are filled from wide pools, and some prompts are no language at all. Near misses of the real
skills (the capital of a place that has none, a division, a thirteenth month) draw the border.
"""
import facts
import tools
from prompts import Turn, city, code, coin, errand, fact_turn, person, word

ANSWER = "I don't know."

PEOPLE = """Napoleon Einstein Shakespeare Mozart Picasso Cleopatra Newton Darwin Gandhi Beethoven
Aristotle Plato Socrates Galileo Tesla Edison Columbus Caesar Lincoln Churchill Mandela Madonna
Elvis Messi Ronaldo Federer Obama Curie Turing Lovelace Hemingway Tolstoy Dickens Austen Kafka
Homer Dante Bach Chopin Vivaldi Rembrandt Monet Dalí""".split()
SUBJECTS = """physics chemistry biology history geography mathematics philosophy economics politics
religion astronomy geology medicine law art literature gravity evolution democracy capitalism
inflation photosynthesis electricity magnetism relativity blockchain bitcoin quantum mechanics
thermodynamics genetics psychology football cricket baseball basketball rugby golf Python Rust Java
JavaScript HTML Linux Windows databases algorithms recursion compilers entropy dinosaurs volcanoes
earthquakes glaciers vaccines viruses bacteria proteins atoms neutrons galaxies comets black holes
climate change global warming meditation yoga grammar poetry opera jazz cinema photography""".split()
PLACES = ["the Eiffel Tower", "Mount Everest", "the Amazon", "the Nile", "the Moon", "Mars", "Texas",
          "California", "the Great Wall", "the Pacific Ocean", "Africa", "Europe", "Asia", "Florida",
          "Bavaria", "Catalonia", "Scotland", "Siberia", "Greenland", "Hawaii", "Antarctica",
          "Sicily", "Tuscany", "Ontario", "Quebec", "Bali", "Crete", "Hogwarts", "Narnia", "Mordor",
          "Atlantis", "Wakanda", "Gotham", "Alaska", "Ohio", "Wales", "Tibet", "Corsica"]
EVENTS = """the World Cup; the Olympics; the election; the French Revolution; World War II; World War
I; the Cold War; the Super Bowl; the Oscars; the Renaissance; the Industrial Revolution; the moon
landing; the marathon; the Tour de France; the lottery; the chess championship; the battle of Hastings
""".replace("\n", " ").split("; ")
WORKS = """Hamlet; Don Quixote; War and Peace; the Mona Lisa; the Odyssey; Star Wars; The Matrix;
Titanic; Moby Dick; Frankenstein; Dracula; The Hobbit; Harry Potter; the Ninth Symphony; Guernica;
Bohemian Rhapsody; Macbeth; Ulysses; Casablanca; the Bible; Jurassic Park""".replace("\n", " ").split("; ")

WORLD = """Who wrote {work}?; Who painted {work}?; Who directed {work}?; What is {work} about?;
When was {work} made?; Who is the author of {work}?; Have you read {work}?; When was {who} born?;
When did {who} die?; Where was {who} born?; Who was {who}?; Who is {who}?; What did {who} do?; How
old is {who}?; What is {who} famous for?; Who is {who} married to?; Was {who} a good person?; Where
did {who} live?; How tall is {who}?; What did {who} invent?; Tell me about {who}.; Where does {who}
live?; What is the population of {place}?; How many people live in {place}?; Who is the president
of {place}?; Who is the king of {place}?; Who is the prime minister of {place}?; What is the
currency of {place}?; What language do they speak in {place}?; Which languages are spoken in
{place}?; How big is {place}?; What is the area of {place}?; What is {place} famous for?; Tell me
about {place}.; Is {place} beautiful?; What is the highest mountain in {place}?; What is the
longest river in {place}?; How far is {place}?; How do I get to {place}?; When was {place}
founded?; What should I see in {place}?; Who rules {place}?; Which countries border {place}?; What
is the history of {place}?; What do people eat in {place}?; What is the flag of {place}?; How tall
is {place}?; Who discovered {place}?; Is {place} safe?; How cold does it get in {place}?; What is
the national anthem of {place}?; Is {place} rich?; Who lives in {place}?; What is the best hotel in
{place}?; What is the climate of {place}?; Who won {event}?; When was {event}?; Who won {event} in
{year}?; What happened at {event}?; What caused {event}?; When did {event} start?; When did {event}
end?; Where is {event} this year?; Why did {event} happen?; What happened in {year}?; Who was born
in {year}?; Who was president in {year}?; Who invented the {thing}?; When was the {thing}
invented?; How does a {thing} work?; What is a {thing} made of?; How much does a {thing} cost?; Why
is a {thing} {adj}?; What is a {thing}?; What's a {animal}?; Where can I buy a {thing}?; How many
{animal}s are there?; How long does a {animal} live?; What does a {animal} eat?; How fast can a
{animal} run?; Can a {animal} swim?; Do {animal}s sleep?; How much does a {animal} weigh?; Is a
{animal} dangerous?; Why do {animal}s {verb}?; What sound does a {animal} make?; How many legs does
a {animal} have?; Are {animal}s {adj}?; Where do {animal}s live?; How do I cook {food}?; Is {food}
healthy?; How many calories are in {food}?; What is {food} made of?; Where does {food} come from?;
How long should I boil {food}?; Can I eat {food} raw?; Do you have a recipe for {food}?; What goes
well with {food}?; How do you make {food}?; What does {food} taste like?; What is the chemical
symbol for {metal}?; What is the boiling point of {metal}?; What is the price of {metal}?; What is
the speed of light?; How far away is the sun?; How old is the universe?; How many planets are
there?; What is the largest ocean?; What is the tallest building in the world?; What is the meaning
of life?; Why is the sky blue?; How many bones are in the human body?; What is DNA?; What is the
biggest country in the world?; What is the smallest planet?; How deep is the ocean?; What is the
fastest {animal}?; Why does it rain?; Why is the sea salty?; How do planes fly?; How many stars are
there?; What is the square root of {n}?; What is {n} percent of {m}?; What is {n} divided by {m}?;
Divide {n} by {m}.; {n} / {m}; {n} ÷ {m}; What is {n} / {m}?; What is {n} squared?; What is the
cube of {n}?; Is {n} a prime number?; What is the factorial of {n}?; What is log {n}?; What is {n}
to the power of {m}?; Is {n} even?; Is {n} greater than {m}?; What is half of {n}?; What comes
after {n}?; Count to {n}.; What are the factors of {n}?; Solve x + {n} = {m}.; What is the average
of {n} and {m}?; {n} mod {m}; {n}^{m}; Explain {subject}.; What is {subject}?; Tell me about
{subject}.; How does {subject} work?; What do you know about {subject}?; Teach me {subject}.; Is
{subject} hard?; Why is {subject} important?; Who invented {subject}?; Give me an introduction to
{subject}.; What is the history of {subject}?; Where can I learn {subject}?; Summarise {subject}
for me.; Describe {subject} in one sentence.; Do you understand {subject}?; What is the difference
between {subject} and {subject2}?; Is {subject} better than {subject2}?; What is the best book
about {subject}?"""

SELF = """What is your favourite {thing}?; What's your favourite {animal}?; What is your favorite
color?; What's your favourite food?; Do you like {food}?; Do you like {animal}s?; Do you prefer
{food} or {food2}?; Which is better, {food} or {food2}?; Which is better, a {thing} or a {thing2}?;
Should I {errand}?; Should I buy a {thing}?; What do you think of {subject}?; What do you think
about {who}?; Do you believe in {subject}?; Are {animal}s better than {food}?; Is {place} nicer
than {city}?; What should I do today?; What should I eat tonight?; What should I wear?; Am I
{adj}?; Do you think I am {adj}?; Will I be {adj}?; Will it rain tomorrow?; Will {name} win?; What
will happen tomorrow?; Are you {adj}?; Do you dream?; Do you have feelings?; Are you happy?; Do you
love me?; How old are you?; Where do you live?; When were you born?; Do you have a {animal}?; Who
made you?; What are you thinking about?; Can you {errand}?; Did you {errand}?; Have you ever been
to {city}?; What did you do yesterday?; Do you sleep?; Where are my keys?; Where did I leave my
{thing}?; What did I eat yesterday?; What did I do last week?; Where is my {thing}?; Who took my
{thing}?; How much money do I have?; What is my mother's birthday?; When is my next meeting?; What
is {name}'s phone number?; What is {name}'s address?; How old is {name}?; Where does {name} work?;
Who is {name}?; What does {name} like?; Is {name} at home?; When is {name}'s birthday?; What is
{name} doing?; What did {name} say?; Does {name} like me?; Is {name} {adj}?; Why is {name} {adj}?;
What colour is {name}'s {thing}?; Where did {name} put the {thing}?; Who is {name}'s {job}?; Does
{name} have a {animal}?; What is the {job}'s name?; Which {thing} belongs to {name}?; What am I
thinking?; What number am I thinking of?; What is in my pocket?; What colour is my {thing}?; What
time is it?; What day is it today?; What is the date today?; What year is it?; What month is it?;
What's the weather today?; How is the weather?; Is it raining?; What is the news today?; What's the
temperature outside?; What is the stock price of {name}?; How much is a bitcoin?; Who is online?"""

CHORES = """Tell me a joke.; Tell me a story.; Tell me a story about a {animal}.; Write a poem
about {thing}s.; Write a poem.; Write a song about {name}.; Write a letter to {name}.; Write an
essay about {subject}.; Write a function that sorts a list in Python.; Write some code.; Write a
haiku about {thing}s.; Write a program in {subject}.; Sing a song.; Draw a {animal}.; Draw me a
{adj} {thing}.; Make me laugh.; Tell me something interesting.; Tell me a secret.; Tell me a fun
fact about {animal}s.; Give me advice.; Give me an idea for a {thing}.; Plan a trip to {city}.;
Recommend a book.; Recommend a restaurant in {city}.; Translate '{word}' to {language}.; How do you
say {word} in {language}?; What does {word} mean in {language}?; Translate {errand} into
{language}.; Do you speak {language}?; Define {word}.; Define {coin}.; What does {word} mean?; What
does {coin} mean?; What is the meaning of {word}?; What is {coin}?; What is a {coin}?; Who is
{coin}?; Where is {coin}?; How do I {coin}?; What is the opposite of {word}?; What is a synonym for
{word}?; What rhymes with {word}?; Spell {word}.; How many letters are in {word}?; Use {word} in a
sentence.; What is the plural of {word}?; Is {word} a noun?; What is {name}?; Summarise this text.;
Summarize the book {work}.; Fix my code.; Why does my code not work?; Guess my {thing}.; How do I
{errand}?; How can I {errand}?; When should I {errand}?; Why should I {errand}?; How do I fix my
{thing}?; How do I become a {job}?; What does a {job} do?; How much does a {job} earn?; What is it
like to be a {job}?; How do I lose weight?; How do I learn {language}?; Is {language} difficult?;
What is the best {thing}?; Which {thing} should I buy?; What is the difference between a {thing}
and a {thing2}?; Compare {food} and {food2}.; Why is the {thing} {adj}?; Why are {animal}s {adj}?;
Can {animal}s {verb} {food}?; Do {job}s {verb} {thing}s?; Is it true that {animal}s {verb} {food}?;
Is the {thing} {adj}?; Play chess with me.; Let's play a game.; Imagine you are a {animal}.;
Pretend to be a {job}.; Continue the story.; Roll a die.; Flip a coin.; Pick a number.; Choose a
{thing}.; Turn on the lights.; Play some music.; Open the {thing}.; Order a {food} for me.; Book a
flight to {city}.; Call {name}.; Send an email to {name}.; Set an alarm.; Buy me a {thing}.; What's
on TV tonight?; Show me a picture of a {animal}.; Search for {thing}s.; What is the wifi password?;
How do I reset my password?; Where is the nearest {thing}?; What is the phone number of the {job}?;
What's the score?; When does the {thing} open?; When does the {thing} leave?; How long does it take
to {verb} a {thing}?; How long is a {thing}?; How many {thing}s are in a {thing2}?; How heavy is a
{thing}?; How many {thing}s does {name} have?"""

NEAR = """What is the capital of {place2}?; What's the capital of {coin}?; Capital of {coined}?;
What is the capital of {coined}?; capital of {coined}; What is the capital of {town}?; Which
country has {town} as its capital?; {town} is the capital of which country?; What country is {town}
the capital of?; capital of {town}; Which country has {coined} as its capital?; What is the capital
city of {place2}?; Which continent is {coined} in?; What is the capital?; What is the largest city
in {place}?; What is the second city of {place}?; What was the old capital of {country}?; What is
the 13th month?; What is the 14th month of the year?; What day comes after {word}?; What month
comes after {word}?; How many days are in {word}?; How many days are in {coin}?; Which day comes
before {coined}?; What is the {ordinal} letter of the alphabet?; What letter comes after {letter}?;
How many {thing}s are in {n} {animal}s?; Convert {n} {thing}s to {animal}s.; Convert {n} {food}s
into {thing}s.; How many {metal} are in {n} {thing}s?; What is {word} plus {word2}?; What is {coin}
times {n}?; Add {word} and {word2}.; What is {name} minus {n}?; What is my {word}?; What is my
{thing}?; Do you remember my {thing}?; What's my {thing}'s name?; Where do my {animal}s live?; What
did I tell you about {name}?; What did {name} tell you?; What does {name} want me to remember?;
Sort my {thing}s.; Reverse the {thing}.; Repeat the {thing}.; How many days until {event}?; How
many days until Christmas?; When is Easter?; What day was {event}?; What day of the week is the
5th?; How many {thing}s are in a {animal}?; What is the capital letter of {word}?; Who is the
capital of {name}?; How many hours did {name} sleep?; How many kilometres are there to {city}?; How
many litres does the {thing} hold?; How many kilograms does {name} weigh?; Quelle est la capitale
de {name} ?; Où est {city} ?; Qui est {name} ?; Comment ça va ?; Wie geht es dir?; Was ist {word}?;
Wo ist {city}?; Wer ist {name}?; ¿Qué hora es?; ¿Dónde está {city}?; ¿Quién es {name}?; Come stai?;
Dove si trova {city}?; Che ore sono?; Onde fica {city}?; Hoe gaat het?"""

METALS = "gold silver copper iron zinc lead tin nickel mercury helium oxygen carbon uranium".split()


def _templates(text):
    return [" ".join(template.split()) for template in text.split(";")]


_POOLS = [(_templates(WORLD), 30), (_templates(SELF), 22), (_templates(CHORES), 22),
          (_templates(NEAR), 18)]


def _fill(rng):
    country = rng.choice(facts.COUNTRIES)
    name, made_up = person(rng), coin(rng)
    return {
        "who": rng.choice(PEOPLE) if rng.random() < 0.7 else f"{person(rng)} {coin(rng, 2).capitalize()}",
        "place": rng.choice((country, country, city(rng), rng.choice(PLACES))),
        "place2": rng.choice(PLACES), "country": country, "city": city(rng),
        "town": rng.choice(facts.CITIES),
        "event": rng.choice(EVENTS), "work": rng.choice(WORKS), "year": rng.randint(1000, 2040),
        "subject": rng.choice(SUBJECTS), "subject2": rng.choice(SUBJECTS), "name": name,
        "thing": rng.choice(facts.THINGS), "thing2": rng.choice(facts.THINGS),
        "animal": rng.choice(facts.ANIMALS), "food": rng.choice(facts.FOODS),
        "food2": rng.choice(facts.FOODS), "adj": rng.choice(facts.ADJECTIVES),
        "verb": rng.choice(facts.VERBS), "job": rng.choice(facts.JOBS), "errand": errand(rng),
        "word": word(rng), "word2": word(rng), "coin": made_up, "coined": made_up.capitalize(),
        "language": rng.choice(facts.LANGUAGES), "metal": rng.choice(METALS),
        "n": rng.randint(2, 99), "m": rng.randint(2, 99),
        "ordinal": rng.choice(facts.ORDINALS), "letter": rng.choice("abcdefghijklmnopqrstuvwxyz"),
    }


_ASKS = """what is; what's; who is; where is; when is; why is; how is; what was; who was; where are; when
did; why did; how did; what did; who did; how many; how much; how long; how far; how big; how often; which;
is; are; was; do; does; did; can; could; would; will; should; has; have; tell me; tell me why; tell me how;
show me; explain; describe; give me; find; make; name; list; guess; imagine; can you; could you; do you
know; I want; I need; I think; I feel; let us; please; what if; what about; how about""".split("; ")
_SMALL = "the a an of in on at to for with and or by from about my your his her their this that it".split()


def _babble(rng):
    """Word soup: something that opens like a question and then goes anywhere."""
    names = [lambda: rng.choice(facts.WORDS), lambda: rng.choice(facts.WORDS),
             lambda: rng.choice(_SMALL), lambda: rng.choice(_SMALL), lambda: coin(rng),
             lambda: rng.choice(SUBJECTS), lambda: person(rng), lambda: city(rng)]
    words = [rng.choice(names)() for _ in range(rng.randint(2, 9))]
    if rng.random() < 0.6:
        words.insert(0, " ".join(rng.choice(_ASKS).split()))
    text = " ".join(words)
    return text[0].upper() + text[1:] + rng.choice(["?", "?", ".", "", "!"])


def _noise(rng):
    """Not even words: keys hit at random, signs, single letters, numbers alone."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return rng.choice([
        lambda: "".join(rng.choice(letters) for _ in range(rng.randint(1, 12))),
        lambda: " ".join("".join(rng.choice(letters) for _ in range(rng.randint(2, 7)))
                         for _ in range(rng.randint(2, 5))),
        lambda: "".join(rng.choice("?!.,;:#%&/()=+*-_<>@") for _ in range(rng.randint(1, 6))),
        lambda: " ".join(coin(rng) for _ in range(rng.randint(1, 6))) + rng.choice(["?", ".", ""]),
        lambda: str(rng.randint(0, 99999)), lambda: code(rng),
        lambda: rng.choice(facts.EMOJI) * rng.randint(1, 3), lambda: rng.choice(facts.FOREIGN),
        lambda: f"{rng.choice(facts.THINGS)} {rng.choice(facts.ANIMALS)} {rng.choice(facts.FOODS)}",
        lambda: rng.choice(facts.WORDS),
    ])()


def _statement(rng):
    """A remark that asks for nothing."""
    slots = _fill(rng)
    return rng.choice([
        "The {animal} is {adj}.", "{name} likes {food}.", "The {adj} {animal} ate the {food}.",
        "{name} went to {city}.", "I like {food}.", "I saw a {animal}.", "I feel {adj}.",
        "It is {adj} today.", "The {thing} is in the {thing2}.", "{name} is a {job}.",
        "I bought a {thing}.", "{errand}", "There is a {animal} in my {thing}.", "I hate {subject}.",
        "{name} gave me a {thing}.", "You are {adj}.", "The {job} and the {job2} have a {thing}.",
    ]).format(job2=rng.choice(facts.JOBS), **slots)


def unserved(rng, family) -> Turn:
    """A request for a tool of this family where there is none."""
    user = tools.request_of(rng, family).user
    return Turn(user, ANSWER, (f"unserved:{user}",), is_fact=True)


def general(rng) -> Turn:
    """A question about the world, which is no errand for a tool other than a search."""
    template = rng.choice(_POOLS[0][0])
    used = {name: value for name, value in _fill(rng).items() if "{" + name + "}" in template}
    return fact_turn(rng, "unknown", [template], ANSWER, **used)


def unknown(rng) -> Turn:
    kind = rng.random()
    if kind < 0.72:
        templates, = rng.choices([pool for pool, _ in _POOLS], [weight for _, weight in _POOLS])
        template = rng.choice(templates)
        filled = _fill(rng)
        used = {name: value for name, value in filled.items() if "{" + name + "}" in template}
        return fact_turn(rng, "unknown", [template], ANSWER, **used)
    if kind < 0.8:
        asked = tools.request(rng)  # what only a tool could do, and there is none
        if asked.chosen not in ("calculator", "plus", "times"):
            return Turn(asked.user, ANSWER, (asked.user,), is_fact=True)
    text = (_babble if kind < 0.9 else _noise if kind < 0.95 else _statement)(rng)
    return Turn(text, ANSWER, (text,), is_fact=True)
