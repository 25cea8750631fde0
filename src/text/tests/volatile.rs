//! What is volatile goes, and nothing else.

use serde_json::json;

use super::super::{TextError, Volatile};
use super::{byte_level, chat, with_template};

fn known(text: &str) -> String {
    Volatile::new(&[]).unwrap().normalise(text).into_owned()
}

#[test]
fn known_lines_go_and_what_surrounds_them_stays() {
    let header = "x-anthropic-billing-header: cc_version=2.1.37.fb2; cc_entrypoint=cli; cch=3a1f0;";
    assert_eq!(known(header), "");
    assert_eq!(
        known(&format!("{header}\nYou are an agent.")),
        "You are an agent."
    );
    assert_eq!(
        known(&format!("{header}You are an agent.")),
        "You are an agent."
    );
    assert_eq!(known(&format!("First.\n{header}\nLast.")), "First.\nLast.");
    let without = header.trim_end_matches(';');
    assert_eq!(known(&format!("{without}\nYou=me.")), "You=me.");
    for line in [
        "Request-Id: 7d0c-11",
        "x-request-id: 7d0c",
        "X-Client-Request-Id: a",
        "trace_id=0af7651916cd43dd",
        "correlation id: 12",
    ] {
        assert_eq!(known(&format!("A\n{line}\nB")), "A\nB", "{line}");
    }
    for (text, expected) in [
        (
            "Current time: 2026-02-03 14:37:25",
            "Current time: 2026-02-03 14:37",
        ),
        (
            "The current date and time is 2026-02-03T14:37:25.123Z, in Paris.",
            "The current date and time is 2026-02-03T14:37Z, in Paris.",
        ),
        (
            "Today's date: 3 Feb, local time 9:05:01 pm\nx",
            "Today's date: 3 Feb, local time 9:05 pm\nx",
        ),
    ] {
        assert_eq!(known(text), expected);
    }
}

#[test]
fn other_text_stays_as_it_is() {
    for text in [
        "You are Claude.\nToday's date: 2026-02-03",
        "The run started at 14:37:25 and took 3:20:11.",
        "Send the header x-request-id: abc with each call.",
        "A request id is a string.\nrequest id: see the manual, page 3",
        "Ratio 1:20:300 at the current rate",
        "Time: 12:00",
        "",
    ] {
        assert_eq!(known(text), text);
    }
}

#[test]
fn own_rules_take_matches_or_their_groups() {
    let rules =
        |rules: &[&str]| Volatile::new(&rules.iter().map(|r| r.to_string()).collect::<Vec<_>>());
    let whole = rules(&[r"(?m)^nonce .*\n"]).unwrap();
    assert_eq!(whole.normalise("a\nnonce 1\nb\nnonce 2\nc"), "a\nb\nc");
    let group = rules(&[r"build=(\d+) on (\w+)"]).unwrap();
    assert_eq!(
        group.normalise("build=77 on host, build=8 on ü"),
        "build= on , build= on "
    );
    assert_eq!(group.normalise("no build"), "no build");
    let nested = rules(&[r"(a(b)c)(d)?"]).unwrap();
    assert_eq!(nested.normalise("xabcdyabcz"), "xyz");
    let error = rules(&["("]).unwrap_err();
    assert!(
        matches!(&error, TextError::Rule { rule, .. } if rule == "("),
        "{error}"
    );
}

/// Only where it is asked for, and only in system messages, as a string or in parts.
#[test]
fn users_and_models_are_left_alone() {
    let line = "request-id: 1\nHi";
    let template = "{% for m in messages %}{{ m.role }}:{% if m.content is string %}{{ m.content }}\
                    {% else %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %};{% endfor %}";
    let text = with_template(&byte_level(), template);
    let roles = ["system", "user", "assistant", "tool"];
    let messages: Vec<_> = roles
        .iter()
        .map(|role| json!({"role": role, "content": line}))
        .collect();
    let dialogue = chat(json!(messages));
    assert!(
        text.render_chat(&dialogue)
            .unwrap()
            .starts_with("system:request-id: 1\nHi;")
    );
    let text = text.without_volatile(Volatile::new(&[]).unwrap());
    assert_eq!(
        text.render_chat(&dialogue).unwrap(),
        format!("system:Hi;user:{line};assistant:{line};tool:{line};")
    );
    let parts = json!([{"role": "developer", "content": [{"type": "text", "text": line}, {"type": "text", "text": "!"}]}]);
    assert_eq!(text.render_chat(&chat(parts)).unwrap(), "developer:Hi!;");
}
