#!/usr/bin/env python3
"""Writes the text Pensieve Tiny is trained and tested on. Standard library only.

    python3 generate.py --split heldout --seed 7 --count 600 > heldout.jsonl
    python3 generate.py --split train --seed 1 --count 20
    python3 generate.py --check

One JSON object a line: skill, messages, tools where there are any, and the exact answer. The same
split, seed and count always give the same lines. What makes a prompt held out is told in prompts.py.
"""
import argparse
import json
import random
import re
import sys

import chat
import memory
import skills
import talk
import tools
import unknown as unknowns
from prompts import Split, Turn, system_prompt

SINGLE = {
    "capitals": skills.capitals, "arithmetic": skills.arithmetic, "calendar": skills.calendar,
    "units": skills.units, "lists": skills.lists, "echo": skills.echo,
    "json_field": talk.json_field, "json_answer": talk.json_answer, "greeting": talk.greeting,
    "unknown": unknowns.unknown,
}
# How often each skill is trained on. What has to be computed gets more than what is looked up.
WEIGHTS = {
    "capitals": 9, "arithmetic": 17, "calendar": 7, "units": 8, "lists": 15, "echo": 5,
    "json_field": 5, "json_answer": 7, "greeting": 3, "unknown": 10, "tool_call": 7,
    "tool_answer": 4, "tool_skip": 5, "memory": 7, "mixed": 5,
}
SKILLS = list(WEIGHTS)
# Skills that some tool in the list could be meant for: beside tools they would be ambiguous.
TOOL_FREE = [name for name in SINGLE if name not in ("arithmetic", "units", "calendar")]
LONGEST = 1900  # characters of a long dialogue, about 600 tokens


class Dialogue:
    """A dialogue under construction; every turn in it is of the same split."""

    def __init__(self, rng, split, skill):
        self.rng, self.split, self.skill = rng, split, skill
        self.system = system_prompt(rng)
        self.messages, self.tools, self.keys = [], [], []
        self.compact = not split.heldout and rng.random() < 0.25
        self.sorted = not split.heldout and rng.random() < 0.15

    def draw(self, make) -> Turn:
        turn = self.split.draw(make, self.rng, self.system)
        self.keys += turn.keys
        return turn

    def turn(self, make, learn=True, reply=None):
        turn = self.draw(make)
        self.user(turn.user)
        self.assistant(reply or turn.answer, learn)

    def user(self, text):
        self.messages.append({"role": "user", "content": text})

    def assistant(self, text, learn=True):
        self.messages.append({"role": "assistant", "content": text}
                             | ({} if learn else {"learn": False}))

    def request(self):
        """A request for a tool of this split. Servers that sort object keys show the model a
        sorted schema, and it should then answer in that order."""
        while True:
            asked = tools.request(self.rng)
            if self.split.takes(*asked.keys):
                break
        self.keys += asked.keys
        if self.sorted:
            asked = asked._replace(tool=deep_sorted(asked.tool),
                                   arguments=dict(sorted(asked.arguments.items())))
        return asked

    def offer(self, offered):
        self.tools = [deep_sorted(tool) for tool in offered] if self.sorted else offered

    def call(self, asked, spoken=True):
        if spoken:
            self.user(asked.user)
        function = {"name": asked.tool["function"]["name"], "arguments": asked.arguments}
        self.messages.append({"role": "assistant", "content": "",
                              "tool_calls": [{"type": "function", "function": function}]})

    def reply_from(self, asked):
        """The tool's result, and the sentence about it. The call in the keys decides the split;
        a result seen in training may come back beside a call that was not."""
        value = tools.result(self.rng, asked.family.fields)
        shown = value if isinstance(value, str) else chat.dump(value, self.rng.random() < 0.3)
        self.messages.append({"role": "tool", "content": shown})
        self.assistant(tools.report(value))

    def finish(self) -> dict:
        """The last assistant message is the answer asked for."""
        last = self.messages[-1]
        answer = chat.call_text(last["tool_calls"]) if "tool_calls" in last else last["content"]
        messages = [{"role": "system", "content": self.system}] if self.system else []
        record = {"skill": self.skill, "messages": messages + self.messages[:-1]}
        if self.tools:
            record["tools"] = self.tools
        return record | {"answer": answer}


def deep_sorted(value):
    if isinstance(value, dict):
        return {key: deep_sorted(value[key]) for key in sorted(value)}
    return [deep_sorted(item) for item in value] if isinstance(value, list) else value


def some_skill(rng, names=tuple(SINGLE)):
    return SINGLE[rng.choices(names, [WEIGHTS[name] for name in names])[0]]


def tool_call(talk_):
    asked = talk_.request()
    talk_.offer(tools.tools_around(talk_.rng, asked))
    if talk_.rng.random() < 0.2:
        talk_.turn(SINGLE["greeting"])
    talk_.call(asked)
    return asked


def tool_answer(talk_):
    talk_.reply_from(tool_call(talk_))


def tool_skip(talk_):
    """A question beside tools that are of no use for it."""
    rng = talk_.rng
    count, kind = rng.choice((1, 1, 2, 3)), rng.random()
    if kind < 0.3:
        asked, offered = tools.misfit(rng)
        talk_.offer(offered)
        talk_.turn(lambda r: unknowns.unserved(r, asked.family))
    elif kind < 0.45:
        talk_.offer(tools.other_tools(rng, count, "calculator"))
        talk_.turn(SINGLE["arithmetic"])
    elif kind < 0.6:
        talk_.offer(tools.other_tools(rng, count, "distance"))
        talk_.turn(unknowns.general)
    else:
        name = rng.choice(TOOL_FREE)
        quiet = name in ("unknown", "echo")
        talk_.offer(tools.quiet_tools(rng, count) if quiet else tools.other_tools(rng, count))
        talk_.turn(SINGLE[name])


def distract(talk_, count):
    for _ in range(count):
        if sum(len(message["content"]) for message in talk_.messages) > LONGEST:
            return
        talk_.turn(some_skill(talk_.rng), learn=talk_.rng.random() < 0.9)


def remember(talk_):
    """Tells one to three things, talks of something else, and asks for one of them."""
    rng = talk_.rng
    told = {}
    in_system = talk_.system and rng.random() < 0.1
    pending = None  # to be told in one sentence with the next thing
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3))):
        slot, about, value = memory.fact_to_tell(rng)
        if (slot, about) in told:
            continue
        said = talk_.draw(lambda r: retell(r, slot, about))
        value = told[slot, about] = said.answer
        if in_system and slot == "name" and not talk_.messages:
            talk_.system += f" The user's name is {value}."
            continue
        if pending and slot != "word":
            said, acknowledged = memory.tell_two(rng, pending, (slot, about, value))
            talk_.user(said)
            talk_.assistant(acknowledged)
            pending = None
        elif slot != "word" and rng.random() < 0.25:
            pending = slot, about, value
            continue
        else:
            say(talk_, slot, about, value)
        if rng.random() < 0.3:
            distract(talk_, rng.randint(1, 2))
    if pending:
        say(talk_, *pending)
    if rng.random() < 0.1:  # people change their minds; the last word counts
        slot, about = rng.choice(list(told))
        if slot in ("name", "attribute", "home"):
            value = told[slot, about] = talk_.draw(lambda r: retell(r, slot, about)).answer
            say(talk_, slot, about, value, rng.choice(memory.NUDGES))
    distract(talk_, rng.choice((0, 0, 1, 1, 2, 3, 5, 8, 14)))
    asked = list(told)
    rng.shuffle(asked)
    for slot, about in asked[:rng.choice((1, 1, 2))]:
        if rng.random() < 0.12:
            slot, about, _ = memory.fact_to_tell(rng)
        question = memory.ask(rng, slot, about, told.get((slot, about)))
        talk_.user(question.user)
        talk_.assistant(question.answer)


def retell(rng, slot, about):
    """A value for this slot, as a turn so that the split can refuse it."""
    while True:
        other_slot, other_about, value = memory.fact_to_tell(rng)
        if other_slot == slot and (slot in ("name", "home", "age", "word", "job", "named")
                                   or other_about.split()[-1] == about.split()[-1]):
            return Turn("", value, (f"told:{value}",))


def say(talk_, slot, about, value, nudge=""):
    turn = memory.tell(talk_.rng, slot, about, value)
    talk_.user(nudge + turn.user)
    if talk_.rng.random() < 0.3:
        talk_.assistant(talk_.rng.choice(memory.OTHER_ACKS), learn=False)
    else:
        talk_.assistant(turn.answer)


def mixed(talk_):
    """A chain over several skills, with tools in reach now and then."""
    rng = talk_.rng
    if rng.random() < 0.65:
        for _ in range(rng.randint(2, 6)):
            talk_.turn(some_skill(rng))
        return
    asked = talk_.request()
    talk_.offer([asked.tool] + tools.quiet_tools(rng, rng.choice((0, 1))))
    plain = [name for name in TOOL_FREE if name not in ("unknown", "echo")]
    for _ in range(rng.randint(0, 2)):
        talk_.turn(some_skill(rng, plain))
    talk_.call(asked)
    talk_.reply_from(asked)
    for _ in range(rng.randint(0, 2)):
        talk_.turn(some_skill(rng, plain))


DIALOGUES = {"tool_call": tool_call, "tool_answer": tool_answer, "tool_skip": tool_skip,
             "memory": remember, "mixed": mixed}


def dialogue(rng, split, skill) -> Dialogue:
    talk_ = Dialogue(rng, split, skill)
    if skill in SINGLE:
        talk_.turn(SINGLE[skill])
    else:
        DIALOGUES[skill](talk_)
    return talk_


def training_dialogue(rng, split) -> Dialogue:
    return dialogue(rng, split, rng.choices(SKILLS, list(WEIGHTS.values()))[0])


def records(split_name, seed, count):
    """What the command line prints: every skill in turn, so that all have the same share."""
    rng, split = random.Random(f"{split_name}:{seed}"), Split(split_name)
    for index in range(count):
        yield dialogue(rng, split, SKILLS[index % len(SKILLS)]).finish()


def fingerprint(talk_):
    """A whole prompt, less what typing carelessly leaves out."""
    spoken = [talk_.system] + [message["content"] for message in talk_.messages[:-1]]
    named = [tool["function"]["name"] for tool in talk_.tools]
    return re.sub(r"[\s?.!,'’\"]+", "", "|".join(spoken + named).casefold())


def check():
    """Shows that the two splits cannot meet: every key lies on its side, and no prompt is in both."""
    keys, prompts = {}, {}
    for name, count in (("train", 30000), ("heldout", 1500)):
        rng, split = random.Random(f"check:{name}"), Split(name)
        made = [dialogue(rng, split, SKILLS[i % len(SKILLS)]) for i in range(count)]
        keys[name] = {key for talk_ in made for key in talk_.keys}
        prompts[name] = {fingerprint(talk_) for talk_ in made}
        wrong = sum(not split.takes(key) for key in keys[name])
        print(f"{name}: {count} dialogues, {len(prompts[name])} different prompts, "
              f"{len(keys[name])} keys, {wrong} of them on the wrong side")
        if wrong:
            return False
    both = prompts["train"] & prompts["heldout"]
    print(f"keys in both: {len(keys['train'] & keys['heldout'])}, prompts in both: {len(both)}")
    return not both


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--split", choices=("train", "heldout"), default="train")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--check", action="store_true", help="show that the splits cannot meet")
    options = parser.parse_args()
    if options.check:
        sys.exit(0 if check() else "the splits meet")
    for record in records(options.split, options.seed, options.count):
        for message in record["messages"]:
            message.pop("learn", None)
        print(json.dumps(record, ensure_ascii=False))


if __name__ == "__main__":
    main()
