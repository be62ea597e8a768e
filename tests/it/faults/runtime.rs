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
            action: "an error of the upstream of 40 kB or 5 MB with a key, an internal address and a path, over both engines and doors",
            result: "a gRPC head and an HTTP body below 4 KiB without them; a log line has at most CODEX_LOG_MAX_CHARS of it",
            tests: &["errors::foreign_texts::long_errors_of_the_upstream_are_bounded_and_scrubbed"],
        },
        Fault {
            action: "the CLI never answers `--version`, `initialize` or, at the start of a worker, `debug models`",
            result: "`/healthz` and GetStatus tell within 150 ms that the CLI is being probed, the list of models comes after 1 s; \
                     requests wait until their deadline",
            tests: &[
                "probes::exec_with_a_hanging_version_answers_at_the_deadline",
                "probes::app_server_with_a_hanging_version_answers_at_the_deadline",
                "probes::app_server_that_never_answers_initialize_answers_at_the_deadline",
                "probes::app_server_whose_catalog_hangs_answers_at_the_deadline",
            ],
        },
        Fault {
            action: "exec; the CLI hangs at `debug models` only",
            result: "turns run; the list of models has the configured ones after 1 s; one process at a time prints the catalog",
            tests: &["probes::exec_whose_catalog_hangs_still_runs_turns"],
        },
        Fault {
            action: "the CLI is replaced by one that hangs",
            result: "the status of the last probe within 150 ms; with exec, requests wait until their deadline; workers of the \
                     app-server go on",
            tests: &["probes::cli_replaced_by_one_that_hangs_delays_no_status"],
        },
        Fault {
            action: "a task of the server panics: worker slot, worker start, turn, probe, catalog, child process",
            result: "one line in the log with the task's name. The worker is closed and replaced, the start or probe counts as \
                     failed and is repeated, the turn is interrupted and ends with INTERNAL, the child is killed",
            tests: &[
                "task::tests::catch_panic_in_a_tracked_task_names_it_and_lets_its_owner_go_on",
                "engine::app_server::worker::pool::tests::panic_of_a_start_is_reported_and_the_slot_tries_again",
                "engine::app_server::worker::pool::tests::worker_whose_watch_panics_is_closed_and_replaced",
            ],
        },
        Fault {
            action: "the task of a worker's pipes panics",
            result: "the connection is closed, so another worker replaces it",
            tests: &["engine::app_server::rpc::client::tests::panic_of_the_task_closes_the_connection"],
        },
        Fault {
            action: "a handler or the stream of an answer panics",
            result: "INTERNAL or 500; within a stream, INTERNAL in the trailers or a last error event. The stream is dropped, which \
                     frees its slot",
            tests: &[
                "transport::layers::panic_is_an_error_in_the_callers_protocol",
                "transport::layers::panic_in_a_stream_ends_it_with_an_error",
                "transport::catch_panic::tests::catch_panic_in_a_handler_is_a_500_without_the_cause",
                "transport::catch_panic::tests::catch_panic_in_a_grpc_handler_is_an_internal_status",
                "transport::catch_panic::tests::catch_panic_in_a_grpc_stream_ends_with_an_internal_status",
                "transport::catch_panic::tests::catch_panic_in_an_event_stream_ends_with_an_error_event",
            ],
        },
        Fault {
            action: "the name of a model, or another value of a caller, holds ` status=200` or a line end",
            result: "the value is quoted in the text log",
            tests: &["telemetry::text_fields::tests::forged_field_or_line_stays_within_its_value"],
        },
        Fault {
            action: "SIGHUP",
            result: "the drain, as with SIGINT; nothing if the server was started with SIGHUP ignored (`nohup`). Only Linux tells \
                     the latter",
            tests: &[
                "commands::signals::server_after_a_hangup_drains",
                "commands::signals::server_that_ignores_hangups_outlives_one",
            ],
        },
        Fault {
            action: "requests of 20 to 31 MB, four at once, accepted and refused",
            result: "the memory is given back at once: 25 MiB more than before (glibc's allocator kept 287 MiB)",
            tests: &["limits::memory::memory_of_large_requests_is_given_back"],
        },
        Fault {
            action: "exec; images of many megabytes on a slow disk",
            result: "they are written and removed on the blocking pool, so that other streams go on. `stat` calls of the program \
                     and the login stay on the threads of the runtime: they take microseconds from the kernel's cache, and a \
                     thread of the pool costs more",
            tests: &["limits::images::images_within_the_limits_reach_the_cli_and_are_removed"],
        },
    ],
}];
