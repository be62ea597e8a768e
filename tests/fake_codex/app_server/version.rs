//! The recorded differences between releases of the app-server.

/// An emulated release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Release {
    /// 0.77 and similar releases: no ephemeral threads, no unloading.
    V77,
    /// 0.110: no `thread/inject_items`, an empty `turn/start` never ends, tool names are not validated.
    V110,
    /// 0.140: no `rawResponse/completed`, no `environments` in responses, no typed 401.
    V140,
    /// 0.169.
    V169,
}

const METHODS_110: &str = include_str!("methods_0.110.txt");
const METHODS_140: &str = include_str!("methods_0.140.txt");
const METHODS_169: &str = include_str!("methods_0.169.txt");

impl Release {
    /// Returns the emulated release of a version. An unreadable version is the newest release.
    pub(crate) fn from_version(version: &str) -> Self {
        let mut numbers = version.split(['.', '-']).map(|n| n.parse::<u32>().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(0), Some(0..=99)) => Self::V77,
            (Some(0), Some(100..=110)) => Self::V110,
            (Some(0), Some(111..=140)) => Self::V140,
            (_, _) => Self::V169,
        }
    }

    /// Returns the methods of the release, in its order.
    pub(crate) fn methods(self) -> Vec<&'static str> {
        let all = match self {
            Self::V77 | Self::V110 => METHODS_110,
            Self::V140 => METHODS_140,
            Self::V169 => METHODS_169,
        };
        all.lines().filter(|method| self >= Self::V110 || *method != "thread/unsubscribe").collect()
    }

    /// Returns whether the release has a method.
    pub(crate) fn has_method(self, method: &str) -> bool {
        self.methods().contains(&method)
    }

    /// Returns the output of `features list`.
    pub(crate) fn features(self) -> &'static str {
        match self {
            Self::V77 | Self::V110 => include_str!("../features_0.110.txt"),
            Self::V140 => include_str!("../features_0.140.txt"),
            Self::V169 => crate::FEATURES,
        }
    }

    /// Returns whether the release has `debug models`.
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
        assert!(
            !Release::V110.has_method("thread/inject_items")
                && Release::V140.has_method("thread/inject_items")
        );
        assert!(
            !Release::V77.has_method("thread/unsubscribe") && Release::V110.has_method("thread/unsubscribe")
        );
    }
}
