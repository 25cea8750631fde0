"""LiteLLM against the server, in both dialects: plain, streamed, tools."""

import json
import os
import sys
import unittest

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
import litellm

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import serving

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
PARIS = "The capital of France is Paris."
TOOL = {"name": "get_weather", "description": serving.DESCRIPTION, "parameters": serving.WEATHER}


def setUpModule():
    global server
    litellm.telemetry = False
    server = serving.Server()


def tearDownModule():
    server.stop()


class LiteLLM(unittest.TestCase):
    def ways(self):
        yield {"model": "openai/pensieve-tiny", "api_base": server.url + "/v1", "api_key": serving.KEY}
        yield {"model": "anthropic/claude-sonnet-4-5", "api_base": server.url, "api_key": serving.KEY}

    def test_plain_and_streamed(self):
        for way in self.ways():
            with self.subTest(way["model"]):
                ask = {"messages": QUESTION, "temperature": 0, "max_tokens": 50, "num_retries": 0, **way}
                whole = litellm.completion(**ask)
                self.assertEqual(whole.choices[0].message.content, PARIS)
                self.assertGreater(whole.usage.prompt_tokens, 0)
                chunks = list(litellm.completion(stream=True, **ask))
                text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
                self.assertEqual(text, PARIS)

    def test_tools_over_turns(self):
        tools = [{"type": "function", "function": TOOL}]
        for way in self.ways():
            for stream in (False, True):
                with self.subTest(way["model"], stream=stream):
                    messages = [{"role": "user", "content": "What is the weather in Oslo?"}]
                    ask = {"tools": tools, "temperature": 0, "max_tokens": 80, **way}
                    answer = litellm.completion(messages=messages, stream=stream, **ask)
                    if stream:
                        answer = litellm.stream_chunk_builder(list(answer), messages=messages)
                    message = answer.choices[0].message
                    (call,) = message.tool_calls
                    self.assertEqual(call.function.name, "get_weather")
                    self.assertEqual(json.loads(call.function.arguments), {"city": "Oslo"})
                    messages.append(message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"}))
                    messages.append({"role": "tool", "tool_call_id": call.id, "content": serving.RESULT})
                    answer = litellm.completion(messages=messages, **ask)
                    self.assertRegex(answer.choices[0].message.content, "12|rainy")

    def test_text_completion(self):
        way = {"model": "text-completion-openai/pensieve-tiny", "api_base": server.url + "/v1", "api_key": serving.KEY}
        answer = litellm.text_completion(prompt="The capital of", max_tokens=3, temperature=0, **way)
        self.assertTrue(answer.choices[0].text)

    def test_errors_keep_their_kind(self):
        for way in self.ways():
            with self.subTest(way["model"]), self.assertRaises(litellm.AuthenticationError):
                litellm.completion(messages=QUESTION, num_retries=0, **{**way, "api_key": "wrong"})


if __name__ == "__main__":
    unittest.main()
