//! The notations that write arguments between tags.

use super::schema::Kinds;
use super::tagged::Tags;

/// What most of them have in common.
const PLAIN: Tags = Tags {
    section: "",
    section_end: "",
    call: "",
    bare: false,
    name_end: ">",
    tag_end: ">",
    call_end: "",
    key: "",
    key_end: ">",
    value: "",
    value_end: "",
    padded: false,
    cdata: false,
    line: "\n",
    call_attributes: "",
    value_attributes: ("", ""),
    untyped: Kinds::STRING,
};

/// `<tool_call><function=NAME><parameter=KEY>⏎VALUE⏎</parameter></function></tool_call>`: Qwen 3 Coder, Qwen 3.5,
/// Nemotron 3, Step 3.5. The outer tags are sometimes forgotten.
pub(super) const QWEN3_CODER: Tags = Tags {
    section: "<tool_call>",
    section_end: "</tool_call>",
    call: "<function=",
    bare: true,
    call_end: "</function>",
    key: "<parameter=",
    value_end: "</parameter>",
    padded: true,
    ..PLAIN
};

/// The same inside `<seed:tool_call>`, values without lines of their own: Seed OSS.
pub(super) const SEED_OSS: Tags = Tags {
    section: "<seed:tool_call>",
    section_end: "</seed:tool_call>",
    padded: false,
    ..QWEN3_CODER
};

/// `<minimax:tool_call><invoke name="NAME"><parameter name="KEY">VALUE</parameter></invoke></minimax:tool_call>`:
/// MiniMax M2.
pub(super) const MINIMAX_M2: Tags = Tags {
    section: "<minimax:tool_call>",
    section_end: "</minimax:tool_call>",
    call: "<invoke name=\"",
    name_end: "\"",
    call_end: "</invoke>",
    key: "<parameter name=\"",
    key_end: "\"",
    value_end: "</parameter>",
    ..PLAIN
};

/// As MiniMax's, with another prefix and values in JSON: Muse Spark.
pub(super) const MUSE_SPARK: Tags = Tags {
    section: "<atem:function_calls>",
    section_end: "</atem:function_calls>",
    call: "<atem:invoke name=\"",
    call_end: "</atem:invoke>",
    key: "<atem:parameter name=\"",
    value_end: "</atem:parameter>",
    untyped: Kinds::JSON,
    ..MINIMAX_M2
};

/// As MiniMax's, with `｜DSML｜` in the tags, each saying by `string="true"` whether its value is text: DeepSeek V3.2.
pub(super) const DEEPSEEK_V32: Tags = Tags {
    section: "<｜DSML｜function_calls>",
    section_end: "</｜DSML｜function_calls>",
    call: "<｜DSML｜invoke name=\"",
    call_end: "</｜DSML｜invoke>",
    key: "<｜DSML｜parameter name=\"",
    value_end: "</｜DSML｜parameter>",
    value_attributes: (" string=\"true\"", " string=\"false\""),
    untyped: Kinds::JSON,
    ..MINIMAX_M2
};

/// `<function name="NAME"><param name="KEY">VALUE</param></function>`: MiniCPM 5.
pub(super) const MINICPM5: Tags = Tags {
    section: "",
    section_end: "",
    call: "<function name=\"",
    bare: true,
    call_end: "</function>",
    key: "<param name=\"",
    value_end: "</param>",
    cdata: true,
    line: "",
    ..MINIMAX_M2
};

/// `<tool_call>NAME⏎<arg_key>KEY</arg_key>⏎<arg_value>VALUE</arg_value></tool_call>`: GLM 4.5 to 4.7, Laguna.
pub(super) const GLM: Tags = Tags {
    section: "<tool_call>",
    section_end: "",
    name_end: "\n",
    call_end: "</tool_call>",
    key: "<arg_key>",
    key_end: "</arg_key>",
    value: "<arg_value>",
    value_end: "</arg_value>",
    untyped: Kinds::JSON,
    ..PLAIN
};

/// The same with `longcat_` in every tag: LongCat.
pub(super) const LONGCAT: Tags = Tags {
    section: "<longcat_tool_call>",
    call_end: "</longcat_tool_call>",
    key: "<longcat_arg_key>",
    key_end: "</longcat_arg_key>",
    value: "<longcat_arg_value>",
    value_end: "</longcat_arg_value>",
    ..GLM
};

/// `<|open|>tools<|sep|>`, in it `<|open|>call tool="NAME" index="1"<|sep|>`, in it
/// `<|open|>argument key="KEY" type="string"<|sep|>VALUE<|close|>argument<|sep|>`: Kimi K3.
pub(super) const KIMI_K3: Tags = Tags {
    section: "<|open|>tools<|sep|>",
    section_end: "<|close|>tools<|sep|>",
    call: "<|open|>call tool=\"",
    name_end: "\"",
    tag_end: "<|sep|>",
    call_end: "<|close|>call<|sep|>",
    key: "<|open|>argument key=\"",
    key_end: "\"",
    value_end: "<|close|>argument<|sep|>",
    line: "",
    call_attributes: " index=\"1\"",
    value_attributes: (" type=\"string\"", " type=\"object\""),
    ..PLAIN
};
