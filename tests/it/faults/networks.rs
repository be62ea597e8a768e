//! Faults of logins and networks.

use super::{Fault, Section};

pub(super) const SECTIONS: &[Section] = &[
    Section {
        title: "A WebSocket that the network refuses",
        faults: &[
            Fault {
                action: "`https` (default); the network refuses, drops or swallows WebSockets",
                result: "nothing: no upgrade is tried",
                tests: &[
                    "upstream::refused::default_transport_never_tries_a_websocket",
                    "engine::cli::provider::tests::settings_have_a_websocket_provider_unless_the_transport_is_https",
                ],
            },
            Fault {
                action: "`websocket`; the upgrade is answered with 403, 404, 405, 500, 502 or 503, or the connection is dropped or closed after 101",
                result: "the right answer after 0.3 to 0.9 s, with a notice without an address; the next turns use HTTPS for ten minutes",
                tests: &[
                    "upstream::refused::upgrade_answered_with_403_leads_to_http",
                    "upstream::refused::upgrade_answered_with_404_leads_to_http",
                    "upstream::refused::upgrade_answered_with_405_leads_to_http",
                    "upstream::refused::upgrade_answered_with_500_leads_to_http",
                    "upstream::refused::upgrade_answered_with_502_leads_to_http",
                    "upstream::refused::upgrade_answered_with_503_leads_to_http",
                    "upstream::refused::upgrade_that_is_dropped_leads_to_http",
                    "upstream::refused::websocket_closed_at_once_leads_to_http",
                    "upstream::refused::websocket_ended_at_once_leads_to_http",
                    "engine::cli::transport::tests::a_fallback_selects_https_until_the_refusal_time_is_over",
                ],
            },
            Fault {
                action: "`websocket`; the upgrade is never answered",
                result: "the right answer after at most 2 s for each attempt; the next turns use HTTPS",
                tests: &["upstream::refused::upgrade_that_is_never_answered_leads_to_http"],
            },
            Fault {
                action: "`websocket`; the upgrade is answered with 426",
                result: "the right answer at once. Codex reports nothing, so each turn tries one upgrade",
                tests: &["upstream::refused::upgrade_answered_with_426_leads_to_http"],
            },
            Fault {
                action: "`websocket`; the WebSocket of a kept thread is closed or reset between two turns",
                result: "the next turn connects again and sends the whole conversation, without an error; if the network refuses the new WebSocket, over HTTPS",
                tests: &[
                    "upstream::kept::websocket_that_is_lost_between_turns_is_replaced",
                    "upstream::kept::websocket_that_cannot_be_replaced_leads_to_http",
                ],
            },
            Fault {
                action: "`websocket`; the network drops the WebSocket of a kept thread without a word",
                result: "the next turn runs on a fresh thread after 30 s; threads with a WebSocket are let go after 3 minutes, before most networks drop it",
                tests: &[
                    "upstream::kept::websocket_that_is_silent_costs_thirty_seconds",
                    "engine::cli::thread_transport::tests::a_websocket_limits_age_and_idle_time",
                ],
            },
            Fault {
                action: "`websocket`; the upgrade is answered with 400 after WebSockets have worked",
                result: "three turns fail with 400, because Codex reports a rejected request by the same text; the next turns use HTTPS",
                tests: &[
                    "upstream::kept::websocket_that_is_refused_with_400_after_it_worked_fails_three_turns",
                    "engine::cli::transport::tests::rejections_in_a_row_select_https_although_the_websocket_has_worked",
                ],
            },
            Fault {
                action: "`websocket`; the upgrade is answered with 400",
                result: "the first turn fails with 400, because Codex does not fall back; the next turns use HTTPS",
                tests: &[
                    "upstream::refused::upgrade_answered_with_400_fails_at_most_one_turn",
                    "engine::cli::transport::tests::a_rejection_selects_https_unless_the_websocket_has_worked",
                ],
            },
            Fault {
                action: "a 403 or 404 of an upgrade is the last error of a turn",
                result: "503 `upstream_unavailable` that names the WebSocket, not the login",
                tests: &["errors::failures_of_the_fake_are_mapped_at_both_doors"],
            },
            Fault {
                action: "a notice or error of Codex holds the upstream's address",
                result: "the sentence without the address; public links stay",
                tests: &[
                    "error::foreign_text::tests::without_addresses_keeps_the_sentence_around_an_internal_address",
                    "error::foreign_text::tests::without_addresses_keeps_public_links_and_other_text",
                ],
            },
            Fault {
                action: "config.toml names a provider of its own",
                result: "the user's provider, with the retries of `CODEX_UPSTREAM_RETRIES`",
                tests: &[
                    "engine::cli::provider::tests::settings_replace_only_the_provider_openai",
                    "engine::exec::command::tests::build_with_a_custom_provider_limits_its_retries",
                ],
            },
            Fault {
                action: "config.toml moves OpenAI (`openai_base_url`)",
                result: "turns reach that address",
                tests: &[
                    "engine::cli::provider::tests::settings_for_a_moved_openai_keep_its_address",
                    "upstream::transports::answer_is_equal_as_stream_and_whole",
                ],
            },
        ],
    },
    Section {
        title: "A connection that breaks in mid-answer",
        faults: &[
            Fault {
                action: "a WebSocket breaks after two words, the next attempt repeats the answer",
                result: "the answer once, as stream and whole",
                tests: &[
                    "errors::silent_retries::silently_repeated_answer_is_delivered_once",
                    "engine::app_server::translate::tests::silent_retry_delivers_the_answer_once",
                ],
            },
            Fault {
                action: "a WebSocket is cut at every event of an answer with text, reasoning and calls",
                result: "nothing twice: the answer, or a part of it and an error",
                tests: &[
                    "upstream::cuts::response_that_is_cut_and_repeated_is_delivered_once",
                    "upstream::cuts::response_with_a_call_that_is_cut_and_repeated_is_delivered_once",
                    "upstream::cuts::cut_without_retries_delivers_nothing_twice",
                    "upstream::cuts::model_that_continues_behind_a_cut_leaves_no_ghost_call",
                ],
            },
            Fault {
                action: "the next attempt gives another text",
                result: "the first words, then 503 `upstream_unavailable`",
                tests: &["errors::failures_of_the_fake_are_mapped_at_both_doors"],
            },
            Fault {
                action: "content_filter after a repetition",
                result: "the text once, `content_filter`",
                tests: &[
                    "engine::app_server::translate::tests::content_filter_after_silent_retries_delivers_the_text_once",
                ],
            },
            Fault {
                action: "a client tool call, a break, then the call again",
                result: "one call",
                tests: &[
                    "errors::silent_retries::call_of_a_silently_broken_response_is_delivered_once_or_not_at_all",
                ],
            },
            Fault {
                action: "a client tool call, a break, then a text",
                result: "the text, no call",
                tests: &[
                    "errors::silent_retries::call_of_a_silently_broken_response_is_delivered_once_or_not_at_all",
                    "engine::app_server::translate::tests::call_of_a_silently_broken_response_is_dropped",
                ],
            },
            Fault {
                action: "a command of the agent, then a break",
                result: "the command is reported once; the answer follows",
                tests: &[
                    "upstream::cuts::command_of_a_response_that_is_cut_runs_once",
                    "engine::app_server::translate::tests::command_of_a_silently_broken_response_is_reported",
                ],
            },
            Fault {
                action: "a response breaks off over HTTP before its first text; over exec also after it",
                result: "asked again, at most `CODEX_UPSTREAM_RETRIES` times",
                tests: &[
                    "errors::broken_responses::broken_response_is_retried_until_text_was_delivered",
                    "upstream::transports::response_that_breaks_off_is_asked_again",
                ],
            },
        ],
    },
    Section {
        title: "Errors of the upstream",
        faults: &[
            Fault {
                action: "401 for the key or the login",
                result: "503 `engine_unavailable` that tells the operator to log in",
                tests: &[
                    "errors::failures_of_the_real_cli_are_mapped_at_both_doors",
                    "errors::refused_login_is_logged_with_the_upstream_message",
                ],
            },
            Fault {
                action: "402, 403, 413, 404 or 503 over a WebSocket, which Codex retries",
                result: "the upstream's words, not `Reconnecting... 4/5`",
                tests: &[
                    "engine::app_server::translate::errors::tests::classify_known_error_returns_the_reason_of_its_row",
                ],
            },
            Fault {
                action: "429, 400, 500 and an exhausted quota, over either transport and engine",
                result: "the same codes",
                tests: &["upstream::transports::failure_of_the_upstream_is_the_same_error"],
            },
            Fault {
                action: "429 with a delay in its text (`try again in 3.2s`)",
                result: "`Retry-After: 4`. Codex 0.169 hides text and headers of a plain 429 over HTTP; then there is none",
                tests: &[
                    "limits::account::rate_limit_with_a_delay_in_its_text_has_it_as_header",
                    "errors::rate_limit_carries_the_retry_delay_of_codex",
                ],
            },
            Fault {
                action: "429 with `Retry-After: 3600`",
                result: "429 at once, without a delay: Codex would wait for an hour and hides the header. Over a WebSocket Codex does not report its first retry, so that the turn ends at its deadline",
                tests: &["errors::rate_limit_with_a_long_delay_ends_the_turn_at_once"],
            },
            Fault {
                action: "a usage limit (`usage_limit_reached`) with known windows",
                result: "429 with the reset as date in UTC, `Retry-After` and `RetryInfo`",
                tests: &[
                    "limits::account::usage_limit_with_a_known_reset_has_its_time_and_delay",
                    "limits::account::limits_of_the_real_cli_reach_status_and_error",
                ],
            },
            Fault {
                action: "a usage limit without windows, or over exec",
                result: "429 with the whole text of Codex",
                tests: &["limits::account::usage_limit_without_a_reading_keeps_the_words_of_codex"],
            },
            Fault {
                action: "`usage_not_included` over exec",
                result: "429 `insufficient_quota`",
                tests: &["errors::failures_of_the_fake_are_mapped_at_both_doors"],
            },
            Fault {
                action: "a proxy or a portal answers with a redirect, 407 or an HTML page",
                result: "503 `upstream_unavailable` that names the page, not the login",
                tests: &[
                    "engine::cli::error_messages::tests::classify_message_of_each_known_text_returns_its_error",
                ],
            },
            Fault {
                action: "the upstream's text repeats a key or a token",
                result: "the text with `<key>` in its place",
                tests: &[
                    "error::foreign_text::tests::without_addresses_replaces_keys_and_keeps_similar_words",
                ],
            },
            Fault {
                action: "the upstream is unreachable",
                result: "503 `upstream_unavailable` after `CODEX_UPSTREAM_RETRIES` + 1 attempts",
                tests: &[
                    "errors::unreachable_upstream_fails_the_turn",
                    "errors::failed_request_of_the_real_cli_is_retried",
                ],
            },
            Fault {
                action: "an `error` frame without a status over a WebSocket",
                result: "Codex ignores the frame; each attempt ends after 300 s of silence, at most at the deadline of the turn. A test would take minutes; with 3 s it answers over HTTPS after 10 s",
                tests: &[
                    "demo::websocket::tests::response_with_status_is_an_error_frame_and_the_connection_stays",
                ],
            },
            Fault {
                action: "an `error` event without a status over HTTPS",
                result: "503 `upstream_unavailable` at once",
                tests: &["upstream::transports::error_event_without_a_status_ends_the_turn_over_http"],
            },
            Fault {
                action: "a model that is retired, unknown or not part of the account",
                result: "404 `model_not_found`, `param: model`, with the settings that help",
                tests: &["models::unknown_model_of_the_upstream_names_the_settings"],
            },
            Fault {
                action: "the default model is unknown to the CLI and nobody chose it",
                result: "the CLI's own default answers; `/v1/models`, the log and the doctor tell which",
                tests: &[
                    "models::default_model_unknown_to_the_cli_stands_for_the_default_of_the_cli",
                    "models::default_model_of_the_real_cli_reaches_the_upstream",
                ],
            },
            Fault {
                action: "a client asks for a name that neither configuration nor CLI knows",
                result: "the target of the alias `*`, if there is one",
                tests: &["models::catch_all_alias_replaces_unknown_names"],
            },
            Fault {
                action: "a strict schema that OpenAI refuses",
                result: "400 with the upstream's words, over either transport",
                tests: &[
                    "upstream::transports::schema_of_the_answer_reaches_the_model_and_no_strict_one_is_changed",
                ],
            },
        ],
    },
    Section {
        title: "Kinds of logins",
        faults: &[
            Fault {
                action: "`CODEX_API_KEY` beside `cli_auth_credentials_store = \"keyring\"`",
                result: "the key is used over both engines",
                tests: &["workers::logins::login_in_the_keyring_is_refused_with_the_remedy"],
            },
            Fault {
                action: "a login in the keyring",
                result: "503 with the remedy over app-server, whose workers have another home; exec without `CODEX_CLI_HOME` uses it",
                tests: &["workers::logins::login_in_the_keyring_is_refused_with_the_remedy"],
            },
            Fault {
                action: "a login of the wrong kind for `forced_login_method` or `forced_chatgpt_workspace_id`, also beside `CODEX_API_KEY`",
                result: "503 with the remedy; no CLI starts, so that it cannot delete `auth.json`; ready again when mended",
                tests: &["workers::logins::login_that_the_configuration_forbids_starts_no_process"],
            },
            Fault {
                action: "`OPENAI_API_KEY` alone; an empty `CODEX_API_KEY`",
                result: "503 not logged in; the doctor names the variable",
                tests: &[
                    "engine::cli::login::checks::tests::examine_of_each_login_reports_finding_and_remedy",
                ],
            },
            Fault {
                action: "`auth.json` is truncated or being written",
                result: "turns wait for at most 1 s, then 503 until it parses",
                tests: &[
                    "workers::logins::half_written_login_delays_turns_and_fails_none",
                    "workers::logins::lost_login_is_reported_until_it_is_back",
                ],
            },
            Fault {
                action: "the key in `auth.json` is replaced",
                result: "the next turn uses the new key",
                tests: &[
                    "workers::logins::key_replaced_while_running_reaches_the_upstream_with_the_next_turn",
                    "workers::logins::changed_login_is_used_by_the_next_turn_and_no_turn_fails",
                ],
            },
        ],
    },
    Section {
        title: "ChatGPT logins",
        faults: &[
            Fault {
                action: "a start, `doctor` or a probe with a ChatGPT login",
                result: "no refresh of the login: the probe's own upstream refuses with 403, which no Codex version answers with a refresh",
                tests: &[
                    "upstream::refresh::start_and_doctor_refresh_no_login",
                    "engine::app_server::capabilities::tests::refuse_directive_has_the_refusal_status_and_not_401",
                ],
            },
            Fault {
                action: "`auth.json` is a mount point, has hard links or cannot be written",
                result: "the doctor and one log line warn: Codex would spend the refresh token and lose the new one; mount the folder",
                tests: &[
                    "commands::doctor::login_file_that_cannot_be_replaced_is_a_warning_of_doctor_and_log",
                    "engine::cli::login::tests::irreplaceable_file_is_found_behind_links",
                ],
            },
            Fault {
                action: "the access token has expired and `auth.json` cannot be replaced",
                result: "503 with the remedy; no CLI starts, so that it cannot spend the refresh token",
                tests: &["engine::cli::login::tests::check_of_an_expired_login_that_cannot_be_saved_fails"],
            },
            Fault {
                action: "a start or `doctor` with an access token that has expired",
                result: "the CLI refreshes it, once, as the next turn would",
                tests: &["upstream::refresh::expired_login_is_refreshed_by_the_cli"],
            },
            Fault {
                action: "a client leaves, the deadline expires or the server stops while the CLI refreshes its tokens",
                result: "if the refresh takes longer than the grace of the cancellation, the new tokens are lost and the operator must log in again: the CLI tells nobody that it refreshes. A test needs TLS and the real names",
                tests: &[],
            },
            Fault {
                action: "access tokens die under load, several workers refresh",
                result: "nothing: a turn whose login was refused before any output runs again with the new tokens, at most twice",
                tests: &[
                    "workers::logins::turns_with_tokens_that_a_refresh_ended_run_again",
                    "workers::logins::turn_refused_while_the_key_is_replaced_runs_again_with_the_same_items",
                    "workers::logins::attempts_of_a_refused_turn_are_limited",
                ],
            },
            Fault {
                action: "account or key is replaced while a turn runs whose old login is refused",
                result: "the answer, with the new login and the same items",
                tests: &[
                    "workers::logins::turn_of_a_refused_login_runs_again_with_another_one",
                    "workers::logins::turn_refused_while_the_key_is_replaced_runs_again_with_the_same_items",
                ],
            },
            Fault {
                action: "the upstream refuses a login that does not change",
                result: "503 with the remedy after one attempt",
                tests: &["workers::logins::refused_login_that_does_not_change_fails_the_turn_at_once"],
            },
            Fault {
                action: "the refresh is refused (expired, reused, revoked)",
                result: "503 with the remedy, in `/healthz` too, until the login changes or 30 s pass",
                tests: &[
                    "workers::logins::refused_tokens_are_reported_until_the_login_changes",
                    "errors::failures_of_the_fake_are_mapped_at_both_doors",
                ],
            },
            Fault {
                action: "another account, a key instead, another key, in place or by rename, under load",
                result: "the next turn uses it; running turns finish on the former worker; no turn fails",
                tests: &[
                    "workers::logins::changed_login_is_used_by_the_next_turn_and_no_turn_fails",
                    "workers::logins::running_turn_finishes_on_the_worker_with_the_former_login",
                ],
            },
            Fault {
                action: "the same account logs in again or is refreshed",
                result: "no worker is replaced",
                tests: &["workers::logins::refreshed_tokens_of_the_same_account_replace_no_worker"],
            },
            Fault {
                action: "`codex logout` while running, then a login",
                result: "503 not logged in; ready at once after the login",
                tests: &["workers::logins::lost_login_is_reported_until_it_is_back"],
            },
            Fault {
                action: "no login at the start, one appears later",
                result: "`/healthz` 503; the next turn after the login runs",
                tests: &["workers::logins::login_that_appears_after_the_start_is_used_by_the_next_turn"],
            },
            Fault {
                action: "the endpoint for refreshes is silent and the token is expired",
                result: "503; `/healthz` tells that the CLI waits for the network. A test needs TLS and the real names",
                tests: &[],
            },
        ],
    },
    Section {
        title: "Limits of the account",
        faults: &[
            Fault {
                action: "the upstream reports windows, by headers or by an event",
                result: "`GetStatus.account_limits` and `GET /v1/codex/status`; not in `/healthz`",
                tests: &[
                    "limits::account::limits_of_the_account_are_reported_by_the_status",
                    "limits::account::limits_of_the_real_cli_reach_status_and_error",
                    "demo::websocket::tests::rate_limits_are_an_event_or_headers",
                ],
            },
            Fault {
                action: "the server changes to another account",
                result: "no limits until the new account's first report",
                tests: &["limits::account::limits_of_a_former_account_are_not_reported"],
            },
            Fault {
                action: "the engine is exec, whose CLI reports none",
                result: "`account_limits` is absent",
                tests: &["limits::account::limits_of_the_account_are_reported_by_the_status"],
            },
        ],
    },
    Section {
        title: "Other requests of a login, and dead networks",
        faults: &[
            Fault {
                action: "a caller's agent asks for the operator's ChatGPT apps (mail)",
                result: "the model has no such tool unless `CODEX_ENABLE_APPS=1`",
                tests: &[
                    "engine::exec::command::tests::build_without_the_apps_setting_disables_apps",
                    "engine::app_server::launch::cli_config::tests::apps_without_the_setting_are_disabled_in_every_profile",
                ],
            },
            Fault {
                action: "config.toml enables the apps under a former name of the feature (`connectors`)",
                result: "the same: off unless `CODEX_ENABLE_APPS=1`",
                tests: &[
                    "engine::cli::provider::tests::disabled_features_include_former_names_that_the_user_has_set",
                ],
            },
            Fault {
                action: "the telemetry endpoint is dead",
                result: "nothing: telemetry is off unless config.toml turns it on",
                tests: &["engine::cli::provider::tests::telemetry_is_disabled_unless_the_user_decides"],
            },
            Fault {
                action: "the app-server does not answer in time because the network is not there yet",
                result: "turns run by exec, `warnings` in `/healthz` says so; probed again after 10 s, 20 s …",
                tests: &[
                    "engine::selector::tests::reprobe_interval_doubles_up_to_its_maximum",
                    "engine::selector::tests::is_due_depends_on_selection_program_and_time",
                ],
            },
            Fault {
                action: "no DNS, refused, swallowed or mute connections",
                result: "503 `upstream_unavailable` after `CODEX_UPSTREAM_RETRIES` retries; `warnings` in `/healthz`",
                tests: &[
                    "door::health::health_after_failures_of_the_upstream_has_a_warning",
                    "errors::unreachable_upstream_fails_the_turn",
                ],
            },
            Fault {
                action: "`wham/accounts/check` of a ChatGPT login fails or is silent",
                result: "503 `upstream_unavailable`. Codex needs this answer before the first model call and waits 15 s for it. A test needs TLS and the real names",
                tests: &[
                    "engine::cli::error_messages::tests::classify_message_of_each_known_text_returns_its_error",
                ],
            },
            Fault {
                action: "`wham/settings/user` of a ChatGPT login is silent",
                result: "the first token comes 5 s later. Codex 0.169 has no switch for this request. A test needs TLS and the real names",
                tests: &[],
            },
            Fault {
                action: "the model list is silent",
                result: "app-server: ready 5 s later, turns are not delayed. exec: turns get the list that the server read, so that only those of the first 5 s wait",
                tests: &["models::turns_over_exec_get_the_catalog_that_the_cli_printed"],
            },
            Fault {
                action: "a plan with configuration of the organisation, without a cached bundle and without a network",
                result: "503; `/healthz` and the doctor name the network, not config.toml",
                tests: &[
                    "engine::cli::login::checks::tests::file_that_cannot_be_replaced_and_managed_plan_are_warnings",
                ],
            },
        ],
    },
    Section {
        title: "The doctor",
        faults: &[
            Fault {
                action: "the login is expired, without a refresh token / with one",
                result: "FAIL / ok (the CLI refreshes it); account and plan are shown",
                tests: &["commands::doctor::doctor_of_each_login_reports_it_offline"],
            },
            Fault {
                action: "no login; a key that is empty; a keyring; a forced method",
                result: "FAIL with the remedy",
                tests: &[
                    "commands::doctor::doctor_of_each_login_reports_it_offline",
                    "engine::cli::login::checks::tests::examine_of_each_login_reports_finding_and_remedy",
                ],
            },
            Fault {
                action: "a provider with `requires_openai_auth` and no login",
                result: "FAIL with the remedy",
                tests: &["commands::doctor::doctor_of_each_login_reports_it_offline"],
            },
            Fault {
                action: "a refused key, a dead network, a usage limit or an unknown model with `--turn`",
                result: "FAIL with the remedy for this reason. Without `--turn` the doctor sends no request, so it cannot tell",
                tests: &["commands::doctor::doctor_with_turn_runs_one_turn"],
            },
            Fault {
                action: "`CODEX_UPSTREAM_TRANSPORT` beside a provider of config.toml",
                result: "a note: the setting has no effect",
                tests: &[
                    "engine::cli::provider::tests::examine_of_another_provider_warns_of_a_transport_without_effect",
                ],
            },
            Fault {
                action: "config.toml is not TOML",
                result: "`/healthz` and the doctor name line and column; they quote no line, which may hold a key",
                tests: &["engine::process::stderr_summary::tests::summarize_stderr_quotes_no_line_of_a_file"],
            },
            Fault {
                action: "a configured model that the CLI does not know",
                result: "a note",
                tests: &["commands::doctor::doctor_compares_the_models_with_the_catalog"],
            },
        ],
    },
    Section {
        title: "The scripted upstream",
        faults: &[
            Fault {
                action: "the upgrade is accepted, refused, dropped, swallowed or closed",
                result: "tests choose and count each",
                tests: &["demo::websocket::tests::upgrade_is_answered_as_set_and_counted"],
            },
            Fault {
                action: "a request continues a former response (`previous_response_id`), or an unknown one",
                result: "the merged conversation, or an error frame",
                tests: &[
                    "demo::websocket::tests::response_to_an_unknown_previous_response_is_an_error_frame",
                ],
            },
            Fault {
                action: "core scenarios over both transports and engines",
                result: "equal answers, usage and errors",
                tests: &[
                    "upstream::transports::answer_is_equal_as_stream_and_whole",
                    "upstream::transports::command_of_the_agent_runs_once_and_the_answer_follows",
                    "upstream::transports::call_of_a_client_tool_and_its_result_lead_to_the_answer",
                    "upstream::transports::cancelled_turn_ends_the_response_of_the_upstream",
                ],
            },
        ],
    },
];
