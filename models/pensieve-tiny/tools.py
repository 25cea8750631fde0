"""Tool use: which tool fits, what its arguments are, and what its result says.

The families below are the tools people usually offer. `_lookup` and `_action` make up tools that
nobody offers, with made-up names and parameters: the model has to read the schema to call those.
"""
import json
import re
from typing import Callable, NamedTuple

import facts
from prompts import (city, clock, code, coin, content, errand, person, phrase, scrap, stop,
                     word)
from talk import FIELDS


class Param(NamedTuple):
    names: str
    type: str
    value: Callable


class Family(NamedTuple):
    names: str
    about: list
    params: list
    asks: list
    fields: list = []


class Request(NamedTuple):
    """A user message that calls for a tool."""
    tool: dict
    user: str
    arguments: dict
    keys: tuple
    family: Family
    chosen: str


_PLACE = Param("city location place town city location", "string", city)
_DAY = Param("day date when", "string", lambda r: r.choice(
    facts.DAYS + ["today", "tomorrow", "tonight", "next week"]))
_TIME = Param("time at when", "string", clock)
_WHO = Param("to recipient person name contact", "string", person)
_TEXT = Param("text message body content", "string", errand)
_MINUTES = Param("minutes duration length", "integer", lambda r: r.randint(1, 90))
_AMOUNT = Param("amount value", "number", lambda r: r.randint(1, 999))
_ROOM = Param("room place area", "string", lambda r: r.choice(
    ["kitchen", "bedroom", "garage", "office", "hall", "bathroom", "garden", coin(r)]))
_PAIR = [Param("a x first num1 number1", "integer", lambda r: r.randint(0, 999)),
         Param("b y second num2 number2", "integer", lambda r: r.randint(0, 999))]
_TOPIC = Param("query q text topic keywords", "string", lambda r: r.choice((word, city, person,
               lambda r: f"{word(r)} {word(r)}", lambda r: f"{word(r)} {word(r)} {word(r)}"))(r))


def _currency(rng):
    return rng.choice("USD EUR GBP JPY CHF CNY INR BRL CAD AUD SEK NOK PLN".split())


def _expression(rng):
    number = lambda: rng.randint(2, 99) if rng.random() < 0.8 else rng.randint(100, 9999)
    return f"{number()} {rng.choice('+-*/')} {number()}"


_SIGHTS = ["sunny", "cloudy", "rainy", "windy", "foggy", "snowy", "clear", "stormy"]
_GRADE = ("temperature", lambda r: r.randint(-20, 40))
_SKY = ("condition", lambda r: r.choice(_SIGHTS))

FAMILIES = {
    "weather": Family(
        "get_weather weather current_weather getWeather weather_lookup fetch_weather get_forecast "
        "get_current_weather weather_in", ["Get the weather for a city.", "Current weather.",
        "Get the current weather in a given location", "Weather forecast of a place.",
        "Returns the weather."],
        [_PLACE, Param("unit units", "celsius|fahrenheit",
                       lambda r: r.choice(["celsius", "fahrenheit"]))],
        ["What's the weather in {v0}?", "What is the weather in {v0}?", "How is the weather in {v0}?",
         "What is the weather like in {v0}?", "What's the weather like in {v0} today?",
         "Weather in {v0}?", "weather {v0}", "Tell me the weather in {v0}.", "Is it raining in {v0}?",
         "Is it sunny in {v0}?", "Do I need an umbrella in {v0}?", "How hot is it in {v0}?",
         "Is it cold in {v0}?", "How warm is it in {v0} right now?", "What's the forecast for {v0}?",
         "What's the temperature in {v0}?", "Check the weather in {v0}.", "Give me the weather for "
         "{v0}.", "What's the weather in {v0} in {v1}?", "Tell me the weather in {v0} in {v1}.",
         "Weather in {v0} in {v1}, please.", "What is the current weather in {v0}?"],
        [_GRADE, _SKY, ("humidity", lambda r: r.randint(10, 100)), ("wind", lambda r: r.randint(0, 90))]),
    "clock": Family(
        "get_time time current_time getTime get_current_time local_time clock world_clock",
        ["Get the current time in a city.", "Current local time.", "Tells the time in a place."],
        [Param("city location timezone place zone", "string", city)],
        ["What time is it in {v0}?", "What's the time in {v0}?", "Tell me the time in {v0}.",
         "Time in {v0}?", "What is the current time in {v0}?", "What's the local time in {v0}?",
         "Do you know what time it is in {v0}?", "How late is it in {v0}?"],
        [("time", clock)]),
    "date": Family(
        "get_date today current_date getDate get_today date", ["Get today's date.",
        "Returns the current date."], [],
        ["What is the date today?", "What's today's date?", "Which date is it?", "What day is it "
         "today?", "Today's date?", "Tell me the date.", "What is today's date?"],
        [("date", lambda r: f"20{r.randint(20, 39)}-{r.randint(1, 12):02}-{r.randint(1, 28):02}")]),
    "calculator": Family(
        "calculator calculate calc evaluate compute eval_expression math do_math",
        ["Evaluate a mathematical expression.", "A calculator.", "Do a calculation.",
         "Compute the value of an expression"],
        [Param("expression expr formula input", "string", _expression)],
        ["What is {v0}?", "Calculate {v0}.", "Compute {v0}.", "How much is {v0}?", "{v0}", "{v0} = ?",
         "Work out {v0}.", "Use the calculator for {v0}.", "Evaluate {v0}.", "Can you calculate {v0}?",
         "Solve {v0}.", "I need the result of {v0}."],
        [("result", lambda r: r.randint(-99, 9999))]),
    "search": Family(
        "search web_search google search_web find lookup search_internet internet_search "
        "searchWeb", ["Search the web.", "Search the internet for information.", "Web search.",
        "Find pages about a query"], [_TOPIC],
        ["Search for {v0}.", "Search the web for {v0}.", "Look up {v0}.", "Google {v0}.",
         "Find information about {v0}.", "Search {v0}", "Can you search for {v0}?", "Find pages "
         "about {v0}.", "Look for {v0} on the internet.", "Do a web search for {v0}.",
         "Search online for {v0}.", "Look up {v0} online."],
        [("title", word), ("results", lambda r: r.randint(0, 99))]),
    "reminder": Family(
        "set_reminder reminder create_reminder add_reminder remind setReminder remind_me",
        ["Set a reminder.", "Create a reminder for the user.", "Reminds the user of something."],
        [Param("text task what title message", "string", errand), _TIME],
        ["Remind me to {v0}.", "Remind me to {v0} at {v1}.", "Set a reminder to {v0} at {v1}.",
         "Please remind me to {v0} at {v1}.", "Set a reminder: {v0}", "Create a reminder to {v0}.",
         "Add a reminder to {v0} at {v1}.", "I need a reminder to {v0}.", "At {v1}, remind me to "
         "{v0}.", "Reminder at {v1}: {v0}"], []),
    "translate": Family(
        "translate translate_text translator translateText do_translation", ["Translate text.",
        "Translate a text into another language.", "Translates text to a target language"],
        [Param("text sentence phrase source_text", "string", lambda r: r.choice((word, errand))(r)),
         Param("language to target target_language lang", "string",
               lambda r: r.choice(facts.LANGUAGES))],
        ["Translate '{v0}' to {v1}.", 'Translate "{v0}" into {v1}.', "Translate {v0} to {v1}.",
         "Translate {v0} into {v1}", "How do you say '{v0}' in {v1}?", 'How do I say "{v0}" in {v1}?',
         "What is '{v0}' in {v1}?", "Say {v0} in {v1}.", "Put '{v0}' into {v1}."],
        [("translation", lambda r: f"{coin(r)} {coin(r)}")]),
    "timer": Family(
        "set_timer timer start_timer countdown setTimer", ["Start a timer.", "Set a timer in minutes."],
        [_MINUTES], ["Set a timer for {v0} minutes.", "Start a {v0} minute timer.", "Timer for {v0} "
        "minutes.", "Wake me in {v0} minutes.", "Set a {v0}-minute timer.", "Count down {v0} minutes.",
        "{v0} minute timer please", "Start a timer of {v0} minutes."], []),
    "alarm": Family(
        "set_alarm alarm create_alarm add_alarm", ["Set an alarm.", "Sets an alarm clock."], [_TIME],
        ["Set an alarm for {v0}.", "Wake me up at {v0}.", "Alarm at {v0}.", "Set the alarm to {v0}.",
         "I need an alarm at {v0}.", "Create an alarm for {v0}."], []),
    "message": Family(
        "send_message message send_sms text_message send_text sendMessage", ["Send a message.",
        "Send a text message to someone."], [_WHO, _TEXT],
        ["Send a message to {v0}: {v1}", "Text {v0}: {v1}", "Message {v0}: {v1}", "Tell {v0}: {v1}",
         "Send {v0} the message '{v1}'.", 'Send "{v1}" to {v0}.', "Write {v0} a message saying {v1}.",
         "Send a text to {v0} saying '{v1}'."], []),
    "email": Family(
        "send_email email sendEmail mail compose_email send_mail", ["Send an email.",
        "Sends an email to a recipient."],
        [Param("to recipient address", "string", lambda r: person(r) if r.random() < 0.4
               else f"{coin(r, 2)}@{coin(r, 1)}.com"),
         Param("subject title", "string", lambda r: f"{word(r)} {word(r)}"),
         Param("body text message content", "string", errand)],
        ["Email {v0} with subject '{v1}' and text '{v2}'.", "Send an email to {v0} with the subject "
         "{v1} saying '{v2}'.", 'Send an email to {v0}. Subject: {v1}. Body: {v2}',
         'Write an email to {v0}, subject "{v1}", body "{v2}".'], []),
    "currency": Family(
        "convert_currency currency exchange currency_converter convertCurrency",
        ["Convert money between currencies.", "Convert an amount to another currency."],
        [_AMOUNT, Param("from from_currency source base", "string", _currency),
         Param("to to_currency target", "string", _currency)],
        ["Convert {v0} {v1} to {v2}.", "How much is {v0} {v1} in {v2}?", "{v0} {v1} in {v2}?",
         "Change {v0} {v1} to {v2}.", "What is {v0} {v1} in {v2}?", "Exchange {v0} {v1} for {v2}."],
        [("amount", lambda r: round(r.uniform(1, 999), 2))]),
    "stock": Family(
        "get_stock_price stock_price stock get_stock quote getStockPrice", ["Get a stock price.",
        "Get the current price of a stock by its symbol."],
        [Param("symbol ticker stock company", "string", lambda r: "".join(
            r.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(r.randint(2, 4))))],
        ["What's the stock price of {v0}?", "How much is {v0} stock?", "Price of {v0} stock?",
         "What is {v0} trading at?", "Get me the stock price for {v0}.", "Check the {v0} stock."],
        [("price", lambda r: round(r.uniform(1, 999), 2))]),
    "event": Family(
        "create_event add_event calendar_add schedule schedule_meeting createEvent",
        ["Add an event to the calendar.", "Schedule a meeting."],
        [Param("title name event summary", "string", lambda r: f"{word(r)} {r.choice(['meeting', 'party', 'call', 'dinner', 'lesson'])}"),
         _DAY, _TIME],
        ["Add {v0} to my calendar on {v1}.", "Schedule {v0} for {v1}.", "Schedule {v0} on {v1} at "
         "{v2}.", "Put {v0} in my calendar for {v1} at {v2}.", "Create an event {v0} on {v1} at {v2}.",
         "Plan {v0} for {v1}."], []),
    "lights": Family(
        "set_lights lights switch_light control_lights toggle_light setLight", ["Switch the lights.",
        "Turn the lights of a room on or off."],
        [_ROOM, Param("state power mode", "on|off", lambda r: r.choice(["on", "off"]))],
        ["Turn {v1} the lights in the {v0}.", "Switch {v1} the {v0} lights.", "Turn the {v0} lights "
         "{v1}.", "Lights {v1} in the {v0}.", "Turn {v1} the light in the {v0}."], []),
    "music": Family(
        "play_music play play_song music playSong start_music", ["Play music.", "Play a song."],
        [Param("song title track query", "string", lambda r: f"{word(r)} {word(r)}"),
         Param("artist singer by", "string", person)],
        ["Play {v0}.", "Play the song {v0}.", "Play {v0} by {v1}.", "Put on {v0} by {v1}.",
         "I want to hear {v0}.", "Start playing {v0}.", "Can you play {v0} by {v1}?"], []),
    "todo": Family(
        "add_todo add_task todo create_task addTodo add_to_list", ["Add a task to the to-do list.",
        "Add an item to the list."], [Param("task item title text", "string", errand)],
        ["Add '{v0}' to my to-do list.", "Add {v0} to my list.", "Put {v0} on my to-do list.",
         "New task: {v0}", "Add a task: {v0}", "Add the task {v0}."], []),
    "note": Family(
        "save_note note take_note create_note add_note", ["Save a note.", "Write down a note."],
        [Param("text note content body", "string", errand)],
        ["Make a note: {v0}", "Note down: {v0}", "Take a note: {v0}", "Save a note saying {v0}.",
         "Write down: {v0}", "Create a note: {v0}"], []),
    "dice": Family(
        "roll_dice roll_die dice random_number rollDice", ["Roll a die.", "Roll the dice."], [],
        ["Roll a die.", "Roll the dice.", "Throw a die.", "Can you roll a die?", "Roll a dice for me."],
        [("roll", lambda r: r.randint(1, 6))]),
    "distance": Family(
        "get_distance distance route get_route travel_distance", ["Distance between two places.",
        "Get the distance from one city to another."],
        [Param("from origin start source", "string", city), Param("to destination end target",
                                                                  "string", city)],
        ["How far is it from {v0} to {v1}?", "What is the distance from {v0} to {v1}?", "Distance "
         "between {v0} and {v1}?", "How far is {v0} from {v1}?", "Get the distance from {v0} to {v1}."],
        [("distance", lambda r: f"{r.randint(2, 9999)} km")]),
    "plus": Family(
        "add sum add_numbers plus addition", ["Add two numbers.", "Returns the sum of two numbers."],
        _PAIR, ["Add {v0} and {v1}.", "What is {v0} + {v1}?", "What is {v0} plus {v1}?", "{v0} + {v1}",
        "What is the sum of {v0} and {v1}?", "Calculate {v0} + {v1}.", "How much is {v0} plus {v1}?"],
        [("result", lambda r: r.randint(0, 999)), ("sum", lambda r: r.randint(0, 999))]),
    "times": Family(
        "multiply times product multiply_numbers mul", ["Multiply two numbers.", "Returns the product."],
        _PAIR, ["Multiply {v0} by {v1}.", "What is {v0} * {v1}?", "What is {v0} times {v1}?",
        "{v0} x {v1}", "Multiply {v0} and {v1}.", "Calculate {v0} × {v1}.", "What is the product of "
        "{v0} and {v1}?"], [("result", lambda r: r.randint(0, 9999))]),
    "flight": Family(
        "book_flight flight find_flights search_flights reserve_flight", ["Book a flight between two "
        "cities.", "Find flights.", "Book a plane ticket."],
        [Param("origin from departure from_city", "string", city),
         Param("destination to arrival to_city", "string", city), _DAY],
        ["Book a flight from {v0} to {v1}.", "Book a flight from {v0} to {v1} on {v2}.", "Fly me from "
         "{v0} to {v1}.", "I need a flight from {v0} to {v1} {v2}.", "Find a flight from {v0} to {v1}.",
         "Get me a plane ticket from {v0} to {v1} for {v2}.", "Flights from {v0} to {v1}?"],
        [("price", lambda r: r.randint(40, 2000)), ("flight", code)]),
    "booking": Family(
        "book_table reserve_table book_restaurant reservation book", ["Book a table at a restaurant.",
        "Make a restaurant reservation."],
        [Param("restaurant place name venue", "string", person),
         Param("people guests party_size seats", "integer", lambda r: r.randint(1, 12)), _TIME],
        ["Book a table at {v0} for {v1}.", "Reserve a table for {v1} at {v0}.", "Book a table for {v1} "
         "people at {v0} at {v2}.", "Table for {v1} at {v0}, please.", "Reserve a table at {v0} for "
         "{v1} people at {v2}."], [("confirmation", code)]),
}

_RECORDS = """price status score level balance owner address phone email population salary weight
height speed rating stock schedule capacity temperature location version deadline budget profile
inventory menu recipe definition summary horoscope news traffic tide calendar grade invoice discount
altitude pollen humidity timetable""".split()
_KINDS = [("city", city), ("person", person), ("user", person), ("id", code), ("order_id", code),
          ("item", word), ("product", word), ("name", person), ("country", lambda r: r.choice(
              facts.COUNTRIES).removeprefix("the ")), ("key", coin), ("code", code), ("file", lambda r:
              f"{coin(r)}.txt"), ("username", coin)]


def _spelled(rng, *words):
    """A function name in one of the usual spellings."""
    return rng.choice(["_".join(words), "_".join(words), "".join(w.capitalize() for w in words),
                       words[0] + "".join(w.capitalize() for w in words[1:]), "-".join(words),
                       ".".join(words)])


def _lookup(rng, made_up=False):
    """A getter nobody offers: "get_pollen(city)", "fetchBlorf(key)"."""
    record = rng.choice(_RECORDS) if rng.random() < 0.6 and not made_up else coin(rng)
    kind, value = rng.choice(_KINDS)
    names = " ".join(_spelled(rng, verb, record) for verb in ("get", "fetch", "find", "read", "check"))
    label = kind.replace("_id", "")
    return Family(
        names + " " + record + "_lookup", [f"Get the {record} of a {label}.", f"Returns the {record}.",
        f"Look up the {record} for a {label}"],
        [Param(rng.choice([kind, kind, coin(rng)]), "string", value)],
        [f"What is the {record} of {{v0}}?", f"What's the {record} for {{v0}}?", f"Get the {record} "
         f"of {{v0}}.", f"Tell me the {record} of {{v0}}.", f"Check the {record} for {{v0}}.",
         f"Find the {record} of {{v0}}.", f"I need the {record} for {{v0}}.", f"Look up the {record} "
         f"of {{v0}}.", f"{{v0}} {record}?", f"Show me the {record} of {{v0}}.", f"What {record} does "
         f"{{v0}} have?", f"Give me the {record} for {{v0}}."],
        [(record, lambda r: r.choice((code, word, lambda r: r.randint(0, 9999)))(r))])


def _action(rng):
    """A made-up command with one to three parameters that the user names."""
    verb = rng.choice(facts.VERBS) if rng.random() < 0.7 else coin(rng)
    noun = rng.choice(facts.THINGS) if rng.random() < 0.7 else coin(rng)
    kinds = rng.sample([("name", person), ("city", city), ("code", code), ("colour", lambda r:
                        r.choice(facts.COLOURS)), ("size", lambda r: r.choice(["small", "large"])),
                        ("day", lambda r: r.choice(facts.DAYS)), ("time", clock), (coin(rng), word),
                        (coin(rng), code), ("label", word), ("owner", person)], rng.randint(0, 2))
    numbers = [("count", 0), ("amount", 0), ("level", 0), ("quantity", 0), (coin(rng), 0)]
    params = [Param(name, "string", value) for name, value in kinds]
    if rng.random() < 0.5 or not params:
        params.append(Param(rng.choice(numbers)[0], "integer", lambda r: r.randint(1, 999)))
    params = list({param.names: param for param in params}.values())  # made-up names can coincide
    rng.shuffle(params)
    slots = [f"{param.names} {{v{i}}}" for i, param in enumerate(params)]
    pairs = [f"{param.names}={{v{i}}}" for i, param in enumerate(params)]
    listed = " and ".join([", ".join(slots[:-1])] * (len(slots) > 1) + slots[-1:])
    name = _spelled(rng, verb, noun)
    return Family(
        name, [f"{verb.capitalize()} the {noun}.", f"{verb.capitalize()}s a {noun}.", f"Used to {verb} "
        f"the {noun}"], params,
        [f"{verb.capitalize()} the {noun} with {listed}.", f"Please {verb} a {noun} with {listed}.",
         f"{verb.capitalize()} a {noun}: {', '.join(pairs)}", f"Call {name} with {listed}.",
         f"Use {name} with {', '.join(pairs)}", f"I want to {verb} the {noun} with {listed}.",
         f"Can you {verb} the {noun}, {listed}?", f"{verb.capitalize()} the {noun} using {listed}."], [])


def _schema(rng, family):
    """A tool definition and the parameter names it settled on."""
    names = []
    for param in family.params:
        free = [name for name in param.names.split() if name not in names]
        name = rng.choice(free)
        if rng.random() < 0.15:
            name = rng.choice([f"{name}_{coin(rng)}", f"{coin(rng)}_{name}", f"user_{name}",
                               f"the_{name}", f"{name}_name", f"{name}Value"])
        names.append(name)
    least = min((ask.count("{v") for ask in family.asks), default=0)
    described = rng.random() < 0.6
    properties = {}
    for name, param in zip(names, family.params):
        properties[name] = {"type": "string" if "|" in param.type else param.type}
        if "|" in param.type:
            properties[name]["enum"] = param.type.split("|")
        if described:
            properties[name]["description"] = rng.choice(
                [f"The {name.replace('_', ' ')}", f"{name.capitalize()} to use.", f"the {name}"])
    name = rng.choice(family.names.split())
    if rng.random() < 0.3:  # no list of names is complete
        parts = re.findall(r"[a-z]+|[A-Z][a-z]*", name)
        lead = rng.choice(["", "", "do", "run", "get", "my", "api", "call", "query", "use", coin(rng)])
        tail = rng.choice(["", "", "now", "info", "data", "tool", "service", "api", "v2", coin(rng)])
        name = _spelled(rng, *[part.lower() for part in [lead, *parts, tail] if part])
    function = {"name": name}
    if rng.random() < 0.9:
        function["description"] = rng.choice(family.about)
    function["parameters"] = {"type": "object", "properties": properties}
    if names:
        function["parameters"]["required"] = names[:least]
    if rng.random() < 0.1:
        function["parameters"]["additionalProperties"] = False
    return {"type": "function", "function": function}, names


def request(rng):
    """Something to ask of some tool."""
    kind = rng.random()
    chosen = rng.choice(list(FAMILIES)) if kind < 0.62 else ""
    family = FAMILIES[chosen] if chosen else (_lookup if kind < 0.82 else _action)(rng)
    return request_of(rng, family, chosen)


def request_of(rng, family, chosen=""):
    tool, names = _schema(rng, family)
    values = [param.value(rng) for param in family.params]
    slots = {f"v{i}": value for i, value in enumerate(values)}
    text, template = phrase(rng, family.asks, **slots)
    arguments = {name: value for i, (name, value) in enumerate(zip(names, values))
                 if f"{{v{i}}}" in template}
    key = content("call", tool["function"]["name"], *arguments.values())
    if not arguments:  # nothing but the wording tells such calls apart
        key = content("call", tool["function"]["name"], template)
    return Request(tool, text, arguments, key, family, chosen)


# Families close enough that a request for one could be taken for a request for another.
_GROUPS = [{"clock", "date", "alarm", "timer"}, {"calculator", "plus", "times"},
           {"reminder", "todo", "note", "event", "alarm", "timer"}, {"message", "email", "note"},
           {"distance", "flight"}, {"booking", "event"}]
_QUIET = ["timer", "alarm", "lights", "todo", "email", "booking"]


def _unlike(chosen):
    """The families that a request for this one cannot mean; a search could mean anything."""
    alike = {chosen, "search"}.union(*(group for group in _GROUPS if chosen in group))
    return [name for name in FAMILIES if name not in alike]


def other_tools(rng, count, chosen="", only=None):
    """Tools that do not fit: of families unlike the chosen one, or made up."""
    families = list(only or _unlike(chosen))
    tools, names = [], set()
    while len(tools) < count:
        if families and rng.random() < 0.65:
            family = FAMILIES[families.pop(rng.randrange(len(families)))]
        else:
            family = _action(rng) if rng.random() < 0.7 else _lookup(rng, made_up=True)
        tool, _ = _schema(rng, family)
        if tool["function"]["name"] not in names:
            names.add(tool["function"]["name"])
            tools.append(tool)
    return tools


def quiet_tools(rng, count):
    """Tools that no question could be meant for."""
    return other_tools(rng, count, only=_QUIET)


def tools_around(rng, asked):
    """The tool asked for among up to three others."""
    name = asked.tool["function"]["name"]
    others = [other for other in other_tools(rng, rng.choice((0, 0, 1, 1, 2, 3)), asked.chosen)
              if other["function"]["name"] != name]
    others.insert(rng.randint(0, len(others)), asked.tool)
    return others


def misfit(rng):
    """A request, and tools that cannot serve it. Sums are left out: those need no tool."""
    while True:
        asked = request(rng)
        if asked.chosen not in ("calculator", "plus", "times", "search"):
            return asked, other_tools(rng, rng.choice((1, 1, 2, 3)), asked.chosen)


def _said_weather(rng):
    grade, sky = rng.randint(-9, 40), rng.choice(_SIGHTS)
    return rng.choice([f"{grade}°C, {sky}", f"{grade}°C and {sky}", f"{sky}, {grade} degrees",
                       f"{sky.capitalize()}, {grade} degrees", f"{grade} degrees and {sky}"])


def result(rng, fields):
    """What a tool may return: fields of its own, a made-up object, a plain text, a failure."""
    kind = rng.random()
    if kind < 0.05:
        return {"error": rng.choice(["not found", "timeout", "no access", f"unknown {coin(rng)}"])}
    if kind < 0.12 or not fields and kind < 0.5:
        return rng.choice([{"status": "ok"}, {"success": True}, {"ok": True}, {"status": "done"},
                           {"status": "success"}])
    if kind < 0.22:
        return rng.choice((word, code, errand, city, _said_weather,
                           lambda r: " ".join(word(r) for _ in range(r.randint(2, 6)))))(rng)
    if fields and kind < 0.7:
        chosen = rng.sample(fields, rng.randint(1, len(fields)))
        return {name: value(rng) for name, value in chosen}
    names = [rng.choice((rng.choice(_RECORDS), rng.choice(FIELDS), coin(rng), scrap(rng).lower(),
                         rng.choice(["result", "value", "answer", "id", "status", "unit", "units"]),
                         f"{rng.choice(_RECORDS)}_{rng.choice('abcdefk')}", f"{coin(rng)}_id",
                         f"max_{rng.choice(_RECORDS)}")) for _ in range(rng.randint(1, 4))]
    return {name: rng.choice((code, word, city, person, lambda r: r.randint(-99, 9999),
                              lambda r: round(r.uniform(0, 99), 1), lambda r: r.random() < 0.5))(rng)
            for name in names}


def report(value):
    """The sentence that says what a tool returned."""
    if not isinstance(value, dict):
        return stop(f"The result is {value}")
    if "error" in value:
        return f"The tool failed: {value['error']}."
    if len(value) == 1 and (True in value.values() and {"success", "ok"} & set(value)
                            or value.get("status") in ("ok", "done", "success")):
        return "Done."
    shown = [f"the {name.replace('_', ' ')} is {v if isinstance(v, str) else json.dumps(v)}"
             for name, v in value.items()]
    text = ", ".join(shown[:-1]) + " and " * (len(shown) > 1) + shown[-1]
    return stop(text[0].upper() + text[1:])
