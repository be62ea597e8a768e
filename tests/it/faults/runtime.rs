//! Errors of others in logs and answers, probes, tasks and memory.

use super::{Fault, Section};

pub(super) const SECTIONS: &[Section] = &[Section {
    title: "Texts of others, probes, tasks and memory",
    faults: &[
        Fault {
            action: "the upstream's error has 20 kB to 5 MB, in any script",
            result: "the error with its start and end; the whole gRPC status stays below 4 KiB",
            tests: &[
                "error::tests::status_with_a_huge_text_stays_below_4_kib_encoded",
                "error::foreign_text::tests::cut_middle_keeps_start_and_end_within_the_bound",
            ],
        },
        Fault {
            action: "an error of others, of any code, holds a key, an internal address or a path of the server",
            result: "`<key>`, `<address>`, `<path>`",
            tests: &[
                "error::tests::status_of_each_error_of_others_has_no_key_address_or_path",
                "error::foreign_text::tests::without_addresses_replaces_keys_of_other_kinds",
                "error::foreign_text::tests::scrubbed_replaces_paths_of_files_and_keeps_routes",
            ],
        },
        Fault {
            action: "the upstream's error is an HTML page or a compressed body",
            result: "503 with a fixed text that names the kind of the body",
            tests: &["engine::cli::error_messages::tests::unreadable_bodies_become_a_fixed_text"],
        },
        Fault {
            action: "the CLI never answers `--version` or `initialize`",
            result: "`/healthz` and GetStatus tell at once that the CLI is being probed; requests wait until their deadline",
            tests: &[
                "probes::exec_with_a_hanging_version_answers_at_the_deadline",
                "probes::app_server_with_a_hanging_version_answers_at_the_deadline",
                "probes::app_server_that_never_answers_initialize_answers_at_the_deadline",
            ],
        },
        Fault {
            action: "the task of a worker's pipes panics",
            result: "the connection is closed, so another worker replaces it",
            tests: &["engine::app_server::rpc::client::tests::panic_of_the_task_closes_the_connection"],
        },
        Fault {
            action: "the name of a model, or another value of a caller, holds ` status=200` or a line end",
            result: "the value is quoted in the text log",
            tests: &["telemetry::text_fields::tests::forged_field_or_line_stays_within_its_value"],
        },
        Fault {
            action: "SIGHUP, while it is ignored (`nohup`)",
            result: "nothing on Linux; otherwise SIGHUP begins the drain as SIGTERM does",
            tests: &["shutdown::tests::handle_signals_first_drains_and_second_kills"],
        },
        Fault {
            action: "a request of many megabytes",
            result: "not mended: the allocator keeps the freed memory; no allocator was measured yet",
            tests: &[],
        },
    ],
}];
