"""An agent's loop with Anthropic's client: many turns of tool use, each answered out of the prefix cache."""

import json
import unittest

import serving

TURNS = 12
TOOLS = [
    {"name": "get_weather", "description": serving.DESCRIPTION, "input_schema": serving.WEATHER},
]
SYSTEM = [
    {
        "type": "text",
        "text": "x-anthropic-billing-header: cc_version=2.1.37.fb2; cc_entrypoint=cli; cch={turn:05x};",
    },
    {"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}},
]


def setUpModule():
    global server, client
    server, client = serving.with_anthropic()


class Agent(unittest.TestCase):
    def turn(self, messages, turn):
        """One streamed request as an agent sends it, its marks of the cache at the end of the dialogue."""
        system = [dict(SYSTEM[0], text=SYSTEM[0]["text"].replace("{turn:05x}", f"{turn:05x}")), SYSTEM[1]]
        with client.messages.stream(
            model="claude-sonnet-4-5",
            max_tokens=60,
            system=system,
            messages=messages,
            tools=TOOLS,
            tool_choice={"type": "any"},
            metadata={"user_id": f"user_{turn}"},
            extra_body={"temperature": 0},
        ) as stream:
            kinds = [event.type for event in stream]
            return stream.get_final_message(), kinds

    def test_every_turn_reads_what_the_last_one_left(self):
        messages = [{"role": "user", "content": "Weather?"}]
        whole, reads = [], []
        for turn in range(TURNS):
            message, kinds = self.turn(messages, turn)
            self.assertEqual(message.stop_reason, "tool_use", message.content)
            self.assertIn("input_json", kinds)
            call = message.content[-1]
            self.assertEqual(call.name, "get_weather")
            self.assertIn("city", call.input)
            usage = message.usage
            read = usage.cache_read_input_tokens or 0
            if turn:
                # All that the last request had, but for what its end shares with no other prompt.
                self.assertGreaterEqual(read, whole[-1] - 16, f"turn {turn}: {usage}")
                self.assertGreater(read, reads[-1])
            reads.append(read)
            whole.append(usage.input_tokens + read)
            counted = client.messages.count_tokens(
                model="claude-sonnet-4-5", system=SYSTEM[1:], messages=messages, tools=TOOLS
            )
            self.assertGreater(counted.input_tokens, 0)
            content = [block.model_dump(exclude_none=True) for block in message.content]
            messages.append({"role": "assistant", "content": content})
            result = {"type": "tool_result", "tool_use_id": call.id, "content": f"{turn} degrees"}
            if turn % 3 == 1:
                result["content"] = [{"type": "text", "text": f"{turn} degrees"}]
            messages.append({"role": "user", "content": [result]})
        print(json.dumps({"prompt": whole, "read": reads}), flush=True)

    def test_thoughts_go_back_as_they_came(self):
        content = [
            {"type": "thinking", "thinking": "It may rain.", "signature": "anything"},
            {"type": "redacted_thinking", "data": "opaque"},
            {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "Oslo"}},
        ]
        messages = [
            {"role": "user", "content": "Weather?"},
            {"role": "assistant", "content": content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "rain"}]},
        ]
        message, _ = self.turn(messages, 0)
        self.assertEqual(message.stop_reason, "tool_use")


if __name__ == "__main__":
    unittest.main()
