//! What the app-servers of several releases can and cannot do, as recorded.

/// A release, as far as it is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Release {
    /// 0.77 and its neighbours: no ephemeral threads, nothing is ever let go.
    V77,
    /// 0.110: no `thread/inject_items`, deaf to an empty `turn/start`, checks no tool names.
    V110,
    /// 0.140: no `rawResponse/completed`, no `environments` in answers, no typed 401.
    V140,
    /// 0.169.
    V169,
}

const METHODS_110: &str = include_str!("methods_0.110.txt");
const METHODS_140: &str = include_str!("methods_0.140.txt");
const METHODS_169: &str = include_str!("methods_0.169.txt");

impl Release {
    /// The release that this version belongs to. What cannot be read is the newest.
    pub(crate) fn from_version(version: &str) -> Self {
        let mut numbers = version.split(['.', '-']).map(|n| n.parse::<u32>().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(0), Some(0..=99)) => Self::V77,
            (Some(0), Some(100..=110)) => Self::V110,
            (Some(0), Some(111..=140)) => Self::V140,
            (_, _) => Self::V169,
        }
    }

    /// The methods it knows, in its own order.
    pub(crate) fn methods(self) -> Vec<&'static str> {
        let all = match self {
            Self::V77 | Self::V110 => METHODS_110,
            Self::V140 => METHODS_140,
            Self::V169 => METHODS_169,
        };
        all.lines().filter(|method| self >= Self::V110 || *method != "thread/unsubscribe").collect()
    }

    /// Whether this method exists.
    pub(crate) fn knows(self, method: &str) -> bool {
        self.methods().contains(&method)
    }

    /// What `features list` prints.
    pub(crate) fn features(self) -> &'static str {
        match self {
            Self::V77 | Self::V110 => include_str!("../features_0.110.txt"),
            Self::V140 => include_str!("../features_0.140.txt"),
            Self::V169 => crate::FEATURES,
        }
    }

    /// Whether there is `debug models`.
    pub(crate) fn has_catalog(self) -> bool {
        self >= Self::V140
    }
}

#[cfg(test)]
mod tests {
    use super::Release;

    #[test]
    fn versions_map_to_measured_releases() {
        for (version, release) in [
            ("0.77.0", Release::V77),
            ("0.110.0", Release::V110),
            ("0.111.0-alpha.1", Release::V140),
            ("0.140.0", Release::V140),
            ("0.169.0", Release::V169),
            ("1.0.0", Release::V169),
            ("", Release::V169),
        ] {
            assert_eq!(Release::from_version(version), release, "{version}");
        }
    }

    #[test]
    fn methods_depend_on_the_release() {
        let count = |r: Release| r.methods().len();
        assert_eq!([count(Release::V110), count(Release::V140), count(Release::V169)], [57, 120, 187]);
        assert!(!Release::V110.knows("thread/inject_items") && Release::V140.knows("thread/inject_items"));
        assert!(!Release::V77.knows("thread/unsubscribe") && Release::V110.knows("thread/unsubscribe"));
    }
}
