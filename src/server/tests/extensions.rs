//! Several choices, forms, and the fields that go beyond OpenAI's.

use super::*;
use crate::sample::{Dry, Form, Guide, Penalty, Window, Xtc};
use crate::text::guide::{Constraint, FormError, FormErrorKind};

#[tokio::test]
async fn several_choices_differ_by_their_seeds_and_are_paid_for_once() {
    let (server, asked) = Server::recording("abc").await;
    let reply = server.chat(&hello(json!({"n": 3, "seed": 7}))).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let json = reply.json();
    assert_eq!(json["usage"], usage(19, 9));
    for (index, choice) in json["choices"].as_array().unwrap().iter().enumerate() {
        assert_eq!(choice["index"], index);
        assert_eq!(choice["message"]["content"], "abc");
        assert_eq!(choice["finish_reason"], "stop");
    }
    let mut seeds: Vec<u64> = asked
        .lock()
        .unwrap()
        .drain(..)
        .map(|r| r.params.seed)
        .collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 3);
    assert!(
        seeds.contains(&7),
        "the first choice is that of a request for one"
    );

    let body = hello(json!({"n": 2, "stream": true, "stream_options": {"include_usage": true}}));
    let chunks = server.chat(&body).await.chunks();
    for index in 0..2 {
        let deltas: Vec<&Value> = chunks
            .iter()
            .filter_map(|chunk| chunk["choices"].get(0))
            .filter(|choice| choice["index"] == index)
            .collect();
        assert_eq!(deltas[0]["delta"]["role"], "assistant");
        let text: String = deltas
            .iter()
            .filter_map(|c| c["delta"]["content"].as_str())
            .collect();
        assert_eq!(text, "abc");
        assert_eq!(deltas.last().unwrap()["finish_reason"], "stop");
    }
    assert_eq!(chunks.last().unwrap()["usage"], usage(19, 6));

    let body = json!({"prompt": ["a", "b"], "n": 2, "echo": true, "max_tokens": 1});
    let json = server.complete(&body).await.json();
    let texts: Vec<&str> = json["choices"]
        .as_array()
        .unwrap()
        .iter()
        .map(|choice| choice["text"].as_str().unwrap())
        .collect();
    assert_eq!(texts, ["aa", "aa", "ba", "ba"]);
    assert_eq!(json["usage"]["prompt_tokens"], 4);
    let body = json!({"prompt": vec!["a"; 100], "n": 100});
    let reply = server.complete(&body).await;
    assert_eq!((reply.status, &reply.error()["param"]), (400, &json!("n")));
}

#[tokio::test]
async fn every_sampling_parameter_reaches_the_engine_by_each_of_its_names() {
    let (server, asked) = Server::recording("x").await;
    let given = json!({"temperature": 1, "top_k": -1, "typical_p": 0.5, "xtc_probability": 0.25,
        "xtc_threshold": 0.2, "dry_multiplier": 0.5, "dry_base": 2, "dry_allowed_length": 3,
        "dry_penalty_last_n": 64, "dry_sequence_breakers": ["\n", "<eos>"],
        "repetition_penalty": 1.5, "repetition_context_size": 30, "presence_penalty": -1,
        "frequency_penalty": 2, "frequency_context_size": 8, "logit_bias": {"65": -100, "66": 5.5},
        "min_tokens": 4, "ignore_eos": true, "seed": 3, "stop_token_ids": [10, 13]});
    let names = json!({"temperature": 1, "repeat_penalty": 1.5, "repeat_last_n": -1, "seed": 3,
        "dry_multiplier": 1, "dry_penalty_last_n": -1});
    server.chat(&hello(given)).await;
    server.chat(&hello(names)).await;
    let asked = asked.lock().unwrap();
    let base = Params {
        temperature: 1.0,
        top_p: 0.9,
        top_k: 7,
        min_p: 0.1,
        seed: 3,
        ..Params::default()
    };
    let expected = Params {
        top_k: 0,
        typical_p: 0.5,
        xtc: Xtc {
            probability: 0.25,
            threshold: 0.2,
        },
        dry: Dry {
            multiplier: 0.5,
            base: 2.0,
            allowed_length: 3,
            last_n: Some(64),
            breakers: vec![10, 256],
        },
        repetition: Penalty {
            strength: 1.5,
            window: Window::Last(30),
        },
        presence: Penalty {
            strength: -1.0,
            window: Window::Answer,
        },
        frequency: Penalty {
            strength: 2.0,
            window: Window::Last(8),
        },
        logit_bias: vec![(65, -100.0), (66, 5.5)],
        min_tokens: 4,
        ignore_eos: true,
        ..base.clone()
    };
    assert_eq!(asked[0].params, expected);
    assert_eq!(asked[0].stop_ids, [10, 13]);
    let expected = Params {
        dry: Dry {
            multiplier: 1.0,
            breakers: vec![10, 58, 34, 42],
            ..Dry::default()
        },
        repetition: Penalty {
            strength: 1.5,
            window: Window::Last(crate::sample::MAX_WINDOW),
        },
        ..base
    };
    assert_eq!(asked[1].params, expected);
}

/// A compiler that takes every form but one, and what it was given.
fn compiler() -> (Arc<Mutex<Vec<Constraint>>>, crate::server::Compile) {
    let compiled = Arc::new(Mutex::new(Vec::new()));
    let record = compiled.clone();
    let compile = move |constraint: &Constraint| {
        if *constraint == Constraint::Regex("(".into()) {
            return Err(FormError {
                kind: FormErrorKind::Invalid,
                path: String::new(),
                reason: "the group is not closed".to_owned(),
            });
        }
        record.lock().unwrap().push(constraint.clone());
        let start = || -> Result<Box<dyn Guide>, String> { Err("never started".into()) };
        Ok(Form::new(start))
    };
    (compiled, Arc::new(compile))
}

#[tokio::test]
async fn forms_reach_the_compiler_and_the_engine() {
    let (compiled, compile) = compiler();
    let config = Config::default();
    let (server, asked) = Server::recording_as("{}", config, |app| app.forms = Some(compile)).await;
    let schema = json!({"type": "object", "properties": {"b": {}, "a": {}}});
    let cases = [
        (
            json!({"response_format": {"type": "json_schema", "json_schema":
                {"name": "n", "strict": true, "schema": schema}}}),
            Constraint::JsonSchema(schema.clone()),
        ),
        (
            json!({"response_format": {"type": "json_object"}}),
            Constraint::JsonObject,
        ),
        (
            json!({"json_schema": schema}),
            Constraint::JsonSchema(schema.clone()),
        ),
        (
            json!({"guided_json": schema.to_string()}),
            Constraint::JsonSchema(schema.clone()),
        ),
        (json!({"regex": "a+"}), Constraint::Regex("a+".into())),
        (
            json!({"structured_outputs": {"choice": ["a", "b"]}}),
            Constraint::Choice(vec!["a".into(), "b".into()]),
        ),
        (
            json!({"grammar": "start: \"a\""}),
            Constraint::Lark("start: \"a\"".into()),
        ),
    ];
    for (more, expected) in cases {
        let reply = server.chat(&hello(more.clone())).await;
        assert_eq!(reply.status, 200, "{more}: {}", reply.text());
        assert_eq!(reply.header("x-pensieve-ignored"), None);
        assert_eq!(compiled.lock().unwrap().pop(), Some(expected), "{more}");
        assert!(asked.lock().unwrap().pop().unwrap().form.is_some());
    }
    let mut body =
        json!({"model": "tiny", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]});
    body["output_config"] = json!({"format": {"type": "json_schema", "schema": schema}});
    let reply = server.post("/v1/messages", &body).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let expected = Constraint::JsonSchema(schema);
    assert_eq!(compiled.lock().unwrap().pop(), Some(expected));

    let reply = server.chat(&hello(json!({"regex": "("}))).await;
    let error = reply.error();
    assert_eq!((reply.status, &error["param"]), (400, &json!("regex")));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("not closed"), "{message}");
}

#[tokio::test]
async fn timings_are_given_if_asked_for() {
    let server = Server::saying("abc").await;
    let json = server.chat(&hello(json!({"timings": true}))).await.json();
    for name in ["queue_ms", "ttft_ms", "prefill_ms", "decode_ms"] {
        assert!(json["timings"][name].is_number(), "{json}");
    }
    let body = hello(json!({"timings": true, "stream": true}));
    let chunks = server.chat(&body).await.chunks();
    assert!(chunks.last().unwrap()["timings"]["ttft_ms"].is_number());
    let body = json!({"prompt": "a", "timings": true, "stop": "b"});
    let json = server.complete(&body).await.json();
    assert_eq!(json["timings"], Value::Null, "the engine did not end it");
    let json = server.complete(&json!({"prompt": "a"})).await.json();
    assert_eq!(json.get("timings"), None);
}

#[tokio::test]
async fn a_strict_server_refuses_what_it_does_not_know() {
    let config = Config {
        strict: true,
        ..Config::default()
    };
    let (server, asked) = Server::recording_as("x", config, |_| {}).await;
    let reply = server.chat(&hello(json!({"colour": "red"}))).await;
    let error = reply.error();
    assert_eq!((reply.status, &error["param"]), (400, &json!("colour")));
    assert_eq!(error["code"], "unknown_field");
    assert!(asked.lock().unwrap().is_empty());
    assert_eq!(server.chat(&hello(json!({}))).await.status, 200);
}

#[tokio::test]
async fn aliases_are_the_model_too() {
    let change = |app: &mut App| app.aliases = vec!["gpt-4o".into()];
    let (server, _) = Server::recording_as("x", Config::default(), change).await;
    assert_eq!(
        server.chat(&hello(json!({"model": "gpt-4o"}))).await.status,
        200
    );
    assert_eq!(
        server.chat(&hello(json!({"model": "gpt-5"}))).await.status,
        404
    );
    // A name is compared and never looked for among files.
    for name in [
        "../maker/tiny",
        "/etc/passwd",
        "maker/tiny/../../x",
        "tiny\u{0}",
    ] {
        assert_eq!(
            server.chat(&hello(json!({"model": name}))).await.status,
            404
        );
    }
    for path in ["..%2f..%2fetc%2fpasswd", "%2e%2e/tiny", "../../etc/passwd"] {
        assert_eq!(server.get(&format!("/v1/models/{path}")).await.status, 404);
    }
}

const THINKING: &str = "{% if enable_thinking is defined %}think:{{ enable_thinking }} {% endif %}\
    {% if reasoning_effort is defined %}effort:{{ reasoning_effort }} {% endif %}\
    {{ messages[-1].content }}";

#[tokio::test]
async fn thinking_is_switched_as_the_template_can() {
    let change = |app: &mut App| app.text = text_with(THINKING);
    let (server, asked) = Server::recording_as("x", Config::default(), change).await;
    let prompt = || {
        let request = asked.lock().unwrap().pop().unwrap();
        text().tokenizer().decode(&request.prompt, true)
    };
    for (effort, expected) in [
        (json!("none"), "think:False Hi"),
        (json!("minimal"), "think:True effort:low Hi"),
        (json!("high"), "think:True effort:high Hi"),
        (json!(null), "Hi"),
    ] {
        let body = hello(json!({"reasoning_effort": effort}));
        assert_eq!(server.chat(&body).await.status, 200);
        assert_eq!(prompt(), expected);
    }
    let own = json!({"reasoning_effort": "low", "chat_template_kwargs": {"enable_thinking": 5}});
    assert_eq!(server.chat(&hello(own)).await.status, 200);
    assert_eq!(
        prompt(),
        "think:5 effort:low Hi",
        "the client's own word counts"
    );
    let wrong = server
        .chat(&hello(json!({"reasoning_effort": "huge"})))
        .await;
    assert_eq!(wrong.status, 400);
    for (thinking, expected) in [
        (
            json!({"type": "enabled", "budget_tokens": 9}),
            "think:True Hi",
        ),
        (json!({"type": "disabled"}), "think:False Hi"),
        (json!(null), "think:False Hi"),
    ] {
        let body = hello(json!({"max_tokens": 10, "thinking": thinking}));
        let reply = server.post("/v1/messages", &body).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("x-pensieve-ignored"), None);
        assert_eq!(prompt(), expected);
    }
}

#[tokio::test]
async fn answers_go_on_with_the_last_message_if_asked_to() {
    let (server, asked) = Server::recording("x").await;
    let messages =
        json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": "The"}]);
    let mut body = hello(json!({"messages": messages, "continue_final_message": true,
        "add_generation_prompt": false}));
    assert_eq!(server.chat(&body).await.status, 200);
    let prompt = asked.lock().unwrap().pop().unwrap().prompt;
    assert_eq!(
        text().tokenizer().decode(&prompt, true),
        "[user]a[assistant]The"
    );
    body["add_generation_prompt"] = json!(true);
    assert_eq!(server.chat(&body).await.status, 400);
}
