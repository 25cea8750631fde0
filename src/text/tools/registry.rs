//! The notations that are known, by name and by how a template shows them.

use std::sync::Arc;

use super::deepseek::{self, DeepSeek};
use super::gemma::{FUNCTION_GEMMA, GEMMA4, Gemma};
use super::grammar::{Demand, Frame, Writing, lark};
use super::harmony::{self, Harmony};
use super::kimi::{self, KimiK2};
use super::llama::Llama3;
use super::mistral::Mistral;
use super::pythonic::{LFM2, OLMO3, PYTHONIC, Pythonic};
use super::schema::Tools;
use super::spell::Spelling;
use super::tagged::{Tagged, Tags};
use super::wrapped::{Wrapped, Wrapper};
use super::{Format, ToolParser, tags, wrappers};

/// A notation for calls.
pub struct Notation {
    /// Its name.
    pub name: &'static str,
    /// Further names, mlx-lm's and vLLM's among them.
    pub aliases: &'static [&'static str],
    /// Whose it is.
    pub models: &'static str,
    /// Texts that tell it in a chat template: all of any one row. None if it must be named.
    signs: &'static [&'static [&'static str]],
    machine: Machine,
    writing: Writing,
}

enum Machine {
    Wrapped(&'static Wrapper),
    Tagged(&'static Tags),
    Pythonic(&'static super::pythonic::Around),
    Gemma(&'static super::gemma::Marks),
    Llama3,
    Mistral,
    DeepSeek,
    KimiK2,
    Harmony,
}

impl Notation {
    /// A parser for one answer to a dialogue with these tools.
    pub fn parser(&self, tools: &Arc<Tools>) -> ToolParser {
        ToolParser::new(self.format(tools, true))
    }

    /// A parser that takes the answer's messages apart but knows no calls; for notations of whole answers.
    pub(crate) fn parser_without_calls(&self) -> Option<ToolParser> {
        let whole = matches!(self.machine, Machine::Harmony);
        whole.then(|| ToolParser::new(self.format(&Arc::default(), false)))
    }

    /// Whether the notation also tells reasoning from text.
    pub fn separates_reasoning(&self) -> bool {
        matches!(self.machine, Machine::Harmony)
    }

    fn format(&self, tools: &Arc<Tools>, calls: bool) -> Box<dyn Format> {
        match self.machine {
            Machine::Wrapped(wrapper) => Box::new(Wrapped::new(wrapper)),
            Machine::Tagged(tags) => Box::new(Tagged::new(tags, tools.clone())),
            Machine::Pythonic(around) => Box::new(Pythonic::new(around)),
            Machine::Gemma(marks) => Box::new(Gemma::new(marks, tools.clone())),
            Machine::Llama3 => Box::new(Llama3::new()),
            Machine::Mistral => Box::new(Mistral::new()),
            Machine::DeepSeek => Box::new(DeepSeek::new()),
            Machine::KimiK2 => Box::new(KimiK2::new()),
            Machine::Harmony => Box::new(Harmony::new(calls)),
        }
    }

    /// A grammar, in llguidance's Lark dialect, of answers that consist of calls; this notation's parser reads each of
    /// them back as complete calls of the tools that `demand` names.
    pub fn grammar(&self, demand: &Demand, spelling: &Spelling) -> String {
        lark(&self.writing, demand, spelling)
    }

    /// What opens calls anywhere in an answer; none if calls are told only by where they stand.
    pub fn openers(&self) -> Vec<&'static str> {
        if let Machine::Harmony = self.machine {
            // Its marks open everything else too.
            return vec!["<|channel|>commentary to=functions."];
        }
        let openers = self.format(&Arc::default(), true).openers();
        let anywhere = openers.iter().filter(|opener| !opener.at_start);
        anywhere.map(|opener| opener.text).collect()
    }

    /// All texts of the notation that a tokenizer may have as control tokens, which then do not show as text.
    pub(crate) fn markers(&self) -> Vec<&'static str> {
        let openers = self.format(&Arc::default(), true).openers();
        let mut markers: Vec<&'static str> = openers.iter().map(|opener| opener.text).collect();
        match self.machine {
            Machine::Wrapped(wrapper) => markers.extend(wrapper.closers),
            Machine::Tagged(tags) => markers.extend([
                tags.section,
                tags.section_end,
                tags.call,
                tags.name_end,
                tags.tag_end,
                tags.call_end,
                tags.key,
                tags.key_end,
                tags.value,
                tags.value_end,
            ]),
            Machine::Pythonic(around) => markers.extend(around.closers),
            Machine::Gemma(marks) => markers.extend([marks.close, marks.quote]),
            Machine::Llama3 => markers.push("<|eom_id|>"),
            Machine::Mistral => markers.extend(["[ARGS]", "[CALL_ID]"]),
            Machine::DeepSeek => markers.extend([
                deepseek::SECTION_END,
                deepseek::CALL_END,
                deepseek::SEPARATOR,
            ]),
            Machine::KimiK2 => {
                markers.extend([kimi::SECTION_END, kimi::CALL_END, kimi::ARGUMENTS]);
            }
            Machine::Harmony => markers.extend(harmony::MARKERS),
        }
        markers.retain(|marker| marker.chars().nth(1).is_some());
        markers
    }
}

/// The notation of this name, or of this further name.
pub fn by_name(name: &str) -> Option<&'static Notation> {
    FORMATS
        .iter()
        .copied()
        .find(|known| known.name == name || known.aliases.contains(&name))
}

/// The notation that a chat template shows; the first that fits.
pub fn detect(template: &str) -> Option<&'static Notation> {
    // Templates write quotes and line ends inside strings with a backslash.
    let template = template.replace("\\n", "\n").replace("\\\"", "\"");
    FORMATS.iter().copied().find(|known| {
        let mut rows = known.signs.iter();
        rows.any(|row| row.iter().all(|sign| template.contains(sign)))
    })
}

const fn list(begin: &'static str, end: &'static str) -> Writing {
    Writing::Json(Frame {
        begin,
        name: "{\"name\": \"",
        arguments: "\", \"arguments\": ",
        call_end: "}",
        between: ", ",
        end,
        single: false,
    })
}

static HERMES: Notation = Notation {
    name: "hermes",
    aliases: &["json_tools", "qwen", "qwen3", "granite4", "exaone4"],
    models: "Hermes, Qwen 2.5 and 3, Granite 4, EXAONE 4, SmolLM 3 and many more",
    signs: &[&["<tool_call>"]],
    machine: Machine::Wrapped(&wrappers::HERMES),
    writing: Writing::Json(Frame {
        begin: "",
        name: "<tool_call>\n{\"name\": \"",
        arguments: "\", \"arguments\": ",
        call_end: "}\n</tool_call>",
        between: "\n",
        end: "",
        single: false,
    }),
};

/// The one to take where nothing tells another.
pub static USUAL: &Notation = &HERMES;

/// The notations, the more particular signs first.
pub static FORMATS: &[&Notation] = &[
    &Notation {
        name: "harmony",
        aliases: &["gpt_oss", "gpt-oss", "openai"],
        models: "gpt-oss",
        signs: &[&["<|channel|>", "<|message|>", "<|start|>"]],
        machine: Machine::Harmony,
        writing: Writing::Json(Frame {
            begin: "",
            name: "<|channel|>commentary to=functions.",
            arguments: " <|constrain|>json<|message|>",
            call_end: "",
            between: "",
            end: "",
            single: true,
        }),
    },
    &Notation {
        name: "minimax_m2",
        aliases: &["minimax"],
        models: "MiniMax M2",
        signs: &[&["<minimax:tool_call>"]],
        machine: Machine::Tagged(&tags::MINIMAX_M2),
        writing: Writing::Tagged(&tags::MINIMAX_M2),
    },
    &Notation {
        name: "gemma4",
        aliases: &[],
        models: "Gemma 4",
        signs: &[&["<|tool_call>", "<tool_call|>"]],
        machine: Machine::Gemma(&GEMMA4),
        writing: Writing::Gemma(&GEMMA4),
    },
    &Notation {
        name: "function_gemma",
        aliases: &[],
        models: "FunctionGemma",
        signs: &[&["<start_function_call>"]],
        machine: Machine::Gemma(&FUNCTION_GEMMA),
        writing: Writing::Gemma(&FUNCTION_GEMMA),
    },
    &Notation {
        name: "longcat",
        aliases: &[],
        models: "LongCat",
        signs: &[&["<longcat_tool_call>"]],
        machine: Machine::Tagged(&tags::LONGCAT),
        writing: Writing::Tagged(&tags::LONGCAT),
    },
    &Notation {
        name: "glm",
        aliases: &["glm45", "glm47", "laguna"],
        models: "GLM 4.5 to 4.7, Laguna",
        signs: &[&["<arg_key>", "<tool_call>"]],
        machine: Machine::Tagged(&tags::GLM),
        writing: Writing::Tagged(&tags::GLM),
    },
    &Notation {
        name: "deepseek_v32",
        aliases: &[],
        models: "DeepSeek V3.2",
        signs: &[&["｜DSML｜"]],
        machine: Machine::Tagged(&tags::DEEPSEEK_V32),
        writing: Writing::Tagged(&tags::DEEPSEEK_V32),
    },
    &Notation {
        name: "deepseek_v3",
        aliases: &["deepseek_r1"],
        models: "DeepSeek V3, R1 and distillations",
        signs: &[&["<｜tool▁calls▁begin｜>", "```json"]],
        machine: Machine::DeepSeek,
        writing: Writing::Json(Frame {
            begin: deepseek::SECTION,
            name: "<｜tool▁call▁begin｜>function<｜tool▁sep｜>",
            arguments: "\n```json\n",
            call_end: "\n```<｜tool▁call▁end｜>",
            between: "\n",
            end: deepseek::SECTION_END,
            single: false,
        }),
    },
    &Notation {
        name: "deepseek_v31",
        aliases: &[],
        models: "DeepSeek V3.1",
        signs: &[&["<｜tool▁calls▁begin｜>"]],
        machine: Machine::DeepSeek,
        writing: Writing::Json(Frame {
            begin: deepseek::SECTION,
            name: deepseek::CALL,
            arguments: deepseek::SEPARATOR,
            call_end: deepseek::CALL_END,
            between: "",
            end: deepseek::SECTION_END,
            single: false,
        }),
    },
    &Notation {
        name: "kimi_k2",
        aliases: &["kimi"],
        models: "Kimi K2",
        signs: &[&["<|tool_calls_section_begin|>"]],
        machine: Machine::KimiK2,
        writing: Writing::Json(Frame {
            begin: kimi::SECTION,
            name: "<|tool_call_begin|>functions.",
            arguments: ":#<|tool_call_argument_begin|>",
            call_end: kimi::CALL_END,
            between: "",
            end: kimi::SECTION_END,
            single: false,
        }),
    },
    &Notation {
        name: "kimi_k3",
        aliases: &[],
        models: "Kimi K3",
        signs: &[&["<|open|>", "<|sep|>"]],
        machine: Machine::Tagged(&tags::KIMI_K3),
        writing: Writing::Tagged(&tags::KIMI_K3),
    },
    &Notation {
        name: "seed_oss",
        aliases: &[],
        models: "Seed OSS",
        signs: &[&["<seed:tool_call>"]],
        machine: Machine::Tagged(&tags::SEED_OSS),
        writing: Writing::Tagged(&tags::SEED_OSS),
    },
    &Notation {
        name: "qwen3_coder",
        aliases: &["qwen3_xml", "nemotron_v3", "step3p5"],
        models: "Qwen 3 Coder, Qwen 3.5, Nemotron 3, Step 3.5",
        signs: &[&["<tool_call>\n<function="]],
        machine: Machine::Tagged(&tags::QWEN3_CODER),
        writing: Writing::Tagged(&tags::QWEN3_CODER),
    },
    &Notation {
        name: "minicpm5",
        aliases: &[],
        models: "MiniCPM 5",
        signs: &[&["<function name=\"", "<param name=\""]],
        machine: Machine::Tagged(&tags::MINICPM5),
        writing: Writing::Tagged(&tags::MINICPM5),
    },
    &Notation {
        name: "muse_spark",
        aliases: &[],
        models: "Muse Spark",
        signs: &[&["<atem:function_calls>"]],
        machine: Machine::Tagged(&tags::MUSE_SPARK),
        writing: Writing::Tagged(&tags::MUSE_SPARK),
    },
    &Notation {
        name: "lfm2",
        aliases: &[],
        models: "LFM 2 and 2.5",
        signs: &[&["<|tool_call_start|>"], &["<|tool_list_start|>"]],
        machine: Machine::Pythonic(&LFM2),
        writing: Writing::Pythonic("<|tool_call_start|>[", "]<|tool_call_end|>"),
    },
    &Notation {
        name: "olmo3",
        aliases: &[],
        models: "Olmo 3",
        signs: &[&["<function_calls>"]],
        machine: Machine::Pythonic(&OLMO3),
        writing: Writing::Pythonic("<function_calls>[", "]</function_calls>"),
    },
    &Notation {
        name: "mistral",
        aliases: &[],
        models: "Mistral since Small 3.2, Magistral, Devstral",
        signs: &[&["[TOOL_CALLS]", "[ARGS]"]],
        machine: Machine::Mistral,
        writing: Writing::Json(Frame {
            begin: "",
            name: "[TOOL_CALLS]",
            arguments: "[ARGS]",
            call_end: "",
            between: "",
            end: "",
            single: false,
        }),
    },
    &Notation {
        name: "mistral_v3",
        aliases: &[],
        models: "Mistral until Small 3.1, Nemo, Mixtral",
        signs: &[&["[TOOL_CALLS]"]],
        machine: Machine::Mistral,
        writing: list("[TOOL_CALLS][", "]"),
    },
    &Notation {
        name: "nemotron",
        aliases: &["nemotron_v2"],
        models: "Nemotron Nano 2",
        signs: &[&["<TOOLCALL>"]],
        machine: Machine::Wrapped(&wrappers::NEMOTRON),
        writing: list("<TOOLCALL>[", "]</TOOLCALL>"),
    },
    &Notation {
        name: "cohere",
        aliases: &["command", "command_a"],
        models: "Command R7B, Command A",
        signs: &[&["<|START_ACTION|>"]],
        machine: Machine::Wrapped(&wrappers::COHERE),
        writing: Writing::Json(Frame {
            begin: "<|START_ACTION|>[\n    ",
            name: "{\"tool_call_id\": \"#\", \"tool_name\": \"",
            arguments: "\", \"parameters\": ",
            call_end: "}",
            between: ",\n    ",
            end: "\n]<|END_ACTION|>",
            single: false,
        }),
    },
    &Notation {
        name: "apertus",
        aliases: &[],
        models: "Apertus",
        signs: &[&["<|tools_prefix|>"]],
        machine: Machine::Wrapped(&wrappers::APERTUS),
        writing: Writing::Json(Frame {
            begin: "<|tools_prefix|>[",
            name: "{\"",
            arguments: "\": ",
            call_end: "}",
            between: ", ",
            end: "]<|tools_suffix|>",
            single: false,
        }),
    },
    &Notation {
        name: "phi4_mini",
        aliases: &["phi4_mini_json"],
        models: "Phi 4 mini",
        signs: &[&["<|/tool_call|>"], &["functools["]],
        machine: Machine::Wrapped(&wrappers::PHI4),
        writing: list("<|tool_call|>[", "]<|/tool_call|>"),
    },
    &Notation {
        name: "granite",
        aliases: &[],
        models: "Granite 3",
        signs: &[&["<|tool_call|>"]],
        machine: Machine::Wrapped(&wrappers::GRANITE),
        writing: list("<|tool_call|>[", "]"),
    },
    &Notation {
        name: "internlm",
        aliases: &["internlm2"],
        models: "InternLM 2 and 3",
        signs: &[&["<|plugin|>"]],
        machine: Machine::Wrapped(&wrappers::INTERNLM),
        writing: Writing::Json(Frame {
            begin: "",
            name: "<|action_start|><|plugin|>\n{\"name\": \"",
            arguments: "\", \"parameters\": ",
            call_end: "}<|action_end|>",
            between: "\n",
            end: "",
            single: false,
        }),
    },
    &Notation {
        name: "jamba",
        aliases: &["hunyuan"],
        models: "Jamba, Hunyuan",
        signs: &[&["<tool_calls>"]],
        machine: Machine::Wrapped(&wrappers::JAMBA),
        writing: list("<tool_calls>[", "]</tool_calls>"),
    },
    &HERMES,
    &Notation {
        name: "pythonic",
        aliases: &["llama4_pythonic"],
        models: "Llama 4, ToolACE",
        signs: &[&["<|python_start|>"], &["[func_name1("]],
        machine: Machine::Pythonic(&PYTHONIC),
        writing: Writing::Pythonic("[", "]"),
    },
    &Notation {
        name: "llama3",
        aliases: &["llama3_json", "llama4_json"],
        models: "Llama 3.1, 3.2, 3.3",
        signs: &[
            &["<|python_tag|>"],
            &["{\"name\": function name, \"parameters\":"],
        ],
        machine: Machine::Llama3,
        writing: Writing::Json(Frame {
            begin: "",
            name: "{\"name\": \"",
            arguments: "\", \"parameters\": ",
            call_end: "}",
            between: "; ",
            end: "",
            single: false,
        }),
    },
];
