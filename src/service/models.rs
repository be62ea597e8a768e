//! The models that the server offers, by its configuration.

use crate::{config::Models, pb};

/// The default model first, then the others by name; each name once.
pub(super) fn list(models: &Models) -> Vec<pb::Model> {
    let aliases = models.aliases.iter().flat_map(|(alias, target)| [alias, target]);
    let mut names: Vec<&String> = models.advertised.iter().chain(aliases).chain([&models.default]).collect();
    names.sort_unstable_by_key(|name| (**name != models.default, *name));
    names.dedup();
    names
        .into_iter()
        .map(|name| pb::Model {
            id: name.clone(),
            target: models.aliases.get(name).unwrap_or(name).clone(),
            is_default: *name == models.default,
            reasoning_efforts: Vec::new(),
            input_modalities: Vec::new(),
        })
        .collect()
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
        };
        let listed = list(&models);
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
}
