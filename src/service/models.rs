//! The list of models that the server offers.

use crate::{
    config::{Models, Profile},
    pb,
};

/// Returns the default model first, then the others by name, each name once. Each model has the CLI's facts and the
/// profiles that a request may select. Without `advertised` models in the configuration, the CLI's models are offered.
pub(super) fn list(models: &Models, cli_models: &[pb::Model], profiles: &[Profile]) -> Vec<pb::Model> {
    let aliases = models.aliases.iter().flat_map(|(alias, target)| [alias, target]);
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
        let target = models.aliases.get(name).map_or(name, String::as_str);
        let details = cli_models.iter().find(|model| model.id == target).cloned().unwrap_or_default();
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
            aliases: [("gpt-4o".to_owned(), "x".to_owned())].into(),
            advertised: vec!["b".into(), "m".into(), "a".into()],
            reasoning_effort: "high".into(),
            reasoning_summary: "auto".into(),
        };
        let listed = list(&models, &[], &[Profile::Agent]);
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
            aliases: [("gpt-4o".to_owned(), "x".to_owned())].into(),
            advertised: vec![],
            reasoning_effort: "high".into(),
            reasoning_summary: "auto".into(),
        };
        let x = pb::Model { id: "x".into(), reasoning_efforts: vec!["low".into()], ..pb::Model::default() };
        let listed = list(&models, &[x], &[]);
        assert!(listed.iter().all(|model| model.profiles.is_empty()));
        let names: Vec<_> = listed.iter().map(|m| (m.id.as_str(), m.reasoning_efforts.len())).collect();
        assert_eq!(names, [("m", 0), ("gpt-4o", 1), ("x", 1)]);
    }

    #[test]
    fn list_name_with_a_profile_gets_no_other() {
        let models = Models {
            default: "m".into(),
            aliases: [("b:chat".to_owned(), "x".to_owned())].into(),
            advertised: vec!["a:agent".into(), "v:1".into()],
            reasoning_effort: "high".into(),
            reasoning_summary: "auto".into(),
        };
        let listed = list(&models, &[], &[Profile::Agent, Profile::Chat]);
        let profiles: Vec<_> = listed.iter().map(|m| (m.id.as_str(), m.profiles.len())).collect();
        assert_eq!(profiles, [("m", 2), ("a:agent", 0), ("b:chat", 2), ("v:1", 2), ("x", 2)]);
    }
}
