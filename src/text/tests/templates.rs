//! Templates render as transformers renders them. The expected texts were checked against it.

use serde_json::{Map, Value, json};

use super::super::{Chat, Text, TextError};
use super::{byte_level, chat, open, with_template};

fn render(template: &str, messages: Value) -> Result<String, TextError> {
    with_template(&byte_level(), template).render_chat(&chat(messages))
}

fn hello() -> Value {
    json!([{"role": "user", "content": " Hi \"there\" "}, {"role": "assistant", "content": "ok"}])
}

/// Asserts the text of each expression, with two messages in sight.
fn expressions(cases: &[(&str, &str)]) {
    for (expression, expected) in cases {
        let got = render(&format!("{{{{ {expression} }}}}"), hello());
        assert_eq!(
            got.as_deref().ok(),
            Some(*expected),
            "{expression}: {got:?}"
        );
    }
}

#[test]
fn values_print_as_in_python() {
    expressions(&[
        ("true", "True"),
        ("none", "None"),
        ("1e20", "1e+20"),
        ("1.0e-7", "1e-07"),
        ("4 / 2", "2.0"),
        ("7 // 2", "3"),
        ("-7 % 3", "2"),
        ("messages[1]", "{'role': 'assistant', 'content': 'ok'}"),
        (
            "[1, 2.0, 'a', none, (1,), \"it's\"]",
            "[1, 2.0, 'a', None, (1,), \"it's\"]",
        ),
        (
            "'a' ~ 1 ~ none ~ true ~ messages[1].role",
            "a1NoneTrueassistant",
        ),
        ("'x' ~ {'k': none}", "x{'k': None}"),
        ("messages[1] | string | length", "38"),
        ("missing", ""),
        ("messages[0].missing", ""),
        ("[missing]", "[Undefined]"),
        ("'\\n' | list", "['\\n']"),
    ]);
}

#[test]
fn json_is_pythons() {
    expressions(&[
        (
            "{'b': 1, 'a': [2.0, none, true, 'é<&>\\'']} | tojson",
            "{\"b\": 1, \"a\": [2.0, null, true, \"é<&>'\"]}",
        ),
        (
            "'é😀' | tojson(ensure_ascii=true)",
            "\"\\u00e9\\ud83d\\ude00\"",
        ),
        (
            "{'b': 1, 'a': 2} | tojson(sort_keys=true)",
            "{\"a\": 2, \"b\": 1}",
        ),
        (
            "{'b': [1, {}]} | tojson(indent=2)",
            "{\n  \"b\": [\n    1,\n    {}\n  ]\n}",
        ),
        (
            "{'b': [1, 2]} | tojson(separators=(',', ':'))",
            "{\"b\":[1,2]}",
        ),
        ("1e20 | tojson", "1e+20"),
        ("(1, 2) | tojson", "[1, 2]"),
        (
            "messages[:1] | tojson",
            "[{\"role\": \"user\", \"content\": \" Hi \\\"there\\\" \"}]",
        ),
    ]);
    assert!(render("{{ missing | tojson }}", hello()).is_err());
}

#[test]
fn methods_of_strings_lists_and_dictionaries() {
    expressions(&[
        ("messages[0].content.strip()", "Hi \"there\""),
        (
            "'xxaxx'.strip('x') + 'xa'.lstrip('x') + 'ax'.rstrip('x')",
            "aaa",
        ),
        ("'a,b,,c'.split(',')", "['a', 'b', '', 'c']"),
        ("' a  b '.split()", "['a', 'b']"),
        ("'a,b,c'.rsplit(',', 1)", "['a,b', 'c']"),
        ("'a b c'.split(maxsplit=1)", "['a', 'b c']"),
        ("'a\\nb\\r\\nc\\n'.splitlines()", "['a', 'b', 'c']"),
        ("'abc'.startswith(('x', 'a'))", "True"),
        ("'abc'.endswith('c')", "True"),
        ("'aXbX'.replace('X', 'y', 1)", "aybX"),
        ("\"they're\".title()", "They'Re"),
        ("'-'.join(['x', 'y'])", "x-y"),
        ("'a-b'.partition('-')", "('a', '-', 'b')"),
        ("'{} {}'.format(1, 'a')", "1 a"),
        ("'7'.zfill(3) + 'a'.center(4, '-')", "007-a--"),
        ("messages[0].items() | list | length", "2"),
        ("messages[0].keys() | join(',')", "role,content"),
        (
            "messages[1].get('nope', 'd') ~ messages[1].get('nope')",
            "dNone",
        ),
        ("messages[1].values() | list", "['assistant', 'ok']"),
        ("{'b': 1, 'a': 2} | dictsort", "[('a', 2), ('b', 1)]"),
        ("{'b': 1} | items | list", "[('b', 1)]"),
        ("dict(a=1)", "{'a': 1}"),
    ]);
    for refused in [
        "messages.append(1)",
        "messages[0].update({})",
        "'x'.join([1])",
        "none.strip()",
        "missing.strip()",
    ] {
        assert!(
            render(&format!("{{{{ {refused} }}}}"), hello()).is_err(),
            "{refused}"
        );
    }
}

#[test]
fn tests_filters_slices_and_operators() {
    expressions(&[
        (
            "messages is iterable and messages is sequence and messages[0] is mapping",
            "True",
        ),
        (
            "'a' is sequence and missing is sequence and missing is iterable",
            "True",
        ),
        (
            "none is none and 1 is integer and true is boolean and true is not integer",
            "True",
        ),
        ("missing is defined or messages[0] is string", "False"),
        (
            "messages[1:][0].role ~ messages[-1].role ~ messages[::-1][1].role",
            "assistantassistantuser",
        ),
        ("'hello'[1:3] ~ 'hello'[-2:] ~ 'hello'[::-1]", "elloolleh"),
        (
            "messages | selectattr('role', 'equalto', 'user') | list | length",
            "1",
        ),
        (
            "messages | rejectattr('role', 'eq', 'user') | map(attribute='content') | list",
            "['ok']",
        ),
        ("['a', 'b'] | map('upper') | join(', ')", "A, B"),
        ("missing | default('d') ~ ('' | default('e', true))", "de"),
        ("missing | length ~ (missing | trim)", "0"),
        (
            "'a' in 'abc' and 'role' in messages[0] and 1 in [1] and 'x' not in {}",
            "True",
        ),
        ("'a\\nb' | indent(2)", "a\n  b"),
        ("'0x1f' | int(base=16) ~ ('x' | int(9))", "319"),
        ("[1, 2] + [3]", "[1, 2, 3]"),
        (
            "(messages | length - 1) ~ ('y' if messages else 'n') ~ ('x' if false)",
            "1y",
        ),
        ("messages[0].items is defined", "True"),
    ]);
}

#[test]
fn statements() {
    let cases = [
        (
            "{% for m in messages if m.role == 'user' %}{{ loop.index }}{{ loop.last }}{% else %}none{% endfor %}",
            "1True",
        ),
        (
            "{% for m in messages %}{{ loop.index0 }}{{ (loop.nextitem or loop.previtem).role }};{% endfor %}",
            "0assistant;1user;",
        ),
        (
            "{% for x in range(5) %}{% if x == 1 %}{% continue %}{% endif %}{% if x == 3 %}{% break %}{% endif %}{{ x }}{% endfor %}",
            "02",
        ),
        (
            "{% set ns = namespace(n=1) %}{% for x in [1, 2] %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}",
            "4",
        ),
        (
            "{% macro m(a, b=2) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m(1, b=3) }}{{ m(0) | upper }}",
            "121302",
        ),
        (
            "{% macro f(n) %}{% if n %}{{ n }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(4) }}",
            "4321",
        ),
        (
            "{% macro m() %}[{{ caller() }}]{% endmacro %}{% call m() %}in{% endcall %}",
            "[in]",
        ),
        (
            "{% set s %}body{% endset %}{{ s }}{% filter upper %}x{% endfilter %}{% set a, b = 1, 2 %}{{ a + b }}",
            "bodyX3",
        ),
        (
            "{% for k, v in messages[1].items() %}{{ k }}={{ v }};{% endfor %}",
            "role=assistant;content=ok;",
        ),
        ("{% if true %}\n  x\n{% endif %}\n  {# c #}\ny\n", "  x\ny"),
        ("a\n  {%- if true %} z {% endif -%}  \n w", "a z w"),
        (
            "{% set x = 1 %}{% generation %}\n{{ messages[1].content }}{% set x = 2 %}\n{% endgeneration %}\n{{ x }}",
            "ok1",
        ),
        ("a {%- generation -%} x {%- endgeneration -%} b", "axb"),
        (
            "{{ bos_token }}{{ eos_token }}{{ unk_token is defined }}{{ documents is none }}{{ tools is none }}",
            "<s></s>FalseTrueTrue",
        ),
        ("{% set j = joiner(', ') %}{{ j() }}a{{ j() }}b", "a, b"),
    ];
    for (template, expected) in cases {
        let got = render(template, hello());
        assert_eq!(got.as_deref().ok(), Some(expected), "{template}: {got:?}");
    }
}

#[test]
fn dates() {
    let year = render("{{ strftime_now('%Y') }}", hello()).unwrap();
    assert!(
        year.len() == 4 && year.bytes().all(|b| b.is_ascii_digit()),
        "{year}"
    );
    // As C's library has it: what is no code stays.
    let text = render("{{ strftime_now('%Q%!%%') }}", hello()).unwrap();
    assert_eq!(text, "%Q%!%");
}

#[test]
fn errors_carry_the_templates_words_and_line() {
    match render(
        "\n\n{{ raise_exception('Roles must ' ~ 'alternate') }}",
        hello(),
    ) {
        Err(TextError::Refused { line: 3, message }) => assert_eq!(message, "Roles must alternate"),
        other => panic!("{other:?}"),
    }
    match render("\n{{ 'a' + 1 }}", hello()) {
        Err(TextError::Render { line: 2, .. }) => {}
        other => panic!("{other:?}"),
    }
    match render("\n{% if %}", hello()) {
        Err(TextError::Syntax { line: 2, file, .. }) => assert_eq!(file, "chat_template.jinja"),
        other => panic!("{other:?}"),
    }
    let none = open(&[("tokenizer.json", byte_level().to_string())]).unwrap();
    assert!(!none.has_template());
    assert!(matches!(
        none.render_chat(&chat(hello())),
        Err(TextError::NoTemplate)
    ));
}

#[test]
fn rendering_is_bounded() {
    let endless = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    assert!(matches!(
        render(endless, hello()),
        Err(TextError::Limit { .. })
    ));
    let long = "{% for a in range(99) %}{{ 'x' * 99999 }}{% endfor %}";
    assert!(matches!(
        render(long, hello()),
        Err(TextError::Limit { .. })
    ));
    let printed = render(
        "{% set ns = namespace(a=1) %}{% set ns.a = ns %}{{ ns }}",
        hello(),
    )
    .unwrap();
    assert!(printed.contains("..."), "{printed}");
    let nested = "{% set ns = namespace(a=1) %}{% set ns.a = ns %}{{ ns | tojson }}";
    assert!(matches!(
        render(nested, hello()),
        Err(TextError::Render { .. })
    ));
    // On a stack as small as a worker thread's.
    let deep = std::thread::Builder::new().stack_size(2 << 20).spawn(|| {
        render(
            "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
            hello(),
        )
    });
    assert!(matches!(
        deep.unwrap().join().unwrap(),
        Err(TextError::Render { .. })
    ));
}

/// One step can make a value as large as memory, or many can: nothing that a template makes grows beyond its
/// limits, however it is made.
#[test]
fn what_rendering_makes_is_bounded() {
    let growing = "{% set n = namespace(s='0123456789abcdef', l=[0]) %}{% for a in range(60) %}GROW{% endfor %}";
    for grow in [
        "{% set n.s = n.s ~ n.s %}",
        "{% set n.s = n.s + n.s %}",
        "{% set n.s = (n.s + 'x') ~ n.s %}",
        "{% set n.s = n.s * 2 %}",
        "{% set n.s = 2 * n.s %}",
        "{% set n.s = n.s.replace('0', n.s) %}",
        "{% set n.s = n.s | replace('0', n.s) %}",
        "{% set n.s = [n.s, n.s] | join(n.s) %}",
        "{% set n.s = n.s.join([n.s, n.s]) %}",
        "{% set n.s = [n.s, n.s] | string %}",
        "{% set n.s = [n.s, n.s] | tojson %}",
        "{% set n.s = '%s%s' | format(n.s, n.s) %}",
        "{% set n.s = '%s%s' % (n.s, n.s) %}",
        "{% set n.s = '{}{}'.format(n.s, n.s) %}",
        "{% set n.s = n.s | urlencode | replace('0', '%30') ~ n.s %}",
        "{% set s %}{{ n.s }}{{ n.s }}{% endset %}{% set n.s = s %}",
        "{% set n.s = n.s | upper ~ n.s | lower %}",
        "{% set n.l = n.l + n.l %}{% set x = n.l | list %}",
        "{% set n.l = n.l * 2 %}",
        "{% set n.l = (n.l + n.l) | list %}",
        "{% set n.l = [n.l, n.l] %}{% set x = n.l | string %}",
        "{% set n.l = [n.l, n.l] %}{% set x = n.l | tojson %}",
        "{% set n.l = {'a': n.l, 'b': n.l} %}{% set x = n.l | string %}",
        "{% set n.l = n.l + [range(99999) | list] %}{% for b in range(999) %}{% set n.l = n.l + [range(99999) | list] %}{% endfor %}",
        "{% for b in range(9999) %}{% set n.l = n.l + ['x' * 99999] %}{% endfor %}",
        "{% macro f(s, i) %}{% if i %}{{ f(s ~ s, i - 1) }}{% endif %}{% endmacro %}{{ f(n.s, 90) }}",
        "{% macro f(i) %}{% if i %}{{ f(i - 1) }}{{ f(i - 1) }}{% endif %}text{% endmacro %}{% set n.l = n.l + [f(40)] %}",
    ] {
        let rendered = render(&growing.replace("GROW", grow), hello());
        assert!(
            matches!(rendered, Err(TextError::Limit { .. })),
            "{grow}: {:.200?}",
            rendered
        );
    }
    for one in [
        "{{ 'x' * 99999999 }}",
        "{{ '\n' * 99999 | indent(99999) }}",
        "{{ ('\n' * 9999) | indent(width=9999, blank=true) }}",
        "{{ 'x' | indent(999999999999) }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '%.999999999f' | format(1) }}",
        "{{ '%*d' | format(999999999, 1) }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ [1] | batch(999999999, 'x') | list | length }}",
        "{{ [1] | slice(999999999) | list | length }}",
        "{{ ('x' * 999999) | replace('', 'y' * 999) }}",
        "{{ range(99999) | join('x' * 9999) }}",
        "{{ ('x' * 9999999) | list | length }}",
    ] {
        let rendered = render(one, hello());
        assert!(rendered.is_err(), "{one}: {:.200?}", rendered);
    }
}

/// Operators bind as they do in Jinja.
#[test]
fn operators_bind_as_in_jinja() {
    expressions(&[
        ("(1 + 2 * 3) ~ 4", "74"),
        ("(1 + 2) * 3", "9"),
        ("'a' ~ 'b' ~ (1 + 2)", "ab3"),
        ("-1 + 2", "1"),
        ("'a' * 3 ~ 'b'", "aaab"),
        ("2 * 'ab'", "abab"),
        ("[1] + [2] + [3 * 2]", "[1, 2, 6]"),
        ("('a' + 'b') | upper", "AB"),
        ("'a' + 'b' | upper", "aB"),
        ("'x' + ('y' if 1 + 1 == 2 else 'z' ~ 'w')", "xy"),
        ("not 1 + 1", "False"),
        ("{'a' ~ 'b': [1 + 1, (2, 3 + 4)]}", "{'ab': [2, (2, 7)]}"),
        ("'abc'[0 + 1:1 + 2]", "bc"),
        ("'a+b ~ c' ~ \"}} + %}\"", "a+b ~ c}} + %}"),
        ("[1, 2, 3][0 + 1] + 1", "3"),
        ("'a' + 'b' in 'c' ~ 'ab'", "True"),
        ("'é' ~ 'ü' + '😀'", "éü😀"),
    ]);
    let template = "{% macro f(a, b=1 + 1) -%}\n  {{- a ~ b }}\n{%- endmacro %}{% for x in [1] + [2] if x + 1 > 2 %}\n\
        {%- set y = x + 1 -%} {{ f(x ~ 'a', b=y * 2) + '!' }}\n{% else %}{% endfor %}\n\
        {%- macro g() %}{{ caller(1) + '?' }}{% endmacro %}{% call(z) g() %}{{ z + 1 }}{% endcall %}{% set q %}{{ 'é' ~ 1 }}{% endset %}{{ q + q }}";
    assert_eq!(render(template, hello()).unwrap(), "2a6!\n2?é1é1");
}

#[test]
fn messages_are_made_ready() {
    let template = "{% for m in messages %}{{ m.content is defined }}{{ m.reasoning_content }}{{ m.thinking }}\
        {% for c in m.tool_calls %}{{ c.function.arguments is mapping }}{{ c.function.arguments.x }}{% endfor %};{% endfor %}";
    let call = |arguments: &str| json!([{"type": "function", "function": {"name": "f", "arguments": arguments}}]);
    let messages = json!([
        {"role": "assistant", "content": null, "reasoning": "why", "tool_calls": call("{\"x\": 1}")},
        {"role": "assistant", "content": "", "tool_calls": call("{oops")},
    ]);
    assert_eq!(
        render(template, messages).unwrap(),
        "Falsewhywhy True1;True False;".replace(' ', "")
    );
}

#[test]
fn content_takes_the_form_that_the_template_takes() {
    let parts = json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]);
    let text_only = "{% for m in messages %}{{ m.role + ':' + m.content }}{% endfor %}";
    assert_eq!(render(text_only, parts.clone()).unwrap(), "user:a\nb");
    let printing = "{% for m in messages %}{{ m.content }}{% endfor %}";
    assert_eq!(render(printing, parts.clone()).unwrap(), "a\nb");
    let both = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endif %}{% endfor %}";
    assert_eq!(render(both, parts.clone()).unwrap(), "[a][b]");
    let parts_only =
        "{% for m in messages %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endfor %}";
    assert_eq!(render(parts_only, parts).unwrap(), "[a][b]");
    assert_eq!(
        render(parts_only, json!([{"role": "user", "content": "one"}])).unwrap(),
        "[one]"
    );
    let image =
        json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]);
    let message = render(text_only, image).unwrap_err().to_string();
    assert!(
        message.contains("image_url") && message.contains("text only"),
        "{message}"
    );
}

#[test]
fn the_final_message_is_continued() {
    let template = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    let text = with_template(&byte_level(), template);
    let mut chat =
        chat(json!([{"role": "user", "content": "q"}, {"role": "assistant", "content": " An \n"}]));
    chat.continue_final_message = true;
    assert_eq!(
        text.render_chat(&chat).unwrap(),
        "<user>q</end><assistant>An"
    );
    chat.messages[1]["content"] = json!("An <s");
    assert_eq!(
        text.render_chat(&chat).unwrap(),
        "<user>q</end><assistant>An <s"
    );
    chat.add_generation_prompt = true;
    assert!(matches!(
        text.render_chat(&chat),
        Err(TextError::Chat { .. })
    ));
    chat.add_generation_prompt = false;
    chat.messages[1] = json!({"role": "assistant", "tool_calls": []});
    assert!(matches!(
        text.render_chat(&chat),
        Err(TextError::Chat { .. })
    ));
    assert!(matches!(
        text.render_chat(&Chat::default()),
        Err(TextError::Chat { .. })
    ));
}

#[test]
fn further_variables_reach_the_template() {
    let text = with_template(
        &byte_level(),
        "{{ enable_thinking }}{{ bos_token }}{{ messages | length }}",
    );
    let mut chat = chat(hello());
    chat.extra = Map::from_iter([
        ("enable_thinking".to_owned(), json!(false)),
        ("bos_token".to_owned(), json!("B")),
    ]);
    assert_eq!(text.render_chat(&chat).unwrap(), "FalseB2");
    chat.extra.insert("messages".to_owned(), json!([]));
    assert!(
        text.render_chat(&chat)
            .unwrap_err()
            .to_string()
            .contains("`messages`")
    );
}

#[test]
fn templates_are_found_in_order() {
    let config = json!({"chat_template": [{"name": "default", "template": "D"}, {"name": "tool_use", "template": "T"}, {"name": "rag", "template": "R"}]});
    let mut files = vec![
        ("tokenizer.json", byte_level().to_string()),
        ("tokenizer_config.json", config.to_string()),
    ];
    let rendered = |files: &[(&str, String)], tools: Option<Value>| {
        let mut chat = chat(hello());
        chat.tools = tools;
        open(files).unwrap().render_chat(&chat).unwrap()
    };
    assert_eq!(rendered(&files, None), "D");
    assert_eq!(rendered(&files, Some(json!([]))), "T");
    files.push((
        "chat_template.json",
        json!({"chat_template": "J"}).to_string(),
    ));
    assert_eq!(rendered(&files, Some(json!([]))), "J");
    files.push(("chat_template.jinja", "X".to_owned()));
    assert_eq!(rendered(&files, Some(json!([]))), "X");
    files.push(("additional_chat_templates/tool_use.jinja", "Y".to_owned()));
    assert_eq!(rendered(&files, Some(json!([]))), "Y");
}

#[test]
fn special_tokens_come_from_both_files() {
    let files = [
        ("tokenizer.json", byte_level().to_string()),
        ("tokenizer_config.json", json!({"bos_token": {"content": "<s>"}, "pad_token": null, "add_bos_token": true, "chat_template":
            "{{ bos_token }}{{ eos_token }}{{ pad_token is defined }}{{ add_bos_token is defined }}"}).to_string()),
        ("special_tokens_map.json", json!({"bos_token": "no", "eos_token": {"content": "</s>"}}).to_string()),
    ];
    let text: Text = open(&files).unwrap();
    assert_eq!(
        text.render_chat(&chat(hello())).unwrap(),
        "<s></s>FalseFalse"
    );
    assert_eq!(text.tokenizer().eos_token_id(), text.tokenizer().id("</s>"));
}
