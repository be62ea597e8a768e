//! Bodies that real clients send.

use super::Section;

pub(super) const SECTIONS: &[Section] = &[Section { title: "Bodies of requests", faults: &[] }];
