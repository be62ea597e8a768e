//! The kinds of settings, which parse the text of a setting. On an error, [`Kind::read`] records the error and returns a
//! harmless value, so that all errors are reported at once.

use std::{path::PathBuf, time::Duration};

use super::{settings::Setting, sources::RawSettings};

/// A setting with its kind.
#[derive(Debug)]
pub(super) struct Key<K> {
    pub(super) setting: Setting,
    pub(super) kind: K,
}

/// Parses the text of a setting.
pub(super) trait Kind {
    type Value;

    fn read(&self, name: &'static str, raw: &mut RawSettings) -> Self::Value;
}

/// A text, trimmed.
#[derive(Debug)]
pub(super) struct Text;

/// A text, trimmed, or `None` if empty.
#[derive(Debug)]
pub(super) struct OptionalText;

/// One of several words.
#[derive(Debug)]
pub(super) struct OneOf(pub(super) &'static [&'static str]);

/// A whole number within bounds.
#[derive(Debug)]
pub(super) struct Number {
    pub(super) min: u64,
    pub(super) max: u64,
}

/// A [`Number`] as `usize`.
#[derive(Debug)]
pub(super) struct Size {
    pub(super) min: u64,
    pub(super) max: u64,
}

/// A [`Size`], or `None` if the text is empty.
#[derive(Debug)]
pub(super) struct OptionalSize {
    pub(super) min: u64,
    pub(super) max: u64,
}

/// A duration in seconds, with fractions.
#[derive(Debug)]
pub(super) struct Seconds {
    pub(super) min: u64,
    pub(super) max: u64,
}

/// `0` or `1`.
#[derive(Debug)]
pub(super) struct Switch;

/// A comma-separated list.
#[derive(Debug)]
pub(super) struct List;

/// A path, relative to the current directory or `~`, or `None` if the text is empty.
#[derive(Debug)]
pub(super) struct OptionalPath;

/// A comma-separated list of paths.
#[derive(Debug)]
pub(super) struct Paths;

impl Kind for Text {
    type Value = String;

    fn read(&self, name: &'static str, raw: &mut RawSettings) -> String {
        raw.text(name)
    }
}

impl Kind for OptionalText {
    type Value = Option<String>;

    fn read(&self, name: &'static str, raw: &mut RawSettings) -> Option<String> {
        Some(raw.text(name)).filter(|text| !text.is_empty())
    }
}

impl Kind for OneOf {
    type Value = &'static str;

    fn read(&self, name: &'static str, raw: &mut RawSettings) -> &'static str {
        let text = raw.text(name);
        self.0.iter().find(|word| **word == text).copied().unwrap_or_else(|| {
            raw.push_error(&format!("{name}: {text:?} is not one of {}", self.0.join(", ")));
            self.0.first().copied().unwrap_or_default()
        })
    }
}

impl Kind for Number {
    type Value = u64;

    fn read(&self, name: &'static str, raw: &mut RawSettings) -> u64 {
        let Self { min, max } = *self;
        let text = raw.text(name);
        text.parse().ok().filter(|number| (min..=max).contains(number)).unwrap_or_else(|| {
            raw.push_error(&format!("{name}: {text:?} is not a whole number from {min} to {max}"));
            min
        })
    }
}

impl Kind for Size {
    type Value = usize;

    fn read(&self, name: &'static str, raw: &mut RawSettings) -> usize {
        let number = Number { min: self.min, max: self.max }.read(name, raw);
        usize::try_from(number).unwrap_or(usize::MAX)
    }
}

impl Kind for OptionalSize {
    type Value = Option<usize>;

    fn read(&self, name: &'static str, raw: &mut RawSettings) -> Option<usize> {
        OptionalText.read(name, raw)?;
        Some(Size { min: self.min, max: self.max }.read(name, raw))
    }
}

impl Kind for Seconds {
    type Value = Duration;

    fn read(&self, name: &'static str, raw: &mut RawSettings) -> Duration {
        let Self { min, max } = *self;
        let bounds = Duration::from_secs(min)..=Duration::from_secs(max);
        let text = raw.text(name);
        let parsed = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        parsed.filter(|duration| bounds.contains(duration)).unwrap_or_else(|| {
            raw.push_error(&format!("{name}: {text:?} is not a number of seconds from {min} to {max}"));
            Duration::from_secs(min)
        })
    }
}

impl Kind for Switch {
    type Value = bool;

    fn read(&self, name: &'static str, raw: &mut RawSettings) -> bool {
        let text = raw.text(name);
        parse_switch(&text).unwrap_or_else(|| {
            raw.push_error(&format!("{name}: {text:?} is not 0 or 1"));
            false
        })
    }
}

impl Kind for List {
    type Value = Vec<String>;

    fn read(&self, name: &'static str, raw: &mut RawSettings) -> Vec<String> {
        let text = raw.text(name);
        text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
    }
}

impl Kind for OptionalPath {
    type Value = Option<PathBuf>;

    fn read(&self, name: &'static str, raw: &mut RawSettings) -> Option<PathBuf> {
        OptionalText.read(name, raw).map(|text| raw.absolute(&text))
    }
}

impl Kind for Paths {
    type Value = Vec<PathBuf>;

    fn read(&self, name: &'static str, raw: &mut RawSettings) -> Vec<PathBuf> {
        List.read(name, raw).iter().map(|text| raw.absolute(text)).collect()
    }
}

/// Parses a switch in its usual spellings.
pub(super) fn parse_switch(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "" | "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}
