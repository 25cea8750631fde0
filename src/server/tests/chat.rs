//! The chat API's answers, to the letter.

use super::*;

const CALL: &str = "Sure.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"time\", \"arguments\": {}}\n</tool_call>";

fn tools() -> Value {
    let schema = json!({"type": "object", "properties": {"city": {"type": "string"}}});
    let function =
        |name: &str| json!({"type": "function", "function": {"name": name, "parameters": schema}});
    json!([function("weather"), function("time")])
}

/// The text that a stream's chunks add up to.
fn content(chunks: &[Value]) -> String {
    let deltas = chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"]["content"]);
    deltas.filter_map(Value::as_str).collect()
}

#[tokio::test]
async fn a_plain_answer_has_the_documented_shape() {
    let server = Server::saying("Hello").await;
    let reply = server.chat(&hello(json!({}))).await;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert!(reply.header("x-request-id").unwrap().starts_with("req_"));
    let expected = json!({
        "id": "ID",
        "object": "chat.completion",
        "created": 0,
        "model": "maker/tiny",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": "Hello", "refusal": null},
            "logprobs": null,
            "finish_reason": "stop",
        }],
        "usage": usage(19, 5),
    });
    assert_eq!(settle(reply.json(), "chatcmpl-"), expected);
}

#[tokio::test]
async fn a_stream_has_the_documented_shape() {
    let server = Server::saying("Hé").await;
    for with_usage in [false, true] {
        let mut body = hello(json!({"stream": true}));
        if with_usage {
            body["stream_options"] = json!({"include_usage": true});
        }
        let reply = server.chat(&body).await;
        assert_eq!(reply.header("cache-control"), Some("no-cache"));
        assert!(reply.complete);
        let chunks = reply.chunks();
        let chunk = |choices: Value| {
            let mut chunk = json!({
                "id": "ID",
                "object": "chat.completion.chunk",
                "created": 0,
                "model": "maker/tiny",
                "choices": choices,
            });
            if with_usage {
                chunk["usage"] = Value::Null;
            }
            chunk
        };
        let choice = |delta: Value, finish: Value| {
            chunk(json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish}]))
        };
        let mut expected = vec![
            choice(
                json!({"role": "assistant", "content": "", "refusal": null}),
                Value::Null,
            ),
            choice(json!({"content": "H"}), Value::Null),
            choice(json!({"content": "é"}), Value::Null),
            choice(json!({}), json!("stop")),
        ];
        if with_usage {
            let mut last = chunk(json!([]));
            last["usage"] = usage(19, 3);
            expected.push(last);
        }
        let id = chunks[0]["id"].clone();
        assert!(chunks.iter().all(|chunk| chunk["id"] == id));
        let settled: Vec<Value> = chunks
            .into_iter()
            .map(|chunk| settle(chunk, "chatcmpl-"))
            .collect();
        assert_eq!(settled, expected);
    }
}

#[tokio::test]
async fn length_and_stop_strings_end_answers() {
    let server = Server::saying("one two three").await;
    for (field, end, text) in [
        (json!({"max_tokens": 3}), "length", "one"),
        (
            json!({"max_completion_tokens": 3, "max_tokens": 3}),
            "length",
            "one",
        ),
        (json!({"stop": " tw"}), "stop", "one"),
        (
            json!({"stop": ["zzz", "three", "x", "y", "z"]}),
            "stop",
            "one two ",
        ),
        (json!({"stop": []}), "stop", "one two three"),
    ] {
        let json = server.chat(&hello(field.clone())).await.json();
        let choice = &json["choices"][0];
        assert_eq!(choice["message"]["content"], text, "{field}");
        assert_eq!(choice["finish_reason"], end, "{field}");
        let mut body = hello(field);
        body["stream"] = json!(true);
        let chunks = server.chat(&body).await.chunks();
        assert_eq!(content(&chunks), text);
        assert_eq!(chunks.last().unwrap()["choices"][0]["finish_reason"], end);
    }
}

#[tokio::test]
async fn logprobs_stay_with_their_text() {
    let server = Server::saying("aé.END").await;
    let body = hello(json!({"logprobs": true, "top_logprobs": 2, "stop": ["END"]}));
    let json = server.chat(&body).await.json();
    let choice = &json["choices"][0];
    assert_eq!(choice["message"]["content"], "aé.");
    assert_eq!(choice["logprobs"]["refusal"], Value::Null);
    let items = choice["logprobs"]["content"].as_array().unwrap();
    let bytes: Vec<u64> = items
        .iter()
        .map(|item| item["bytes"][0].as_u64().unwrap())
        .collect();
    assert_eq!(
        bytes,
        [97, 0xc3, 0xa9, 46],
        "the stop string's tokens are dropped"
    );
    let first = json!({
        "token": "a",
        "logprob": -0.97_f32,
        "bytes": [97],
        "top_logprobs": [
            {"token": "a", "logprob": -0.97_f32, "bytes": [97]},
            {"token": "b", "logprob": -0.98_f32, "bytes": [98]},
        ],
    });
    assert_eq!(items[0], first);

    let mut body = body;
    body["stream"] = json!(true);
    let chunks = server.chat(&body).await.chunks();
    let (mut text, mut scored) = (Vec::new(), Vec::new());
    for chunk in &chunks {
        let choice = &chunk["choices"][0];
        for item in choice["logprobs"]["content"]
            .as_array()
            .into_iter()
            .flatten()
        {
            scored.push(item["bytes"][0].as_u64().unwrap() as u8);
        }
        text.extend_from_slice(choice["delta"]["content"].as_str().unwrap_or("").as_bytes());
        assert!(scored.starts_with(&text), "an item came after its text");
    }
    assert_eq!(scored, "aé.".as_bytes());

    let none = server.chat(&hello(json!({"logprobs": true}))).await.json();
    let item = &none["choices"][0]["logprobs"]["content"][0];
    assert_eq!(item["top_logprobs"], json!([]));
}

#[tokio::test]
async fn tool_calls_are_parsed_out_of_the_text() {
    let server = Server::saying(CALL).await;
    let json = server.chat(&hello(json!({"tools": tools()}))).await.json();
    let choice = &json["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], "Sure.");
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    assert_eq!(calls.len(), 2);
    assert!(calls[0]["id"].as_str().unwrap().starts_with("call_"));
    assert_ne!(calls[0]["id"], calls[1]["id"]);
    assert_eq!(calls[0]["type"], "function");
    assert_eq!(calls[0]["function"]["name"], "weather");
    let arguments = calls[0]["function"]["arguments"].as_str().unwrap();
    let arguments: Value = serde_json::from_str(arguments).unwrap();
    assert_eq!(arguments, json!({"city": "Oslo"}));
}

#[tokio::test]
async fn tool_calls_stream_as_deltas() {
    let server = Server::saying(CALL).await;
    let body = hello(json!({"tools": tools(), "stream": true}));
    let chunks = server.chat(&body).await.chunks();
    assert_eq!(content(&chunks), "Sure.");
    let deltas = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"].get(0));
    let (mut names, mut arguments) = (Vec::new(), vec![String::new(); 2]);
    for delta in deltas {
        let index = delta["index"].as_u64().unwrap() as usize;
        if let Some(name) = delta["function"]["name"].as_str() {
            assert_eq!((names.len(), &delta["type"]), (index, &json!("function")));
            assert!(delta["id"].as_str().unwrap().starts_with("call_"));
            names.push(name);
        }
        arguments[index].push_str(delta["function"]["arguments"].as_str().unwrap());
    }
    assert_eq!(names, ["weather", "time"]);
    let arguments: Vec<Value> = arguments
        .iter()
        .map(|text| serde_json::from_str(text).unwrap())
        .collect();
    assert_eq!(arguments, [json!({"city": "Oslo"}), json!({})]);
    assert_eq!(
        chunks.last().unwrap()["choices"][0]["finish_reason"],
        "tool_calls"
    );
}

#[tokio::test]
async fn one_call_at_most_if_asked_for_and_none_if_not_offered() {
    let (server, asked) = Server::recording(CALL).await;
    let one = hello(json!({"tools": tools(), "parallel_tool_calls": false}));
    let json = server.chat(&one).await.json();
    let calls = json["choices"][0]["message"]["tool_calls"]
        .as_array()
        .unwrap();
    assert_eq!(calls.len(), 1);
    assert_eq!(json["choices"][0]["finish_reason"], "tool_calls");
    let none = hello(json!({"tools": tools(), "tool_choice": "none"}));
    let json = server.chat(&none).await.json();
    assert_eq!(json["choices"][0]["message"]["content"], CALL);
    assert_eq!(json["choices"][0]["finish_reason"], "stop");
    let asked = asked.lock().unwrap();
    let prompt = |place: usize| text().tokenizer().decode(&asked[place].prompt, false);
    assert!(prompt(0).starts_with("tools:"));
    assert_eq!(prompt(1), "[user]Hi[assistant]");
}

#[tokio::test]
async fn content_is_null_if_there_is_nothing_but_calls() {
    let call = "\n<tool_call>\n{\"name\": \"time\", \"arguments\": {}}\n</tool_call>\n";
    let server = Server::saying(call).await;
    let json = server.chat(&hello(json!({"tools": tools()}))).await.json();
    assert_eq!(json["choices"][0]["message"]["content"], Value::Null);
    let body = hello(json!({"tools": tools(), "stream": true}));
    assert_eq!(content(&server.chat(&body).await.chunks()), "");
}

#[tokio::test]
async fn text_without_calls_is_whole_when_tools_are_offered() {
    let server = Server::saying("a < b\n\nno call \n").await;
    let json = server.chat(&hello(json!({"tools": tools()}))).await.json();
    let choice = &json["choices"][0];
    assert_eq!(choice["message"]["content"], "a < b\n\nno call \n");
    assert_eq!(choice["message"].get("tool_calls"), None);
    assert_eq!(choice["finish_reason"], "stop");
}

#[tokio::test]
async fn sampling_parameters_reach_the_engine() {
    let (server, asked) = Server::recording("x").await;
    let given = json!({"temperature": 1.5, "top_p": 0.25, "top_k": 3, "min_p": 0.5, "seed": -1,
        "max_tokens": 9, "logprobs": true, "top_logprobs": 20});
    server.chat(&hello(given)).await;
    server.chat(&hello(json!({"temperature": null}))).await;
    server.chat(&hello(json!({}))).await;
    let asked = asked.lock().unwrap();
    let params = Params {
        temperature: 1.5,
        top_p: 0.25,
        top_k: 3,
        min_p: 0.5,
        seed: u64::MAX,
        ..Params::default()
    };
    assert_eq!(asked[0].params, params);
    assert_eq!((asked[0].max_tokens, asked[0].logprobs), (9, Some(20)));
    let absent = &asked[1].params;
    assert_eq!((absent.temperature, absent.top_p), (0.5, 0.9));
    assert_eq!((absent.top_k, absent.min_p), (7, 0.1));
    assert_ne!(absent.seed, asked[2].params.seed);
    assert_eq!(asked[1].max_tokens, CONTEXT - asked[1].prompt.len());
    assert_eq!(asked[1].logprobs, None);
}

#[tokio::test]
async fn messages_reach_the_template() {
    let (server, asked) = Server::recording("x").await;
    let call = json!({"id": "call_1", "type": "function",
        "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}});
    let messages = json!([
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": null, "tool_calls": [call], "refusal": null},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain", "name": "weather"},
        {"role": "assistant", "content": "Rain.", "tool_calls": []},
        {"role": "user", "content": "<eos>", "name": "Ann"},
    ]);
    let body = hello(json!({"messages": messages, "chat_template_kwargs": {"note": "n"}}));
    let reply = server.chat(&body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("x-pensieve-ignored"), None);
    let asked = asked.lock().unwrap();
    let prompt = text().tokenizer().decode(&asked[0].prompt, true);
    let expected = "[system]Be brief.[user]a\nb[assistant]{\"city\": \"Oslo\"}[tool]rain[assistant]Rain.[user]<eos>note:n[assistant]";
    assert_eq!(
        prompt, expected,
        "and what users write is never a special token"
    );
}

#[tokio::test]
async fn values_that_ask_for_nothing_are_taken() {
    let server = Server::saying("x").await;
    let body = hello(json!({
        "n": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {},
        "response_format": {"type": "text"}, "store": false, "metadata": {"a": "b"},
        "user": "me", "tool_choice": "auto", "tools": [], "parallel_tool_calls": true,
        "service_tier": "auto", "modalities": ["text"], "functions": null, "stop": null,
        "logprobs": false, "top_logprobs": 0, "audio": null, "stream": false,
        "stream_options": null, "safety_identifier": "s", "prompt_cache_key": "k",
    }));
    let reply = server.chat(&body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("x-pensieve-ignored"), None);
}

#[tokio::test]
async fn stop_strings_that_spell_special_tokens_stop_at_those() {
    let (server, asked) = Server::recording("a").await;
    let body = hello(json!({"stop": ["<end>", "<eos>x", "a"]}));
    server.chat(&body).await;
    server
        .complete(&json!({"prompt": "a", "stop": "<end>"}))
        .await;
    let asked = asked.lock().unwrap();
    assert_eq!(asked[0].stop_ids, [258]);
    assert_eq!(asked[1].stop_ids, [258]);
}

#[tokio::test]
async fn unknown_fields_are_named() {
    let server = Server::saying("x").await;
    let mut body = hello(json!({"repetition_fee": 1.1, "bad\r\nname": 1}));
    body["messages"][0]["mood"] = json!("good");
    body["messages"][0]["content"] = json!([{"type": "text", "text": "Hi", "size": 1}]);
    body["response_format"] = json!({"type": "text", "font": "big"});
    for stream in [false, true] {
        body["stream"] = json!(stream);
        let reply = server.chat(&body).await;
        assert_eq!(reply.status, 200);
        let mut names: Vec<&str> = reply
            .header("x-pensieve-ignored")
            .unwrap()
            .split(", ")
            .collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "bad\\r\\nname",
                "messages[0].content[0].size",
                "messages[0].mood",
                "repetition_fee",
                "response_format.font"
            ]
        );
    }
}
