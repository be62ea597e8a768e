//! Schemas and JSON answers of real clients.

use super::Section;

pub(super) const SECTIONS: &[Section] = &[Section { title: "Schemas and JSON answers", faults: &[] }];
