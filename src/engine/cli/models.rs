//! The model catalog of the installed CLI, from `codex debug models`, and its check by the doctor.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::{
    probe::{self, CliInfo, ProbeError},
    provider,
    user_config::UserConfig,
};
use crate::{
    config::{Codex, Config},
    engine::{Check, ModelCatalog, process::Launcher},
};

/// The command that prints the catalog. Versions before 0.140 lack it.
pub(crate) const PRINT_CATALOG: [&str; 2] = ["debug", "models"];

/// The `visibility` of models that the CLI offers to users.
const LISTED: &str = "list";

#[derive(Deserialize)]
struct Printed {
    models: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    slug: String,
    #[serde(default)]
    visibility: String,
    #[serde(default)]
    priority: i64,
}

/// Returns the output of [`PRINT_CATALOG`], or `None` if this version prints no catalog.
pub(crate) async fn print(
    codex: &Codex,
    launcher: &Launcher,
    installed: &CliInfo,
) -> Result<Option<String>, ProbeError> {
    let output = probe::run_cli(codex, launcher, &installed.program, &PRINT_CATALOG).await?;
    Ok((output.code == Some(0)).then_some(output.stdout))
}

/// Parses the output of [`PRINT_CATALOG`]. The user's `config.toml` may choose another default.
pub(crate) fn parse(codex: &Codex, printed: &str) -> Option<ModelCatalog> {
    let config = UserConfig::load(codex);
    catalog(printed, config.get("model").and_then(toml::Value::as_str))
}

fn catalog(printed: &str, configured: Option<&str>) -> Option<ModelCatalog> {
    let Printed { models } = serde_json::from_str(printed).ok()?;
    let listed = models.iter().filter(|model| model.visibility == LISTED);
    let first = listed.min_by_key(|model| model.priority).map(|model| model.slug.as_str());
    let default = configured.or(first).map(str::to_owned);
    Some(ModelCatalog { names: models.into_iter().map(|model| model.slug).collect(), default })
}

/// Checks that the CLI knows the configured models. An unknown model is a warning, because the upstream decides.
pub(crate) async fn examine(config: &Config, launcher: &Launcher, installed: &CliInfo) -> Check {
    let (codex, models) = (&config.codex, &config.models);
    let provider = provider::configured(codex);
    let catalog = match print(codex, launcher, installed).await {
        Ok(printed) => printed.and_then(|text| parse(codex, &text)),
        Err(error) => {
            return Check::warning(
                "model",
                error.to_string(),
                "run `codex debug models` as the server's user",
            );
        }
    };
    let Some(catalog) = catalog else {
        let finding = format!("{}; Codex {} prints no list to compare", models.default, installed.version);
        return Check::passed("model", finding);
    };
    let alias = catalog.alias_of_default(models);
    let default = alias.unwrap_or(&models.default);
    let configured = models.aliases.values().chain(&models.advertised).map(String::as_str).chain([default]);
    let is_unknown = |name: &&str| !catalog.names.contains(*name) && !models.aliases.contains_key(*name);
    let unknown: BTreeSet<&str> = configured.filter(is_unknown).collect();
    match (unknown.is_empty(), provider) {
        (true, _) => Check::passed(
            "model",
            match alias {
                Some(target) => format!(
                    "{} is unknown to Codex {} and stands for {target}, the CLI's default; CODEX_MODEL selects another",
                    models.default, installed.version
                ),
                None => default.to_owned(),
            },
        ),
        // The catalog has the models of OpenAI only.
        (false, Some(provider)) => {
            Check::passed("model", format!("{default}, of the provider {provider} of config.toml"))
        }
        (false, None) => Check::warning(
            "model",
            format!(
                "the catalog of Codex {} lacks the configured {}",
                installed.version,
                unknown.into_iter().collect::<Vec<_>>().join(", ")
            ),
            "set CODEX_MODEL, CODEX_MODEL_ALIASES, CODEX_ADVERTISED_MODELS and `model` in config.toml to models of \
             `codex debug models`, or keep them if your upstream has them",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Entries as 0.169 prints them, shortened.
    const PRINTED: &str = r#"{"models": [
        {"slug": "gpt-6-astra", "visibility": "list", "priority": 2},
        {"slug": "gpt-6.1-sol", "visibility": "list", "priority": 1, "new": {}},
        {"slug": "hidden", "visibility": "hide", "priority": 0}]}"#;

    #[test]
    fn catalog_has_every_name_and_the_first_listed_model_as_default() {
        let found = catalog(PRINTED, None).unwrap();
        assert_eq!(found.names.iter().collect::<Vec<_>>(), ["gpt-6-astra", "gpt-6.1-sol", "hidden"]);
        assert_eq!(found.default.as_deref(), Some("gpt-6.1-sol"));
    }

    #[test]
    fn catalog_with_a_configured_model_has_it_as_default() {
        let found = catalog(PRINTED, Some("mine")).unwrap();
        assert_eq!((found.default.as_deref(), found.names.len()), (Some("mine"), 3));
    }

    #[test]
    fn catalog_of_another_format_is_none() {
        for printed in ["", "[]", r#"{"models": 1}"#] {
            assert_eq!(catalog(printed, None), None, "{printed}");
        }
        assert_eq!(catalog(r#"{"models": []}"#, None), Some(ModelCatalog::default()));
    }
}
