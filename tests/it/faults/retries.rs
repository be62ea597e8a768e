//! Turns that must not run twice, and answers that are asked again.

use super::{Fault, Section};

pub(super) const SECTIONS: &[Section] = &[Section {
    title: "Retries by machines",
    faults: &[
        Fault {
            action: "a command ran, then the upstream answers 429, a usage limit, 500 or \"at capacity\", breaks off, is unreachable or refuses the login",
            result: "`failed_after_effects`: 502 with `x-should-retry: false` and without Retry-After; ABORTED with `grpc-retry-pushback-ms: -1` and without RetryInfo; the same in a stream. The message and `metadata[\"cause\"]` have the reason",
            tests: &[
                "retries::effects::failure_after_a_command_is_not_offered_for_retry",
                "retries::effects::command_before_an_upstream_error_runs_once",
                "engine::effects::tests::effects_begin_with_any_item_but_plan_and_message",
                "error::tests::status_after_effects_is_aborted_and_names_its_cause",
            ],
        },
        Fault {
            action: "the same failures before the agent acts",
            result: "429 or 503 with Retry-After; RESOURCE_EXHAUSTED or UNAVAILABLE with RetryInfo and the same `grpc-retry-pushback-ms`",
            tests: &["retries::effects::failure_before_an_effect_is_offered_for_retry"],
        },
        Fault {
            action: "SIGTERM and the end of the grace, after a command and before one",
            result: "`failed_after_effects`; 503 `shutting_down` with Retry-After",
            tests: &["retries::effects::drain_after_a_command_is_not_offered_for_retry"],
        },
        Fault {
            action: "the worker of a turn dies",
            result: "profile agent: `failed_after_effects` as soon as the worker has got the turn, because the last messages of a process that died may be lost; profile chat, or before that: 503 `worker_lost`, retryable",
            tests: &[
                "retries::effects::lost_worker_is_offered_for_retry_only_in_the_chat_profile",
                "workers::lost::worker_without_a_reply_to_a_call_is_replaced",
            ],
        },
        Fault {
            action: "a gRPC client or a mesh retries UNAVAILABLE or RESOURCE_EXHAUSTED by policy",
            result: "the trailer `grpc-retry-pushback-ms: -1` wherever HTTP has `x-should-retry: false`",
            tests: &["http::error::tests::api_error_of_each_error_has_its_row"],
        },
    ],
}];
