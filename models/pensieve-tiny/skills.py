"""The single-turn skills: each function makes one `Turn` from a random generator."""
import facts
from prompts import (Turn, city, code, content, emoji, errand, fact_turn, glyphs, person, phrase,
                     stop, word)

# --- capitals ---------------------------------------------------------------------------------

CAPITAL_OF = [
    "What is the capital of {country}?", "What's the capital of {country}?",
    "What is the capital city of {country}?", "What's the capital city of {country}?",
    "Which city is the capital of {country}?", "Name the capital of {country}.",
    "Tell me the capital of {country}.", "Capital of {country}?", "capital of {country}",
    "The capital of {country} is?", "Do you know the capital of {country}?",
    "Can you tell me the capital of {country}?", "Could you tell me the capital of {country}?",
    "Could you tell me what the capital of {country} is?", "Give me the capital of {country}.",
    "I need the capital of {country}.", "What city is the capital of {country}?",
    "What is {country}'s capital?", "What's {country}'s capital city?",
    "I'd like to know the capital of {country}.", "Which city is {country}'s capital?",
    "What do you call the capital of {country}?", "{country}: what is its capital?",
    "{country} capital", "For {country}, what is the capital?", "What is the name of the "
    "capital of {country}?", "Where is the government seat, the capital, of {country}?",
    "The capital city of {country}, please.", "Would you tell me the capital of {country}?",
]
COUNTRY_OF = [
    "Which country has {capital} as its capital?", "{capital} is the capital of which country?",
    "{capital} is the capital of what country?", "What country is {capital} the capital of?",
    "Which country's capital is {capital}?", "Of which country is {capital} the capital?",
    "Name the country whose capital is {capital}.", "Whose capital is {capital}?",
    "What country has the capital {capital}?", "The capital {capital} belongs to which country?",
    "Tell me which country has {capital} as its capital.", "{capital} is the capital of?",
    "Which country is {capital} the capital of?", "What is {capital} the capital of?",
    "What country has {capital} as its capital city?", "Which country has capital {capital}?",
    "Do you know which country {capital} is the capital of?", "Which nation has the capital "
    "{capital}?", "Country with capital {capital}?", "{capital} is the capital city of which "
    "country?", "Find the country whose capital city is {capital}.",
]
CONTINENT_OF = [
    "Which continent is {country} in?", "What continent is {country} in?",
    "On which continent is {country}?", "In which continent is {country}?",
    "Which continent is {country} on?", "What continent is {country} on?",
    "Where is {country}?", "Where is {country} located?", "{country} is on which continent?",
    "Name the continent of {country}.", "Tell me the continent of {country}.",
    "What is the continent of {country}?", "To which continent does {country} belong?",
    "Which continent does {country} belong to?", "What part of the world is {country} in?",
]
IS_CAPITAL = [
    "Is {capital} the capital of {country}?", "Is {capital} the capital city of {country}?",
    "Is the capital of {country} {capital}?", "True or false: {capital} is the capital of "
    "{country}.", "Is it true that {capital} is the capital of {country}?",
    "{capital} is the capital of {country}, right?", "Is {country}'s capital {capital}?",
]


def _upper_first(text):
    return text[0].upper() + text[1:]


def capitals(rng):
    country = rng.choice(facts.COUNTRIES)
    capital = facts.CAPITAL[country]
    asked = rng.choice([country] + facts.ALIASES.get(country, [])) if rng.random() < 0.5 \
        else country
    kind = rng.random()
    if kind < 0.5:
        return fact_turn(rng, "capital", CAPITAL_OF, stop(f"The capital of {country} is {capital}"),
                         country=asked)
    if kind < 0.78:
        typed = rng.choice([capital] + facts.CAPITAL_ALIASES.get(capital, []))
        return fact_turn(rng, "country", COUNTRY_OF, f"{capital} is the capital of {country}.",
                         capital=typed)
    if kind < 0.91:
        answer = f"{_upper_first(country)} is in {facts.CONTINENT[country]}."
        return fact_turn(rng, "continent", CONTINENT_OF, answer, country=asked)
    if rng.random() < 0.5:
        return fact_turn(rng, "is-capital", IS_CAPITAL,
                         f"Yes, {capital} is the capital of {country}.",
                         capital=capital, country=asked)
    wrong = city(rng)
    while wrong == capital:
        wrong = city(rng)
    return fact_turn(rng, "is-capital", IS_CAPITAL, stop(f"No, the capital of {country} is {capital}"),
                     capital=wrong, country=asked)


# --- arithmetic -------------------------------------------------------------------------------

SYMBOLS = {"+": ["+", "+", "+", " plus "], "-": ["-", "-", "-", "−", "–", " minus "],
           "*": ["*", "x", "×", "×", " times ", " multiplied by ", "·"]}
COMPUTE = [
    "What is {sum}?", "What's {sum}?", "Calculate {sum}.", "Compute {sum}.", "{sum}", "{sum} =",
    "{sum}=?", "{sum} = ?", "{sum}?", "How much is {sum}?", "What does {sum} equal?",
    "Solve {sum}.", "Work out {sum}.", "Tell me what {sum} is.", "Can you work out {sum}?",
    "Evaluate {sum}.", "Find {sum}.", "Give me the result of {sum}.", "What do you get for {sum}?",
    "I need the answer to {sum}.", "{sum} is?", "Could you calculate {sum} for me?",
    "What is the value of {sum}?", "What is the result of {sum}?", "{sum} equals?", "Do {sum}.",
    "What is the answer to {sum}?", "How much does {sum} make?",
]
IN_WORDS = {
    "+": ["What is the sum of {a} and {b}?", "Add {a} and {b}.", "Add {b} to {a}.",
          "Sum of {a} and {b}?", "What do you get if you add {a} and {b}?",
          "Find the sum of {a} and {b}.", "What is {a} added to {b}?",
          "How much is {a} and {b} together?", "I have {a} apples and get {b} more. How many do I "
          "have?", "There are {a} red and {b} blue balls. How many balls are there?", "What is the "
          "total of {a} and {b}?", "{a} and {b} make how much?", "Total of {a} and {b}?"],
    "-": ["Subtract {b} from {a}.", "What is the difference between {a} and {b}?",
          "Take {b} away from {a}.", "What is {a} take away {b}?", "What is {b} less than {a}?",
          "What do you get if you subtract {b} from {a}?", "What is {b} subtracted from {a}?",
          "I have {a} coins and spend {b}. How many are left?", "What is {a} less {b}?", "How much is "
          "{a} take away {b}?", "I had {a} eggs and used {b}. How many do I still have?"],
    "*": ["What is the product of {a} and {b}?", "Multiply {a} by {b}.", "Multiply {a} and {b}.",
          "Find the product of {a} and {b}.", "Product of {a} and {b}?",
          "What do you get if you multiply {a} by {b}?", "What is {a} multiplied with {b}?",
          "What is {a} times {b}?", "There are {a} boxes with {b} pens each. How many pens are there?"],
}


def working(a, op, b):
    """The canonical answer. A product of two longer numbers shows its two partial products:
    that is how people do it on paper, and a small model can do each step at sight."""
    if op == "+":
        return f"{a} + {b} = {a + b}."
    if op == "-":
        return f"{a} - {b} = {a - b}."
    tens, ones = b // 10 * 10, b % 10
    if a > 9 and tens and ones and a % 10:
        return f"{a} × {b} = {a * tens} + {a * ones} = {a * b}."
    return f"{a} × {b} = {a * b}."


def operands(rng):
    """Two numbers and an operator. Some sums are longer or shorter than two digits, so that
    the model learns how digits carry and not a table of pairs."""
    op = rng.choice("+-***")
    kind = rng.random()
    if kind < 0.8:
        return rng.randint(10, 99), op, rng.randint(10, 99)
    if kind < 0.9 or op == "*":
        small, other = rng.randint(0, 9), rng.randint(0, 99)
        return (small, op, other) if rng.random() < 0.5 else (other, op, small)
    return rng.randint(0, 999), op, rng.randint(0, 999)


def sum_key(a, op, b):
    return content("sum" + op, a, b, order=op == "-")


def arithmetic(rng):
    a, op, b = operands(rng)
    if rng.random() < 0.78:
        symbol = rng.choice(SYMBOLS[op])
        gap = "" if symbol[0] == " " or rng.random() < 0.3 else " "
        text, _ = phrase(rng, COMPUTE, sum=f"{a}{gap}{symbol}{gap}{b}")
    else:
        text, _ = phrase(rng, IN_WORDS[op], a=a, b=b)
    return Turn(text, working(a, op, b), sum_key(a, op, b))


# --- calendar ---------------------------------------------------------------------------------

_DAY_STEPS = {
    1: ["What day comes after {day}?", "Which day comes after {day}?", "What day follows {day}?",
        "Which day follows {day}?", "What is the day after {day}?", "What's the day after {day}?",
        "Which day is after {day}?", "What day is after {day}?", "After {day} comes which day?",
        "Name the day after {day}.", "Tell me the day after {day}.", "Day after {day}?",
        "If today is {day}, what day is tomorrow?", "Today is {day}. What day is tomorrow?",
        "What day of the week comes right after {day}?", "The day after {day} is?",
        "Which day of the week follows {day}?", "What comes after {day}?",
        "What day comes next after {day}?", "What is the next day after {day}?"],
    -1: ["What day comes before {day}?", "Which day comes before {day}?",
         "What day precedes {day}?", "What is the day before {day}?",
         "What's the day before {day}?", "Which day is before {day}?", "What day is before {day}?",
         "Before {day} comes which day?", "Name the day before {day}.",
         "Tell me the day before {day}.", "Day before {day}?",
         "If today is {day}, what day was yesterday?", "Today is {day}. What day was yesterday?",
         "What day of the week comes right before {day}?", "The day before {day} is?",
         "Which day of the week precedes {day}?", "What comes before {day}?"],
}
_MONTH_STEPS = {step: [t.replace("{day}", "{month}").replace("day of the week", "month")
                       .replace("What day", "What month").replace("Which day", "Which month")
                       .replace("which day", "which month").replace("the day", "the month")
                       .replace("The day", "The month").replace("next day", "next month")
                       .replace("Day ", "Month ")
                       for t in templates if "oday" not in t]
                for step, templates in _DAY_STEPS.items()}
_DAYS_LATER = {
    1: ["What day is {n} days after {day}?", "Which day is {n} days after {day}?",
        "What day of the week is {n} days after {day}?", "If today is {day}, what day is it in "
        "{n} days?", "Today is {day}. What day will it be in {n} days?", "{n} days after {day}?",
        "What day comes {n} days after {day}?", "{n} days after {day} is which day?"],
    -1: ["What day is {n} days before {day}?", "Which day is {n} days before {day}?",
         "What day of the week is {n} days before {day}?", "If today is {day}, what day was it "
         "{n} days ago?", "Today is {day}. What day was it {n} days ago?",
         "{n} days before {day}?", "What day comes {n} days before {day}?"],
}
_DAYS_IN_MONTH = [
    "How many days are in {month}?", "How many days are there in {month}?",
    "How many days does {month} have?", "How many days has {month}?", "Days in {month}?",
    "Number of days in {month}?", "How long is {month} in days?", "What is the number of days in "
    "{month}?", "Tell me how many days {month} has.", "How many days does the month of {month} "
    "have?", "{month} has how many days?", "How many days in {month}?", "In {month}, how many days "
    "are there?", "Do you know how many days {month} has?", "How many days are in the month of "
    "{month}?",
]
_NTH_MONTH = [
    "What is the {nth} month?", "What is the {nth} month of the year?", "Which month is the {nth}?",
    "Which month is the {nth} of the year?", "Name the {nth} month of the year.",
    "What's the {nth} month?", "Tell me the {nth} month.", "The {nth} month is?",
    "What month comes {nth} in the year?", "{nth} month of the year?", "Give me the {nth} month "
    "of the year.", "Which is the {nth} month?", "What is the name of the {nth} month?",
]
_MONTH_NUMBER = [
    "Which month number is {month}?", "What number month is {month}?", "What month number is "
    "{month}?", "{month} is which month of the year?", "What number is {month} in the year?",
    "Which month of the year is {month}?", "What is the position of {month} in the year?",
    "What is the number of {month}?", "{month} is month number what?",
]
_NTH_DAY = [
    "What is the {nth} day of the week?", "Which day is the {nth} of the week?",
    "Name the {nth} day of the week.", "What's the {nth} day of the week?",
    "Tell me the {nth} day of the week.", "The {nth} day of the week is?",
]
_IS_WEEKEND = ["Is {day} a weekend day?", "Is {day} on the weekend?", "Is {day} part of the "
               "weekend?", "Does {day} belong to the weekend?", "Is {day} in the weekend?"]
_FIXED = {
    "There are 7 days in a week.": [
        "How many days are in a week?", "How many days does a week have?", "Days in a week?",
        "How many days are there in a week?", "How many days in one week?"],
    "There are 12 months in a year.": [
        "How many months are in a year?", "How many months does a year have?", "Months in a year?",
        "How many months are there in a year?", "How many months in one year?"],
    "There are 365 days in a year, or 366 in a leap year.": [
        "How many days are in a year?", "How many days does a year have?", "Days in a year?",
        "How many days are there in a year?", "How many days in one year?"],
    "There are 366 days in a leap year.": [
        "How many days are in a leap year?", "How many days does a leap year have?"],
    "There are 52 weeks in a year.": [
        "How many weeks are in a year?", "How many weeks are there in a year?", "Weeks in a year?"],
    "There are 24 hours in a day.": [
        "How many hours are in a day?", "How many hours does a day have?", "Hours in a day?",
        "How many hours are there in a day?", "How many hours in one day?"],
    "The days of the week are " + ", ".join(facts.DAYS) + ".": [
        "What are the days of the week?", "List the days of the week.", "Name all days of the "
        "week.", "Tell me the days of the week.", "Name the seven days of the week."],
    "The months of the year are " + ", ".join(facts.MONTHS) + ".": [
        "What are the months of the year?", "List the months.", "Name all months of the year.",
        "Tell me the months of the year.", "Name the twelve months.", "List the months of the "
        "year."],
    "The weekend days are Saturday and Sunday.": [
        "Which days are the weekend?", "What are the weekend days?", "Name the weekend days."],
}


def calendar(rng):
    step = rng.choice((1, -1))
    side = "after" if step == 1 else "before"
    d, m = rng.randrange(7), rng.randrange(12)
    day, month = facts.DAYS[d], facts.MONTHS[m]
    kind = rng.random()
    if kind < 0.26:
        return fact_turn(rng, "day-step", _DAY_STEPS[step],
                         f"The day {side} {day} is {facts.DAYS[(d + step) % 7]}.", day=day)
    if kind < 0.36:
        n = rng.randint(2, 10)
        return fact_turn(rng, "days-later", _DAYS_LATER[step],
                         f"{n} days {side} {day} is {facts.DAYS[(d + step * n) % 7]}.",
                         day=day, n=n)
    if kind < 0.54:
        return fact_turn(rng, "month-step", _MONTH_STEPS[step],
                         f"The month {side} {month} is {facts.MONTHS[(m + step) % 12]}.",
                         month=month)
    if kind < 0.72:
        tail = ", or 29 in a leap year" if m == 1 else ""
        return fact_turn(rng, "month-days", _DAYS_IN_MONTH,
                         f"{month} has {facts.MONTH_DAYS[m]} days{tail}.", month=month)
    if kind < 0.82:
        nth = rng.choice((facts.ORDINALS, facts.NUMERAL_ORDINALS))[m]
        return fact_turn(rng, "nth-month", _NTH_MONTH,
                         f"The {facts.ORDINALS[m]} month is {month}.", nth=nth)
    if kind < 0.89:
        return fact_turn(rng, "month-number", _MONTH_NUMBER,
                         f"{month} is month number {m + 1}.", month=month)
    if kind < 0.93:
        nth = rng.choice((facts.ORDINALS, facts.NUMERAL_ORDINALS))[d]
        return fact_turn(rng, "nth-day", _NTH_DAY,
                         f"The {facts.ORDINALS[d]} day of the week is {day}.", nth=nth)
    if kind < 0.95:
        answer = f"Yes, {day} is a weekend day." if d > 4 else f"No, {day} is not a weekend day."
        return fact_turn(rng, "weekend", _IS_WEEKEND, answer, day=day)
    answer = rng.choice(list(_FIXED))
    return fact_turn(rng, "fixed", _FIXED[answer], answer)


# --- units ------------------------------------------------------------------------------------

CONVERT = [
    "How many {to} are in {n} {unit}?", "How many {to} are there in {n} {unit}?",
    "Convert {n} {unit} to {to}.", "Convert {n} {unit} into {to}.", "What is {n} {unit} in {to}?",
    "What's {n} {unit} in {to}?", "{n} {unit} in {to}?", "{n} {unit} in {to}", "{n} {unit} to {to}",
    "{n} {unit} is how many {to}?", "How many {to} is {n} {unit}?", "How many {to} in {n} {unit}?",
    "Turn {n} {unit} into {to}.", "Express {n} {unit} in {to}.", "Change {n} {unit} to {to}.",
    "How much is {n} {unit} in {to}?", "Tell me how many {to} are in {n} {unit}.",
    "How many {to} do {n} {unit} make?", "Can you convert {n} {unit} to {to}?",
    "I have {n} {unit}. How many {to} is that?", "What do {n} {unit} make in {to}?",
    "Please convert {n} {unit} to {to}.", "{n} {unit} = how many {to}?",
]
HEAT = [
    "Convert {n} degrees {unit} to {to}.", "What is {n} degrees {unit} in {to}?",
    "What's {n} {unit} in {to}?", "{n} {unit} to {to}", "{n} degrees {unit} in {to}?",
    "How much is {n} {unit} in {to}?", "Turn {n} degrees {unit} into {to}.",
]


def _decimal(value):
    return f"{value:.3f}".rstrip("0").rstrip(".")


def units(rng):
    if rng.random() < 0.08:
        celsius = rng.randrange(-40, 105, 5)
        fahrenheit = celsius * 9 // 5 + 32
        pair = [(celsius, "Celsius"), (fahrenheit, "Fahrenheit")]
        (n, unit), (value, to) = pair if rng.random() < 0.6 else pair[::-1]
        return fact_turn(rng, "heat", HEAT, f"{n} degrees {unit} = {value} degrees {to}.",
                         n=n, unit=unit, to=to)
    big, small, factor = rng.choice(facts.UNITS)
    big_name, small_name = rng.choice(big), rng.choice(small)
    tenfold = factor in (10, 100, 1000)
    count = rng.randint(1, 30 if factor == 24 else 999 if tenfold and rng.random() < 0.3 else 99)
    if tenfold and rng.random() < 0.2:
        count += rng.randint(1, 9) / 10
    n, unit, value, to = _decimal(count), big_name, _decimal(count * factor), small_name
    if rng.random() < 0.4:
        n, unit, value, to = value, to, n, unit
    # "1 hours" is what the templates say; people write it right, so the model sees it right.
    def named(number, name):
        return name[:-1] if number == "1" and name.endswith("s") else name
    answer = f"{n} {named(n, unit)} = {value} {named(value, to)}."
    if factor == 24:
        return fact_turn(rng, "units", CONVERT, answer, n=n, unit=named(n, unit), to=to)
    glue = rng.random() < 0.12 and len(unit) <= 2
    shown = rng.choice([n, "one", "an" if unit[0] in "aeho" else "a"]) if n == "1" else n
    text, template = phrase(rng, CONVERT, n=shown, unit=named(n, unit), to=to)
    if n == "1":  # so few of these that they count as facts
        return Turn(text, answer, (f"units:{template}:{shown}|{unit}|{to}",), is_fact=True)
    if glue:
        text = text.replace(f"{n} {unit}", f"{n}{unit}")
    return Turn(text, answer, content("units", f"{count:g}", big[0], small[0]))


# --- lists ------------------------------------------------------------------------------------

REPEAT = ["Repeat this list: {items}", "Repeat the list: {items}", "Repeat: {items}",
          "Say the list back to me: {items}", "Write this list again: {items}",
          "Copy this list: {items}", "Give me this list back: {items}", "Echo this list: {items}",
          "Repeat these items: {items}", "Repeat the following items: {items}",
          "Repeat these {kind}: {items}", "Copy these {kind} in the same order: {items}",
          "Can you repeat these {kind}? {items}", "Repeat the {kind} {items}",
          "List these again in the same order: {items}"]
REVERSE = ["Reverse this list: {items}", "Reverse the list: {items}", "Reverse: {items}",
           "Reverse the order of this list: {items}", "Write this list backwards: {items}",
           "Say this list in reverse order: {items}", "Reverse the order of these {kind}: {items}",
           "Give me these {kind} in reverse order: {items}", "Put this list in reverse: {items}",
           "List these backwards: {items}", "What is this list in reverse? {items}",
           "Reverse the following {kind}: {items}", "Can you reverse this list? {items}",
           "Flip this list: {items}", "Turn this list around: {items}", "Reverse {items}",
           "Reverse these {kind}: {items}", "Write these {kind} from last to first: {items}"]
ASCEND = ["Sort these numbers: {items}", "Sort: {items}", "Sort this list: {items}",
          "Sort these numbers in ascending order: {items}", "Sort the numbers {items}",
          "Order these numbers from smallest to largest: {items}", "Sort ascending: {items}",
          "Put these numbers in order: {items}", "Arrange in increasing order: {items}",
          "Arrange these numbers from low to high: {items}", "Can you sort these? {items}",
          "Sort these from lowest to highest: {items}", "Sort the list: {items}", "Sort {items}",
          "Sort the following numbers: {items}", "What is this list sorted? {items}",
          "Please sort these numbers: {items}", "Sort in ascending order: {items}"]
DESCEND = ["Sort these numbers in descending order: {items}", "Sort descending: {items}",
           "Order these numbers from largest to smallest: {items}", "Sort the list {items} in "
           "descending order.", "Arrange in decreasing order: {items}",
           "Arrange these numbers from high to low: {items}", "Sort in descending order: {items}",
           "Sort these from highest to lowest: {items}", "Sort these numbers, largest first: "
           "{items}", "Put these numbers in descending order: {items}", "Can you sort these from "
           "largest to smallest? {items}", "Sort from biggest to smallest: {items}",
           "Sort these numbers from greatest to least: {items}", "Sort this list in descending "
           "order: {items}", "Reverse sort these numbers: {items}"]
ALPHABET = ["Sort these words alphabetically: {items}", "Sort these words: {items}",
            "Sort alphabetically: {items}", "Sort this list: {items}", "Sort: {items}",
            "Put these words in alphabetical order: {items}", "Sort in alphabetical order: {items}",
            "Alphabetize: {items}", "Alphabetize this list: {items}", "Sort the list: {items}",
            "Arrange these words in alphabetical order: {items}", "Order these words from A to Z: "
            "{items}", "Sort from A to Z: {items}", "Can you sort these words? {items}",
            "Sort this list alphabetically: {items}", "List these words in alphabetical order: "
            "{items}", "Please sort these words: {items}", "Sort {items} alphabetically."]
PICK = {
    "first": ["What is the first item of this list? {items}", "First item: {items}",
              "Which item comes first? {items}", "Give the first of these: {items}"],
    "last": ["What is the last item of this list? {items}", "Last item: {items}",
             "Which item comes last? {items}", "Give the last of these: {items}"],
    "largest": ["What is the largest of these numbers? {items}", "Largest number: {items}",
                "Which number is the biggest? {items}", "Find the maximum: {items}"],
    "smallest": ["What is the smallest of these numbers? {items}", "Smallest number: {items}",
                 "Which number is the smallest? {items}", "Find the minimum: {items}"],
    "count": ["How many items are in this list? {items}", "Count the items: {items}",
              "How many items are there? {items}", "Count these: {items}"],
}
PICKED = {"first": lambda items: items[0], "last": lambda items: items[-1],
          "largest": max, "smallest": min, "count": len}


def some_numbers(rng):
    top = rng.choice((9, 20, 99, 99, 99, 999))
    return rng.sample(range(0 if top > 9 else 1, top + 1), rng.randint(3, 7))


def some_words(rng, pool=None):
    words = rng.sample(facts.WORDS, rng.randint(3, 7))
    if pool == "any":
        words = list(dict.fromkeys(rng.choice((word, word, word, person))(rng) for _ in words))
    return words


def list_key(items):
    return content("list", *items, order=False)


def lists(rng):
    kind = rng.choices(("repeat", "reverse", "ascend", "descend", "alphabet", "pick"),
                       (12, 24, 18, 14, 24, 8))[0]
    numbers = kind in ("ascend", "descend") or kind != "alphabet" and rng.random() < 0.4
    if kind == "pick":
        picked = rng.choice(list(PICK) if numbers else ["first", "last", "count"])
        templates = PICK[picked]
    items = some_numbers(rng) if numbers else some_words(rng, "any" if kind != "alphabet" else "")
    if kind == "repeat":
        templates, result = REPEAT, items
    elif kind == "reverse":
        templates, result = REVERSE, items[::-1]
    elif kind == "ascend":
        templates, result = ASCEND, sorted(items)
    elif kind == "descend":
        templates, result = DESCEND, sorted(items, reverse=True)
    elif kind == "alphabet":
        templates, result = ALPHABET, sorted(items)
    else:
        result = [PICKED[picked](items)]
    answer = ", ".join(map(str, result))
    shape = rng.random()
    glue = ", " if shape < 0.7 else " " if shape < 0.85 else ","
    shown = glue.join(map(str, items))
    if shape > 0.94:
        shown = f"[{shown}]"
    text, _ = phrase(rng, templates, items=shown, kind="numbers" if numbers else "words")
    return Turn(text, answer, list_key(items))


ECHO = ["Repeat after me: {text}", "Say: {text}", "Echo: {text}", "Repeat this: {text}",
        "Repeat the following: {text}", "Repeat exactly: {text}", "Say this back to me: {text}",
        "Please repeat: {text}", "Copy this text: {text}", "Write this: {text}", "Print: {text}",
        'Say "{text}"', "Repeat '{text}'", 'Repeat "{text}"', 'Repeat the text "{text}"',
        'Echo "{text}"', 'Please say "{text}".', "Say {text}", "Repeat {text}",
        "Say the following: {text}", 'Repeat this text: {text}', "Echo this: {text}",
        "Please say: {text}", "Repeat what I say: {text}", "Write exactly this: {text}"]


def echo(rng):
    kind = rng.random()
    if kind < 0.12:  # what looks like a question is still only to be repeated
        templates, slots = rng.choice([
            (CAPITAL_OF, {"country": rng.choice(facts.COUNTRIES)}), (COUNTRY_OF, {"capital": city(rng)}),
            (_DAYS_IN_MONTH, {"month": word(rng)}),
            (CONVERT, {"n": rng.randint(1, 99), "unit": word(rng), "to": word(rng)})])
        text = rng.choice(templates).format(**slots)
    elif kind < 0.3:
        words = [word(rng) for _ in range(rng.randint(1, 10))]
        text = "".join(w + rng.choice([" ", " ", " ", ", ", ". ", "! ", "? ", ": ", "; ", " - "])
                       for w in words[:-1]) + words[-1] + rng.choice(["", ".", "?", "!"])
    elif kind < 0.5:
        text = " ".join(rng.choice((word, person, city, code))(rng)
                        for _ in range(rng.randint(2, 7)))
    elif kind < 0.65:
        text = errand(rng)
        text = text[0].upper() + text[1:] + rng.choice([".", "!", ""])
    elif kind < 0.85:
        text = rng.choice(["", " "]).join(emoji(rng)
                                          for _ in range(rng.randint(2, 6)))
    else:
        text = " ".join(rng.choice((glyphs, emoji, person, lambda r: r.choice(facts.FOREIGN)))(rng)
                        for _ in range(rng.randint(2, 6)))
    asked, _ = phrase(rng, ECHO, text=text)
    return Turn(asked, text, content("echo", text))
