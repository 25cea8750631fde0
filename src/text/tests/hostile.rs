//! Templates that want the machine: each ends soon, with an error or with little.

use serde_json::{Value, json};

use super::super::TextError;
use super::super::template::Template;

fn render(source: &str) -> Result<usize, TextError> {
    let variables = json!({"messages": [{"role": "user", "content": "hi"}]});
    let Value::Object(variables) = variables else {
        unreachable!()
    };
    let template = Template::new(source, "hostile")?;
    Ok(template.render(&variables)?.len())
}

fn limited(sources: &[&str]) {
    for source in sources {
        let got = render(source);
        let shown: String = source.chars().take(80).collect();
        assert!(
            matches!(got, Err(TextError::Limit { .. })),
            "{shown}: {got:?}"
        );
    }
}

#[test]
fn long_texts_are_not_made() {
    limited(&[
        "{{ 'x' * 999999999999 }}",
        "{{ 'x'.center(999999999) }}",
        "{{ 'x'.ljust(999999999) }}",
        "{{ 'x'.zfill(999999999) }}",
        "{{ 'x' | center(999999999) }}",
        "{{ 'a\nb' | indent(999999999) }}",
        "{{ '\t'.expandtabs(999999999) }}",
        "{{ {'a': 1} | tojson(indent=10**9) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '%.999999999f' % 1 }}",
        "{{ '%*d' % (999999999, 1) }}",
        "{{ '{:999999999}'.format(1) }}",
        "{{ '{:.999999999f}'.format(1.0) }}",
        "{{ '{:{w}}'.format('x', w=999999999) }}",
        "{{ ('x' * 1000000).replace('', 'y' * 1000000) }}",
        "{{ ('x' * 1000000) | replace('x', 'y' * 1000000) }}",
        "{{ ('y' * 1000000).join(range(99999) | map('string')) }}",
        "{{ range(99999) | join('y' * 1000000) }}",
        "{{ strftime_now('%c' * 100000) }}",
        "{% set ns = namespace(s='x' * 1000) %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(s='{0}') %}{% for i in range(30) %}{% set ns.s = ns.s.format(ns.s ~ ns.s) %}{% endfor %}",
    ]);
}

#[test]
fn memory_is_not_filled() {
    limited(&[
        "{{ [0] * 999999999999 }}",
        "{{ 'x' | batch(999999999, 0) | list }}",
        "{{ 'x' | slice(999999999, 0) | list }}",
        "{{ 2 ** 999999999 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{% set ns = namespace(l=[]) %}{% for i in range(99999) %}{% set ns.l = ns.l + ['x' * 100000] %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(99999) %}{% set ns.s = [ns.s] %}{% endfor %}",
        "{% set ns = namespace(s=(1,)) %}{% for i in range(100) %}{% set ns.s = (ns.s, ns.s) %}{% endfor %}{{ {ns.s: 1} }}",
    ]);
}

#[test]
fn time_is_not_taken() {
    limited(&[
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
        "{% set ns = namespace(s=[1]) %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s | tojson }}",
        "{% set ns = namespace(s=[1], t=[1]) %}{% for i in range(100) %}{% set ns.s = [ns.s, ns.s] %}{% set ns.t = [ns.t, ns.t] %}{% endfor %}{{ ns.s == ns.t }}",
        "{% for i in range(99999) %}{{ ('a' * 10000000) in ('a' * 9999999) }}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% macro f() %}{% for i in range(99999) %}{{ caller() }}{% endfor %}{% endmacro %}{% call f() %}{% call f() %}x{% endcall %}{% endcall %}",
    ]);
}

#[test]
fn the_stack_is_not_filled() {
    let deep = [
        "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}".to_owned(),
        "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}".to_owned(),
        "{% set ns = namespace(f=0) %}{% macro g() %}{{ ns.f() }}{% endmacro %}{% set ns.f = g %}{{ g() }}".to_owned(),
        "{% set ns = namespace() %}{% for i in range(9999) %}{% set ns.a = namespace(p=ns.a) %}{% endfor %}{{ ns }}".to_owned(),
        format!("{{{{ {}1{} }}}}", "(".repeat(100_000), ")".repeat(100_000)),
        format!("{{{{ {}{} }}}}", "[".repeat(9000), "]".repeat(9000)),
        format!("{{{{ {}1 }}}}", "-".repeat(100_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(100_000)),
        format!("{{{{ 1{} }}}}", "+1".repeat(100_000)),
        format!("{{{{ x{} }}}}", ".a".repeat(100_000)),
        format!("{{{{ x{} }}}}", "|upper".repeat(100_000)),
        format!("{{{{ x{} }}}}", "()".repeat(100_000)),
        format!("{{{{ {}2 }}}}", "1 if 1 else ".repeat(100_000)),
        "{% if 1 %}".repeat(100_000),
        format!("{}{}", "{% filter upper %}".repeat(5000), "{% endfilter %}".repeat(5000)),
    ];
    for source in &deep {
        let shown: String = source.chars().take(60).collect();
        assert!(render(source).is_err(), "{shown}");
    }
}

#[test]
fn chains_of_loops_are_let_go_without_depth() {
    let chains = "{% set ns = namespace(x=0, y=0) %}{% for i in range(20000) %}CHAIN{% endfor %}";
    for (chain, fine) in [
        (
            "{% for y in [ns.x] %}{% set ns.x = loop %}{% endfor %}",
            false,
        ),
        (
            "{% for y in [0] %}{% set ns.y = loop %}{% endfor %}{% set z = ns.y.changed(ns.x) %}{% set ns.x = ns.y %}",
            true,
        ),
        (
            "{% set p = ns.x %}{% for y in [0] recursive %}{% set ns.x = loop %}{% endfor %}",
            true,
        ),
    ] {
        let rendered = render(&chains.replace("CHAIN", chain));
        assert_eq!(rendered.is_ok(), fine, "{chain}: {rendered:?}");
    }
}

#[test]
fn what_keeps_itself_is_let_go() {
    // Many renderings of cycles: a leak would show in a heap checker, a crash here.
    let cycle = "{% set ns = namespace() %}{% set ns.me = ns %}{% macro m() %}{{ m is defined }}{% endmacro %}{% set ns.m = m %}{{ ns.m() }}";
    for _ in 0..50 {
        assert_eq!(render(cycle).unwrap(), 4);
    }
}

#[test]
fn numbers_at_their_ends_do_no_harm() {
    let most = i128::MAX;
    for (source, fine) in [
        (format!("{{{{ -{most} - 1 }}}}"), true),
        (format!("{{{{ -{most} - 2 }}}}"), false),
        (format!("{{{{ (-{most} - 1) // -1 }}}}"), false),
        (format!("{{{{ (-{most} - 1) % -1 }}}}"), true),
        (format!("{{{{ (-{most} - 1) | abs }}}}"), false),
        (format!("{{{{ range({most}) }}}}"), false),
        (
            format!("{{{{ range(-{most}, {most}, {most}) | list | length }}}}"),
            true,
        ),
        (format!("{{{{ 'abc'[{most}:-{most}:-{most}] }}}}"), true),
        (format!("{{{{ 5 | round(-{most}) }}}}"), true),
        (format!("{{{{ 5 | round(-{most} - 1) }}}}"), true),
        (format!("{{{{ range(0, -5, -{most} - 1) | list }}}}"), true),
        ("{{ 1.5 | round(99999999999) }}".to_owned(), true),
        ("{{ (1e308 * 10) | int }}".to_owned(), true),
        (
            "{{ [1][99999999999999999999] is defined }}".to_owned(),
            true,
        ),
    ] {
        assert_eq!(
            render(&source).is_ok(),
            fine,
            "{source}: {:?}",
            render(&source)
        );
    }
}
