//! The command line of what deals with models on disk, as it is typed.

/// Arguments of `pull`.
#[derive(Debug, clap::Args)]
pub struct Pull {
    /// ORG/NAME, ORG/NAME@REVISION, or a short name; none lists the short names of models that fit this
    /// machine's memory
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Print one JSON object for each model, or for each short name
    #[arg(long)]
    pub json: bool,
    /// List the short names of models that do not fit, too
    #[arg(long, conflicts_with = "names")]
    pub all: bool,
}

/// Arguments of `list`.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Print a JSON array
    #[arg(long)]
    pub json: bool,
    /// Tokens for which the memory is estimated [default: 8192, or the model's own limit]
    #[arg(long, value_name = "TOKENS")]
    pub context: Option<u64>,
}

/// Arguments of `show`.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// ORG/NAME, ORG/NAME@REVISION, a short name, or a directory
    pub name: String,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Tokens for which the memory is estimated [default: 8192, or the model's own limit]
    #[arg(long, value_name = "TOKENS")]
    pub context: Option<u64>,
}

/// Arguments of `rm`.
#[derive(Debug, clap::Args)]
pub struct Rm {
    /// ORG/NAME or a short name; with @REVISION that revision alone
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,
    /// Do not ask
    #[arg(long, short)]
    pub yes: bool,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print one JSON object for each model
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `doctor`. Ends with code 1 if something is wrong.
#[derive(Debug, clap::Args)]
pub struct Doctor {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Compute the hash of every file in the cache, too
    #[arg(long)]
    pub verify: bool,
    /// The port that `serve` would listen on
    #[arg(long, default_value_t = 8080, env = "PENSIEVE_PORT")]
    pub port: u16,
}
