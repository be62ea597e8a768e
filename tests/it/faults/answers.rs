//! Answers that real clients expect.

use super::{Fault, Section};

pub(super) const SECTIONS: &[Section] = &[Section {
    title: "Answers",
    faults: &[
        Fault {
            action: "`stop` or `max_tokens` is met, plain, streamed or with `n`; the upstream cuts the answer (clients crash on a null usage)",
            result: "a usage: Codex's if it comes within 250 ms, else an estimate with `codex_estimated: true` (gRPC: `estimated`)",
            tests: &[
                "answers::usage_of_a_cut_answer_is_always_there",
                "answers::usage_that_codex_reports_is_not_estimated",
                "answers::usage_of_an_answer_that_the_real_cli_did_not_finish_is_estimated",
                "service::event_stream::tests::event_stream_turn_without_a_usage_has_an_estimate",
                "service::usage_estimate::tests::usage_of_long_texts_is_near_the_exact_count",
            ],
        },
        Fault {
            action: "a client parses every line of a stream as JSON; the turn has retries or warnings",
            result: "lines of JSON only: notices are comments that a request asks for with `x-codex-notices: 1`",
            tests: &[
                "answers::streams_have_no_notices_unless_asked_for",
                "http::tests::chat_stream_has_openais_shape",
            ],
        },
        Fault {
            action: "such a client, and the turn is silent for longer than `CODEX_SSE_KEEPALIVE_SECONDS`",
            result: "a comment; by `CODEX_SSE_KEEPALIVE_FORM` or `x-codex-keepalive` a chunk with an empty delta, or nothing",
            tests: &[
                "answers::keep_alives_of_a_silent_stream_have_the_form_of_the_request",
                "http::tests::chat_stream_headers_select_notices_and_keep_alives",
            ],
        },
        Fault {
            action: "the default `gpt-5-codex` is gone: the CLI does not know it, or the upstream refuses it with 400",
            result: "unconfigured, it stands for the CLI's default, without a notice; configured, 404 `model_not_found` with what to set, and a warning of the doctor",
            tests: &[
                "models::default_model_unknown_to_the_cli_stands_for_the_default_of_the_cli",
                "models::unknown_model_of_the_upstream_names_the_settings",
                "commands::doctor::doctor_compares_the_models_with_the_catalog",
            ],
        },
        Fault {
            action: "a picker reads `GET /v1/models`",
            result: "`created`, window, modalities, efforts and names of the CLI's catalog; the names with a profile as entries. The maximum of output tokens is absent, because the catalog of 0.169 has none",
            tests: &[
                "answers::model_list_has_the_facts_of_the_catalog",
                "answers::model_list_has_the_facts_of_the_real_catalog",
            ],
        },
        Fault {
            action: "`GET /v1/models/{id}` and `HEAD` of every listed model",
            result: "the entry of the list; its headers",
            tests: &["answers::model_list_has_the_facts_of_the_catalog"],
        },
        Fault {
            action: "a client decides by the words of an error: wrong key, quota, unknown model",
            result: "\"Incorrect API key provided\", \"You exceeded your current quota\", \"The model … does not exist\", then the server's own words",
            tests: &[
                "trust::access::request_without_the_token_is_refused_except_health",
                "limits::account::usage_limit_with_a_known_reset_has_its_time_and_delay",
                "engine::cli::error_messages::tests::errors_have_the_words_that_clients_look_for",
            ],
        },
        Fault {
            action: "a client asks for names of its own choice (`gpt-5-nano`, `gpt-4o-mini`)",
            result: "with the alias `*`, the model that it stands for; the answer repeats the client's name",
            tests: &[
                "answers::names_that_clients_choose_by_themselves_are_answered",
                "models::catch_all_alias_replaces_unknown_names",
            ],
        },
        Fault {
            action: "the model writes the 40 kB of a call's arguments for minutes",
            result: "keep-alives, then the whole call. Argument deltas cannot be had: the app-server protocol of 0.169 has no notification for them, and `item/started` already has the complete arguments",
            tests: &["answers::stream_that_waits_for_the_arguments_of_the_real_cli_is_alive"],
        },
        Fault {
            action: "the upstream answers 429 `usage_limit_reached`, with any plan",
            result: "the time in words, as Retry-After and RetryInfo; the plan's windows over `GetStatus` and `GET /v1/codex/status`",
            tests: &[
                "limits::account::usage_limit_of_every_plan_has_its_time_and_delay",
                "limits::account::usage_limit_of_every_plan_is_recognized_by_its_words",
                "limits::account::limits_of_the_account_are_reported_by_the_status",
                "limits::account::limits_of_the_real_cli_reach_status_and_error",
            ],
        },
        Fault {
            action: "the server is full before a turn was measured, or while many turns wait",
            result: "Retry-After of the average turn (10 s are assumed before any is measured), times the queue, divided by the slots; 1 to 60 s",
            tests: &["service::admission::tests::admission_retry_after_follows_the_turns_and_the_queue"],
        },
    ],
}];
