//! The legacy completions API's answers, to the letter.

use super::*;

#[tokio::test]
async fn a_plain_answer_has_the_documented_shape() {
    let (server, asked) = Server::recording("one two three four").await;
    let reply = server
        .complete(&json!({"model": "maker/tiny", "prompt": "Hi"}))
        .await;
    let expected = json!({
        "id": "ID",
        "object": "text_completion",
        "created": 0,
        "model": "maker/tiny",
        "choices": [
            {"text": "one two three fo", "index": 0, "logprobs": null, "finish_reason": "length"},
        ],
        "usage": usage(3, 16),
    });
    assert_eq!(settle(reply.json(), "cmpl-"), expected);
    assert_eq!(asked.lock().unwrap()[0].prompt, [BOS, 72, 105]);
}

#[tokio::test]
async fn a_stream_has_the_documented_shape() {
    let server = Server::saying("ab").await;
    let body = json!({"prompt": [72, 105], "stream": true, "echo": true,
        "stream_options": {"include_usage": true}});
    let chunks = server.complete(&body).await.chunks();
    let chunk = |choices: Value, usage: Value| {
        json!({
            "id": "ID",
            "object": "text_completion",
            "created": 0,
            "model": "maker/tiny",
            "choices": choices,
            "usage": usage,
        })
    };
    let choice = |text: &str, end: Value| {
        let choice = json!({"text": text, "index": 0, "logprobs": null, "finish_reason": end});
        chunk(json!([choice]), Value::Null)
    };
    let expected = [
        choice("Hi", Value::Null),
        choice("a", Value::Null),
        choice("b", Value::Null),
        choice("", json!("stop")),
        chunk(json!([]), usage(2, 2)),
    ];
    let settled: Vec<Value> = chunks
        .into_iter()
        .map(|chunk| settle(chunk, "cmpl-"))
        .collect();
    assert_eq!(settled, expected);
}

#[tokio::test]
async fn echo_scores_prompt_and_answer() {
    let server = Server::saying("zé!").await;
    for (prompt, tokens, offsets) in [
        (
            json!("éa"),
            vec!["<bos>", "\u{fffd}", "\u{fffd}", "a"],
            vec![0, 0, 0, 1],
        ),
        (
            json!([0xc3, 0xa9, 97]),
            vec!["\u{fffd}", "\u{fffd}", "a"],
            vec![0, 0, 1],
        ),
    ] {
        let mut body = json!({"prompt": prompt, "echo": true, "logprobs": 1, "max_tokens": 2});
        let json = server.complete(&body).await.json();
        let choice = &json["choices"][0];
        assert!(choice["text"].as_str().unwrap().starts_with("éaz"));
        assert_eq!(choice["finish_reason"], "length");
        let scores = &choice["logprobs"];
        let given: Vec<&str> = scores["tokens"]
            .as_array()
            .unwrap()
            .iter()
            .map(|t| t.as_str().unwrap())
            .collect();
        assert_eq!(given[..tokens.len()], tokens);
        assert_eq!(given.len(), tokens.len() + 2);
        let expected: Vec<usize> = offsets.iter().copied().chain([2, 3]).collect();
        assert_eq!(scores["text_offset"], json!(expected));
        assert_eq!(scores["token_logprobs"][0], Value::Null);
        assert_eq!(scores["top_logprobs"][0], Value::Null);
        let last = tokens.len() - 1;
        assert_eq!(scores["token_logprobs"][last], json!(-0.97_f32));
        assert_eq!(scores["top_logprobs"][last], json!({"a": -0.97_f32}));

        body["stream"] = json!(true);
        let chunks = server.complete(&body).await.chunks();
        let mut joined =
            json!({"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []});
        let mut text = String::new();
        for chunk in &chunks {
            text += chunk["choices"][0]["text"].as_str().unwrap();
            for (name, all) in joined.as_object_mut().unwrap() {
                let more = chunk["choices"][0]["logprobs"][name].as_array().unwrap();
                all.as_array_mut().unwrap().extend(more.iter().cloned());
            }
        }
        assert_eq!(text, choice["text"].as_str().unwrap());
        assert_eq!(joined, *scores);
    }
}

#[tokio::test]
async fn no_tokens_at_all_only_score_the_prompt() {
    let (server, asked) = Server::recording("never").await;
    let body = json!({"prompt": "ab", "max_tokens": 0, "echo": true, "logprobs": 0});
    let json = server.complete(&body).await.json();
    let choice = &json["choices"][0];
    assert_eq!(
        (&choice["text"], &choice["finish_reason"]),
        (&json!("ab"), &json!("length"))
    );
    assert_eq!(choice["logprobs"]["tokens"], json!(["<bos>", "a", "b"]));
    assert_eq!(
        choice["logprobs"]["top_logprobs"][1],
        json!({"a": -0.97_f32})
    );
    assert_eq!(json["usage"]["completion_tokens"], 0);
    let plain = server
        .complete(&json!({"prompt": "ab", "max_tokens": 0}))
        .await
        .json();
    assert_eq!(plain["choices"][0]["text"], "");
    assert_eq!(plain["choices"][0]["finish_reason"], "length");
    let asked = asked.lock().unwrap();
    assert_eq!(
        (asked[0].prompt_logprobs, asked[0].logprobs),
        (true, Some(0))
    );
    assert_eq!((asked[1].prompt_logprobs, asked[1].logprobs), (false, None));
}

#[tokio::test]
async fn answers_alone_have_offsets_from_their_own_start() {
    let server = Server::saying("éab").await;
    let body = json!({"prompt": "x", "logprobs": 2, "stop": "b"});
    let json = server.complete(&body).await.json();
    let scores = &json["choices"][0]["logprobs"];
    assert_eq!(json["choices"][0]["text"], "éa");
    assert_eq!(scores["text_offset"], json!([0, 0, 1]));
    assert_eq!(
        scores["top_logprobs"][2],
        json!({"a": -0.97_f32, "b": -0.98_f32})
    );
}

#[tokio::test]
async fn many_prompts_make_many_choices_even_beyond_the_queue() {
    let (handle, inbox) = Handle::new(facts(), 2);
    run(inbox, |submission| {
        thread::sleep(Duration::from_millis(5));
        let prompt: Vec<u8> = submission
            .request
            .prompt
            .iter()
            .map(|&id| id as u8)
            .collect();
        say(&submission, &prompt);
    });
    let server = Server::start(handle, Config::default()).await;
    let prompts: Vec<Vec<u32>> = (0..9).map(|index| vec![97 + index, 46]).collect();
    let body = json!({"prompt": prompts, "echo": true});
    let json = server.complete(&body).await.json();
    let choices = json["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 9);
    for (index, choice) in choices.iter().enumerate() {
        let letter = char::from(97 + index as u8);
        assert_eq!(choice["index"], index);
        assert_eq!(choice["text"], format!("{letter}.{letter}."));
    }
    assert_eq!(json["usage"]["total_tokens"], 36);

    let body = json!({"prompt": ["a", "b", "c", "d"], "stream": true});
    let mut ends = [0; 4];
    for chunk in server.complete(&body).await.chunks() {
        let choice = &chunk["choices"][0];
        let index = choice["index"].as_u64().unwrap() as usize;
        ends[index] += usize::from(choice["finish_reason"] == "stop");
    }
    assert_eq!(ends, [1; 4]);
}
