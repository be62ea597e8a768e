//! What the operator, the agent and other processes of the host do.

use super::Section;

pub(super) const SECTIONS: &[Section] = &[Section { title: "The host of the server", faults: &[] }];
