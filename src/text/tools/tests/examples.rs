//! Answers as models write them, at least one a notation.

use serde_json::{Value, json};

/// Examples: notation, answer, its text, and its calls.
pub fn examples() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let both = || json!([["weather", {"city": "Oslo", "days": 3}], ["time", {}]]);
    let one = || json!([["weather", {"city": "Oslo", "days": 3}]]);
    vec![
        (
            "hermes",
            "Sure.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\", \"days\": 3}}\n</tool_call>\n<tool_call>\n{\"name\": \"time\", \"arguments\": {}}\n</tool_call>",
            "Sure.",
            both(),
        ),
        (
            "hermes",
            "<tool_call>{\"arguments\": \"{\\\"city\\\": \\\"Oslo\\\", \\\"days\\\": 3}\", \"name\": \"weather\"}</tool_call>\n done\n",
            "\n done\n",
            one(),
        ),
        (
            "hermes",
            "<tool_call>{\"name\":\"w\",\"arguments\":{\"s\":\"</tool_call>\\n\"}}</tool_call>",
            "",
            json!([["w", {"s": "</tool_call>\n"}]]),
        ),
        (
            "hermes",
            "<tool_call>{\"name\":\"time\"}{\"name\":\"time\",\"arguments\":null}</tool_call>",
            "",
            json!([["time", {}], ["time", {}]]),
        ),
        (
            "llama3",
            "{\"name\": \"weather\", \"parameters\": {\"city\": \"Oslo\", \"days\": 3}}; {\"name\": \"time\", \"parameters\": {}}",
            "",
            both(),
        ),
        (
            "llama3",
            "<|python_tag|>{\"type\": \"function\", \"name\": \"weather\", \"parameters\": {\"city\": \"Oslo\", \"days\": 3}}<|eom_id|>",
            "",
            one(),
        ),
        (
            "llama3",
            "<|python_tag|>brave_search.call(query=\"fjords \\\"deep\\\"\")",
            "",
            json!([["brave_search", {"query": "fjords \"deep\""}]]),
        ),
        (
            "pythonic",
            "[weather(city='Oslo', days=3), time()]",
            "",
            both(),
        ),
        (
            "pythonic",
            "<|python_start|>[weather(city=\"Oslo\", days=3)]<|python_end|>",
            "",
            one(),
        ),
        (
            "lfm2",
            "<|tool_call_start|>[weather(city=\"Oslo\", days=3), time()]<|tool_call_end|>One moment.",
            "One moment.",
            both(),
        ),
        (
            "olmo3",
            "<function_calls>\nweather(city=\"Oslo\", days=3)\ntime()\n</function_calls>",
            "",
            both(),
        ),
        (
            "mistral",
            "[TOOL_CALLS]weather[ARGS]{\"city\": \"Oslo\", \"days\": 3}[TOOL_CALLS]time[ARGS]{}",
            "",
            both(),
        ),
        (
            "mistral",
            "[TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]{\"city\": \"Oslo\", \"days\": 3}",
            "",
            json!([["weather", {"city": "Oslo", "days": 3}, "abcdefghi"]]),
        ),
        (
            "mistral",
            "[TOOL_CALLS]weather{\"city\": \"Oslo\", \"days\": 3}",
            "",
            one(),
        ),
        (
            "mistral_v3",
            "[TOOL_CALLS] [{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\", \"days\": 3}}, {\"name\": \"time\", \"arguments\": {}}]",
            "",
            both(),
        ),
        (
            "glm",
            "\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n</tool_call>\n<tool_call>time\n</tool_call>",
            "",
            both(),
        ),
        (
            "glm",
            "<tool_call>weather<arg_key>city</arg_key><arg_value>5</arg_value><arg_key>other</arg_key><arg_value>5</arg_value></tool_call><tool_call>time</tool_call>",
            "",
            json!([["weather", {"city": "5", "other": 5}], ["time", {}]]),
        ),
        (
            "longcat",
            "<longcat_tool_call>weather\n<longcat_arg_key>city</longcat_arg_key>\n<longcat_arg_value>Oslo</longcat_arg_value>\n<longcat_arg_key>days</longcat_arg_key>\n<longcat_arg_value>3</longcat_arg_value>\n</longcat_tool_call>",
            "",
            one(),
        ),
        (
            "qwen3_coder",
            "I look.\n<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=time>\n</function>\n</tool_call>",
            "I look.",
            both(),
        ),
        (
            "qwen3_coder",
            "<function=weather>\n<parameter=city>\n\nfn main() {}\n</param\n\n</parameter>\n<parameter=tags>\n['a', \"b\"]\n</parameter>\n<parameter=metric>\nTrue\n</parameter>\n<parameter=note>\nnull\n</parameter>\n</function>\n</tool_call>",
            "",
            json!([["weather", {"city": "\nfn main() {}\n</param\n", "tags": ["a", "b"], "metric": true, "note": null}]]),
        ),
        (
            "seed_oss",
            "<seed:tool_call>\n<function=weather>\n<parameter=city>Oslo</parameter>\n<parameter=days>3</parameter>\n</function>\n</seed:tool_call>",
            "",
            one(),
        ),
        (
            "minimax_m2",
            "<minimax:tool_call>\n<invoke name=\"weather\">\n<parameter name=\"city\">Oslo</parameter>\n<parameter name=\"days\">3</parameter>\n</invoke>\n<invoke name=\"time\">\n</invoke>\n</minimax:tool_call>",
            "",
            both(),
        ),
        (
            "muse_spark",
            "<atem:function_calls><atem:invoke name=\"weather\"><atem:parameter name=\"city\">Oslo</atem:parameter><atem:parameter name=\"days\">3</atem:parameter></atem:invoke></atem:function_calls>",
            "",
            one(),
        ),
        (
            "deepseek_v32",
            "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"weather\">\n<｜DSML｜parameter name=\"city\" string=\"true\">Oslo</｜DSML｜parameter>\n<｜DSML｜parameter name=\"days\" string=\"false\">3</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
            "",
            one(),
        ),
        (
            "minicpm5",
            "<function name=\"weather\"><param name=\"city\"><![CDATA[Oslo]]></param><param name=\"days\">3</param></function>\n<function name=\"time\"></function>",
            "",
            both(),
        ),
        (
            "kimi_k3",
            "<|open|>tools<|sep|><|open|>call tool=\"weather\" index=\"1\"<|sep|><|open|>argument key=\"city\" type=\"string\"<|sep|>Oslo<|close|>argument<|sep|><|open|>argument key=\"days\" type=\"integer\"<|sep|>3<|close|>argument<|sep|><|close|>call<|sep|><|close|>tools<|sep|>",
            "",
            one(),
        ),
        (
            "kimi_k2",
            "<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>{\"city\": \"Oslo\", \"days\": 3}<|tool_call_end|><|tool_call_begin|>functions.time:1<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>",
            "",
            json!([["weather", {"city": "Oslo", "days": 3}, "functions.weather:0"], ["time", {}, "functions.time:1"]]),
        ),
        (
            "deepseek_v31",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"city\": \"Oslo\", \"days\": 3}<｜tool▁call▁end｜><｜tool▁call▁begin｜>time<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            "",
            both(),
        ),
        (
            "deepseek_v3",
            "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": \"Oslo\", \"days\": 3}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>time\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            "",
            both(),
        ),
        (
            "gemma4",
            "<|tool_call>call:weather{city:<|\"|>Oslo<|\"|>,days:3}<tool_call|><|tool_call>call:time{}<tool_call|>",
            "",
            both(),
        ),
        (
            "gemma4",
            "<|tool_call>call:weather{city:<|\"|>a \"b\", {<|\"|>,note:null,tags:[<|\"|>x<|\"|>,2],where:{<|\"|>k<|\"|>:None,in:{t:true}}}<tool_call|>",
            "",
            json!([["weather", {"city": "a \"b\", {", "note": null, "tags": ["x", 2], "where": {"k": null, "in": {"t": true}}}]]),
        ),
        (
            "function_gemma",
            "<start_function_call>call:weather{city:<escape>Oslo<escape>,days:3}<end_function_call>",
            "",
            one(),
        ),
        (
            "granite",
            "<|tool_call|>[{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\", \"days\": 3}}]",
            "",
            one(),
        ),
        (
            "phi4_mini",
            "<|tool_call|>[{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\", \"days\": 3}}]<|/tool_call|>",
            "",
            one(),
        ),
        (
            "phi4_mini",
            "functools[{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\", \"days\": 3}}]",
            "",
            one(),
        ),
        (
            "nemotron",
            "<TOOLCALL>[{\"name\": \"weather\", \"arguments\": \"{\\\"city\\\": \\\"Oslo\\\", \\\"days\\\": 3}\"}, {\"name\": \"time\", \"arguments\": \"\"}]</TOOLCALL>",
            "",
            both(),
        ),
        (
            "cohere",
            "<|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"weather\", \"parameters\": {\"city\": \"Oslo\", \"days\": 3}},\n    {\"tool_call_id\": \"1\", \"tool_name\": \"time\", \"parameters\": {}}\n]<|END_ACTION|>",
            "",
            both(),
        ),
        (
            "apertus",
            "<|tools_prefix|>[{\"weather\": {\"city\": \"Oslo\", \"days\": 3}}, {\"time\": {}}]<|tools_suffix|>",
            "",
            both(),
        ),
        (
            "internlm",
            "One moment.<|action_start|><|plugin|>\n{\"name\": \"weather\", \"parameters\": {\"city\": \"Oslo\", \"days\": 3}}<|action_end|>",
            "One moment.",
            one(),
        ),
        (
            "jamba",
            "<tool_calls>[\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Oslo\", \"days\": 3}}\n]</tool_calls>",
            "",
            one(),
        ),
        (
            "harmony",
            "<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{\"city\": \"Oslo\", \"days\": 3}<|call|>",
            "",
            one(),
        ),
        (
            "harmony",
            "<|channel|>analysis<|message|>Why?<|end|><|start|>assistant<|channel|>commentary<|message|>I look. <|end|><|start|>assistant to=functions.weather<|channel|>commentary json<|message|>{\"city\":\"Oslo\",\"days\":3}",
            "I look. ",
            one(),
        ),
        (
            "harmony",
            " to=functions.time<|channel|>commentary<|message|>{}<|call|>",
            "",
            json!([["time", {}]]),
        ),
        (
            "harmony",
            "<|channel|>final<|message|>a <|end b\n<|return|>",
            "a <|end b\n",
            json!([]),
        ),
    ]
}
