"""OpenAI's own client against the server: every endpoint, plain and streamed, tools, errors, cancellation."""

import asyncio
import json
import time
import unittest

import openai

import serving

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
PARIS = "The capital of France is Paris."
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": serving.DESCRIPTION,
            "parameters": serving.WEATHER,
        },
    }
]


def setUpModule():
    global server, client
    server = serving.Server()
    client = openai.OpenAI(base_url=server.url + "/v1", api_key=serving.KEY, max_retries=0)


def tearDownModule():
    client.close()
    server.stop()


class Models(unittest.TestCase):
    def test_list_and_retrieve(self):
        names = [model.id for model in client.models.list()]
        self.assertEqual(names, ["pensieve-tiny"])
        self.assertEqual(client.models.retrieve("pensieve-tiny").owned_by, "pensieve")
        with self.assertRaises(openai.NotFoundError):
            client.models.retrieve("gpt-4o")


class Chat(unittest.TestCase):
    def ask(self, messages=QUESTION, **more):
        more = {"model": "pensieve-tiny", "temperature": 0, **more}
        return client.chat.completions.create(messages=messages, **more)

    def test_plain(self):
        answer = self.ask(user="me", metadata={"a": "b"}, seed=1, max_completion_tokens=50)
        self.assertEqual(answer.choices[0].message.content, PARIS)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        usage = answer.usage
        self.assertEqual(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
        self.assertEqual(usage.completion_tokens_details.reasoning_tokens, 0)

    def test_streamed(self):
        whole = self.ask()
        chunks = list(self.ask(stream=True, stream_options={"include_usage": True}))
        text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        self.assertEqual(text, PARIS)
        self.assertEqual(chunks[-1].usage.completion_tokens, whole.usage.completion_tokens)
        self.assertEqual(chunks[-2].choices[0].finish_reason, "stop")

    def test_the_stream_helper_gathers_the_same(self):
        with client.chat.completions.stream(
            model="pensieve-tiny", messages=QUESTION, temperature=0
        ) as stream:
            final = stream.get_final_completion()
        self.assertEqual(final.choices[0].message.content, PARIS)

    def test_several_choices_stop_and_length(self):
        answer = self.ask(n=3, stop=[" is"])
        self.assertEqual([c.message.content for c in answer.choices], ["The capital of France"] * 3)
        answer = self.ask(max_tokens=2)
        self.assertEqual(answer.choices[0].finish_reason, "length")
        self.assertEqual(answer.usage.completion_tokens, 2)

    def test_logprobs(self):
        answer = self.ask(logprobs=True, top_logprobs=3)
        items = answer.choices[0].logprobs.content
        text = b"".join(bytes(item.bytes) for item in items).decode()
        self.assertEqual(text, PARIS)
        for item in items:
            self.assertEqual(len(item.top_logprobs), 3)
            self.assertEqual(item.token, item.top_logprobs[0].token)
            self.assertLessEqual(item.logprob, 0)

    def test_a_seed_repeats(self):
        ask = lambda seed: self.ask(temperature=2, seed=seed, max_tokens=20).choices[0].message.content
        self.assertEqual(ask(5), ask(5))

    def test_tools_over_several_turns(self):
        for stream in (False, True):
            messages = []
            for city in ("Oslo", "Lima"):
                messages.append({"role": "user", "content": f"What is the weather in {city}?"})
                if stream:
                    with client.chat.completions.stream(
                        model="pensieve-tiny", messages=messages, tools=TOOLS, temperature=0
                    ) as events:
                        choice = events.get_final_completion().choices[0]
                else:
                    choice = self.ask(messages, tools=TOOLS).choices[0]
                self.assertEqual(choice.finish_reason, "tool_calls")
                (call,) = choice.message.tool_calls
                self.assertEqual(call.function.name, "get_weather")
                self.assertEqual(json.loads(call.function.arguments), {"city": city})
                messages.append(choice.message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": serving.RESULT})
                answer = self.ask(messages, tools=TOOLS).choices[0]
                self.assertEqual(answer.finish_reason, "stop")
                self.assertRegex(answer.message.content, "12|rainy")
                messages.append({"role": "assistant", "content": answer.message.content})

    def test_answers_of_a_form(self):
        schema = {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}, "warm": {"type": "boolean"}},
            "required": ["city", "warm"],
            "additionalProperties": False,
        }
        named = {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}
        answer = json.loads(self.ask(response_format=named).choices[0].message.content)
        self.assertEqual(set(answer), {"city", "warm"})
        self.assertIsInstance(answer["warm"], bool)
        chunks = self.ask(response_format=named, stream=True)
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        self.assertEqual(json.loads(text), answer)
        chosen = self.ask(extra_body={"choice": ["Oslo", "Lima"]}).choices[0].message.content
        self.assertIn(chosen, ["Oslo", "Lima"])
        written = self.ask(extra_body={"regex": "[a-c]{3}[0-9]"}).choices[0].message.content
        self.assertRegex(written, "^[a-c]{3}[0-9]$")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.ask(extra_body={"json_schema": {"not": {"type": "string"}}})
        self.assertIn("not", caught.exception.message)

    def test_calls_that_are_asked_for(self):
        named = {"type": "function", "function": {"name": "get_weather"}}
        for choice in ("required", named):
            for stream in (False, True):
                body = {"messages": QUESTION, "tools": TOOLS, "tool_choice": choice, "temperature": 0}
                if stream:
                    with client.chat.completions.stream(model="pensieve-tiny", **body) as events:
                        answer = events.get_final_completion().choices[0]
                else:
                    answer = client.chat.completions.create(model="pensieve-tiny", **body).choices[0]
                self.assertEqual(answer.finish_reason, "tool_calls")
                call = answer.message.tool_calls[0].function
                self.assertEqual(call.name, "get_weather")
                self.assertIn("city", json.loads(call.arguments))

    def test_tools_that_are_not_to_be_called(self):
        messages = [{"role": "user", "content": "What is the weather in Oslo?"}]
        choice = self.ask(messages, tools=TOOLS, tool_choice="none").choices[0]
        self.assertIsNone(choice.message.tool_calls)

    def test_extensions(self):
        raw = client.chat.completions.with_raw_response.create(
            model="pensieve-tiny",
            messages=QUESTION,
            temperature=0,
            extra_body={"top_k": 1, "min_p": 0.1, "timings": True, "colour": "red"},
        )
        self.assertEqual(raw.headers["x-pensieve-ignored"], "colour")
        self.assertIn("prefill_ms", raw.parse().timings)

    def test_errors(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.ask(temperature=-1)
        self.assertEqual(caught.exception.param, "temperature")
        with self.assertRaises(openai.NotFoundError) as caught:
            self.ask(model="gpt-4o")
        self.assertEqual(caught.exception.code, "model_not_found")
        with self.assertRaises(openai.BadRequestError) as caught:
            self.ask([{"role": "user", "content": "word " * 5000}])
        self.assertEqual(caught.exception.code, "context_length_exceeded")
        with self.assertRaises(openai.AuthenticationError):
            client.with_options(api_key="wrong").models.list()

    def test_cancellation_frees_the_engine(self):
        stream = self.ask(stream=True, temperature=5, max_tokens=2000, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
        deadline = time.monotonic() + 20
        while server.gauge("pensieve_batch_size") > 0:
            self.assertLess(time.monotonic(), deadline, "the request still runs")
            time.sleep(0.05)

    def test_many_at_once(self):
        async def ask_all():
            async with openai.AsyncOpenAI(base_url=server.url + "/v1", api_key=serving.KEY) as many:
                ask = lambda: many.chat.completions.create(
                    model="pensieve-tiny", messages=QUESTION, temperature=0
                )
                return await asyncio.gather(*(ask() for _ in range(24)))

        for answer in asyncio.run(ask_all()):
            self.assertEqual(answer.choices[0].message.content, PARIS)


class Completions(unittest.TestCase):
    def test_plain_streamed_and_scored(self):
        ask = lambda **more: client.completions.create(
            model="pensieve-tiny", temperature=0, **{"prompt": PARIS, "max_tokens": 4, **more}
        )
        whole = ask().choices[0].text
        streamed = "".join(chunk.choices[0].text for chunk in ask(stream=True))
        self.assertEqual(whole, streamed)
        scored = ask(max_tokens=0, echo=True, logprobs=1).choices[0]
        self.assertEqual(scored.text, PARIS)
        self.assertEqual(len(scored.logprobs.tokens), len(scored.logprobs.token_logprobs))
        many = ask(prompt=["a", "b"], n=2)
        self.assertEqual([choice.index for choice in many.choices], [0, 1, 2, 3])


class Utilities(unittest.TestCase):
    def test_round_trip(self):
        tokens = server.ask("/tokenize", {"content": PARIS})["tokens"]
        self.assertEqual(server.ask("/detokenize", {"tokens": tokens})["content"], PARIS)
        prompt = server.ask("/apply-template", {"messages": QUESTION})["prompt"]
        self.assertTrue(prompt.endswith("<|im_start|>assistant\n"))
        self.assertEqual(server.ask("/health")["status"], "ok")
        self.assertEqual(server.ask("/ready")["status"], "ready")


if __name__ == "__main__":
    unittest.main()
