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
                "clients::openai_python_does_not_repeat_a_command",
                "engine::effects::tests::effects_begin_with_any_item_but_plan_and_message",
                "error::tests::status_after_effects_is_aborted_and_names_its_cause",
            ],
        },
        Fault {
            action: "the same failures before the agent acts",
            result: "429 or 503 with Retry-After (5 s for a failure of the upstream, which Codex has already retried); RESOURCE_EXHAUSTED or UNAVAILABLE with RetryInfo and the same `grpc-retry-pushback-ms`",
            tests: &["retries::effects::failure_before_an_effect_is_offered_for_retry"],
        },
        Fault {
            action: "a flood of deltas makes `codex exec` lose events, perhaps those of a command; then the upstream fails",
            result: "`failed_after_effects`, because Codex reports the loss (`event stream lagged`)",
            tests: &["retries::effects::failure_after_lost_events_is_not_offered_for_retry"],
        },
        Fault {
            action: "SIGTERM and the end of the grace, after a command and before one",
            result: "`failed_after_effects`; 503 `shutting_down` with Retry-After",
            tests: &[
                "retries::effects::drain_after_a_command_is_not_offered_for_retry",
                "retries::effects::command_before_a_drain_of_the_real_cli_runs_once",
            ],
        },
        Fault {
            action: "the worker of a turn dies",
            result: "profile agent: `failed_after_effects` as soon as the worker has got the turn, because the last messages of a process that died may be lost; profile chat, or before that: 503 `worker_lost`, retryable",
            tests: &[
                "retries::effects::lost_worker_is_offered_for_retry_only_in_the_chat_profile",
                "retries::effects::command_before_the_loss_of_a_real_worker_runs_once",
                "workers::lost::worker_without_a_reply_to_a_call_is_replaced",
            ],
        },
        Fault {
            action: "a gRPC client or a mesh retries UNAVAILABLE or RESOURCE_EXHAUSTED by policy",
            result: "the trailer `grpc-retry-pushback-ms: -1` wherever HTTP has `x-should-retry: false`",
            tests: &["http::error::tests::api_error_of_each_error_has_its_row"],
        },
        Fault {
            action: "the stream of the upstream breaks after 5 deltas, then works; the answer is not streamed",
            result: "one answer, without doubled text, with a notice; at most `CODEX_UPSTREAM_RETRIES` times, and never after the agent has acted",
            tests: &[
                "retries::whole_answers::whole_answer_whose_response_breaks_off_is_asked_again",
                "retries::whole_answers::whole_answer_that_always_breaks_is_asked_again_up_to_the_limit",
                "service::collect::tests::collect_choice_that_begins_again_has_only_the_last_attempt",
            ],
        },
        Fault {
            action: "one slot, two streams",
            result: "the second has its head at once, then keep-alives (HTTP) and heartbeats (gRPC); a failure is then an error frame. What needs no slot (validation, a full queue, an unavailable engine) keeps its status",
            tests: &["retries::silence::stream_that_waits_for_its_slot_has_head_and_keep_alive"],
        },
        Fault {
            action: "a command of 6 minutes in StreamChat behind a mesh with an idle limit of 5 minutes",
            result: "a `heartbeat` event after each silence of `CODEX_GRPC_HEARTBEAT_SECONDS`",
            tests: &[
                "retries::silence::silent_stream_has_heartbeats_over_grpc_and_comments_over_http",
                "service::event_stream::tests::event_stream_silence_has_heartbeats_with_numbers",
            ],
        },
        Fault {
            action: "100 s of work for an answer that is not streamed, behind a proxy with a limit of 60 s",
            result: "with `CODEX_JSON_KEEPALIVE_SECONDS`: status 200 and a line break for each interval, then the JSON; an error is then an error object. Errors before the first interval keep their status",
            tests: &[
                "retries::silence::slow_answer_is_preceded_by_white_space_if_enabled",
                "http::json_body::tests::respond_after_intervals_has_one_space_each_and_then_the_object",
            ],
        },
    ],
}];
