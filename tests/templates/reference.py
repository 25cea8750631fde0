"""What transformers makes of chat templates: the golden file of our own ones, and a matrix over a folder of others.

    python reference.py golden            writes golden.json beside this file
    python reference.py FOLDER OUT.json   each *.jinja of FOLDER over all dialogues
"""

import copy
import json
import sys
from pathlib import Path

from transformers.utils.chat_template_utils import _compile_jinja_template, render_jinja_template

HERE = Path(__file__).parent
VARIABLES = {
    "messages": [{"role": "user", "content": ' Hi "there" '}, {"role": "assistant", "content": "ok", "n": 3}],
    "d": {"b": 1, "a": [2.0, None, True, "é<&>'😀"], "items": "shadow", "x y": {"k": "v"}},
    "s": "Hello, Wörld foo-bar",
    "nl": "a\nb\r\nc\n\nd",
    "f": 3.14159,
    "neg": -7,
    "big": 12345678901234567890,
    "e": "",
    "l": [3, 1, 2, 10, -5],
    "t": True,
    "nul": None,
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "f",
                "parameters": {
                    "type": "object",
                    "properties": {"a": {"type": "string", "enum": ["x", "y"]}, "z": {"type": ["integer", "null"]}},
                    "required": ["a"],
                },
            },
        }
    ],
}


def outcome(render):
    """The text, or what the template said when it refused, or that it failed."""
    try:
        return {"text": render()}
    except RecursionError:
        return {"fails": True}
    except Exception as error:
        # Jinja's own errors are subclasses of the one that `raise_exception` raises.
        return {"refused": str(error)} if type(error).__name__ == "TemplateError" else {"fails": True}


def golden():
    unescape = lambda line: line.replace("\\n", "\n").replace("\\r", "\r").replace("\\t", "\t")
    sources = ["{{ %s }}" % line for line in (HERE / "expressions.txt").read_text().split("\n") if line]
    for line in (HERE / "statements.txt").read_text().split("\n"):
        if line:
            sources.append(line if "'\\n' }}" in line or "lstrip" in line else unescape(line))
    cases = []
    for source in sources:
        render = lambda: _compile_jinja_template(source).render(**copy.deepcopy(VARIABLES))
        cases.append({"template": source, **outcome(render)})
    text = json.dumps({"variables": VARIABLES, "cases": cases}, indent=0, ensure_ascii=False)
    (HERE / "golden.json").write_text(text + "\n")
    print(len(cases), "cases")


def user(content):
    return {"role": "user", "content": content}


def assistant(content, **more):
    return {"role": "assistant", "content": content, **more}


def system(content):
    return {"role": "system", "content": content}


def call(name, arguments, id="abcdefgh1"):
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(content, id="abcdefgh1", name="get_weather"):
    return {"role": "tool", "tool_call_id": id, "name": name, "content": content}


def tool(name, description, properties, required):
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


WEATHER = tool(
    "get_weather",
    "Gets “weather” — für Städte 😀",
    {
        "city": {"type": "string", "description": "Where"},
        "unit": {"type": "string", "enum": ["c", "f"], "description": "Unit"},
    },
    ["city"],
)
SEARCH = tool(
    "search",
    'Searches <things> & "stuff"\nsecond line',
    {
        "q": {"type": "string", "description": "Query"},
        "n": {"type": "integer", "default": 5, "description": "How many"},
        "opts": {
            "type": "object",
            "description": "o",
            "properties": {
                "deep": {
                    "type": "array",
                    "items": {"type": "object", "properties": {"k": {"type": ["string", "null"], "description": "x"}}},
                    "description": "list",
                },
                "f": {"type": "boolean", "description": "b"},
            },
            "required": ["deep"],
        },
        "any": {"anyOf": [{"type": "string"}, {"type": "number"}], "description": "either"},
    },
    ["q"],
)
BARE = {"type": "function", "function": {"name": "bare"}}
TOOLS = {"no tools": None, "one tool": [WEATHER], "two tools": [WEATHER, SEARCH], "bare tool": [BARE], "empty list": []}
ONE = [call("get_weather", {"city": 'Zürich "x"', "unit": "c"})]
TWO = ONE + [call("search", {"q": "a\nb", "n": 3, "opts": {"deep": [{"k": None}], "f": True}, "any": 1.5}, "abcdefgh2")]
ASKED = user("What now?")
DIALOGUES = {
    "plain": [user("Hi")],
    "odd characters": [user("  spaces \n\n and 'quotes' \"x\" {{ jinja }} {% if %} <b> é😀\t ")],
    "empty": [user("")],
    "system": [system("Be brief."), user("Hi")],
    "empty system": [system(""), user("Hi")],
    "several turns": [system("S"), user("a"), assistant("b"), user("c"), assistant("d\n"), user("e")],
    "ends with an answer": [user("a"), assistant("b")],
    "two questions": [user("a"), user("b")],
    "two systems": [system("a"), system("b"), user("c")],
    "late system": [user("a"), assistant("b"), system("c"), user("d")],
    "developer": [{"role": "developer", "content": "Dev"}, user("Hi")],
    "begins with an answer": [assistant("b"), user("c")],
    "unknown role": [user("a"), {"role": "critic", "content": "b"}],
    "thoughts in content": [user("a"), assistant("<think>\nhmm\n</think>\n\nanswer"), user("b")],
    "thoughts": [user("a"), assistant("answer", reasoning_content="because\nso"), user("b")],
    "call": [ASKED, assistant("", tool_calls=ONE), result('{"t": 1}')],
    "call with text": [ASKED, assistant("Let me see.", tool_calls=ONE), result("rain"), assistant("It rains."), user("thx")],
    "two calls": [system("s"), ASKED, assistant("", tool_calls=TWO), result('{"t": 1}'), result('["x"]', "abcdefgh2", "search")],
    "null content": [ASKED, assistant(None, tool_calls=ONE), result("x")],
    "no content": [ASKED, {"role": "assistant", "tool_calls": ONE}, result("x")],
    "ends with a call": [ASKED, assistant("", tool_calls=ONE)],
    "object as result": [ASKED, assistant("", tool_calls=ONE), result({"t": 1.0, "x": [None, True]})],
    "no arguments": [ASKED, assistant("", tool_calls=[call("bare", {})]), result("x", name="bare")],
    "no calls": [user("a"), assistant("b", tool_calls=[]), user("c")],
    "no id": [
        ASKED,
        assistant("", tool_calls=[{"type": "function", "function": {"name": "bare", "arguments": {"a": "b"}}}]),
        {"role": "tool", "content": "r"},
    ],
    "agent": [
        system("s"),
        user("1"),
        assistant("", tool_calls=ONE, reasoning_content="r1"),
        result("x"),
        assistant("", tool_calls=[call("search", {"q": "z"}, "abcdefgh3")], reasoning_content="r2"),
        result("y", "abcdefgh3", "search"),
        assistant("fin", reasoning_content="r3"),
        user("2"),
        assistant("ok"),
        user("3"),
    ],
}
VARIANTS = [
    {},
    {"enable_thinking": False},
    {"enable_thinking": True},
    {"thinking": True},
    {"reasoning_effort": "high"},
    {"thinking_budget": 512},
    {"date_string": "26 Jul 2024", "custom_tools": "x", "documents": [{"title": "t", "text": "x"}]},
]
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}


def matrix(folder, out):
    cases, templates = [], {}
    for path in sorted(Path(folder).glob("*.jinja")):
        source = templates[path.stem] = path.read_text()
        for what, messages in DIALOGUES.items():
            # As `apply_chat_template` does before it renders.
            kept = [{k: v for k, v in message.items() if v is not None} for message in messages]
            for tools_name, tools in TOOLS.items():
                for ending in ("open", "closed", "continued"):
                    for variant in VARIANTS:
                        if variant and (ending != "open" or tools_name not in ("no tools", "two tools")):
                            continue
                        continued = ending == "continued"
                        if continued and (messages[-1]["role"] != "assistant" or tools):
                            continue
                        more = {**SPECIAL, **variant}
                        documents = more.pop("documents", None)
                        chat = {"messages": messages, "tools": tools, "extra": variant}
                        chat |= {"add_generation_prompt": ending == "open", "continue_final_message": continued}
                        render = lambda: render_jinja_template(
                            [copy.deepcopy(kept)],
                            tools=copy.deepcopy(tools),
                            documents=documents,
                            chat_template=source,
                            continue_final_message=continued,
                            add_generation_prompt=ending == "open",
                            **copy.deepcopy(more),
                        )[0][0]
                        name = f"{what}, {tools_name}, {ending}, {variant}"
                        cases.append({"of": path.stem, "name": name, "chat": chat, **outcome(render)})
    Path(out).write_text(json.dumps({"templates": templates, "cases": cases}))
    print(len(templates), "templates,", len(cases), "cases")


if __name__ == "__main__":
    golden() if sys.argv[1] == "golden" else matrix(sys.argv[1], sys.argv[2])
