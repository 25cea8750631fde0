"""lm-evaluation-harness scores the shipped model through `local-completions`, without the network."""

import json
import math
import os
import sys
import tempfile
import unittest
from pathlib import Path

for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ[name] = "1"
import lm_eval
from lm_eval.tasks import TaskManager

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import serving

os.environ["OPENAI_API_KEY"] = serving.KEY
MODEL = Path(__file__).resolve().parents[3] / "models/pensieve-tiny"
QUESTIONS = [
    {"q": "The capital of France is", "choices": ["Paris", "Oslo", "a fish"], "answer": 0},
    {"q": "The capital of Norway is", "choices": ["Paris", "Oslo", "a fish"], "answer": 1},
    {"q": "The opposite of hot is", "choices": ["cold", "seven", "Oslo"], "answer": 0},
]
TASK = """task: capitals
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{q}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{answer}}}}"
target_delimiter: " "
metric_list:
  - metric: acc
"""


def setUpModule():
    global server
    server = serving.Server()


def tearDownModule():
    server.stop()


class Scores(unittest.TestCase):
    def direct(self, context, continuation):
        """The log-likelihood of the continuation, asked of the server without the harness."""
        tokens = lambda text: server.ask("/tokenize", {"content": text})["tokens"]
        whole = tokens(context + continuation)
        body = {"prompt": whole, "max_tokens": 0, "echo": True, "logprobs": 1, "temperature": 0}
        scored = server.ask("/v1/completions", body)["choices"][0]["logprobs"]["token_logprobs"]
        return sum(scored[len(tokens(context)) :])

    def test_log_likelihoods_are_the_servers_own(self):
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "questions.json"
            data.write_text("\n".join(json.dumps(question) for question in QUESTIONS))
            (Path(folder) / "capitals.yaml").write_text(TASK.format(data=data))
            result = lm_eval.simple_evaluate(
                model="local-completions",
                model_args={
                    "model": "pensieve-tiny",
                    "base_url": server.url + "/v1/completions",
                    "tokenizer": str(MODEL),
                    "tokenizer_backend": "huggingface",
                    "num_concurrent": 4,
                },
                tasks=["capitals"],
                task_manager=TaskManager(include_path=folder, include_defaults=False),
                log_samples=True,
            )
        n = 0
        for sample in result["samples"]["capitals"]:
            question = QUESTIONS[sample["doc_id"]]
            for choice, response in zip(question["choices"], sample["filtered_resps"]):
                score = float(response[0])
                self.assertTrue(math.isfinite(score) and score < 0, score)
                self.assertAlmostEqual(score, self.direct(question["q"], " " + choice), delta=1e-3)
                n += 1
        self.assertEqual(n, 9)
        print("accuracy", result["results"]["capitals"]["acc,none"], flush=True)


if __name__ == "__main__":
    unittest.main()
