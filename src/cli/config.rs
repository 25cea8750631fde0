//! Where options of `serve` come from beside the command line: the environment and a TOML file.
//!
//! Invariant: an option has one name and one meaning everywhere. The file and the environment are
//! turned into the arguments that a user could have typed, and read by the same parser.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, CommandFactory, FromArgMatches};
use toml::Value;

use super::args::Args;
use super::{Done, Failure};

/// Reads the command line, and for `serve` the environment and the file of `--config`; ends the
/// process where clap does, for help and for what it does not understand.
///
/// # Errors
/// If the file cannot be read or says what no option does.
pub fn parse(mut typed: Vec<OsString>) -> Done<Args> {
    let command = command();
    let mut matches = command.clone().get_matches_from(&typed);
    if let Some(("serve", given)) = matches.subcommand()
        && let Some(file) = given.get_one::<PathBuf>("config")
    {
        let name = file.display();
        let usage = |e: String| Failure::Usage(format!("--config {name}: {e}"));
        let text = std::fs::read_to_string(file).map_err(|e| usage(e.to_string()))?;
        let serve = command.find_subcommand("serve");
        let options = serve.map(|serve| options(&command, serve));
        let more = arguments(&text, &options.unwrap_or_default(), given).map_err(usage)?;
        typed.extend(more.into_iter().map(OsString::from));
        matches = command.get_matches_from(&typed);
    }
    Args::from_arg_matches(&matches).map_err(|e| Failure::Usage(e.to_string()))
}

/// The command line's parser, with a name in the environment for every option of `serve`.
fn command() -> Command {
    Args::command().mut_subcommand("serve", |serve| {
        serve.mut_args(|option| match option.get_long() {
            Some(name) if option.get_env().is_none() => {
                let name = name.replace('-', "_").to_uppercase();
                option.env(format!("PENSIEVE_{name}")).hide_env(true)
            }
            _ => option,
        })
    })
}

/// The options that a file may set: those of the subcommand, and those of all.
fn options<'a>(command: &'a Command, serve: &'a Command) -> Vec<&'a Arg> {
    let global = command.get_arguments().filter(|arg| arg.is_global_set());
    let all = serve.get_arguments().chain(global);
    all.filter(|arg| !matches!(arg.get_long(), None | Some("config" | "help")))
        .collect()
}

/// The arguments that `text` stands for, without those that `given` has from elsewhere.
fn arguments(text: &str, options: &[&Arg], given: &ArgMatches) -> Result<Vec<String>, String> {
    let table: toml::Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
    let mut arguments = Vec::new();
    for (key, value) in table {
        let name = key.replace('_', "-");
        let Some(option) = options.iter().find(|arg| arg.get_long() == Some(&name)) else {
            let mut known: Vec<&str> = options.iter().filter_map(|arg| arg.get_long()).collect();
            known.sort_unstable();
            return Err(format!(
                "no option is called {key:?}; there are {}",
                known.join(", ")
            ));
        };
        let source = given.value_source(option.get_id().as_str());
        if matches!(
            source,
            Some(ValueSource::CommandLine | ValueSource::EnvVariable)
        ) {
            continue;
        }
        if matches!(option.get_action(), ArgAction::SetTrue) {
            match value {
                Value::Boolean(true) => arguments.push(format!("--{name}")),
                Value::Boolean(false) => {}
                other => {
                    let kind = other.type_str();
                    return Err(format!("{key} is of type {kind}, expected true or false"));
                }
            }
            continue;
        }
        let many = matches!(option.get_action(), ArgAction::Append);
        let values = match value {
            Value::Array(values) if many => values,
            Value::Array(_) => return Err(format!("{key} is a list, expected one value")),
            one => vec![one],
        };
        for value in values {
            let text = match value {
                Value::String(text) => text,
                Value::Integer(number) => number.to_string(),
                Value::Float(number) => number.to_string(),
                Value::Boolean(truth) => truth.to_string(),
                other => {
                    let kind = other.type_str();
                    return Err(format!(
                        "{key} is of type {kind}, expected a text or a number"
                    ));
                }
            };
            arguments.push(format!("--{name}={text}"));
        }
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args;

    fn read(file: &str, typed: &[&str]) -> Result<args::Serve, String> {
        let command = command();
        let typed = || ["pensieve", "serve"].iter().chain(typed);
        let matches = command.clone().get_matches_from(typed());
        let (_, given) = matches.subcommand().unwrap();
        let serve = command.find_subcommand("serve").unwrap();
        let more = arguments(file, &options(&command, serve), given)?;
        let typed = typed().map(|&word| word.to_owned()).chain(more);
        let matches = command.clone().try_get_matches_from(typed);
        let matches = matches.map_err(|e| e.to_string())?;
        match Args::from_arg_matches(&matches).unwrap().command {
            args::Command::Serve(serve) => Ok(serve),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_file_says_what_the_command_line_would() {
        let file = "port = 9000\nstrict = true\nmodel_alias = ['a', 'b']\nhost = '::1'\n\
                    drain = 5\nlog-level = 'debug'\ncheck = false\nmodel = '/models/x'\n";
        let serve = read(file, &[]).unwrap();
        assert_eq!((serve.port, serve.strict, serve.drain), (9000, true, 5));
        assert_eq!(serve.model_alias, ["a", "b"]);
        assert_eq!(serve.host, "::1");
        assert_eq!(serve.model.load.files.model, "/models/x");
        assert!(!serve.model.load.check);
    }

    #[test]
    fn the_command_line_counts_before_the_file() {
        let file = "port = 9000\nmodel-alias = ['a']\ndrain = 5";
        let serve = read(file, &["--port", "1", "--model-alias", "z"]).unwrap();
        assert_eq!((serve.port, serve.drain), (1, 5));
        assert_eq!(serve.model_alias, ["z"]);
    }

    #[test]
    fn what_no_option_says_is_named() {
        for (file, words) in [
            (
                "prot = 1",
                "no option is called \"prot\"; there are adapter-path, allowed-host, ",
            ),
            ("config = 'x'", "no option is called \"config\""),
            ("strict = 1", "expected true or false"),
            ("port = [1, 2]", "expected one value"),
            ("port = 'x'", "invalid value 'x' for '--port"),
            ("port = -1", "invalid value '-1'"),
            ("[serve]\nport = 1", "no option is called \"serve\""),
            ("host = { a = 1 }", "expected a text or a number"),
            ("port = ", "TOML parse error"),
        ] {
            let error = read(file, &[]).unwrap_err();
            assert!(error.contains(words), "{file}: {error}");
        }
    }

    #[test]
    fn every_option_has_a_name_in_the_environment() {
        let command = command();
        let serve = command.find_subcommand("serve").unwrap();
        let mut names: Vec<_> = options(&command, serve)
            .iter()
            .map(|arg| arg.get_env().unwrap().to_owned())
            .collect();
        assert!(names.iter().any(|name| name == "PENSIEVE_MAX_BODY"));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
