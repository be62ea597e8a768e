//! Addresses, proxies and connections.

use super::Section;

pub(super) const SECTIONS: &[Section] =
    &[Section { title: "Addresses, proxies and connections", faults: &[] }];
