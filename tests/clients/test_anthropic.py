"""Anthropic's own client against the server: messages plain and streamed, tools over turns, counting, errors."""

import json
import time
import unittest

import anthropic

import serving

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
PARIS = "The capital of France is Paris."
TOOLS = [
    {
        "name": "get_weather",
        "description": serving.DESCRIPTION,
        "input_schema": serving.WEATHER,
        "cache_control": {"type": "ephemeral"},
    }
]


def setUpModule():
    global server, client
    server, client = serving.with_anthropic()


class Messages(unittest.TestCase):
    def body(self, messages=QUESTION, **more):
        # The later version of the API has no sampling parameters; the server takes them all the same.
        extra = {"temperature": 0, **more.pop("extra_body", {})}
        body = {"model": "pensieve-tiny", "max_tokens": 100, "messages": messages}
        return {**body, "extra_body": extra, **more}

    def ask(self, messages=QUESTION, **more):
        return client.messages.create(**self.body(messages, **more))

    def test_plain(self):
        message = self.ask(metadata={"user_id": "me"})
        (block,) = message.content
        self.assertEqual((block.type, block.text), ("text", PARIS))
        self.assertEqual(message.stop_reason, "end_turn")
        self.assertGreater(message.usage.output_tokens, 0)
        self.assertTrue(message._request_id.startswith("req_"))

    def test_streamed(self):
        with client.messages.stream(**self.body()) as stream:
            kinds = [event.type for event in stream]
            message = stream.get_final_message()
        self.assertEqual(message.content[0].text, PARIS)
        self.assertEqual(message.stop_reason, "end_turn")
        self.assertEqual(kinds[0], "message_start")
        self.assertEqual(kinds[-1], "message_stop")
        whole = self.ask()
        self.assertEqual(message.usage.output_tokens, whole.usage.output_tokens)

    def test_why_it_ended(self):
        message = self.ask(stop_sequences=["zzz", " is"])
        self.assertEqual((message.stop_reason, message.stop_sequence), ("stop_sequence", " is"))
        self.assertEqual(message.content[0].text, "The capital of France")
        self.assertEqual(self.ask(max_tokens=2).stop_reason, "max_tokens")
        self.assertEqual(self.ask(max_tokens=0).content, [])

    def test_system_and_beginnings(self):
        system = [{"type": "text", "text": "You are Pensieve Tiny.", "cache_control": {"type": "ephemeral"}}]
        self.assertEqual(self.ask(system=system).content[0].text, PARIS)
        begun = QUESTION + [{"role": "assistant", "content": "The capital of"}]
        self.assertEqual(self.ask(begun).content[0].text, " France is Paris.")

    def test_an_agents_many_turns(self):
        """Calls, results and answers go back as they came, as agents do it, for many turns."""
        messages = []
        for turn, city in enumerate(["Oslo", "Lima", "Cairo", "Rome"]):
            messages.append({"role": "user", "content": [{"type": "text", "text": f"What is the weather in {city}?"}]})
            with client.beta.messages.stream(
                **self.body(messages, tools=TOOLS), betas=["interleaved-thinking-2025-05-14"]
            ) as stream:
                message = stream.get_final_message()
            self.assertEqual(message.stop_reason, "tool_use", f"turn {turn}: {message.content}")
            call = message.content[-1]
            self.assertEqual((call.type, call.name, call.input), ("tool_use", "get_weather", {"city": city}))
            content = [block.model_dump(exclude_none=True) for block in message.content]
            messages.append({"role": "assistant", "content": content})
            result = {"type": "tool_result", "tool_use_id": call.id, "content": serving.RESULT}
            messages.append({"role": "user", "content": [result]})
            message = self.ask(messages, tools=TOOLS)
            self.assertEqual(message.stop_reason, "end_turn")
            self.assertRegex(message.content[0].text, "12|rainy")
            messages.append({"role": "assistant", "content": message.content})

    def test_calls_that_are_asked_for(self):
        for choice in ({"type": "any"}, {"type": "tool", "name": "get_weather"}):
            message = self.ask(tools=TOOLS, tool_choice=choice)
            self.assertEqual(message.stop_reason, "tool_use")
            self.assertEqual(message.content[-1].name, "get_weather")
            self.assertIn("city", message.content[-1].input)

    def test_answers_of_a_form(self):
        schema = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"], "additionalProperties": False}
        config = {"format": {"type": "json_schema", "schema": schema}}
        text = self.ask(output_config=config).content[0].text
        self.assertIn(json.loads(text), [{"n": 1}, {"n": 2}])

    def test_counting(self):
        counted = client.messages.count_tokens(model="pensieve-tiny", messages=QUESTION)
        usage = self.ask().usage
        cached = usage.cache_read_input_tokens or 0
        self.assertEqual(counted.input_tokens, usage.input_tokens + cached)

    def test_models(self):
        (model,) = client.models.list()
        self.assertEqual((model.id, model.type), ("pensieve-tiny", "model"))
        self.assertEqual(client.models.retrieve("pensieve-tiny").id, model.id)

    def test_any_of_anthropics_models_is_the_one_served(self):
        self.assertEqual(self.ask(model="claude-haiku-4-5").content[0].text, PARIS)

    def test_errors(self):
        with self.assertRaises(anthropic.BadRequestError) as caught:
            self.ask(max_tokens=-1)
        self.assertEqual(caught.exception.body["error"]["type"], "invalid_request_error")
        with self.assertRaises(anthropic.NotFoundError):
            self.ask(model="gpt-4o")
        with self.assertRaises(anthropic.AuthenticationError):
            client.with_options(api_key="wrong").messages.create(**self.body())
        image = {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}}
        with self.assertRaises(anthropic.BadRequestError):
            self.ask([{"role": "user", "content": [image]}])

    def test_cancellation_frees_the_engine(self):
        body = self.body(max_tokens=1500, extra_body={"temperature": 1, "ignore_eos": True})
        with client.messages.stream(**body) as stream:
            next(iter(stream))
        deadline = time.monotonic() + 20
        while server.gauge("pensieve_batch_size") > 0:
            self.assertLess(time.monotonic(), deadline, "the request still runs")
            time.sleep(0.05)


if __name__ == "__main__":
    unittest.main()
