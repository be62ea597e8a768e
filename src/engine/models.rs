//! The names of models: what the installed CLI knows, and the model that a requested name stands for.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    config::{CATCH_ALL, Models, Profile},
    pb,
};

/// The models that the installed CLI knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModelCatalog {
    /// Every name in the CLI's catalog, listed or hidden.
    pub names: BTreeSet<String>,
    /// The model of the CLI if none is requested: the `model` of its `config.toml`, otherwise the first of its catalog.
    pub default: Option<String>,
    /// What the catalog says about each model, by name.
    pub models: BTreeMap<String, pb::Model>,
    /// The models that the CLI offers to its users, its default first.
    pub listed: Vec<String>,
}

impl ModelCatalog {
    /// Returns `true` for a model of the catalog and for the default, which the user may have configured.
    fn knows(&self, name: &str) -> bool {
        self.names.contains(name) || self.default.as_deref() == Some(name)
    }

    /// Returns the model that the default name stands for. The built-in default, `gpt-5-codex`, is an alias of the CLI's
    /// default if the CLI does not know it, because nobody chose it. A configured name is never replaced.
    pub fn alias_of_default(&self, models: &Models) -> Option<&str> {
        let is_chosen = models.default_is_configured || models.aliases.contains_key(&models.default);
        if is_chosen || self.knows(&models.default) {
            return None;
        }
        self.default.as_deref()
    }
}

/// Returns the real name of a requested model. `catalog` is `None` if the CLI cannot list its models.
pub fn resolve<'a>(models: &'a Models, catalog: Option<&'a ModelCatalog>, name: &'a str) -> &'a str {
    let target = alias(models, catalog, name).and_then(|alias| models.aliases.get(alias));
    let target = target.map_or(name, String::as_str);
    if target != models.default {
        return target;
    }
    catalog.and_then(|catalog| catalog.alias_of_default(models)).unwrap_or(target)
}

/// Returns the profile that the alias of a requested name selects.
pub fn profile_of_alias(models: &Models, catalog: Option<&ModelCatalog>, name: &str) -> Option<Profile> {
    models.alias_profiles.get(alias(models, catalog, name)?).copied()
}

/// Returns the alias that a requested name uses, which is the name itself or the catch-all.
fn alias<'a>(models: &Models, catalog: Option<&ModelCatalog>, name: &'a str) -> Option<&'a str> {
    match models.aliases.contains_key(name) {
        true => Some(name),
        false if name == models.default || is_known(models, catalog, name) => None,
        false => Some(CATCH_ALL),
    }
}

/// Returns `true` for a name that the configuration or the CLI contains.
fn is_known(models: &Models, catalog: Option<&ModelCatalog>, name: &str) -> bool {
    models.advertised.iter().chain(models.aliases.values()).any(|known| known == name)
        || catalog.is_some_and(|catalog| catalog.knows(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn models(aliases: &[(&str, &str)]) -> Models {
        Models {
            default: "gpt-5-codex".to_owned(),
            default_is_configured: false,
            aliases: aliases.iter().map(|&(name, target)| (name.to_owned(), target.to_owned())).collect(),
            alias_profiles: BTreeMap::new(),
            advertised: vec!["listed".to_owned()],
            reasoning_effort: "high".to_owned(),
            reasoning_summary: "auto".to_owned(),
        }
    }

    fn catalog(names: &[&str]) -> ModelCatalog {
        ModelCatalog {
            names: names.iter().map(|&name| name.to_owned()).collect(),
            default: names.first().map(|&name| name.to_owned()),
            ..ModelCatalog::default()
        }
    }

    #[test]
    fn resolve_of_an_unknown_built_in_default_returns_the_default_of_the_cli() {
        let (models, new) = (models(&[("gpt-4o", "gpt-5-codex")]), catalog(&["gpt-6", "gpt-5.5"]));
        assert_eq!(resolve(&models, Some(&new), "gpt-5-codex"), "gpt-6");
        assert_eq!(resolve(&models, Some(&new), "gpt-4o"), "gpt-6", "through an alias");
        assert_eq!(resolve(&models, Some(&new), "gpt-5.5"), "gpt-5.5");
        assert_eq!(resolve(&models, Some(&new), "other"), "other");
        assert_eq!(resolve(&models, None, "gpt-5-codex"), "gpt-5-codex");
        let old = catalog(&["gpt-5.2", "gpt-5-codex"]);
        assert_eq!(resolve(&models, Some(&old), "gpt-5-codex"), "gpt-5-codex", "the CLI knows it");
        let configured = Models { default_is_configured: true, ..models };
        assert_eq!(resolve(&configured, Some(&new), "gpt-5-codex"), "gpt-5-codex", "somebody chose it");
    }

    #[test]
    fn resolve_with_a_catch_all_replaces_only_unknown_names() {
        let (models, catalog) = (models(&[("*", "gpt-5.5"), ("a", "b")]), catalog(&["gpt-6", "gpt-5.5"]));
        let resolved = |name| resolve(&models, Some(&catalog), name);
        assert_eq!((resolved("gpt-5-nano"), resolved("gpt-4o-mini")), ("gpt-5.5", "gpt-5.5"));
        for known in ["gpt-6", "gpt-5.5", "listed", "b"] {
            assert_eq!(resolved(known), known);
        }
        assert_eq!((resolved("a"), resolved("gpt-5-codex")), ("b", "gpt-6"));
        assert_eq!(resolve(&models, None, "gpt-6"), "gpt-5.5", "without a catalog");
    }
}
