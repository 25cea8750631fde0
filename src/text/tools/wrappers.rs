//! The notations that are calls in JSON between markers.

use super::Opener;
use super::call::{Keys, USUAL};
use super::wrapped::Wrapper;

/// `<tool_call>{"name": …, "arguments": {…}}</tool_call>`: Hermes, Qwen 2.5 and 3, Granite 4, EXAONE and many more.
pub(super) const HERMES: Wrapper = Wrapper {
    openers: &[Opener::anywhere("<tool_call>")],
    closers: &["</tool_call>"],
    between: &[],
    keys: &USUAL,
};

/// `{"name": …, "parameters": {…}}` as the whole answer, several separated by `;`; llama.rs adds `<|python_tag|>`.
pub(super) const LLAMA3: Wrapper = Wrapper {
    openers: &[Opener::at_start("{")],
    closers: &["<|eom_id|>"],
    between: &[";"],
    keys: &USUAL,
};

/// `<|tool_call|>[{"name": …, "arguments": {…}}]`: Granite 3.
pub(super) const GRANITE: Wrapper = Wrapper {
    openers: &[
        Opener::anywhere("<|tool_call|>"),
        Opener::anywhere("<tool_call>"),
    ],
    closers: &["</tool_call>"],
    between: &[],
    keys: &USUAL,
};

/// `<|tool_call|>[…]<|/tool_call|>` or `functools[…]`: Phi 4 mini.
pub(super) const PHI4: Wrapper = Wrapper {
    openers: &[
        Opener::anywhere("<|tool_call|>"),
        Opener::anywhere("functools"),
    ],
    closers: &["<|/tool_call|>"],
    between: &[],
    keys: &USUAL,
};

/// `<TOOLCALL>[{"name": …, "arguments": {…}}]</TOOLCALL>`: Nemotron Nano 2.
pub(super) const NEMOTRON: Wrapper = Wrapper {
    openers: &[Opener::anywhere("<TOOLCALL>")],
    closers: &["</TOOLCALL>"],
    between: &[],
    keys: &USUAL,
};

/// `<tool_calls>[{"name": …, "arguments": {…}}]</tool_calls>`: Jamba, Hunyuan.
pub(super) const JAMBA: Wrapper = Wrapper {
    openers: &[Opener::anywhere("<tool_calls>")],
    closers: &["</tool_calls>"],
    between: &[],
    keys: &USUAL,
};

/// `<|START_ACTION|>[{"tool_call_id": "0", "tool_name": …, "parameters": {…}}]<|END_ACTION|>`: Command R7B and A.
pub(super) const COHERE: Wrapper = Wrapper {
    openers: &[Opener::anywhere("<|START_ACTION|>")],
    closers: &["<|END_ACTION|>"],
    between: &[],
    keys: &Keys {
        name: &["tool_name"],
        arguments: &["parameters"],
        id: &[],
        keyed: false,
    },
};

/// `<|action_start|><|plugin|>{"name": …, "parameters": {…}}<|action_end|>`: InternLM 2 and 3.
pub(super) const INTERNLM: Wrapper = Wrapper {
    openers: &[Opener::anywhere("<|action_start|><|plugin|>")],
    closers: &["<|action_end|>"],
    between: &[],
    keys: &USUAL,
};

/// `<|tools_prefix|>[{"name of the function": {…}}]<|tools_suffix|>`: Apertus.
pub(super) const APERTUS: Wrapper = Wrapper {
    openers: &[Opener::anywhere("<|tools_prefix|>")],
    closers: &["<|tools_suffix|>"],
    between: &[],
    keys: &Keys {
        name: &[],
        arguments: &[],
        id: &[],
        keyed: true,
    },
};
