#!/usr/bin/env python3
"""The held-out prompts with their answers, in the form that fine-tuning tools and `pensieve perplexity` take.

    python3 answers.py [--first N] > answers.jsonl
"""
import argparse
import json
import os

import chat

HERE = os.path.dirname(os.path.abspath(__file__))


def dialogue(record):
    """The record's messages and the expected answer, a call as a call."""
    text = record["answer"]
    answer = {"role": "assistant", "content": text}
    if text.startswith("<tool_call>\n"):
        function = json.loads(text.removeprefix("<tool_call>\n").removesuffix("\n</tool_call>"))
        answer = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]}
    tools = record.get("tools")
    messages = [*record["messages"], answer]
    written = chat.render(messages, tools, False)
    assert written == chat.render(record["messages"], tools, True) + text + "<|im_end|>\n", written
    return {"messages": messages, "tools": tools} if tools else {"messages": messages}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prompts", default=os.path.join(HERE, "heldout.jsonl"))
    parser.add_argument("--first", type=int)
    options = parser.parse_args()
    with open(options.prompts, encoding="utf-8") as file:
        for line in list(file)[:options.first]:
            print(json.dumps(dialogue(json.loads(line)), ensure_ascii=False))


if __name__ == "__main__":
    main()
