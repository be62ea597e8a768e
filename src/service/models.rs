//! The models that the server offers, by its configuration.

use crate::{
    config::{Models, Profile},
    pb,
};

/// The default model first, then the others by name; each name once. What the CLI knows of a model is told; where the
/// operator advertises nothing, what it knows is offered too. Each with the profiles that it may be asked for with.
pub(super) fn list(models: &Models, known: &[pb::Model], profiles: &[Profile]) -> Vec<pb::Model> {
    let aliases = models.aliases.iter().flat_map(|(alias, target)| [alias, target]);
    let offered: Vec<&str> = if models.advertised.is_empty() {
        known.iter().map(|model| model.id.as_str()).collect()
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
        let facts = known.iter().find(|model| model.id == target).cloned().unwrap_or_default();
        pb::Model {
            id: name.to_owned(),
            target: target.to_owned(),
            is_default: name == models.default,
            profiles: suffixes(models, name, profiles),
            ..facts
        }
    };
    names.into_iter().map(describe).collect()
}

/// The profiles that may stand behind a name: none where one stands there already.
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
    fn advertised_aliases_targets_and_the_default() {
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
    fn what_the_cli_knows_is_offered_where_nothing_is_advertised() {
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
    fn a_name_has_one_profile_at_most() {
        let models = Models {
            default: "m".into(),
            aliases: [("b:chat".to_owned(), "x".to_owned())].into(),
            advertised: vec!["a:agent".into(), "v:1".into()],
            reasoning_effort: "high".into(),
            reasoning_summary: "auto".into(),
        };
        let listed = list(&models, &[], &[Profile::Agent, Profile::Chat]);
        let found: Vec<_> = listed.iter().map(|m| (m.id.as_str(), m.profiles.len())).collect();
        assert_eq!(found, [("m", 2), ("a:agent", 0), ("b:chat", 2), ("v:1", 2), ("x", 2)]);
    }
}
