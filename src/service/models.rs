//! The list of models that the server offers.

use crate::{
    config::{CATCH_ALL, Models, Profile},
    engine::{self, ModelCatalog},
    pb,
};

/// Returns the default model first, then the others by name, each name once. Each model has the CLI's facts and the
/// profiles that a request may select. `started_at` is the date of models if the CLI has no catalog. Without `advertised` models in the configuration, the CLI's models are offered.
pub(super) fn list(
    models: &Models,
    cli_models: &[pb::Model],
    catalog: Option<&ModelCatalog>,
    profiles: &[Profile],
    started_at: i64,
) -> Vec<pb::Model> {
    // Models that the catalog lacks have the date of those that it has.
    let dates = catalog.iter().flat_map(|catalog| catalog.models.values());
    let created = dates.map(|model| model.created_unix_seconds).find(|date| *date != 0).unwrap_or(started_at);
    let aliases = models.aliases.iter().flat_map(|(alias, target)| [alias, target]);
    // The catch-all is not a name that a client can select.
    let aliases = aliases.filter(|name| *name != CATCH_ALL);
    let offered: Vec<&str> = if models.advertised.is_empty() {
        cli_models.iter().map(|model| model.id.as_str()).collect()
    } else {
        models.advertised.iter().map(String::as_str).collect()
    };
    let mut names: Vec<&str> = offered;
    names.extend(aliases.map(String::as_str));
    names.push(&models.default);
    names.sort_unstable_by_key(|name| (*name != models.default, *name));
    names.dedup();
    let describe = |name: &str| {
        let target = engine::resolve_model(models, catalog, name);
        let known = catalog.and_then(|catalog| catalog.models.get(target));
        let mut details = known.cloned().unwrap_or_default();
        // The app-server's list can be newer than the printed catalog, but says less.
        if let Some(listed) = cli_models.iter().find(|model| model.id == target) {
            details.reasoning_efforts.clone_from(&listed.reasoning_efforts);
            details.input_modalities.clone_from(&listed.input_modalities);
        }
        if details.created_unix_seconds == 0 {
            details.created_unix_seconds = created;
        }
        pb::Model {
            id: name.to_owned(),
            target: target.to_owned(),
            is_default: name == models.default,
            profiles: suffixes(models, name, profiles),
            ..details
        }
    };
    names.into_iter().map(describe).collect()
}

/// Returns the profiles that may follow a name, or none if the name contains a profile.
fn suffixes(models: &Models, name: &str, profiles: &[Profile]) -> Vec<String> {
    if models.with_profile(name).is_some() {
        return Vec::new();
    }
    profiles.iter().map(|profile| profile.as_str().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn list_contains_advertised_aliases_targets_and_the_default() {
        let models = Models {
            default: "m".into(),
            default_is_configured: true,
            aliases: [("gpt-4o".to_owned(), "x".to_owned())].into(),
            alias_profiles: [].into(),
            advertised: vec!["b".into(), "m".into(), "a".into()],
            reasoning_effort: "high".into(),
            reasoning_summary: "auto".into(),
        };
        let listed = list(&models, &[], None, &[Profile::Agent], 7);
        let names: Vec<_> = listed.iter().map(|m| (m.id.as_str(), m.target.as_str(), m.is_default)).collect();
        assert_eq!(
            names,
            [
                ("m", "m", true),
                ("a", "a", false),
                ("b", "b", false),
                ("gpt-4o", "x", false),
                ("x", "x", false)
            ]
        );
    }

    #[test]
    fn list_without_advertised_models_contains_those_of_the_cli() {
        let models = Models {
            default: "m".into(),
            default_is_configured: true,
            aliases: [("gpt-4o".to_owned(), "x".to_owned())].into(),
            alias_profiles: [].into(),
            advertised: vec![],
            reasoning_effort: "high".into(),
            reasoning_summary: "auto".into(),
        };
        let x = pb::Model { id: "x".into(), reasoning_efforts: vec!["low".into()], ..pb::Model::default() };
        let listed = list(&models, &[x], None, &[], 7);
        assert!(listed.iter().all(|model| model.profiles.is_empty()));
        let names: Vec<_> = listed.iter().map(|m| (m.id.as_str(), m.reasoning_efforts.len())).collect();
        assert_eq!(names, [("m", 0), ("gpt-4o", 1), ("x", 1)]);
    }

    #[test]
    fn list_name_with_a_profile_gets_no_other() {
        let models = Models {
            default: "m".into(),
            default_is_configured: true,
            aliases: [("b:chat".to_owned(), "x".to_owned())].into(),
            alias_profiles: [].into(),
            advertised: vec!["a:agent".into(), "v:1".into()],
            reasoning_effort: "high".into(),
            reasoning_summary: "auto".into(),
        };
        let listed = list(&models, &[], None, &[Profile::Agent, Profile::Chat], 7);
        let profiles: Vec<_> = listed.iter().map(|m| (m.id.as_str(), m.profiles.len())).collect();
        assert_eq!(profiles, [("m", 2), ("a:agent", 0), ("b:chat", 2), ("v:1", 2), ("x", 2)]);
    }

    #[test]
    fn list_names_the_target_of_an_unknown_default_and_no_catch_all() {
        let models = Models {
            default: "gpt-5-codex".into(),
            default_is_configured: false,
            aliases: [("*".to_owned(), "any".to_owned())].into(),
            alias_profiles: [].into(),
            advertised: vec![],
            reasoning_effort: "high".into(),
            reasoning_summary: "auto".into(),
        };
        let new =
            pb::Model { id: "new".into(), reasoning_efforts: vec!["low".into()], ..pb::Model::default() };
        let catalog = ModelCatalog {
            names: ["new".to_owned()].into(),
            default: Some("new".to_owned()),
            ..ModelCatalog::default()
        };
        let listed = list(&models, &[new], Some(&catalog), &[], 7);
        let rows: Vec<_> = listed.iter().map(|m| (m.id.as_str(), m.target.as_str())).collect();
        assert_eq!(rows, [("gpt-5-codex", "new"), ("any", "any"), ("new", "new")]);
        assert!(listed[0].is_default && listed[0].reasoning_efforts == ["low"]);
    }
}
