//! The model catalog of the installed CLI, from `codex debug models`, and its check by the doctor.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt};

use serde::Deserialize;
use serde_json::Value;

use super::{
    probe::{self, CliInfo, ProbeError},
    provider,
    user_config::UserConfig,
};
use crate::{
    config::{Codex, Config},
    engine::{Check, ModelCatalog, process::Launcher},
    pb,
};

/// The command that prints the catalog. Versions before 0.140 lack it.
pub(crate) const PRINT_CATALOG: [&str; 2] = ["debug", "models"];

/// The `visibility` of models that the CLI offers to users.
const LISTED: &str = "list";

#[derive(Deserialize)]
struct Printed {
    models: Vec<Entry>,
}

/// A model of the catalog. Members that are missing or have another type are unknown.
#[derive(Deserialize)]
struct Entry {
    slug: String,
    #[serde(default)]
    visibility: String,
    #[serde(default)]
    priority: i64,
    #[serde(default)]
    display_name: Value,
    #[serde(default)]
    description: Value,
    #[serde(default)]
    context_window: Value,
    /// 0.169 has no such member.
    #[serde(default)]
    max_output_tokens: Value,
    #[serde(default)]
    input_modalities: Value,
    #[serde(default)]
    supported_reasoning_levels: Value,
    #[serde(default)]
    service_tiers: Value,
}

impl Entry {
    fn model(&self) -> pb::Model {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let number = |value: &Value| value.as_u64().unwrap_or_default();
        pb::Model {
            id: self.slug.clone(),
            target: self.slug.clone(),
            reasoning_efforts: texts(&self.supported_reasoning_levels, "effort"),
            input_modalities: texts(&self.input_modalities, ""),
            context_window: number(&self.context_window),
            max_output_tokens: number(&self.max_output_tokens),
            display_name: text(&self.display_name),
            description: text(&self.description),
            service_tiers: texts(&self.service_tiers, "id"),
            ..pb::Model::default()
        }
    }
}

/// Returns the texts of a list, or the member `name` of its objects.
fn texts(list: &Value, name: &str) -> Vec<String> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(|item| item.get(name).unwrap_or(item).as_str()).map(str::to_owned).collect()
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
pub(crate) fn parse(codex: &Codex, installed: &CliInfo, printed: &str) -> Option<ModelCatalog> {
    let config = UserConfig::load(codex);
    let mut catalog = catalog(printed, config.get("model").and_then(toml::Value::as_str))?;
    let installed_at = installed_at(installed).unwrap_or_default();
    for model in catalog.models.values_mut() {
        model.created_unix_seconds = installed_at;
    }
    Some(catalog)
}

/// Returns the time at which the program was installed. The modification time is no such time: packages of npm have the
/// same in all versions, in 1985.
fn installed_at(installed: &CliInfo) -> Option<i64> {
    fs::metadata(&installed.program).ok().map(|meta| meta.ctime())
}

fn catalog(printed: &str, configured: Option<&str>) -> Option<ModelCatalog> {
    let Printed { mut models } = serde_json::from_str(printed).ok()?;
    models.sort_by_key(|model| model.priority);
    let listed = models.iter().filter(|model| model.visibility == LISTED).map(|model| model.slug.clone());
    let listed: Vec<String> = listed.collect();
    let default = configured.or(listed.first().map(String::as_str)).map(str::to_owned);
    Some(ModelCatalog {
        names: models.iter().map(|model| model.slug.clone()).collect(),
        default,
        models: models.iter().map(|model| (model.slug.clone(), model.model())).collect(),
        listed,
    })
}

/// Checks that the CLI knows the configured models. An unknown model is a warning, because the upstream decides.
pub(crate) async fn examine(config: &Config, launcher: &Launcher, installed: &CliInfo) -> Check {
    let (codex, models) = (&config.codex, &config.models);
    let provider = provider::configured(codex);
    let catalog = match print(codex, launcher, installed).await {
        Ok(printed) => printed.and_then(|text| parse(codex, installed, &text)),
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
        {"slug": "gpt-6-astra", "visibility": "list", "priority": 2, "display_name": "GPT-6-Astra",
         "description": "Frontier.", "context_window": 272000, "input_modalities": ["text", "image"],
         "supported_reasoning_levels": [{"effort": "low", "description": "d"}, {"effort": "xhigh"}],
         "service_tiers": [{"id": "priority", "name": "Fast"}]},
        {"slug": "gpt-6.1-sol", "visibility": "list", "priority": 1, "new": {}},
        {"slug": "hidden", "visibility": "hide", "priority": 0}]}"#;

    #[test]
    fn catalog_has_every_name_and_the_first_listed_model_as_default() {
        let found = catalog(PRINTED, None).unwrap();
        assert_eq!(found.names.iter().collect::<Vec<_>>(), ["gpt-6-astra", "gpt-6.1-sol", "hidden"]);
        assert_eq!(found.default.as_deref(), Some("gpt-6.1-sol"));
        assert_eq!(found.listed, ["gpt-6.1-sol", "gpt-6-astra"]);
        let astra = pb::Model {
            id: "gpt-6-astra".into(),
            target: "gpt-6-astra".into(),
            reasoning_efforts: vec!["low".into(), "xhigh".into()],
            input_modalities: vec!["text".into(), "image".into()],
            context_window: 272_000,
            display_name: "GPT-6-Astra".into(),
            description: "Frontier.".into(),
            service_tiers: vec!["priority".into()],
            ..pb::Model::default()
        };
        assert_eq!(found.models["gpt-6-astra"], astra);
    }

    #[test]
    fn catalog_entry_with_members_of_other_types_is_kept() {
        let printed = r#"{"models": [{"slug": "m", "visibility": "list", "context_window": "big", "service_tiers": 1,
            "display_name": null, "input_modalities": [1, "text"], "max_output_tokens": 128000}]}"#;
        let found = &catalog(printed, None).unwrap().models["m"];
        assert_eq!((found.context_window, found.max_output_tokens), (0, 128_000));
        assert_eq!(
            (found.display_name.as_str(), &found.input_modalities[..]),
            ("", &["text".to_owned()][..])
        );
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
