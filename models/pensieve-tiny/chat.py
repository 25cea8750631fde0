"""The chat format: the Jinja template that ships, and the same thing in Python for training.

`segments` exists because training needs to know which characters are the assistant's, and because
it is much faster than Jinja. score.py holds the two against each other on every prompt.
"""
import json

TOOLS_INTRO = "# Tools\n\nYou may call these functions:\n<tools>\n"
TOOLS_OUTRO = ("</tools>\n\nTo call one, return only:\n<tool_call>\n"
               '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>')

TEMPLATE = """\
{%- set start = 0 %}
{%- set system = '' %}
{%- if messages[0].role == 'system' %}
{%- set start = 1 %}
{%- set system = messages[0].content %}
{%- endif %}
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{%- if system %}{{- system + '\\n\\n' }}{%- endif %}
{{- '# Tools\\n\\nYou may call these functions:\\n<tools>\\n' }}
{%- for tool in tools %}
{{- tool | tojson }}
{{- '\\n' }}
{%- endfor %}
{{- '</tools>\\n\\nTo call one, return only:\\n<tool_call>\\n{"name": <function-name>, \
"arguments": <args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- elif system %}
{{- '<|im_start|>system\\n' + system + '<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages[start:] %}
{%- if message.role == 'assistant' %}
{{- '<|im_start|>assistant\\n' }}
{%- if message.content %}{{- message.content }}{%- endif %}
{%- if message.tool_calls %}
{%- for call in message.tool_calls %}
{%- set function = call.function if call.function else call %}
{%- if message.content or not loop.first %}{{- '\\n' }}{%- endif %}
{{- '<tool_call>\\n{"name": "' + function.name + '", "arguments": ' }}
{%- if function.arguments is string %}
{{- function.arguments }}
{%- else %}
{{- function.arguments | tojson }}
{%- endif %}
{{- '}\\n</tool_call>' }}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- elif message.role == 'tool' %}
{%- if loop.first or loop.previtem.role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
{{- '\\n<tool_response>\\n' }}
{%- if message.content is string %}
{{- message.content }}
{%- else %}
{{- message.content | tojson }}
{%- endif %}
{{- '\\n</tool_response>' }}
{%- if loop.last or loop.nextitem.role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


def dump(value, compact=False):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":") if compact else None)


def call_text(calls, compact=False):
    """Tool calls the way the assistant writes them."""
    return "\n".join(
        f'<tool_call>\n{{"name": "{call["function"]["name"]}", "arguments": '
        f'{dump(call["function"]["arguments"], compact)}}}\n</tool_call>' for call in calls)


def segments(messages, tools=None, compact=False):
    """A dialogue as (text, learn) pairs: `learn` marks what the assistant has to say.

    `compact` writes tool definitions and past calls without spaces, which is how some servers
    render them; such past calls are nothing to learn from.
    """
    parts = []
    messages = list(messages)
    system = messages.pop(0)["content"] if messages[0]["role"] == "system" else ""
    if tools:
        lead = system + "\n\n" if system else ""
        lines = "".join(dump(tool, compact) + "\n" for tool in tools)
        parts.append((f"<|im_start|>system\n{lead}{TOOLS_INTRO}{lines}{TOOLS_OUTRO}<|im_end|>\n", False))
    elif system:
        parts.append((f"<|im_start|>system\n{system}<|im_end|>\n", False))
    for message in messages:
        content = message["content"]
        if message["role"] == "assistant":
            learn = message.get("learn", True)
            if "tool_calls" in message:
                content = call_text(message["tool_calls"], compact)
                learn = learn and not compact
            parts.append(("<|im_start|>assistant\n", False))
            parts.append((content + "<|im_end|>", learn))
            parts.append(("\n", False))
        elif message["role"] == "tool":
            parts.append((f"<|im_start|>user\n<tool_response>\n{content}\n</tool_response>"
                          "<|im_end|>\n", False))
        else:
            parts.append((f"<|im_start|>user\n{content}<|im_end|>\n", False))
    return parts


def render(messages, tools=None, add_generation_prompt=False):
    text = "".join(text for text, _ in segments(messages, tools))
    return text + "<|im_start|>assistant\n" if add_generation_prompt else text
